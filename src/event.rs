//! Who and when are known: one row of `biometric_events`, contract v1.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::observation::{EventType, Observation, Value};
use crate::reading::RunId;

/// Name space of every event id made by this program. It never changes: an id must be the same after every update.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x6d3f_4f0c_8d0b_5d0e_9b7a_b106_a7e0_0001);

/// A biometric event. Field names and order are the columns of the table and the keys of the JSON line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Stable across retries, restarts and re-reads.
    pub event_id: Uuid,
    /// The person; nil where nobody is assigned.
    pub user_id: Uuid,
    /// What was measured.
    pub event_type: EventType,
    /// Which part of it; part of every roll-up's key.
    pub component: Arc<str>,
    /// In the type's one unit.
    pub value: f64,
    /// UCUM.
    pub unit: &'static str,
    /// When it was measured (the end of a period): Unix milliseconds.
    pub timestamp: i64,
    /// Since when, for increments, sleep and workouts: Unix milliseconds.
    pub period_start: Option<i64>,
    /// The place's offset from UTC at `timestamp`, in minutes.
    pub tz_offset_min: i16,
    /// The device's name from its entry.
    pub device_id: Arc<str>,
    /// The hub's name.
    pub gateway_id: Arc<str>,
    /// Room or ward.
    pub location: Option<Arc<str>>,
    /// How `timestamp` is known.
    pub clock: ClockQuality,
    /// A JSON object: what the profile lists, the profile itself, the raw unit.
    #[serde(serialize_with = "as_object")]
    pub metadata: Vec<(Arc<str>, Value)>,
    /// 1; a correction counts up.
    pub version: u32,
    /// 1 for the tombstone of a correction.
    pub deleted: u8,
}

/// How an event's timestamp is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i8)]
pub enum ClockQuality {
    /// The hub's clock was synchronised.
    Synced = 1,
    /// The hub's wall clock, never below the newest synchronised time ever stored.
    Estimated = 2,
    /// The device's own clock.
    Device = 3,
}

fn as_object<S: Serializer>(entries: &[(Arc<str>, Value)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(entries.iter().map(|(name, value)| (name, value)))
}

/// The id of an observation's event: its own identity, or UUIDv5 of the CBOR array [run, reading number, index].
pub fn event_id(run: RunId, observation: &Observation) -> Uuid {
    observation.identity.unwrap_or_else(|| derived_id(run, observation.reading, observation.index))
}

/// UUIDv5 over the CBOR array `[bytes(16) run, unsigned reading, unsigned index]` (RFC 8949 section 3), by hand because
/// three fixed items need no serializer and this runs for every event and retry.
fn derived_id(run: RunId, reading: u64, index: u16) -> Uuid {
    let mut name = [0u8; 1 + 17 + 9 + 3];
    name[0] = 0x83;
    name[1] = 0x50;
    name[2..18].copy_from_slice(run.0.as_bytes());
    let mut at = 18;
    at += put_unsigned(&mut name[at..], reading);
    at += put_unsigned(&mut name[at..], u64::from(index));
    Uuid::new_v5(&NAMESPACE, &name[..at])
}

/// Writes a CBOR unsigned integer in its shortest form and returns its length; `into` has room for nine bytes or the value's.
fn put_unsigned(into: &mut [u8], value: u64) -> usize {
    let bytes = value.to_be_bytes();
    let (head, tail): (u8, &[u8]) = match value {
        0..=23 => (value as u8, &[]),
        24..=0xff => (0x18, &bytes[7..]),
        0x100..=0xffff => (0x19, &bytes[6..]),
        0x1_0000..=0xffff_ffff => (0x1a, &bytes[4..]),
        _ => (0x1b, &bytes),
    };
    into[0] = head;
    into[1..1 + tail.len()].copy_from_slice(tail);
    1 + tail.len()
}

/// UUIDv5 of a device's own identity: the CBOR array of these parts, in this order (DESIGN 5).
///
/// `device` is the hardware address or serial number, `resets` the hub's count of falls of the device's sequence or
/// clock, `raw` the raw bytes of time or sequence.
pub fn device_identity(
    device: &str,
    resets: u64,
    raw: &[u8],
    event_type: EventType,
    component: &str,
    index: u16,
) -> Uuid {
    let parts = (device, resets, serde_cbor::Value::Bytes(raw.to_vec()), event_type as i8, component, index);
    // Plain values into a Vec: the only failure that serde_cbor has here is an IO error, which a Vec never gives.
    let name = serde_cbor::to_vec(&parts).unwrap_or_default();
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_cut_writes_the_same_cbor_as_the_library() {
        let run = RunId(Uuid::from_u128(7));
        for (reading, index) in [(0, 0), (23, 24), (24, 255), (255, 256), (65_535, 65_535), (65_536, 1), (u64::MAX, 9)]
        {
            let parts = (serde_cbor::Value::Bytes(run.0.as_bytes().to_vec()), reading, index);
            let name = serde_cbor::to_vec(&parts).unwrap();
            assert_eq!(derived_id(run, reading, index), Uuid::new_v5(&NAMESPACE, &name), "{reading} {index}");
        }
    }
}
