-- Pages of the platform's own use by how often they were seen in the last {days} days; durations in seconds as they were sent.
-- The document's "User activity funnel".
SELECT
    page,
    count() AS views,
    uniqExact(user_id) AS unique_users,
    avg(duration) AS avg_duration
FROM user_activity FINAL
WHERE timestamp >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
GROUP BY page
ORDER BY views DESC, page
