//! What a hub says beside the events, from the real binary and the real loop into files and the real engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use biogate::forward::clickhouse::{ClickHouse, schema};
use biogate::forward::refusal::Trouble;
use biogate::forward::{Gate, Kind as Destination, file, reconciliation};
use biogate::report::{Kind, Report};
use biogate::resolve::Unassigned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::clickhouse::Engine;
use crate::rig::events::{heart_rate, heart_rates, yesterday_ms};
use crate::rig::gateway::{Hub, assert_balanced, lines_named, lines_of, wait_for};
use crate::rig::lane::Lane;
use crate::rig::pty::Pty;

const SOON: Duration = Duration::from_secs(60);

/// A hub that hears a serial line and writes files.
fn hub(port: &Path, rest: &str) -> Hub {
    let hub = Hub::new("");
    let text = std::fs::read_to_string(hub.config()).unwrap();
    let archive = hub.dir.path().join("archive");
    let common = format!(
        "[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"50 ms\"\nmin_free = \"1 MiB\"\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n\
         [[device]]\nname = \"band\"\nprofile = \"serial-vitals-line\"\nserial = {port:?}\n"
    );
    std::fs::write(hub.config(), text + &common + rest).unwrap();
    hub
}

fn said(hub: &Hub, kind: Kind) -> Vec<Value> {
    lines_named(&hub.dir.path().join("archive"), &format!("{}-", kind.topic()))
}

fn warehouse(engine: &Engine) -> String {
    let settings = engine.settings();
    format!(
        "[[destination]]\nname = \"warehouse\"\nkind = \"clickhouse\"\nurl = \"{}\"\ndatabase = \"{}\"\nuser = {:?}\n\
         password_file = {:?}\n",
        settings.url,
        settings.database,
        settings.user.unwrap(),
        settings.password_file.unwrap()
    )
}

/// A row of each kind with every column, as the hub makes them.
pub(crate) fn sample(kind: Kind) -> Report {
    let at = 1_790_000_000_000_i64;
    let row = match kind {
        Kind::Status => json!({
            "gateway_id": "hub-1", "at": at, "agent_version": "0.1.0", "config_hash": "c", "profiles_hash": "p",
            "clock": "synced", "backlog_events": 7, "oldest_waiting": at - 5, "disk_free_bytes": 1_u64 << 40,
            "certificate_end": 1_900_000_000_123_i64,
            "devices": [
                { "name": "a", "last_seen": at, "battery_percent": 80, "signal_dbm": -61, "worn": true, "accepted": 9, "refused": 2 },
                { "name": "b", "last_seen": null, "battery_percent": null, "signal_dbm": null, "worn": null, "accepted": 0, "refused": 0 },
            ],
        }),
        Kind::Gap => json!({
            "gateway_id": "hub-1", "gap": "0b8e2f6a-0000-4000-8000-000000000001", "device_id": null, "cause": "evicted",
            "from_time": at, "to_time": null, "count": 12, "why": "the store was full", "version": 1,
        }),
        Kind::Reconciliation => json!({
            "gateway_id": "hub-1", "device_id": "a", "hour": at - at % 3_600_000, "count": 3600,
            "ids_xor": u128::MAX.to_string(), "version": 4,
        }),
        Kind::Coverage => json!({
            "gateway_id": "hub-1", "device_id": "a", "hour": at - at % 3_600_000, "measured": 3000, "not_worn": 100,
            "out_of_reach": 100, "hub_off": 100, "clock_unsure": 100, "aside": 100, "evicted": 0, "silent": 100, "version": 2,
        }),
        Kind::Assignment => json!({
            "gateway_id": "hub-1", "device_id": "a", "valid_from": at, "valid_until": null,
            "user_id": "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11", "location": "room 12", "version": 1,
            "says": "both", "said_by": "entry", "said_at": at, "clock": "synced", "revision": 2,
        }),
    };
    Report { kind, key: "hub-1".to_owned(), row: row.to_string() }
}

#[tokio::test]
async fn every_kind_has_a_table_that_takes_its_rows_and_gives_them_back() {
    let Some(engine) = Engine::shared() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    let mut clickhouse = ClickHouse::new(engine.settings()).unwrap();
    for kind in Kind::ALL {
        // Twice, as after a crash: the same token, so one row.
        for _ in 0..2 {
            assert_eq!(clickhouse.report(kind, &[sample(kind)]).await.unwrap(), 0, "{kind:?}");
        }
        let sent: Value = serde_json::from_str(&sample(kind).row).unwrap();
        let columns: Vec<&str> = sent.as_object().unwrap().keys().map(String::as_str).collect();
        let final_ = if kind == Kind::Status { "" } else { "FINAL" };
        let select = format!(
            "SELECT {} FROM {} {final_} FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers=1, \
             date_time_output_format='unix_timestamp'",
            columns.join(", "),
            kind.table()
        );
        let found = engine.sql(&select);
        assert_eq!(found.lines().count(), 1, "{found}");
        let found: Value = serde_json::from_str(found.trim()).unwrap();
        for column in columns {
            assert_eq!(in_ms(&found[column]), in_ms(&sent[column]), "{} of {kind:?}: {found}", column);
        }
    }
}

/// The engine writes a time as a text of seconds, and the row has milliseconds.
fn in_ms(value: &Value) -> Value {
    match value {
        Value::String(text) if text.contains('.') && text.parse::<f64>().is_ok() => {
            json!(((text.parse::<f64>().unwrap() * 1_000.0).round() as i64).to_string())
        }
        Value::Array(values) => values.iter().map(in_ms).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), in_ms(value))).collect(),
        Value::Number(_) | Value::String(_) => json!(value.to_string().trim_matches('"')),
        other => other.clone(),
    }
}

#[tokio::test]
async fn a_row_that_the_table_never_takes_is_dropped_and_a_table_that_lacks_a_column_is_said() {
    let Some(engine) = Engine::shared() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    let mut clickhouse = ClickHouse::new(engine.settings()).unwrap();
    let bad = Report { row: sample(Kind::Gap).row.replace("evicted", "eaten"), ..sample(Kind::Gap) };
    assert_eq!(clickhouse.report(Kind::Gap, &[sample(Kind::Gap), bad]).await.unwrap(), 1);
    assert_eq!(engine.sql("SELECT count() FROM gateway_gaps").trim(), "1");
    engine.sql("ALTER TABLE gateway_gaps DROP COLUMN why");
    let refusal = clickhouse.report(Kind::Gap, &[sample(Kind::Gap)]).await.unwrap_err();
    assert_eq!(refusal.trouble, Trouble::Schema);
    assert!(refusal.reason.contains("gateway_gaps lacks a column"), "{}", refusal.reason);
    engine.sql("DROP TABLE gateway_gaps");
    let refusal = clickhouse.report(Kind::Gap, &[sample(Kind::Gap)]).await.unwrap_err();
    assert_eq!(refusal.trouble, Trouble::Schema);
    assert!(refusal.reason.contains("gateway_gaps does not exist"), "{}", refusal.reason);
}

#[tokio::test]
async fn a_missing_table_holds_up_neither_events_nor_other_reports() {
    let Some(engine) = Engine::shared() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    engine.sql("DROP TABLE gateway_gaps");
    let dir = tempfile::tempdir().unwrap();
    let lane = Lane::start(dir.path(), Destination::ClickHouse(engine.settings()), Gate::Open, Unassigned::Forward);
    lane.store.report(vec![sample(Kind::Gap), sample(Kind::Coverage)]).await.unwrap();
    lane.commit(heart_rates(50)).await;
    lane.until("events go on", |tally| tally.delivered == 50).await;
    crate::rig::until("the other report is there", || lane.health.snapshot().reports == 1).await;
    assert_eq!(engine.sql("SELECT count() FROM coverage").trim(), "1");
    let reason = lane.health.snapshot().reports_reason.unwrap_or_default();
    assert!(reason.contains("gateway_gaps does not exist"), "{reason}");
    assert!(lane.health.snapshot().is_healthy());
    let waiting = lane.store.stat().destinations[0].reports_waiting.clone();
    assert_eq!(waiting.into_iter().collect::<Vec<_>>(), [(Kind::Gap, 1)]);
    lane.shut_down().await;
}

#[tokio::test]
async fn reports_stand_in_files_of_their_topic_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let numbered = |number: u64| Report { row: format!("{{\"number\":{number}}}"), ..sample(Kind::Status) };
    for round in 0..3 {
        let settings = file::Settings::new(archive.clone());
        let lane = Lane::start(dir.path(), Destination::File(settings), Gate::Open, Unassigned::Forward);
        lane.store.report((round * 10..round * 10 + 10).map(numbered).collect()).await.unwrap();
        lane.commit(heart_rates(10)).await;
        lane.until("events", |tally| tally.delivered == (round + 1) * 10).await;
        let there = || lines_named(&archive, "gateway-status-").len() as u64 == (round + 1) * 10;
        crate::rig::until("reports", there).await;
        lane.shut_down().await;
    }
    let numbers: Vec<u64> =
        lines_named(&archive, "gateway-status-").iter().map(|line| line["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..30).collect::<Vec<_>>());
    assert_eq!(lines_named(&archive, "events-").len(), 30);
}

#[test]
fn a_heartbeat_arrives_and_a_change_of_health_makes_another_soon() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let engine = Engine::shared();
    if let Some(engine) = &engine {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(schema::apply(&engine.settings())).unwrap();
    }
    let mut hub = hub(&port, &engine.as_ref().map(warehouse).unwrap_or_default());
    hub.start();
    wait_for(SOON, || (!said(&hub, Kind::Status).is_empty()).then_some(())).expect("a heartbeat at the start");
    let first = &said(&hub, Kind::Status)[0];
    assert_eq!((&first["gateway_id"], &first["clock"]), (&json!("hub-test"), &json!("synced")));
    assert_eq!(first["agent_version"], env!("CARGO_PKG_VERSION"));
    assert!(first["disk_free_bytes"].as_u64() > Some(0) && first["certificate_end"].is_null());
    assert!(first["config_hash"].as_str() > Some("") && first["profiles_hash"].as_str() > Some(""));
    // The line begins to be heard: a change of health, seconds later and not five minutes.
    let band = wait_for(SOON, || {
        line.send(b"HR:72,T:36.6,S:100\nHR:x\n");
        let last = said(&hub, Kind::Status).pop()?;
        last["devices"].as_array()?.iter().find(|device| device["name"] == "band").cloned()
    });
    let band = band.expect("a heartbeat that names the device");
    assert!(band["last_seen"].as_i64() > Some(1_790_000_000_000) && band["accepted"].as_u64() > Some(0), "{band}");
    if let Some(engine) = &engine {
        let devices = "SELECT count() FROM gateway_status ARRAY JOIN devices AS d WHERE gateway_id = 'hub-test' AND d.name = 'band'";
        wait_for(SOON, || (engine.sql(devices).trim() != "0").then_some(())).expect("it is in the warehouse too");
        assert_eq!(engine.sql("SELECT clock FROM gateway_now").trim(), "synced");
    }
    let stat = hub.stat().unwrap();
    assert!(stat["store"]["reports_bytes"].as_u64() > Some(0), "{stat}");
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    let seconds = hub.stat().unwrap()["coverage"]["band"].clone();
    assert!(seconds["measured"].as_u64() > Some(0), "a store at rest says what the last seconds were: {seconds}");
    let refused = said(&hub, Kind::Gap);
    // The last gaps may go out only after the next start; here or there they are each counted once.
    hub.start();
    wait_for(SOON, || (hub.output(&["status"]).0 == 0).then_some(())).expect("it runs again");
    let gaps =
        wait_for(SOON, || Some(said(&hub, Kind::Gap)).filter(|gaps| !gaps.is_empty() && gaps.len() >= refused.len()));
    let gap = &gaps.expect("what was refused is a gap")[0];
    assert_eq!((&gap["device_id"], &gap["cause"]), (&json!("band"), &json!("refused")));
    assert!(gap["count"].as_u64() > Some(0) && gap["why"].as_str() > Some(""), "{gap}");
    assert_balanced(&hub.stat().unwrap());
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

#[tokio::test]
async fn a_row_that_vanished_in_the_warehouse_is_named_and_nothing_else_is() {
    let Some(engine) = Engine::shared() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    // At once, and not ten minutes after it was said.
    let views = schema::statements("biometric_events");
    let view = views.iter().find(|statement| statement.contains("VIEW IF NOT EXISTS reconciliation_gaps")).unwrap();
    engine.sql("DROP VIEW reconciliation_gaps");
    engine.sql(&view.replace("INTERVAL 10 MINUTE", "INTERVAL 0 SECOND"));
    engine.sql("ALTER TABLE biometric_events ADD CONSTRAINT beats CHECK value < 250");
    let dir = tempfile::tempdir().unwrap();
    let lane = Lane::start(dir.path(), Destination::ClickHouse(engine.settings()), Gate::Open, Unassigned::Forward);
    let start_ms = yesterday_ms();
    // Two devices over several hours; one value that the table refuses for good.
    let observations: Vec<_> = (0..600_u64)
        .map(|n| {
            let value = if n == 77 { 299.0 } else { 60.0 + (n % 50) as f64 };
            let mut observation = heart_rate(n, value, start_ms + n * 30_000);
            observation.device = if n % 2 == 0 { "strap-anna".into() } else { "strap-ben".into() };
            observation
        })
        .collect();
    for part in observations.chunks(150) {
        lane.commit(part.to_vec()).await;
    }
    lane.until("delivered", |tally| tally.delivered == 599 && tally.rejected == 1).await;
    let mut clickhouse = ClickHouse::new(engine.settings()).unwrap();
    let gaps =
        || engine.sql("SELECT device_id, lacking, lacking_id FROM reconciliation_gaps ORDER BY ALL").trim().to_owned();
    let due = lane.store.sums_due("out", Duration::ZERO).await.unwrap();
    let rows = reconciliation::rows("hub-0042", &due);
    assert!(rows.len() >= 10, "two devices, five hours and more: {}", rows.len());
    clickhouse.report(Kind::Reconciliation, &rows).await.unwrap();
    lane.store.sums_said("out", due).await.unwrap();
    assert_eq!(gaps(), "", "all that was sent is there, and what was refused was not sent");
    let victim = engine.sql(
        "SELECT event_id FROM biometric_events WHERE device_id = 'strap-ben' ORDER BY timestamp LIMIT 1 OFFSET 33",
    );
    engine.sql(&format!(
        "ALTER TABLE biometric_events DELETE WHERE event_id = '{}' SETTINGS mutations_sync = 2",
        victim.trim()
    ));
    assert_eq!(gaps(), format!("strap-ben\t1\t{}", victim.trim()));
    // More of an hour that was said already: said anew, as a whole.
    lane.commit(vec![heart_rate(1_000, 70.0, start_ms + 1)]).await;
    lane.until("delivered", |tally| tally.delivered == 600).await;
    let due = lane.store.sums_due("out", Duration::ZERO).await.unwrap();
    assert_eq!(due.len(), 1);
    clickhouse.report(Kind::Reconciliation, &reconciliation::rows("hub-0042", &due)).await.unwrap();
    assert_eq!(gaps(), format!("strap-ben\t1\t{}", victim.trim()));
    lane.shut_down().await;
}

/// Per device and hour, how many and the XOR of the ids.
type Totals = BTreeMap<(String, i64), (u64, u128)>;

#[test]
fn a_kill_at_any_moment_does_not_falsify_what_is_said_of_the_hours() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let mut hub = hub(&port, "");
    for _ in 0..5 {
        hub.start();
        let before = lines_of(&hub.dir.path().join("archive")).len();
        wait_for(SOON, || {
            line.send(b"HR:72,T:36.6,S:100\nHR:73,T:36.7,S:101\n");
            (lines_of(&hub.dir.path().join("archive")).len() > before + 50).then_some(())
        })
        .expect("events");
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..80)));
        hub.kill();
    }
    hub.start();
    hub.wait_until_drained(1, SOON);
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    // After a start all is quiet, and what changed is said.
    hub.start();
    wait_for(SOON, || (hub.output(&["status"]).0 == 0).then_some(())).expect("it runs again");
    let mut wanted = Totals::new();
    for event in lines_of(&hub.dir.path().join("archive")) {
        let hour = event["timestamp"].as_i64().unwrap() / 3_600_000 * 3_600_000;
        let sum = wanted.entry((event["device_id"].as_str().unwrap().to_owned(), hour)).or_default();
        sum.0 += 1;
        sum.1 ^= event["event_id"].as_str().unwrap().parse::<Uuid>().unwrap().as_u128();
    }
    let told = || {
        let mut newest: BTreeMap<(String, i64), (u64, (u64, u128))> = BTreeMap::new();
        for row in said(&hub, Kind::Reconciliation) {
            let key = (row["device_id"].as_str()?.to_owned(), row["hour"].as_i64()?);
            let sum = (row["count"].as_u64()?, row["ids_xor"].as_str()?.parse().ok()?);
            let version = row["version"].as_u64()?;
            if newest.get(&key).is_none_or(|(than, _)| version > *than) {
                newest.insert(key, (version, sum));
            }
        }
        Some(newest.into_iter().map(|(key, (_, sum))| (key, sum)).collect::<Totals>())
    };
    let right = wait_for(SOON, || told().filter(|told| *told == wanted));
    assert!(right.is_some(), "{:?} is not {wanted:?}", told());
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

#[test]
fn what_a_full_store_removed_is_told_per_device() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    // Nobody listens at the warehouse, and nothing may wait longer than a second.
    let dead = "[[destination]]\nname = \"warehouse\"\nkind = \"clickhouse\"\nurl = \"http://127.0.0.1:9\"\n";
    let mut hub = hub(&port, dead);
    let text = std::fs::read_to_string(hub.config()).unwrap();
    std::fs::write(hub.config(), text.replace("min_free = ", "max_age = \"1 s\"\nmin_free = ")).unwrap();
    hub.start();
    let gap = wait_for(SOON, || {
        line.send(b"HR:72,T:36.6,S:100\n");
        said(&hub, Kind::Gap).into_iter().find(|gap| gap["cause"] == "evicted")
    });
    let gap = gap.unwrap_or_else(|| panic!("{:?}\n{}", hub.stat(), hub.log()));
    assert_eq!((&gap["device_id"], &gap["gateway_id"]), (&json!("band"), &json!("hub-test")));
    assert!(gap["count"].as_u64() > Some(0) && gap["from_time"].as_i64() <= gap["to_time"].as_i64(), "{gap}");
    hub.kill();
}

#[test]
fn verify_reads_reports_too() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    // Nobody listens at the warehouse, so what is said stays.
    let dead = "[[destination]]\nname = \"warehouse\"\nkind = \"clickhouse\"\nurl = \"http://127.0.0.1:9\"\n";
    let mut hub = hub(&port, dead);
    hub.start();
    wait_for(SOON, || {
        line.send(b"HR:72\n");
        (!said(&hub, Kind::Status).is_empty() && !lines_of(&hub.dir.path().join("archive")).is_empty()).then_some(())
    })
    .expect("a heartbeat and an event");
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    let (code, out, error) = hub.output(&["buffer", "verify", "--json"]);
    let sound: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}{error}"));
    assert_eq!((code, &sound["faults"]), (0, &json!([])), "{sound}");
    assert!(sound["reports"].as_u64() > Some(0) && sound["observations"].as_u64() > Some(0), "{sound}");
}
