//! How a metadata value and an identity look in a chunk: plain CBOR, read without a buffer in between.
//!
//! A text is an array of one number, its place in the chunk's table; a list is an array of one array.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use uuid::Uuid;

use crate::observation::Value;

/// A metadata value whose texts stand in the chunk's table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stored {
    Null,
    Bool(bool),
    Int(i64),
    Num(f64),
    Text(u32),
    List(Vec<Stored>),
}

impl Stored {
    /// With its texts from the table; `None` when it names one that is not there.
    pub(super) fn value(self, strings: &[Arc<str>]) -> Option<Value> {
        Some(match self {
            Stored::Null => Value::Null,
            Stored::Bool(bit) => Value::Bool(bit),
            Stored::Int(whole) => Value::Int(whole),
            Stored::Num(number) => Value::Num(number),
            Stored::Text(number) => Value::Text(strings.get(number as usize)?.clone()),
            Stored::List(values) => {
                Value::List(values.into_iter().map(|stored| stored.value(strings)).collect::<Option<Vec<_>>>()?)
            }
        })
    }
}

impl Serialize for Stored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Stored::Null => serializer.serialize_unit(),
            Stored::Bool(bit) => serializer.serialize_bool(*bit),
            Stored::Int(whole) => serializer.serialize_i64(*whole),
            Stored::Num(number) => serializer.serialize_f64(*number),
            Stored::Text(number) => [number].serialize(serializer),
            Stored::List(values) => [values].serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StoredVisitor)
    }
}

struct StoredVisitor;

impl<'de> Visitor<'de> for StoredVisitor {
    type Value = Stored;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a metadata value")
    }

    fn visit_unit<E>(self) -> Result<Stored, E> {
        Ok(Stored::Null)
    }

    fn visit_bool<E>(self, bit: bool) -> Result<Stored, E> {
        Ok(Stored::Bool(bit))
    }

    fn visit_i64<E>(self, whole: i64) -> Result<Stored, E> {
        Ok(Stored::Int(whole))
    }

    fn visit_u64<E: de::Error>(self, whole: u64) -> Result<Stored, E> {
        i64::try_from(whole).map(Stored::Int).map_err(E::custom)
    }

    fn visit_f64<E>(self, number: f64) -> Result<Stored, E> {
        Ok(Stored::Num(number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stored, A::Error> {
        let Wrapped(stored) = seq.next_element()?.ok_or_else(|| de::Error::custom("an empty array is no value"))?;
        Ok(stored)
    }
}

/// What stands in an array of one.
struct Wrapped(Stored);

impl<'de> Deserialize<'de> for Wrapped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrappedVisitor)
    }
}

struct WrappedVisitor;

impl<'de> Visitor<'de> for WrappedVisitor {
    type Value = Wrapped;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a place in the table, or a list")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Wrapped, E> {
        u32::try_from(number).map(|number| Wrapped(Stored::Text(number))).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Wrapped, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Wrapped(Stored::List(values)))
    }
}

/// An identity as 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(pub(super) Uuid);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("16 bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Id, E> {
        Uuid::from_slice(bytes).map(Id).map_err(E::custom)
    }
}
