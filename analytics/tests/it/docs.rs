//! docs/query-api.md and deploy/compose: what they show is what the program takes and answers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use biogate_analytics::config::Config;
use biogate_analytics::warehouse::Limits;
use serde_json::Value;

use crate::rig::clickhouse::Engine;
use crate::rig::landing_zone;
use crate::rig::server::{ANNA, Server};

const PAGE: &str = include_str!("../../../docs/query-api.md");

fn deploy(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join("../deploy").join(path)).unwrap()
}

/// The page's blocks of code with their languages.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let fences = PAGE.split("\n```").skip(1).step_by(2);
    fences.map(|block| block.split_once('\n').unwrap()).collect()
}

/// A row for every example.
fn fill(engine: &Engine) {
    engine.sql(&format!(
        "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id, gateway_id) \
         SELECT generateUUIDv4(), '{ANNA}', 'heart_rate', 60, '/min', now64(3, 'UTC') - 60, 'd', 'hub-1'"
    ));
    engine.sql(&format!(
        "INSERT INTO user_activity (event_id, user_id, session_id, page, timestamp, duration) \
         SELECT generateUUIDv4(), '{ANNA}', '{ANNA}', '/home', now('UTC') - 60, 10"
    ));
    engine.sql(
        "INSERT INTO gateway_status (gateway_id, at, agent_version, clock) SELECT 'hub-1', now64(3, 'UTC'), '1', 'synced'",
    );
    engine.sql(
        "INSERT INTO reconciliation (gateway_id, device_id, hour, count, ids_xor, version) \
         SELECT 'hub-1', 'd', toStartOfHour(now64(3, 'UTC') - 60), 1, 1, 1",
    );
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_page_answers_in_the_shape_that_it_shows() {
    let Some(engine) = landing_zone().await else { return };
    fill(&engine);
    let server = Server::start(&engine).await;
    let blocks = blocks();
    let mut ran = 0;
    for (index, (language, command)) in blocks.iter().enumerate() {
        if *language != "sh" {
            continue;
        }
        let output = Command::new("bash")
            .args(["-c", command])
            .env("API", format!("http://{}", server.address))
            .env("TOKEN", &server.analyst)
            .env("USER_ID", ANNA.to_string())
            .env("no_proxy", "*")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}\n{said}{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_str(&said).unwrap();
        let row = &answer["data"][0];
        assert!(row.is_object(), "{command}\n{said}");
        ran += 1;
        if let Some(("json", shown)) = blocks.get(index + 1) {
            let shown: Value = serde_json::from_str(shown).unwrap();
            assert_eq!(keys(&answer), keys(&shown), "{command}");
            assert_eq!(keys(row), keys(&shown["data"][0]), "{command}");
        }
    }
    assert_eq!(ran, 8);
}

#[test]
fn the_page_names_every_path_every_problem_and_the_limits_as_they_are() {
    let description = serde_json::to_value(biogate_analytics::api::openapi::describe()).unwrap();
    for path in description["paths"].as_object().unwrap().keys() {
        let fixed = path.split('{').next().unwrap();
        assert!(PAGE.contains(fixed), "{path} is not in docs/query-api.md");
    }
    let sources = [
        include_str!("../../src/api/problem.rs"),
        include_str!("../../src/api/mod.rs"),
        include_str!("../../src/api/gate.rs"),
        include_str!("../../src/api/extract.rs"),
    ]
    .concat();
    // A kind is the second argument of `Problem::new` and `Problem::wait`.
    let kinds = sources.split("StatusCode::").skip(1).filter_map(|rest| {
        let (status, rest) = rest.split_once(',')?;
        let kind = rest.trim_start().strip_prefix('"')?.split('"').next()?;
        status.chars().all(|c| c.is_ascii_uppercase() || c == '_').then_some(kind)
    });
    let kinds: BTreeSet<&str> = kinds.collect();
    assert!(kinds.len() >= 14, "{kinds:?}");
    for kind in kinds {
        assert!(PAGE.contains(&format!("`{kind}`")), "the problem {kind} is not in docs/query-api.md");
    }
    assert_eq!(
        Limits::default(),
        Limits {
            time: std::time::Duration::from_secs(10),
            rows: 10_000,
            bytes: bytesize::ByteSize::mib(8),
            memory: bytesize::ByteSize::gib(2),
            read_bytes: bytesize::ByteSize::gib(50),
            threads: 4,
        },
        "docs/query-api.md, Limits"
    );
}

#[test]
fn the_pages_configuration_is_taken() {
    let (_, text) = blocks().into_iter().find(|(language, _)| *language == "toml").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("analytics.toml");
    for text in [text.to_owned(), text.replace("# listen", "listen").replace("# cors", "cors")] {
        std::fs::write(&path, &text).unwrap();
        let config = Config::load(&path).unwrap();
        assert_eq!(config.api.listen.to_string(), "127.0.0.1:8790");
        assert_eq!(config.warehouse.limits, Limits::default());
    }
}

/// The file that compose mounts, with its secrets and its server where this test has them.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_takes_the_compose_files_configuration() {
    let Some(engine) = landing_zone().await else { return };
    let at = engine.settings();
    let folder = tempfile::tempdir().unwrap();
    let text = deploy("compose/api/analytics.toml");
    let mut mounted = text.clone();
    for (from, to) in [
        ("http://clickhouse:8123".to_owned(), format!("http://{}", engine.address)),
        ("\"biometrics\"".to_owned(), format!("{:?}", engine.database)),
        ("\"reader\"".to_owned(), format!("{:?}", at.user.unwrap())),
        ("/run/secrets/clickhouse-reader".to_owned(), at.password_file.unwrap().display().to_string()),
        ("/run/secrets/api-tokens".to_owned(), folder.path().join("api-tokens").display().to_string()),
    ] {
        assert!(mounted.contains(&from), "{from} is not in it");
        mounted = mounted.replace(&from, &to);
    }
    let path = folder.path().join("analytics.toml");
    std::fs::write(&path, mounted).unwrap();
    // prepare.sh makes it empty: nobody gets in, and the program starts.
    std::fs::write(folder.path().join("api-tokens"), "").unwrap();
    let checked =
        Command::new(env!("CARGO_BIN_EXE_biogate-analytics")).arg("--config").arg(&path).arg("check").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // The port inside is the port that compose opens, asks about and lets Prometheus ask.
    assert_eq!(Config::load(&path).unwrap().api.listen.to_string(), "0.0.0.0:8790");
    let compose = deploy("compose.yaml");
    for words in [
        "command: [biogate-analytics, --config, /etc/biogate/analytics.toml, serve]",
        "127.0.0.1:8790:8790",
        "http://127.0.0.1:8790/healthz",
        "clickhouse-reader: { file:",
        "api-tokens: { file:",
    ] {
        assert!(compose.contains(words), "{words} is not in compose.yaml");
    }
    assert!(deploy("prometheus/prometheus.yml").contains("api:8790"));
}

/// A limit that is sent with a statement and lies outside the user's constraints would make the server refuse every statement.
#[test]
fn the_limits_of_a_statement_lie_within_those_of_the_compose_files_reader() {
    let users = deploy("compose/clickhouse/users.xml");
    let readers = users.split_once("<readers>").unwrap().1.split_once("</readers>").unwrap().0;
    let constraints = readers.split_once("<constraints>").unwrap().1;
    let limits = Limits::default();
    for (setting, sent) in [
        ("max_execution_time", limits.time.as_secs()),
        ("max_result_rows", limits.rows),
        ("max_result_bytes", limits.bytes.0),
        ("max_memory_usage", limits.memory.0),
        ("max_bytes_to_read", limits.read_bytes.0),
        ("max_threads", u64::from(limits.threads)),
    ] {
        let constraint = constraints.split_once(&format!("<{setting}>")).unwrap().1;
        let of = |name: &str| -> u64 {
            constraint.split_once(&format!("<{name}>")).unwrap().1.split_once('<').unwrap().0.parse().unwrap()
        };
        assert!((of("min")..=of("max")).contains(&sent), "{setting} = {sent}");
    }
    assert!(!constraints.contains("<readonly>"), "the API sends readonly = 1");
}
