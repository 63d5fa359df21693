-- Erasing a person, or giving one another pseudonym: `biogate-analytics erase` and `repseudonymise` (docs/erasure.md).
-- And what the landing zone should hold, which is what the hubs have sent without what was erased since.

-- One erasure or change of pseudonym.  While it is under way its row names the person, so that it can go on after a
-- crash; once done only the hash is left, by which rows that come late are known.
CREATE TABLE IF NOT EXISTS erasures (
    erasure   UUID,
    step      UInt32,                                       -- one more with each word on it; the newest holds
    kind      Enum8('erase'=1,'repseudonymise'=2),
    person    String,                                       -- SHA-256 of the pseudonym's text, in hex
    user_id   UUID,                                         -- zeros once it is done
    to_user   UUID,                                         -- zeros once it is done, and of an erasure
    round     UInt16,                                       -- that is under way; one more for rows that came meanwhile
    cut       DateTime64(3,'UTC'),                          -- the round takes what was ingested up to then
    counted   UInt8,                                        -- the round's rows are in erased_hours: they may go
    found     String,                                       -- what there was before, as JSON without the person
    begun_at  DateTime64(3,'UTC'),
    done_at   Nullable(DateTime64(3,'UTC'))
) ENGINE = ReplacingMergeTree(step)
ORDER BY erasure
TTL toDateTime(begun_at) + INTERVAL 2 YEAR DELETE
SETTINGS merge_with_ttl_timeout=86400;

-- What erasures took away from a device's hour: how many events, and the XOR of their ids.  It names no person.
CREATE TABLE IF NOT EXISTS erased_hours (
    gateway_id LowCardinality(String),
    device_id  LowCardinality(String),
    hour       DateTime('UTC'),
    erasure    UUID,
    round      UInt16,
    count      UInt64,
    ids_xor    UInt128
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (gateway_id, device_id, hour, erasure, round)
TTL hour + INTERVAL 1 YEAR DELETE
SETTINGS merge_with_ttl_timeout=86400;

-- Ids of erased events that may come once more: those that were ingested in the weeks before, and those that live on under
-- another person or time.  A repeat of one is erased again and not counted again.  Random numbers, kept for 90 days.
CREATE TABLE IF NOT EXISTS erased_events (
    event_id  UUID,
    erasure   UUID,
    round     UInt16,
    erased_at DateTime('UTC')
) ENGINE = ReplacingMergeTree
ORDER BY (event_id, erasure, round)
TTL erased_at + INTERVAL 90 DAY DELETE
SETTINGS merge_with_ttl_timeout=86400;

-- Empty while all is well.  Rows that came after their person was erased, from a hub's buffer or from Kafka:
-- `biogate-analytics erase --late` takes them away.  After a change of pseudonym: repeat the command.
CREATE VIEW IF NOT EXISTS erased_late AS
SELECT e.erasure AS erasure, e.kind AS kind, e.done_at AS done_at, l.gateway_id AS gateway_id, l.device_id AS device_id, l.rows AS rows,
       l.first_time AS first_time, l.last_time AS last_time, l.last_ingested AS last_ingested
FROM (
    SELECT user_id, toString(gateway_id) AS gateway_id, toString(device_id) AS device_id, count() AS rows,
           min(timestamp) AS first_time, max(timestamp) AS last_time, max(ingested_at) AS last_ingested
    FROM biometric_events
    WHERE user_id IN (SELECT user_id FROM (SELECT DISTINCT user_id FROM biometric_events)
                      WHERE lower(hex(SHA256(toString(user_id)))) IN (SELECT person FROM erasures FINAL WHERE done_at IS NOT NULL))
    GROUP BY user_id, gateway_id, device_id
) AS l
INNER JOIN (
    SELECT person, erasure, kind, done_at FROM erasures FINAL WHERE done_at IS NOT NULL
    ORDER BY done_at DESC LIMIT 1 BY person
) AS e ON e.person = lower(hex(SHA256(toString(l.user_id))))
SETTINGS final=0;

-- What should be here: what the hub said it has delivered, without what was erased since.  A hub knows of no erasure and
-- goes on counting its hours as it did, so a corrected row of `reconciliation` would last until its next word.
CREATE VIEW IF NOT EXISTS reconciliation_owed AS
SELECT gateway_id, device_id, hour, toUInt64(greatest(sum(n), 0)) AS count, groupBitXor(x) AS ids_xor, max(said) AS said_at,
       sum(e) AS erased
FROM (
    SELECT toString(gateway_id) AS gateway_id, toString(device_id) AS device_id, toDateTime(toStartOfHour(hour), 'UTC') AS hour,
           toInt64(count) AS n, ids_xor AS x, said_at AS said, toUInt8(1) AS is_word, toUInt64(0) AS e
    FROM reconciliation FINAL
    UNION ALL
    SELECT toString(gateway_id) AS gateway_id, toString(device_id) AS device_id, hour,
           -toInt64(count) AS n, ids_xor AS x, toDateTime64(0, 3, 'UTC') AS said, toUInt8(0) AS is_word, count AS e
    FROM erased_hours FINAL
)
GROUP BY gateway_id, device_id, hour
HAVING max(is_word) = 1;

-- Empty while all is well.  One row per gateway, device and hour that lacks rows (lacking > 0), holds other ids
-- than were sent (lacking = 0) or more than were sent (lacking < 0).  10 minutes for what is still on its way.
CREATE VIEW IF NOT EXISTS reconciliation_gaps AS
SELECT gateway_id, device_id, hour, sum(sent) AS sent, sum(stored) AS stored, toInt64(sent) - toInt64(stored) AS lacking,
       -- with exactly one row lacking the XOR of both sides is its id
       if(lacking = 1, UUIDNumToString(toFixedString(unhex(leftPad(hex(groupBitXor(x)), 32, '0')), 16)), '') AS lacking_id
FROM (
    SELECT gateway_id, device_id, hour, count AS sent, toUInt64(0) AS stored, ids_xor AS x, 1 AS said
    FROM reconciliation_owed WHERE said_at <= now64(3,'UTC') - INTERVAL 10 MINUTE
    UNION ALL
    SELECT toString(gateway_id) AS gateway_id, toString(device_id) AS device_id, toStartOfHour(timestamp) AS hour, toUInt64(0) AS sent, count() AS stored,
           groupBitXor(toUInt128(event_id)) AS x, 0 AS said
    FROM biometric_events FINAL GROUP BY gateway_id, device_id, hour
)
GROUP BY gateway_id, device_id, hour
HAVING max(said) = 1 AND (sent != stored OR groupBitXor(x) != 0)
SETTINGS do_not_merge_across_partitions_select_final=1;

ALTER TABLE erasures
    COMMENT COLUMN IF EXISTS erasure 'The order. Example: 3d0f3a52-9c1b-4f0e-8a77-51d6c2b4a900',
    COMMENT COLUMN IF EXISTS step 'One more with each word on the order; the newest holds. Example: 4',
    COMMENT COLUMN IF EXISTS kind 'What is done. Example: erase',
    COMMENT COLUMN IF EXISTS person 'SHA-256 of the text of the pseudonym, in hex. Example: 9b74c9897bac770ffc029102a200c5de1f2a7cb4d0a4d3b3b3f6f2b2a3f7a1c0',
    COMMENT COLUMN IF EXISTS user_id 'The person while it is under way; zeros once it is done. Example: 00000000-0000-0000-0000-000000000000',
    COMMENT COLUMN IF EXISTS to_user 'The new pseudonym while it is under way; zeros once it is done. Example: 00000000-0000-0000-0000-000000000000',
    COMMENT COLUMN IF EXISTS round 'One more for rows that came meanwhile. Example: 1',
    COMMENT COLUMN IF EXISTS cut 'The round takes what was ingested up to then. Example: 2026-11-23 14:00:00.000',
    COMMENT COLUMN IF EXISTS counted '1: what the round takes is in erased_hours. Example: 1',
    COMMENT COLUMN IF EXISTS found 'What there was before, as JSON without the person. Example: {"tables":{"biometric_events":3600},"devices":[]}',
    COMMENT COLUMN IF EXISTS begun_at 'When it was ordered. Example: 2026-11-23 14:10:00.000',
    COMMENT COLUMN IF EXISTS done_at 'When nothing was left; NULL: under way. Example: 2026-11-23 14:10:07.100';

ALTER TABLE erased_hours
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS device_id 'Name of the device. Example: strap-anna',
    COMMENT COLUMN IF EXISTS hour 'Start of the hour, in UTC. Example: 2026-11-23 14:00:00',
    COMMENT COLUMN IF EXISTS erasure 'The order that took the events. Example: 3d0f3a52-9c1b-4f0e-8a77-51d6c2b4a900',
    COMMENT COLUMN IF EXISTS round 'Which round of it. Example: 1',
    COMMENT COLUMN IF EXISTS count 'How many events it took. Example: 3600',
    COMMENT COLUMN IF EXISTS ids_xor 'XOR of their ids. Example: 15411163124853471529113541862042533136';

ALTER TABLE erased_events
    COMMENT COLUMN IF EXISTS event_id 'An event that was erased and may come once more. Example: 0b8e6a52-6d0c-5c1e-9a3b-1f6f5b8f2a10',
    COMMENT COLUMN IF EXISTS erasure 'The order that took it. Example: 3d0f3a52-9c1b-4f0e-8a77-51d6c2b4a900',
    COMMENT COLUMN IF EXISTS round 'Which round of it. Example: 1',
    COMMENT COLUMN IF EXISTS erased_at 'When. Example: 2026-11-23 14:10:05';

ALTER TABLE erased_late
    COMMENT COLUMN IF EXISTS erasure 'The order. Example: 3d0f3a52-9c1b-4f0e-8a77-51d6c2b4a900',
    COMMENT COLUMN IF EXISTS kind 'What was done. Example: erase',
    COMMENT COLUMN IF EXISTS done_at 'When it was done. Example: 2026-11-23 14:10:07.100',
    COMMENT COLUMN IF EXISTS gateway_id 'The hub that the late rows came from. Example: hub-0042',
    COMMENT COLUMN IF EXISTS device_id 'The device. Example: strap-anna',
    COMMENT COLUMN IF EXISTS rows 'How many late rows there are. Example: 12',
    COMMENT COLUMN IF EXISTS first_time 'Time of the earliest. Example: 2026-11-23 13:58:00.000',
    COMMENT COLUMN IF EXISTS last_time 'Time of the last. Example: 2026-11-23 13:58:11.000',
    COMMENT COLUMN IF EXISTS last_ingested 'When the last of them came. Example: 2026-11-23 16:20:00.000';

ALTER TABLE reconciliation_owed
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS device_id 'Name of the device. Example: strap-anna',
    COMMENT COLUMN IF EXISTS hour 'Hour of the own time of the events, in UTC. Example: 2026-11-23 14:00:00',
    COMMENT COLUMN IF EXISTS count 'Events that should be here. Example: 3600',
    COMMENT COLUMN IF EXISTS ids_xor 'XOR of their ids. Example: 15411163124853471529113541862042533136',
    COMMENT COLUMN IF EXISTS said_at 'When the hub said so. Example: 2026-11-23 15:00:05.000',
    COMMENT COLUMN IF EXISTS erased 'Events that were erased since. Example: 0';
