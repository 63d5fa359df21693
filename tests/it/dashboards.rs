//! The dashboards' statements on the real engine, and Grafana's file made of the same statements.

use std::path::{Path, PathBuf};

use biogate::forward::clickhouse::schema;
use serde_json::{Value, json};

use crate::rig::clickhouse::Engine;

const PERSON: &str = "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11";
const OTHER: &str = "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a12";
const DASHBOARDS: [&str; 5] = ["heart_rate", "vitals_wall", "steps", "fleet", "completeness"];

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(&format!("dashboards/{name}.json"))).unwrap()
}

/// Title, display and statement of each card.
fn cards(dashboard: &Value) -> Vec<(String, String, String)> {
    let word = |card: &Value, key: &str| card[key].as_str().unwrap().to_owned();
    let all = dashboard["cards"].as_array().unwrap().iter();
    all.map(|card| (word(card, "title"), word(card, "display"), read(&format!("dashboards/{}", word(card, "sql")))))
        .collect()
}

/// A landing zone with two persons, a hub that is well, one whose clock is not, and an hour that lacks a row.
fn zone() -> Option<Engine> {
    let engine = Engine::shared()?;
    engine.make_database();
    schema::statements("biometric_events").iter().for_each(|statement| drop(engine.sql(statement)));
    let rows = [
        (PERSON, "heart_rate", "1, 2, 3, 4", "58 + number"),
        (OTHER, "heart_rate", "1, 2", "190"),
        (PERSON, "steps", "1, 2, 3", "100"),
    ];
    for (person, kind, numbers, value) in rows {
        engine.sql(&format!(
            "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, gateway_id, device_id) \
             SELECT generateUUIDv4(), '{person}', '{kind}', {value}, '', now64(3) - 60, 'hub-1', 'strap' \
             FROM (SELECT arrayJoin([{numbers}]) AS number)"
        ));
    }
    engine.sql(
        "INSERT INTO gateway_status (gateway_id, at, clock, backlog_events, oldest_waiting) VALUES \
         ('hub-1', now64(3), 'synced', 0, NULL), ('hub-2', now64(3), 'estimated', 3, now64(3) - 600)",
    );
    engine.sql(
        "INSERT INTO gateway_gaps (gateway_id, gap, cause, from_time, count, why, version) VALUES \
         ('hub-1', generateUUIDv4(), 'refused', now64(3) - 60, 51, 'range', 1), \
         ('hub-2', generateUUIDv4(), 'refused', now64(3) - 60, 50, 'range', 1)",
    );
    // What the server's own clock would have said, earlier.
    engine.sql(
        "INSERT INTO gateway_status (gateway_id, at, clock, received_at) SETTINGS insert_allow_materialized_columns = 1 \
         VALUES ('hub-3', now64(3) - 1000, 'synced', now64(3) - 1000), ('hub-4', now64(3) - 800, 'synced', now64(3) - 800)",
    );
    engine.sql(
        "INSERT INTO reconciliation (gateway_id, device_id, hour, count, ids_xor, version, said_at) \
         SETTINGS insert_allow_materialized_columns = 1 \
         VALUES ('hub-4', 'strap', toStartOfHour(now() - 7200), 2, 0, 1, now64(3) - 900)",
    );
    engine.sql(
        "INSERT INTO coverage (gateway_id, device_id, hour, measured, not_worn, hub_off, silent, version) VALUES \
         ('hub-1', 'strap', toStartOfHour(now() - 3600), 1800, 900, 540, 360, 1)",
    );
    Some(engine)
}

fn ask(engine: &Engine, statement: &str) -> String {
    engine.sql_with(statement, &[("user_id", PERSON), ("days", "7"), ("hours", "24"), ("minutes", "60")])
}

#[test]
fn every_card_of_every_dashboard_is_answered_by_the_engine() {
    let Some(engine) = zone() else { return };
    for name in DASHBOARDS {
        for (title, _, statement) in cards(&dashboard(name)) {
            let columns = ask(&engine, &format!("DESCRIBE ({statement})"));
            assert!(columns.lines().count() > 1, "{name}, {title}: {columns}");
            ask(&engine, &statement);
        }
    }
}

#[test]
fn a_persons_cards_show_that_persons_numbers_only() {
    let Some(engine) = zone() else { return };
    let sum = |statement: &str, columns: &str| ask(&engine, &format!("SELECT {columns} FROM ({statement})"));
    let heart = sum(&read("dashboards/heart_rate_daily.sql"), "sum(readings), min(min_hr), max(max_hr)");
    assert_eq!(heart, "4\t59\t62\n");
    assert_eq!(sum(&read("dashboards/steps_daily.sql"), "sum(steps)"), "300\n");
}

#[test]
fn the_fleets_cards_name_the_hubs_that_need_somebody_and_no_other() {
    let Some(engine) = zone() else { return };
    let troubles = ask(&engine, &read("clickhouse/monitoring/hubs_needing_attention.sql"));
    let found: Vec<Vec<&str>> = troubles.lines().map(|line| line.split('\t').collect()).collect();
    let named: Vec<(&str, &str)> = found.iter().map(|row| (row[0], row[1])).collect();
    assert_eq!(
        named,
        [
            ("hub-1", "readings set aside within an hour"),
            ("hub-2", "nobody vouches for its clock"),
            ("hub-3", "silent for this many seconds"),
            ("hub-4", "rows missing in the warehouse"),
        ]
    );
    let silent: f64 = found[2][2].parse().unwrap();
    assert!((found[0][2], found[3][2]) == ("51", "2") && (1_000.0..1_060.0).contains(&silent), "{troubles}");
    let backlog =
        ask(&engine, &format!("SELECT sum(waiting_events), sum(hubs) FROM ({})", read("dashboards/backlog.sql")));
    assert_eq!(backlog, "3\t4\n");
}

#[test]
fn the_hours_of_a_device_are_shown_by_what_they_were() {
    let Some(engine) = zone() else { return };
    let columns = "measured_hours, not_worn_hours, out_of_reach_hours, hub_off_hours, lost_hours, other_hours";
    let shown = ask(&engine, &format!("SELECT {columns} FROM ({})", read("dashboards/why_seconds.sql")));
    assert_eq!(shown, "0.5\t0.25\t0\t0.15\t0\t0.1\n");
}

/// The operators' dashboard: every card of the dashboards that are theirs, one below the other.
fn grafana() -> Value {
    let source = json!({"type": "grafana-clickhouse-datasource", "uid": "biogate"});
    let theirs = DASHBOARDS.map(dashboard).into_iter().filter(|one| one["operators"] == true);
    let panels: Vec<Value> = theirs
        .flat_map(|one| cards(&one))
        .enumerate()
        .map(|(place, (title, display, statement))| {
            let kind = match display.as_str() {
                "line" => "timeseries",
                "bar" => "barchart",
                _ => "table",
            };
            json!({
                "id": place + 1, "title": title, "type": kind, "datasource": source,
                "gridPos": {"x": 0, "y": place * 8, "w": 24, "h": 8},
                "targets": [{"refId": "A", "datasource": source, "editorType": "sql", "queryType": "table", "format": 1,
                             "rawSql": statement.replace("{days:UInt16}", "${days}")}],
            })
        })
        .collect();
    let days = json!({"name": "days", "label": "Days", "type": "custom", "query": "1,7,30",
                      "current": {"text": "7", "value": "7"}});
    json!({"uid": "biogate-operators", "title": "biogate: operators", "schemaVersion": 39, "timezone": "utc",
           "refresh": "1m", "templating": {"list": [days]}, "panels": panels})
}

#[test]
fn grafanas_dashboard_is_made_of_the_same_statements() {
    let wanted = serde_json::to_string_pretty(&grafana()).unwrap() + "\n";
    if std::env::var_os("BIOGATE_WRITE_GRAFANA").is_some() {
        std::fs::write(deploy("grafana/operators.json"), &wanted).unwrap();
    }
    let committed = read("grafana/operators.json");
    assert!(committed == wanted, "write it anew: BIOGATE_WRITE_GRAFANA=1 cargo test --test it -- dashboards::grafana");
    assert!(!wanted.contains(":UInt16}") && !wanted.contains(":UUID}"), "a parameter that Grafana does not fill in");
}
