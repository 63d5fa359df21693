-- One person's sessions of the last {days} days, the newest first; total_duration in seconds as they were sent.
SELECT session_id, session_start, session_end, page_views, unique_pages, total_duration
FROM session_metrics
WHERE user_id = {user_id:UUID}
    AND session_end >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
ORDER BY session_start DESC, session_id
