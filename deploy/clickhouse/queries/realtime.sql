-- Events of the last {minutes} minutes by minute and type; avg_value in the type's unit, each component for itself.
-- The document's "Real-time dashboard query".
SELECT
    toStartOfMinute(timestamp) AS minute,
    event_type,
    component,
    count() AS events,
    avg(value) AS avg_value
FROM events
WHERE timestamp >= now64(3, 'UTC') - toIntervalMinute({minutes:UInt16})
GROUP BY minute, event_type, component
ORDER BY minute, event_type, component
