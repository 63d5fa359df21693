//! `POST /api/query` against the real engine: the contract, and everything that a statement may not be or cost.

use biogate_analytics::statement;
use biogate_analytics::warehouse::Limits;
use bytesize::ByteSize;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::server::{Server, problem};
use crate::rig::{empty_zone, settings};

#[tokio::test]
async fn a_statement_gives_its_rows_and_its_parameters_arrive_as_they_were_sent() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    let text = "it's \\ \"a\"\n; DROP TABLE x -- \u{1f642}";
    let asked = json!({
        "query": "SELECT {t:String} AS t, {n:Int64} AS n, {f:Float64} AS f, {b:Bool} AS b, {a:Array(String)} AS a, {i:Array(Array(Int8))} AS i",
        "parameters": {"t": text, "n": -5, "f": 36.6, "b": true, "a": [text, ""], "i": [[1], []]}
    });
    let response = server.query(&server.analyst, &asked).await;
    assert_eq!(response.status(), StatusCode::OK);
    let answer: Value = response.json().await.unwrap();
    let row = json!({"t": text, "n": -5, "f": 36.6, "b": true, "a": [text, ""], "i": [[1], []]});
    assert_eq!(answer["data"], json!([row]));
    assert_eq!(answer["rows"], 1);
    assert_eq!(answer["meta"][0], json!({"name": "t", "type": "String"}));
    // The document's own request has no parameters, or null.
    for asked in [json!({"query": "SELECT 1 AS x"}), json!({"query": "-- why;\nSELECT 1 AS x;\n", "parameters": null})]
    {
        let answer: Value = server.query(&server.analyst, &asked).await.json().await.unwrap();
        assert_eq!(answer["data"], json!([{"x": 1}]));
    }
}

#[tokio::test]
async fn nothing_that_writes_or_reaches_out_passes() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    let before = engine.sql("SHOW TABLES");
    for sql in [
        "INSERT INTO user_activity (page) VALUES ('x')",
        "DROP TABLE coverage",
        "SET readonly = 0",
        "SELECT 1; DROP TABLE coverage",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_result_rows = 0, max_execution_time = 0",
        "WITH x AS (SELECT 1) INSERT INTO user_activity (page) SELECT 'x'",
        "EXPLAIN SELECT 1 INTO OUTFILE '/tmp/biogate-x'",
        "SELECT file('/etc/passwd')",
        "SELECT `file`('/etc/passwd')",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
        "SELECT * FROM remote('127.0.0.1', 'system', 'one')",
        "SELECT * FROM eval('SELECT file(''/etc/passwd'')')",
        "SELECT * FROM merge(currentDatabase(), '.*')",
        "SELECT * FROM system.query_log",
        "SELECT query FROM `SYSTEM`.processes",
        "SHOW PROCESSLIST",
        "SELECT 1 FORMAT TSV",
        "SELECT nonsense",
        "SELECT",
    ] {
        let response = server.query(&server.analyst, &json!({"query": sql})).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{sql}");
    }
    assert_eq!(engine.sql("SHOW TABLES"), before);
    assert_eq!(engine.sql("SELECT count() FROM user_activity").trim(), "0");
}

#[tokio::test]
async fn every_table_function_of_the_engine_is_known_and_only_harmless_ones_pass() {
    let Some(engine) = empty_zone().await else { return };
    // Those that the engine lets a readonly user call and that this API does not refuse: they make rows of nothing, or
    // read the tables that the user may read anyway.
    const HARMLESS: &[&str] = &[
        "SQLStandardValues",
        "fuzzJSON",
        "generateRandom",
        "generateSeries",
        "generate_series",
        "input",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "values",
        "view",
        "viewIfPermitted",
    ];
    let readonly = engine.sql("SELECT name FROM system.table_functions WHERE allow_readonly ORDER BY name");
    let open: Vec<&str> = readonly.lines().filter(|name| !statement::is_outside(name)).collect();
    assert_eq!(open, HARMLESS, "read what a new one does, then refuse it in statement.rs or name it here");
}

#[tokio::test]
async fn an_answer_over_a_limit_is_refused_whole() {
    let Some(engine) = empty_zone().await else { return };
    let limits = Limits {
        rows: 100,
        bytes: ByteSize::kib(64),
        memory: ByteSize::mib(30),
        time: std::time::Duration::from_secs(1),
        ..Limits::default()
    };
    let server = Server::with(settings(&engine), limits, |_| {}).await;
    let answer = server.query(&server.analyst, &json!({"query": "SELECT number FROM numbers(100)"})).await;
    assert_eq!(answer.status(), StatusCode::OK);
    for sql in [
        "SELECT number FROM numbers(101)",
        "SELECT repeat('x', 70000) AS x",
        "SELECT length(groupArray(number)) AS n FROM numbers(100000000)",
    ] {
        problem(server.query(&server.analyst, &json!({"query": sql})).await, 422, "limit-exceeded").await;
    }
    let slow = "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 1";
    problem(server.query(&server.analyst, &json!({"query": slow})).await, 504, "too-slow").await;
}

#[tokio::test]
async fn a_body_that_is_no_statement_is_named_by_its_fault() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::with(settings(&engine), Limits::default(), |api| api.body = ByteSize::kib(1)).await;
    let post = || server.ask(Method::POST, "/api/query", &server.analyst);
    problem(post().body("{\"query\":\"SELECT 1\"}").send().await.unwrap(), 415, "unsupported-media-type").await;
    problem(post().header("content-type", "application/json").body("{").send().await.unwrap(), 400, "bad-request")
        .await;
    for wrong in [json!({}), json!({"query": 1}), json!({"query": "SELECT 1", "parametres": {}}), json!([])] {
        problem(post().json(&wrong).send().await.unwrap(), 422, "unprocessable").await;
    }
    let long = json!({"query": format!("SELECT '{}'", "x".repeat(2000))});
    problem(post().json(&long).send().await.unwrap(), 413, "payload-too-large").await;
    for parameters in [json!({"a-b": 1}), json!({"a": null}), json!({"a": {"b": 1}})] {
        let asked = json!({"query": "SELECT 1", "parameters": parameters});
        problem(post().json(&asked).send().await.unwrap(), 400, "bad-request").await;
    }
    let missing = json!({"query": "SELECT {a:String}"});
    problem(post().json(&missing).send().await.unwrap(), 400, "statement-refused").await;
}
