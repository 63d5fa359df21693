//! Persons through the whole binary: a serial line at one end, files and the warehouse at the other, and people who say
//! too late who wore what.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use biogate::config::Config;
use biogate::forward::clickhouse::schema;
use biogate::reading::{BootId, RunId};
use biogate::report::Kind;
use biogate::store::Store;
use serde_json::Value;

use crate::rig::clickhouse::Engine;
use crate::rig::gateway::{Hub, lines_named, lines_of, wait_for};
use crate::rig::mosquitto::{Mosquitto, note};
use crate::rig::pty::Pty;

const SOON: Duration = Duration::from_secs(60);

const ANNA: &str = "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11";
const BEN: &str = "7a2d8b63-7b1f-4a9f-8b68-1e7a8a1f6b22";
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// A hub with a file destination, a clock that is taken as it is, and quick commits.
fn hub(rest: &str) -> Hub {
    let hub = Hub::new("timezone = \"Europe/Berlin\"\n");
    let text = std::fs::read_to_string(hub.config()).unwrap();
    let common = format!(
        "[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"50 ms\"\nmin_free = \"1 MiB\"\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {:?}\n",
        hub.dir.path().join("archive")
    );
    std::fs::write(hub.config(), text + &common + rest).unwrap();
    hub
}

fn strap(port: &Path) -> String {
    format!("[[device]]\nname = \"strap\"\nprofile = \"serial-vitals-line\"\nserial = {port:?}\n")
}

fn events(hub: &Hub) -> Vec<Value> {
    lines_of(&hub.dir.path().join("archive"))
}

/// Waits until the gateway itself answers: before, a command would open the store in its place.
fn running(hub: &Hub) {
    wait_for(SOON, || (hub.output(&["status"]).0 == 0).then_some(()))
        .unwrap_or_else(|| panic!("not up: {}", hub.log()));
}

/// Sends heart rates until one arrives that nobody sent before, and returns its event.
fn heard(hub: &Hub, line: &mut Pty, said: &mut u32) -> Value {
    let first = *said + 1;
    let found = wait_for(SOON, || {
        *said += 1;
        line.send(format!("HR:{said}\n").as_bytes());
        std::thread::sleep(Duration::from_millis(50));
        events(hub).into_iter().find(|event| event["value"].as_f64().is_some_and(|value| value >= f64::from(first)))
    });
    found.unwrap_or_else(|| panic!("nothing new is heard; the log:\n{}", hub.log()))
}

fn done(hub: &Hub, arguments: &[&str]) -> String {
    let (code, out, error) = hub.output(arguments);
    assert_eq!(code, 0, "{arguments:?}: {error}\n{}", hub.log());
    out
}

fn refused(hub: &Hub, arguments: &[&str]) -> String {
    let (code, out, error) = hub.output(arguments);
    assert_eq!((code, &*out), (2, ""), "{arguments:?}: {error}");
    error
}

/// The persons of a device's stretches in order, and the moments between them.
fn stretches(hub: &Hub, device: &str) -> (Vec<String>, Vec<i64>) {
    let devices: Value = serde_json::from_str(&done(hub, &["assignments", device, "--json"])).unwrap();
    let intervals = devices[0]["intervals"].as_array().unwrap().clone();
    let person = |it: &Value| it["user_id"].as_str().unwrap_or(NOBODY).to_owned();
    let ends = intervals.iter().filter_map(|it| it["until"].as_i64()).collect();
    (intervals.iter().map(person).collect(), ends)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The assignment records of a hub that is stopped: those that its destination has, then those that still wait for it.
fn records(hub: &Hub) -> Vec<Value> {
    let mut rows = lines_named(&hub.dir.path().join("archive"), "device-assignments-");
    let config = Config::load(&hub.config()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let boot = BootId(uuid::Uuid::new_v4());
        let store = Store::open(&config.store, RunId::random(), boot, &["archive".to_owned()]).unwrap();
        let (_, waiting) = store.reports("archive", Kind::Assignment, 1 << 20).await.unwrap();
        store.close().await.unwrap();
        assert!(
            waiting.iter().all(|report| serde_json::from_str::<Value>(&report.row).unwrap()["device_id"] == report.key)
        );
        rows.extend(waiting.iter().map(|report| serde_json::from_str::<Value>(&report.row).unwrap()));
    });
    // A kill may come before the cursor of the reports is durable: then they stand there once more, as they were.
    let mut seen = Vec::new();
    rows.retain(|row| {
        !seen.contains(row) && {
            seen.push(row.clone());
            true
        }
    });
    rows
}

#[test]
fn a_strap_changes_hands_now_and_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let (mut line, mut said) = (Pty::plug(&port), 30);
    let mut hub = hub(&strap(&port));
    hub.start();
    assert_eq!(heard(&hub, &mut line, &mut said)["user_id"], NOBODY);
    let out = done(&hub, &["assign", "strap", ANNA]);
    assert!(out.contains(ANNA) && out.contains("until further notice") && !out.contains("reassign.sql"), "{out}");
    assert_eq!(heard(&hub, &mut line, &mut said)["user_id"], ANNA);
    let out = done(&hub, &["assign", "strap", BEN, "--from", "3 h ago", "--until", "1 h ago"]);
    assert!(out.contains(BEN) && out.contains("reassign.sql"), "{out}");
    let (persons, ends) = stretches(&hub, "strap");
    assert_eq!(persons, [NOBODY, BEN, NOBODY, ANNA]);
    for (end, hours) in [(ends[0], 3), (ends[1], 1), (ends[2], 0)] {
        let expected = now_ms() - hours * 3_600_000;
        assert!((expected - 120_000..=expected).contains(&end), "{end} is not {hours} h ago");
    }
    assert_eq!(heard(&hub, &mut line, &mut said)["user_id"], ANNA, "the past changes nothing of now");
    hub.kill();
    hub.start();
    running(&hub);
    assert_eq!(stretches(&hub, "strap"), (persons, ends), "through a kill");
    done(&hub, &["unassign", "strap"]);
    assert_eq!(heard(&hub, &mut line, &mut said)["user_id"], NOBODY);
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    assert!(!hub.log().contains(ANNA) && !hub.log().contains(BEN), "no person is in a log");
    let told = records(&hub);
    let users: Vec<&str> = told.iter().map(|row| row["user_id"].as_str().unwrap()).collect();
    assert_eq!(users, [NOBODY, ANNA, BEN, NOBODY], "{told:?}");
    let versions: Vec<u64> = told.iter().map(|row| row["version"].as_u64().unwrap()).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    assert!(told[0]["valid_from"].is_null() && told[2]["valid_until"].is_i64(), "{told:?}");
    assert!(told.iter().all(|row| row["clock"] == "synced" && row["gateway_id"] == "hub-test"), "{told:?}");
}

#[test]
fn a_batch_in_hand_keeps_its_persons_through_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let mut hub = hub(&strap(&port));
    // A file where the folder should be: every try fails, and the batch stays in hand.
    let archive = hub.dir.path().join("archive");
    std::fs::write(&archive, "").unwrap();
    hub.start();
    let in_hand = |hub: &Hub| hub.stat().filter(|stat| !stat["store"]["destinations"][0]["in_hand"].is_null());
    let stat = wait_for(SOON, || {
        line.send(b"HR:60\n");
        std::thread::sleep(Duration::from_millis(50));
        in_hand(&hub)
    })
    .expect("a batch in hand");
    let last = stat["store"]["destinations"][0]["in_hand"]["last"].as_u64().unwrap();
    done(&hub, &["assign", "strap", ANNA, "--from", "2 h ago"]);
    wait_for(SOON, || {
        line.send(b"HR:61\n");
        std::thread::sleep(Duration::from_millis(50));
        hub.stat().filter(|stat| stat["ledger"]["intake"]["stored"].as_u64() > Some(last))
    })
    .expect("events after the batch");
    hub.kill();
    std::fs::remove_file(&archive).unwrap();
    hub.start();
    let found = wait_for(SOON, || Some(events(&hub)).filter(|events| events.len() as u64 > last)).expect("all events");
    for (nth, event) in found.iter().enumerate() {
        let expected = if (nth as u64) < last { NOBODY } else { ANNA };
        assert_eq!(event["user_id"], expected, "event {nth} of a batch of {last}");
    }
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

#[test]
fn what_was_parked_goes_when_somebody_is_said_to_have_worn_it() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let mut hub = hub(&strap(&port));
    let text = std::fs::read_to_string(hub.config()).unwrap();
    std::fs::write(hub.config(), text.replace("[clock]", "unassigned = \"park\"\n[clock]")).unwrap();
    hub.start();
    let parked = wait_for(SOON, || {
        line.send(b"HR:60\n");
        std::thread::sleep(Duration::from_millis(50));
        let stat = hub.stat()?;
        let parked = stat["ledger"]["destinations"][0][1]["parked"].as_u64()?;
        (parked > 2 && stat["ledger"]["destinations"][0][1]["waiting"] == 0).then_some(parked)
    })
    .expect("parked events");
    assert_eq!(events(&hub), Vec::<Value>::new());
    // Somebody wore it, but not then: they stay.
    done(&hub, &["assign", "strap", BEN, "--from", "3 h ago", "--until", "2 h ago"]);
    done(&hub, &["assign", "strap", ANNA, "--from", "1 h ago"]);
    let found =
        wait_for(SOON, || Some(events(&hub)).filter(|events| events.len() as u64 >= parked)).expect("all of them");
    assert!(found.iter().all(|event| event["user_id"] == ANNA), "{found:?}");
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

#[test]
fn while_nothing_runs_the_store_itself_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let (mut line, mut said) = (Pty::plug(&port), 30);
    let mut hub = hub(&strap(&port));
    let (code, _, error) = hub.output(&["assign", "strap", ANNA]);
    assert!(code == 1 && error.contains("there is no store"), "{error}");
    hub.start();
    assert_eq!(heard(&hub, &mut line, &mut said)["user_id"], NOBODY);
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    done(&hub, &["assign", "strap", ANNA]);
    assert_eq!(stretches(&hub, "strap").0, [NOBODY, ANNA]);
    hub.start();
    assert_eq!(heard(&hub, &mut line, &mut said)["user_id"], ANNA);
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    assert_eq!(records(&hub).len(), 2);
}

#[test]
fn an_entry_s_person_is_history_too_and_a_hang_up_appends_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let (mut line, mut said) = (Pty::plug(&port), 30);
    let mut hub = hub(&format!("{}user_id = \"{ANNA}\"\n", strap(&port)));
    hub.start();
    assert_eq!(heard(&hub, &mut line, &mut said)["user_id"], ANNA);
    let error = refused(&hub, &["assign", "strap", BEN]);
    assert!(error.contains("biogate.toml:") && error.contains("user_id"), "{error}");
    refused(&hub, &["unassign", "strap"]);
    let with = |from: &str, to: &str| {
        let text = std::fs::read_to_string(hub.config()).unwrap();
        std::fs::write(hub.config(), text.replace(from, to)).unwrap();
        hub.signal("HUP");
    };
    with(ANNA, BEN);
    wait_for(SOON, || (stretches(&hub, "strap").0 == [ANNA, BEN]).then_some(())).expect("the reload");
    assert_eq!(heard(&hub, &mut line, &mut said)["user_id"], BEN);
    with(&format!("user_id = \"{BEN}\"\n"), "");
    wait_for(SOON, || (stretches(&hub, "strap").0 == [ANNA, BEN, NOBODY]).then_some(())).expect("the second reload");
    done(&hub, &["assign", "strap", ANNA]);
    assert_eq!(heard(&hub, &mut line, &mut said)["user_id"], ANNA);
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    let told = records(&hub);
    let shown: Vec<_> =
        told.iter().map(|row| (row["user_id"].as_str().unwrap(), row["said_by"].as_str().unwrap())).collect();
    assert_eq!(shown, [(ANNA, "entry"), (BEN, "entry"), (NOBODY, "entry"), (ANNA, "command")]);
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_to_write() {
    let mut hub = hub("[[mqtt]]\nname = \"ward\"\nurl = \"mqtt://127.0.0.1:9\"\n\
         [[device]]\nname = \"strap-anna\"\nprofile = \"serial-vitals-line\"\nserial = \"/dev/null\"\n\
         [[device]]\nname = \"bed\"\nprofile = \"mqtt-vitals-json\"\nmqtt = \"clinic/{device}/vitals\"\n");
    hub.start();
    running(&hub);
    for (arguments, words) in [
        (&["assign", "strap-ana", ANNA][..], "did you mean \"strap-anna\"?"),
        (&["assign", "bed", ANNA], "takes the names of its devices from the topic"),
        (&["assign", "broken name", ANNA, "--anyway"], "write 1 to 64 of the characters"),
        (&["assign", "strap-anna", "anna"], "invalid value"),
        (&["assign", "strap-anna", NOBODY], "biogate unassign"),
        (&["assign", "strap-anna", ANNA, "--from", "lunch"], "2 h ago"),
        (&["assign", "strap-anna", ANNA, "--from", "23:59:59.999"], "write the date too"),
        (&["assign", "strap-anna", ANNA, "--from", "1999-01-01"], "write a later one"),
        (&["assign", "strap-anna", ANNA, "--until", "1 h ago"], "--until is not after --from"),
        (&["assignments", "nothing"], "nothing was ever said"),
    ] {
        let error = refused(&hub, arguments);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    done(&hub, &["assign", "bed-77", ANNA, "--anyway"]);
    assert_eq!(stretches(&hub, "bed-77").0, [NOBODY, ANNA]);
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

#[test]
fn a_captured_name_is_known_once_it_was_heard() {
    let Some(mosquitto) = Mosquitto::start() else { return };
    let mut hub = hub(&format!(
        "[[mqtt]]\nname = \"ward\"\nurl = \"{}\"\n\
         [[device]]\nname = \"bed\"\nprofile = \"mqtt-vitals-json\"\nmqtt = \"clinic/{{device}}/vitals\"\n",
        mosquitto.url()
    ));
    hub.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let publish = || runtime.block_on(mosquitto.publish(vec![note("clinic/cot-1/vitals", "{\"hr\":70}")]));
    wait_for(SOON, || {
        publish();
        (!events(&hub).is_empty()).then_some(())
    })
    .expect("the subscription");
    assert!(refused(&hub, &["assign", "cot-2", ANNA]).contains("\"cot-1\""));
    done(&hub, &["assign", "cot-1", ANNA]);
    wait_for(SOON, || {
        publish();
        events(&hub).iter().any(|event| event["user_id"] == ANNA).then_some(())
    })
    .expect("the person");
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

/// The landing zone, whose hours are remembered as soon as they are refreshed.
fn landing_zone(engine: &Engine) {
    engine.make_database();
    let statements = schema::statements("biometric_events").into_iter();
    statements.for_each(|statement| drop(engine.sql(&statement.replace("INTERVAL 10 MINUTE", "INTERVAL 0 SECOND"))));
}

fn reassign(engine: &Engine, device: &str, from: &str, until: &str) {
    let sql = include_str!("../../deploy/clickhouse/reassign.sql");
    engine.sql_with(sql, &[("device", device), ("from", from), ("until", until)]);
}

#[test]
fn the_warehouse_gives_the_events_of_a_past_interval_to_whoever_wore_the_strap() {
    let Some(engine) = Engine::shared() else { return };
    landing_zone(&engine);
    // What the hub was told: Anna's entry, then Ben from 14:00 to 16:00 yesterday, in Berlin.
    let mut hub = hub("[[device]]\nname = \"strap\"\nprofile = \"serial-vitals-line\"\nserial = \"/dev/null\"\n");
    hub.start();
    running(&hub);
    assert_eq!(hub.stop(), 0);
    let day = engine.sql("SELECT yesterday()").trim().to_owned();
    let at = |hour: &str| format!("{day} {hour}:00:00");
    done(&hub, &["assign", "strap", ANNA, "--from", &format!("{day}T00:00:00Z")]);
    done(
        &hub,
        &["assign", "strap", BEN, "--from", &format!("{day}T14:00:00Z"), "--until", &format!("{day}T16:00:00Z")],
    );
    let tell = |mut rows: Vec<Value>| {
        // A bare number is seconds to the engine, the same digits as a text are milliseconds.
        for time in rows.iter_mut().flat_map(|row| row.as_object_mut().unwrap().iter_mut()) {
            if ["valid_from", "valid_until", "said_at"].contains(&time.0.as_str()) && time.1.is_i64() {
                *time.1 = time.1.to_string().into();
            }
        }
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        engine.sql(&format!("INSERT INTO device_assignments FORMAT JSONEachRow\n{}", lines.join("\n")));
    };
    tell(records(&hub));
    // What was delivered before anybody said so: an event every ten minutes of the day, all of them Anna's.
    for (device, gateway) in [("strap", "hub-test"), ("belt", "hub-test"), ("strap", "hub-other")] {
        engine.sql(&format!(
            "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id, gateway_id, \
             location, metadata) SELECT generateUUIDv4(), '{ANNA}', 'heart_rate', 60 + number, '/min', \
             toDateTime64('{day} 00:00:00', 3, 'UTC') + number * 600, '{device}', '{gateway}', 'room 12', \
             '{{\"rr_intervals\":[0.83]}}' FROM numbers(144)"
        ));
    }
    let refresh = || {
        for view in ["hourly_metrics_mv", "hourly_watermark_mv"] {
            engine.sql(&format!("SYSTEM REFRESH VIEW {view}"));
            engine.sql(&format!("SYSTEM WAIT VIEW {view}"));
        }
    };
    refresh();
    let all = "SELECT event_id, value, timestamp, device_id, gateway_id, location, rr_intervals FROM events ORDER BY event_id";
    let before = engine.sql(all);
    // Bounded in time: until 15:00 only.
    reassign(&engine, "strap", &at("00"), &at("15"));
    let of_ben = format!(
        "SELECT count(), min(timestamp), max(timestamp), any(device_id), any(gateway_id), uniqExact(version) FROM events \
         WHERE user_id = '{BEN}'"
    );
    assert_eq!(engine.sql(&of_ben), format!("6\t{}.000\t{day} 14:50:00.000\tstrap\thub-test\t1\n", at("14")));
    reassign(&engine, "strap", &at("00"), &at("23"));
    let expected = format!("12\t{}.000\t{day} 15:50:00.000\tstrap\thub-test\t1\n", at("14"));
    assert_eq!(engine.sql(&of_ben), expected, "exactly the interval");
    let raw = engine.counts();
    reassign(&engine, "strap", &at("00"), &at("23"));
    assert_eq!(engine.counts(), raw, "a second run changes nothing");
    assert_eq!(engine.sql(all), before, "the events are the same, but for their persons");
    let hours = "SELECT user_id, hour, count, sum_value, min_value, max_value FROM";
    let differ = || {
        let order = "ORDER BY user_id, hour";
        let exact = engine.sql(&format!("{hours} hourly_metrics_exact {order}"));
        (engine.sql(&format!("{hours} hourly_metrics {order}")) != exact).then_some(exact)
    };
    assert_eq!(differ(), None, "at once");
    refresh();
    assert_eq!(differ(), None, "when the hours are remembered anew");
    let ben =
        engine.sql(&format!("SELECT toHour(hour), count FROM hourly_metrics WHERE user_id = '{BEN}' ORDER BY hour"));
    assert_eq!(ben, "14\t6\n15\t6\n");
    // It was a mistake: the afternoon was Anna's after all, but for the end.
    done(
        &hub,
        &["assign", "strap", ANNA, "--from", &format!("{day}T14:00:00Z"), "--until", &format!("{day}T15:30:00Z")],
    );
    tell(records(&hub));
    reassign(&engine, "strap", &at("00"), &at("23"));
    assert_eq!(engine.sql(&of_ben), format!("3\t{day} 15:30:00.000\t{day} 15:50:00.000\tstrap\thub-test\t1\n"));
    engine.sql("OPTIMIZE TABLE biometric_events FINAL");
    assert_eq!(engine.sql(all), before, "also after the merge");
    assert_eq!(differ(), None);
    // A late copy of an event as it was first sent is no second event.
    engine.sql(&format!(
        "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id, gateway_id) \
         SELECT event_id, '{ANNA}', event_type, value, unit, timestamp, device_id, gateway_id FROM events \
         WHERE user_id = '{BEN}'"
    ));
    assert_eq!(engine.sql(all), before);
}
