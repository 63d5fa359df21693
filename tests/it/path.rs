//! The whole path with the real binary: a serial line and a broker at one end, files at the other.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::rig::gateway::{Hub, assert_balanced, lines_of, wait_for};
use crate::rig::mosquitto::{Mosquitto, note};
use crate::rig::pty::Pty;

const SOON: Duration = Duration::from_secs(60);

/// A hub with a file destination, a clock that is taken as it is, and quick commits.
fn hub(rest: &str) -> Hub {
    let hub = Hub::new("");
    let text = std::fs::read_to_string(hub.config()).unwrap();
    let archive = hub.dir.path().join("archive");
    let common = format!(
        "[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"50 ms\"\nmin_free = \"1 MiB\"\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n"
    );
    std::fs::write(hub.config(), text + &common + rest).unwrap();
    hub
}

fn serial_device(name: &str, port: &Path) -> String {
    format!("[[device]]\nname = \"{name}\"\nprofile = \"serial-vitals-line\"\nserial = {port:?}\n")
}

fn ward(mosquitto: &Mosquitto) -> String {
    format!(
        "[[mqtt]]\nname = \"ward\"\nurl = \"{}\"\n[[device]]\nname = \"bed\"\nprofile = \"mqtt-vitals-json\"\nmqtt = \"clinic/{{device}}/vitals\"\n",
        mosquitto.url()
    )
}

fn events(hub: &Hub) -> Vec<Value> {
    lines_of(&hub.dir.path().join("archive"))
}

fn values(events: &[Value], event_type: &str) -> Vec<f64> {
    let of_type = events.iter().filter(|event| event["event_type"] == event_type);
    of_type.map(|event| event["value"].as_f64().unwrap()).filter(|value| *value != 0.0).collect()
}

#[test]
fn a_serial_line_becomes_events_and_survives_being_unplugged() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let mut hub = hub(&format!(
        "{}user_id = \"6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11\"\nlocation = \"room 12\"\n",
        serial_device("band", &port)
    ));
    hub.start();
    // What is said before the port is open belongs to nobody's reading, so the device repeats itself until it is heard.
    wait_for(SOON, || {
        line.send(b"HR:72,T:36.6,S:100\n");
        std::thread::sleep(Duration::from_millis(50));
        (!events(&hub).is_empty()).then_some(())
    })
    .expect("the first event");
    line.send(b"garbage\xff\nHR:80,S:110\nHR:7x2\nHR:81,S:112\n");
    let found =
        wait_for(SOON, || Some(events(&hub)).filter(|events| values(events, "heart_rate").contains(&81.0))).unwrap();
    let last = found.last().unwrap();
    assert_eq!(last["user_id"], "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11");
    assert_eq!(
        (&last["location"], &last["gateway_id"], &last["device_id"]),
        (&"room 12".into(), &"hub-test".into(), &"band".into())
    );
    assert_eq!(values(&found, "steps"), [10.0, 2.0]);
    drop(line);
    let mut line = Pty::plug(&port);
    wait_for(SOON, || {
        line.send(b"HR:99,S:120\n");
        std::thread::sleep(Duration::from_millis(50));
        values(&events(&hub), "heart_rate").contains(&99.0).then_some(())
    })
    .expect("events after the replug");
    assert_eq!(values(&events(&hub), "steps").iter().sum::<f64>(), 20.0, "the counter goes on over the unplugging");
    let stat = hub.wait_until_drained(1, SOON);
    assert_balanced(&stat);
    assert_eq!(stat["ledger"]["intake"]["refused"], 2);
    let (_, list, _) = hub.output(&["buffer", "quarantine", "list", "--json"]);
    assert!(
        list.contains("refused") && list.contains("4852:") || list.contains("48523a377832"),
        "the raw bytes are kept: {list}"
    );
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

#[test]
fn mqtt_messages_arrive_once_through_restarts_of_broker_and_gateway() {
    let Some(mut mosquitto) = Mosquitto::start() else { return };
    let mut hub = hub(&ward(&mosquitto));
    hub.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let publish = |mosquitto: &Mosquitto, range: std::ops::Range<u32>| {
        let notes = range
            .map(|n| note("clinic/bed-1/vitals", format!("{{\"seq\":{n},\"hr\":{}}}", 60.0 + f64::from(n) / 100.0)));
        runtime.block_on(mosquitto.publish(notes.collect()));
    };
    wait_for(SOON, || {
        publish(&mosquitto, 0..1);
        (!events(&hub).is_empty()).then_some(())
    })
    .expect("the subscription");
    publish(&mosquitto, 1..200);
    wait_for(SOON, || values(&events(&hub), "heart_rate").contains(&61.99).then_some(())).expect("the first part");
    mosquitto.stop();
    mosquitto.launch();
    publish(&mosquitto, 200..300);
    hub.kill();
    publish(&mosquitto, 300..400);
    hub.start();
    wait_for(SOON, || values(&events(&hub), "heart_rate").contains(&63.99).then_some(()))
        .expect("what came while it was down");
    let mut times: HashMap<u64, usize> = HashMap::new();
    for value in values(&events(&hub), "heart_rate") {
        *times.entry((value * 100.0).round() as u64).or_default() += 1;
    }
    let missing: Vec<u64> = (6_001..6_400).filter(|value| times.get(value) != Some(&1)).collect();
    assert!(missing.is_empty(), "not once: {missing:?}");
    assert_balanced(&hub.wait_until_drained(399, SOON));
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

#[test]
fn implausible_values_are_set_aside_with_reason_and_bytes() {
    let Some(mosquitto) = Mosquitto::start() else { return };
    let mut hub = hub(&format!("{}[limits]\nheart_rate = [30, 200]\n", ward(&mosquitto)));
    hub.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    wait_for(SOON, || {
        runtime.block_on(mosquitto.publish(vec![note("clinic/bed-1/vitals", "{\"hr\":70}")]));
        (!events(&hub).is_empty()).then_some(())
    })
    .expect("the subscription");
    runtime.block_on(mosquitto.publish(vec![
        note("clinic/bed-1/vitals", "{\"hr\":250,\"spo2\":97}"),
        note("clinic/bed-1/vitals", "{\"hr\":71}"),
    ]));
    let found =
        wait_for(SOON, || Some(events(&hub)).filter(|events| values(events, "heart_rate").contains(&71.0))).unwrap();
    assert_eq!(values(&found, "spo2"), [97.0], "the good value of the same message goes on");
    assert!(!values(&found, "heart_rate").contains(&250.0));
    let (code, list, error) = hub.output(&["buffer", "quarantine", "list", "--json"]);
    assert_eq!(code, 0, "{error}");
    let entry: Value = serde_json::from_str(list.lines().next().expect("one entry")).unwrap();
    assert_eq!(entry["kind"], "implausible");
    assert!(entry["reason"].as_str().unwrap().contains("250"), "{entry}");
    let (code, shown, _) = hub.output(&["buffer", "quarantine", "show", entry["id"].as_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(shown.contains("7b226872223a323530"), "the raw bytes: {shown}");
    let stat = hub.stat().unwrap();
    assert_eq!(stat["ledger"]["intake"]["implausible"], 1);
    assert_balanced(&stat);
}

#[test]
fn a_stop_under_load_is_quick_and_loses_nothing() {
    let Some(mosquitto) = Mosquitto::start() else { return };
    let mut hub = hub(&ward(&mosquitto));
    hub.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    wait_for(SOON, || {
        runtime.block_on(mosquitto.publish(vec![note("clinic/bed-0/vitals", "{\"hr\":70}")]));
        (!events(&hub).is_empty()).then_some(())
    })
    .expect("the subscription");
    let load = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let message = |n: u32| {
                note(
                    &format!("clinic/bed-{}/vitals", n % 7 + 1),
                    format!("{{\"seq\":{n},\"hr\":{}}}", 60.0 + f64::from(n) / 100.0),
                )
            };
            runtime.block_on(mosquitto.publish((0..3_000).map(message).collect()));
        });
        std::thread::sleep(Duration::from_millis(300));
        let stopped = hub.stop();
        publishing.join().unwrap();
        stopped
    });
    assert_eq!(load, 0, "{}", hub.log());
    hub.start();
    let done = wait_for(SOON, || Some(events(&hub)).filter(|events| values(events, "heart_rate").len() >= 3_001));
    let mut rates: Vec<u64> = values(&done.unwrap_or_else(|| panic!("{}", hub.log())), "heart_rate")
        .iter()
        .map(|rate| (rate * 100.0).round() as u64)
        .collect();
    rates.retain(|rate| *rate != 7_000);
    rates.sort_unstable();
    let expected: Vec<u64> = (6_000..9_000).filter(|rate| *rate != 7_000).collect();
    assert_eq!(rates, expected);
}

#[test]
fn a_hang_up_takes_new_devices_and_refuses_a_bad_file() {
    let folder = tempfile::tempdir().unwrap();
    let (first_port, second_port) = (folder.path().join("one"), folder.path().join("two"));
    let (mut first, mut second) = (Pty::plug(&first_port), Pty::plug(&second_port));
    let mut hub = hub(&serial_device("one", &first_port));
    hub.start();
    let mut said = 60;
    let mut talk = |line: &mut Pty, hub: &Hub, device: &str| {
        wait_for(SOON, || {
            said += 1;
            line.send(format!("HR:{said}\n").as_bytes());
            std::thread::sleep(Duration::from_millis(50));
            events(hub)
                .iter()
                .any(|event| event["device_id"] == device && event["value"] == f64::from(said - 1))
                .then_some(())
        })
        .unwrap_or_else(|| panic!("{device} is not heard: {}", hub.log()));
    };
    talk(&mut first, &hub, "one");
    let devices = hub.dir.path().join("devices.d");
    std::fs::create_dir(&devices).unwrap();
    std::fs::write(devices.join("two.toml"), "[[device]]\nname = \"two\"\nprofil = \"x\"\n").unwrap();
    hub.signal("HUP");
    wait_for(SOON, || hub.log().contains("two.toml:3").then_some(())).expect("the bad file is named");
    talk(&mut first, &hub, "one");
    std::fs::write(devices.join("two.toml"), serial_device("two", &second_port)).unwrap();
    hub.signal("HUP");
    talk(&mut second, &hub, "two");
    talk(&mut first, &hub, "one");
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

#[test]
fn a_store_that_is_held_by_another_process_is_said_plainly() {
    let mut hub = hub("");
    hub.start();
    wait_for(SOON, || hub.stat()).expect("a running gateway");
    let (code, _, error) = hub.output(&["run"]);
    assert_eq!(code, 1);
    assert!(error.contains("another process"), "{error}");
    assert_eq!(hub.stop(), 0);
}

#[test]
fn a_replay_goes_through_the_whole_path_and_makes_new_ids_the_second_time() {
    let hub = hub("[[device]]\nname = \"band\"\nprofile = \"serial-vitals-line\"\nserial = \"/dev/null\"\n");
    let recording = hub.dir.path().join("recording.ndjson");
    let frame = |n: u64| {
        let hex: String = format!("HR:{},S:{}", 60 + n % 40, n * 3).bytes().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "{{\"t\":{},\"device\":\"band\",\"channel\":\"frame\",\"hex\":\"{hex}\"}}\n",
            1_763_900_000_000 + n * 1_000
        )
    };
    std::fs::write(&recording, (0..5_000).map(frame).collect::<String>()).unwrap();
    for round in 1..=2u64 {
        let (code, out, error) = hub.output(&["replay", recording.to_str().unwrap(), "--full-speed"]);
        assert_eq!(code, 0, "{error}");
        assert!(out.contains("replayed frames=5000") && out.contains("archive.waiting=0"), "{out}");
        let found = events(&hub);
        assert_eq!(values(&found, "heart_rate").len() as u64, 5_000 * round);
        let ids: std::collections::HashSet<&str> =
            found.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), found.len());
        assert_eq!(found[0]["timestamp"], 1_763_900_000_000u64, "heard when it was recorded");
    }
}

#[test]
fn the_demo_shows_the_promise_and_ends_with_its_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let begun = std::time::Instant::now();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_biogate"));
    command.args(["demo", "--patients", "2", "--duration", "9s", "--dir"]).arg(folder.path());
    let mut demo = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let archive = folder.path().join("archive");
    wait_for(SOON, || (!lines_of(&archive).is_empty()).then_some(())).expect("an event");
    // The goal is two seconds; a loaded test machine gets a few more.
    assert!(begun.elapsed() < Duration::from_secs(6), "the first event came after {:?}", begun.elapsed());
    let status = wait_for(Duration::from_secs(40), || demo.try_wait().unwrap()).expect("it ends by itself");
    assert!(status.success());
    let mut out = String::new();
    std::io::Read::read_to_string(&mut demo.stdout.take().unwrap(), &mut out).unwrap();
    assert!(out.contains("the destination is cut off") && out.contains("the destination is back"), "{out}");
    let ledger = out.lines().last().unwrap();
    assert!(ledger.starts_with("ledger accepted=") && ledger.contains("archive.waiting=0"), "{out}");
    assert!(ledger.ends_with(&format!("dir={}", folder.path().display())), "{ledger}");
    let stored = ledger.split(' ').find_map(|pair| pair.strip_prefix("stored=")).unwrap();
    assert_eq!(lines_of(&archive).len().to_string(), stored, "every stored event is a line");
}
