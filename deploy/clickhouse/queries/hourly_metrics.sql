-- One person's hours of the last {days} days: every type, component and unit.
-- The document's "Use materialized views for common aggregations"; for one person the exact view is the fastest.
SELECT event_type, component, unit, hour, count, sum_value, min_value, max_value, avg_value
FROM hourly_metrics_exact
WHERE user_id = {user_id:UUID}
    AND hour >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
ORDER BY event_type, component, unit, hour
