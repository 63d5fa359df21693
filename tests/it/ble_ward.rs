//! A ward of heart-rate straps under a fake BlueZ, the real binary that reads them, and what has arrived of each.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::bluez::Bluez;
use crate::rig::gateway::{Hub, assert_balanced, wait_for};

/// Heart Rate Measurement.
pub(crate) const MEASUREMENT: &str = "2a37";

/// Every wait ends after this; each test's own promise is shorter.
pub(crate) const SOON: Duration = Duration::from_secs(40);

const HEAD: &str = r#"
[clock]
trust = "always"
[store]
commit_interval = "100 ms"
min_free = "1 MiB"
[ble]
max_links = 20
"#;

/// An entry of a strap, named after its address.
fn entry(address: &str, more: &str) -> String {
    format!(
        "[[device]]\nname = \"{}\"\nprofile = \"bluetooth-heart-rate\"\nble = \"{address}\"\n{more}\n",
        name_of(address)
    )
}

/// The name of the strap with this address.
pub(crate) fn name_of(address: &str) -> String {
    format!("strap-{}", address.rsplit(':').next().unwrap())
}

/// The straps, their gateway, and the files that it writes.
pub(crate) struct Ward {
    pub(crate) bluez: Bluez,
    pub(crate) hub: Hub,
    pub(crate) straps: Vec<String>,
    archive: PathBuf,
}

impl Ward {
    /// `count` straps at 5 Hz; `more` goes into each entry. The gateway runs.
    pub(crate) fn open(count: u8, more: &str) -> Option<Ward> {
        let bluez = Bluez::start()?;
        let straps = bluez.straps(count, 5.0);
        Some(Ward::with(bluez, straps, more, ""))
    }

    /// The same with straps that are in the room already, and `rest` at the end of the configuration.
    pub(crate) fn with(bluez: Bluez, straps: Vec<String>, more: &str, rest: &str) -> Ward {
        let mut ward = Ward::closed(bluez, straps, more, rest);
        ward.hub.start();
        ward
    }

    /// The same, and the gateway does not run yet.
    pub(crate) fn closed(bluez: Bluez, straps: Vec<String>, more: &str, rest: &str) -> Ward {
        let folder = tempfile::tempdir().unwrap().keep();
        let archive = folder.join("archive");
        let entries: String = straps.iter().map(|address| entry(address, more)).collect();
        let mut hub = Hub::new(&format!(
            "{HEAD}[[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n{entries}{rest}",
        ));
        hub.env("DBUS_SYSTEM_BUS_ADDRESS", &bluez.bus_address());
        Ward { bluez, hub, straps, archive }
    }

    /// What has arrived of each strap: the counter of each reading, in order of arrival.
    pub(crate) fn arrived(&self) -> BTreeMap<String, Vec<u64>> {
        let mut arrived: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for event in whole_lines(&self.archive) {
            let device = event["device_id"].as_str().unwrap().to_owned();
            arrived.entry(device).or_default().extend(counter_of(&event));
        }
        arrived
    }

    /// The same of one strap.
    pub(crate) fn arrived_of(&self, strap: &str) -> Vec<u64> {
        self.arrived().remove(&name_of(strap)).unwrap_or_default()
    }

    /// Waits until `more` new readings of each of these straps have arrived; how long that took.
    pub(crate) fn wait_for_values(&self, straps: &[String], more: usize) -> Duration {
        let begun = Instant::now();
        let count =
            |arrived: &BTreeMap<String, Vec<u64>>, strap: &String| arrived.get(&name_of(strap)).map_or(0, Vec::len);
        let before = self.arrived();
        let come = wait_for(SOON, || {
            let now = self.arrived();
            straps.iter().all(|strap| count(&now, strap) >= count(&before, strap) + more).then_some(())
        });
        assert!(come.is_some(), "no values of some strap: {}", self.say());
        begun.elapsed()
    }

    /// Waits until the gateway's log says this.
    pub(crate) fn wait_for_words(&self, words: &str) {
        let said = wait_for(SOON, || self.hub.log().contains(words).then_some(()));
        assert!(said.is_some(), "{words:?} is not said: {}", self.hub.log());
    }

    /// Makes all straps pause, waits until everything is written, and compares: what a strap emitted while somebody
    /// listened has arrived, each reading once.
    pub(crate) fn assert_each_once(&self, straps: &[String]) {
        for strap in straps {
            self.bluez.falls_silent(strap);
        }
        let mut difference = Vec::new();
        let equal = wait_for(Duration::from_secs(8), || {
            let (arrived, devices) = (self.arrived(), self.bluez.state().devices);
            difference = straps
                .iter()
                .filter_map(|strap| {
                    let emitted = devices[strap].attribute(MEASUREMENT).emitted;
                    let mut counters = arrived.get(&name_of(strap)).cloned().unwrap_or_default();
                    counters.sort_unstable();
                    unlike(&counters, emitted).map(|words| format!("{strap}: {words}"))
                })
                .collect();
            difference.is_empty().then_some(())
        });
        assert!(equal.is_some(), "{difference:?}\n{}", self.say());
    }

    /// Waits until nothing is under way any more; the ledger balances.
    pub(crate) fn assert_ledger(&self) -> Value {
        let stat = self.hub.wait_until_drained(1, SOON);
        assert_balanced(&stat);
        stat
    }

    /// What `status` says of a strap, an adapter or the radio.
    pub(crate) fn health(&self, name: &str) -> Value {
        self.health_if_any(name).unwrap_or_else(|| panic!("no {name} in {}", status(&self.hub)))
    }

    /// The same, of one that may not be there yet, nor the gateway.
    pub(crate) fn health_if_any(&self, name: &str) -> Option<Value> {
        let (_, text, _) = self.hub.output(&["status", "--json"]);
        let status: Value = serde_json::from_str(&text).ok()?;
        status["devices"].as_array()?.iter().find(|one| one["name"] == name).cloned()
    }

    fn say(&self) -> String {
        let state = self.bluez.state();
        let links: Vec<&String> =
            state.devices.iter().filter(|(_, one)| one.linked).map(|(address, _)| address).collect();
        format!("linked: {links:?}; status: {}; fake: {}", status(&self.hub)["devices"], self.bluez.log())
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        let folder = self.archive.parent().map(std::path::Path::to_owned);
        let _left_behind = folder.map(std::fs::remove_dir_all);
    }
}

/// The events of a folder's files, without a line that is being written.
fn whole_lines(folder: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("events-")));
    files.sort();
    let mut events = Vec::new();
    for text in files.iter().filter_map(|file| std::fs::read_to_string(file).ok()) {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        events.extend(whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    events
}

/// The counter that a strap put in as an RR interval of so many 1/1024 s; garbage may make sense without one.
fn counter_of(event: &Value) -> Option<u64> {
    let metadata = match &event["metadata"] {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        value => value.clone(),
    };
    Some((metadata["rr_intervals"][0].as_f64()? * 1_024.0).round() as u64)
}

/// How these sorted counters differ from 1 to `emitted`.
fn unlike(counters: &[u64], emitted: u64) -> Option<String> {
    let twice: Vec<u64> = counters.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    let missing: Vec<u64> = (1..=emitted).filter(|number| counters.binary_search(number).is_err()).collect();
    let same = twice.is_empty() && missing.is_empty() && counters.len() as u64 == emitted;
    (!same).then(|| format!("{} of {emitted}; missing {missing:?}, twice {twice:?}", counters.len()))
}

/// What the running gateway answers to `/status`.
pub(crate) fn status(hub: &Hub) -> Value {
    let mut socket = UnixStream::connect(hub.data_dir().join("control.sock")).unwrap();
    socket.write_all(b"GET /status HTTP/1.1\r\nhost: biogate\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|why| panic!("{why}: {answer}"))
}
