//! More sensors than the radio holds links: never more links than allowed, no connect while it listens, everybody's turn.
//!
//! Links of streams are held a minute before they must yield; shares over a day are proven where time is told. Here
//! sensors are asked, answer and are left.

use serde_json::json;

use crate::rig::bluez::Bluez;
use crate::rig::ward::{Ward, entry};

const SENSORS: u8 = 12;
const LINKS: u32 = 5;

const PROFILE: &str = r#"
schema  = 1
id      = "asked"
version = 1
title   = "A thermometer that is asked"
source  = "made for this test"
match   = { ble_service = "181a" }
[[channel]]
name = "2a6e"
get  = "poll"
every = "15 s"
fields = [{ name = "t", type = "i16le", scale = 0.01, unit = "Cel" }]
emit = [{ event = "temperature", value = "t", component = "ambient" }]
examples = [{ hex = "d007", events = [{ temperature = 20.0 }] }]
"#;

#[test]
fn twelve_sensors_take_turns_at_five_links() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.at_most_links("hci0", LINKS);
    let address = |n: u8| format!("C4:00:00:00:01:{n:02X}");
    let device = |n: u8| {
        let services = json!([{"uuid": "181a", "characteristics": [
            {"uuid": "2a6e", "flags": ["read"], "value": format!("{:02x}07", 0xd0 + n)},
        ]}]);
        json!({"address": address(n), "name": "asked", "services": services, "connect_ms": 200})
    };
    bluez.devices((1..=SENSORS).map(device).collect());
    let mut rest = format!("[ble]\nmax_links = {LINKS}\n");
    (1..=SENSORS).for_each(|n| rest += &entry(&format!("sensor-{n}"), "asked", &address(n)));
    let mut ward = Ward::new(bluez, &rest);
    let folder = ward.hub.dir.path().join("own");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("asked.toml"), PROFILE).unwrap();
    ward.hub.start_with(&["--profiles", folder.to_str().unwrap()]);
    for n in 1..=SENSORS {
        ward.wait_for_events(&format!("sensor-{n}"), 2);
    }
    let state = ward.bluez.state();
    let most = state.adapters["hci0"].most_links;
    assert!(most <= u64::from(LINKS), "{most} links at once");
    for (address, device) in &state.devices {
        assert_eq!(device.connects_while_discovering, 0, "{address}");
        assert!(device.connects >= 2 && device.connect_calls == device.connects, "{address}: {}", device.connect_calls);
    }
}

#[test]
fn streams_fill_the_links_and_the_others_wait_for_their_turn() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.at_most_links("hci0", LINKS);
    let straps = bluez.straps(SENSORS, 5.0);
    let mut rest = format!("[ble]\nmax_links = {LINKS}\n");
    straps.iter().enumerate().for_each(|(n, strap)| {
        rest += &entry(&format!("strap-{n}"), "bluetooth-heart-rate", strap);
    });
    let ward = Ward::running(bluez, &rest);
    ward.wait("five links", || (ward.bluez.state().adapters["hci0"].links == u64::from(LINKS)).then_some(()));
    let waiting = ward.wait("the others wait", || {
        let status = ward.ask("/status")?;
        let waits = |one: &&serde_json::Value| one["state"] == "heard, waits for its turn";
        let waiting = status["devices"].as_array()?.iter().filter(waits).count();
        (waiting == usize::from(SENSORS) - LINKS as usize).then_some(waiting)
    });
    assert_eq!(waiting, 7);
    // Whose link goes gives room to one that waits.
    let held: Vec<&String> = straps.iter().filter(|strap| ward.bluez.device(strap).linked).collect();
    ward.bluez.leaves(held[0]);
    ward.wait("a sixth one", || {
        let state = ward.bluez.state();
        let once = straps.iter().filter(|strap| state.devices[*strap].connects > 0).count();
        (once == LINKS as usize + 1).then_some(())
    });
    let state = ward.bluez.state();
    assert_eq!(state.adapters["hci0"].most_links, u64::from(LINKS));
    assert!(state.devices.values().all(|device| device.connects_while_discovering == 0));
}
