//! Stored records: a cuff and a meter that keep theirs and deliver them when they meet the hub, through the whole binary.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ble_ward::SOON;
use crate::rig::bluez::{Bluez, RecordsState, Request};
use crate::rig::gateway::{Hub, assert_balanced, lines_of, wait_for};

const CUFF: &str = "D0:11:22:33:44:55";
const METER: &str = "D0:11:22:33:44:66";

/// Events that come of one reading of a cuff: systolic, diastolic, mean and pulse.
const OF_A_READING: usize = 4;

/// A room with a cuff or a meter, and the gateway that reads it.
struct Bedside {
    bluez: Bluez,
    hub: Hub,
    archive: PathBuf,
}

impl Bedside {
    /// `commit` is the commit interval.
    fn open(bluez: Bluez, commit: &str, entries: &str) -> Bedside {
        let mut hub = Hub::new("");
        let archive = hub.dir.path().join("archive");
        let config = format!(
            "[gateway]\nid = \"hub-test\"\ntimezone = \"Europe/Berlin\"\ndata_dir = {:?}\n[clock]\ntrust = \"always\"\n\
             [store]\ncommit_interval = \"{commit}\"\nmin_free = \"1 MiB\"\n\
             [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n{entries}",
            hub.data_dir()
        );
        std::fs::write(hub.config(), config).unwrap();
        hub.env("DBUS_SYSTEM_BUS_ADDRESS", &bluez.bus_address());
        hub.start();
        Bedside { bluez, hub, archive }
    }

    fn records(&self, address: &str) -> RecordsState {
        self.bluez.device(address).records.unwrap()
    }

    /// Events of one device by their own time; `until` so many have come.
    fn events(&self, device: &str, until: usize) -> BTreeMap<i64, Vec<Value>> {
        let of_device = || lines_of(&self.archive).into_iter().filter(|event| event["device_id"] == device);
        let come = wait_for(SOON, || (of_device().count() >= until).then_some(()));
        assert!(come.is_some(), "{} of {until} events of {device}\n{}", of_device().count(), self.hub.log());
        let mut by_time: BTreeMap<i64, Vec<Value>> = BTreeMap::new();
        of_device().for_each(|event| by_time.entry(event["timestamp"].as_i64().unwrap()).or_default().push(event));
        by_time
    }

    fn duplicates(&self) -> u64 {
        let stat = self.hub.wait_until_drained(1, SOON);
        assert_balanced(&stat);
        stat["ledger"]["intake"]["duplicate"].as_u64().unwrap()
    }

    /// Each of the cuff's `count` readings once, a minute apart by its own clock.
    fn assert_whole(&self, count: usize) {
        let by_time = self.events("cuff", count * OF_A_READING);
        assert_eq!(by_time.len(), count, "{:?}", by_time.keys());
        let times: Vec<i64> = by_time.keys().copied().collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 60_000), "{times:?}");
        for (time, events) in by_time {
            let mut ids: Vec<&Value> = events.iter().map(|event| &event["event_id"]).collect();
            ids.dedup();
            assert_eq!((events.len(), ids.len()), (OF_A_READING, OF_A_READING), "at {time}: {events:?}");
            assert!(events.iter().all(|event| event["clock"] == "device"), "{events:?}");
        }
    }
}

fn cuff() -> String {
    format!("[[device]]\nname = \"cuff\"\nprofile = \"bluetooth-blood-pressure\"\nble = \"{CUFF}\"\n")
}

fn meter() -> String {
    format!("[[device]]\nname = \"meter\"\nprofile = \"bluetooth-glucose\"\nble = \"{METER}\"\n")
}

#[test]
fn a_cuff_whose_link_drops_in_the_middle_delivers_each_record_once_and_a_strap_beside_it_streams_on() {
    let Some(bluez) = Bluez::start() else { return };
    let straps = bluez.straps(1, 5.0);
    bluez.cuff_that_drops(CUFF, 30, 20.0, 13, 1);
    let strap = format!("[[device]]\nname = \"strap\"\nprofile = \"bluetooth-heart-rate\"\nble = \"{}\"\n", straps[0]);
    let bed = Bedside::open(bluez, "1 s", &(cuff() + &strap));
    bed.assert_whole(30);
    assert_eq!(bed.duplicates(), 13, "what came before the drop came again and was known");
    let sent = bed.records(CUFF).sent;
    assert_eq!(sent, (1..=13).chain(1..=30).collect::<Vec<u64>>());
    bed.bluez.falls_silent(&straps[0]);
    let emitted = bed.bluez.device(&straps[0]).attribute("2a37").emitted as usize;
    assert!(emitted > 5, "{emitted}");
    let heard = || lines_of(&bed.archive).iter().filter(|event| event["device_id"] == "strap").count();
    let whole = wait_for(SOON, || (heard() == emitted).then_some(()));
    assert!(whole.is_some(), "{} of {emitted}", heard());
}

#[test]
fn a_gateway_that_is_killed_in_the_middle_of_a_transfer_reads_it_again_and_counts_each_record_once() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.cuff(CUFF, 30, 10.0);
    let mut bed = Bedside::open(bluez, "1 s", &cuff());
    bed.events("cuff", 8 * OF_A_READING);
    bed.hub.kill();
    // BlueZ keeps the link; the cuff sends anew only to a new one.
    bed.bluez.drop_link(CUFF);
    bed.hub.start();
    bed.assert_whole(30);
    assert!(bed.duplicates() >= 8);
}

#[test]
fn a_bluetoothd_that_restarts_in_the_middle_of_a_transfer_costs_no_record_and_doubles_none() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.cuff(CUFF, 30, 10.0);
    let bed = Bedside::open(bluez, "1 s", &cuff());
    bed.events("cuff", 5 * OF_A_READING);
    bed.bluez.bluetoothd_vanishes();
    std::thread::sleep(Duration::from_millis(300));
    bed.bluez.bluetoothd_returns();
    bed.assert_whole(30);
}

#[test]
fn a_meter_is_asked_for_its_records_once_and_keeps_them() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.glucose_meter(METER, 20, 20.0, None);
    let bed = Bedside::open(bluez, "1 s", &meter());
    assert_eq!(bed.events("meter", 20).len(), 20);
    let records = bed.records(METER);
    assert_eq!(records.requests.iter().map(|request| &*request.value).collect::<Vec<_>>(), ["0101"], "report all");
    assert!(records.deleted.is_empty() && records.stored.len() == 20);
    assert_eq!(bed.duplicates(), 0);
}

/// A shipped profile, changed so that it erases what was read.
fn erasing(id: &str) -> String {
    let text = include_str!("../../device-profiles/bluetooth-glucose.toml");
    let changed = text.replace("sequence_at = 1 }", "sequence_at = 1, erase = true }");
    assert_ne!(changed, text);
    changed.replacen("\"bluetooth-glucose\"", &format!("\"{id}\""), 1)
}

#[test]
fn a_meter_erases_a_record_only_after_it_is_durable_and_never_after_a_drop() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.glucose_meter(METER, 20, 20.0, Some(7));
    let mut hub = Hub::new("");
    let folder = hub.dir.path().join("profiles");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("erasing.toml"), erasing("erasing")).unwrap();
    let archive = hub.dir.path().join("archive");
    let config = format!(
        "[gateway]\nid = \"hub-test\"\ndata_dir = {:?}\n[clock]\ntrust = \"always\"\n[store]\nmin_free = \"1 MiB\"\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n\
         [[device]]\nname = \"meter\"\nprofile = \"erasing\"\nble = \"{METER}\"\n",
        hub.data_dir()
    );
    std::fs::write(hub.config(), config).unwrap();
    hub.env("DBUS_SYSTEM_BUS_ADDRESS", &bluez.bus_address());
    hub.start_with(&["--profiles", folder.to_str().unwrap()]);
    let erased = wait_for(Duration::from_secs(60), || {
        let records = bluez.device(METER).records?;
        (!records.deleted.is_empty()).then_some(records)
    });
    let records = erased.unwrap_or_else(|| panic!("nothing is erased: {}\n{}", bluez.log(), hub.log()));
    let begun = Instant::now();
    let erased: Vec<u64> = records.deleted.iter().map(|one| one.number).collect();
    assert_eq!(erased, (1..=20).collect::<Vec<u64>>());
    let orders = records.requests.iter().filter(|request| request.value.starts_with("02")).count();
    assert_eq!(orders, 1, "one order for all that were read");
    assert!(records.sent.len() >= 27, "the dropped transfer was asked for again: {:?}", records.sent);
    // The order came after the commit: without waiting, the store has them all, also after a kill.
    hub.kill();
    hub.start_with(&["--profiles", folder.to_str().unwrap()]);
    let stat = hub.wait_until_drained(20, SOON);
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(stat["ledger"]["intake"]["stored"], 20, "{stat}");
    assert_balanced(&stat);
}

#[test]
fn a_device_is_given_the_hubs_own_time_of_day() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.cuff(CUFF, 1, 20.0);
    let bed = Bedside::open(bluez, "100 ms", &cuff());
    bed.events("cuff", OF_A_READING);
    let device = bed.bluez.device(CUFF);
    let Request { at, value } = device.attribute("2a2b").writes.last().expect("the clock is set");
    let bytes: Vec<u8> = (0..20).step_by(2).map(|at| u8::from_str_radix(&value[at..at + 2], 16).unwrap()).collect();
    let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    let wall = zone.to_datetime(jiff::Timestamp::from_millisecond((at * 1_000.0) as i64).unwrap());
    let told = jiff::civil::date(i16::from(bytes[0]) + (i16::from(bytes[1]) << 8), bytes[2] as i8, bytes[3] as i8).at(
        bytes[4] as i8,
        bytes[5] as i8,
        bytes[6] as i8,
        0,
    );
    assert!(wall.duration_since(told).unsigned_abs() < Duration::from_secs(3), "{told} at {wall}");
    assert_eq!(bytes[7] as i8, wall.weekday().to_monday_one_offset());
}
