//! Whose sensor is read, and what of it: entries by address and name, sensors of a service, broadcasters, profiles.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::bluez::Bluez;
use crate::rig::ward::{Ward, entry};

const PERSON: &str = "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11";
const ROOM: &str = "A4:C1:38:00:00:07";

fn values(events: &[Value]) -> Vec<f64> {
    events.iter().map(|event| event["value"].as_f64().unwrap()).collect()
}

#[test]
fn only_listed_sensors_are_read() {
    let Some(bluez) = Bluez::start() else { return };
    let straps = bluez.straps(2, 5.0);
    let ward = Ward::running(bluez, &entry("strap", "bluetooth-heart-rate", &straps[0]));
    ward.wait_for_events("strap", 20);
    let stranger = ward.bluez.device(&straps[1]);
    assert_eq!((stranger.connect_calls, stranger.attribute("2a37").sessions), (0, 0));
    assert!(ward.events().iter().all(|event| event["device_id"] == "strap"));
    // Every listed sensor has its link, so the radio rests; it listens again for who asks what is near.
    ward.wait_for_state("adapter hci0", "nothing else is listened for");
    ward.wait("the stranger in /near", || ward.ask("/near")?.to_string().contains(&straps[1]).then_some(()));
    let stranger = ward.bluez.device(&straps[1]);
    assert_eq!(stranger.connect_calls, 0);
}

#[test]
fn a_name_is_one_device_and_a_second_one_is_counted_and_told_once() {
    let Some(bluez) = Bluez::start() else { return };
    let straps = bluez.straps(2, 5.0);
    // The radio listens as long as a listed sensor is missed.
    let rest = entry("strap", "bluetooth-heart-rate", "name:H*")
        + &entry("missed", "bluetooth-heart-rate", "C4:00:00:00:00:0F");
    let ward = Ward::running(bluez, &rest);
    ward.wait_for_events("strap", 10);
    ward.wait("refused adverts", || {
        ward.status_of("strap").filter(|status| status["refused"].as_u64().is_some_and(|refused| refused >= 3))
    });
    assert_eq!(ward.times_said("has a fitting name too"), 1);
    let calls: Vec<u64> = straps.iter().map(|strap| ward.bluez.device(strap).connects).collect();
    // On a busy machine a link may have been made twice, but never one to the other.
    assert_eq!(calls.iter().filter(|calls| **calls > 0).count(), 1, "{calls:?}");
}

#[test]
fn any_sensor_of_a_service_is_read_under_its_address_and_an_entry_says_whose_it_is() {
    let Some(bluez) = Bluez::start() else { return };
    let straps = bluez.straps(2, 5.0);
    bluez.twin_thermometers("C4:00:00:00:00:09", 5.0);
    let device = |address: &str| format!("ble-{}", address.replace(':', ""));
    let rest = format!(
        "[ble]\naccept = \"any\"\nservices = [\"180d\"]\n[[device]]\nname = {:?}\nuser_id = {PERSON:?}\n",
        device(&straps[0])
    );
    let ward = Ward::running(bluez, &rest);
    let events = ward.wait_for_events(&device(&straps[0]), 5);
    assert!(events.iter().all(|event| event["user_id"] == PERSON), "{}", events[0]);
    let events = ward.wait_for_events(&device(&straps[1]), 5);
    assert!(events.iter().all(|event| event["user_id"] != PERSON), "{}", events[0]);
    assert_eq!(ward.bluez.device("C4:00:00:00:00:09").connect_calls, 0);
}

#[test]
fn a_broadcaster_is_read_without_a_link_and_each_packet_once() {
    let Some(bluez) = Bluez::start() else { return };
    bluez.add_adapter("hci1", "00:11:22:33:44:56");
    let twice = json!({"prefix": "4000", "width": 1, "start": 0, "suffix": "024808"});
    let advertises = json!({"uuids": [], "service_data": {"fcd2": twice}, "every_ms": 300});
    bluez.devices(vec![json!({"address": ROOM, "name": "room", "services": [], "advertises": advertises})]);
    // A second sender of one packet id: each packet comes four times in 400 ms, as repeaters and two radios do it.
    let fixed = json!({"uuids": [], "service_data": {"fcd2": "400007024808"}, "every_ms": 100});
    let twin = "A4:C1:38:00:00:08";
    bluez.devices(vec![json!({"address": twin, "name": "twin", "adapters": ["hci0", "hci1"], "services": [],
        "advertises": fixed})]);
    let rest = entry("room", "bthome-v2", ROOM) + &entry("twin", "bthome-v2", twin);
    let ward = Ward::running(bluez, &rest);
    let events = ward.wait_for_events("room", 10);
    assert!(values(&events).iter().all(|value| (*value - 21.2).abs() < 1e-9), "{}", events[0]);
    assert!(events.iter().all(|event| event["event_type"] == "temperature"));
    let adverts = ward.bluez.device(twin).adverts;
    let twins = ward.events_of("twin").len() as u64;
    assert!(twins >= 1 && twins * 5 < adverts, "{twins} events of {adverts} advertisements");
    for address in [ROOM, twin] {
        assert_eq!(ward.bluez.device(address).connect_calls, 0);
    }
    assert!(ward.status_of("room").unwrap()["state"].as_str().unwrap().contains("receiving"));
}

#[test]
fn an_encrypted_broadcaster_is_read_with_its_key_and_an_old_packet_is_refused() {
    let Some(bluez) = Bluez::start() else { return };
    let address = "54:48:E6:8F:80:A5";
    let sensor = |data: &str| {
        let advertises = json!({"uuids": [], "service_data": {"fcd2": data}, "every_ms": 200});
        json!({"address": address, "name": "room", "services": [], "advertises": advertises})
    };
    // The later packet first.
    bluez.devices(vec![sensor("41a47266c95f730011223378237214")]);
    let mut ward = Ward::new(bluez, "");
    let key = ward.hub.dir.path().join("key");
    std::fs::write(&key, "231d39c1d7cc1ab1aee224cd096db932\n").unwrap();
    let config = std::fs::read_to_string(ward.hub.config()).unwrap();
    let rest = entry("room", "bthome-v2", address) + &format!("key_file = {key:?}\n");
    std::fs::write(ward.hub.config(), config + &rest).unwrap();
    ward.hub.start();
    let events = ward.wait_for_events("room", 1);
    assert!((values(&events)[0] - 25.06).abs() < 1e-9, "{}", events[0]);
    ward.bluez.tell(json!({"do": "remove_peripheral", "address": address}));
    let before = ward.events_of("room").len();
    ward.bluez.devices(vec![sensor("41e445f3c9962b332211006c7c4519")]);
    let quarantine = ward.wait("the old packet in quarantine", || {
        let quarantine = ward.ask("/quarantine?limit=10")?;
        let replayed = |one: &Value| one["reason"].as_str().is_some_and(|reason| reason.contains("replay"));
        quarantine.as_array()?.iter().any(replayed).then_some(quarantine.clone())
    });
    assert!(quarantine.to_string().contains("41e445f3c9962b"), "{quarantine}");
    assert_eq!(ward.events_of("room").len(), before);
}

/// A profile of our own in a folder of the hub, `biogate run` with it.
fn with_profile(ward: &mut Ward, text: &str) {
    let folder = ward.hub.dir.path().join("own");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("own.toml"), text).unwrap();
    ward.hub.start_with(&["--profiles", folder.to_str().unwrap()]);
}

const TEMPERATURE: &str = r#"fields = [{ name = "t", type = "i16le", scale = 0.01, unit = "Cel" }]"#;

fn own(link: &str, channels: &[(&str, &str, &str)]) -> String {
    let mut text = format!(
        "schema = 1\nid = \"own\"\nversion = 1\ntitle = \"Own\"\nsource = \"test\"\nmatch = {{ ble_service = \"181a\" }}\n{link}"
    );
    for (name, get, component) in channels {
        text += &format!(
            "[[channel]]\nname = {name:?}\n{get}\n{TEMPERATURE}\n\
             emit = [{{ event = \"temperature\", value = \"t\", component = {component:?} }}]\n\
             examples = [{{ hex = \"d007\", events = [{{ temperature = 20.0 }}] }}]\n"
        );
    }
    text
}

#[test]
fn two_characteristics_of_one_uuid_are_two_channels_and_nothing_is_lost() {
    let Some(bluez) = Bluez::start() else { return };
    let address = "C4:00:00:00:00:09";
    bluez.twin_thermometers(address, 20.0);
    let mut ward = Ward::new(bluez, &entry("twins", "own", address));
    let notify = "get = \"notify\"";
    with_profile(&mut ward, &own("", &[("2a6e", notify, "ambient"), ("2a6e#2", notify, "skin")]));
    ward.wait_for_events("twins", 100);
    ward.bluez.falls_silent(address);
    let emitted: Vec<u64> = ward.bluez.device(address).attributes.iter().map(|one| one.emitted).collect();
    let total = emitted.iter().sum::<u64>() as usize;
    let events = ward.wait_for_events("twins", total);
    assert_eq!(events.len(), total);
    for (component, start, emitted) in [("ambient", 2_000, emitted[0]), ("skin", 3_000, emitted[1])] {
        let of = events.iter().filter(|event| event.to_string().contains(component));
        let seen: BTreeSet<u64> = of.map(|one| (one["value"].as_f64().unwrap() * 100.0).round() as u64).collect();
        assert_eq!(seen, (start + 1..=start + emitted).collect::<BTreeSet<u64>>(), "{component}");
    }
}

#[test]
fn a_characteristic_is_polled_at_its_rhythm_what_is_lacking_is_said_once_and_writes_reach_the_device() {
    let Some(bluez) = Bluez::start() else { return };
    let address = "C4:00:00:00:00:0A";
    let control = "0000ff02-1212-efde-1523-785feabcd123";
    let services = json!([{"uuid": "181a", "characteristics": [
        {"uuid": "2a6e", "flags": ["read"], "value": "d007"},
        {"uuid": control, "flags": ["write"]},
    ]}]);
    bluez.devices(vec![json!({"address": address, "name": "asked", "services": services})]);
    let mut ward = Ward::new(bluez, &entry("asked", "own", address));
    let link = format!(
        "link = {{ write_to = {control:?}, init = [\"01 02\", \"03\"], keepalive = {{ send = [\"aa\"], every = \"1 s\" }} }}\n"
    );
    let channels = [("2a6e", "get = \"poll\"\nevery = \"1 s\"", "ambient"), ("2a1c", "get = \"notify\"", "skin")];
    with_profile(&mut ward, &own(&link, &channels));
    ward.wait_for_events("asked", 4);
    let before = ward.bluez.device(address).attribute("2a6e").reads;
    std::thread::sleep(Duration::from_secs(3));
    let device = ward.bluez.device(address);
    let reads = device.attribute("2a6e").reads - before;
    assert!((2..=4).contains(&reads), "{reads} reads in 3 s");
    assert_eq!(device.connects, 1);
    let writes: Vec<&str> = device.attribute(control).writes.iter().map(|write| &*write.value).collect();
    assert_eq!(writes[..2], ["0102", "03"]);
    assert!(writes.len() >= 4 && writes[2..].iter().all(|write| *write == "aa"), "{writes:?}");
    ward.bluez.drop_link(address);
    ward.wait("the second link", || (ward.bluez.device(address).connects == 2).then_some(()));
    ward.wait("reads on it", || {
        (ward.bluez.device(address).attribute("2a6e").reads > before + reads + 2).then_some(())
    });
    assert_eq!(ward.times_said("2a1c"), 1, "what it lacks is said once");
}
