//! Cuffs and meters that store, through the whole binary: each record is one event of its own time, whatever drops,
//! restarts or is killed in the middle; nothing is erased that is not durable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::bluez::Bluez;
use crate::rig::gateway::{Hub, assert_balanced, lines_of, wait_for};
use crate::rig::missing;

const CUFF: &str = "C0:FF:00:00:00:01";
const METER: &str = "C0:FF:00:00:00:02";
const SOON: Duration = Duration::from_secs(40);

/// 2026-11-24 08:00:00, when the first record of each fake was measured, in Unix milliseconds if that were UTC.
const FIRST: i64 = 1_795_507_200_000;

/// What a record of the cuff makes: systolic, diastolic, mean and pulse.
const OF_A_CUFF: usize = 4;

/// A fake BlueZ, a gateway on its bus, and the files that it writes.
struct Room {
    bluez: Bluez,
    hub: Hub,
}

impl Room {
    /// A gateway at a place in Berlin with these entries (name, profile, address); it does not run yet.
    fn new(trust: &str, entries: &[(&str, &str, &str)]) -> Option<Room> {
        let bluez = Bluez::start()?;
        let mut hub = Hub::new("");
        let text = |name: &str, profile: &str, address: &str| {
            format!("[[device]]\nname = \"{name}\"\nprofile = \"{profile}\"\nble = \"{address}\"\n")
        };
        let entries: String = entries.iter().map(|(name, profile, address)| text(name, profile, address)).collect();
        let config = std::fs::read_to_string(hub.config()).unwrap();
        let config = format!(
            "{config}timezone = \"Europe/Berlin\"\n[clock]\ntrust = \"{trust}\"\nmax_hold = \"1 s\"\n\
             [store]\ncommit_interval = \"1 s\"\nmin_free = \"1 MiB\"\n\
             [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {:?}\n{entries}",
            archive(&hub)
        );
        std::fs::write(hub.config(), config).unwrap();
        hub.env("DBUS_SYSTEM_BUS_ADDRESS", &bluez.bus_address());
        Some(Room { bluez, hub })
    }

    /// The events of a device, in the order in which they arrived.
    fn events(&self, device: &str) -> Vec<Value> {
        lines_of(&archive(&self.hub)).into_iter().filter(|event| event["device_id"] == device).collect()
    }

    /// Waits until at least so many events of a device have arrived.
    fn wait_for_events(&self, device: &str, count: usize) -> Vec<Value> {
        let come = wait_for(SOON, || Some(self.events(device)).filter(|events| events.len() >= count));
        come.unwrap_or_else(|| {
            panic!("{} of {count}: {:?}\n{}", self.events(device).len(), self.hub.stat(), self.hub.log())
        })
    }

    /// Waits until so many readings were recognised as read again, and gives the stat, which balances.
    fn wait_for_duplicates(&self, count: u64) -> Value {
        let come = wait_for(SOON, || {
            self.hub.stat().filter(|stat| stat["ledger"]["intake"]["duplicate"].as_u64().unwrap() >= count)
        });
        let stat = come.unwrap_or_else(|| panic!("no {count} duplicates: {:?}\n{}", self.hub.stat(), self.hub.log()));
        assert_balanced(&stat);
        stat
    }

    /// The requests that the meter got, in hexadecimal.
    fn requests(&self) -> Vec<String> {
        let records = self.bluez.device(METER).records.unwrap();
        records.requests.into_iter().map(|request| request.value).collect()
    }

    fn sent(&self, address: &str) -> usize {
        self.bluez.device(address).records.unwrap().sent.len()
    }

    /// Waits until a device has sent so many records.
    fn wait_for_sent(&self, address: &str, count: usize) {
        let sent = wait_for(SOON, || (self.sent(address) >= count).then_some(()));
        assert!(sent.is_some(), "{}", self.hub.log());
    }

    /// A folder with the meter's profile, that erases what is durable.
    fn erasing_profiles(&self) -> String {
        let folder = self.hub.dir.path().join("profiles");
        std::fs::create_dir(&folder).unwrap();
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/device-profiles/bluetooth-glucose.toml");
        let text = std::fs::read_to_string(shipped).unwrap();
        let erasing = text.replace("sequence_at = 1", "erase = true, sequence_at = 1");
        assert_ne!(erasing, text);
        std::fs::write(folder.join("bluetooth-glucose.toml"), erasing).unwrap();
        folder.to_str().unwrap().to_owned()
    }

    /// How often a device failed or was lost, by its health.
    fn trouble(&self, device: &str) -> u64 {
        let log = self.hub.log();
        log.lines().filter(|line| line.contains(device) && line.contains("WARN")).count() as u64
    }
}

fn archive(hub: &Hub) -> PathBuf {
    hub.dir.path().join("archive")
}

/// Each of `count` records is one set of `parts` events with its own time, and nothing else is there.
fn assert_each_record_once(events: &[Value], count: usize, parts: usize) {
    let mut times: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for event in events {
        assert_eq!(event["clock"], "device", "{event}");
        let part = format!("{}/{}", event["event_type"], event["component"]);
        times.entry(event["timestamp"].as_i64().unwrap()).or_default().push(part);
    }
    // In November Berlin is an hour ahead.
    let expected: Vec<i64> = (0..count as i64).map(|minute| FIRST - 3_600_000 + minute * 60_000).collect();
    assert_eq!(times.keys().copied().collect::<Vec<_>>(), expected);
    for (at, mut found) in times {
        let all = found.len();
        found.sort();
        found.dedup();
        assert_eq!((found.len(), all), (parts, parts), "{at}: {found:?}");
    }
}

fn cuff() -> (&'static str, &'static str, &'static str) {
    ("cuff", "bluetooth-blood-pressure", CUFF)
}

fn meter() -> (&'static str, &'static str, &'static str) {
    ("meter", "bluetooth-glucose", METER)
}

#[test]
fn a_cuff_that_begins_again_after_a_dropped_link_makes_each_record_once_and_crowds_out_no_strap() {
    let strap = "C4:F1:F2:F3:F4:01";
    let Some(mut room) = Room::new("always", &[cuff(), ("strap", "bluetooth-heart-rate", strap)]) else { return };
    room.bluez.straps(1, 10.0);
    room.hub.start();
    room.wait_for_events("strap", 3);
    room.bluez.cuff_that_drops(CUFF, 30, 20.0, 13, 1);
    room.wait_for_events("cuff", 30 * OF_A_CUFF);
    let stat = room.wait_for_duplicates(13);
    assert_eq!(stat["ledger"]["intake"]["duplicate"], 13, "{stat}");
    room.bluez.falls_silent(strap);
    let emitted = room.bluez.device(strap).attribute("2a37").emitted as usize;
    room.wait_for_events("strap", emitted);
    assert_eq!(room.hub.stop(), 0);
    assert_each_record_once(&room.events("cuff"), 30, OF_A_CUFF);
    assert_eq!(room.events("strap").len(), emitted, "{}", room.hub.log());
    assert_eq!(room.trouble("cuff"), 0, "a cuff that hangs up is no failure: {}", room.hub.log());
}

#[test]
fn a_cuff_makes_each_record_once_over_a_kill_in_the_middle() {
    let Some(mut room) = Room::new("always", &[cuff()]) else { return };
    room.bluez.cuff(CUFF, 30, 20.0);
    room.hub.start();
    room.wait_for_sent(CUFF, 12);
    room.hub.kill();
    room.hub.start();
    room.wait_for_events("cuff", 30 * OF_A_CUFF);
    // What was stored before the kill came again; the last one or two were perhaps not.
    room.wait_for_duplicates(9);
    assert_eq!(room.hub.stop(), 0);
    assert_each_record_once(&room.events("cuff"), 30, OF_A_CUFF);
}

#[test]
fn a_cuff_makes_each_record_once_over_a_restart_of_bluetoothd() {
    let Some(mut room) = Room::new("always", &[cuff()]) else { return };
    room.bluez.cuff(CUFF, 30, 20.0);
    room.hub.start();
    room.wait_for_sent(CUFF, 12);
    room.bluez.tell(json!({"do": "restart", "away_ms": 500}));
    room.wait_for_events("cuff", 30 * OF_A_CUFF);
    room.wait_for_duplicates(12);
    assert_eq!(room.hub.stop(), 0);
    assert_each_record_once(&room.events("cuff"), 30, OF_A_CUFF);
}

#[test]
fn a_meter_is_asked_for_all_then_for_newer_ones_and_keeps_them() {
    let Some(mut room) = Room::new("always", &[meter()]) else { return };
    room.bluez.glucose_meter(METER, 12, 20.0, Some(5));
    room.hub.start();
    room.wait_for_events("meter", 12);
    // Once all are fetched the link is left.
    wait_for(SOON, || (!room.bluez.device(METER).linked).then_some(())).expect("the hub leaves the meter alone");
    assert_eq!(room.requests(), ["0101", "0101"], "all, and after the dropped link all again");
    room.bluez.tell(json!({"do": "restart", "away_ms": 300}));
    // Only "at least" can be asked: the last known one comes once more, here number 11.
    let stat = room.wait_for_duplicates(6);
    assert_eq!((room.requests()[2..].to_vec(), room.sent(METER)), (vec!["0103010b00".to_owned()], 5 + 12 + 1));
    assert_eq!(stat["ledger"]["intake"]["duplicate"], 6, "{stat}");
    assert_eq!(room.hub.stop(), 0);
    assert_each_record_once(&room.events("meter"), 12, 1);
    let records = room.bluez.device(METER).records.unwrap();
    assert_eq!((records.stored.len(), records.deleted.len()), (12, 0));
    assert_eq!(room.trouble("meter"), 0, "{}", room.hub.log());
}

#[test]
fn a_meter_is_erased_once_everything_is_durable() {
    let Some(mut room) = Room::new("always", &[meter()]) else { return };
    let Some(disk) = slow_disk(&room.hub) else { return };
    room.hub.env("LD_PRELOAD", &disk);
    let folder = room.erasing_profiles();
    room.bluez.glucose_meter(METER, 40, 200.0, Some(15));
    room.hub.start_with(&["--profiles", &folder]);
    room.wait_for_sent(METER, 15 + 40);
    let all_sent = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let erased = wait_for(SOON, || (!room.bluez.device(METER).records?.deleted.is_empty()).then_some(()));
    // The hub dies at the moment at which the meter erases: what is gone there must be here.
    room.hub.kill();
    assert!(erased.is_some(), "{}", room.hub.log());
    assert_eq!(room.requests(), ["0101", "0101", "0202012700"], "nothing after the dropped link, then up to number 39");
    let records = room.bluez.device(METER).records.unwrap();
    assert_eq!((records.stored.len(), records.deleted.len()), (0, 40));
    let waited = records.requests[2].at - all_sent;
    assert!(waited > 0.5, "the last record's commit takes a second, and it was erased after {waited} s");
    room.hub.env("LD_PRELOAD", "");
    room.hub.start_with(&["--profiles", &folder]);
    room.hub.wait_until_drained(40, SOON);
    assert_eq!(room.hub.stop(), 0);
    assert_each_record_once(&room.events("meter"), 40, 1);
}

/// A library that makes every fdatasync take a second.
fn slow_disk(hub: &Hub) -> Option<String> {
    let (source, library) = (hub.dir.path().join("slow.c"), hub.dir.path().join("slow.so"));
    let text = "#include <sys/syscall.h>\n#include <unistd.h>\n\
                int fdatasync(int file) { sleep(1); return syscall(SYS_fdatasync, file); }\n";
    std::fs::write(&source, text).unwrap();
    let built = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    if !built.is_ok_and(|status| status.success()) {
        missing("cc");
        return None;
    }
    Some(library.to_str().unwrap().to_owned())
}

#[test]
fn an_oximeter_without_a_memory_is_read_all_the_same() {
    let Some(mut room) = Room::new("always", &[("oximeter", "bluetooth-pulse-oximeter", METER)]) else { return };
    // Continuous values: SpO2 from 61 % on, pulse 72 /min.
    let spo2 = json!({"prefix": "00", "width": 2, "start": 60, "suffix": "4800"});
    let value = json!({"uuid": "2a5f", "flags": ["notify"], "notify_hz": 5, "pattern": spo2});
    room.bluez.devices(vec![json!({"address": METER, "services": [{"uuid": "1822", "characteristics": [value]}]})]);
    room.hub.start();
    room.wait_for_events("oximeter", 6);
    assert_eq!(room.hub.stop(), 0);
    assert_eq!(room.trouble("oximeter"), 0, "{}", room.hub.log());
}

/// The clocks that were written to the cuff: the local time, and when it was written, in Unix seconds.
fn clocks(room: &Room) -> Vec<(i64, f64)> {
    let cuff = room.bluez.device(CUFF);
    let written = cuff.attribute("2a2b").writes.iter();
    written
        .map(|write| {
            let byte = |at: usize| i64::from(u8::from_str_radix(&write.value[2 * at..2 * at + 2], 16).unwrap());
            let small = |at: usize| i8::try_from(byte(at)).unwrap();
            let year = i16::try_from(byte(0) + 256 * byte(1)).unwrap();
            let told = jiff::civil::date(year, small(2), small(3)).at(small(4), small(5), small(6), 0);
            assert_eq!(small(7), told.weekday().to_monday_one_offset());
            (jiff::tz::TimeZone::UTC.to_timestamp(told).unwrap().as_second(), write.at)
        })
        .collect()
}

#[test]
fn a_cuffs_clock_is_set_to_the_local_time_of_a_hub_that_knows_it() {
    let Some(mut room) = Room::new("always", &[cuff()]) else { return };
    room.bluez.cuff(CUFF, 1, 20.0);
    room.hub.start();
    room.wait_for_events("cuff", OF_A_CUFF);
    let clocks = clocks(&room);
    let [(told, at)] = clocks[..] else { panic!("once for each link: {clocks:?}") };
    let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    let offset = zone.to_offset(jiff::Timestamp::from_second(at as i64).unwrap()).seconds();
    let apart = told as f64 - f64::from(offset) - at;
    assert!(apart.abs() < 3.0, "{apart} s");
}

#[test]
fn a_cuffs_clock_is_left_alone_by_a_hub_that_does_not_know_the_time() {
    let synchronised = biogate::clock::system::sample().synchronised;
    let Some(mut room) = Room::new("kernel", &[cuff()]) else { return };
    room.bluez.cuff_that_drops(CUFF, 10, 20.0, 4, 1);
    room.hub.start();
    room.wait_for_events("cuff", 10 * OF_A_CUFF);
    // Records are recognised all the same.
    room.wait_for_duplicates(4);
    assert_eq!(clocks(&room).is_empty(), !synchronised);
    assert_eq!(room.hub.stop(), 0);
    assert_each_record_once(&room.events("cuff"), 10, OF_A_CUFF);
}

#[test]
fn a_scale_and_a_thermometer_that_hang_up_after_each_indication_are_no_failures() {
    let (scale, thermometer) = ("C0:FF:00:00:00:03", "C0:FF:00:00:00:04");
    let entries =
        [("scale", "bluetooth-weight-scale", scale), ("thermometer", "bluetooth-health-thermometer", thermometer)];
    let Some(mut room) = Room::new("always", &entries) else { return };
    // One value at once to whoever listens, the next in a minute.
    let one = |address: &str, service: &str, uuid: &str, pattern: Value| {
        let value = json!({"uuid": uuid, "flags": ["indicate"], "notify_hz": 1.0 / 60.0, "pattern": pattern});
        json!({"address": address, "services": [{"uuid": service, "characteristics": [value]}]})
    };
    room.bluez.devices(vec![
        one(scale, "181d", "2a9d", json!({"prefix": "00", "start": 14_600})),
        one(thermometer, "1809", "2a1c", json!({"prefix": "00", "width": 3, "start": 365, "suffix": "ff"})),
    ]);
    room.hub.start();
    for visit in 1..=3 {
        for (name, address) in [("scale", scale), ("thermometer", thermometer)] {
            let said = wait_for(SOON, || (emitted(&room, address) == visit as u64).then_some(()));
            assert!(said.is_some(), "visit {visit} of {name}: {}", room.hub.log());
            room.bluez.drop_link(address);
            room.wait_for_events(name, visit);
        }
    }
    assert_eq!(room.hub.stop(), 0);
    let values =
        |name: &str| -> Vec<f64> { room.events(name).iter().map(|event| event["value"].as_f64().unwrap()).collect() };
    assert_eq!((values("scale"), values("thermometer")), (vec![73.005, 73.01, 73.015], vec![36.6, 36.7, 36.8]));
    assert_eq!((room.trouble("scale"), room.trouble("thermometer")), (0, 0), "{}", room.hub.log());
}

fn emitted(room: &Room, address: &str) -> u64 {
    room.bluez.device(address).attributes[0].emitted
}
