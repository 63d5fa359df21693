-- The slowest queries of the last hour that ended well; durations in ms, sizes in bytes.
-- The document's query filters type = 'ExceptionWhileProcessing': it finds queries that failed in the middle, and none of
-- those that were slow and answered.
SELECT
    query_duration_ms,
    query,
    read_rows,
    read_bytes,
    memory_usage
FROM system.query_log
WHERE type = 'QueryFinish'
    AND event_time >= now() - INTERVAL 1 HOUR
ORDER BY query_duration_ms DESC
LIMIT 10
