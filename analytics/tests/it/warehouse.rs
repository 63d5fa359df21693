//! The client of the warehouse against the real engine: parameters, limits, and what a reading statement may not do.

use biogate_analytics::warehouse::{Error, Limits, Warehouse};
use bytesize::ByteSize;
use serde::Deserialize;
use serde_json::Value;

use crate::rig::{empty_zone, landing_zone, warehouse};

#[derive(Debug, PartialEq, Deserialize)]
struct Text {
    text: String,
    length: u64,
}

#[tokio::test]
async fn a_parameter_arrives_as_it_was_given() {
    let Some(engine) = empty_zone().await else { return };
    let warehouse = warehouse(&engine, Limits::default());
    for text in ["", "it's", "a\\b", "tab\tline\nend\r", "'; DROP TABLE coverage; --", "\u{1f642}"] {
        let sql = "SELECT {text:String} AS text, length(text) AS length";
        let rows: Vec<Text> = warehouse.rows(sql, &[("text", text)]).await.unwrap();
        assert_eq!(rows, [Text { text: text.to_owned(), length: text.len() as u64 }]);
    }
}

#[tokio::test]
async fn a_reading_statement_writes_nothing_and_reaches_nothing_outside() {
    let Some(engine) = empty_zone().await else { return };
    let warehouse = warehouse(&engine, Limits::default());
    for sql in [
        "INSERT INTO user_activity (page) VALUES ('x')",
        "ALTER TABLE coverage DELETE WHERE 1",
        "DROP TABLE coverage",
        "TRUNCATE TABLE coverage",
        "CREATE TABLE t (a UInt8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE t (a UInt8)",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT 1 SETTINGS max_result_rows = 0",
        "SYSTEM STOP MERGES coverage",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/x', 'CSV', 'a String')",
        "SELECT * FROM remote('127.0.0.1', 'system', 'one')",
        "SELECT * FROM s3('http://127.0.0.1:1/bucket/x.csv', 'CSV', 'a String')",
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    ] {
        let refused = warehouse.rows::<Value>(sql, &[]).await.unwrap_err();
        assert!(matches!(&refused, Error::Refused { code: 164, .. }), "{sql}: {refused}");
    }
    assert_eq!(engine.sql("SELECT count() FROM user_activity").trim(), "0");
}

#[tokio::test]
async fn what_costs_more_than_its_limit_is_refused() {
    let Some(engine) = empty_zone().await else { return };
    let small = Limits { rows: 10, bytes: ByteSize::kib(64), memory: ByteSize::mib(30), ..Limits::default() };
    let small = warehouse(&engine, small);
    let of = |error: Error| match error {
        Error::Refused { code, .. } => code,
        other => panic!("{other}"),
    };
    assert_eq!(small.rows::<Value>("SELECT number FROM numbers(10)", &[]).await.unwrap().len(), 10);
    assert_eq!(of(small.rows::<Value>("SELECT number FROM numbers(11)", &[]).await.unwrap_err()), 396);
    // The server refuses it, or this side when it has seen as many bytes.
    let wide = small.rows::<Value>("SELECT repeat('x', 100000) AS x", &[]).await.unwrap_err();
    assert!(matches!(wide, Error::Refused { code: 396, .. } | Error::TooLarge(_)), "{wide}");
    let greedy = "SELECT length(groupArray(number)) AS n FROM numbers(100000000)";
    assert_eq!(of(small.rows::<Value>(greedy, &[]).await.unwrap_err()), 241);
    // A string that is short in the server and long as JSON.
    let long = small.rows::<Value>("SELECT repeat('\\0', 20000) AS x", &[]).await.unwrap_err();
    assert!(matches!(long, Error::TooLarge(_)), "{long}");
}

#[tokio::test]
async fn a_statement_that_runs_too_long_is_ended() {
    let Some(engine) = empty_zone().await else { return };
    let short = Limits { time: std::time::Duration::from_secs(1), ..Limits::default() };
    let short = warehouse(&engine, short);
    let slow = "SELECT count() AS n FROM numbers(100000000000) WHERE sipHash64(number) = 1";
    let error = short.rows::<Value>(slow, &[]).await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: 159, .. } | Error::TooSlow { .. }), "{error}");
}

#[tokio::test]
async fn a_statement_that_writes_is_run_by_execute() {
    let Some(engine) = landing_zone().await else { return };
    let warehouse: Warehouse = warehouse(&engine, Limits::default());
    let sql =
        "INSERT INTO user_activity (event_id, timestamp, page) SELECT generateUUIDv4(), now('UTC'), {page:String}";
    warehouse.execute(sql, &[("page", "a;b")]).await.unwrap();
    assert_eq!(engine.sql("SELECT page FROM user_activity").trim(), "a;b");
}

#[tokio::test]
async fn a_format_of_its_own_is_named() {
    let Some(engine) = empty_zone().await else { return };
    let error = warehouse(&engine, Limits::default()).rows::<Value>("SELECT 1 FORMAT TSV", &[]).await.unwrap_err();
    assert!(matches!(&error, Error::Format(format) if format == "TSV"), "{error}");
}
