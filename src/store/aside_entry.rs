//! What is set aside: an entry, its id and its place, and how an observation lies in one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::observation::{DeviceTime, EventType, Observation, Value};
use crate::reading::{Channel, Heard, RunId};

/// The namespace of entries' ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x3d0f_51c6_2a6b_5c1e_9f0a_71e2_4c83_d5b9);

/// Why something was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AsideKind {
    /// A reading that its profile refused.
    Refused,
    /// An observation outside its plausible range.
    Implausible,
    /// An observation that a destination refused for good.
    Rejected,
    /// An observation of nobody.
    Parked,
}

/// Something that is no waiting event and that a person may want to see or bring back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AsideEntry {
    /// Why, in one word.
    pub kind: AsideKind,
    /// Why, in a sentence.
    pub reason: String,
    /// The device.
    pub device: Arc<str>,
    /// Its configuration entry.
    pub entry: Arc<str>,
    /// Where on the device the bytes came from.
    pub channel: Channel,
    /// Profile id and version.
    pub profile: Arc<str>,
    /// The run that `reading` belongs to.
    pub run: RunId,
    /// The reading's number.
    pub reading: u64,
    /// When it was heard.
    pub heard: Heard,
    /// Raw bytes of the reading; for `Rejected` and `Parked` the observation's CBOR. Over 64 KiB they are not kept.
    #[serde(with = "as_bytes")]
    pub bytes: Vec<u8>,
    /// The destination that refused or parked it.
    pub destination: Option<String>,
    /// For `Implausible`: which observation of the reading it is, and of what type.
    #[serde(default)]
    pub which: Option<(u16, EventType)>,
    /// The running totals that the device had before this reading: key, total, when it was heard. What a refused reading
    /// added to one of these came with the next good reading.
    #[serde(default)]
    pub counters: Vec<(Arc<str>, f64, Heard)>,
    /// How often the device's sequence or clock had been seen to fall back by then.
    #[serde(default)]
    pub resets: u64,
}

/// Where an entry lies in the row set aside. It stays there as long as the entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AsidePlace {
    pub(super) generation: u64,
    pub(super) record: u32,
    /// The entry's number in the record, and how many are in it.
    pub(super) position: u16,
    pub(super) of: u16,
}

impl AsidePlace {
    /// Whether it lies before where reading would go on.
    pub fn is_before(self, from: AsideFrom) -> bool {
        (self.generation, self.record) < (from.generation, from.record)
    }
}

/// Where reading the row goes on; the default is its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AsideFrom {
    pub(super) generation: u64,
    pub(super) record: u32,
}

/// Some entries, oldest first.
#[derive(Debug, Default)]
pub struct AsidePage {
    /// Each with its place.
    pub entries: Vec<(AsidePlace, AsideEntry)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<AsideFrom>,
    /// Where the row ends now: what comes later was set aside after this was read.
    pub end: AsideFrom,
}

impl AsideEntry {
    /// A number that is the same whenever the entry is listed, and differs from that of every other entry. An entry that
    /// a crash left twice has it twice.
    pub fn id(&self) -> u64 {
        let bytes = serde_cbor::Value::Bytes(self.bytes.clone());
        let name = (self.kind, self.run, self.reading, &self.destination, &self.which, bytes);
        // Plain values into a Vec cannot fail.
        let name = serde_cbor::to_vec(&name).unwrap_or_default();
        Uuid::new_v5(&NAMESPACE, &name).as_u64_pair().0
    }
}

/// A byte string in CBOR, not an array of numbers.
mod as_bytes {
    use serde::de::{Deserializer, SeqAccess, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// The first half of an observation's array: reading, index, device, profile, the type's number, component.
type First = (u64, u16, Arc<str>, Arc<str>, i8, Arc<str>);

/// The second half: value, heard, device time, start of the period, identity, metadata.
type Second = (f64, Heard, Option<DeviceTime>, Option<Heard>, Option<[u8; 16]>, Vec<(Arc<str>, Value)>);

/// The observation as a CBOR array, its fields in the order of their declaration, the type by its number.
pub fn observation_to_cbor(observation: &Observation) -> Vec<u8> {
    let Observation {
        reading,
        index,
        device,
        profile,
        event_type,
        component,
        value,
        heard,
        device_time,
        since,
        identity,
        metadata,
    } = observation;
    let fields = (
        (reading, index, device, profile, *event_type as i8, component),
        (value, heard, device_time, since, identity.map(|id| *id.as_bytes()), metadata),
    );
    // Plain values into a Vec cannot fail.
    serde_cbor::to_vec(&fields).unwrap_or_default()
}

/// Undoes [`observation_to_cbor`]; `None` of any other bytes.
pub fn observation_from_cbor(bytes: &[u8]) -> Option<Observation> {
    let (first, second): (First, Second) = serde_cbor::from_slice(bytes).ok()?;
    let (reading, index, device, profile, event_type, component) = first;
    let (value, heard, device_time, since, identity, metadata) = second;
    let event_type = EventType::from_number(event_type)?;
    let identity = identity.map(Uuid::from_bytes);
    value.is_finite().then_some(Observation {
        reading,
        index,
        device,
        profile,
        event_type,
        component,
        value,
        heard,
        device_time,
        since,
        identity,
        metadata,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::BootId;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e9..1e9f64).prop_map(Value::Num),
            "[a-z\u{e9} ]{0,9}".prop_map(|text| Value::Text(text.into())),
        ];
        leaf.prop_recursive(2, 6, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::List))
    }

    proptest! {
        #[test]
        fn an_observation_comes_back_as_it_was(
            (reading, index, value, ms) in (any::<u64>(), any::<u16>(), -1e6..1e6f64, any::<u64>()),
            kind in 0..10usize,
            identity in proptest::option::of(any::<u128>()),
            local in proptest::option::of(any::<i64>()),
            metadata in prop::collection::vec(("[a-z]{1,8}", value()), 0..4),
        ) {
            let heard = Heard { boot: BootId(Uuid::from_u128(ms.into())), ms };
            let observation = Observation {
                reading,
                index,
                device: "strap".into(),
                profile: "p/1".into(),
                event_type: EventType::ALL[kind],
                component: "body".into(),
                value,
                heard,
                device_time: local.map(DeviceTime::Local),
                since: local.map(|_| heard),
                identity: identity.map(Uuid::from_u128),
                metadata: metadata.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            };
            prop_assert_eq!(observation_from_cbor(&observation_to_cbor(&observation)), Some(observation));
        }

        #[test]
        fn any_bytes_are_an_observation_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _total = observation_from_cbor(&bytes);
        }
    }
}
