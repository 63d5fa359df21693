-- Completeness: what an hour should hold, what it holds, and why it lacks what it lacks.  So that nobody takes "data
-- lost" or "not worn" for "nothing happened".  All of it is asked at once of what the hubs say (reconciliation, gaps,
-- heartbeats, coverage) and of the events: nothing is added up at insert time.

-- Every hub and hour of which anything is known.  sent: events that the hub has delivered; stored: of these, in the table;
-- lacking: rows that are missing here (below zero: more than were sent); lost: events that will never come; refused:
-- readings that lie in the hub's quarantine.  What was said in the last 10 minutes is not judged: rows may be on their way.
CREATE VIEW IF NOT EXISTS hub_hours AS
SELECT gateway_id, hour, sum(s) AS sent, sum(h) AS stored, toInt64(sent) - toInt64(stored) AS lacking,
       sum(l) AS lost, sum(r) AS refused, max(judged) AS is_judged,
       multiIf(is_judged = 1 AND lacking > 0, concat('warehouse: rows are missing', if(lost > 0, ', and the hub lost some', '')),
               is_judged = 1 AND lacking < 0, 'warehouse: more rows than the hub has sent',
               is_judged = 1 AND sum(other_ids) > 0, 'warehouse: other rows than the hub has sent',
               lost > 0, concat('hub: ', arrayStringConcat(arraySort(groupUniqArrayIf(w, w != '')), '; ')),
               refused > 0, 'hub: readings are in its quarantine',
               is_judged = 0, 'not judged yet', 'complete') AS why
FROM (
    SELECT toString(gateway_id) AS gateway_id, hour, count AS s, toUInt64(0) AS h, toUInt64(0) AS l, toUInt64(0) AS r, '' AS w,
           toUInt8(said_at <= now64(3,'UTC') - INTERVAL 10 MINUTE) AS judged, toUInt64(0) AS other_ids
    FROM (SELECT gateway_id, toDateTime(hour, 'UTC') AS hour, sum(count) AS count, max(said_at) AS said_at
          FROM (SELECT gateway_id, hour, count, said_at FROM reconciliation_owed)
          GROUP BY gateway_id, hour)
    UNION ALL
    SELECT toString(gateway_id) AS gateway_id, toDateTime(toStartOfHour(timestamp), 'UTC') AS hour, toUInt64(0) AS s, count() AS h,
           toUInt64(0) AS l, toUInt64(0) AS r, '' AS w, toUInt8(0) AS judged, toUInt64(0) AS other_ids
    FROM biometric_events FINAL
    WHERE (gateway_id, toStartOfHour(timestamp)) IN (SELECT gateway_id, toDateTime(toStartOfHour(hour), 'UTC') FROM reconciliation FINAL)
    GROUP BY gateway_id, hour
    UNION ALL
    SELECT gateway_id, toDateTime(hour, 'UTC') AS hour, toUInt64(0) AS s, toUInt64(0) AS h, toUInt64(0) AS l, toUInt64(0) AS r, '' AS w,
           toUInt8(0) AS judged, toUInt64(lacking = 0) AS other_ids
    FROM reconciliation_gaps
    UNION ALL
    SELECT toString(gateway_id) AS gateway_id, toDateTime(toStartOfHour(assumeNotNull(from_time)), 'UTC') AS hour, toUInt64(0) AS s,
           toUInt64(0) AS h, if(cause = 'refused', 0, count) AS l, if(cause = 'refused', count, 0) AS r,
           if(cause = 'refused', '', toString(cause)) AS w, toUInt8(0) AS judged, toUInt64(0) AS other_ids
    FROM gateway_gaps FINAL WHERE from_time IS NOT NULL
)
GROUP BY gateway_id, hour
SETTINGS do_not_merge_across_partitions_select_final=1;

-- Of each hub: up to when all that it heard is here.  NULL: its clock is not sure, or it does not know how old what waits is.
-- rows_lacking: rows that are missing here in all hours.  A hub that was silent stays at what it said last.
CREATE VIEW IF NOT EXISTS hub_complete AS
SELECT g.gateway_id AS gateway_id,
       if(heard IS NULL, NULL, least(assumeNotNull(heard), ifNull(toDateTime64(first_lacking, 3, 'UTC'), assumeNotNull(heard)))) AS complete_up_to,
       g.backlog_events AS backlog_events, g.oldest_waiting AS oldest_waiting, g.received_at AS last_heartbeat,
       g.silent_seconds AS silent_seconds, ifNull(l.rows, 0) AS rows_lacking, g.clock AS clock, g.agent_version AS agent_version,
       multiIf(g.clock != 'synced', NULL, g.backlog_events = 0, g.at, g.oldest_waiting) AS heard
FROM (SELECT toString(gateway_id) AS gateway_id, at, toString(clock) AS clock, backlog_events, oldest_waiting, received_at, silent_seconds,
             toString(agent_version) AS agent_version FROM gateway_now) AS g
LEFT JOIN (SELECT gateway_id, toNullable(min(hour)) AS first_lacking, toNullable(toUInt64(sum(greatest(lacking, 0)))) AS rows
           FROM reconciliation_gaps GROUP BY gateway_id) AS l ON g.gateway_id = l.gateway_id
SETTINGS join_use_nulls=1;

-- What the 3,600 seconds of each device's hour were, and in words what most of those without a value were.
CREATE VIEW IF NOT EXISTS device_hours AS
SELECT toString(gateway_id) AS gateway_id, toString(device_id) AS device_id, toDateTime(hour, 'UTC') AS hour,
       measured, not_worn, out_of_reach, hub_off, clock_unsure, aside, evicted, silent,
       measured / 3600 AS measured_share,
       if(measured >= 3600, 'measured', transform(
           arrayMax([(not_worn, 7), (out_of_reach, 6), (hub_off, 5), (clock_unsure, 4), (aside, 3), (evicted, 2), (silent, 1)]).2,
           [7, 6, 5, 4, 3, 2, 1],
           ['not worn', 'out of reach', 'the hub was off', 'nobody knew the time', 'set aside in the hub', 'lost in the hub', 'in reach and silent'],
           '')) AS reason
FROM coverage FINAL;
