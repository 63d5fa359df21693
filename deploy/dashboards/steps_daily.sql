-- One person's steps by day of the place where they were counted, the last {days} days. Each event is an increment.
SELECT toDate(local_time) AS date, sum(value) AS steps
FROM events
WHERE user_id = {user_id:UUID}
    AND event_type = 'steps'
    AND timestamp >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
GROUP BY date
ORDER BY date
