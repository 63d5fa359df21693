-- Gives the delivered events of one device to whoever wore it, as device_assignments says: after a change of the past
-- (`biogate assign ... --from TIME`).  One statement; it may run again, while events come in, or twice at once: what is
-- right already is not touched, so a second run changes nothing.
--
--   clickhouse-client --database biometrics --param_device strap-anna \
--       --param_from '2026-11-25 13:00:00' --param_until '2026-11-25 16:00:00' --queries-file reassign.sql
--
-- Times are UTC; `until` is not included.  Every hub's events follow that hub's own statements, and events of an instant
-- that no statement speaks of stay as they are.  An event that changes hands becomes two rows, as migrations/0001_landing_zone.sql asks: the
-- old key with version+1 and deleted=1, and the new row with the same event_id.  The room stays.  The hourly views follow
-- by themselves; reconciliation counts events and not persons.
INSERT INTO biometric_events (event_id, user_id, event_type, component, value, unit, timestamp, period_start, tz_offset_min,
                              device_id, gateway_id, location, clock, metadata, version, deleted)
SELECT event_id, side.1, event_type, component, value, unit, timestamp, period_start, tz_offset_min,
       device_id, gateway_id, location, clock, metadata, version + 1, side.2
FROM (
    SELECT event.*,
           -- the first of the statements, the strongest first, that speaks of the event's instant
           arrayFilter(s -> s.1 <= event.timestamp AND event.timestamp < s.2, worn.statements) AS speaking
    FROM (
        SELECT event_id, user_id, event_type, component, value, unit, timestamp, period_start, tz_offset_min,
               device_id, gateway_id, location, clock, metadata, version
        FROM biometric_events FINAL
        WHERE device_id = {device:String}
          AND timestamp >= {from:DateTime64(3,'UTC')} AND timestamp < {until:DateTime64(3,'UTC')}
    ) AS event
    INNER JOIN (
        SELECT gateway_id,
               arrayMap(s -> (s.3, s.4, s.5), arraySort(s -> (s.1, s.2), groupArray((
                   isNull(valid_from), if(isNull(valid_from), toInt64(version), -toInt64(version)),
                   ifNull(valid_from, toDateTime64('1900-01-01 00:00:00', 3, 'UTC')),
                   ifNull(valid_until, toDateTime64('2299-12-31 00:00:00', 3, 'UTC')),
                   user_id)))) AS statements
        FROM device_assignments FINAL
        WHERE device_id = {device:String} AND says != 'place'
        GROUP BY gateway_id
    ) AS worn ON event.gateway_id = worn.gateway_id
)
ARRAY JOIN [(user_id, 1), (speaking[1].3, 0)] AS side
WHERE notEmpty(speaking) AND speaking[1].3 != user_id
SETTINGS insert_deduplicate=0, do_not_merge_across_partitions_select_final=1;
