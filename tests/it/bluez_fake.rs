//! The fake BlueZ is right: what a client of its bus sees, asked with dbus-send.

use std::process::Command;

use crate::rig::bluez::Bluez;
use crate::rig::bluez_words::SilentUntil;
use crate::rig::gateway::wait_for;
use crate::rig::{DEADLINE, missing};

const HCI0: &str = "/org/bluez/hci0";

/// Calls a method; what was printed, or the error.
fn call(bluez: &Bluez, path: &str, method: &str, arguments: &[&str]) -> Result<String, String> {
    let address = bluez.bus_address();
    let output = Command::new("dbus-send")
        .arg(format!("--bus={address}"))
        .args(["--print-reply", "--dest=org.bluez", path, method])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn start() -> Option<Bluez> {
    if Command::new("dbus-send").output().is_err() {
        missing("dbus-send");
        return None;
    }
    Bluez::start()
}

fn path_of(address: &str) -> String {
    format!("{HCI0}/dev_{}", address.replace(':', "_"))
}

#[test]
fn a_discovery_ends_with_the_client_that_began_it() {
    let Some(bluez) = start() else { return };
    // dbus-send leaves the bus with its answer.
    call(&bluez, HCI0, "org.bluez.Adapter1.StartDiscovery", &[]).unwrap();
    wait_for(DEADLINE, || (!bluez.state().adapters["hci0"].discovering).then_some(())).expect("the discovery ended");
    assert_eq!(bluez.state().adapters["hci0"].discoveries, 1);
}

#[test]
fn a_phantom_is_healed_by_removing_it() {
    let Some(bluez) = start() else { return };
    let strap = bluez.straps(1, 5.0).remove(0);
    bluez.becomes_phantom(&strap);
    let objects = || call(&bluez, "/", "org.freedesktop.DBus.ObjectManager.GetManagedObjects", &[]).unwrap();
    assert!(objects().contains("service0010/char0011"), "{}", objects());
    let read = call(
        &bluez,
        &format!("{}/service0010/char0014", path_of(&strap)),
        "org.bluez.GattCharacteristic1.ReadValue",
        &["dict:string:string:"],
    );
    assert!(read.is_err());
    call(&bluez, HCI0, "org.bluez.Adapter1.RemoveDevice", &[&format!("objpath:{}", path_of(&strap))]).unwrap();
    assert!(!objects().contains("dev_C4"), "{}", objects());
}

#[test]
fn a_connection_outlives_its_client_and_fails_as_often_as_told() {
    let Some(bluez) = start() else { return };
    let strap = bluez.straps(1, 5.0).remove(0);
    // Makes BlueZ know the strap, without a link that works.
    bluez.becomes_phantom(&strap);
    call(&bluez, &path_of(&strap), "org.bluez.Device1.Disconnect", &[]).unwrap();
    bluez.set(&strap, "phantom", false);
    bluez.connect_fails(&strap, 1);
    let connect = || call(&bluez, &path_of(&strap), "org.bluez.Device1.Connect", &[]);
    assert!(connect().unwrap_err().contains("le-connection-abort-by-local"));
    connect().unwrap();
    let device = bluez.device(&strap);
    assert_eq!((device.connect_calls, device.connects, device.linked), (2, 1, true));
}

#[test]
fn bluetoothd_vanishes_and_returns() {
    let Some(bluez) = start() else { return };
    bluez.adapter_falls_silent("hci0", SilentUntil::BluetoothdRestart);
    bluez.bluetoothd_vanishes();
    let scan = || call(&bluez, HCI0, "org.bluez.Adapter1.StartDiscovery", &[]);
    assert!(scan().unwrap_err().contains("ServiceUnknown"));
    bluez.bluetoothd_returns();
    scan().unwrap();
    assert_eq!(bluez.state().starts, 2);
}

#[test]
fn a_bus_can_deny_bluez() {
    let Some(bluez) = Bluez::start_denied() else { return };
    let denied = call(&bluez, HCI0, "org.bluez.Adapter1.StartDiscovery", &[]).unwrap_err();
    assert!(denied.contains("AccessDenied"), "{denied}");
}
