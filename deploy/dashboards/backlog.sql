-- Events that wait in the hubs, as their heartbeats said it, by five minutes of the server's time, the last {days} days.
-- {hub} is a name, or a pattern: % stands for any letters, so % alone is every hub.
SELECT time, sum(backlog) AS waiting_events, count() AS hubs
FROM (
    SELECT toStartOfFiveMinutes(received_at) AS time, gateway_id, max(backlog_events) AS backlog
    FROM gateway_status
    WHERE received_at >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
        AND gateway_id LIKE {hub:String}
    GROUP BY time, gateway_id
)
GROUP BY time
ORDER BY time
