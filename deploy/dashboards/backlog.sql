-- Events that wait in the hubs, as their heartbeats said it, by five minutes of the server's time, the last {days} days.
SELECT time, sum(backlog) AS waiting_events, count() AS hubs
FROM (
    SELECT toStartOfFiveMinutes(received_at) AS time, gateway_id, max(backlog_events) AS backlog
    FROM gateway_status
    WHERE received_at >= now() - toIntervalDay({days:UInt16})
    GROUP BY time, gateway_id
)
GROUP BY time
ORDER BY time
