//! Runs a channel's steps over one frame: bytes to fields. Total; the work is bounded by the frame's length.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::observation::Value;

use super::file::UnknownName;
use super::kind::Kind;
use super::message::{self, Parts};
use super::read::{self, Raw};
use super::step::{Act, Channel, Field, Length, Objects, Piece, PieceFrom, Repeat, RowId, SlotId, Source, Step, Test};
use super::work::{equals, finish, names_missing};
use super::{Fault, FaultKind};

mod sealed;

pub(super) use sealed::Secrets;

/// A field's place while a frame is read.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) state: State,
    pub(super) value: Value,
    /// The whole number before names and scale; milliseconds of a date.
    pub(super) raw: i64,
    pub(super) row: RowId,
    /// Its bytes in the frame.
    pub(super) at: (u32, u32),
}

/// What is known of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    Missing,
    Known,
}

const EMPTY: Slot = Slot { state: State::Absent, value: Value::Null, raw: 0, row: 0, at: (0, 0) };

/// Where a field was seen, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSpan {
    /// The field.
    pub name: Arc<str>,
    /// Its bytes in the frame.
    pub bytes: Range<usize>,
    /// Highest and lowest bit, where it is a part of one byte.
    pub bits: Option<(u8, u8)>,
}

/// All that a frame said.
pub(super) struct Decoded {
    pub(super) slots: Vec<Slot>,
    /// Further values of a field that came more than once.
    pub(super) more: Vec<(SlotId, Slot)>,
    /// Refused, stopped or without a key.
    pub(super) fault: Option<Box<Fault>>,
    pub(super) spans: Vec<FieldSpan>,
    /// The frame with plain bytes where it was encrypted.
    pub(super) plain: Option<Vec<u8>>,
    /// The counter of an encrypted frame, known to be the device's.
    pub(super) counter: Option<u32>,
}

struct Run<'a> {
    bytes: Cow<'a, [u8]>,
    secrets: Secrets<'a>,
    counter: Option<u32>,
    parts: Option<Parts>,
    cursor: usize,
    /// Sequential reading ends here.
    end: usize,
    /// No byte from here on was read.
    covered: usize,
    slots: Vec<Slot>,
    more: Vec<(SlotId, Slot)>,
    in_objects: bool,
    spans: Option<Vec<FieldSpan>>,
}

/// Reads one frame; `explain` also notes where each field stands.
pub(super) fn decode(channel: &Channel, bytes: &[u8], secrets: Secrets<'_>, explain: bool) -> Decoded {
    let mut run = Run {
        bytes: Cow::Borrowed(bytes),
        secrets,
        counter: None,
        parts: None,
        cursor: 0,
        end: bytes.len().saturating_sub(channel.trailer),
        covered: 0,
        // Not vec![EMPTY; n]: that clones a value for each slot.
        slots: std::iter::repeat_with(|| EMPTY).take(channel.slots.len()).collect(),
        more: Vec::new(),
        in_objects: false,
        spans: explain.then(Vec::new),
    };
    let fault = run.all(channel).err();
    let plain = match run.bytes {
        Cow::Owned(bytes) => Some(bytes),
        Cow::Borrowed(_) => None,
    };
    let (spans, counter) = (run.spans.unwrap_or_default(), run.counter);
    Decoded { slots: run.slots, more: run.more, fault, spans, plain, counter }
}

/// The frame is refused because of this field.
fn refused(field: &str, message: String) -> Box<Fault> {
    Box::new(Fault { kind: FaultKind::Refused, field: field.to_owned(), message })
}

impl Run<'_> {
    fn all(&mut self, channel: &Channel) -> Result<(), Box<Fault>> {
        self.parts = message::parse(&channel.format, &self.bytes).map_err(|(what, why)| refused(what, why))?;
        if self.parts.is_some() && !self.knows_any(&channel.steps) {
            return Err(refused("nothing known", "nothing known: none of the profile's fields is in it".to_owned()));
        }
        for step in &channel.steps {
            let wanted = step.only_if.as_ref().is_none_or(|test| self.holds(test))
                && !step.unless.as_ref().is_some_and(|test| self.holds(test));
            if !wanted {
                if let Act::Decrypt(_) = step.act {
                    self.left_plain()?;
                }
                continue;
            }
            match &step.act {
                Act::Field(field) => self.field(field)?,
                Act::Objects(objects) => self.objects(objects)?,
                Act::Decrypt(decrypt) => self.decrypt(decrypt)?,
            }
        }
        let left = self.end.saturating_sub(self.covered);
        if self.parts.is_none() && channel.strict_end && left > 0 {
            return Err(refused("left over", format!("left over: {left} bytes after the last field")));
        }
        Ok(())
    }

    fn knows_any(&self, steps: &[Step]) -> bool {
        let known = |step: &Step| match (&step.act, &self.parts) {
            (Act::Field(Field { source: Source::Part(key, _), .. }), Some(parts)) => parts.get(key).is_some(),
            _ => false,
        };
        steps.iter().any(known)
    }

    pub(super) fn holds(&self, test: &Test) -> bool {
        holds(&self.slots, test)
    }

    fn field(&mut self, field: &Field) -> Result<(), Box<Fault>> {
        match &field.source {
            Source::Next(kind, length) => match field.repeat {
                None => self.next(field, *kind, *length),
                Some(repeat) => self.list(field, *kind, repeat),
            },
            Source::At(at, kind, length) => {
                let from = if *at < 0 { self.bytes.len() as i64 + at } else { *at };
                let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.bytes.len());
                let (cursor, end) = (self.cursor, self.end);
                (self.cursor, self.end) = (from, self.bytes.len());
                let read = self.next(field, *kind, *length);
                (self.cursor, self.end) = (cursor, end);
                read
            }
            Source::Bits(pieces) => self.bits(field, pieces),
            Source::Part(key, kind) => self.part(field, key, *kind),
        }
    }

    /// Takes the next bytes, or says that the frame is cut short.
    fn take(&mut self, field: &Field, bytes: usize) -> Result<Range<usize>, Box<Fault>> {
        let left = self.end.saturating_sub(self.cursor);
        if bytes > left {
            return Err(refused(&field.name, format!("cut short: it takes {bytes} bytes, {left} are left")));
        }
        let range = self.cursor..self.cursor + bytes;
        self.cursor = range.end;
        self.covered = self.covered.max(range.end);
        Ok(range)
    }

    fn next(&mut self, field: &Field, kind: Kind, length: Length) -> Result<(), Box<Fault>> {
        let bytes = match length {
            Length::Bytes(bytes) => bytes,
            Length::Rest => self.end.saturating_sub(self.cursor),
            Length::Slot(slot) => usize::try_from(self.slots[usize::from(slot)].raw).unwrap_or(usize::MAX),
            Length::Prefix(width) => {
                let prefix = self.take(field, width.bytes.into())?;
                usize::try_from(read::unsigned(width, &self.bytes[prefix])).unwrap_or(usize::MAX)
            }
        };
        let range = self.take(field, bytes)?;
        let raw = self.read(field, kind, &self.bytes[range.clone()])?;
        self.keep(field, raw, range, None)
    }

    /// Text is compared with the texts that mean "missing" before it is read as a number.
    fn read(&self, field: &Field, kind: Kind, bytes: &[u8]) -> Result<Raw, Box<Fault>> {
        if kind == Kind::Decimal
            && let Ok(text) = std::str::from_utf8(bytes)
            && names_missing(&field.work, text.trim())
        {
            return Ok(Raw::Missing);
        }
        read::binary(kind, bytes).map_err(|why| refused(&field.name, why))
    }

    fn list(&mut self, field: &Field, kind: Kind, repeat: Repeat) -> Result<(), Box<Fault>> {
        let size = kind.size().unwrap_or(1).max(1);
        let left = self.end.saturating_sub(self.cursor);
        let times = match repeat {
            Repeat::Times(times) => times,
            Repeat::Slot(slot) => usize::try_from(self.slots[usize::from(slot)].raw).unwrap_or(usize::MAX),
            // A part of an element at the end is cut short, not left over.
            Repeat::ToEnd { at_least } => left.div_ceil(size).max(at_least),
        };
        if times.checked_mul(size).is_none_or(|bytes| bytes > left) {
            return Err(refused(
                &field.name,
                format!("cut short: {times} of {size} bytes each, {left} bytes are left"),
            ));
        }
        let start = self.cursor;
        let mut values = Vec::with_capacity(times);
        let mut missing = false;
        for _ in 0..times {
            let range = self.take(field, size)?;
            let raw = read::binary(kind, &self.bytes[range]).map_err(|why| refused(&field.name, why))?;
            let (_, value) = finish(&field.work, raw).map_err(|why| refused(&field.name, why))?;
            missing |= value == Value::Null;
            values.push(value);
        }
        let range = start..self.cursor;
        self.note(field, &range, None);
        let state =
            if missing && values.iter().all(|value| *value == Value::Null) { State::Missing } else { State::Known };
        let slot = Slot { state, value: Value::List(values), raw: times as i64, row: field.row, at: place(&range) };
        self.put(field.slot, slot);
        Ok(())
    }

    fn bits(&mut self, field: &Field, pieces: &[Piece]) -> Result<(), Box<Fault>> {
        let mut number: u64 = 0;
        let (mut start, mut end) = (usize::MAX, 0);
        for piece in pieces {
            let (word, at) = match piece.from {
                PieceFrom::Byte(byte) => {
                    let Some(word) = self.bytes.get(byte) else {
                        return Err(refused(&field.name, format!("cut short: there is no byte {byte}")));
                    };
                    self.covered = self.covered.max(byte + 1);
                    (u64::from(*word), byte..byte + 1)
                }
                PieceFrom::Slot(slot) => {
                    let slot = &self.slots[usize::from(slot)];
                    // Bits of a field that is not there are not there either.
                    if slot.state == State::Absent {
                        return Ok(());
                    }
                    (slot.raw as u64, slot.at.0 as usize..slot.at.1 as usize)
                }
            };
            let width = u32::from(piece.high - piece.low) + 1;
            let mask = if width >= 64 { u64::MAX } else { (1 << width) - 1 };
            number = number << width | word >> piece.low & mask;
            (start, end) = (start.min(at.start), end.max(at.end));
        }
        let raw = if field.work.flag { Raw::Bool(number == 1) } else { Raw::Int(number as i64) };
        let bits = match pieces {
            [piece] => Some((piece.high, piece.low)),
            _ => None,
        };
        self.keep(field, raw, start..end, bits)
    }

    fn part(&mut self, field: &Field, key: &str, kind: Kind) -> Result<(), Box<Fault>> {
        let Some(part) = self.parts.as_ref().and_then(|parts| parts.get(key)) else {
            return if field.optional { Ok(()) } else { Err(refused(&field.name, format!("there is no {key:?}"))) };
        };
        let raw = message::read(kind, part, |text| names_missing(&field.work, text));
        let raw = raw.map_err(|why| refused(&field.name, why))?;
        self.keep(field, raw, 0..0, None)
    }

    /// The order of work, then into the slot.
    fn keep(&mut self, field: &Field, raw: Raw, range: Range<usize>, bits: Option<(u8, u8)>) -> Result<(), Box<Fault>> {
        let whole = match &raw {
            Raw::Int(number) | Raw::Time(number, _) => *number,
            Raw::Bool(bit) => i64::from(*bit),
            Raw::Num(_) | Raw::Text(_) | Raw::Missing => 0,
        };
        self.note(field, &range, bits);
        let (state, value) = match raw {
            // Most fields are flags and plain numbers.
            Raw::Int(number) if field.work.plain => (State::Known, Value::Int(number)),
            Raw::Bool(bit) if field.work.plain => (State::Known, Value::Bool(bit)),
            raw => finish(&field.work, raw).map_err(|why| refused(&field.name, why))?,
        };
        self.put(field.slot, Slot { state, value, raw: whole, row: field.row, at: place(&range) });
        Ok(())
    }

    fn put(&mut self, id: SlotId, slot: Slot) {
        let known = &mut self.slots[usize::from(id)];
        if self.in_objects && known.state != State::Absent { self.more.push((id, slot)) } else { *known = slot }
    }

    fn note(&mut self, field: &Field, range: &Range<usize>, bits: Option<(u8, u8)>) {
        if let Some(spans) = &mut self.spans {
            spans.push(FieldSpan { name: field.name.clone(), bytes: range.clone(), bits });
        }
    }

    fn objects(&mut self, objects: &Objects) -> Result<(), Box<Fault>> {
        self.in_objects = true;
        while self.cursor < self.end {
            let width = usize::from(objects.tag.bytes);
            let cut = |what: &str| refused("objects", format!("cut short in the {what} of an object"));
            let tag =
                self.bytes.get(self.cursor..self.end).and_then(|rest| rest.get(..width)).ok_or_else(|| cut("tag"))?;
            let tag = read::unsigned(objects.tag, tag);
            let found = objects.rows.binary_search_by_key(&tag, |(tag, _)| *tag).ok();
            let whole = self.end;
            self.cursor += width;
            if let Some(length) = objects.length {
                let width = usize::from(length.bytes);
                let prefix = self.bytes.get(self.cursor..whole).and_then(|rest| rest.get(..width));
                let size = read::unsigned(length, prefix.ok_or_else(|| cut("length"))?);
                self.cursor += width;
                let end = usize::try_from(size).ok().and_then(|size| self.cursor.checked_add(size));
                self.end = end.filter(|end| *end <= whole).ok_or_else(|| cut("value"))?;
            }
            self.covered = self.covered.max(self.cursor);
            match (found, objects.unknown) {
                (Some(at), _) => self.field(&objects.rows[at].1)?,
                (None, UnknownName::Skip) => self.cursor = self.end,
                (None, UnknownName::Stop) => {
                    let field = format!("tag {tag:#04x}");
                    let message = format!("stopped at {field} (byte {}): it is not in the table", self.cursor - width);
                    return Err(Box::new(Fault { kind: FaultKind::Stopped, field, message }));
                }
                (None, UnknownName::Refuse) => {
                    return Err(refused(&format!("tag {tag:#04x}"), "it is not in the table".to_owned()));
                }
            }
            if objects.length.is_some() && self.cursor < self.end {
                return Err(refused("left over", format!("left over: {} bytes in an object", self.end - self.cursor)));
            }
            self.end = whole;
            self.covered = self.covered.max(self.cursor);
        }
        Ok(())
    }
}

fn place(range: &Range<usize>) -> (u32, u32) {
    let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    (narrow(range.start), narrow(range.end))
}

/// Whether a condition holds.
pub(super) fn holds(slots: &[Slot], test: &Test) -> bool {
    match test {
        Test::Any(flags) => flags.iter().any(|flag| is_set(&slots[usize::from(*flag)])),
        Test::All(pairs) => pairs.iter().all(|(slot, wanted)| {
            let slot = &slots[usize::from(*slot)];
            slot.state == State::Known && equals(wanted, &slot.value)
        }),
    }
}

/// A flag is set if it is true, or a number that is not 0.
pub(super) fn is_set(slot: &Slot) -> bool {
    slot.state == State::Known
        && match &slot.value {
            Value::Bool(bit) => *bit,
            Value::Int(number) => *number != 0,
            Value::Num(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Null | Value::List(_) => false,
        }
}
