//! No trick shows a value of somebody whom the token may not see, and no trick gets a statement out of the tables.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::clickhouse::Engine;
use crate::rig::landing_zone;
use crate::rig::server::{ANNA, BEN, Server, problem};

/// What Anna may never read: Ben's value and Ben's page.
const SECRETS: [&str; 2] = ["177.25", "/bens-diary"];

fn fill(engine: &Engine) {
    for (user, value, page) in [(ANNA, 60.5, "/home"), (BEN, 177.25, "/bens-diary")] {
        engine.sql(&format!(
            "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id) \
             SELECT generateUUIDv4(), '{user}', 'heart_rate', {value}, '/min', now64(3, 'UTC') - 60, 'd'"
        ));
        engine.sql(&format!(
            "INSERT INTO user_activity (event_id, user_id, session_id, page, timestamp, duration) \
             SELECT generateUUIDv4(), '{user}', '{user}', '{page}', now('UTC') - 60, 10"
        ));
    }
}

/// Statements that try to get at what a plain SELECT over the platform's tables does not give.
fn tricks() -> Vec<Value> {
    let plain = [
        "SELECT 1; SELECT value FROM events",
        "SELECT 1 /* ; */ UNION ALL SELECT 2",
        "SELECT 1 -- \nUNION ALL SELECT 2",
        "SELECT 1 # x",
        "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
        "SELECT * FROM file('/etc/passwd', LineAsString)",
        "SELECT * FROM `file`('/etc/passwd', LineAsString)",
        "SELECT * FROM (SELECT * FROM (SELECT file('/etc/passwd')))",
        "SELECT 1 UNION ALL SELECT length(file('/etc/passwd'))",
        "WITH x AS (SELECT * FROM url('http://127.0.0.1:1/', LineAsString)) SELECT * FROM x",
        "SELECT * FROM remote('127.0.0.1', currentDatabase(), events)",
        "SELECT * FROM remoteSecure('127.0.0.1', currentDatabase(), events)",
        "SELECT * FROM cluster('default', system.one)",
        "SELECT * FROM merge('.*', 'events')",
        "SELECT * FROM merge(concat('sys', 'tem'), 'processes')",
        "SELECT * FROM dictionary('d')",
        "SELECT dictGet('d', 'a', 1)",
        "SELECT joinGet('j', 'a', 1)",
        "SELECT query FROM system.query_log",
        "SELECT query FROM \"system\".\"processes\"",
        "SELECT table_name FROM information_schema.tables",
        "SHOW PROCESSLIST",
        "SHOW FULL PROCESSLIST",
        "SELECT value FROM events SETTINGS additional_table_filters = {}",
        "SELECT number FROM numbers(1000000) SETTINGS max_result_rows = 0, readonly = 0",
        "SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0)",
        "EXPLAIN PLAN SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
        "DESCRIBE url('http://127.0.0.1:1/')",
        "DESCRIBE TABLE file('/etc/passwd')",
        "SELECT 1 INTO OUTFILE '/tmp/biogate-tricks'",
        "INSERT INTO FUNCTION file('/tmp/biogate-tricks') SELECT 1",
        "CREATE TABLE t ENGINE = Memory AS SELECT 1",
        "CREATE TEMPORARY TABLE t (a UInt8)",
        "ALTER TABLE biometric_events DELETE WHERE 1",
        "TRUNCATE TABLE biometric_events",
        "OPTIMIZE TABLE biometric_events FINAL",
        "SYSTEM SHUTDOWN",
        "KILL QUERY WHERE 1",
        "GRANT ALL ON *.* TO default",
        "USE default",
        "ATTACH TABLE x",
        "BACKUP TABLE events TO Disk('d', 'x')",
        "EXECUTE AS default SELECT 1",
        "SELECT sleep(3)",
    ];
    let mut tricks: Vec<Value> = plain.iter().map(|sql| json!({"query": sql})).collect();
    tricks.push(json!({"query": "SELECT * FROM {a:Identifier}.{b:Identifier}",
                       "parameters": {"a": "system", "b": "query_log"}}));
    tricks.push(
        json!({"query": "SELECT * FROM url({a:String}, LineAsString)", "parameters": {"a": "http://127.0.0.1:1/"}}),
    );
    tricks
}

#[tokio::test]
async fn no_statement_leaves_the_tables_and_nothing_is_written() {
    let Some(engine) = landing_zone().await else { return };
    fill(&engine);
    let server = Server::start(&engine).await;
    let tables = "SELECT name, total_rows FROM system.tables WHERE database = currentDatabase() ORDER BY name";
    let before = engine.sql(tables);
    for trick in tricks() {
        let answer = server.query(&server.analyst, &trick).await;
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert_eq!(status, 400, "{trick}: {text}");
        assert!(!SECRETS.iter().any(|secret| text.contains(secret)), "{trick}: {text}");
    }
    assert_eq!(engine.sql(tables), before);
    assert!(!std::path::Path::new("/tmp/biogate-tricks").exists());
}

#[tokio::test]
async fn a_value_is_never_read_as_a_part_of_the_statement() {
    let Some(engine) = landing_zone().await else { return };
    fill(&engine);
    let server = Server::start(&engine).await;
    let anna = ANNA.to_string();
    for value in [
        format!("{anna}' OR 1 = 1"),
        format!("{anna}'; SELECT 1"),
        format!("{anna}\\' OR '1"),
        format!("{anna}') UNION ALL SELECT value FROM events WHERE ('1' = '1"),
        format!("{anna}\0"),
        "{user:UUID}".to_owned(),
    ] {
        // As text it is a text that no id equals; as a UUID it is none.
        let text = json!({"query": "SELECT value FROM events WHERE toString(user_id) = {user:String}", "parameters": {"user": value}});
        let answer: Value = server.query(&server.analyst, &text).await.json().await.unwrap();
        assert_eq!(answer["data"], json!([]), "{value:?}");
        let id =
            json!({"query": "SELECT value FROM events WHERE user_id = {user:UUID}", "parameters": {"user": value}});
        let answer = server.query(&server.analyst, &id).await.text().await.unwrap();
        assert!(!answer.contains(SECRETS[0]), "{value:?}: {answer}");
    }
    let value = json!({"query": "SELECT value FROM events WHERE user_id = {user:UUID}", "parameters": {"user": anna}});
    let answer: Value = server.query(&server.analyst, &value).await.json().await.unwrap();
    assert_eq!(answer["data"], json!([{"value": 60.5}]));
}

/// The answer to a request exactly as written, which a well-behaved client would tidy.
async fn raw(server: &Server, target: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{headers}connection: close\r\n\r\n",
        server.anna
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_persons_token_shows_nobody_elses_values_by_any_trick() {
    let Some(engine) = landing_zone().await else { return };
    fill(&engine);
    let server = Server::start(&engine).await;
    let own = server.get(&format!("/api/analytics/heart-rate/{ANNA}"), &server.anna).await;
    assert_eq!(own["data"][0]["max"], 60.5);
    // Free statements are not for those who see one person, harmless ones neither.
    let mut statements = tricks();
    for sql in [
        format!("SELECT value FROM events WHERE user_id = '{ANNA}'"),
        format!("SELECT value FROM events WHERE user_id = '{ANNA}' UNION ALL SELECT value FROM events"),
        format!("SELECT (SELECT max(value) FROM events) FROM events WHERE user_id = '{ANNA}'"),
        "SELECT 1".to_owned(),
    ] {
        statements.push(json!({"query": sql}));
    }
    for statement in statements {
        problem(server.query(&server.anna, &statement).await, 403, "forbidden").await;
    }
    let (anna, ben) = (ANNA.to_string(), BEN.to_string());
    let paths = ["heart-rate", "realtime", "sessions"].map(|what| format!("/api/analytics/{what}"));
    for path in &paths {
        for target in [
            format!("{path}/{ben}"),
            format!("{path}/{anna}/../{ben}"),
            format!("{path}/{anna}%2f..%2f{ben}"),
            format!("{path}/{anna},{ben}"),
            format!("{path}/{anna}'%20OR%201=1%20OR%20user_id='{ben}"),
            format!("{path}/{anna}?user_id={ben}"),
            format!("{path}/{anna}?param_user_id={ben}"),
            format!("{path}/{anna}?tz=UTC'}})))%20UNION%20ALL%20SELECT%201"),
            format!("{path}/{{{ben}}}"),
            format!("{path}/urn:uuid:{ben}"),
            format!("{path}/{}", ben.replace('-', "")),
            format!("{path}//{ben}"),
            format!("//api/analytics/heart-rate/{ben}"),
            format!("{path}/%00{ben}"),
            path.clone(),
        ] {
            let answer = raw(&server, &target, "").await;
            let refused = ["HTTP/1.1 400", "HTTP/1.1 403", "HTTP/1.1 404"];
            assert!(refused.iter().any(|status| answer.starts_with(status)), "{target}: {answer}");
            assert!(!SECRETS.iter().any(|secret| answer.contains(secret)), "{target}: {answer}");
        }
    }
    // Headers that some front ends obey.
    let forged = format!("x-original-url: {0}/{ben}\r\nx-rewrite-url: {0}/{ben}\r\nx-user-id: {ben}\r\n", paths[0]);
    let answer = raw(&server, &format!("{}/{anna}", paths[0]), &forged).await;
    assert!(answer.contains("60.5") && !answer.contains(SECRETS[0]), "{answer}");
    // A second token beside the own one, in either place.
    let two = format!("authorization: Bearer {}\r\n", server.analyst);
    let answer = raw(&server, &format!("{}/{ben}", paths[0]), &two).await;
    assert!(answer.starts_with("HTTP/1.1 4") && !answer.contains(SECRETS[0]), "{answer}");
    assert!(
        server
            .ask(Method::GET, &format!("{}/{ben}", paths[0]), &server.clinician)
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
}
