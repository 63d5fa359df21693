-- What each second of a device's hours was in the last {days} days; the eight columns of seconds sum to 3,600.
SELECT gateway_id, hour, measured, not_worn, out_of_reach, hub_off, clock_unsure, aside, evicted, silent, measured_share, reason
FROM device_hours
WHERE device_id = {device_id:String}
    AND hour >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
ORDER BY gateway_id, hour
