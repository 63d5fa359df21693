-- Whom a dashboard can be asked about: everybody with an event in the last 90 days.
SELECT toString(user_id) AS person
FROM events
WHERE timestamp >= now64(3, 'UTC') - toIntervalDay(90)
GROUP BY person
ORDER BY person
