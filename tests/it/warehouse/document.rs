//! A database that the platform document's own statements made.

use biogate::forward::clickhouse::difference;

use super::*;

/// Section 4 of the document, as far as the engine takes it: `user_activity` without the setting that is none.
const DOCUMENT: [&str; 4] = [
    "CREATE TABLE biometric_events (event_id UUID, user_id UUID, event_type Enum8('heart_rate' = 1, 'blood_pressure' = 2, \
     'temperature' = 3, 'steps' = 4, 'sleep' = 5, 'workout' = 6), value Float32, unit String, timestamp DateTime, \
     device_id String, location Nullable(String), metadata JSON) ENGINE = MergeTree() PARTITION BY toYYYYMM(timestamp) \
     ORDER BY (user_id, timestamp, event_type) TTL timestamp + INTERVAL 1 YEAR SETTINGS index_granularity = 8192",
    "CREATE TABLE hourly_metrics (user_id UUID, event_type Enum8('heart_rate' = 1, 'blood_pressure' = 2, 'temperature' = 3, \
     'steps' = 4), hour DateTime, count UInt64, sum_value Float64, min_value Float32, max_value Float32, avg_value Float64) \
     ENGINE = SummingMergeTree() PARTITION BY toYYYYMM(hour) ORDER BY (user_id, event_type, hour)",
    "CREATE TABLE user_activity (user_id UUID, session_id UUID, page String, action String, timestamp DateTime, \
     duration UInt32, device String, browser String) ENGINE = ReplacingMergeTree() ORDER BY (user_id, timestamp)",
    "CREATE MATERIALIZED VIEW hourly_metrics_mv TO hourly_metrics AS SELECT user_id, event_type, toStartOfHour(timestamp) \
     as hour, count() as count, sum(value) as sum_value, min(value) as min_value, max(value) as max_value, \
     avg(value) as avg_value FROM biometric_events GROUP BY user_id, event_type, hour",
];

/// Makes it, with rows of several days; one said twice, and two under one id that say different things.
fn made_by_the_document() -> Option<Engine> {
    let engine = Engine::shared()?;
    engine.make_database();
    DOCUMENT.iter().for_each(|statement| drop(engine.sql(statement)));
    let row = |id: u32, kind: &str, value: f64, unit: &str, hour: u32| {
        format!(
            "{{\"event_id\":\"{}\",\"user_id\":\"{}\",\"event_type\":\"{kind}\",\"value\":{value},\"unit\":\"{unit}\",\
             \"timestamp\":\"2026-11-{:02} {:02}:00:00\",\"device_id\":\"old\",\"location\":null,\
             \"metadata\":{{\"by\":\"hand\"}}}}",
            Uuid::from_u128(id.into()),
            Uuid::from_u128(7),
            10 + hour / 24,
            hour % 24
        )
    };
    let mut rows: Vec<String> = (0..60).map(|n| row(n, "heart_rate", 60.0 + f64::from(n), "bpm", n)).collect();
    rows.push(row(3, "heart_rate", 63.0, "bpm", 3));
    rows.push(row(5, "heart_rate", 240.0, "bpm", 5));
    rows.push(row(100, "sleep", 27_000.0, "s", 1));
    rows.push(row(101, "temperature", 37.0, "°C", 1));
    engine.sql(&format!("INSERT INTO biometric_events FORMAT JSONEachRow {}", rows.join("\n")));
    let view = "(toUUID('00000000-0000-0000-0000-000000000007'), toUUID('00000000-0000-0000-0000-000000000008'), '/a', 'view', \
                '2026-11-10 10:00:00', 5, 'tablet', 'x')";
    engine.sql(&format!("INSERT INTO user_activity VALUES {view}"));
    Some(engine)
}

/// Every reading of the document's rows, once.
fn assert_all_there(engine: &Engine) {
    let found = engine
        .sql("SELECT event_type, unit, count(), sum(value) FROM events GROUP BY event_type, unit ORDER BY event_type");
    let heart: f64 = (0..60).map(|n| 60.0 + f64::from(n)).sum::<f64>() + 240.0;
    assert_eq!(found, format!("heart_rate\t/min\t61\t{heart}\ntemperature\tCel\t1\t37\nsleep\ts\t1\t27000\n"));
    assert_eq!(engine.sql("SELECT count() FROM document_biometric_events").trim(), "64", "the old rows stay");
    assert_eq!(
        engine.sql("SELECT count, min_value, max_value FROM hourly_metrics WHERE max_value = 240").trim(),
        "2\t65\t240"
    );
    assert_eq!(engine.sql("SELECT page_views, total_duration FROM session_metrics").trim(), "1\t5");
    assert_eq!(engine.sql("SELECT metadata.by::String FROM events LIMIT 1").trim(), "hand");
}

#[tokio::test]
async fn its_rows_are_all_there_afterwards_and_a_second_run_copies_nothing() {
    let Some(engine) = made_by_the_document() else { return };
    let schema::Applied { fitting, copied, .. } = schema::apply_and_tell(&engine.settings(), None).await.unwrap();
    assert_eq!(fitting.engine, "ReplacingMergeTree");
    let rows: Vec<_> = copied.iter().map(|copied| (copied.from.as_str(), copied.rows)).collect();
    assert_eq!(rows, [("document_biometric_events", 64), ("document_user_activity", 1)]);
    assert_all_there(&engine);
    let copied = schema::apply_and_tell(&engine.settings(), None).await.unwrap().copied;
    assert_eq!(copied, []);
    assert_all_there(&engine);
}

#[tokio::test]
async fn a_run_that_was_cut_off_at_any_step_is_finished_by_the_next() {
    let Some(engine) = made_by_the_document() else { return };
    engine.sql("DROP VIEW hourly_metrics_mv");
    engine.sql("RENAME TABLE biometric_events TO document_biometric_events");
    for statement in &schema::statements("biometric_events")[..1] {
        engine.sql(statement);
    }
    // It had copied a part, and died before it said so.
    engine.sql(
        "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id, clock, metadata) \
         SELECT event_id, user_id, toString(event_type), value, '/min', toDateTime64(timestamp, 3, 'UTC'), device_id, \
         'estimated', toString(metadata) FROM document_biometric_events WHERE event_type = 'heart_rate' AND timestamp < '2026-11-10 03:00:00'",
    );
    let copied = schema::apply_and_tell(&engine.settings(), None).await.unwrap().copied;
    assert_eq!(copied.len(), 2);
    assert_all_there(&engine);
}

#[tokio::test]
async fn a_name_that_is_taken_is_said_and_nothing_is_touched() {
    let Some(engine) = made_by_the_document() else { return };
    engine.sql("CREATE TABLE document_biometric_events (x UInt8) ENGINE = MergeTree ORDER BY x");
    let error = schema::apply(&engine.settings()).await.unwrap_err().to_string();
    assert!(error.contains("cannot step aside: document_biometric_events is there already"), "{error}");
    assert_eq!(engine.sql("SELECT count() FROM biometric_events").trim(), "64");
}

/// The document's statement for it is a syntax error; whoever mended it has a table where the landing zone has a view.
#[tokio::test]
async fn sessions_that_somebody_mended_step_aside_too_and_nothing_feeds_them_any_more() {
    let Some(engine) = made_by_the_document() else { return };
    engine.sql(
        "CREATE TABLE session_metrics (user_id UUID, session_id UUID, session_start DateTime, session_end DateTime, \
         page_views UInt64, unique_pages UInt64, total_duration UInt64) ENGINE = SummingMergeTree ORDER BY (user_id, session_id)",
    );
    engine.sql(
        "CREATE MATERIALIZED VIEW session_summary_mv TO session_metrics AS SELECT user_id, session_id, \
         min(timestamp) as session_start, max(timestamp) as session_end, count() as page_views, \
         uniqExact(page) as unique_pages, sum(duration) as total_duration FROM user_activity GROUP BY user_id, session_id",
    );
    engine.sql("INSERT INTO session_metrics (session_id, page_views) VALUES (generateUUIDv4(), 9)");
    schema::apply(&engine.settings()).await.unwrap();
    assert_all_there(&engine);
    assert_eq!(engine.sql("SELECT count(), sum(page_views) FROM document_session_metrics").trim(), "1\t9");
    assert_eq!(difference::find(&engine.settings(), None).await.unwrap(), []);
}
