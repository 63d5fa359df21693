-- Every hub: up to when all that it heard is here, what waits in it, how long it has been silent (seconds), and how many
-- events it lost for good (undated: of these, what no hour can name).
-- {hub} is a name, or a pattern: % stands for any letters, so % alone is every hub.
SELECT gateway_id, complete_up_to, backlog_events, oldest_waiting, last_heartbeat, silent_seconds, rows_lacking, clock,
    events_lost, events_lost_undated
FROM hub_complete
WHERE gateway_id LIKE {hub:String}
ORDER BY silent_seconds DESC, gateway_id
