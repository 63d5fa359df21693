-- Hours of the hubs in the last {days} days that are not complete, and why, the newest first. Empty while all is well.
-- {hub} is a name, or a pattern: % stands for any letters, so % alone is every hub.
SELECT hour, gateway_id, sent, stored, lacking, lost, refused, why
FROM hub_hours
WHERE why NOT IN ('complete', 'not judged yet')
    AND hour >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
    AND gateway_id LIKE {hub:String}
ORDER BY hour DESC, gateway_id
