//! The form of a chunk: the observations of one commit, as bytes. Pure.
//!
//! ```text
//! offset  bytes  what (integers little-endian)
//!      0      8  magic, so that a damaged file can be scanned for chunks
//!      8      1  version, 1
//!      9      1  flags: 1 = the body is sealed
//!     10      2  zero
//!     12      4  length of the body in the file
//!     16      4  length of the body's CBOR before compression
//!     20      4  number of observations
//!     24      8  sequence of the first observation
//!     32     16  run id
//!     48      4  CRC-32 of bytes 0..48 and of the body
//!     52         body: zstd of `[[text ...], [boot id ...], [observation ...]]`, then sealed if a key is set
//! ```
//!
//! An observation is an array of thirteen items; names, profiles and texts are numbers of the chunk's text table, and
//! reading number and uptime are differences to the observation before: both compress to almost nothing.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;
use zstd::bulk::{Compressor, Decompressor};

use super::cbor::{Item, Reader, Writer, signed};
use super::seal::Key;
use super::{Chunk, Error, Sequence};
use crate::observation::{DeviceTime, EventType, Observation, Value};
use crate::reading::{BootId, Heard, RunId};

/// What a chunk begins with. The control character and the high byte keep it out of any text.
pub(super) const MAGIC: [u8; 8] = *b"\xb1bgchnk\x1a";
/// The largest chunk in the file: below sled's 131,052 bytes for one log item with room for the state beside it.
pub(super) const MAX_CHUNK_BYTES: usize = 96 * 1024;
/// The length of the header.
pub(super) const HEADER_BYTES: usize = 52;
/// No body expands to more than this: a commit is 4,096 observations of a few hundred bytes.
const MAX_RAW_BYTES: usize = 16 << 20;
/// Lists in metadata are at most this deep; what lies deeper is written as null.
const MAX_DEPTH: usize = 16;
const VERSION: u8 = 1;
const SEALED: u8 = 1;
/// A text inside metadata, by its number in the table (the tag that CBOR registers for that).
const TAG_TEXT: u64 = 25;
const ITEMS: usize = 13;

/// Bytes that are not what was written; says what is wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damaged(pub(super) &'static str);

/// A chunk's header, checked but for the CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sealed: bool,
    pub(super) body: usize,
    pub(super) raw: usize,
    pub(super) count: u64,
    pub(super) first: Sequence,
    pub(super) run: RunId,
    crc: u32,
}

impl Header {
    /// The header at the start of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Header, Damaged> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(Damaged("shorter than a chunk's header"))?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..8] != MAGIC {
            return Err(Damaged("not a chunk"));
        }
        if bytes[8] != VERSION {
            return Err(Damaged("a chunk of an unknown version"));
        }
        let (mut first, mut run) = ([0; 8], [0; 16]);
        first.copy_from_slice(&bytes[24..32]);
        run.copy_from_slice(&bytes[32..48]);
        let header = Header {
            sealed: bytes[9] & SEALED != 0,
            body: u32_at(12) as usize,
            raw: u32_at(16) as usize,
            count: u64::from(u32_at(20)),
            first: u64::from_le_bytes(first),
            run: RunId(Uuid::from_bytes(run)),
            crc: u32_at(48),
        };
        let plausible = header.body <= MAX_CHUNK_BYTES && header.raw <= MAX_RAW_BYTES && header.count > 0;
        let sequences = header.first > 0 && header.first.checked_add(header.count).is_some();
        if plausible && sequences { Ok(header) } else { Err(Damaged("an implausible chunk header")) }
    }

    /// The length of the whole chunk.
    pub(super) fn length(&self) -> usize {
        HEADER_BYTES + self.body
    }

    /// The last sequence.
    pub(super) fn last(&self) -> Sequence {
        self.first + self.count - 1
    }

    /// The header of `chunk`, which must be whole: length and CRC are checked.
    pub(super) fn verify(chunk: &[u8]) -> Result<Header, Damaged> {
        let header = Header::read(chunk)?;
        let body = chunk.get(HEADER_BYTES..header.length()).ok_or(Damaged("a chunk is cut off"))?;
        if crc(&chunk[..48], body) == header.crc { Ok(header) } else { Err(Damaged("a chunk's CRC is wrong")) }
    }
}

fn crc(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// Makes and reads chunks, with one compression context and one set of buffers for all of them.
pub(super) struct Codec {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    key: Option<Key>,
    texts: Texts,
    observations: Vec<u8>,
    raw: Vec<u8>,
}

impl Codec {
    pub(super) fn new(key: Option<Key>) -> Result<Codec, Error> {
        let no_memory = |error: std::io::Error| Error::fatal("making a compression context", error);
        Ok(Codec {
            compressor: Compressor::new(1).map_err(no_memory)?,
            decompressor: Decompressor::new().map_err(no_memory)?,
            key,
            texts: Texts::default(),
            observations: Vec::new(),
            raw: Vec::new(),
        })
    }

    pub(super) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// The chunk of these observations. It may be longer than [`MAX_CHUNK_BYTES`]: then the caller splits.
    pub(super) fn encode(
        &mut self,
        run: RunId,
        first: Sequence,
        observations: &[Observation],
    ) -> Result<Vec<u8>, Error> {
        self.texts.clear();
        self.observations.clear();
        let boots = write_observations(&mut self.observations, &mut self.texts, observations);
        self.raw.clear();
        let mut writer = Writer(&mut self.raw);
        writer.array(3);
        writer.array(self.texts.table.len());
        self.texts.table.iter().for_each(|text| writer.text(text));
        writer.array(boots.len());
        boots.iter().for_each(|boot| writer.bytes(boot.0.as_bytes()));
        self.raw.extend_from_slice(&self.observations);

        let mut header = [0u8; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8] = VERSION;
        header[9] = if self.key.is_some() { SEALED } else { 0 };
        header[16..20].copy_from_slice(&(self.raw.len() as u32).to_le_bytes());
        header[20..24].copy_from_slice(&(observations.len() as u32).to_le_bytes());
        header[24..32].copy_from_slice(&first.to_le_bytes());
        header[32..48].copy_from_slice(run.0.as_bytes());
        let body = self.pack(&header)?;
        header[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let sum = crc(&header[..48], &body);
        header[48..].copy_from_slice(&sum.to_le_bytes());
        let mut chunk = Vec::with_capacity(HEADER_BYTES + body.len());
        chunk.extend_from_slice(&header);
        chunk.extend_from_slice(&body);
        Ok(chunk)
    }

    fn pack(&mut self, header: &[u8; HEADER_BYTES]) -> Result<Vec<u8>, Error> {
        let packed = self.compressor.compress(&self.raw).map_err(|error| Error::fatal("compressing a chunk", error))?;
        match &self.key {
            // Everything of the header that decides what the body means is bound to it.
            Some(key) => key.seal(&packed, &header[16..48]),
            None => Ok(packed),
        }
    }

    /// Compresses and seals anything else that lies in the store.
    pub(super) fn wrap(&mut self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let packed = self.compressor.compress(plain).map_err(|error| Error::fatal("compressing a record", error))?;
        match &self.key {
            Some(key) => key.seal(&packed, &[]),
            None => Ok(packed),
        }
    }

    /// Undoes [`Codec::wrap`].
    pub(super) fn unwrap(&mut self, wrapped: &[u8], sealed: bool) -> Result<Vec<u8>, Damaged> {
        let unsealed;
        let packed = if sealed {
            unsealed = self.key.as_ref().ok_or(Damaged("it is sealed and no key is set"))?.open(wrapped, &[])?;
            &unsealed[..]
        } else {
            wrapped
        };
        self.decompressor.decompress(packed, MAX_RAW_BYTES).map_err(|_| Damaged("it does not decompress"))
    }

    /// The observations of a chunk. Total: any bytes give a chunk or say what is wrong.
    pub(super) fn decode(&mut self, chunk: &[u8]) -> Result<Chunk, Damaged> {
        let header = Header::verify(chunk)?;
        let body = &chunk[HEADER_BYTES..header.length()];
        let unsealed;
        let packed = if header.sealed {
            let key = self.key.as_ref().ok_or(Damaged("it is sealed and no key is set"))?;
            unsealed = key.open(body, &chunk[16..48])?;
            &unsealed[..]
        } else {
            body
        };
        let raw = self.decompressor.decompress(packed, header.raw).map_err(|_| Damaged("it does not decompress"))?;
        let observations = read_observations(&raw, header.count)?;
        Ok(Chunk { run: header.run, first: header.first, observations })
    }
}

/// The text table of the chunk being written. Names are shared `Arc`s, so most look-ups end at the address.
#[derive(Default)]
struct Texts {
    table: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u64>,
    /// Address and length of a text in `table`, so alive while it stands here, and its number.
    recent: Vec<Option<(usize, usize, u64)>>,
}

const RECENT: usize = 256;

impl Texts {
    fn clear(&mut self) {
        self.table.clear();
        self.numbers.clear();
        self.recent.clear();
        self.recent.resize(RECENT, None);
    }

    fn number(&mut self, text: &Arc<str>) -> u64 {
        let (address, length) = (text.as_ptr() as usize, text.len());
        let place = (address >> 4) % RECENT;
        if let Some((known, known_length, number)) = self.recent[place]
            && (known, known_length) == (address, length)
        {
            return number;
        }
        let number = match self.numbers.get(text) {
            Some(number) => *number,
            None => {
                let number = self.table.len() as u64;
                self.table.push(text.clone());
                self.numbers.insert(text.clone(), number);
                number
            }
        };
        self.recent[place] = Some((address, length, number));
        number
    }
}

/// Writes the array of observations and returns the boots that it names by number.
fn write_observations(into: &mut Vec<u8>, texts: &mut Texts, observations: &[Observation]) -> Vec<BootId> {
    let mut boots = Vec::new();
    let mut boot_number = |boot: BootId| -> u64 {
        let known = boots.iter().position(|known| *known == boot);
        known.unwrap_or_else(|| {
            boots.push(boot);
            boots.len() - 1
        }) as u64
    };
    let mut writer = Writer(into);
    writer.array(observations.len());
    let (mut reading, mut ms) = (0u64, 0u64);
    for observation in observations {
        writer.array(ITEMS);
        writer.signed(observation.reading.wrapping_sub(reading) as i64);
        writer.unsigned(u64::from(observation.index));
        writer.unsigned(texts.number(&observation.device));
        writer.unsigned(texts.number(&observation.profile));
        writer.unsigned(observation.event_type as u64);
        writer.unsigned(texts.number(&observation.component));
        write_value_number(&mut writer, observation.value);
        writer.unsigned(boot_number(observation.heard.boot));
        writer.signed(observation.heard.ms.wrapping_sub(ms) as i64);
        match observation.device_time {
            None => writer.null(),
            Some(time) => {
                let (kind, at) = match time {
                    DeviceTime::Utc(at) => (0, at),
                    DeviceTime::Local(at) => (1, at),
                };
                writer.array(2);
                writer.unsigned(kind);
                writer.signed(at);
            }
        }
        match observation.since {
            None => writer.null(),
            Some(since) => {
                writer.array(2);
                writer.unsigned(boot_number(since.boot));
                writer.signed(observation.heard.ms.wrapping_sub(since.ms) as i64);
            }
        }
        match &observation.identity {
            None => writer.null(),
            Some(identity) => writer.bytes(identity.as_bytes()),
        }
        writer.array(observation.metadata.len() * 2);
        for (name, value) in &observation.metadata {
            writer.unsigned(texts.number(name));
            write_value(&mut writer, texts, value, MAX_DEPTH);
        }
        (reading, ms) = (observation.reading, observation.heard.ms);
    }
    boots
}

/// The observation's own value: a whole number is an integer here, because the field is always a number.
fn write_value_number(writer: &mut Writer<'_>, value: f64) {
    let whole = value as i64;
    let is_whole = value.abs() < 1e15 && (whole as f64).to_bits() == value.to_bits();
    if is_whole { writer.signed(whole) } else { writer.number(value) }
}

fn write_value(writer: &mut Writer<'_>, texts: &mut Texts, value: &Value, depth: usize) {
    match value {
        Value::Null => writer.null(),
        Value::Bool(value) => writer.bool(*value),
        Value::Int(value) => writer.signed(*value),
        Value::Num(value) => writer.number(*value),
        Value::Text(text) => {
            writer.tag(TAG_TEXT);
            writer.unsigned(texts.number(text));
        }
        Value::List(_) if depth == 0 => writer.null(),
        Value::List(items) => {
            writer.array(items.len());
            items.iter().for_each(|item| write_value(writer, texts, item, depth - 1));
        }
    }
}

struct Tables {
    texts: Vec<Arc<str>>,
    boots: Vec<BootId>,
}

impl Tables {
    fn text(&self, number: u64) -> Result<Arc<str>, Damaged> {
        self.texts.get(number as usize).cloned().ok_or(Damaged("a text that is not in the table"))
    }

    fn boot(&self, number: u64) -> Result<BootId, Damaged> {
        self.boots.get(number as usize).copied().ok_or(Damaged("a boot that is not in the table"))
    }
}

fn read_observations(raw: &[u8], count: u64) -> Result<Vec<Observation>, Damaged> {
    let mut reader = Reader(raw);
    if reader.array()? != 3 {
        return Err(Damaged("a chunk has three parts"));
    }
    let texts = (0..reader.array()?).map(|_| reader.text().map(Arc::from)).collect::<Result<_, _>>()?;
    let boots = (0..reader.array()?)
        .map(|_| Uuid::from_slice(reader.bytes()?).map(BootId).map_err(|_| Damaged("a boot id has 16 bytes")))
        .collect::<Result<_, _>>()?;
    let tables = Tables { texts, boots };
    if reader.array()? as u64 != count {
        return Err(Damaged("the header counts other observations"));
    }
    let mut observations = Vec::with_capacity(count as usize);
    let (mut reading, mut ms) = (0u64, 0u64);
    for _ in 0..count {
        let observation = read_observation(&mut reader, &tables, reading, ms)?;
        (reading, ms) = (observation.reading, observation.heard.ms);
        observations.push(observation);
    }
    if reader.0.is_empty() { Ok(observations) } else { Err(Damaged("bytes after the observations")) }
}

fn read_observation(reader: &mut Reader<'_>, tables: &Tables, reading: u64, ms: u64) -> Result<Observation, Damaged> {
    if reader.array()? != ITEMS {
        return Err(Damaged("an observation has thirteen items"));
    }
    let reading = reading.wrapping_add(reader.signed()? as u64);
    let index = u16::try_from(reader.unsigned()?).map_err(|_| Damaged("an index is too large"))?;
    let device = tables.text(reader.unsigned()?)?;
    let profile = tables.text(reader.unsigned()?)?;
    let kind = i8::try_from(reader.unsigned()?).ok().and_then(EventType::from_number);
    let component = tables.text(reader.unsigned()?)?;
    let value = match reader.item()? {
        Item::Number(value) => value,
        whole => signed(whole)? as f64,
    };
    let boot = tables.boot(reader.unsigned()?)?;
    let heard = Heard { boot, ms: ms.wrapping_add(reader.signed()? as u64) };
    let device_time = match reader.item()? {
        Item::Null => None,
        Item::Array(2) => Some(match reader.unsigned()? {
            0 => DeviceTime::Utc(reader.signed()?),
            _ => DeviceTime::Local(reader.signed()?),
        }),
        _ => return Err(Damaged("a strange device time")),
    };
    let since = match reader.item()? {
        Item::Null => None,
        Item::Array(2) => {
            let boot = tables.boot(reader.unsigned()?)?;
            Some(Heard { boot, ms: heard.ms.wrapping_sub(reader.signed()? as u64) })
        }
        _ => return Err(Damaged("a strange start of a period")),
    };
    let identity = match reader.item()? {
        Item::Null => None,
        Item::Bytes(bytes) => Some(Uuid::from_slice(bytes).map_err(|_| Damaged("an identity has 16 bytes"))?),
        _ => return Err(Damaged("a strange identity")),
    };
    let fields = reader.array()? / 2;
    let metadata = (0..fields)
        .map(|_| {
            let name = tables.text(reader.unsigned()?)?;
            let item = reader.item()?;
            Ok((name, read_value(reader, tables, item, MAX_DEPTH)?))
        })
        .collect::<Result<_, Damaged>>()?;
    let event_type = kind.ok_or(Damaged("an unknown event type"))?;
    Ok(Observation {
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

fn read_value(reader: &mut Reader<'_>, tables: &Tables, item: Item<'_>, depth: usize) -> Result<Value, Damaged> {
    Ok(match item {
        Item::Null => Value::Null,
        Item::Bool(value) => Value::Bool(value),
        Item::Number(value) => Value::Num(value),
        Item::Tag(TAG_TEXT) => Value::Text(tables.text(reader.unsigned()?)?),
        Item::Array(items) if depth > 0 => {
            let read = |_| {
                let item = reader.item()?;
                read_value(reader, tables, item, depth - 1)
            };
            Value::List((0..items).map(read).collect::<Result<_, _>>()?)
        }
        whole => Value::Int(signed(whole)?),
    })
}
