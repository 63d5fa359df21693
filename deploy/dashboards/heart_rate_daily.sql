-- One person's heart rate by day of the place where it was measured, in /min, the last {days} days.
SELECT
    toDate(local_time) AS date,
    count() AS readings,
    min(value) AS min_hr,
    round(avg(value), 1) AS avg_hr,
    quantilesExactInclusive(0.5, 0.95)(value)[1] AS median_hr,
    quantilesExactInclusive(0.5, 0.95)(value)[2] AS p95_hr,
    max(value) AS max_hr
FROM events
WHERE user_id = {user_id:UUID}
    AND event_type = 'heart_rate'
    AND component = ''
    AND timestamp >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
GROUP BY date
ORDER BY date
