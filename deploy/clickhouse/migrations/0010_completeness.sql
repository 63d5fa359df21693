-- Completeness: what an hour should hold, what it holds, and why it lacks what it lacks.  So that nobody takes "data
-- lost" or "not worn" for "nothing happened".  All of it is asked at once of what the hubs say (reconciliation, gaps,
-- heartbeats, coverage) and of the events: nothing is added up at insert time.

-- Every hub and hour of which anything is known.  A hub speaks of each device for itself, and at its own time, so the
-- devices are compared one by one and then put together: what one lacks and another has too much does not cancel out.
-- sent: events that the hub has delivered, without those that were erased since (0005_erasure.sql); stored: rows here of the devices that it spoke of; lacking: rows that are missing
-- here (below zero: none is missing, and there are more than were sent); unsaid: rows here of devices that it did not speak
-- of yet; lost: events that will never come; refused: readings that lie in the hub's quarantine.  lost and refused stand at
-- the hour in which a gap begins; gaps: how many gaps touch the hour, so that its later hours are named, too.
-- What was said in the last 10 minutes is not judged: rows may be on their way.
CREATE VIEW IF NOT EXISTS hub_hours AS
SELECT gateway_id, hour, sum(s) AS sent, sum(h) AS stored,
       if(sum(missing) > 0, toInt64(sum(missing)), -toInt64(sum(extra))) AS lacking,
       sum(u) AS unsaid, sum(l) AS lost, sum(r) AS refused, sum(g) AS gaps,
       toUInt8(max(is_device) = 1 AND max(waits) = 0) AS is_judged,
       multiIf(lacking > 0, concat('warehouse: rows are missing', if(lost > 0, ', and the hub lost some', '')),
               lacking < 0, 'warehouse: more rows than the hub has sent',
               sum(other_ids) > 0, 'warehouse: other rows than the hub has sent',
               lost > 0, concat('hub: ', arrayStringConcat(arraySort(groupUniqArrayIf(w, w != '')), '; ')),
               refused > 0, 'hub: readings are in its quarantine',
               gaps > 0, concat('hub: ', arrayStringConcat(arraySort(groupUniqArrayIf(if(w = '', 'refused', w), g > 0)), '; '),
                                ', counted in an earlier hour'),
               is_judged = 0, 'not judged yet', 'complete') AS why
FROM (
    SELECT gateway_id, hour, if(is_said, d_sent, 0) AS s, if(is_said, d_stored, 0) AS h, if(is_said, 0, d_stored) AS u,
           toUInt64(if(judged AND d_sent > d_stored, d_sent - d_stored, 0)) AS missing,
           toUInt64(if(judged AND d_stored > d_sent, d_stored - d_sent, 0)) AS extra,
           toUInt64(judged AND d_sent = d_stored AND ids != 0) AS other_ids, toUInt8(NOT judged) AS waits,
           toUInt8(1) AS is_device, toUInt64(0) AS l, toUInt64(0) AS r, toUInt64(0) AS g, '' AS w
    FROM (
        SELECT gateway_id, device_id, hour, sum(n_sent) AS d_sent, sum(n_stored) AS d_stored, groupBitXor(x) AS ids,
               max(said) AS is_said, is_said AND max(at) <= now64(3,'UTC') - INTERVAL 10 MINUTE AS judged
        FROM (
            SELECT gateway_id, device_id, hour, count AS n_sent, toUInt64(0) AS n_stored, ids_xor AS x, toUInt8(1) AS said, said_at AS at
            FROM reconciliation_owed
            UNION ALL
            SELECT toString(gateway_id) AS gateway_id, toString(device_id) AS device_id, toDateTime(toStartOfHour(timestamp), 'UTC') AS hour,
                   toUInt64(0) AS n_sent, count() AS n_stored, groupBitXor(toUInt128(event_id)) AS x, toUInt8(0) AS said,
                   toDateTime64(0, 3, 'UTC') AS at
            FROM biometric_events FINAL
            WHERE (gateway_id, toStartOfHour(timestamp)) IN (SELECT gateway_id, toDateTime(toStartOfHour(hour), 'UTC') FROM reconciliation FINAL)
            GROUP BY gateway_id, device_id, hour
        )
        GROUP BY gateway_id, device_id, hour
    )
    UNION ALL
    -- A span of more than a year is a clock's fault: no more hours than that are named.
    SELECT gateway_id, first + toIntervalHour(nth) AS hour, toUInt64(0) AS s, toUInt64(0) AS h, toUInt64(0) AS u, toUInt64(0) AS missing,
           toUInt64(0) AS extra, toUInt64(0) AS other_ids, toUInt8(0) AS waits, toUInt8(0) AS is_device,
           if(nth > 0 OR is_refused, 0, n) AS l, if(nth > 0 OR NOT is_refused, 0, n) AS r, toUInt64(1) AS g, if(is_refused, '', name) AS w
    FROM (
        SELECT toString(gateway_id) AS gateway_id, cause = 'refused' AS is_refused, toString(cause) AS name, count AS n,
               toDateTime(toStartOfHour(assumeNotNull(coalesce(from_time, to_time))), 'UTC') AS first,
               arrayJoin(range(toUInt32(greatest(0, least(8784, dateDiff('hour', first, assumeNotNull(coalesce(to_time, from_time)))))) + 1)) AS nth
        FROM gateway_gaps FINAL WHERE from_time IS NOT NULL OR to_time IS NOT NULL
    )
)
GROUP BY gateway_id, hour
SETTINGS do_not_merge_across_partitions_select_final=1;

-- Of each hub: up to when all that it heard is here.  NULL: its clock is not sure, or it does not know how old what waits is.
-- rows_lacking: rows that are missing here in all hours; rows beyond those sent hold nothing back.  A hub that was silent stays
-- at what it said last.  events_lost: what will never come, in all its hours; events_lost_undated: of these, what the hub
-- knows no time of (a damaged disk), so that no row of hub_hours can name it.
CREATE VIEW IF NOT EXISTS hub_complete AS
SELECT g.gateway_id AS gateway_id,
       if(heard IS NULL, NULL, least(assumeNotNull(heard), ifNull(toDateTime64(first_lacking, 3, 'UTC'), assumeNotNull(heard)))) AS complete_up_to,
       g.backlog_events AS backlog_events, g.oldest_waiting AS oldest_waiting, g.received_at AS last_heartbeat,
       g.silent_seconds AS silent_seconds, ifNull(l.rows, 0) AS rows_lacking,
       ifNull(e.lost, 0) AS events_lost, ifNull(e.undated, 0) AS events_lost_undated, g.clock AS clock, g.agent_version AS agent_version,
       multiIf(g.clock != 'synced', NULL, g.backlog_events = 0, g.at, g.oldest_waiting) AS heard
FROM (SELECT toString(gateway_id) AS gateway_id, at, toString(clock) AS clock, backlog_events, oldest_waiting, received_at, silent_seconds,
             toString(agent_version) AS agent_version FROM gateway_now) AS g
LEFT JOIN (SELECT gateway_id, minOrNullIf(hour, lacking >= 0) AS first_lacking, toNullable(toUInt64(sum(greatest(lacking, 0)))) AS rows
           FROM reconciliation_gaps GROUP BY gateway_id) AS l ON g.gateway_id = l.gateway_id
LEFT JOIN (SELECT toString(gateway_id) AS gateway_id, toNullable(sum(count)) AS lost,
                  toNullable(sumIf(count, from_time IS NULL AND to_time IS NULL)) AS undated
           FROM gateway_gaps FINAL WHERE cause != 'refused' GROUP BY gateway_id) AS e ON g.gateway_id = e.gateway_id
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
