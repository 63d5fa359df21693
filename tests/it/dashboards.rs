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

/// What the file says of each card, and its statement.
fn cards(dashboard: &Value) -> Vec<(Value, String)> {
    let all = dashboard["cards"].as_array().unwrap().iter();
    all.map(|card| (card.clone(), read(&format!("dashboards/{}", card["sql"].as_str().unwrap())))).collect()
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
    ask_of(engine, statement, "%", "7")
}

fn ask_of(engine: &Engine, statement: &str, hub: &str, days: &str) -> String {
    let numbers = [("days", days), ("hours", "24"), ("minutes", "60")];
    engine.sql_with(statement, &[&[("user_id", PERSON), ("hub", hub)], numbers.as_slice()].concat())
}

#[test]
fn every_card_of_every_dashboard_is_answered_by_the_engine() {
    let Some(engine) = zone() else { return };
    for name in DASHBOARDS {
        for (card, statement) in cards(&dashboard(name)) {
            let columns = ask(&engine, &format!("DESCRIBE ({statement})"));
            let columns: Vec<&str> = columns.lines().map(|line| line.split('\t').next().unwrap()).collect();
            let mut axes = vec![&card["x"], &card["series"]];
            axes.extend(card["y"].as_array().into_iter().flatten());
            for axis in axes.into_iter().filter_map(Value::as_str) {
                assert!(columns.contains(&axis), "{name}, {}: no column {axis} in {columns:?}", card["title"]);
            }
            ask(&engine, &statement);
        }
    }
}

/// What can be asked, and the lists to choose from: each list has the column that it names, and somebody in it.
#[test]
fn every_list_to_choose_from_is_answered_by_the_engine() {
    let Some(engine) = zone() else { return };
    let file: Value = serde_json::from_str(&read("dashboards/parameters.json")).unwrap();
    let mut lists = Vec::new();
    for list in file["parameters"].as_array().unwrap().iter().filter_map(|parameter| parameter["list"].as_object()) {
        let statement = read(&format!("dashboards/{}", list["sql"].as_str().unwrap()));
        lists.push(engine.sql(&format!("SELECT {} FROM ({statement})", list["column"].as_str().unwrap())));
    }
    assert_eq!(lists, [format!("{PERSON}\n{OTHER}\n"), "%\nhub-1\nhub-2\nhub-3\nhub-4\n".to_owned()]);
}

#[test]
fn a_card_of_hubs_can_be_asked_about_one() {
    let Some(engine) = zone() else { return };
    let count = |card: &str, hub: &str| {
        let counted = format!("SELECT count() FROM ({})", read(&format!("dashboards/{card}.sql")));
        ask_of(&engine, &counted, hub, "7").trim().parse::<u32>().unwrap()
    };
    for (card, of_one, of_two) in [("hubs", 1, 4), ("backlog", 1, 4), ("why_seconds", 1, 1)] {
        assert_eq!((count(card, "hub-1"), count(card, "hub-_")), (of_one, count(card, "%")), "{card}");
        assert!(count(card, "%") <= of_two && count(card, "hub-9") == 0, "{card}");
    }
    assert!(count("hours_not_complete", "hub-4") == 1 && count("hours_not_complete", "%") >= 2);
}

/// The most days that the parameter can hold reach further back than a DateTime can: it must not come out in the future.
#[test]
fn the_longest_span_holds_what_a_short_one_does() {
    let Some(engine) = zone() else { return };
    for name in DASHBOARDS {
        for (card, statement) in cards(&dashboard(name)) {
            let short = ask_of(&engine, &statement, "%", "7").lines().count();
            let long = ask_of(&engine, &statement, "%", "65535").lines().count();
            assert_eq!(short, long, "{name}, {}", card["title"]);
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

/// The operators' dashboard: every card of the dashboards that are theirs, laid out as there.
fn grafana() -> Value {
    let source = json!({"type": "grafana-clickhouse-datasource", "uid": "biogate"});
    let theirs = DASHBOARDS.map(dashboard).into_iter().filter(|one| one["operators"] == true);
    let (mut x, mut y, mut tallest) = (0, 0, 0);
    let panels: Vec<Value> = theirs
        .flat_map(|one| cards(&one))
        .enumerate()
        .map(|(place, (card, statement))| {
            let kind = match card["display"].as_str().unwrap() {
                "line" => "timeseries",
                "bar" => "barchart",
                _ => "table",
            };
            let (width, height) = (card["width"].as_u64().unwrap_or(24), card["height"].as_u64().unwrap());
            if x + width > 24 {
                (x, y, tallest) = (0, y + tallest, 0);
            }
            let at = json!({"x": x, "y": y, "w": width, "h": height});
            (x, tallest) = (x + width, tallest.max(height));
            let stacking = json!({"mode": if card["stacked"] == true { "normal" } else { "none" }});
            let custom = if kind == "barchart" { json!({"stacking": stacking}) } else { json!({}) };
            let options = if kind == "barchart" { json!({"xField": card["x"]}) } else { json!({}) };
            json!({
                "id": place + 1, "title": card["title"], "type": kind, "datasource": source, "gridPos": at,
                "fieldConfig": {"defaults": {"custom": custom}, "overrides": []}, "options": options,
                "targets": [{"refId": "A", "datasource": source, "editorType": "sql", "pluginVersion": "4.22.1",
                             "queryType": "table", "format": 1,
                             "rawSql": statement.replace("{days:UInt16}", "${days}")
                                 .replace("{hub:String}", "${hub:sqlstring}")}],
            })
        })
        .collect();
    let choice = |text: &str| json!({"selected": text == "7", "text": text, "value": text});
    let choices = ["1", "7", "30"].map(choice);
    let days = json!({"name": "days", "label": "Days", "type": "custom", "query": "1,7,30", "multi": false,
                      "includeAll": false, "options": choices, "current": choice("7")});
    let every = json!({"selected": true, "text": "%", "value": "%"});
    let hub =
        json!({"name": "hub", "label": "Hub", "type": "textbox", "query": "%", "options": [every], "current": every});
    json!({"uid": "biogate-operators", "title": "biogate: operators", "schemaVersion": 41, "version": 1, "editable": false,
           "timezone": "utc", "refresh": "1m", "time": {"from": "now-7d", "to": "now"}, "tags": ["biogate"],
           "annotations": {"list": []}, "templating": {"list": [days, hub]}, "panels": panels})
}

#[test]
fn grafanas_dashboard_is_made_of_the_same_statements() {
    let wanted = serde_json::to_string_pretty(&grafana()).unwrap() + "\n";
    if std::env::var_os("BIOGATE_WRITE_GRAFANA").is_some() {
        std::fs::write(deploy("grafana/operators.json"), &wanted).unwrap();
    }
    let committed = read("grafana/operators.json");
    assert!(committed == wanted, "write it anew: BIOGATE_WRITE_GRAFANA=1 cargo test --test it -- dashboards::grafana");
    assert!(
        ![":UInt16}", ":UUID}", ":String}"].iter().any(|kind| wanted.contains(kind)),
        "a parameter that Grafana does not fill in"
    );
}

/// Not run here: a Grafana server. What is published of its model and of the plugin's queries is what its files keep to.
#[test]
fn grafanas_dashboard_keeps_to_the_published_model_and_the_engine_answers_its_panels() {
    let dashboard = grafana();
    let validator =
        jsonschema::validator_for(&serde_json::from_str(include_str!("grafana/model.json")).unwrap()).unwrap();
    let wrong: Vec<String> =
        validator.iter_errors(&dashboard).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let variables: Vec<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["days", "hub"]);
    let Some(engine) = zone() else { return };
    for panel in dashboard["panels"].as_array().unwrap() {
        let statement = panel["targets"][0]["rawSql"].as_str().unwrap();
        let filled = statement.replace("${days}", "30").replace("${hub:sqlstring}", "'hub-1'");
        assert!(!filled.contains("${"), "{}: no such variable", panel["title"]);
        engine.sql(&filled);
    }
}
