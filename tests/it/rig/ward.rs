//! The real binary with Bluetooth sensors around it: a hub, and the fake org.bluez that it talks to.
#![allow(dead_code, reason = "the rig's vocabulary is larger than what the tests of one moment use")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::bluez::Bluez;
use super::gateway::{Hub, lines_of, wait_for};

/// How long a hub may take for what a test waits for.
const PATIENCE: Duration = Duration::from_secs(40);

/// A hub and its radio.
pub(crate) struct Ward {
    pub(crate) hub: Hub,
    pub(crate) bluez: Bluez,
}

/// A device entry for one sensor.
pub(crate) fn entry(name: &str, profile: &str, ble: &str) -> String {
    format!("[[device]]\nname = {name:?}\nprofile = {profile:?}\nble = {ble:?}\n")
}

impl Ward {
    /// A hub that talks to this BlueZ, writes its events to a folder, and has `rest` in its configuration.
    pub(crate) fn new(bluez: Bluez, rest: &str) -> Ward {
        let mut hub = Hub::new("");
        hub.env("DBUS_SYSTEM_BUS_ADDRESS", &bluez.bus_address());
        let head = std::fs::read_to_string(hub.config()).unwrap();
        let out = hub.dir.path().join("out");
        let common = "[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"100 ms\"\n";
        let archive = format!("[[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {out:?}\n");
        std::fs::write(hub.config(), head + common + &archive + rest).unwrap();
        Ward { hub, bluez }
    }

    /// The same, running.
    pub(crate) fn running(bluez: Bluez, rest: &str) -> Ward {
        let mut ward = Ward::new(bluez, rest);
        ward.hub.start();
        ward
    }

    /// What came out, of all devices.
    pub(crate) fn events(&self) -> Vec<Value> {
        lines_of(&self.hub.dir.path().join("out"))
    }

    /// What came out of one device.
    pub(crate) fn events_of(&self, device: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["device_id"] == device).collect()
    }

    pub(crate) fn wait_for_events(&self, device: &str, count: usize) -> Vec<Value> {
        self.wait(&format!("{count} events of {device}"), || {
            let events = self.events_of(device);
            (events.len() >= count).then_some(events)
        })
    }

    /// `/status` and the like of the control socket; nothing while the gateway does not listen.
    pub(crate) fn ask(&self, path: &str) -> Option<Value> {
        get(&self.hub.data_dir().join("control.sock"), path)
    }

    /// What `status` says of one device, adapter or source.
    pub(crate) fn status_of(&self, name: &str) -> Option<Value> {
        let status = self.ask("/status")?;
        status["devices"].as_array()?.iter().find(|one| one["name"] == name).cloned()
    }

    /// Waits until the state of this device, adapter or source has these words.
    pub(crate) fn wait_for_state(&self, name: &str, words: &str) -> Value {
        self.wait(&format!("\"{words}\" of {name}"), || {
            self.status_of(name).filter(|one| one["state"].as_str().is_some_and(|state| state.contains(words)))
        })
    }

    /// Waits until `ask` has an answer, and fails with what the hub and the fake say.
    pub(crate) fn wait<T>(&self, what: &str, ask: impl FnMut() -> Option<T>) -> T {
        wait_for(PATIENCE, ask).unwrap_or_else(|| {
            let devices = self.ask("/status").map(|status| status["devices"].to_string());
            panic!("not in time: {what}\nstatus: {devices:?}\nthe fake's log: {}", self.bluez.log())
        })
    }

    /// How often the hub's log has these words.
    pub(crate) fn times_said(&self, words: &str) -> usize {
        self.hub.log().matches(words).count()
    }
}

/// One GET on a gateway's socket.
fn get(socket: &Path, path: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
