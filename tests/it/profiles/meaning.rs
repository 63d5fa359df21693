//! What readings mean beyond one frame: counters, twins, `every`, context, identity, limits.

use std::sync::Arc;

use biogate::event::event_id;
use biogate::interpret::{FaultKind, ProfileSet};
use biogate::observation::{DeviceTime, Value};
use biogate::reading::RunId;
use proptest::prelude::*;
use uuid::Uuid;

use super::{Device, values};

#[test]
fn a_running_total_becomes_increments_over_a_restart_of_the_program() {
    let mut device = Device::shipped("mqtt-step-counter");
    let first = device.hears("message", br#"{"steps":1042}"#, 1_000);
    assert!(first.observations.is_empty() && first.memory_changed);
    device.restarts();
    let second = device.hears("message", br#"{"steps":1050}"#, 61_000);
    assert_eq!(values(&second), [8.0]);
    assert_eq!(second.observations[0].since.map(|since| since.ms), Some(1_000));
}

#[test]
fn a_refused_frame_moves_no_total() {
    let mut device = Device::shipped("mqtt-step-counter");
    device.hears("message", br#"{"steps":100}"#, 1);
    assert_eq!(device.hears("message", br#"{"steps":900,"ts":"x"}"#, 2).faults[0].kind, FaultKind::Refused);
    assert_eq!(values(&device.hears("message", br#"{"steps":110}"#, 3)), [10.0]);
}

#[test]
fn twins_within_four_seconds_are_one_reading() {
    let mut device = Device::shipped("bthome-v2");
    let frame = [0x40, 0x00, 0x07, 0x02, 0x48, 0x08];
    assert_eq!(values(&device.hears("advertisement", &frame, 1_000)), [21.2]);
    let twin = device.hears("advertisement", &frame, 4_900);
    assert!(twin.duplicate && twin.observations.is_empty());
    assert!(!device.hears("advertisement", &frame, 5_001).duplicate);
    // Without a packet id nothing tells twins apart.
    let plain = [0x40, 0x02, 0x48, 0x08];
    assert!(
        !device.hears("advertisement", &plain, 6_000).duplicate
            && !device.hears("advertisement", &plain, 6_000).duplicate
    );
}

#[test]
fn sixty_frames_a_second_make_one_event_a_second() {
    let mut device = Device::shipped("contec-cms50");
    let frames = (0..600u64).map(|n| device.hears("frame", &[0x85, 0x1e, 0x03, 0x3d, 0x61], n * 1_000 / 60));
    let events: usize = frames.map(|said| said.observations.len()).sum();
    assert_eq!(events, 2 * 10);
    // The last event is long past, and the finger comes back in mid-second: no wait.
    assert!(device.hears("frame", &[0x95, 0, 0, 0x7f, 0x7f], 11_200).observations.is_empty());
    assert_eq!(device.hears("frame", &[0x85, 0x1e, 0x03, 0x3d, 0x61], 11_300).observations.len(), 2);
}

#[test]
fn context_that_was_read_once_travels_with_later_events() {
    let mut device = Device::shipped("bluetooth-heart-rate");
    let before = device.hears("2a37", &[0x06, 0x48], 1);
    assert_eq!(metadata(&before), [("contact", "detected")]);
    assert!(device.hears("2a38", &[0x01], 2).observations.is_empty());
    let after = device.hears("2a37", &[0x06, 0x48], 3);
    assert_eq!(metadata(&after), [("contact", "detected"), ("body_location", "chest")]);
}

fn metadata(said: &biogate::interpret::Interpretation) -> Vec<(&str, &str)> {
    let text = |value: &'_ Value| match value {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    let leak = |text: Arc<str>| -> &'static str { Box::leak(text.to_string().into_boxed_str()) };
    said.observations[0].metadata.iter().map(|(name, value)| (&**name, leak(text(value)))).collect()
}

#[test]
fn another_unit_is_converted_and_kept() {
    let mut device = Device::shipped("bluetooth-health-thermometer");
    let said = device.hears("2a1c", &[0x01, 0xda, 0x03, 0x00, 0xff], 1);
    assert_eq!(values(&said), [37.0]);
    let raw: Vec<_> = said.observations[0].metadata.iter().map(|(name, value)| (&**name, value.clone())).collect();
    assert_eq!(raw, [("raw_unit", Value::Text("[degF]".into())), ("raw_value", Value::Num(98.6))]);
    assert_eq!(&*said.observations[0].component, "body");
}

#[test]
fn the_entrys_component_wins_unless_components_tell_emits_apart() {
    let set = ProfileSet::builtin().unwrap();
    let mut probe = Device::bound(&set, "bthome-v2", Some("skin"));
    let said = probe.hears("advertisement", &[0x40, 0x02, 0x48, 0x0e], 1);
    assert_eq!(&*said.observations[0].component, "skin");
    let mut cuff = Device::bound(&set, "bluetooth-blood-pressure", Some("arm"));
    let said = cuff.hears("2a35", &[0x00, 0x79, 0x00, 0x4f, 0x00, 0x5d, 0x00], 1);
    let components: Vec<&str> = said.observations.iter().map(|observation| &*observation.component).collect();
    assert_eq!(components, ["systolic", "diastolic", "mean"]);
}

#[test]
fn implausible_values_are_kept_apart_with_their_reason() {
    let mut device = Device::shipped("mqtt-vitals-json");
    let said = device.hears("message", br#"{"hr":900,"spo2":97,"temp":{"c":56.6}}"#, 1);
    assert_eq!(values(&said), [97.0]);
    let reasons: Vec<&str> = said.implausible.iter().map(|(_, why)| why.as_str()).collect();
    assert!(reasons[0].contains("900 /min is outside 20 to 300") && reasons[1].contains("25 to 45"), "{reasons:?}");
    assert!(said.faults.iter().all(|fault| fault.kind == FaultKind::Implausible) && said.faults.len() == 2);
    // Each keeps its place in the reading, and so its id.
    assert_eq!(said.observations[0].index, 1);
}

#[test]
fn a_devices_own_time_says_whose_time_it_is() {
    let mut thermometer = Device::shipped("bluetooth-health-thermometer");
    let frame = [0x02, 0x71, 0x01, 0x00, 0xff, 0xea, 0x07, 11, 23, 8, 30, 0];
    let said = thermometer.hears("2a1c", &frame, 1);
    assert_eq!(said.observations[0].device_time, Some(DeviceTime::Local(1_795_422_600_000)));
    let zeros = [0x02, 0x71, 0x01, 0x00, 0xff, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(thermometer.hears("2a1c", &zeros, 2).observations[0].device_time, None);
    let mut publisher = Device::shipped("mqtt-vitals-json");
    let said = publisher.hears("message", br#"{"ts":1763900000000,"hr":72}"#, 1);
    assert_eq!(said.observations[0].device_time, Some(DeviceTime::Utc(1_763_900_000_000)));
}

/// A record sequence of 32 bits is an identity: the same record has the same id in every run of the program.
const RECORDER: &str = r#"
    schema = 1
    id = "recorder"
    version = 1
    title = "t"
    source = "s"
    match = { ble_service = "1800" }
    identity = ["record"]
    [[channel]]
    name = "2a37"
    fields = [{ name = "record", type = "u32le" }, { name = "rate", type = "u8", unit = "/min" }]
    emit = [{ event = "heart_rate", value = "rate" }]
"#;

#[test]
fn a_device_with_an_identity_of_its_own_gives_the_same_event_again() {
    let mut device = Device::of(RECORDER);
    let id = |device: &mut Device, record: u8, run: u128| {
        let said = device.hears("2a37", &[record, 0, 0, 0, 72], 1);
        event_id(RunId(Uuid::from_u128(run)), &said.observations[0])
    };
    let first = id(&mut device, 7, 1);
    assert_eq!(first, id(&mut device, 7, 2), "the run does not matter");
    let next = id(&mut device, 8, 1);
    assert_ne!(first, next);
    // The device was reset: its record 7 is another one, also after a restart of the program.
    device.restarts();
    let again = id(&mut device, 7, 1);
    assert_ne!(first, again);
}

#[test]
fn an_identity_by_the_devices_clock_waits_until_the_clock_is_checked() {
    let mut cuff = Device::shipped("bluetooth-blood-pressure");
    let frame = [0x02, 0x79, 0, 0x4f, 0, 0x5d, 0, 0xea, 0x07, 11, 23, 8, 30, 0];
    assert_eq!(cuff.hears("2a35", &frame, 1).observations[0].identity, None);
    cuff.memory.set_clock_checked(true);
    let said = cuff.hears("2a35", &frame, 2);
    let ids: Vec<_> = said.observations.iter().filter_map(|observation| observation.identity).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
    let repeated = cuff.hears("2a35", &frame, 3);
    assert!(repeated.duplicate && repeated.observations.is_empty());
}

#[test]
fn what_is_not_for_this_profile_is_said_or_passed_over() {
    let mut device = Device::shipped("bluetooth-heart-rate");
    let said = device.hears("2a99", &[1], 1);
    assert!(said.faults[0].message.contains("no channel \"2a99\""));
    let set = ProfileSet::builtin().unwrap();
    let mut bthome = Device::bound(&set, "bthome-v2", None);
    let mut other = super::reading(bthome.profile(), "advertisement", &[1, 2], 1);
    other.channel = biogate::reading::Channel::Advertisement {
        address: "A0:9E:1A:00:11:22".into(),
        element: biogate::reading::Element::Manufacturer(0x0157),
    };
    let said = bthome.catalog.interpret(&other, 1, &mut bthome.memory);
    assert!(said.faults.is_empty() && said.observations.is_empty());
}

#[test]
fn tag_value_rows_with_lengths_can_skip_the_unknown() {
    let text = |unknown: &str| {
        format!(
            r#"
            schema = 1
            id = "tlv"
            version = 1
            title = "t"
            source = "s"
            match = {{ serial = true }}
            frame = {{ cobs = true }}
            [[channel]]
            name = "frame"
            fields = [
              {{ name = "count", type = "u8" }},
              {{ name = "temps", type = "i16be", scale = 0.1, unit = "Cel", repeat = "count" }},
              {{ type = "objects", tag = "u16be", length = "u8", unknown = "{unknown}" }},
            ]
            objects = [{{ tag = 0x0102, name = "rate", type = "u8", unit = "/min" }}]
            emit = [
              {{ event = "temperature", value = "temps", component = "skin" }},
              {{ event = "heart_rate", value = "rate" }},
            ]
            "#
        )
    };
    let frame = [2, 0x01, 0x6e, 0x01, 0x70, 0x09, 0x09, 2, 0xaa, 0xbb, 0x01, 0x02, 1, 72];
    let mut skip = Device::of(&text("skip"));
    assert_eq!(values(&skip.hears("frame", &frame, 1)), [36.6, 36.8, 72.0]);
    let mut refuse = Device::of(&text("refuse"));
    assert_eq!(refuse.hears("frame", &frame, 1).faults[0].field, "tag 0x909");
    let mut stop = Device::of(&text("stop"));
    let said = stop.hears("frame", &frame, 1);
    assert_eq!((values(&said), said.faults[0].kind), (vec![36.6, 36.8], FaultKind::Stopped));
    // An object whose value is longer than its row is not the row.
    let long = [0, 0x01, 0x02, 2, 72, 0];
    assert_eq!(skip.hears("frame", &long, 1).faults[0].field, "left over");
    assert_eq!(skip.hears("frame", &[0, 0x01, 0x02, 9, 72], 1).faults[0].field, "objects");
}

proptest! {
    /// Whatever the device counts, and whenever the program restarts: the increments are the steps made.
    #[test]
    fn increments_add_up_to_the_steps_made(strides in prop::collection::vec((0u32..8_000, any::<bool>()), 1..40)) {
        let mut device = Device::shipped("serial-vitals-line");
        device.hears("frame", b"S:0", 0);
        let (mut total, mut sum) = (0u32, 0.0);
        for (at, (stride, restart)) in strides.iter().enumerate() {
            if *restart {
                device.restarts();
            }
            total += stride;
            let said = device.hears("frame", format!("S:{}", total % 65_536).as_bytes(), at as u64 * 1_000);
            sum += values(&said).iter().sum::<f64>();
        }
        prop_assert_eq!(sum, f64::from(total));
    }
}
