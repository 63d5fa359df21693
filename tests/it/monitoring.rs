//! What an operator is told: the alert rules by promtool, the monitoring statements on the real engine.

use std::path::{Path, PathBuf};
use std::process::Command;

use biogate::forward::clickhouse::schema;

use crate::rig::clickhouse::Engine;
use crate::rig::missing;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap()
}

/// The statement that the server serves at /metrics/landing-zone.
fn exposition() -> String {
    let config = text("clickhouse/config.d/monitoring.xml");
    let (_, after) = config.split_once("<![CDATA[").unwrap();
    after.split_once("]]>").unwrap().0.to_owned()
}

/// Every word of a text that begins so.
fn names(text: &str, start: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut names: Vec<_> = words.filter(|word| word.starts_with(start)).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn each_alert_fires_when_it_must_and_not_when_it_must_not() {
    let dir = std::env::var_os("BIOGATE_TEST_SERVERS").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-servers"));
    let found = Command::new("bash").args(["tests/servers/promtool.sh".as_ref(), dir.as_path()]).output().unwrap();
    if !found.status.success() {
        return missing("promtool");
    }
    let promtool = String::from_utf8(found.stdout).unwrap();
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = Command::new(promtool.trim()).args(arguments).current_dir(deploy("prometheus")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?}: {said}");
    }
    let (rules, tests) = (text("prometheus/alerts.yml"), text("prometheus/alerts_test.yml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        for what in ["fires", "stays quiet"] {
            assert!(tests.contains(&format!("- name: {alert} {what}\n")), "no test that {alert} {what}");
        }
    }
}

#[test]
fn every_metric_of_the_rules_is_one_that_somebody_gives() {
    let given = text("../docs/metrics.md") + &exposition();
    let expressions: String = text("prometheus/alerts.yml")
        .lines()
        .filter(|line| line.trim().starts_with("expr:"))
        .map(|l| format!("{l}\n"))
        .collect();
    let asked = [names(&expressions, "biogate_"), names(&expressions, "clickhouse_")].concat();
    assert!(asked.len() > 12, "{asked:?}");
    let given = [names(&given, "biogate_"), names(&given, "clickhouse_")].concat();
    for metric in asked {
        assert!(given.contains(&metric), "nobody gives {metric}");
    }
}

/// The landing zone, and logs as a server keeps them; the engine has none.
fn watched() -> Option<Engine> {
    let engine = Engine::shared()?;
    engine.make_database();
    schema::statements("biometric_events").iter().for_each(|statement| drop(engine.sql(statement)));
    engine.sql(
        "CREATE TABLE query_log (type Enum8('QueryStart' = 1, 'QueryFinish' = 2, 'ExceptionBeforeStart' = 3, \
         'ExceptionWhileProcessing' = 4), event_time DateTime, query_duration_ms UInt64, query String, \
         query_kind LowCardinality(String), read_rows UInt64, read_bytes UInt64, memory_usage UInt64, user String, \
         exception_code Int32, exception String) ENGINE = MergeTree ORDER BY event_time",
    );
    engine.sql(
        "CREATE TABLE part_log (event_type Enum8('NewPart' = 1, 'MergeParts' = 2), event_time DateTime, duration_ms UInt64) \
         ENGINE = MergeTree ORDER BY event_time",
    );
    engine.sql("CREATE TABLE asynchronous_metrics (metric String, value Float64) ENGINE = MergeTree ORDER BY metric");
    engine.sql(
        "INSERT INTO query_log SELECT if(number = 7, 'ExceptionWhileProcessing', 'QueryFinish'), now() - 60, number * 100, \
         'SELECT ' || toString(number), 'Select', 1, 1, 1, 'reader', if(number = 7, 241, 0), '' FROM numbers(1, 100)",
    );
    engine.sql(
        "INSERT INTO query_log SELECT 'QueryFinish', now() - 60, 250, 'INSERT', 'Insert', 1, 1, 1, 'writer', 0, '' FROM numbers(5)",
    );
    engine.sql("INSERT INTO part_log VALUES ('MergeParts', now() - 60, 42000), ('MergeParts', now() - 7200, 99000)");
    engine.sql("INSERT INTO asynchronous_metrics VALUES ('OSMemoryTotal', 1000000000000)");
    Some(engine)
}

fn on_the_engine(sql: &str) -> String {
    ["query_log", "part_log", "asynchronous_metrics"]
        .iter()
        .fold(sql.to_owned(), |sql, table| sql.replace(&format!("system.{table}"), table))
}

#[test]
fn the_slowest_queries_are_those_that_answered() {
    let Some(engine) = watched() else { return };
    let slow = engine.sql(&on_the_engine(&text("clickhouse/monitoring/slow_queries.sql")));
    let durations: Vec<u64> = slow.lines().map(|line| line.split('\t').next().unwrap().parse().unwrap()).collect();
    assert_eq!(durations, (91..=100).rev().map(|n| n * 100).collect::<Vec<u64>>());
    let failed = engine.sql(&on_the_engine(&text("clickhouse/monitoring/failed_queries.sql")));
    assert!(failed.lines().count() == 1 && failed.contains("\t241\t"), "{failed}");
}

#[test]
fn the_landing_zone_says_how_it_is_in_prometheus_format() {
    let Some(engine) = watched() else { return };
    engine.sql(
        "INSERT INTO gateway_status (gateway_id, at, clock, backlog_events, oldest_waiting) VALUES \
         ('hub-1', now64(3), 'synced', 0, NULL), ('hub-2', now64(3), 'estimated', 3, now64(3) - 600)",
    );
    engine.sql(
        "INSERT INTO gateway_gaps (gateway_id, gap, cause, from_time, count, why, version) VALUES \
         ('hub-1', generateUUIDv4(), 'evicted', now64(3), 12, 'full', 1), \
         ('hub-1', generateUUIDv4(), 'evicted', now64(3) - 864000, 100, 'full', 1), \
         ('hub-2', generateUUIDv4(), 'damaged', NULL, 5, 'what a broken block held', 1), \
         ('hub-2', generateUUIDv4(), 'refused', now64(3), 1000, 'range', 1)",
    );
    let said = engine.sql(&on_the_engine(&exposition()));
    let value = |name: &str| -> f64 {
        let line = said.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {said}")).rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!((value("clickhouse_query_p95_seconds") - 9.6).abs() < 0.2, "{said}");
    assert_eq!((value("clickhouse_insert_p95_seconds"), value("clickhouse_merge_longest_seconds")), (0.25, 42.0));
    assert!(value("clickhouse_memory_used_ratio") > 0.0 && value("clickhouse_memory_used_ratio") < 0.5, "{said}");
    assert!(value("clickhouse_parts_most") >= 1.0);
    assert_eq!(
        (value("biogate_hubs"), value("biogate_hubs_silent"), value("biogate_hubs_clock_unsure")),
        (2.0, 0.0, 1.0)
    );
    assert!((600.0..700.0).contains(&value("biogate_hub_oldest_waiting_seconds")), "{said}");
    assert_eq!((value("biogate_events_lost"), value("biogate_hub_hours_lacking_rows")), (17.0, 0.0));
}
