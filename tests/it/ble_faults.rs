//! What goes wrong with straps, links, adapters and bluetoothd, through the whole binary: the one concerned is healed,
//! the others lose nothing, and the log says in plain words what was wrong.

use std::time::{Duration, Instant};

use crate::ble_ward::{SOON, Ward, name_of};
use crate::rig::bluez::Bluez;
use crate::rig::bluez_words::strap_address;
use crate::rig::gateway::wait_for;

/// Silence is known sooner than by the default, so that a test is short.
const QUICK: &str = "silence = \"2 s\"";

#[test]
fn a_strap_whose_services_never_resolve_holds_up_nobody_and_comes_when_they_do() {
    let Some(bluez) = Bluez::start() else { return };
    let straps = bluez.straps(4, 5.0);
    let (stuck, others) = (straps[0].clone(), straps[1..].to_vec());
    bluez.never_resolves(&stuck);
    let ward = Ward::with(bluez, straps, QUICK, "");
    ward.wait_for_values(&others, 10);
    let tried = wait_for(SOON, || (ward.bluez.device(&stuck).connects >= 1).then_some(()));
    assert!(tried.is_some(), "{}", ward.hub.log());
    // While it is tried, another one is lost and comes back.
    ward.bluez.drop_link(&others[0]);
    let took = ward.wait_for_values(&others, 10);
    assert!(took < Duration::from_secs(12), "{took:?}");
    ward.wait_for_words("its services are not resolved in time");
    let failed = ward.health(&name_of(&stuck));
    assert!(failed["failures"].as_u64().unwrap() >= 1, "{failed}");
    ward.bluez.set(&stuck, "never_resolves", false);
    ward.wait_for_values(std::slice::from_ref(&stuck), 5);
    ward.assert_each_once(&ward.straps);
    ward.assert_ledger();
}

#[test]
fn a_connect_that_aborts_is_tried_again_at_once_twice_and_then_with_pauses() {
    let Some(bluez) = Bluez::start() else { return };
    let straps = bluez.straps(3, 5.0);
    let (weak, others) = (straps[0].clone(), straps[1..].to_vec());
    bluez.connect_fails(&weak, 4);
    let ward = Ward::with(bluez, straps, "", "");
    let third =
        wait_for(SOON, || (ward.bluez.device(&weak).connect_calls >= 3).then(Instant::now)).expect("three tries");
    let fourth = wait_for(SOON, || (ward.bluez.device(&weak).connect_calls >= 4).then(Instant::now)).expect("a fourth");
    assert!(fourth - third > Duration::from_millis(700), "then it pauses: {:?}", fourth - third);
    ward.wait_for_values(&ward.straps, 5);
    let calls = ward.bluez.tell(serde_json::json!({"do": "calls", "method": "Device1.Connect"}));
    let path = weak.replace(':', "_");
    let times = calls.as_array().unwrap().iter().filter(|call| call["path"].as_str().unwrap().ends_with(&path));
    let times: Vec<f64> = times.map(|call| call["at"].as_f64().unwrap()).collect();
    assert_eq!(times.len(), 5, "{times:?}");
    assert!(times[2] - times[0] < 1.5, "the first two are tried again at once: {times:?}");
    assert!(times[3] - times[2] > 0.9 && times[4] - times[3] > 1.9, "then it pauses longer and longer: {times:?}");
    assert_eq!(ward.health(&name_of(&weak))["failures"], 4);
    assert!(others.iter().all(|strap| ward.bluez.device(strap).connect_calls == 1), "nobody else was touched");
    ward.assert_each_once(&ward.straps);
    ward.assert_ledger();
}

#[test]
fn a_link_that_drops_is_made_again_at_once() {
    let Some(ward) = Ward::open(5, "") else { return };
    ward.wait_for_values(&ward.straps, 5);
    let (lost, others) = (ward.straps[0].clone(), ward.straps[1..].to_vec());
    for _ in 0..3 {
        ward.bluez.drop_link(&lost);
        let took = ward.wait_for_values(std::slice::from_ref(&lost), 3);
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
    ward.assert_each_once(&ward.straps);
    ward.assert_ledger();
    let health = ward.health(&name_of(&lost));
    assert_eq!(health["disconnects"], 3, "{health}");
    assert!(ward.hub.log().contains("the link was lost"));
    assert!(others.iter().all(|strap| ward.bluez.device(strap).connects == 1), "the others' links stay");
}

#[test]
fn a_strap_that_falls_silent_while_connected_is_linked_anew() {
    let Some(ward) = Ward::open(4, QUICK) else { return };
    ward.wait_for_values(&ward.straps, 5);
    let (silent, others) = (ward.straps[0].clone(), ward.straps[1..].to_vec());
    let begun = Instant::now();
    ward.bluez.falls_silent(&silent);
    wait_for(SOON, || (ward.bluez.device(&silent).connects >= 2).then_some(())).expect("a second link");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    ward.bluez.speaks_again(&silent);
    let took = ward.wait_for_values(std::slice::from_ref(&silent), 5);
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(others.iter().all(|strap| ward.bluez.device(strap).connects == 1), "the others' links stay");
    ward.assert_each_once(&ward.straps);
    assert!(ward.health(&name_of(&silent))["silences"].as_u64().unwrap() >= 1);
    assert!(ward.hub.log().contains("no value for"), "{}", ward.hub.log());
    ward.assert_ledger();
}

#[test]
fn a_link_that_only_bluez_believes_in_is_healed_by_forgetting_it() {
    let Some(ward) = Ward::open(4, QUICK) else { return };
    ward.wait_for_values(&ward.straps, 5);
    let (phantom, others) = (ward.straps[0].clone(), ward.straps[1..].to_vec());
    let (begun, removed) = (Instant::now(), ward.bluez.calls("Adapter1.RemoveDevice"));
    ward.bluez.becomes_phantom(&phantom);
    wait_for(SOON, || (ward.bluez.calls("Adapter1.RemoveDevice") > removed).then_some(())).expect("RemoveDevice");
    ward.wait_for_values(std::slice::from_ref(&phantom), 5);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    assert!(ward.hub.log().contains("bluetoothd is made to forget it"), "{}", ward.hub.log());
    assert!(others.iter().all(|strap| ward.bluez.device(strap).connects == 1), "the others' links stay");
    ward.assert_each_once(&ward.straps);
    ward.assert_ledger();
}

#[test]
fn bluetoothd_goes_and_all_straps_stream_five_seconds_after_its_return() {
    let Some(ward) = Ward::open(5, "") else { return };
    ward.wait_for_values(&ward.straps, 5);
    for _ in 0..2 {
        ward.bluez.bluetoothd_vanishes();
        ward.wait_for_words("bluetoothd has left the bus");
        ward.bluez.bluetoothd_returns();
        let took = ward.wait_for_values(&ward.straps, 2);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    ward.assert_each_once(&ward.straps);
    ward.assert_ledger();
    assert_eq!(ward.health("bluetooth")["named"]["bluetoothd_gone"], 2);
}

#[test]
fn an_adapter_is_unplugged_and_plugged_in_again() {
    let Some(ward) = Ward::open(4, "") else { return };
    ward.wait_for_values(&ward.straps, 5);
    ward.bluez.remove_adapter("hci0");
    ward.wait_for_words("gone; plug it in again");
    ward.wait_for_words("no Bluetooth adapter is there");
    ward.bluez.add_adapter("hci0", "00:11:22:33:44:55");
    let took = ward.wait_for_values(&ward.straps, 2);
    assert!(took < Duration::from_secs(6), "{took:?}");
    ward.assert_each_once(&ward.straps);
    ward.assert_ledger();
}

#[test]
fn straps_move_to_the_other_adapter_when_theirs_is_unplugged() {
    let Some(bluez) = Bluez::start() else { return };
    let straps: Vec<String> = (1..=6).map(strap_address).collect();
    let strap = |address: &String, adapters: &[&str]| serde_json::json!({"kind": "strap", "address": address, "name": "HR", "hz": 5, "adapters": adapters});
    bluez.devices(straps[..3].iter().map(|address| strap(address, &["hci0", "hci1"])).collect());
    let ward = Ward::with(bluez, straps, "", "");
    let (moving, staying) = ward.straps.split_at(3);
    ward.wait_for_values(moving, 5);
    ward.bluez.add_adapter("hci1", "00:11:22:33:44:66");
    ward.bluez.devices(staying.iter().map(|address| strap(address, &["hci1"])).collect());
    ward.wait_for_values(&ward.straps, 5);
    let linked_by = |adapter: &str| {
        let devices = ward.bluez.state().devices.into_iter();
        let its = devices.filter(|(_, device)| device.adapter.as_deref() == Some(adapter));
        its.map(|(address, _)| address).collect::<Vec<String>>()
    };
    assert_eq!((linked_by("hci0"), linked_by("hci1")), (moving.to_vec(), staying.to_vec()), "no link was touched");
    ward.bluez.remove_adapter("hci0");
    let took = ward.wait_for_values(&ward.straps, 3);
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(linked_by("hci1"), ward.straps, "all are at the other one");
    assert!(staying.iter().all(|strap| ward.bluez.device(strap).connects == 1), "who was there stays");
    ward.assert_each_once(&ward.straps);
    ward.assert_ledger();
}
