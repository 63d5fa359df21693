//! `scan`, `add` and `pair` with Bluetooth around them: with a gateway that runs, and by themselves.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::rig::bluez::Bluez;
use crate::rig::gateway::Hub;
use crate::rig::ward::{Ward, entry};

/// The rows of `scan --json`.
fn scanned(hub: &Hub) -> Vec<Value> {
    let (code, out, error) = hub.output(&["scan", "--for", "3s", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}{error}"));
    assert!(code == 0 && document["problem"].is_null() && document["serial"].is_array(), "{out}{error}");
    document["bluetooth"].as_array().unwrap().clone()
}

/// A command with these lines as answers: exit code, and all that it said.
fn answered(hub: &Hub, arguments: &[&str], answers: &str) -> (i32, String) {
    let mut command = hub.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn scan_listens_by_itself_and_what_it_prints_can_be_pasted() {
    let Some(bluez) = Bluez::start() else { return };
    let strap = bluez.straps(1, 5.0).remove(0);
    let ward = Ward::new(bluez, "");
    let rows = scanned(&ward.hub);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["address"], &rows[0]["name"]), (&json!(strap), &json!("HR")));
    assert!(rows[0]["claims"][0]["profile"] == "bluetooth-heart-rate" && rows[0]["rssi"].is_i64(), "{rows:?}");
    let (code, out, error) = ward.hub.output(&["scan", "--for", "2s"]);
    assert!(code == 0 && out.contains(&strap) && out.contains("bluetooth-heart-rate"), "{out}{error}");
    // A blank line stands before each entry; a serial port's has a profile to be chosen.
    let blocks = out.split("\n\n").filter(|block| block.contains("ble = "));
    let lines: String = blocks.map(|block| block.to_owned() + "\n").collect();
    let config = std::fs::read_to_string(ward.hub.config()).unwrap();
    std::fs::write(ward.hub.config(), config + &lines).unwrap();
    let (code, out, error) = ward.hub.output(&["check", "--offline"]);
    assert!(code == 0 && out.contains("1 devices"), "{lines}{out}{error}");
    let discovering = || ward.bluez.state().adapters["hci0"].discovering;
    ward.wait("the scan's end", || (!discovering()).then_some(()));
}

#[test]
fn scan_uses_the_adapters_of_the_configuration() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.add_adapter("hci1", "00:11:22:33:44:56");
    let strap = |address: &str, adapter: &str| json!({"kind": "strap", "address": address, "adapters": [adapter]});
    bluez.devices(vec![strap("C4:00:00:00:00:01", "hci0"), strap("C4:00:00:00:00:02", "hci1")]);
    let ward = Ward::new(bluez, "[ble]\nadapters = [\"00:11:22:33:44:56\"]\n");
    let rows = scanned(&ward.hub);
    let addresses: Vec<&Value> = rows.iter().map(|row| &row["address"]).collect();
    assert_eq!(addresses, [&json!("C4:00:00:00:00:02")]);
    assert_eq!(ward.bluez.state().adapters["hci0"].discoveries, 0);
}

#[test]
fn scan_asks_the_gateway_that_runs_and_shows_strangers_beside_linked_sensors() {
    let Some(bluez) = Bluez::start() else { return };
    let straps = bluez.straps(2, 5.0);
    let ward = Ward::running(bluez, &entry("strap", "bluetooth-heart-rate", &straps[0]));
    ward.wait_for_events("strap", 3);
    ward.wait_for_state("adapter hci0", "nothing else is listened for");
    let rows = scanned(&ward.hub);
    let row = |address: &str| rows.iter().find(|row| row["address"] == address).unwrap_or_else(|| panic!("{rows:?}"));
    assert_eq!((&row(&straps[0])["entry"], &row(&straps[0])["connected"]), (&json!("strap"), &json!(true)));
    let stranger = row(&straps[1]);
    assert_eq!((&stranger["entry"], &stranger["claims"][0]["profile"]), (&Value::Null, &json!("bluetooth-heart-rate")));
    let before = ward.events_of("strap").len();
    ward.wait_for_events("strap", before + 5);
    assert_eq!(ward.bluez.device(&straps[0]).connects, 1, "the scan cost no link");
}

#[test]
fn what_add_writes_is_read_after_sighup() {
    let Some(bluez) = Bluez::start() else { return };
    let strap = bluez.straps(1, 5.0).remove(0);
    let ward = Ward::running(bluez, "");
    ward.wait("the gateway", || ward.ask("/status"));
    // The list's first sensor, its name, the profile that is offered, nobody's, in no room.
    let (code, said) = answered(&ward.hub, &["add"], "1\nstrap\n\n\n\n");
    assert!(code == 0 && said.contains(&strap), "{said}");
    let text = std::fs::read_to_string(ward.hub.dir.path().join("devices.d/strap.toml")).unwrap();
    assert_eq!(text, entry("strap", "bluetooth-heart-rate", &strap));
    assert_eq!(ward.bluez.device(&strap).connect_calls, 0);
    ward.hub.signal("HUP");
    ward.wait_for_events("strap", 5);
}

#[test]
fn pair_asks_what_the_sensor_asks_and_keeps_the_bond() {
    let Some(bluez) = Bluez::start() else { return };
    let sensor = |n: u8, pairing: &str| json!({"kind": "strap", "address": format!("C4:00:00:00:00:0{n}"), "name": "HR", "pairing": pairing});
    let modes = ["none", "passkey", "confirm", "fail", "passkey", "confirm"];
    bluez.devices(modes.iter().zip(1..).map(|(mode, n)| sensor(n, mode)).collect());
    let ward = Ward::new(bluez, &entry("strap", "bluetooth-heart-rate", "C4:00:00:00:00:01"));
    let (code, said) = answered(&ward.hub, &["pair", "strap"], "");
    assert!(code == 0 && said.contains("paired with C4:00:00:00:00:01; bluetoothd keeps the bond"), "{said}");
    let (code, said) = answered(&ward.hub, &["pair", "strap"], "");
    assert!(code == 0 && said.contains("was paired already"), "{said}");
    let (code, said) = answered(&ward.hub, &["pair", "c4:00:00:00:00:02"], "12x\n123456\n");
    assert!(code == 0 && said.matches("which number does the sensor show?").count() == 2, "{said}");
    let (code, said) = answered(&ward.hub, &["pair", "C4:00:00:00:00:03"], "y\n");
    assert!(code == 0 && said.contains("does the sensor show 123456?"), "{said}");
    for (address, answers) in [("C4:00:00:00:00:04", ""), ("C4:00:00:00:00:05", "1\n"), ("C4:00:00:00:00:06", "n\n")] {
        let (code, said) = answered(&ward.hub, &["pair", address], answers);
        assert!(code == 1 && said.contains("the sensor refused; hold its pairing button"), "{address}: {said}");
    }
    ward.wait("no agent stays", || ward.bluez.state().agents.is_empty().then_some(()));
}
