//! The hours that people see are the events' own, whatever happened to the rows.

use super::*;

type Hour = (Uuid, String, String, String, i64);

fn expected(model: &Model) -> BTreeMap<Hour, [f64; 5]> {
    let mut hours: BTreeMap<Hour, Vec<f64>> = BTreeMap::new();
    for row in model.rows() {
        let hour = row.timestamp - row.timestamp.rem_euclid(HOUR_MS);
        let key = (row.user_id, row.event_type.name().to_owned(), row.component.to_owned(), row.unit.clone(), hour);
        hours.entry(key).or_default().push(row.value);
    }
    let numbers = |values: Vec<f64>| {
        let (count, sum) = (values.len() as f64, values.iter().sum::<f64>());
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        [count, sum, least, most, sum / count]
    };
    hours.into_iter().map(|(hour, values)| (hour, numbers(values))).collect()
}

fn check(engine: &Engine, model: &Model, after: &str) {
    let expected = expected(model);
    for view in ["hourly_metrics", "hourly_metrics_exact"] {
        let answer = engine.sql(&format!(
            "SELECT user_id, event_type, component, unit, toUnixTimestamp(hour) * 1000, count, sum_value, min_value, \
             max_value, avg_value FROM {view} FORMAT TSV"
        ));
        let found = cells(&answer);
        assert_eq!(found.len(), expected.len(), "{view} after {after}");
        for row in found {
            let hour = row[4].parse().unwrap();
            let key = (row[0].parse().unwrap(), row[1].to_owned(), row[2].to_owned(), row[3].to_owned(), hour);
            let numbers = expected.get(&key).unwrap_or_else(|| panic!("{view} after {after}: {row:?} is no hour"));
            let right = numbers.iter().zip(&row[5..]).all(|(expected, found)| close(found, *expected));
            assert!(right, "{view} after {after}: {row:?}, and not {numbers:?}");
        }
    }
    let mut ids: Vec<String> = model.rows().map(|row| row.event_id.to_string()).collect();
    ids.sort();
    assert_eq!(engine.sql("SELECT event_id FROM events ORDER BY toString(event_id)").lines().collect::<Vec<_>>(), ids);
}

/// Right at once, and right again when the hours are remembered.
fn both(engine: &Engine, model: &Model, after: &str) {
    check(engine, model, after);
    refresh(engine);
    from_memory(engine, || check(engine, model, &format!("{after}, remembered")));
}

fn refresh(engine: &Engine) {
    for view in ["hourly_metrics_mv", "hourly_watermark_mv"] {
        engine.sql(&format!("SYSTEM REFRESH VIEW {view}"));
        engine.sql(&format!("SYSTEM WAIT VIEW {view}"));
    }
}

/// With the watermark beyond the five minutes in which all of it landed: no hour is stale, so all are read as remembered.
fn from_memory(engine: &Engine, look: impl FnOnce()) {
    let upto = engine.sql("SELECT max(upto) FROM hourly_watermark");
    engine.sql("INSERT INTO hourly_watermark SELECT toStartOfHour(now64(3)) + INTERVAL 1 HOUR");
    look();
    engine.sql("TRUNCATE TABLE hourly_watermark");
    engine.sql(&format!("INSERT INTO hourly_watermark VALUES ('{}')", upto.trim()));
}

#[test]
fn hours_are_right_under_retries_other_cuts_late_data_corrections_deletions_and_merges() {
    let Some(engine) = landing_zone() else { return };
    let (anna, ben) = (Uuid::new_v4(), Uuid::new_v4());
    let mut model = Model::default();
    let day = now_ms(&engine) / HOUR_MS * HOUR_MS - 48 * HOUR_MS;
    let mut put = |engine: &Engine, rows: &[Row], token: Option<&str>, what: &str| {
        insert(engine, rows, token);
        model.learn(rows);
        both(engine, &model, what);
    };
    let batch: Vec<Row> = EventType::ALL
        .into_iter()
        .flat_map(|kind| {
            (0..3).map(move |nth| Row::new(anna, kind, 60.0 + f64::from(nth) * 20.5, day + i64::from(nth) * 1_500_000))
        })
        .collect();
    put(&engine, &batch, Some("one"), "all ten types");
    put(&engine, &batch, Some("one"), "a retry");
    assert_eq!(engine.sql("SELECT count() FROM biometric_events").trim(), batch.len().to_string(), "the token");
    put(&engine, &batch, Some("another"), "a retry under another token");
    put(&engine, &batch[7..19], None, "a replay in another cut, without a token");
    engine.sql("ALTER TABLE biometric_events MODIFY SETTING non_replicated_deduplication_window = 2");
    for nth in 0..3 {
        let row = Row::new(ben, EventType::Spo2, 97.0, day + nth);
        put(&engine, &[row], Some(&format!("overflow {nth}")), "an insert");
    }
    put(&engine, &batch, Some("one"), "a retry that the window has forgotten");
    put(&engine, &[Row::new(anna, EventType::HeartRate, 44.0, day - 40 * 24 * HOUR_MS)], None, "data of weeks ago");
    put(
        &engine,
        &[Row::new(anna, EventType::HeartRate, 71.0, day + 1)],
        None,
        "late data of an hour that is remembered",
    );
    put(&engine, &[Row { value: 99.0, ..batch[0].next() }], None, "a corrected value");
    put(&engine, &[Row { unit: "other".to_owned(), ..batch[3].next() }], None, "a corrected unit");
    let gone = Row { deleted: true, ..batch[1].next() };
    let taken = Row { user_id: ben, ..batch[1].next() };
    put(&engine, &[gone, taken.clone()], None, "a corrected person");
    let back = Row { user_id: anna, ..taken.next() };
    put(&engine, &[Row { deleted: true, ..taken.next() }, back], None, "the person corrected back");
    let moved = Row { timestamp: day - 70 * 24 * HOUR_MS, ..batch[4].next() };
    put(&engine, &[Row { deleted: true, ..batch[4].next() }, moved], None, "a time corrected into another month");
    put(&engine, &[Row { deleted: true, ..batch[6].next() }], None, "a deletion");
    let later = Row::new(anna, EventType::Weight, 80.0, day + 5);
    put(&engine, &[Row { deleted: true, ..later.next() }], None, "a deletion before its event");
    put(&engine, &[later], None, "the event that was deleted before it came");
    put(&engine, &batch, None, "the old versions once more");
    for table in ["biometric_events", "hourly_rollup"] {
        engine.sql(&format!("OPTIMIZE TABLE {table} FINAL"));
    }
    both(&engine, &model, "every merge");
}

/// The proof that the checks above read what is remembered: a lie there is seen, until a row of the hour lands.
#[test]
fn a_remembered_hour_is_trusted_only_while_nothing_of_it_landed_since() {
    let Some(engine) = landing_zone() else { return };
    let (person, day) = (Uuid::new_v4(), now_ms(&engine) / HOUR_MS * HOUR_MS - 48 * HOUR_MS);
    insert(&engine, &[Row::new(person, EventType::Spo2, 97.0, day)], None);
    refresh(&engine);
    engine.sql(
        "INSERT INTO hourly_rollup SELECT user_id, event_type, hour, [('', '%', 7, 7, 7, 7)], now64(3) FROM hourly_rollup FINAL",
    );
    let counted = || engine.sql("SELECT count, sum_value FROM hourly_metrics").trim().to_owned();
    from_memory(&engine, || assert_eq!(counted(), "7\t7"));
    insert(&engine, &[Row::new(person, EventType::Spo2, 95.0, day + 1)], None);
    assert_eq!(counted(), "2\t192");
    refresh(&engine);
    from_memory(&engine, || assert_eq!(counted(), "2\t192"));
}

/// A refresh may fail, come half way, or land after a newer one; and all that is remembered may be lost.
#[test]
fn hours_are_right_whatever_becomes_of_a_refresh() {
    let Some(engine) = landing_zone() else { return };
    let (person, day) = (Uuid::new_v4(), now_ms(&engine) / HOUR_MS * HOUR_MS - 48 * HOUR_MS);
    let mut model = Model::default();
    let first: Vec<Row> = (0..6).map(|nth| Row::new(person, EventType::HeartRate, 61.0, day + nth * HOUR_MS)).collect();
    insert(&engine, &first, None);
    model.learn(&first);
    both(&engine, &model, "a first refresh");

    let corrected: Vec<Row> = first.iter().map(|row| Row { value: 63.0, ..row.next() }).collect();
    insert(&engine, &corrected, None);
    model.learn(&corrected);
    check(&engine, &model, "no refresh at all");
    let upto = || engine.sql("SELECT max(upto) FROM hourly_watermark");
    let before = upto();
    engine.sql("SYSTEM REFRESH VIEW hourly_watermark_mv");
    engine.sql("SYSTEM WAIT VIEW hourly_watermark_mv");
    let landed = "SELECT max(upto) < (SELECT max(ingested_at) FROM biometric_events) FROM hourly_watermark";
    assert_eq!(
        engine.sql(landed).trim(),
        "1",
        "a watermark moved from {before} to {} over hours that nobody remembers",
        upto()
    );
    check(&engine, &model, "a watermark without its refresh");

    engine.sql(
        "INSERT INTO hourly_rollup SELECT user_id, event_type, hour, [('', 'old', 7, 7, 7, 7)], covers - INTERVAL 1 MINUTE \
         FROM hourly_rollup FINAL",
    );
    both(&engine, &model, "an older refresh that lands last");
    engine.sql("OPTIMIZE TABLE hourly_rollup FINAL");
    both(&engine, &model, "its merge");
    for table in ["hourly_rollup", "hourly_watermark"] {
        engine.sql(&format!("TRUNCATE TABLE {table}"));
    }
    both(&engine, &model, "the loss of all that was remembered");
    // As after an INSERT that took longer than a refresh waits for: the watermark is past it, and nobody remembers it.
    from_memory(&engine, || {
        engine.sql("TRUNCATE TABLE hourly_rollup");
        engine.sql("SYSTEM REFRESH VIEW hourly_sweep_mv");
        engine.sql("SYSTEM WAIT VIEW hourly_sweep_mv");
        check(&engine, &model, "the nightly sweep");
    });
}

#[test]
fn what_comes_is_seen_at_once_and_not_when_it_is_remembered() {
    let Some(engine) = landing_zone() else { return };
    let row = Row::new(Uuid::new_v4(), EventType::HeartRate, 70.0, now_ms(&engine) - 1_000);
    insert(&engine, &[row], None);
    assert_eq!(engine.sql("SELECT count, avg_value FROM hourly_metrics").trim(), "1\t70");
}

#[test]
fn sessions_count_each_page_view_once() {
    let Some(engine) = landing_zone() else { return };
    let (user, session) = (Uuid::new_v4(), Uuid::new_v4());
    let view = |id: Uuid, page: &str, second: u32, version: u32| {
        json!({"event_id": id, "user_id": user, "session_id": session, "page": page, "action": "view",
               "timestamp": format!("2026-11-20 10:00:{second:02}.000"), "duration": 10, "device": "tablet",
               "browser": "x", "version": version})
    };
    let ids: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    // Two pages in the same second, and one that was seen before.
    let views = [view(ids[0], "/a", 1, 1), view(ids[1], "/b", 1, 1), view(ids[2], "/a", 31, 1)];
    for rows in [&views[..], &views[1..], &[view(ids[2], "/c", 31, 2)]] {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        engine.sql(&format!("INSERT INTO user_activity FORMAT JSONEachRow {lines}"));
    }
    let found =
        engine.sql("SELECT page_views, unique_pages, total_duration, session_end - session_start FROM session_metrics");
    assert_eq!(found.trim(), "3\t3\t30\t30");
}
