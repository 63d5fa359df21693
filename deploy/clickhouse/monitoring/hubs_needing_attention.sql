-- Every hub with something to mend, and what: the hubs' alert conditions as SQL. Empty while all is well.
-- A buffer above half is not here: a heartbeat says what is free on the disk, not the buffer's limit.
SELECT gateway_id, problem, value
FROM (
    SELECT gateway_id, 'silent for this many seconds' AS problem, toFloat64(silent_seconds) AS value
    FROM hub_complete WHERE silent_seconds > 900
    UNION ALL
    SELECT gateway_id, 'nobody vouches for its clock', 1. FROM hub_complete WHERE clock != 'synced'
    UNION ALL
    SELECT gateway_id, 'rows missing in the warehouse', toFloat64(rows_lacking) FROM hub_complete WHERE rows_lacking > 0
    UNION ALL
    SELECT toString(gateway_id), 'readings set aside within an hour', toFloat64(sum(count))
    FROM gateway_gaps FINAL WHERE cause = 'refused' AND from_time >= now() - INTERVAL 1 HOUR
    GROUP BY gateway_id HAVING sum(count) > 50
)
ORDER BY gateway_id, problem
