-- Steps of every person and day of the place where they were counted. Each event is an increment, so they add up.
-- {days} how many days back.
SELECT user_id, toDate(local_time) AS date, sum(value) AS steps
FROM events
WHERE event_type = 'steps'
    AND timestamp >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
GROUP BY user_id, date
ORDER BY date DESC, user_id
