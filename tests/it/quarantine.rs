//! What was set aside and comes back, with the real binary: the worked example of docs/quarantine.md, a kill in
//! mid-replay, limits that were widened, a device that gets its person.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use biogate::event::event_id;
use biogate::observation::{EventType, Observation};
use biogate::reading::{BootId, Heard, RunId};
use serde_json::Value;
use uuid::Uuid;

use crate::rig::gateway::{Hub, assert_balanced, destinations, lines_of, wait_for};
use crate::rig::pty::Pty;

const DOC: &str = include_str!("../../docs/quarantine.md");
const SOON: Duration = Duration::from_secs(20);
/// By how many milliseconds an event's time may miss the wall clock at which it was heard.
const CLOCKS_APART: i64 = 5;

/// A hub with a file destination, quick commits and a folder for profiles; `gateway` goes into its first section.
fn hub(gateway: &str, rest: &str) -> Hub {
    let hub = Hub::new("");
    let text = std::fs::read_to_string(hub.config()).unwrap();
    let common = format!(
        "{gateway}\n[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"20 ms\"\nmin_free = \"1 MiB\"\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {:?}\n",
        archive(&hub)
    );
    std::fs::create_dir(profiles(&hub)).unwrap();
    std::fs::write(hub.config(), text + &common + rest).unwrap();
    hub
}

fn archive(hub: &Hub) -> PathBuf {
    hub.dir.path().join("archive")
}

fn profiles(hub: &Hub) -> PathBuf {
    hub.dir.path().join("device-profiles")
}

fn start(hub: &mut Hub) {
    let folder = profiles(hub);
    hub.start_with(&["--profiles", folder.to_str().unwrap()]);
    // `buffer stat` would open the store itself.
    wait_for(SOON, || (hub.output(&["status"]).0 == 0).then_some(())).expect("a running gateway");
}

/// The doc's profile, in the hub's folder.
fn write_profile(hub: &Hub) {
    let block = DOC.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a toml block");
    std::fs::write(profiles(hub).join("ward-oximeter.toml"), block).unwrap();
}

fn device(port: &Path) -> String {
    format!("[[device]]\nname = \"oximeter-7\"\nprofile = \"ward-oximeter\"\nserial = {port:?}\n")
}

/// Reads the configuration again, and returns once that is done.
fn reload(hub: &Hub) {
    let count = || hub.log().matches("profiles and device entries read again").count();
    let before = count();
    hub.signal("HUP");
    wait_for(SOON, || (count() > before).then_some(())).expect("a reload");
}

/// Waits until the line is open: what is said before is nobody's reading.
fn wait_until_open(hub: &Hub) {
    let open = || {
        let (_, status, _) = hub.output(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status).ok()?;
        let devices = status["devices"].as_array()?.clone();
        devices.iter().any(|device| device["name"] == "oximeter-7" && device["state"] == "open").then_some(())
    };
    wait_for(SOON, open).expect("an open line");
}

fn listed(hub: &Hub) -> Vec<Value> {
    let (code, list, why) = hub.output(&["buffer", "quarantine", "list", "--json", "--limit", "100000"]);
    assert_eq!(code, 0, "{why}");
    list.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn replay(hub: &Hub, more: &[&str]) -> Value {
    let (code, said, why) = hub.output(&[&["buffer", "quarantine", "replay", "--json"], more].concat());
    assert_eq!(code, 0, "{why}");
    serde_json::from_str(&said).unwrap()
}

/// The id that a reading's observation has had since it was heard.
fn id_of(entry: &Value, index: u16) -> String {
    let run = RunId(entry["run"].as_str().unwrap().parse::<Uuid>().unwrap());
    let observation = Observation {
        reading: entry["reading"].as_u64().unwrap(),
        index,
        device: "".into(),
        profile: "".into(),
        event_type: EventType::Spo2,
        component: "".into(),
        value: 0.0,
        heard: Heard { boot: BootId::WALL, ms: 0 },
        device_time: None,
        since: None,
        identity: None,
        metadata: Vec::new(),
    };
    event_id(run, &observation).to_string()
}

/// The events of a file destination, without the reports beside them.
fn events(dir: &Path) -> Vec<Value> {
    lines_of(dir).into_iter().filter(|line| line.get("event_id").is_some()).collect()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[test]
fn the_weekend_of_the_guide_happens_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let mut hub = hub("timezone = \"Europe/Berlin\"", &device(&port));
    write_profile(&hub);
    start(&mut hub);
    wait_until_open(&hub);
    let mut heard = Vec::new();
    for (number, frame) in
        ["SPO2=97;PR=64;VBAT=3.9\n", "SPO2=96;PR=71;VBAT=3.8\n", "SPO2=98;PR=62;VBAT=3.8\n"].iter().enumerate()
    {
        let from = now_ms();
        line.send(frame.as_bytes());
        let refused = || hub.stat().filter(|stat| stat["store"]["aside_entries"] == number as u64 + 1);
        wait_for(SOON, refused).expect("a refused frame");
        heard.push(from..=now_ms());
    }
    let entries = listed(&hub);
    let mut names = HashMap::new();
    for (command, expected) in commands() {
        if command.contains("/archive/") {
            hub.wait_until_drained(6, SOON);
        }
        let said = match command.as_str() {
            "systemctl reload biogate" => {
                reload(&hub);
                String::new()
            }
            _ => shell(&hub, &command, &names),
        };
        compare(&command, &expected, &said, &mut names);
    }
    let rows = events(&archive(&hub));
    let ids: Vec<&str> = rows.iter().map(|row| row["event_id"].as_str().unwrap()).collect();
    let wanted: Vec<String> = entries.iter().flat_map(|entry| [id_of(entry, 0), id_of(entry, 1)]).collect();
    assert_eq!(ids, wanted, "the ids that they would have had");
    for (row, heard) in rows.iter().zip(heard.iter().flat_map(|heard| [heard, heard])) {
        let timestamp = row["timestamp"].as_i64().unwrap();
        // An event's time is the sum of two clocks that are read one after the other and cut to milliseconds.
        let heard = heard.start() - CLOCKS_APART..=heard.end() + CLOCKS_APART;
        assert!(heard.contains(&timestamp), "{timestamp} is not when it was heard: {heard:?}");
    }
    assert_balanced(&hub.stat().unwrap());
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

/// Each command of the doc's console blocks with what it prints there.
fn commands() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for block in DOC.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap_or_default().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => all.push((command.to_owned(), String::new())),
                None => {
                    let (_, expected) = all.last_mut().expect("a command before its output");
                    expected.push_str(line);
                    expected.push('\n');
                }
            }
        }
    }
    assert!(all.len() > 5, "{all:?}");
    all
}

/// Runs a command of the doc with this hub's places in place of a real hub's, and real ids in place of the doc's.
fn shell(hub: &Hub, command: &str, names: &HashMap<String, String>) -> String {
    let mut command = command
        .replace("/etc/biogate/device-profiles", profiles(hub).to_str().unwrap())
        .replace("/var/lib/biogate/archive", archive(hub).to_str().unwrap());
    for (shown, real) in names {
        command = command.replace(shown, real);
    }
    let biogate = env!("CARGO_BIN_EXE_biogate");
    let script = format!("set -e\nbiogate() {{ {biogate} --config {} \"$@\"; }}\n{command}\n", hub.config().display());
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Word for word, but for ids, times and the random parts of a row.
fn compare(command: &str, expected: &str, said: &str, names: &mut HashMap<String, String>) {
    let is_id = |word: &str| word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_time = |word: &str| word.len() == 25 && word.as_bytes()[10] == b'T';
    assert_eq!(expected.lines().count(), said.lines().count(), "$ {command}\n{said}");
    for (wanted, line) in expected.lines().zip(said.lines()) {
        if wanted.starts_with('{') {
            let row = |line: &str| {
                let mut row: Value = serde_json::from_str(line).unwrap();
                for own in ["event_id", "timestamp", "tz_offset_min", "gateway_id"] {
                    assert!(row.as_object_mut().unwrap().remove(own).is_some(), "{line}");
                }
                row
            };
            assert_eq!(row(wanted), row(line), "$ {command}");
            continue;
        }
        let same = wanted.split(' ').zip(line.split(' ')).all(|(wanted, word)| {
            if is_id(wanted) && is_id(word) {
                return names.entry(wanted.to_owned()).or_insert_with(|| word.to_owned()) == word;
            }
            wanted == word || (is_time(wanted) && is_time(word))
        });
        assert!(same && wanted.split(' ').count() == line.split(' ').count(), "$ {command}\n{wanted}\n{line}");
    }
}

#[test]
fn a_kill_in_mid_replay_loses_nothing_and_changes_no_id() {
    const FRAMES: usize = 1_500;
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let mut hub = hub("", &device(&port));
    write_profile(&hub);
    start(&mut hub);
    wait_until_open(&hub);
    for number in 0..FRAMES {
        line.send(format!("SPO2={};PR=64;VBAT=3.9\n", 80 + number % 20).as_bytes());
        if number % 100 == 99 {
            let taken = || hub.stat().filter(|stat| stat["ledger"]["intake"]["refused"].as_u64() > Some(number as u64));
            wait_for(SOON, taken).expect("refused frames");
        }
    }
    let entries = listed(&hub);
    assert_eq!(entries.len(), FRAMES);
    let wanted: BTreeSet<String> = entries.iter().flat_map(|entry| [id_of(entry, 0), id_of(entry, 1)]).collect();
    let fixed = std::fs::read_to_string(profiles(&hub).join("ward-oximeter.toml")).unwrap().replace("BAT", "VBAT");
    std::fs::write(profiles(&hub).join("ward-oximeter.toml"), fixed).unwrap();
    reload(&hub);
    let mut random = fastrand::Rng::new();
    let mut came = 0;
    for round in 0..4 {
        let wait = Duration::from_millis(random.u64(0..60));
        let mut command = hub.command(&["buffer", "quarantine", "replay"]);
        let mut asking =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(wait);
        hub.kill();
        asking.wait().unwrap();
        start(&mut hub);
        let stat = hub.stat().unwrap();
        assert_balanced(&stat);
        let kept = stat["store"]["aside_entries"].as_u64().unwrap();
        came = FRAMES as u64 - kept;
        assert_eq!(
            stat["ledger"]["intake"]["stored"].as_u64(),
            Some(came * 2),
            "round {round} after {wait:?}: both or neither"
        );
    }
    let outcome = replay(&hub, &[]);
    assert_eq!(outcome["replayed"], FRAMES as u64 - came, "what was left");
    hub.wait_until_drained(2 * FRAMES as u64, SOON);
    let ids: BTreeSet<String> =
        events(&archive(&hub)).iter().map(|row| row["event_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, wanted);
    let stat = hub.stat().unwrap();
    assert_balanced(&stat);
    assert_eq!((&stat["store"]["aside_entries"], &stat["store"]["aside_replayed"]), (&0.into(), &FRAMES.into()));
    assert!(!hub.data_dir().join("store/aside/gen-1").exists() && !hub.data_dir().join("aside/gen-1").exists());
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

#[test]
fn wider_limits_bring_back_the_one_value_and_narrow_ones_keep_it() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let mut hub = hub("", &(device(&port) + "[limits]\n\"heart_rate/pulse\" = [30, 100]\n"));
    write_profile(&hub);
    start(&mut hub);
    wait_until_open(&hub);
    line.send(b"SPO2=97;PR=120;BAT=3.9\nSPO2=96;PR=180;BAT=3.9\n");
    hub.wait_until_drained(2, SOON);
    let entries = listed(&hub);
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry["kind"] == "implausible"), "{entries:?}");
    let config = std::fs::read_to_string(hub.config()).unwrap();
    std::fs::write(hub.config(), config.replace("[30, 100]", "[30, 150]")).unwrap();
    reload(&hub);
    let outcome = replay(&hub, &["--kind", "implausible"]);
    assert_eq!((&outcome["replayed"], &outcome["events"], &outcome["still"]), (&1.into(), &1.into(), &1.into()));
    hub.wait_until_drained(3, SOON);
    let rows = events(&archive(&hub));
    let pulses: Vec<_> = rows.iter().filter(|row| row["component"] == "pulse").collect();
    assert_eq!(pulses.len(), 1, "{rows:?}");
    assert_eq!((&pulses[0]["value"], &pulses[0]["event_id"]), (&120.0.into(), &id_of(&entries[0], 1).into()));
    let kept = listed(&hub);
    assert_eq!((kept.len(), &kept[0]["id"]), (1, &entries[1]["id"]));
    let id = kept[0]["id"].as_str().unwrap();
    assert_eq!(hub.output(&["buffer", "quarantine", "drop"]).0, 2, "a drop of everything wants --all");
    assert_eq!(hub.output(&["buffer", "quarantine", "drop", "--device", "another"]).1, "0 entries removed for good\n");
    assert_eq!(hub.output(&["buffer", "quarantine", "drop", id]).1, "1 entry removed for good\n");
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    assert_eq!(listed(&hub), Vec::<Value>::new(), "and it stays removed");
    let stat = hub.stat().unwrap();
    assert_balanced(&stat);
    assert_eq!((&stat["store"]["aside_replayed"], &stat["store"]["aside_dropped"]), (&1.into(), &1.into()));
}

#[test]
fn without_a_gateway_the_closed_store_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let mut hub = hub("", &device(&port));
    write_profile(&hub);
    start(&mut hub);
    wait_until_open(&hub);
    line.send(b"SPO2=97;PR=64;VBAT=3.9\nSPO2=98;PR=65;VBAT=3.9\n");
    wait_for(SOON, || hub.stat().filter(|stat| stat["store"]["aside_entries"] == 2)).expect("refused frames");
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    let entries = listed(&hub);
    let path = profiles(&hub).join("ward-oximeter.toml");
    let folder = profiles(&hub);
    let folder = folder.to_str().unwrap();
    let still = replay(&hub, &["--profiles", folder]);
    assert_eq!((&still["replayed"], &still["still"]), (&0.into(), &2.into()));
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("BAT", "VBAT")).unwrap();
    let first = entries[0]["id"].as_str().unwrap();
    let outcome = replay(&hub, &["--profiles", folder, first, "ffffffff"]);
    assert_eq!((&outcome["replayed"], &outcome["events"]), (&1.into(), &2.into()));
    assert_eq!(outcome["unknown"], serde_json::json!(["ffffffff"]));
    assert_eq!(listed(&hub).len(), 1);
    start(&mut hub);
    hub.wait_until_drained(2, SOON);
    let ids: Vec<String> =
        events(&archive(&hub)).iter().map(|row| row["event_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, [id_of(&entries[0], 0), id_of(&entries[0], 1)]);
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

#[test]
fn what_is_parked_goes_by_itself_to_who_parked_it_when_its_device_has_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let second = folder.path().join("second");
    let more = format!("[[destination]]\nname = \"second\"\nkind = \"file\"\ndir = {second:?}\n");
    let mut hub = hub("unassigned = \"park\"", &(more + &device(&port)));
    write_profile(&hub);
    start(&mut hub);
    wait_until_open(&hub);
    line.send(b"SPO2=97;PR=64;BAT=3.9\nSPO2=98;PR=65;BAT=3.9\n");
    hub.wait_until_drained(4, SOON);
    let entries = listed(&hub);
    let of = |name: &str| entries.iter().filter(|entry| entry["destination"] == name).count();
    assert_eq!((of("archive"), of("second")), (4, 4));
    let outcome = replay(&hub, &["--kind", "parked"]);
    assert_eq!((&outcome["replayed"], &outcome["still"]), (&0.into(), &8.into()), "nobody has it yet");
    let person = "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11";
    let (code, _, why) = hub.output(&["assign", "oximeter-7", person, "--from", "1 h ago"]);
    assert_eq!(code, 0, "{why}");
    let gone = || hub.stat().filter(|stat| stat["store"]["aside_entries"] == 0);
    wait_for(SOON, gone).unwrap_or_else(|| panic!("it goes by itself: {:?}", hub.stat()));
    let stat = hub.wait_until_drained(12, SOON);
    assert_balanced(&stat);
    for (name, tally) in destinations(&stat) {
        let counts = ["parked", "delivered", "passed_over"].map(|key| tally[key].as_u64().unwrap());
        assert_eq!(counts, [4, 4, 4], "{name}: {tally}");
    }
    for dir in [archive(&hub), second] {
        let rows: BTreeMap<String, Value> =
            events(&dir).into_iter().map(|row| (row["event_id"].as_str().unwrap().to_owned(), row)).collect();
        assert_eq!(events(&dir).len(), 4, "each once in {}", dir.display());
        for entry in &entries {
            assert_eq!(rows[entry["event"]["event_id"].as_str().unwrap()]["user_id"], person);
        }
    }
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}
