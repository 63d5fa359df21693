-- Hours of every device in the last {days} days by what they were: measured, or why not.
-- {hub} is a name, or a pattern: % stands for any letters, so % alone is every hub.
SELECT
    toDate(hour) AS date,
    round(sum(measured) / 3600, 2) AS measured_hours,
    round(sum(not_worn) / 3600, 2) AS not_worn_hours,
    round(sum(out_of_reach) / 3600, 2) AS out_of_reach_hours,
    round(sum(hub_off) / 3600, 2) AS hub_off_hours,
    round(sum(evicted) / 3600, 2) AS lost_hours,
    round(sum(clock_unsure + aside + silent) / 3600, 2) AS other_hours
FROM device_hours
WHERE hour >= now64(3, 'UTC') - toIntervalDay({days:UInt16})
    AND gateway_id LIKE {hub:String}
GROUP BY date
ORDER BY date
