//! What keeps a radio from hearing: each said in a plain sentence with its cure, mended without a restart, and never felt
//! by other sources. And the ladder that an adapter climbs, through the whole binary.

use std::time::{Duration, Instant};

use crate::ble_ward::{SOON, Ward};
use crate::rig::bluez::Bluez;
use crate::rig::gateway::{lines_of, wait_for};
use crate::rig::pty::Pty;

/// A serial sensor beside the radio.
const BESIDE: &str = "[[device]]\nname = \"beside\"\nprofile = \"serial-vitals-line\"\nserial = \"PORT\"\n";

/// A hub whose radio is in trouble, with one strap and a serial sensor that works.
struct Trouble {
    ward: Ward,
    line: Pty,
    _folder: tempfile::TempDir,
}

impl Trouble {
    /// `radio` is what a further file says of the radio.
    fn open(bluez: Bluez, radio: &str) -> Trouble {
        let straps = bluez.straps(1, 5.0);
        let folder = tempfile::tempdir().unwrap();
        let port = folder.path().join("tty");
        let line = Pty::plug(&port);
        let rest = BESIDE.replace("PORT", port.to_str().unwrap());
        let mut ward = Ward::closed(bluez, straps, "", &rest);
        let more = ward.hub.dir.path().join("conf.d");
        std::fs::create_dir(&more).unwrap();
        std::fs::write(more.join("radio.toml"), radio).unwrap();
        ward.hub.start();
        Trouble { ward, line, _folder: folder }
    }

    /// Waits until status says so of this entry, and the serial sensor is heard meanwhile.
    fn says(&mut self, of: &str, words: &str) {
        let mut rate = 60;
        let said = wait_for(SOON, || {
            rate += 1;
            self.line.send(format!("HR:{rate}\n").as_bytes());
            let state = self.ward.health_if_any(of)?;
            (state["state"].as_str()?.contains(words) && self.heard_beside()).then_some(())
        });
        assert!(
            said.is_some(),
            "{words:?} is not said of {of}, or the serial sensor suffers:\n{}",
            self.ward.hub.log()
        );
        assert!(self.ward.hub.log().contains(words), "{}", self.ward.hub.log());
    }

    fn heard_beside(&self) -> bool {
        lines_of(self.ward.archive()).iter().any(|event| event["device_id"] == "beside")
    }

    /// The strap streams, at most so long from now.
    fn heals_within(&self, span: Duration) {
        let begun = Instant::now();
        self.ward.wait_for_values(&self.ward.straps, 3);
        assert!(begun.elapsed() < span, "{:?}", begun.elapsed());
        self.ward.assert_ledger();
    }
}

#[test]
fn a_bus_that_refuses_is_said_with_its_cure() {
    let Some(bluez) = Bluez::start_denied() else { return };
    let mut trouble = Trouble::open(bluez, "");
    trouble.says("bluetooth", "this user may not talk to bluetoothd; install biogate's D-Bus policy");
}

#[test]
fn a_hub_without_an_adapter_takes_the_one_that_is_plugged_in() {
    let Some(bluez) = Bluez::start_without_adapter() else { return };
    let mut trouble = Trouble::open(bluez, "");
    trouble.says("bluetooth", "no Bluetooth adapter is there; plug in a dongle");
    trouble.ward.bluez.add_adapter("hci0", "00:11:22:33:44:55");
    trouble.heals_within(Duration::from_secs(5));
}

#[test]
fn a_bluetoothd_that_comes_late_is_heard_at_once() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.bluetoothd_vanishes();
    let mut trouble = Trouble::open(bluez, "");
    trouble.says("bluetooth", "bluetoothd does not run; install bluez and start it");
    trouble.ward.bluez.bluetoothd_returns();
    trouble.heals_within(Duration::from_secs(5));
}

#[test]
fn an_adapter_that_rfkill_blocks_is_said_and_tried_again() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.block_adapter("hci0");
    let mut trouble = Trouble::open(bluez, "");
    trouble.says("adapter hci0", "blocked by rfkill; run: rfkill unblock bluetooth");
    trouble.ward.bluez.unblock_adapter("hci0");
    trouble.heals_within(Duration::from_secs(15));
}

/// An adapter that refuses to scan until bluetoothd is restarted: every rung, in order, counted and said.
#[test]
fn an_adapter_that_refuses_climbs_the_ladder_up_to_a_restart_of_bluetoothd() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.fails("Adapter1.StartDiscovery", "hci0", 1_000_000, "Failed", "Input/output error");
    let trouble = Trouble::open(bluez, "[ble]\nrestart_bluetoothd = true\n");
    let Trouble { ward, .. } = &trouble;
    wait_for(Duration::from_secs(150), || (restarts(ward) > 0).then_some(())).expect("bluetoothd is restarted");
    ward.bluez.clear_faults();
    trouble.heals_within(Duration::from_secs(30));
    let named = ward.health("adapter hci0")["named"].take();
    for rung in ["scan_restarts", "sessions_renewed", "devices_removed", "power_cycles", "bluetoothd_restarts"] {
        assert_eq!(named[rung], 1, "{rung}: {named}");
    }
    let log = ward.hub.log();
    let said = [
        "hci0: bluetoothd refuses to scan; scanning is restarted",
        "hci0: bluetoothd refuses to scan; a new session with bluetoothd is begun",
        "hci0: bluetoothd refuses to scan; bluetoothd shall forget the sensors",
        "hci0: bluetoothd refuses to scan; the radio is switched off and on",
        "hci0: bluetoothd refuses to scan; bluetoothd is restarted",
    ];
    let places: Vec<Option<usize>> = said.iter().map(|words| log.find(words)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{log}");
}

/// How often the service manager was asked to restart bluetoothd.
fn restarts(ward: &Ward) -> u64 {
    ward.bluez.calls("Manager.RestartUnit")
}
