//! Straps that stream, through the whole binary: every reading that one emitted while somebody listened arrives once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::ble_ward::{MEASUREMENT, SOON, Ward, name_of};
use crate::rig::bluez::Bluez;
use crate::rig::clickhouse::Engine;
use crate::rig::gateway::{destinations, wait_for};

#[test]
fn twenty_straps_stream_into_the_warehouse_and_each_reading_arrives_once() {
    let Some(warehouse) = Engine::shared() else { return };
    let Some(bluez) = Bluez::start() else { return };
    let straps = bluez.straps(20, 5.0);
    let settings = warehouse.settings();
    let mut ward = Ward::closed(
        bluez,
        straps,
        "",
        &format!(
            "[[destination]]\nname = \"warehouse\"\nkind = \"clickhouse\"\nurl = \"{}\"\ndatabase = \"{}\"\nuser = {:?}\n\
             password_file = {:?}\n",
            settings.url,
            settings.database,
            settings.user.unwrap_or_default(),
            settings.password_file.unwrap_or_default(),
        ),
    );
    let (code, said, error) = ward.hub.output(&["schema", "apply"]);
    assert_eq!(code, 0, "{said}{error}");
    ward.hub.start();
    let took = ward.wait_for_values(&ward.straps, 40);
    assert!(took < Duration::from_secs(30), "{took:?}");
    ward.assert_each_once(&ward.straps);
    let stat = ward.assert_ledger();
    let state = ward.bluez.state();
    let emitted: u64 = state.devices.values().map(|device| device.attribute(MEASUREMENT).emitted).sum();
    let number = |sql: &str| -> u64 { warehouse.sql(sql).trim().parse().unwrap() };
    assert_eq!(number("SELECT count() FROM biometric_events"), emitted);
    assert_eq!(number("SELECT uniqExact(event_id) FROM biometric_events"), emitted);
    assert_eq!(number("SELECT uniqExact(device_id) FROM biometric_events"), 20);
    let delivered = destinations(&stat).into_iter().map(|(_, tally)| tally["delivered"].as_u64().unwrap());
    assert_eq!(delivered.collect::<BTreeSet<u64>>(), BTreeSet::from([emitted]), "to both destinations");
    assert_eq!(state.adapters["hci0"].most_links, 20);
    let while_scanning: u64 = state.devices.values().map(|device| device.connects_while_discovering).sum();
    assert_eq!(while_scanning, 0, "the scan pauses while a link is made");
    assert!(!state.adapters["hci0"].discovering, "all are here: nothing to listen for");
    assert_eq!(ward.hub.stop(), 0, "{}", ward.hub.log());
}

#[test]
fn a_strap_that_floods_loses_alone_and_its_loss_is_counted() {
    let Some(ward) = Ward::open(4, "") else { return };
    let (loud, quiet) = (ward.straps[0].clone(), ward.straps[1..].to_vec());
    ward.wait_for_values(&ward.straps, 5);
    let before = ward.hub.memory_kib();
    ward.bluez.floods(&loud, 2_000);
    ward.wait_for_values(&quiet, 40);
    // A quick machine takes all of it; after a moment's pause it comes at once, and there are 32 places.
    ward.hub.signal("STOP");
    std::thread::sleep(Duration::from_secs(1));
    ward.hub.signal("CONT");
    ward.wait_for_values(&quiet, 5);
    let after = ward.hub.memory_kib();
    ward.bluez.floods(&loud, 0);
    ward.assert_each_once(&quiet);
    ward.bluez.falls_silent(&loud);
    let accounted = wait_for(SOON, || {
        let emitted = ward.bluez.device(&loud).attribute(MEASUREMENT).emitted;
        let flooded = ward.health(&name_of(&loud))["flooded"].as_u64()?;
        let arrived = ward.arrived_of(&loud).len() as u64;
        (arrived + flooded == emitted).then_some((emitted, flooded))
    });
    let (emitted, flooded) = accounted.expect("what did not arrive is counted");
    assert!(emitted > 5_000 && flooded > 0, "{flooded} of {emitted}");
    let arrived = ward.arrived_of(&loud);
    assert_eq!(arrived.iter().collect::<BTreeSet<_>>().len(), arrived.len(), "none twice");
    assert!(after < before + 30_000, "{before} KiB before, {after} KiB in the flood");
    assert!(ward.hub.log().contains("dropped because the device floods"), "{}", ward.hub.log());
    ward.assert_ledger();
}

#[test]
fn what_makes_no_sense_is_refused_and_set_aside() {
    let Some(ward) = Ward::open(3, "") else { return };
    let (odd, sound) = (ward.straps[0].clone(), ward.straps[1..].to_vec());
    ward.wait_for_values(&ward.straps, 3);
    ward.bluez.set(&odd, "garbage", true);
    ward.wait_for_values(&sound, 20);
    ward.bluez.set(&odd, "garbage", false);
    ward.wait_for_values(std::slice::from_ref(&odd), 5);
    ward.assert_each_once(&sound);
    let stat = ward.assert_ledger();
    let garbage = ward.bluez.device(&odd).attribute(MEASUREMENT).garbage;
    let intake = |key: &str| stat["ledger"]["intake"][key].as_u64().unwrap();
    assert!(garbage >= 15 && intake("refused") > 0, "{garbage} {stat}");
    let (_, list, _) = ward.hub.output(&["buffer", "quarantine", "list", "--json"]);
    let aside: Vec<serde_json::Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(aside.len() as u64, intake("refused") + intake("implausible"), "{list}");
    assert!(aside.iter().all(|entry| entry["device"] == *name_of(&odd)), "only its own: {list}");
    assert!(ward.bluez.device(&odd).connects == 1, "garbage is no reason to leave it");
}

#[test]
fn a_killed_gateway_takes_its_links_up_again() {
    let Some(mut ward) = Ward::open(5, "") else { return };
    ward.wait_for_values(&ward.straps, 5);
    ward.hub.kill();
    let state = ward.bluez.state();
    assert!(state.devices.values().all(|device| device.linked), "BlueZ keeps the links");
    let (begun, counted) = (Instant::now(), emitted(&ward));
    ward.hub.start();
    ward.wait_for_values(&ward.straps, 3);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    ward.assert_ledger();
    for (strap, before) in ward.straps.iter().zip(counted) {
        let arrived = ward.arrived_of(strap);
        assert_eq!(arrived.iter().collect::<BTreeSet<_>>().len(), arrived.len(), "none twice: {arrived:?}");
        // A notification is not asked for again; what was not yet committed is lost with the process.
        let lost = (1..=before).filter(|number| !arrived.contains(number)).count();
        assert!(lost <= 3, "{lost} of {before} lost: {arrived:?}");
        let after: Vec<u64> = arrived.iter().copied().filter(|number| *number > before).collect();
        let whole: Vec<u64> = (before + 1..).take(after.len()).collect();
        assert_eq!(after, whole, "none lost after the restart");
    }
    let state = ward.bluez.state();
    assert!(state.devices.values().all(|device| device.connects == 1), "no link was made anew");
    wait_for(SOON, || (!ward.bluez.state().adapters["hci0"].discovering).then_some(())).expect("nothing to listen for");
}

#[test]
fn a_stop_is_quick_disconnects_the_straps_and_balances() {
    let Some(mut ward) = Ward::open(8, "") else { return };
    ward.wait_for_values(&ward.straps, 5);
    let begun = Instant::now();
    assert_eq!(ward.hub.stop(), 0, "{}", ward.hub.log());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let state = ward.bluez.state();
    assert!(state.devices.values().all(|device| !device.linked), "the straps are free for others");
    assert!(!state.adapters["hci0"].discovering);
    ward.assert_ledger();
    ward.hub.start();
    ward.wait_for_values(&ward.straps, 3);
    ward.assert_each_once(&ward.straps);
    assert_eq!(ward.hub.stop(), 0, "{}", ward.hub.log());
}

/// How many values each strap has emitted.
fn emitted(ward: &Ward) -> Vec<u64> {
    let state = ward.bluez.state();
    ward.straps.iter().map(|strap| state.devices[strap].attribute(MEASUREMENT).emitted).collect()
}
