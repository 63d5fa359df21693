//! A busy street walks past while straps stream: no reading is lost, and nothing grows with the number of strangers.

use std::time::Duration;

use crate::rig::bluez::Bluez;
use crate::rig::ward::{Ward, entry};

const STRANGERS: u32 = 10_000;

/// The gateway may need so much for a full list of what is near and for what its allocator keeps.
const MOST_GROWTH_KIB: u64 = 6 * 1_024;

#[test]
fn ten_thousand_rotating_addresses_cost_no_reading_and_no_memory() {
    let Some(bluez) = Bluez::start() else { return };
    // They are forgotten quickly, as BlueZ does when its own list is full.
    bluez.forgets_after_ms("hci0", 1_000);
    let straps = bluez.straps(3, 5.0);
    // The radio listens as long as a listed sensor is missed.
    let names = ["one", "two", "three"];
    let entries = names.iter().zip(&straps).map(|(name, strap)| entry(name, "bluetooth-heart-rate", strap));
    let rest = entries.collect::<String>() + &entry("missed", "bluetooth-heart-rate", "C4:00:00:00:00:0F");
    let ward = Ward::running(bluez, &rest);
    names.iter().for_each(|name| drop(ward.wait_for_events(name, 5)));
    // What a full list takes is no growth.
    let heard =
        |count: u64| ward.wait("strangers", || (ward.bluez.state().adapters["hci0"].heard >= count).then_some(()));
    ward.bluez.rotating_addresses(1_000, 1_000);
    heard(1_000);
    let near = ward.ask("/near").unwrap();
    assert!(near.as_array().unwrap().len() >= 400, "{}", near.as_array().unwrap().len());
    let before = ward.hub.memory_kib();
    ward.bluez.tell(serde_json::json!(
        {"do": "rotate", "adapter": "hci0", "count": STRANGERS, "per_second": 1_000, "serial": 1_000}
    ));
    heard(u64::from(STRANGERS) + 1_000);
    let near = ward.ask("/near").unwrap();
    assert_eq!(near.as_array().unwrap().len(), 512);
    std::thread::sleep(Duration::from_secs(1));
    let after = ward.hub.memory_kib();
    assert!(after < before + MOST_GROWTH_KIB, "{before} KiB grew to {after} KiB");
    for (name, strap) in names.iter().zip(&straps) {
        ward.bluez.falls_silent(strap);
        let device = ward.bluez.device(strap);
        let emitted = device.attribute("2a37").emitted as usize;
        let events = ward.wait_for_events(name, emitted);
        assert_eq!((events.len(), device.connects), (emitted, 1), "{name}");
    }
    let stat = ward.hub.wait_until_drained(1, Duration::from_secs(20));
    crate::rig::gateway::assert_balanced(&stat);
}

#[test]
fn a_burst_that_nobody_can_take_is_counted() {
    let Some(bluez) = Bluez::start() else { return };
    let strap = bluez.straps(1, 5.0).remove(0);
    let rest =
        entry("strap", "bluetooth-heart-rate", &strap) + &entry("missed", "bluetooth-heart-rate", "C4:00:00:00:00:0F");
    let ward = Ward::running(bluez, &rest);
    ward.wait_for_events("strap", 5);
    // Stopped, the gateway takes nothing while the bus keeps what was sent; then everything comes at once.
    ward.hub.signal("STOP");
    ward.bluez.rotating_addresses(4_000, 4_000);
    ward.wait("strangers", || (ward.bluez.state().adapters["hci0"].heard >= 4_000).then_some(()));
    ward.hub.signal("CONT");
    let status = ward.wait("dropped advertisements", || {
        ward.status_of("bluetooth").filter(|status| status["flooded"].as_u64().is_some_and(|flooded| flooded > 0))
    });
    assert!(status["state"].as_str().unwrap().contains("running"), "{status}");
    ward.bluez.falls_silent(&strap);
    let emitted = ward.bluez.device(&strap).attribute("2a37").emitted as usize;
    assert_eq!(ward.wait_for_events("strap", emitted).len(), emitted);
}
