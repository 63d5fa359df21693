//! A record: one value under the next number of a generation, the unit that becomes durable. Pure.
//!
//! ```text
//! magic "BGREC001" | length u32 | number u64 | commit u64 | last u8 | chunk length u32 | chunk | changes | crc32 u32
//! ```
//!
//! `length` is the whole record's. A commit that does not fit in one record continues in the next ones: all carry the
//! number of the first as `commit`, and they count only once the one marked `last` is there. The magic and the length let
//! a damaged file be scanned for records.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::{DestinationState, IntakeTally};
use super::seal::Seal;
use super::{Gap, Sequence};
use crate::reading::BootId;

/// The first bytes of every record.
pub(super) const MAGIC: &[u8; 8] = b"BGREC001";

const HEADER: usize = 8 + 4 + 8 + 8 + 1 + 4;

/// No record is longer: sled would move a longer value out of its log, into a file that nobody makes durable.
pub(super) const MAX_RECORD: usize = 120 << 10;

/// A record as it is read back.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) number: u64,
    pub(super) commit: u64,
    pub(super) last: bool,
    /// Empty, or a chunk as `chunk` writes it.
    pub(super) chunk: &'a [u8],
    pub(super) changes: Changes,
}

/// What a record changes. Everything is the new value, not a difference, so folding twice does no harm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Changes(
    /// State keys; `None` removes.
    pub(super) Vec<(String, Option<Bytes>)>,
    /// The intake's totals.
    pub(super) Option<IntakeTally>,
    /// Destinations by name: cursor, range in hand, totals; `None` removes.
    pub(super) BTreeMap<String, Option<DestinationState>>,
    /// Everything else that the store counts of itself.
    pub(super) Option<Own>,
);

/// What the store keeps of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Own {
    /// Closed generations that still hold something, oldest first.
    pub(super) closed: Vec<GenerationMeta>,
    /// The number that the next observation gets where nothing is found.
    pub(super) next: Sequence,
    /// Milliseconds that gateways have run with this store.
    pub(super) age_ms: u64,
    /// The newest gaps.
    pub(super) gaps: Vec<Gap>,
    /// Entries set aside that were pushed out, and those whose bytes were too long to keep.
    pub(super) aside_evicted: u64,
    pub(super) aside_not_kept: u64,
}

/// A generation as the newer ones remember it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GenerationMeta {
    pub(super) number: u64,
    /// First sequence in it, and the one after its last.
    pub(super) first: Sequence,
    pub(super) end: Sequence,
    pub(super) bytes: u64,
    /// The boots that its observations were heard in.
    pub(super) boots: Vec<BootId>,
    /// Uptime of its oldest observation in the first of `boots`.
    pub(super) oldest_ms: u64,
    /// The store's age when the last observation came.
    pub(super) newest_age_ms: u64,
}

/// Bytes that CBOR writes as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// For `#[serde(with = ...)]` on a `Vec<u8>`: as bytes, where serde would write an array of numbers.
pub(super) mod as_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Bytes;

    pub(in crate::store) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Bytes(bytes.to_vec()).serialize(serializer)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Bytes::deserialize(deserializer).map(|Bytes(bytes)| bytes)
    }
}

/// Writes a record.
pub(super) fn encode(
    number: u64,
    commit: u64,
    last: bool,
    chunk: &[u8],
    changes: &Changes,
    seal: Option<&Arc<Seal>>,
) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    serde_cbor::to_writer(&mut plain, changes).map_err(|why| why.to_string())?;
    if let Some(seal) = seal {
        plain = seal.close(&number.to_le_bytes(), &plain).ok_or("a record is too long to be sealed")?;
    }
    let length = HEADER + chunk.len() + plain.len() + 4;
    let mut record = Vec::with_capacity(length);
    record.extend_from_slice(MAGIC);
    record.extend_from_slice(&(length as u32).to_le_bytes());
    record.extend_from_slice(&number.to_le_bytes());
    record.extend_from_slice(&commit.to_le_bytes());
    record.push(u8::from(last));
    record.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
    record.extend_from_slice(chunk);
    record.extend_from_slice(&plain);
    record.extend_from_slice(&crc32fast::hash(&record).to_le_bytes());
    Ok(record)
}

/// Reads the record at the start of `bytes`; `None` when it is none, or damaged.
pub(super) fn decode<'a>(bytes: &'a [u8], seal: Option<&Arc<Seal>>) -> Option<Record<'a>> {
    let (record, chunk_end) = checked(bytes)?;
    let number = u64_at(record, 12)?;
    let plain = record.get(chunk_end..record.len() - 4)?;
    let opened = match seal {
        Some(seal) => seal.open(&number.to_le_bytes(), plain)?.into(),
        None => std::borrow::Cow::Borrowed(plain),
    };
    Some(Record {
        number,
        commit: u64_at(record, 20)?,
        last: record[28] == 1,
        chunk: &record[HEADER..chunk_end],
        changes: serde_cbor::from_slice(&opened).ok()?,
    })
}

/// Number, commit, whether it is the last, and the chunk: without the changes.
pub(super) fn chunk_of(bytes: &[u8]) -> Option<(u64, u64, bool, &[u8])> {
    let (record, chunk_end) = checked(bytes)?;
    Some((u64_at(record, 12)?, u64_at(record, 20)?, record[28] == 1, &record[HEADER..chunk_end]))
}

/// The record's bytes and where its chunk ends.
fn checked(bytes: &[u8]) -> Option<(&[u8], usize)> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let length = u32_at(bytes, 8)? as usize;
    let record = bytes.get(..length).filter(|record| record.len() >= HEADER + 4)?;
    if crc32fast::hash(&record[..length - 4]) != u32_at(record, length - 4)? {
        return None;
    }
    let chunk_end = HEADER + u32_at(record, 29)? as usize;
    (chunk_end <= length - 4).then_some((record, chunk_end))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..at + 4)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..at + 8)?.first_chunk()?))
}
