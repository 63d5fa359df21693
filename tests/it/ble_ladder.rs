//! What is wrong with the radio is said with its cure, the other sources run on, and it is well again when it is healed.
//!
//! An adapter that only falls silent climbs after 90 s and more; that part of the ladder is proven where time is told to
//! it. Here calls hang and are refused.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::rig::bluez::Bluez;
use crate::rig::gateway::wait_for;
use crate::rig::pty::Pty;
use crate::rig::ward::{Ward, entry};

/// A hub with a strap and a serial device, and who talks at its other end.
struct Both {
    ward: Ward,
    line: Pty,
    said: u32,
    _folder: TempDir,
}

impl Both {
    fn new(bluez: Bluez, rest: &str) -> Both {
        let strap = bluez.straps(1, 5.0).remove(0);
        let folder = tempfile::tempdir().unwrap();
        let port = folder.path().join("ttyUSB0");
        let line = Pty::plug(&port);
        let cable = format!("[[device]]\nname = \"cable\"\nprofile = \"serial-vitals-line\"\nserial = {port:?}\n");
        let ward = Ward::running(bluez, &(rest.to_owned() + &entry("strap", "bluetooth-heart-rate", &strap) + &cable));
        Both { ward, line, said: 0, _folder: folder }
    }

    /// The serial device is heard, whatever the radio does.
    fn cable_is_heard(&mut self) {
        let before = self.ward.events_of("cable").len();
        let Both { ward, line, said, .. } = self;
        ward.wait("the cable", || {
            *said += 1;
            line.send(format!("HR:{},S:{said}\n", 60 + *said % 60).as_bytes());
            std::thread::sleep(Duration::from_millis(100));
            (ward.events_of("cable").len() > before).then_some(())
        });
    }

    /// It is said in status and log, and the cable goes on.
    fn says(&mut self, source: &str, words: &str) {
        self.ward.wait_for_state(source, words);
        assert!(self.ward.times_said(words) >= 1);
        self.cable_is_heard();
    }

    /// The strap is heard from now on.
    fn strap_is_heard(&self) {
        let before = self.ward.events_of("strap").len();
        self.ward.wait_for_events("strap", before + 5);
    }
}

#[test]
fn no_adapter() {
    let Some(bluez) = Bluez::start_without_adapter() else { return };
    let mut both = Both::new(bluez, "");
    both.says("bluetooth", "no Bluetooth adapter is there; plug in a dongle");
    both.ward.bluez.add_adapter("hci0", "00:11:22:33:44:55");
    both.strap_is_heard();
    both.ward.bluez.remove_adapter("hci0");
    both.says("adapter hci0", "gone; plug it in again");
    both.says("bluetooth", "no Bluetooth adapter is there");
    both.ward.bluez.add_adapter("hci0", "00:11:22:33:44:55");
    both.strap_is_heard();
    both.ward.wait_for_state("adapter hci0", "nothing else is listened for");
    assert_eq!(both.ward.hub.stop(), 0);
}

#[test]
fn no_bluetoothd() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.bluetoothd_vanishes();
    let mut both = Both::new(bluez, "");
    both.says("bluetooth", "bluetoothd does not run; install bluez and start it");
    both.ward.bluez.bluetoothd_returns();
    both.strap_is_heard();
    both.ward.bluez.bluetoothd_vanishes();
    both.says("bluetooth", "bluetoothd does not run; waiting for it");
    both.ward.bluez.bluetoothd_returns();
    both.strap_is_heard();
    let status = both.ward.wait_for_state("bluetooth", "running");
    assert_eq!(status["named"]["bluetoothd_gone"], 1, "{status}");
}

#[test]
fn no_permission() {
    let Some(bluez) = Bluez::start_denied() else { return };
    let mut both = Both::new(bluez, "");
    both.says("bluetooth", "this user may not talk to bluetoothd; install biogate's D-Bus policy");
    assert!(both.ward.hub.is_running());
}

#[test]
fn an_adapter_that_rfkill_blocks() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.block_adapter("hci0");
    let mut both = Both::new(bluez, "");
    let cure = "hci0 is blocked by rfkill; run: rfkill unblock bluetooth";
    both.says("adapter hci0", cure);
    both.ward.bluez.unblock_adapter("hci0");
    both.strap_is_heard();
    both.ward.bluez.block_adapter("hci0");
    both.says("adapter hci0", cure);
    both.ward.bluez.unblock_adapter("hci0");
    both.strap_is_heard();
}

#[test]
fn a_scan_that_hangs_is_restarted() {
    let Some(bluez) = Bluez::start() else { return };
    // The restart hangs too: the words are there to be read.
    bluez.hangs("Adapter1.StartDiscovery", "hci0", 2);
    let mut both = Both::new(bluez, "");
    both.says("adapter hci0", "bluetoothd does not answer; scanning is restarted");
    both.strap_is_heard();
    let status = both.ward.status_of("adapter hci0").unwrap();
    assert_eq!(status["named"]["scan_restarts"], 1, "{status}");
}

/// The rungs that were counted.
fn rungs(both: &Both) -> Value {
    both.ward.status_of("adapter hci0").map_or(Value::Null, |status| status["named"].clone())
}

#[test]
fn a_scan_that_is_refused_climbs_rung_by_rung_and_bluetoothd_is_restarted_where_that_is_allowed() {
    let (Some(one), Some(other)) = (Bluez::start(), Bluez::start()) else { return };
    for bluez in [&one, &other] {
        bluez.fails("Adapter1.StartDiscovery", "hci0", 1_000, "Failed", "Failed");
    }
    let mut allowed = Both::new(one, "[ble]\nrestart_bluetoothd = true\n");
    let mut forbidden = Both::new(other, "");
    let climb = Duration::from_secs(150);
    wait_for(climb, || (allowed.ward.bluez.state().restarts > 0).then_some(())).expect("a restart of bluetoothd");
    wait_for(climb, || rungs(&forbidden)["given_up"].as_u64()).expect("it gives up");
    // What a person can do stays in sight over the tries that go on.
    std::thread::sleep(Duration::from_secs(12));
    forbidden.ward.wait_for_state("adapter hci0", "unplug the dongle");
    for both in [&mut allowed, &mut forbidden] {
        let log = both.ward.hub.log();
        let said = |words: &str| log.find(&format!("hci0: bluetoothd refuses to scan; {words}")).unwrap_or(0);
        let climbed = [
            said("scanning is restarted"),
            said("a new session with bluetoothd is begun"),
            said("bluetoothd shall forget"),
            said("the radio is switched off and on"),
        ];
        assert!(climbed[0] > 0 && climbed.is_sorted(), "{climbed:?} {log}");
        for rung in ["scan_restarts", "sessions_renewed", "devices_removed", "power_cycles"] {
            assert_eq!(rungs(both)[rung], 1, "{rung}: {}", rungs(both));
        }
        assert_eq!(both.ward.bluez.state().adapters["hci0"].power_cycles, 1);
        both.cable_is_heard();
        both.ward.bluez.clear_faults();
        both.strap_is_heard();
    }
    // Each rung is a line of its own, and the state.
    assert_eq!(allowed.ward.times_said("bluetoothd is restarted"), 2);
    assert_eq!((forbidden.ward.bluez.state().restarts, rungs(&allowed)["given_up"].is_null()), (0, true));
    assert_eq!(forbidden.ward.times_said("nothing helped"), 2);
}
