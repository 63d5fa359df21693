//! An event as one line of JSON, contract v1.
//!
//! By hand, because it is a third of the cost of a delivered row: keys need no escaping, ids and names are copied as
//! they are. A test holds it to what serde makes of the same event.

use serde::Serialize;
use uuid::fmt::Hyphenated;

use crate::event::{ClockQuality, Event};
use crate::observation::Value;

/// Appends the line, with its line feed.
pub fn line(into: &mut Vec<u8>, event: &Event) {
    let mut id = [0; Hyphenated::LENGTH];
    into.extend_from_slice(b"{\"event_id\":\"");
    into.extend_from_slice(event.event_id.hyphenated().encode_lower(&mut id).as_bytes());
    into.extend_from_slice(b"\",\"user_id\":\"");
    into.extend_from_slice(event.user_id.hyphenated().encode_lower(&mut id).as_bytes());
    into.extend_from_slice(b"\",\"event_type\":\"");
    into.extend_from_slice(event.event_type.name().as_bytes());
    into.extend_from_slice(b"\",\"component\":");
    text(into, &event.component);
    into.extend_from_slice(b",\"value\":");
    serde(into, &event.value);
    // Units are our own and hold nothing to escape.
    into.extend_from_slice(b",\"unit\":\"");
    into.extend_from_slice(event.unit.as_bytes());
    into.extend_from_slice(b"\",\"timestamp\":");
    serde(into, &event.timestamp);
    into.extend_from_slice(b",\"period_start\":");
    serde(into, &event.period_start);
    into.extend_from_slice(b",\"tz_offset_min\":");
    serde(into, &event.tz_offset_min);
    into.extend_from_slice(b",\"device_id\":");
    text(into, &event.device_id);
    into.extend_from_slice(b",\"gateway_id\":");
    text(into, &event.gateway_id);
    into.extend_from_slice(b",\"location\":");
    match &event.location {
        Some(location) => text(into, location),
        None => into.extend_from_slice(b"null"),
    }
    into.extend_from_slice(match event.clock {
        ClockQuality::Synced => b",\"clock\":\"synced\"",
        ClockQuality::Estimated => b",\"clock\":\"estimated\"",
        ClockQuality::Device => b",\"clock\":\"device\"",
    });
    into.extend_from_slice(b",\"metadata\":{");
    for (nth, (name, value)) in event.metadata.iter().enumerate() {
        if nth > 0 {
            into.push(b',');
        }
        text(into, name);
        into.push(b':');
        metadata_value(into, value);
    }
    into.extend_from_slice(b"},\"version\":");
    serde(into, &event.version);
    into.extend_from_slice(b",\"deleted\":");
    serde(into, &event.deleted);
    into.extend_from_slice(b"}\n");
}

/// A field of the metadata.
fn metadata_value(into: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Text(value) => text(into, value),
        Value::Int(value) => serde(into, value),
        Value::Num(value) => serde(into, value),
        Value::Null | Value::Bool(_) | Value::List(_) => serde(into, value),
    }
}

/// A string: copied where nothing in it needs escaping, which is nearly always.
fn text(into: &mut Vec<u8>, text: &str) {
    // Looking at every byte costs less than looking for the first: the compiler takes many at once.
    if text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\')) {
        return serde(into, text);
    }
    into.push(b'"');
    into.extend_from_slice(text.as_bytes());
    into.push(b'"');
}

/// Plain values into a Vec: there is nothing that could fail.
fn serde<T: Serialize + ?Sized>(into: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(into, value).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::EventType;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::Num),
            any::<String>().prop_map(|text| Value::Text(text.into())),
        ];
        leaf.prop_recursive(2, 8, 4, |inner| proptest::collection::vec(inner, 0..4).prop_map(Value::List))
    }

    proptest! {
        #[test]
        fn it_is_what_serde_writes(
            (ids, kind, value, timestamp) in (any::<(u128, u128)>(), 0usize..10, any::<f64>(), any::<i64>()),
            (period_start, tz_offset_min, version, deleted) in (any::<Option<i64>>(), any::<i16>(), any::<u32>(), any::<u8>()),
            (component, device, location, clock) in (any::<String>(), any::<String>(), any::<Option<String>>(), 0usize..3),
            metadata in proptest::collection::vec((any::<String>(), any_value()), 0..4),
        ) {
            let event_type = EventType::ALL[kind];
            let event = Event {
                event_id: Uuid::from_u128(ids.0),
                user_id: Uuid::from_u128(ids.1),
                event_type,
                component: component.into(),
                value,
                unit: event_type.unit(),
                timestamp,
                period_start,
                tz_offset_min,
                device_id: device.as_str().into(),
                gateway_id: device.into(),
                location: location.map(Into::into),
                clock: [ClockQuality::Synced, ClockQuality::Estimated, ClockQuality::Device][clock],
                metadata: metadata.into_iter().map(|(name, value)| (name.into(), value)).collect(),
                version,
                deleted,
            };
            let mut bytes = Vec::new();
            line(&mut bytes, &event);
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), serde_json::to_string(&event).unwrap() + "\n");
        }
    }
}
