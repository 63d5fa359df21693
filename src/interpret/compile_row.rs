//! One row of `fields` or `objects` to a step: types, bits, conditions, order of work.

use std::sync::Arc;

use toml::Spanned;

use super::compile_work::{check_name, exclude, work};
use super::error::{Wrong, near};
use super::file::{FieldRow, UnknownName};
use super::kind::{Kind, unsigned};
use super::notation::{At, Condition, Count};
use super::step::{Act, Decrypt, Field, Length, Objects, Piece, PieceFrom, Repeat, RowId, SlotId, Source, Step, Test};

/// The longest repeat that a profile may fix.
const MOST_REPEATS: u32 = 4_096;

/// What the rows of one channel have said so far.
pub(super) struct Scope {
    text: bool,
    captures: Option<Vec<String>>,
    pub(super) slots: Vec<Arc<str>>,
    pub(super) rows: Vec<Row>,
}

/// What later rows and emits need to know of a row.
pub(super) struct Row {
    pub(super) slot: SlotId,
    pub(super) unit: Option<Arc<str>>,
    /// `None`: bits.
    pub(super) kind: Option<Kind>,
    pub(super) is_number: bool,
    only_if: Option<Condition>,
    unless: Option<Condition>,
    in_objects: bool,
}

impl Scope {
    pub(super) fn new(text: bool, captures: Option<Vec<String>>) -> Scope {
        Scope { text, captures, slots: Vec::new(), rows: Vec::new() }
    }

    pub(super) fn slot(&self, name: &str) -> Option<SlotId> {
        self.slots.iter().position(|slot| &**slot == name).map(|at| at as SlotId)
    }

    /// The slot of a field that must have been read before.
    pub(super) fn earlier(&self, name: &str) -> Result<SlotId, Wrong> {
        self.slot(name).ok_or_else(|| {
            let near = near(name, self.slots.iter().map(|slot| &**slot));
            let hint =
                near.first().map_or_else(|| "name a field of an earlier row".to_owned(), |n| format!("write \"{n}\"?"));
            Wrong::new(format!("no field \"{name}\" before this"), hint)
        })
    }

    pub(super) fn test(&self, condition: &Condition) -> Result<Test, Wrong> {
        Ok(match condition {
            Condition::Flag(flag) => Test::Any(vec![self.earlier(flag)?]),
            Condition::Any(flags) => Test::Any(flags.iter().map(|flag| self.earlier(flag)).collect::<Result<_, _>>()?),
            Condition::All(values) => {
                let pairs = values.iter().map(|(name, value)| Ok((self.earlier(name)?, value.clone())));
                Test::All(pairs.collect::<Result<_, Wrong>>()?)
            }
        })
    }

    /// A row of `fields`.
    pub(super) fn step(&mut self, row: &FieldRow, objects: &[Spanned<FieldRow>]) -> Result<Step, Wrong> {
        let only_if = row.r#if.as_ref().map(|condition| self.test(condition)).transpose()?;
        let unless = row.unless.as_ref().map(|condition| self.test(condition)).transpose()?;
        let act = match row.r#type.as_deref() {
            Some("objects") => self.objects(row, objects)?,
            Some("decrypt") => {
                let recipe = row.recipe.ok_or_else(|| {
                    Wrong::new("decrypt without recipe", "write recipe = \"bthome-v2\" or \"mibeacon\"")
                })?;
                if self.text {
                    return Err(Wrong::new("decrypt in a text", "only bytes are encrypted"));
                }
                Act::Decrypt(Decrypt { recipe, mac: self.mac() })
            }
            _ => Act::Field(self.field(row, false)?),
        };
        Ok(Step { only_if, unless, act })
    }

    /// The field of the sender's address: `mac`, of type mac_reversed.
    fn mac(&self) -> Option<SlotId> {
        let slot = self.slot("mac")?;
        let mut rows = self.rows.iter().filter(|row| row.slot == slot);
        rows.all(|row| row.kind == Some(Kind::MacReversed)).then_some(slot)
    }

    fn objects(&mut self, row: &FieldRow, objects: &[Spanned<FieldRow>]) -> Result<Act, Wrong> {
        if self.text {
            return Err(Wrong::new("objects in a text", "objects are rows of bytes"));
        }
        let tag = match &row.tag {
            None => unsigned("u8"),
            Some(Count::Name(name)) => unsigned(name),
            Some(Count::Number(_)) => None,
        };
        let tag = tag.ok_or_else(|| {
            Wrong::new("the tag of objects", "how a tag is written: tag = \"u8\", \"u16le\" or \"u16be\"")
        })?;
        let length = match &row.length {
            None => None,
            Some(Count::Name(name)) if unsigned(name).is_some() => unsigned(name),
            Some(other) => {
                return Err(Wrong::new(
                    format!("length = {other:?}"),
                    "on objects write how each one's length is written, as \"u8\"",
                ));
            }
        };
        let unknown = row.unknown.unwrap_or(UnknownName::Stop);
        if unknown == UnknownName::Skip && length.is_none() {
            return Err(Wrong::new(
                "unknown = \"skip\"",
                "a row can only be skipped if each carries its length: write length = \"u8\"",
            ));
        }
        let mut rows: Vec<(u64, Field)> = Vec::new();
        for object in objects {
            let inner = object.get_ref();
            let Some(Count::Number(tag)) = inner.tag else {
                return Err(Wrong::new("an object without a number as tag", "write tag = 0x01").at(object.span()));
            };
            if inner.r#if.is_some()
                || inner.unless.is_some()
                || inner.bits.is_some()
                || matches!(inner.at, Some(At::Byte(_)))
            {
                let wrong =
                    Wrong::new("if, unless, bits or at in an object", "an object is announced by its tag alone");
                return Err(wrong.at(object.span()));
            }
            if rows.iter().any(|(other, _)| *other == u64::from(tag)) {
                return Err(Wrong::new(format!("tag {tag:#04x} twice"), "one row for each tag").at(object.span()));
            }
            let field = self.field(inner, true).map_err(|wrong| wrong.at(object.span()))?;
            rows.push((tag.into(), field));
        }
        if rows.is_empty() {
            return Err(Wrong::new(
                "objects without a table",
                "write objects = [{ tag = 0x01, name = ..., type = ... }]",
            ));
        }
        rows.sort_by_key(|(tag, _)| *tag);
        Ok(Act::Objects(Objects { tag, length, unknown, rows }))
    }

    fn field(&mut self, row: &FieldRow, in_objects: bool) -> Result<Field, Wrong> {
        let name = row.name.as_deref().ok_or_else(|| Wrong::new("a row without name", "write name = \"...\""))?;
        check_name(name)?;
        for (set, key) in [
            (row.unknown.is_some(), "unknown"),
            (row.recipe.is_some(), "recipe"),
            (row.tag.is_some() && !in_objects, "tag"),
        ] {
            if set {
                return Err(Wrong::new(
                    format!("{key} in \"{name}\""),
                    "it belongs to rows of type objects or decrypt",
                ));
            }
        }
        let (source, kind) = self.source(name, row)?;
        let slot = self.declare(name, row, in_objects)?;
        let work = work(name, row, kind)?;
        let repeat = self.repeat(row, kind)?;
        let id = self.rows.len() as RowId;
        let is_number = kind.is_none_or(Kind::is_number) && work.names.is_none() && !work.flag;
        self.rows.push(Row {
            slot,
            unit: row.unit.as_deref().map(Arc::from),
            kind,
            is_number,
            only_if: row.r#if.clone(),
            unless: row.unless.clone(),
            in_objects,
        });
        let optional = row.optional;
        if optional && !self.text {
            return Err(Wrong::new(format!("optional in \"{name}\""), "in bytes a flag tells: write if = \"flag\""));
        }
        Ok(Field { name: self.slots[usize::from(slot)].clone(), slot, row: id, source, repeat, work, optional })
    }

    /// A slot for the name; rows share one only if their conditions exclude each other.
    fn declare(&mut self, name: &str, row: &FieldRow, in_objects: bool) -> Result<SlotId, Wrong> {
        let Some(slot) = self.slot(name) else {
            self.slots.push(name.into());
            return Ok((self.slots.len() - 1) as SlotId);
        };
        for other in self.rows.iter().filter(|other| other.slot == slot) {
            let apart = (in_objects && other.in_objects)
                || exclude(row.r#if.as_ref(), row.unless.as_ref(), other.only_if.as_ref(), other.unless.as_ref());
            if !apart {
                let expected = "names are unique, except in rows whose if and unless exclude each other";
                return Err(Wrong::new(format!("the name \"{name}\" twice"), expected));
            }
        }
        Ok(slot)
    }

    fn source(&self, name: &str, row: &FieldRow) -> Result<(Source, Option<Kind>), Wrong> {
        let kind = match (&row.r#type, &row.bits) {
            (Some(kind), None) => kind,
            (None, Some(bits)) => return self.bits(bits.all()).map(|pieces| (Source::Bits(pieces), None)),
            (Some(_), Some(_)) => {
                let expected = "write type to read bytes, or bits to look into what was read";
                return Err(Wrong::new(format!("type and bits in \"{name}\""), expected));
            }
            (None, None) => {
                let found = format!("neither type nor bits in \"{name}\"");
                return Err(Wrong::new(found, "write type = \"u8\" or bits = \"flags.0\""));
            }
        };
        if self.text {
            return self.part(name, row, kind);
        }
        let kind = Kind::binary(kind, row.zone)?;
        let length = self.length(row, kind)?;
        let source = match &row.at {
            None => Source::Next(kind, length),
            Some(At::Byte(at)) => Source::At(*at, kind, length),
            Some(At::Name(at)) => {
                return Err(Wrong::new(format!("at = {at:?}"), "in a binary channel write a byte offset, as at = 3"));
            }
        };
        Ok((source, Some(kind)))
    }

    fn part(&self, name: &str, row: &FieldRow, kind: &str) -> Result<(Source, Option<Kind>), Wrong> {
        let kind = Kind::text(kind)?;
        let key = match &row.at {
            None => name.to_owned(),
            Some(At::Name(key)) => key.clone(),
            Some(At::Byte(at)) => {
                return Err(Wrong::new(
                    format!("at = {at}"),
                    "in a text write the key, as at = \"HR\", in JSON a pointer, as at = \"/hr\"",
                ));
            }
        };
        if let Some(captures) = &self.captures
            && !captures.contains(&key)
        {
            return Err(Wrong::new(
                format!("no {{{key}}} in the template"),
                format!("the template has {}", captures.join(", ")),
            ));
        }
        Ok((Source::Part(key, kind), Some(kind)))
    }

    fn length(&self, row: &FieldRow, kind: Kind) -> Result<Length, Wrong> {
        match (kind.size(), &row.length) {
            (Some(size), None) => Ok(Length::Bytes(size)),
            (Some(_), Some(_)) => Err(Wrong::new("length on a type of fixed size", "leave it out")),
            (None, None) if kind == Kind::Bcd => Ok(Length::Bytes(1)),
            (None, None) => Ok(Length::Rest),
            (None, Some(Count::Number(bytes))) => Ok(Length::Bytes(*bytes as usize)),
            (None, Some(Count::Name(name))) => match unsigned(name) {
                Some(width) => Ok(Length::Prefix(width)),
                None => Ok(Length::Slot(self.earlier(name)?)),
            },
        }
    }

    fn repeat(&self, row: &FieldRow, kind: Option<Kind>) -> Result<Option<Repeat>, Wrong> {
        let at_least = row.at_least.unwrap_or(0) as usize;
        let repeat = match &row.repeat {
            None if row.at_least.is_some() => {
                return Err(Wrong::new("at_least without repeat", "write repeat = \"to_end\""));
            }
            None => return Ok(None),
            Some(Count::Number(times)) if *times <= MOST_REPEATS => Repeat::Times(*times as usize),
            Some(Count::Number(times)) => {
                return Err(Wrong::new(format!("repeat = {times}"), format!("at most {MOST_REPEATS}")));
            }
            Some(Count::Name(name)) if name == "to_end" => Repeat::ToEnd { at_least },
            Some(Count::Name(name)) => Repeat::Slot(self.earlier(name)?),
        };
        if self.text || kind.is_none() || row.at.is_some() || kind.is_some_and(|kind| kind.size().is_none()) {
            return Err(Wrong::new(
                "repeat on this row",
                "only values of fixed size that are read one after the other repeat",
            ));
        }
        Ok(Some(repeat))
    }

    fn bits(&self, pieces: &[String]) -> Result<Vec<Piece>, Wrong> {
        if self.text {
            return Err(Wrong::new("bits in a text", "a text has keys: write type and at"));
        }
        let pieces = pieces.iter().map(|piece| self.piece(piece)).collect::<Result<Vec<_>, _>>()?;
        let total: u32 = pieces.iter().map(|piece| u32::from(piece.high - piece.low) + 1).sum();
        if pieces.is_empty() || total > 63 {
            return Err(Wrong::new(format!("{total} bits"), "1 to 63 bits"));
        }
        Ok(pieces)
    }

    fn piece(&self, text: &str) -> Result<Piece, Wrong> {
        let grammar = || {
            Wrong::new(
                format!("bits = {text:?}"),
                "write \"b0.4\" or \"b3.6-0\" for a byte of the frame, \"flags.0\" or \"flags.2-1\" for a field",
            )
        };
        let (from, bits) = text.rsplit_once('.').ok_or_else(grammar)?;
        let (high, low) = bits.split_once('-').unwrap_or((bits, bits));
        let (high, low): (u8, u8) = (high.parse().map_err(|_| grammar())?, low.parse().map_err(|_| grammar())?);
        if high < low {
            return Err(Wrong::new(format!("bits {high}-{low} in {text:?}"), format!("highest first: {low}-{high}")));
        }
        let (from, width) = match from.strip_prefix('b').and_then(|n| n.parse::<u16>().ok()) {
            Some(byte) => (PieceFrom::Byte(byte.into()), 8),
            None => {
                let slot = self.earlier(from)?;
                let rows = self.rows.iter().filter(|row| row.slot == slot);
                let width = rows.map(|row| row.kind.and_then(Kind::bits).unwrap_or(0)).min().unwrap_or(0);
                (PieceFrom::Slot(slot), width)
            }
        };
        if u32::from(high) >= width {
            let expected = if width == 0 {
                "it is no whole number of bytes".to_owned()
            } else {
                format!("its bits are 0 to {}", width - 1)
            };
            return Err(Wrong::new(format!("bit {high} in {text:?}"), expected));
        }
        Ok(Piece { from, high, low })
    }
}
