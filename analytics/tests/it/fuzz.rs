//! The Query API under a client that tries everything its description allows, and much that it does not: schemathesis, with
//! the same seed each time. No answer is a server's fault, each is as described, nobody sees somebody else's values, and
//! nothing is written.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use biogate::forward::clickhouse::schema;
use biogate_analytics::warehouse::Limits;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::clickhouse::{Engine, root};
use crate::rig::server::{ANNA, BEN, Server};
use crate::rig::{missing, settings};

/// Whom nobody's token names.
const CARLA: Uuid = Uuid::from_u128(0xca61a);

/// What stands in rows of everybody but Anna, and nowhere else.
const MARKS: [&str; 5] =
    ["163.5625", "strap-of-ben", "room-of-ben", "/page-of-ben", "be11be11-0000-4000-8000-000000000001"];

/// One run takes ten seconds; one that hangs ends after this long.
const AT_MOST: Duration = Duration::from_secs(120);

/// An engine with a landing zone of rows, in which nothing changes by itself.
fn seeded() -> Option<Engine> {
    let engine = Engine::shared()?;
    engine.make_database();
    let is_clockwork = |statement: &&String| statement.contains("REFRESH EVERY");
    let statements = schema::statements("biometric_events");
    statements.iter().filter(|statement| !is_clockwork(statement)).for_each(|statement| drop(engine.sql(statement)));
    for kind in biogate::observation::EventType::ALL {
        for (user, value, of) in [(ANNA, "64 + number", "anna"), (BEN, "163.5625", "ben"), (CARLA, "163.5625", "ben")] {
            engine.sql(&format!(
                "INSERT INTO biometric_events (event_id, user_id, event_type, component, value, unit, timestamp, device_id, \
                 gateway_id, location, metadata) SELECT generateUUIDv4(), '{user}', '{}', '', {value}, '{}', \
                 now64(3, 'UTC') - toIntervalMinute(number * 7), 'strap-of-{of}', 'hub-1', 'room-of-{of}', '{{\"rr_intervals\":[0.8]}}' \
                 FROM numbers(50)",
                kind.name(),
                kind.unit()
            ));
        }
    }
    for (user, of, session) in [(ANNA, "anna", "a11aa11a-0000-4000-8000-000000000001"), (BEN, "ben", MARKS[4])] {
        engine.sql(&format!(
            "INSERT INTO user_activity (event_id, user_id, session_id, page, timestamp, duration) SELECT generateUUIDv4(), \
             '{user}', '{session}', '/page-of-{of}', now('UTC') - number * 60, 10 FROM numbers(5)"
        ));
    }
    engine.sql(
        "INSERT INTO gateway_status (gateway_id, at, agent_version, clock) SELECT 'hub-1', now64(3, 'UTC'), '1', 'synced'",
    );
    engine.sql(
        "INSERT INTO reconciliation (gateway_id, device_id, hour, count, ids_xor, version) \
         SELECT 'hub-1', 'strap-of-anna', toStartOfHour(now('UTC')), 3, 7, 1",
    );
    Some(engine)
}

/// Everything that a statement could have changed: tables and how they are made, their rows, functions, databases.
fn state(engine: &Engine) -> String {
    let tables = engine.sql(
        "SELECT name, engine, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name",
    );
    let mut state = tables.clone();
    for line in tables.lines() {
        let (name, rest) = line.split_once('\t').unwrap();
        if !rest.starts_with("View\t") {
            state += &format!("{name} {}\n", engine.sql(&format!("SELECT count() FROM {name}")).trim());
        }
    }
    state += &engine.sql("SELECT * FROM biometric_events ORDER BY event_id");
    state += &engine.sql("SELECT * FROM user_activity ORDER BY event_id");
    state
        + &engine.sql("SELECT name FROM system.functions WHERE name LIKE 'fuzz%'")
        + &engine.sql("SELECT name FROM system.databases WHERE name LIKE 'fuzz%'")
}

fn schemathesis() -> Option<PathBuf> {
    let dir = std::env::var_os("BIOGATE_TEST_SERVERS").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| root().join("target/test-servers"));
    let script = root().join("tests/servers/schemathesis.sh");
    let installed = Command::new("bash").arg(script).arg("install").arg(&dir).status();
    if !installed.is_ok_and(|status| status.success()) {
        missing("schemathesis (tests/servers/schemathesis.sh install)");
        return None;
    }
    Some(dir.join("schemathesis-venv/bin/schemathesis"))
}

/// What schemathesis is told.
fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fuzz")
}

/// Whose token it is, and what no answer to it may hold.
struct Caller<'a> {
    token: &'a str,
    forbidden: String,
}

/// Runs it to its end; panics with what it says where it finds anything.
async fn run(program: &Path, server: &Server, caller: &Caller<'_>) {
    let (files, folder) = (files(), tempfile::tempdir().unwrap());
    let mut command = tokio::process::Command::new(program);
    command
        .current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", files.join("hooks.py"))
        .env("FUZZ_PERSONS", format!("{ANNA},{BEN},{CARLA}"))
        .env("FUZZ_FORBIDDEN", &caller.forbidden)
        .env("FUZZ_STATEMENTS", files.join("statements.sql"))
        .arg("--config-file")
        .arg(files.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{}/openapi.json", server.address))
        .args(["--header", &format!("Authorization: Bearer {}", caller.token)])
        // A statement that is valid JSON may still be wrong SQL, and any text may stand for a time zone.
        .args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "25"])
        .args(["--seed", "6", "--generation-database", "none", "--continue-on-failure", "--no-shrink"])
        // One worker, as by default: Python 3.11's own parser is not safe for several threads.
        .args(["--request-timeout", "10", "--suppress-health-check", "all", "--no-color", "--warnings", "off"])
        .kill_on_drop(true);
    let output = tokio::time::timeout(AT_MOST, command.output()).await.expect("schemathesis ends in time").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// How many requests to a route ended so, by the server's own count.
async fn answered(server: &Server, route: &str, status: u16) -> u64 {
    let text = server.ask(reqwest::Method::GET, "/metrics", "").send().await.unwrap().text().await.unwrap();
    let name = format!("biogate_analytics_requests_total{{route=\"{route}\",status=\"{status}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_nothing_breaks_nothing_leaks_and_nothing_is_written() {
    let Some(engine) = seeded() else { return };
    let Some(program) = schemathesis() else { return };
    let limits = Limits { time: Duration::from_secs(1), ..Limits::default() };
    let server = Server::with(settings(&engine), limits, |api| {
        api.requests_per_minute = 1_000_000.try_into().unwrap();
        api.burst = 10_000.try_into().unwrap();
    })
    .await;
    let before = state(&engine);
    for statement in std::fs::read_to_string(files().join("statements.sql")).unwrap().lines() {
        let response =
            server.query(&server.analyst, &json!({"query": statement, "parameters": {"type": "spo2"}})).await;
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        assert!([200, 400, 422, 504].contains(&status), "{statement} {status} {text}");
        serde_json::from_str::<Value>(&text).unwrap_or_else(|why| panic!("{statement}: {why}: {text}"));
    }
    assert_eq!(state(&engine), before, "a statement has written");

    let everything = Caller { token: &server.analyst, forbidden: String::new() };
    run(&program, &server, &everything).await;
    let daily = "/api/analytics/{event_type}/{user_id}";
    for (route, status) in [("/api/query", 200), ("/api/query", 400), (daily, 200), (daily, 400), (daily, 404)] {
        assert!(answered(&server, route, status).await > 0, "{route} never answered {status}");
    }

    let own = Caller { token: &server.anna, forbidden: format!("{},{BEN},{CARLA}", MARKS.join(",")) };
    let served = answered(&server, daily, 200).await;
    run(&program, &server, &own).await;
    assert!(answered(&server, daily, 200).await > served, "Anna was given none of her own values");
    assert!(answered(&server, daily, 403).await > 0, "Anna never asked for somebody else's");
    assert_eq!(state(&engine), before, "a request has written");
}
