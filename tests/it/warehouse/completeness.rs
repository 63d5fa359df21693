//! "No data", "data lost" and "not worn" are told apart.

use super::*;

fn say(engine: &Engine, gateway: &str, hour: i64, rows: &[Row]) {
    say_of(engine, gateway, "strap", hour, rows, 1);
}

fn say_of(engine: &Engine, gateway: &str, device: &str, hour: i64, rows: &[Row], version: u32) {
    let xor = rows.iter().fold(0, |xor, row| xor ^ row.event_id.as_u128());
    engine.sql(&format!(
        "INSERT INTO reconciliation (gateway_id, device_id, hour, count, ids_xor, version) VALUES \
         ('{gateway}', '{device}', fromUnixTimestamp64Milli({hour}), {}, {xor}, {version})",
        rows.len()
    ));
}

fn beat(engine: &Engine, gateway: &str, at: i64, clock: &str, backlog: u64, oldest: &str) {
    engine.sql(&format!(
        "INSERT INTO gateway_status (gateway_id, at, agent_version, clock, backlog_events, oldest_waiting) VALUES \
         ('{gateway}', fromUnixTimestamp64Milli({at}), '1', '{clock}', {backlog}, {oldest})"
    ));
}

#[test]
fn a_deleted_row_is_named_by_its_hour_and_nothing_else_is() {
    let Some(engine) = landing_zone() else { return };
    let hour = now_ms(&engine) / HOUR_MS * HOUR_MS - 5 * HOUR_MS;
    let user = Uuid::new_v4();
    let hours: Vec<Vec<Row>> = (0..3)
        .map(|nth| {
            (0..20).map(|n| Row::new(user, EventType::HeartRate, 70.0, hour + nth * HOUR_MS + n * 1000)).collect()
        })
        .collect();
    for (nth, rows) in hours.iter().enumerate() {
        insert(&engine, rows, None);
        say(&engine, "hub-1", hour + nth as i64 * HOUR_MS, rows);
    }
    let beat_at = now_ms(&engine) - 2_000;
    beat(&engine, "hub-1", beat_at, "synced", 0, "NULL");
    let whys = || engine.sql("SELECT sent, stored, lacking, why FROM hub_hours ORDER BY hour").trim().to_owned();
    let complete = "20\t20\t0\tcomplete";
    assert_eq!(whys(), [complete; 3].join("\n"));
    let up_to = || {
        engine.sql("SELECT toUnixTimestamp64Milli(complete_up_to), rows_lacking FROM hub_complete").trim().to_owned()
    };
    assert_eq!(up_to(), format!("{beat_at}\t0"));

    let deleted = Row { deleted: true, ..hours[1][7].next() };
    insert(&engine, &[deleted], None);
    assert_eq!(whys(), [complete, "20\t19\t1\twarehouse: rows are missing", complete].join("\n"));
    assert_eq!(up_to(), format!("{}\t1", hour + HOUR_MS));
    let named = engine.sql("SELECT lacking_id FROM reconciliation_gaps");
    assert_eq!(named.trim(), hours[1][7].event_id.to_string());

    // Another row in its place: as many, and not the same.
    insert(&engine, &[Row::new(user, EventType::HeartRate, 70.0, hour + HOUR_MS + 7_000)], None);
    assert_eq!(whys().lines().nth(1), Some("20\t20\t0\twarehouse: other rows than the hub has sent"));
}

/// A quiet thermometer's hour is said while a strap of the same hub still streams.
#[test]
fn devices_of_a_hub_are_judged_each_for_itself() {
    let Some(engine) = landing_zone() else { return };
    let hour = now_ms(&engine) / HOUR_MS * HOUR_MS - 5 * HOUR_MS;
    let user = Uuid::new_v4();
    let strap: Vec<Row> = (0..20).map(|n| Row::new(user, EventType::HeartRate, 70.0, hour + n * 1000)).collect();
    let thermometer = [Row::new(user, EventType::Temperature, 36.6, hour + 500)];
    insert(&engine, &strap[..19], None);
    engine.sql(&format!(
        "INSERT INTO biometric_events (event_id, user_id, event_type, component, value, unit, timestamp, device_id, gateway_id) \
         VALUES ('{}', '{user}', 'temperature', 'body', 36.6, 'Cel', fromUnixTimestamp64Milli({}), 'thermometer', 'hub-1')",
        thermometer[0].event_id,
        thermometer[0].timestamp
    ));
    let found = || engine.sql("SELECT sent, stored, lacking, unsaid, is_judged, why FROM hub_hours").trim().to_owned();
    say_of(&engine, "hub-1", "thermometer", hour, &thermometer, 1);
    assert_eq!(found(), "1\t1\t0\t19\t0\tnot judged yet");
    say(&engine, "hub-1", hour, &strap[..19]);
    assert_eq!(found(), "20\t20\t0\t0\t1\tcomplete");

    // One row of the strap is lost, and the thermometer has one that nobody sent: as many rows as were sent.
    say_of(&engine, "hub-1", "strap", hour, &strap, 2);
    say_of(&engine, "hub-1", "thermometer", hour, &[], 2);
    assert_eq!(found(), "20\t20\t1\t0\t1\twarehouse: rows are missing");
}

#[test]
fn a_gap_is_named_in_each_hour_that_it_touches_and_counted_once() {
    let Some(engine) = landing_zone() else { return };
    let hour = now_ms(&engine) / HOUR_MS * HOUR_MS - 5 * HOUR_MS;
    engine.sql(&format!(
        "INSERT INTO gateway_gaps (gateway_id, gap, device_id, cause, from_time, to_time, count, why, version) VALUES \
         ('hub-1', generateUUIDv4(), NULL, 'evicted', fromUnixTimestamp64Milli({}), fromUnixTimestamp64Milli({}), 12, 'full', 1), \
         ('hub-1', generateUUIDv4(), NULL, 'damaged', NULL, NULL, 3, 'disk', 1), \
         ('hub-1', generateUUIDv4(), NULL, 'refused', NULL, NULL, 40, 'profile', 1)",
        hour + 3_599_999,
        hour + 2 * HOUR_MS
    ));
    let found = engine.sql("SELECT toUnixTimestamp(hour), lost, gaps, why FROM hub_hours ORDER BY hour");
    let later = "0\t1\thub: evicted, counted in an earlier hour";
    let seconds = |nth: i64| hour / 1000 + nth * 3600;
    let expected = format!("{}\t12\t1\thub: evicted\n{}\t{later}\n{}\t{later}\n", seconds(0), seconds(1), seconds(2));
    assert_eq!(found, expected);
    // No hour can name what has no time: the hub does.
    beat(&engine, "hub-1", now_ms(&engine), "synced", 0, "NULL");
    beat(&engine, "hub-2", now_ms(&engine), "synced", 0, "NULL");
    let found = engine.sql("SELECT events_lost, events_lost_undated FROM hub_complete ORDER BY gateway_id");
    assert_eq!(found, "15\t3\n0\t0\n");
}

#[test]
fn more_rows_than_were_sent_hold_no_hub_back() {
    let Some(engine) = landing_zone() else { return };
    let hour = now_ms(&engine) / HOUR_MS * HOUR_MS - 5 * HOUR_MS;
    let rows: Vec<Row> = (0..3).map(|n| Row::new(Uuid::new_v4(), EventType::Spo2, 97.0, hour + n * 1000)).collect();
    insert(&engine, &rows, None);
    say(&engine, "hub-1", hour, &rows[..2]);
    let at = now_ms(&engine) - 1_000;
    beat(&engine, "hub-1", at, "synced", 0, "NULL");
    let found = engine.sql("SELECT toUnixTimestamp64Milli(complete_up_to), rows_lacking FROM hub_complete");
    assert_eq!(found, format!("{at}\t0\n"));
    let found = engine.sql("SELECT lacking, why FROM hub_hours");
    assert_eq!(found, "-1\twarehouse: more rows than the hub has sent\n");
}

#[test]
fn what_the_hub_lost_or_holds_back_is_said_as_that() {
    let Some(engine) = landing_zone() else { return };
    let hour = now_ms(&engine) / HOUR_MS * HOUR_MS - 5 * HOUR_MS;
    engine.sql(&format!(
        "INSERT INTO gateway_gaps (gateway_id, gap, device_id, cause, from_time, to_time, count, why, version) VALUES \
         ('hub-1', generateUUIDv4(), 'strap', 'evicted', fromUnixTimestamp64Milli({hour}), NULL, 12, 'full', 1), \
         ('hub-1', generateUUIDv4(), 'strap', 'damaged', fromUnixTimestamp64Milli({hour}), NULL, 3, 'disk', 1), \
         ('hub-1', generateUUIDv4(), 'strap', 'refused', fromUnixTimestamp64Milli({}), NULL, 5, 'profile', 1)",
        hour + HOUR_MS
    ));
    let found = engine.sql("SELECT sent, stored, lost, refused, why FROM hub_hours ORDER BY hour");
    assert_eq!(found, "0\t0\t15\t0\thub: damaged; evicted\n0\t0\t0\t5\thub: readings are in its quarantine\n");
    // What waits in the hub is not here yet; whose clock is unsure cannot say since when.
    let at = now_ms(&engine) - 5_000;
    beat(&engine, "hub-1", at, "synced", 7, &format!("fromUnixTimestamp64Milli({hour})"));
    beat(&engine, "hub-2", at, "estimated", 0, "NULL");
    beat(&engine, "hub-3", at, "synced", 7, "NULL");
    let found = engine.sql("SELECT gateway_id, toUnixTimestamp64Milli(complete_up_to), backlog_events FROM hub_complete ORDER BY gateway_id");
    assert_eq!(found, format!("hub-1\t{hour}\t7\nhub-2\t\\N\t0\nhub-3\t\\N\t7\n"));
}

#[test]
fn the_seconds_of_a_devices_hour_are_explained() {
    let Some(engine) = landing_zone() else { return };
    engine.sql(
        "INSERT INTO coverage (gateway_id, device_id, hour, measured, not_worn, out_of_reach, hub_off, clock_unsure, aside, \
         evicted, silent, version) VALUES \
         ('hub-1', 'a', '2026-11-20 10:00:00', 3600, 0, 0, 0, 0, 0, 0, 0, 1), \
         ('hub-1', 'b', '2026-11-20 10:00:00', 600, 2000, 1000, 0, 0, 0, 0, 0, 1), \
         ('hub-1', 'c', '2026-11-20 10:00:00', 0, 0, 0, 0, 0, 0, 1800, 1800, 1), \
         ('hub-1', 'c', '2026-11-20 10:00:00', 0, 0, 0, 0, 0, 0, 0, 3600, 2)",
    );
    let found = engine.sql("SELECT device_id, measured_share, reason FROM device_hours ORDER BY device_id");
    assert_eq!(found, "a\t1\tmeasured\nb\t0.16666666666666666\tnot worn\nc\t0\tin reach and silent\n");
}
