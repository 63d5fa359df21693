//! Cuffs and meters that store, through the whole binary: each record is one event of its own time, whatever drops,
//! restarts or is killed in the middle; nothing is erased that is not durable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::bluez::Bluez;
use crate::rig::gateway::{Hub, assert_balanced, lines_of, wait_for};

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
    room.hub.stop();
    assert_each_record_once(&room.events("cuff"), 30, OF_A_CUFF);
    assert_eq!(room.events("strap").len(), emitted, "{}", room.hub.log());
    assert_eq!(room.trouble("cuff"), 0, "a cuff that hangs up is no failure: {}", room.hub.log());
}
