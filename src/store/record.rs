//! The form of a record: what one commit makes durable, as the one value of one insert. Pure but for the codec.
//!
//! ```text
//! offset  bytes  what (integers little-endian)
//!      0      8  magic, so that a damaged file can be scanned for records
//!      8      1  version, 1
//!      9      1  kind: 0 = queue, 1 = aside, 2 = reports
//!     10      1  flags: 1 = the tail is sealed
//!     11      1  zero
//!     12      4  length of the chunk, 0 for none
//!     16      4  length of the tail
//!     20      8  number of the generation
//!     28      4  number of the record in it
//!     32         chunk, tail, CRC-32 of all before
//! ```
//!
//! The tail of a queue record is the state that changed, `[key, value or null, key, value or null, ...]`; that of an
//! aside record is its entries, that of a report record the reports. All are compressed and, with a key, sealed.

use super::cbor::{Item, Reader, Writer};
use super::chunk::{Codec, Header, MAX_CHUNK_BYTES};
use super::damage::Damaged;
use super::{Error, StateChange};

/// What a record begins with.
pub(super) const MAGIC: [u8; 8] = *b"\xb1bgrecd\x1a";
/// The largest record: a log item over 131,052 bytes would leave sled's log for a file that nobody syncs.
pub(super) const MAX_RECORD_BYTES: usize = 120 * 1024;
/// What the largest chunk leaves for the tail.
pub(super) const MAX_TAIL_BESIDE_CHUNK: usize = MAX_RECORD_BYTES - MAX_CHUNK_BYTES - OVERHEAD;
/// The largest tail of a record without a chunk.
pub(super) const MAX_TAIL_BYTES: usize = 96 * 1024;
const HEADER_BYTES: usize = 32;
const OVERHEAD: usize = HEADER_BYTES + 4;
const VERSION: u8 = 1;
const SEALED: u8 = 1;

/// Which row of generations a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Queue = 0,
    Aside = 1,
    Reports = 2,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) kind: Kind,
    pub(super) generation: u64,
    pub(super) record: u32,
}

/// A record's parts, its CRC checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) place: Place,
    pub(super) sealed: bool,
    /// Empty for none.
    pub(super) chunk: &'a [u8],
    pub(super) tail: &'a [u8],
}

/// Puts a record together. `tail` is wrapped already; it may be empty.
pub(super) fn build(place: Place, sealed: bool, chunk: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(OVERHEAD + chunk.len() + tail.len());
    record.extend_from_slice(&MAGIC);
    record.extend_from_slice(&[VERSION, place.kind as u8, u8::from(sealed) * SEALED, 0]);
    record.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
    record.extend_from_slice(&(tail.len() as u32).to_le_bytes());
    record.extend_from_slice(&place.generation.to_le_bytes());
    record.extend_from_slice(&place.record.to_le_bytes());
    record.extend_from_slice(chunk);
    record.extend_from_slice(tail);
    let sum = crc32fast::hash(&record);
    record.extend_from_slice(&sum.to_le_bytes());
    record
}

/// The length that the record at the start of `bytes` says it has, if it can be one.
pub(super) fn length(bytes: &[u8]) -> Result<usize, Damaged> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Damaged("shorter than a record's header"))?;
    if header[..8] != MAGIC {
        return Err(Damaged("not a record"));
    }
    let length = OVERHEAD + u32_at(header, 12) as usize + u32_at(header, 16) as usize;
    if length <= MAX_RECORD_BYTES { Ok(length) } else { Err(Damaged("an implausible record header")) }
}

/// Takes a record apart.
pub(super) fn parse(bytes: &[u8]) -> Result<Record<'_>, Damaged> {
    let length = length(bytes)?;
    let record = bytes.get(..length).ok_or(Damaged("a record is cut off"))?;
    let (covered, sum) = record.split_at(length - 4);
    if crc32fast::hash(covered) != u32_at(sum, 0) {
        return Err(Damaged("a record's CRC is wrong"));
    }
    if record[8] != VERSION {
        return Err(Damaged("a record of an unknown version"));
    }
    let kind = match record[9] {
        0 => Kind::Queue,
        1 => Kind::Aside,
        2 => Kind::Reports,
        _ => return Err(Damaged("a record of an unknown kind")),
    };
    let generation = u64::from(u32_at(record, 20)) | u64::from(u32_at(record, 24)) << 32;
    let (chunk, tail) = covered[HEADER_BYTES..].split_at(u32_at(record, 12) as usize);
    let sealed = record[10] & SEALED != 0;
    Ok(Record { place: Place { kind, generation, record: u32_at(record, 28) }, sealed, chunk, tail })
}

impl Record<'_> {
    /// The header of the chunk, when there is one.
    pub(super) fn header(&self) -> Result<Option<Header>, Damaged> {
        if self.chunk.is_empty() { Ok(None) } else { Header::verify(self.chunk).map(Some) }
    }

    /// The state that the record changes.
    pub(super) fn changes(&self, codec: &mut Codec) -> Result<Vec<StateChange>, Damaged> {
        if self.tail.is_empty() {
            return Ok(Vec::new());
        }
        let plain = codec.unwrap(self.tail, self.sealed)?;
        let mut reader = Reader(&plain);
        let items = reader.array()?;
        let change = |_| {
            let key = reader.text()?.to_owned();
            let value = match reader.item()? {
                Item::Null => None,
                Item::Bytes(value) => Some(value.to_vec()),
                _ => return Err(Damaged("a strange state value")),
            };
            Ok(StateChange { key, value })
        };
        (0..items / 2).map(change).collect()
    }
}

/// The tail of these changes; empty for none.
pub(super) fn tail(codec: &mut Codec, changes: &[StateChange]) -> Result<Vec<u8>, Error> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let mut plain = Vec::new();
    let mut writer = Writer(&mut plain);
    writer.array(changes.len() * 2);
    for change in changes {
        writer.text(&change.key);
        match &change.value {
            Some(value) => writer.bytes(value),
            None => writer.null(),
        }
    }
    codec.wrap(&plain)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
