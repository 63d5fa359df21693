//! One commit's observations as bytes. Pure.
//!
//! ```text
//! magic "BGCHUNK1" | body length u32 | flags u8 | run 16 | boot 16 | first sequence u64 | count u32 | crc32 u32 | body
//! ```
//!
//! Numbers are little-endian; the CRC covers everything before it and the body. The body is a CBOR array
//! `[strings, observations]`, compressed with zstd and, with a key, sealed with XChaCha20-Poly1305 (24 bytes of nonce
//! before the ciphertext, the header as associated data). Observations are CBOR arrays; names of devices, profiles,
//! components and metadata are numbers into `strings`, so that each is one allocation per chunk. The header stays
//! readable without the key: a damaged file can be scanned for chunks.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::metadata::{Id, Stored};
use super::seal::Seal;
use super::{Chunk, Sequence};
use crate::observation::{DeviceTime, EventType, Observation, Value};
use crate::reading::{BootId, Heard, RunId};

/// The first bytes of every chunk.
pub(super) const MAGIC: &[u8; 8] = b"BGCHUNK1";

/// Bytes before the body.
pub(super) const HEADER: usize = 8 + 4 + 1 + 16 + 16 + 8 + 4 + 4;

/// Where the checksum stands: after all that it covers of the header.
const CRC_AT: usize = HEADER - 4;

/// No body unpacks to more: a bound for damaged and hostile files.
const MAX_UNPACKED: usize = 64 << 20;

const SEALED: u8 = 1;

/// zstd's quickest level: the next one costs twice the time for 4 % of the bytes.
const LEVEL: i32 = 1;

/// Why bytes are no chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadChunk {
    #[error("it is cut short")]
    Short,
    #[error("it does not begin as a chunk does")]
    Magic,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is sealed, and the key does not open it")]
    Sealed,
    #[error("its body is not what a chunk holds: {0}")]
    Body(String),
}

/// What a chunk says of itself before it is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) run: RunId,
    pub(super) boot: BootId,
    pub(super) first: Sequence,
    pub(super) count: u32,
    /// Header and body together.
    pub(super) length: usize,
    sealed: bool,
}

impl Header {
    /// Reads and checks a chunk at the start of `bytes`; what follows it does not matter.
    pub(super) fn checked(bytes: &[u8]) -> Result<Header, BadChunk> {
        let head: &[u8; HEADER] = bytes.first_chunk().ok_or(BadChunk::Short)?;
        if !head.starts_with(MAGIC) {
            return Err(BadChunk::Magic);
        }
        let length = HEADER + number::<4>(head, 8) as usize;
        let body = bytes.get(HEADER..length).ok_or(BadChunk::Short)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[..CRC_AT]);
        crc.update(body);
        if u64::from(crc.finalize()) != number::<4>(head, CRC_AT) {
            return Err(BadChunk::Checksum);
        }
        let id = |at: usize| Uuid::from_slice(&head[at..at + 16]).unwrap_or_default();
        Ok(Header {
            run: RunId(id(13)),
            boot: BootId(id(29)),
            first: number::<8>(head, 45),
            count: number::<4>(head, 53) as u32,
            length,
            sealed: head[12] & SEALED != 0,
        })
    }
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0u8; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(wide)
}

#[derive(Serialize, Deserialize)]
struct Body(Vec<Arc<str>>, Vec<Row>);

/// An observation in its chunk; strings are numbers into the chunk's table.
#[derive(Serialize, Deserialize)]
struct Row(
    u64,                           // reading
    u16,                           // index
    u32,                           // device
    u32,                           // profile
    i8,                            // event type
    u32,                           // component
    f64,                           // value
    u64,                           // heard, ms of the chunk's boot
    Option<(u8, i64)>,             // device time: 0 UTC, 1 local
    Option<(Option<BootId>, u64)>, // since, with its boot where that is another
    Option<Id>,                    // identity
    Vec<(u32, Stored)>,            // metadata
);

/// Writes chunks; keeps its compression context, which is large, from one to the next.
pub(super) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    seal: Option<Arc<Seal>>,
    plain: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(seal: Option<Arc<Seal>>) -> std::io::Result<Self> {
        Ok(Encoder { zstd: zstd::bulk::Compressor::new(LEVEL)?, seal, plain: Vec::new() })
    }

    /// A chunk of these observations, the first of which has number `first`. All were heard in `boot`.
    pub(super) fn encode(
        &mut self,
        run: RunId,
        boot: BootId,
        first: Sequence,
        observations: &[Observation],
    ) -> Result<Vec<u8>, BadChunk> {
        let mut table = Table::default();
        let rows = observations.iter().map(|observation| table.row(boot, observation)).collect();
        self.plain.clear();
        let failed = |why: &dyn std::fmt::Display| BadChunk::Body(why.to_string());
        serde_cbor::to_writer(&mut self.plain, &Body(table.strings, rows)).map_err(|why| failed(&why))?;
        let mut body = self.zstd.compress(&self.plain).map_err(|why| failed(&why))?;
        let sealed_by = if self.seal.is_some() { crate::store::seal::OVERHEAD } else { 0 };
        let mut chunk = Vec::with_capacity(HEADER + body.len() + sealed_by);
        chunk.extend_from_slice(MAGIC);
        chunk.extend_from_slice(&((body.len() + sealed_by) as u32).to_le_bytes());
        chunk.push(if self.seal.is_some() { SEALED } else { 0 });
        chunk.extend_from_slice(run.0.as_bytes());
        chunk.extend_from_slice(boot.0.as_bytes());
        chunk.extend_from_slice(&first.to_le_bytes());
        chunk.extend_from_slice(&(observations.len() as u32).to_le_bytes());
        if let Some(seal) = &self.seal {
            body = seal.close(&chunk, &body).ok_or(BadChunk::Sealed)?;
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&chunk);
        crc.update(&body);
        chunk.extend_from_slice(&crc.finalize().to_le_bytes());
        chunk.extend_from_slice(&body);
        Ok(chunk)
    }
}

/// Reads chunks.
pub(super) struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
    seal: Option<Arc<Seal>>,
}

impl Decoder {
    pub(super) fn new(seal: Option<Arc<Seal>>) -> std::io::Result<Self> {
        Ok(Decoder { zstd: zstd::bulk::Decompressor::new()?, seal })
    }

    /// The chunk at the start of `bytes`.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Result<Chunk, BadChunk> {
        let header = Header::checked(bytes)?;
        let mut body = std::borrow::Cow::Borrowed(&bytes[HEADER..header.length]);
        if header.sealed {
            let seal = self.seal.as_ref().ok_or(BadChunk::Sealed)?;
            body = seal.open(&bytes[..CRC_AT], &body).ok_or(BadChunk::Sealed)?.into();
        }
        let failed = |why: &dyn std::fmt::Display| BadChunk::Body(why.to_string());
        let size = zstd::zstd_safe::get_frame_content_size(&body).ok().flatten().unwrap_or(0) as usize;
        let plain = self.zstd.decompress(&body, size.min(MAX_UNPACKED)).map_err(|why| failed(&why))?;
        let Body(strings, rows) = serde_cbor::from_slice(&plain).map_err(|why| failed(&why))?;
        if rows.len() != header.count as usize {
            return Err(BadChunk::Body(format!("{} rows, the header says {}", rows.len(), header.count)));
        }
        let observations = rows.into_iter().map(|row| row.observation(header.boot, &strings));
        let observations =
            observations.collect::<Option<Vec<_>>>().ok_or_else(|| failed(&"a row names what is not there"))?;
        Ok(Chunk { run: header.run, first: header.first, observations })
    }
}

/// The strings of a chunk that is being written.
#[derive(Default)]
struct Table {
    strings: Vec<Arc<str>>,
    /// By address first: the same `Arc` comes again and again.
    by_address: HashMap<usize, u32>,
    by_text: HashMap<Arc<str>, u32>,
}

impl Table {
    fn number(&mut self, text: &Arc<str>) -> u32 {
        let address = text.as_ptr() as usize;
        if let Some(&known) = self.by_address.get(&address)
            && self.strings[known as usize].len() == text.len()
        {
            return known;
        }
        let number = *self.by_text.entry(text.clone()).or_insert_with(|| {
            self.strings.push(text.clone());
            self.strings.len() as u32 - 1
        });
        self.by_address.insert(address, number);
        number
    }

    fn row(&mut self, boot: BootId, observation: &Observation) -> Row {
        let metadata = observation.metadata.iter().map(|(name, value)| (self.number(name), self.stored(value)));
        let metadata = metadata.collect();
        Row(
            observation.reading,
            observation.index,
            self.number(&observation.device),
            self.number(&observation.profile),
            observation.event_type as i8,
            self.number(&observation.component),
            observation.value,
            observation.heard.ms,
            observation.device_time.map(|time| match time {
                DeviceTime::Utc(ms) => (0, ms),
                DeviceTime::Local(ms) => (1, ms),
            }),
            observation.since.map(|since| ((since.boot != boot).then_some(since.boot), since.ms)),
            observation.identity.map(Id),
            metadata,
        )
    }

    fn stored(&mut self, value: &Value) -> Stored {
        match value {
            Value::Null => Stored::Null,
            Value::Bool(bit) => Stored::Bool(*bit),
            Value::Int(whole) => Stored::Int(*whole),
            Value::Num(number) => Stored::Num(*number),
            Value::Text(text) => Stored::Text(self.number(text)),
            Value::List(values) => Stored::List(values.iter().map(|value| self.stored(value)).collect()),
        }
    }
}

impl Row {
    fn observation(self, boot: BootId, strings: &[Arc<str>]) -> Option<Observation> {
        let Row(reading, index, device, profile, event_type, component, value, heard, device_time, since, id, metadata) =
            self;
        let text = |number: u32| strings.get(number as usize).cloned();
        Some(Observation {
            reading,
            index,
            device: text(device)?,
            profile: text(profile)?,
            event_type: EventType::from_number(event_type)?,
            component: text(component)?,
            value,
            heard: Heard { boot, ms: heard },
            device_time: match device_time {
                None => None,
                Some((0, ms)) => Some(DeviceTime::Utc(ms)),
                Some((1, ms)) => Some(DeviceTime::Local(ms)),
                Some(_) => return None,
            },
            since: since.map(|(of, ms)| Heard { boot: of.unwrap_or(boot), ms }),
            identity: id.map(|Id(id)| id),
            metadata: metadata
                .into_iter()
                .map(|(name, stored)| Some((text(name)?, stored.value(strings)?)))
                .collect::<Option<Vec<_>>>()?,
        })
    }
}
