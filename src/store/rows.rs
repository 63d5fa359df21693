//! The observations inside a chunk: arrays of thirteen items. Pure.
//!
//! Names, profiles and texts are numbers of the chunk's text table, so that one `Arc` is shared by all that a reader
//! gets; reading number and uptime are differences to the observation before. Both compress to almost nothing.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::cbor::{Item, Reader, Writer, signed};
use super::damage::Damaged;
use crate::observation::{Counted, DeviceTime, EventType, Observation, Value};
use crate::reading::{BootId, Heard};

/// Lists in metadata are at most this deep; what lies deeper is written as null.
const MAX_DEPTH: usize = 16;
/// How a device's clock counts.
const UTC: u64 = 0;
const LOCAL: u64 = 1;
/// A text inside metadata, by its number in the table (the tag that CBOR registers for that).
const TAG_TEXT: u64 = 25;
/// Items of an observation.
const ITEMS: usize = 13;
/// Most places reserved for a list before its items are seen: its length is what a damaged file says.
const MOST_RESERVED: usize = 64;
/// Texts looked up by their address before they are looked up by what they say.
const RECENT: usize = 256;

/// The text table of the chunk being written. Names are shared `Arc`s, so most look-ups end at the address.
#[derive(Default)]
pub(super) struct Texts {
    table: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u64>,
    /// Address and length of a text of the observations being written, which live as long as the writing, and its number.
    recent: Vec<Option<(usize, usize, u64)>>,
}

impl Texts {
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        writer.array(self.table.len());
        self.table.iter().for_each(|text| writer.text(text));
    }

    pub(super) fn clear(&mut self) {
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
pub(super) fn write_observations(into: &mut Vec<u8>, texts: &mut Texts, observations: &[Observation]) -> Vec<BootId> {
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
            Some(DeviceTime::Utc(at)) => {
                writer.array(2);
                writer.unsigned(UTC);
                writer.signed(at);
            }
            Some(DeviceTime::Local(at)) => {
                writer.array(2);
                writer.unsigned(LOCAL);
                writer.signed(at);
            }
            Some(DeviceTime::Counted(Counted { utc, ms: shown, at_ms, age_ms })) => {
                writer.array(4);
                writer.unsigned(if utc { UTC } else { LOCAL });
                writer.signed(shown);
                writer.signed(observation.heard.ms.wrapping_sub(at_ms) as i64);
                writer.signed(age_ms);
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

/// How far a chunk's body has been read. The bytes are the caller's, the same at every call.
pub(super) struct Reading {
    tables: Tables,
    /// One part more names the destination that the observations are for.
    has_destination: bool,
    /// Bytes read.
    at: usize,
    /// Observations left.
    left: u64,
    reading: u64,
    ms: u64,
}

impl Reading {
    /// Reads what stands before the observations.
    pub(super) fn begin(raw: &[u8], count: u64) -> Result<Reading, Damaged> {
        let mut reader = Reader(raw);
        let parts = reader.array()?;
        if !(3..=4).contains(&parts) {
            return Err(Damaged("a chunk has three or four parts"));
        }
        let texts = (0..reader.array()?).map(|_| reader.text().map(Arc::from)).collect::<Result<_, _>>()?;
        let boots = (0..reader.array()?)
            .map(|_| Uuid::from_slice(reader.bytes()?).map(BootId).map_err(|_| Damaged("a boot id has 16 bytes")))
            .collect::<Result<_, _>>()?;
        if reader.array()? as u64 != count {
            return Err(Damaged("the header counts other observations"));
        }
        let (tables, at) = (Tables { texts, boots }, raw.len() - reader.0.len());
        Ok(Reading { tables, has_destination: parts == 4, at, left: count, reading: 0, ms: 0 })
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn has_destination(&self) -> bool {
        self.has_destination
    }

    /// Reads the next observations, at most so many.
    pub(super) fn next(&mut self, raw: &[u8], most: u64) -> Result<Vec<Observation>, Damaged> {
        let mut reader = Reader(raw.get(self.at..).unwrap_or_default());
        let count = self.left.min(most);
        let mut observations = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let observation = read_observation(&mut reader, &self.tables, self.reading, self.ms)?;
            (self.reading, self.ms) = (observation.reading, observation.heard.ms);
            observations.push(observation);
        }
        (self.left, self.at) = (self.left - count, raw.len() - reader.0.len());
        Ok(observations)
    }

    /// Reads what stands behind the last observation: the one destination that they are for.
    pub(super) fn end(self, raw: &[u8]) -> Result<Option<Arc<str>>, Damaged> {
        let mut reader = Reader(raw.get(self.at..).unwrap_or_default());
        let only_for = if self.has_destination { Some(Arc::from(reader.text()?)) } else { None };
        if reader.0.is_empty() { Ok(only_for) } else { Err(Damaged("bytes after the observations")) }
    }
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
            UTC => DeviceTime::Utc(reader.signed()?),
            _ => DeviceTime::Local(reader.signed()?),
        }),
        Item::Array(4) => Some(DeviceTime::Counted(Counted {
            utc: reader.unsigned()? == UTC,
            ms: reader.signed()?,
            at_ms: heard.ms.wrapping_sub(reader.signed()? as u64),
            age_ms: reader.signed()?,
        })),
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
    // One place more: the row will also name the profile.
    let mut metadata = Vec::with_capacity(fields.min(MOST_RESERVED) + 1);
    for _ in 0..fields {
        let name = tables.text(reader.unsigned()?)?;
        let item = reader.item()?;
        metadata.push((name, read_value(reader, tables, item, MAX_DEPTH)?));
    }
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
            let mut values = Vec::with_capacity(items.min(MOST_RESERVED));
            for _ in 0..items {
                let item = reader.item()?;
                values.push(read_value(reader, tables, item, depth - 1)?);
            }
            Value::List(values)
        }
        whole => Value::Int(signed(whole)?),
    })
}
