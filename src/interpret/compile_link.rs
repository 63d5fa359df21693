//! The tables `link` and `frame` to the plain data that sources use.

use std::sync::Arc;

use bytes::Bytes;

use super::bluetooth;
use super::error::{Wrong, near};
use super::file_link::{
    ChecksumTable, FlowName, FrameTable, LengthName, LinkTable, OrderName, ParityName, RecordsTable, SendTable,
    UnpackName,
};
use super::link::{
    BitAt, ChecksumKind, ChecksumSpec, Cut, Flow, FrameSpec, Gather, LengthField, LengthKind, LinkSpec, Parity,
    RecordsSpec, Repeated, SyncByte, Unpack,
};

/// The longest frame, unless the profile says otherwise.
const MAX_FRAME: usize = 1_024;

/// The longest frame that a profile may ask for.
const LARGEST_FRAME: u32 = 65_536;

/// The most frames that one reading may be gathered of.
const MOST_GATHERED: u32 = 1_024;

pub(super) fn link(table: Option<&LinkTable>) -> Result<LinkSpec, Wrong> {
    let Some(table) = table else { return Ok(LinkSpec::default()) };
    if table.baud.is_some_and(|baud| !(50..=4_000_000).contains(&baud)) {
        return Err(Wrong::new(format!("baud = {}", table.baud.unwrap_or(0)), "50 to 4000000, as 115200"));
    }
    Ok(LinkSpec {
        baud: table.baud,
        parity: match table.parity {
            None | Some(ParityName::None) => Parity::None,
            Some(ParityName::Odd) => Parity::Odd,
            Some(ParityName::Even) => Parity::Even,
        },
        flow: match table.flow {
            None | Some(FlowName::None) => Flow::None,
            Some(FlowName::Software) => Flow::Software,
            Some(FlowName::Hardware) => Flow::Hardware,
        },
        init: table.init.iter().map(|hex| Bytes::from(hex.0.clone())).collect(),
        keepalive: table.keepalive.as_ref().map(repeated),
        poll: table.poll.as_ref().map(repeated),
        set_clock: characteristic("set_clock", table.set_clock.as_deref())?,
        records: table.records.as_ref().map(records).transpose()?,
        write_to: characteristic("write_to", table.write_to.as_deref())?,
    })
}

fn characteristic(key: &str, text: Option<&str>) -> Result<Option<Arc<str>>, Wrong> {
    text.map(|text| bluetooth::named(key, text).map(Into::into)).transpose()
}

fn records(table: &RecordsTable) -> Result<RecordsSpec, Wrong> {
    if table.erase && table.sequence_at.is_none() {
        let expected =
            "write where a record's number stands, as sequence_at = 1: only records that are durable are erased";
        return Err(Wrong::new("erase without sequence_at", expected));
    }
    Ok(RecordsSpec {
        control: bluetooth::named("control", &table.control)?.into(),
        erase: table.erase,
        sequence_at: table.sequence_at.map(usize::from),
    })
}

fn repeated(table: &SendTable) -> Repeated {
    let send = table.send.iter().map(|hex| Bytes::from(hex.0.clone())).collect();
    Repeated { send, every: table.every.0 }
}

pub(super) fn frame(table: &FrameTable) -> Result<FrameSpec, Wrong> {
    let cut = cut(table)?;
    let max = match table.max {
        Some(max) if max == 0 || max > LARGEST_FRAME => {
            return Err(Wrong::new(format!("max = {max}"), format!("1 to {LARGEST_FRAME} bytes")));
        }
        Some(max) => max as usize,
        None => match &cut {
            Cut::Fixed { length, .. } => (*length).max(MAX_FRAME),
            _ => MAX_FRAME,
        },
    };
    if let Cut::Fixed { length, .. } = &cut
        && *length > max
    {
        return Err(Wrong::new(format!("fixed = {length}, max = {max}"), "max at least as large as fixed"));
    }
    Ok(FrameSpec {
        cut,
        max,
        timeout: table.timeout.map(|span| span.0),
        checksum: table.checksum.as_ref().map(checksum).transpose()?,
        gather: table
            .gather
            .as_ref()
            .map(|gather| {
                if !(2..=MOST_GATHERED).contains(&gather.frames) {
                    return Err(Wrong::new(format!("frames = {}", gather.frames), format!("2 to {MOST_GATHERED}")));
                }
                Ok(Gather { frames: gather.frames as usize, first_if: bit(&gather.first_if)? })
            })
            .transpose()?,
        unpack: table.unpack.map(|UnpackName::HighBits| Unpack::HighBits),
    })
}

fn cut(table: &FrameTable) -> Result<Cut, Wrong> {
    let one =
        [table.line.is_some(), table.fixed.is_some(), table.delimiter.is_some(), table.header.is_some(), table.cobs];
    if one.iter().filter(|given| **given).count() != 1 {
        return Err(Wrong::new(
            "a frame with none or several of line, fixed, delimiter, header, cobs",
            "write exactly one",
        ));
    }
    if table.sync.is_some() && table.fixed.is_none() {
        return Err(Wrong::new("sync without fixed", "write fixed = and the number of bytes"));
    }
    if table.length.is_some() != table.header.is_some() {
        return Err(Wrong::new(
            "header or length alone",
            "write header = \"aa55\" and length = { at = 2, type = \"u8\", plus = 4 }",
        ));
    }
    if let Some(end) = &table.line {
        return if end.is_empty() {
            Err(Wrong::new("line = \"\"", "write line = \"\\n\""))
        } else {
            Ok(Cut::Line { end: Bytes::from(end.clone()) })
        };
    }
    if let Some(fixed) = table.fixed {
        return fixed_cut(fixed, table.sync.as_deref().unwrap_or(&[]));
    }
    if let Some(hex) = &table.delimiter {
        return if hex.0.is_empty() {
            Err(Wrong::new("an empty delimiter", "write delimiter = \"7e\""))
        } else {
            Ok(Cut::Delimiter { delimiter: Bytes::from(hex.0.clone()) })
        };
    }
    if let (Some(header), Some(length)) = (&table.header, &table.length) {
        if header.0.is_empty() {
            return Err(Wrong::new("an empty header", "write header = \"aa55\""));
        }
        let kind = match length.r#type {
            LengthName::U8 => LengthKind::U8,
            LengthName::U16le => LengthKind::U16Le,
            LengthName::U16be => LengthKind::U16Be,
        };
        let length = LengthField { at: length.at as usize, kind, plus: length.plus.into() };
        return Ok(Cut::Header { header: Bytes::from(header.0.clone()), length });
    }
    Ok(Cut::Cobs)
}

fn fixed_cut(fixed: u32, sync: &[String]) -> Result<Cut, Wrong> {
    if fixed == 0 || fixed > LARGEST_FRAME {
        return Err(Wrong::new(format!("fixed = {fixed}"), format!("1 to {LARGEST_FRAME} bytes")));
    }
    if !sync.is_empty() && sync.len() != fixed as usize {
        return Err(Wrong::new(
            format!("{} patterns in sync", sync.len()),
            format!("one for each of the {fixed} bytes"),
        ));
    }
    let sync = sync.iter().map(|pattern| sync_byte(pattern)).collect::<Result<_, _>>()?;
    Ok(Cut::Fixed { length: fixed as usize, sync })
}

fn sync_byte(pattern: &str) -> Result<SyncByte, Wrong> {
    let wrong = || {
        Wrong::new(format!("sync pattern {pattern:?}"), "eight of 0, 1 and ., the highest bit first, as \"1.......\"")
    };
    if pattern.len() != 8 {
        return Err(wrong());
    }
    let mut byte = SyncByte { mask: 0, value: 0 };
    for (at, bit) in pattern.chars().enumerate() {
        let place = 1u8 << (7 - at);
        match bit {
            '.' => {}
            '0' => byte.mask |= place,
            '1' => {
                byte.mask |= place;
                byte.value |= place;
            }
            _ => return Err(wrong()),
        }
    }
    Ok(byte)
}

fn checksum(table: &ChecksumTable) -> Result<ChecksumSpec, Wrong> {
    let found = ChecksumKind::NAMES.iter().find(|(name, _)| *name == table.kind);
    let kind = found.map(|(_, kind)| *kind).ok_or_else(|| {
        let names = ChecksumKind::NAMES.map(|(name, _)| name);
        let hint =
            near(&table.kind, names.into_iter()).first().map_or_else(String::new, |n| format!("write \"{n}\"? "));
        Wrong::new(format!("unknown checksum \"{}\"", table.kind), format!("{hint}Kinds are {}", names.join(", ")))
    })?;
    let range = || Wrong::new(format!("over = {:?}", table.over), "first and last byte, both included, as \"0..-3\"");
    let (from, to) = table.over.split_once("..").ok_or_else(range)?;
    let over = (from.trim().parse().map_err(|_| range())?, to.trim().parse().map_err(|_| range())?);
    let limit = i64::from(LARGEST_FRAME);
    if [over.0, over.1, table.at].iter().any(|place: &i64| place.abs() > limit) {
        return Err(Wrong::new("a place beyond any frame", format!("at most {limit}")));
    }
    let big_endian = table.order.map_or(kind.big_endian(), |order| order == OrderName::Be);
    Ok(ChecksumSpec { kind, over, at: table.at, big_endian })
}

fn bit(text: &str) -> Result<BitAt, Wrong> {
    let read = || {
        let (byte, bit) = text.strip_prefix('b')?.split_once('.')?;
        let (byte, bit): (u16, u8) = (byte.parse().ok()?, bit.parse().ok()?);
        (bit < 8).then_some(BitAt { byte: byte.into(), bit })
    };
    read().ok_or_else(|| Wrong::new(format!("first_if = {text:?}"), "a byte and a bit of it, 0 to 7, as \"b1.0\""))
}
