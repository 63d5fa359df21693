-- What a dashboard can be asked about: every hub at once, or one.
SELECT hub
FROM (
    SELECT '%' AS hub
    UNION ALL
    SELECT toString(gateway_id) AS hub FROM gateway_now
)
ORDER BY hub
