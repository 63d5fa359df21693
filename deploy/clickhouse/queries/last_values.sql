-- The newest value of every person, type and component of the last {hours} hours, and how old it is in seconds.
SELECT
    user_id,
    event_type,
    component,
    argMax(value, (timestamp, event_id)) AS value,
    argMax(unit, (timestamp, event_id)) AS unit,
    max(timestamp) AS measured_at,
    dateDiff('second', measured_at, now64(3, 'UTC')) AS age_seconds,
    argMax(location, (timestamp, event_id)) AS location
FROM events
WHERE timestamp >= now64(3, 'UTC') - toIntervalHour({hours:UInt16})
GROUP BY user_id, event_type, component
ORDER BY user_id, event_type, component
