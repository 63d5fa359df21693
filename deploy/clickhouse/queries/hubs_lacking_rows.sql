-- Every hub and hour of the last {days} days that is not complete, and why. Empty while all is well.
SELECT gateway_id, hour, sent, stored, lacking, lost, refused, why
FROM hub_hours
WHERE why NOT IN ('complete', 'not judged yet')
    AND hour >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
ORDER BY gateway_id, hour
