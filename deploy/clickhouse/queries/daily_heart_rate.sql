-- Heart rate of every person and day (UTC) of the last {days} days, in beats per minute (/min).
-- The document's "Daily heart rate stats per user".
-- Days are UTC; the first is cut where {days} days ago falls into it.
SELECT
    user_id,
    toDate(timestamp) AS date,
    count() AS readings,
    min(value) AS min_hr,
    max(value) AS max_hr,
    avg(value) AS avg_hr,
    quantilesExactInclusive(0.5, 0.95)(value)[1] AS median_hr,
    quantilesExactInclusive(0.5, 0.95)(value)[2] AS p95_hr
FROM events
WHERE event_type = 'heart_rate'
    AND component = ''
    AND timestamp >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
GROUP BY user_id, date
ORDER BY date DESC, user_id
