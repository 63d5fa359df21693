//! An event as one row of RowBinary, contract v1. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serializer;
use serde::ser::SerializeMap;

use crate::event::Event;
use crate::observation::Value;

/// The columns of the row, in its order. `ingested_at` is the server's own.
pub(super) const COLUMNS: &str = "event_id, user_id, event_type, component, value, unit, timestamp, period_start, \
     tz_offset_min, device_id, gateway_id, location, clock, metadata, version, deleted";

/// The earliest time that is sent: the table's TTL counts in 32-bit seconds since 1970, and an earlier one would wrap.
const EARLIEST_MS: i64 = 0;

/// The latest time that is sent, 2105-01-01: a year later the TTL's seconds wrap, and the server would drop the row
/// without a word.
const LATEST_MS: i64 = 4_260_211_200_000;

/// Appends the row, or says why the table cannot hold it. Enum numbers and lengths are right by construction.
pub(super) fn encode(into: &mut Vec<u8>, event: &Event) -> Result<(), String> {
    check_time("timestamp", event.timestamp)?;
    if let Some(start) = event.period_start {
        check_time("period_start", start)?;
    }
    if !event.value.is_finite() {
        return Err(format!("value {} is not a number", event.value));
    }
    uuid(into, event.event_id);
    uuid(into, event.user_id);
    into.push(event.event_type as u8);
    string(into, event.component.as_bytes());
    into.extend_from_slice(&event.value.to_le_bytes());
    string(into, event.unit.as_bytes());
    into.extend_from_slice(&event.timestamp.to_le_bytes());
    match event.period_start {
        Some(start) => {
            into.push(0);
            into.extend_from_slice(&start.to_le_bytes());
        }
        None => into.push(1),
    }
    into.extend_from_slice(&event.tz_offset_min.to_le_bytes());
    string(into, event.device_id.as_bytes());
    string(into, event.gateway_id.as_bytes());
    match &event.location {
        Some(location) => {
            into.push(0);
            string(into, location.as_bytes());
        }
        None => into.push(1),
    }
    into.push(event.clock as u8);
    string(into, &json(&event.metadata));
    into.extend_from_slice(&event.version.to_le_bytes());
    into.push(event.deleted);
    Ok(())
}

fn check_time(column: &str, ms: i64) -> Result<(), String> {
    if (EARLIEST_MS..=LATEST_MS).contains(&ms) {
        Ok(())
    } else {
        Err(format!("{column} {ms} ms lies outside 1970 to 2105, which the table cannot hold"))
    }
}

/// Two little-endian 64-bit halves, the high one first.
fn uuid(into: &mut Vec<u8>, id: uuid::Uuid) {
    let (high, low) = id.as_u64_pair();
    into.extend_from_slice(&high.to_le_bytes());
    into.extend_from_slice(&low.to_le_bytes());
}

/// LEB128 length, then the bytes.
fn string(into: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len() as u64;
    while length >= 0x80 {
        into.push(length as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
    into.extend_from_slice(bytes);
}

/// The metadata as a JSON object. A JSON column refuses a name that comes twice, so the first one counts.
fn json(metadata: &[(Arc<str>, Value)]) -> Vec<u8> {
    let mut text = Vec::with_capacity(64);
    let mut serializer = serde_json::Serializer::new(&mut text);
    let mut names = HashSet::with_capacity(metadata.len());
    let write = || {
        let mut object = serializer.serialize_map(None)?;
        for (name, value) in metadata {
            if names.insert(name) {
                object.serialize_entry(name, value)?;
            }
        }
        object.end()
    };
    // Names as keys and finite numbers into a Vec: there is nothing that could fail.
    let mut write = write;
    write().map_or_else(|_: serde_json::Error| b"{}".to_vec(), |()| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_strings_have_long_lengths() {
        let mut bytes = Vec::new();
        string(&mut bytes, &[b'x'; 300]);
        assert_eq!(bytes[..2], [0xac, 0x02]);
        assert_eq!(bytes.len(), 302);
    }

    #[test]
    fn a_name_that_comes_twice_counts_once() {
        let metadata = vec![("a".into(), Value::Int(1)), ("a".into(), Value::Int(2)), ("b".into(), Value::Null)];
        assert_eq!(json(&metadata), br#"{"a":1,"b":null}"#);
    }
}
