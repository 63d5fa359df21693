//! Contract v1: the bytes of an event on its way out. If a test in this module fails, do not change the test!
//!
//! Warehouses, topics and archives hold these forms; a change of them is a new version with a module of its own.

use biogate::event::{ClockQuality, Event};
use biogate::observation::{EventType, Value};
use uuid::Uuid;

fn event() -> Event {
    Event {
        event_id: Uuid::from_u128(0x0b8e0000_1111_5222_8333_444455556666),
        user_id: Uuid::from_u128(0x6f1c7a52_6a0e_4f8e_9a57_0d6f7f0e5a11),
        event_type: EventType::HeartRate,
        component: "".into(),
        value: 72.0,
        unit: "/min",
        timestamp: 1_763_900_000_000,
        period_start: None,
        tz_offset_min: 60,
        device_id: "strap-anna".into(),
        gateway_id: "hub-0042".into(),
        location: Some("room 12".into()),
        clock: ClockQuality::Synced,
        metadata: vec![
            ("contact".into(), Value::Text("detected".into())),
            ("rr_intervals".into(), Value::List(vec![Value::Num(0.83)])),
            ("profile".into(), Value::Text("bluetooth-heart-rate/1".into())),
        ],
        version: 1,
        deleted: 0,
    }
}

fn steps() -> Event {
    Event {
        event_type: EventType::Steps,
        component: "left \"wrist\"\n".into(),
        value: 16_777_217.5,
        unit: "{steps}",
        period_start: Some(1_763_899_940_000),
        tz_offset_min: -150,
        location: None,
        clock: ClockQuality::Device,
        metadata: vec![
            ("battery".into(), Value::Int(-3)),
            ("worn".into(), Value::Bool(true)),
            ("pace".into(), Value::Null),
            ("gain".into(), Value::Num(2.0)),
        ],
        version: 300,
        deleted: 1,
        ..event()
    }
}

fn line(event: &Event) -> String {
    let mut bytes = Vec::new();
    biogate::forward::json::line(&mut bytes, event);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_json_line_is_contract_v1() {
    assert_eq!(
        line(&event()),
        concat!(
            r#"{"event_id":"0b8e0000-1111-5222-8333-444455556666","user_id":"6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11","#,
            r#""event_type":"heart_rate","component":"","value":72.0,"unit":"/min","timestamp":1763900000000,"#,
            r#""period_start":null,"tz_offset_min":60,"device_id":"strap-anna","gateway_id":"hub-0042","#,
            r#""location":"room 12","clock":"synced","metadata":{"contact":"detected","rr_intervals":[0.83],"#,
            r#""profile":"bluetooth-heart-rate/1"},"version":1,"deleted":0}"#,
            "\n"
        )
    );
    assert_eq!(
        line(&steps()),
        concat!(
            r#"{"event_id":"0b8e0000-1111-5222-8333-444455556666","user_id":"6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11","#,
            r#""event_type":"steps","component":"left \"wrist\"\n","value":16777217.5,"unit":"{steps}","#,
            r#""timestamp":1763900000000,"period_start":1763899940000,"tz_offset_min":-150,"device_id":"strap-anna","#,
            r#""gateway_id":"hub-0042","location":null,"clock":"device","metadata":{"battery":-3,"worn":true,"#,
            r#""pace":null,"gain":2.0},"version":300,"deleted":1}"#,
            "\n"
        )
    );
}

#[test]
fn every_event_type_and_clock_has_its_name() {
    let names = EventType::ALL.map(|event_type| {
        let line = line(&Event { event_type, ..event() });
        line.split(r#""event_type":""#).nth(1).unwrap().split('"').next().unwrap().to_owned()
    });
    let expected = "heart_rate blood_pressure temperature steps sleep workout spo2 weight respiration_rate glucose";
    assert_eq!(names.join(" "), expected);
    let estimated = line(&Event { clock: ClockQuality::Estimated, ..event() });
    assert!(estimated.contains(r#""clock":"estimated""#), "{estimated}");
}

#[cfg(feature = "clickhouse")]
#[test]
fn the_row_binary_is_contract_v1() {
    let hex = |event: &Event| -> String {
        let bytes = biogate::forward::clickhouse::row_binary(event).unwrap();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert_eq!(
        hex(&event()),
        concat!(
            "2252111100008e0b",
            "6666555544443383", // event_id: both halves little-endian, the high one first
            "8e4f0e6a527a1c6f",
            "115a0e7f6f0d579a", // user_id
            "01",
            "00",               // heart_rate, no component
            "0000000000005240", // 72.0
            "042f6d696e",       // /min
            "0007a2b09a010000", // timestamp
            "01",               // no period_start
            "3c00",             // 60
            "0a73747261702d616e6e61",
            "086875622d30303432",
            "0007726f6f6d203132", // device, gateway, location
            "01",                 // synced
            "4f7b22636f6e74616374223a226465746563746564222c2272725f696e74657276616c73223a5b302e38335d2c22",
            "70726f66696c65223a22626c7565746f6f74682d68656172742d726174652f31227d", // metadata
            "01000000",
            "00" // version, deleted
        )
    );
    assert_eq!(
        hex(&steps()),
        concat!(
            "2252111100008e0b",
            "6666555544443383",
            "8e4f0e6a527a1c6f",
            "115a0e7f6f0d579a",
            "04",
            "0d6c6566742022777269737422",
            "0a",               // steps, component
            "0000001800007041", // 16777217.5
            "077b73746570737d", // {steps}
            "0007a2b09a010000",
            "00",
            "a01ca1b09a010000", // timestamp, period_start
            "6aff",             // -150
            "0a73747261702d616e6e61",
            "086875622d30303432",
            "01", // device, gateway, no location
            "03", // device
            "317b2262617474657279223a2d332c22776f726e223a747275652c2270616365223a6e756c6c2c226761696e223a322e307d",
            "2c010000",
            "01" // version, deleted
        )
    );
}
