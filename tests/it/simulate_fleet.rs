//! `biogate simulate-fleet` through the binary, against the real engine and a real broker: small fleets, short runs.

use std::process::Output;
use std::time::Duration;

use biogate::forward::clickhouse::schema;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::rig::clickhouse::Engine;
use crate::rig::events::{batch, heart_rates, run};

/// A run of a few seconds on a machine that has other things to do.
const DEADLINE: Duration = Duration::from_secs(60);

async fn simulate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_biogate"));
    command.arg("simulate-fleet").args(arguments).kill_on_drop(true);
    timeout(DEADLINE, command.output()).await.expect("it ends in time").unwrap()
}

/// The last line of a run with --json, with its exit code.
async fn result(arguments: &[&str]) -> (i32, Value) {
    let output = simulate(&[arguments, &["--json"]].concat()).await;
    let out = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let last = out.lines().last().unwrap_or_else(|| panic!("it said nothing: {error}"));
    (output.status.code().unwrap(), serde_json::from_str(last).unwrap_or_else(|_| panic!("{out} {error}")))
}

/// What names the engine's table to a run.
fn table(engine: &Engine) -> Vec<String> {
    let settings = engine.settings();
    let password_file = settings.password_file.unwrap().to_str().unwrap().to_owned();
    let user = settings.user.unwrap();
    ["--to", "clickhouse", &settings.url, "--database", &settings.database, "--user", &user]
        .into_iter()
        .map(str::to_owned)
        .chain(["--password-file".to_owned(), password_file])
        .collect()
}

fn with<'a>(one: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    one.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[tokio::test]
async fn a_small_fleet_fills_the_table_with_each_event_once_also_over_lost_answers() {
    let Some(engine) = Engine::own() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    // Rows are in, and nobody is told: the tries after it are dropped by their tokens.
    engine.fault_later("drop_after", 2, 3);
    let table = table(&engine);
    let few = ["--hubs", "5", "--hz", "6", "--duration", "3s", "--commit-interval", "500ms", "--every", "1s"];
    let (code, said) = result(&with(&table, &few)).await;
    assert_eq!(
        (code, &said["bounded"], &said["lost"], &said["waiting"]),
        (0, &true.into(), &0.into(), &0.into()),
        "{said}"
    );
    // 5 hubs, 2 measurements a second of 3 events each; each hub begins somewhere within its first half second.
    let offered = said["offered"].as_u64().unwrap();
    assert!((75..=105).contains(&offered), "{said}");
    assert_eq!((said["acknowledged"].as_u64(), engine.counts()), (Some(offered), (offered, offered)), "{said}");
    let here = &said["clickhouse"];
    assert_eq!((here["events"].as_u64(), here["duplicates"].as_u64()), (Some(offered), Some(0)), "{said}");
    assert_eq!((here["gateways"].as_u64(), here["parts"]["partitions"].as_u64() >= Some(1)), (Some(5), true), "{said}");
    assert!(said["retries"].as_u64() >= Some(1), "{said}");
    let people =
        engine.sql("SELECT uniqExact(user_id), uniqExact(device_id), countIf(event_type = 'steps') FROM events");
    assert_eq!(people, format!("5\t15\t{}\n", offered / 3));
}

#[tokio::test]
async fn a_far_end_that_is_gone_ends_the_run_with_exit_code_1() {
    let Some(engine) = Engine::own() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    engine.fault("503", 1_000_000);
    let table = table(&engine);
    let few = ["--hubs", "2", "--duration", "1s", "--commit-interval", "200ms", "--most-lag", "1s"];
    let (code, said) = result(&with(&table, &few)).await;
    assert_eq!((code, &said["bounded"], &said["acknowledged"]), (1, &false.into(), &0.into()), "{said}");
    assert!(said["why"].as_str().unwrap().contains("were not acknowledged within 1 s"), "{said}");
    assert_eq!(said["troubles"][0]["kind"], "overload", "{said}");
}

#[tokio::test]
async fn a_table_of_real_hubs_is_not_written_to_unasked() {
    let Some(engine) = Engine::shared() else { return };
    let settings = engine.settings();
    let table = table(&engine);
    let output = simulate(&with(&table, &["--hubs", "1"])).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("biogate schema apply"), "{error}");
    schema::apply(&settings).await.unwrap();
    let mut real = biogate::forward::clickhouse::ClickHouse::new(settings).unwrap();
    real.deliver(batch(run(), &heart_rates(3), false)).await;
    let output = simulate(&with(&table, &["--hubs", "1"])).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("--beside-real-events"), "{error}");
    let few = ["--hubs", "1", "--duration", "1s", "--commit-interval", "200ms", "--beside-real-events"];
    let (code, said) = result(&with(&table, &few)).await;
    assert_eq!((code, &said["clickhouse"]["gateways"]), (0, &1.into()), "{said}");
}

#[tokio::test]
async fn wrong_usage_says_what_to_write() {
    for (arguments, words) in [
        (&["--to", "clickhouse", "http://a:1", "http://b:1"][..], "wants one URL"),
        (&["--to", "pigeon", "a:1"], "write clickhouse URL or kafka"),
        (&["--to", "clickhouse", "http://a:1", "--duration", "1ms"], "--duration is shorter"),
        (&["--to", "clickhouse", "http://a:1", "--hz", "0"], "0.001 to 10000"),
        (&["--config", "/nowhere/biogate.toml"], "/nowhere/biogate.toml"),
    ] {
        let output = simulate(&[&["--hubs", "2"], arguments].concat()).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {error}");
        assert!(error.contains(words), "{arguments:?} {error}");
    }
}

#[cfg(feature = "kafka")]
#[tokio::test]
async fn a_small_fleet_fills_the_topic_with_each_event_once() {
    let Some(kafka) = crate::rig::kafka::Kafka::shared() else { return };
    let topic = format!("{}-fleet", kafka.topic(1));
    kafka.make_topic(&topic, 3, &[]);
    let few = ["--hubs", "6", "--hz", "6", "--duration", "2s", "--commit-interval", "500ms", "--connections", "2"];
    let (code, said) = result(&[&["--to", "kafka", &kafka.brokers, "--topic", &topic], &few[..]].concat()).await;
    assert_eq!((code, &said["bounded"], &said["kafka"]["repeats"]), (0, &true.into(), &0.into()), "{said}");
    assert_eq!(said["kafka"]["records"], said["offered"], "{said}");
    let partitions = said["kafka"]["partitions"].as_array().unwrap();
    let sum: u64 = partitions.iter().map(|partition| partition["records"].as_u64().unwrap()).sum();
    assert_eq!((partitions.len(), Some(sum)), (3, said["offered"].as_u64()), "{said}");
    // 18 devices are the keys: they lie in more than one partition.
    assert!(partitions.iter().filter(|partition| partition["records"] != 0).count() > 1, "{said}");
}
