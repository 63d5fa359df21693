-- Queries of the last hour that failed, newest first, with the server's words: what the document's slow-query query found.
SELECT
    event_time,
    user,
    exception_code,
    exception,
    query_duration_ms,
    query
FROM system.query_log
WHERE type IN ('ExceptionBeforeStart', 'ExceptionWhileProcessing')
    AND event_time >= now() - INTERVAL 1 HOUR
ORDER BY event_time DESC
LIMIT 50
