//! What the language says of Bluetooth devices: names of attributes, polling, writes, stored records, device information.

use std::time::Duration;

use biogate::interpret::Profile;
use biogate::interpret::link::RecordsSpec;
use biogate::interpret::profile::Get;
use biogate::observation::Value;

use super::{Device, values};

const METER: &str = r##"
schema  = 1
id      = "meter"
version = 1
title   = "A meter"
source  = "made up for this test"
match   = { ble_service = "0x1809" }
link    = { write_to = "FFF2", init = ["01"], set_clock = "00002A2B-0000-1000-8000-00805F9B34FB", records = { control = "0x2A52", erase = true, sequence_at = 1 } }

[[channel]]
name   = "0x2A6E"
get    = "poll"
every  = "10 min"
fields = [{ name = "temperature", type = "i16le", scale = 0.01, unit = "Cel" }]
emit   = [{ event = "temperature", value = "temperature", component = "body", metadata = ["manufacturer"] }]
examples = [{ hex = "74 0e", events = [{ temperature = 37.0 }] }, { hex = "74", refuse = "temperature" }]

[[channel]]
name   = "2a6e#2"
get    = "poll"
fields = [{ name = "room", type = "i16le", scale = 0.01, unit = "Cel" }]
emit   = [{ event = "temperature", value = "room", component = "ambient" }]
examples = [{ hex = "34 08", events = [{ temperature = 21.0 }] }, { hex = "34", refuse = "room" }]

[[channel]]
name   = "2a29"
get    = "read_once"
fields = [{ name = "manufacturer", type = "utf8" }]
examples = [{ hex = "41 43 4d 45 00 00", fields = { manufacturer = "ACME" } }, { hex = "ff", refuse = "manufacturer" }]
"##;

#[test]
fn sources_find_names_in_one_form_and_when_to_poll() {
    let meter = Device::of(METER);
    let profile = meter.profile();
    let channels: Vec<_> = profile.channels().map(|channel| (&**channel.name, channel.get, channel.every)).collect();
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    assert_eq!(channels[0], ("2a6e", Get::Poll, minutes(10)));
    assert_eq!(channels[1], ("2a6e#2", Get::Poll, minutes(1)));
    assert_eq!((channels[2].0, channels[2].1), ("2a29", Get::ReadOnce));
    assert_eq!(profile.matches().ble_service.as_deref(), Some("1809"));
    let link = profile.link();
    assert_eq!((link.write_to.as_deref(), link.set_clock.as_deref()), (Some("fff2"), Some("2a2b")));
    let records = RecordsSpec { control: "2a52".into(), erase: true, sequence_at: Some(1) };
    assert_eq!(link.records.as_ref(), Some(&records));
}

#[test]
fn a_further_characteristic_is_read_as_the_first_unless_a_channel_claims_it() {
    let mut meter = Device::of(METER);
    for (ms, (name, component)) in (0..).zip([("2a6e", "body"), ("2a6e#2", "ambient"), ("2a6e#3", "body")]) {
        let said = meter.hears(name, &[0x74, 0x0e], ms);
        assert_eq!((values(&said), &*said.observations[0].component), (vec![37.0], component), "{name}");
    }
    assert!(!meter.hears("2a6f#2", &[0x74, 0x0e], 9).faults.is_empty());
}

#[test]
fn device_information_travels_along_where_the_device_has_it() {
    let mut meter = Device::of(METER);
    assert!(meter.hears("2a6e", &[0x74, 0x0e], 0).observations[0].metadata.is_empty());
    meter.hears("2a29", b"ACME\0\0", 1);
    let said = meter.hears("2a6e", &[0x74, 0x0e], 2);
    assert_eq!(said.observations[0].metadata, [("manufacturer".into(), Value::Text("ACME".into()))]);
}

#[test]
fn each_mistake_says_what_to_write() {
    for (from, to, expected) in [
        ("\"2a6e#2\"", "\"2a6e#0\"", "\"2a6e#2\" for the second"),
        ("\"2a29\"", "\"manufacturer\"", "a characteristic"),
        ("get    = \"read_once\"", "get = \"read_once\"\nevery = \"1 h\"", "only what is polled"),
        (", sequence_at = 1", "", "sequence_at = 1"),
        ("\"FFF2\"", "\"FFF\"", "a UUID"),
        ("\"0x1809\"", "\"health\"", "a UUID"),
        ("\"2a6e#2\"", "\"2A6E\"", "one [[channel]] for each"),
    ] {
        let text = METER.replacen(from, to, 1);
        let error = Profile::parse("meter.toml", &text).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}
