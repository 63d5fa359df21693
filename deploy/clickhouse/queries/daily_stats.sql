-- One person's values of one type by day of the place where they were measured, the newest first, each component and unit
-- for itself: blood pressure has systolic, diastolic and mean, temperature has body, skin and ambient.
-- {user_id} UUID, {event_type} as in biometric_events, {days} how many days back.
-- The first day is cut where {days} days ago falls into it. sum means something for steps, sleep and
-- workout (seconds) only.
SELECT
    toDate(local_time) AS date,
    component,
    unit,
    count() AS readings,
    min(value) AS min,
    max(value) AS max,
    avg(value) AS avg,
    quantilesExactInclusive(0.5, 0.95)(value)[1] AS median,
    quantilesExactInclusive(0.5, 0.95)(value)[2] AS p95,
    sum(value) AS sum
FROM events
WHERE user_id = {user_id:UUID}
    AND event_type = {event_type:String}
    AND timestamp >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
GROUP BY date, component, unit
ORDER BY date DESC, component, unit
