//! Is this one whole frame good? Pure checks on a [`FrameSpec`]; the source's streaming framer and the examples of
//! serial profiles both call them.

use std::borrow::Cow;

use bytes::Bytes;

use crc::{
    CRC_8_MAXIM_DOW, CRC_8_SMBUS, CRC_16_IBM_3740, CRC_16_KERMIT, CRC_16_MODBUS, CRC_16_XMODEM, CRC_32_ISO_HDLC, Crc,
};

use super::link::{ChecksumKind, ChecksumSpec, Cut, FrameSpec, Gather, Unpack};

/// Tables are made when the program is compiled, not for each frame.
static CRC8: Crc<u8> = Crc::<u8>::new(&CRC_8_SMBUS);
static MAXIM: Crc<u8> = Crc::<u8>::new(&CRC_8_MAXIM_DOW);
static MODBUS: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);
static CCITT: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_3740);
static XMODEM: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
static KERMIT: Crc<u16> = Crc::<u16>::new(&CRC_16_KERMIT);
static CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Why a frame is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {message}")]
pub struct FrameFault {
    /// `sync`, `length`, `checksum` or `gather`: the word that an example's `refuse` names.
    pub what: &'static str,
    /// What was found and what was expected.
    pub message: String,
}

impl FrameFault {
    fn new(what: &'static str, message: String) -> FrameFault {
        FrameFault { what, message }
    }
}

impl FrameSpec {
    /// Whether one whole frame satisfies length, sync pattern, header and checksum.
    pub fn check(&self, frame: &[u8]) -> Result<(), FrameFault> {
        if frame.len() > self.max {
            return Err(FrameFault::new("length", format!("{} bytes, at most {}", frame.len(), self.max)));
        }
        match &self.cut {
            Cut::Fixed { length, sync } => check_fixed(frame, *length, sync)?,
            Cut::Header { header, length } => {
                if !frame.starts_with(header) {
                    return Err(FrameFault::new("sync", format!("the frame does not begin with {header:02x?}")));
                }
                let whole = self.whole_length(frame);
                if whole != Some(frame.len()) {
                    let said = whole.map_or_else(|| "no length".to_owned(), |n| format!("a length of {n}"));
                    let message = format!("{} bytes, and byte {} says {said}", frame.len(), length.at);
                    return Err(FrameFault::new("length", message));
                }
            }
            Cut::Line { .. } | Cut::Delimiter { .. } | Cut::Cobs => {}
        }
        self.checksum.as_ref().map_or(Ok(()), |checksum| checksum.check(frame))
    }

    /// For header frames: the whole frame's length, once enough of it is there to tell. A length that cannot be
    /// (shorter than header and length field, or over `max`) is `Some(0)`.
    pub fn whole_length(&self, start: &[u8]) -> Option<usize> {
        use super::link::LengthKind::{U8, U16Be, U16Le};
        let Cut::Header { header, length } = &self.cut else { return None };
        let width = if length.kind == U8 { 1 } else { 2 };
        let raw = start.get(length.at..length.at.checked_add(width)?)?;
        let value = match (length.kind, raw) {
            (U16Le, [low, high]) => i64::from(u16::from_le_bytes([*low, *high])),
            (U16Be, [high, low]) => i64::from(u16::from_be_bytes([*high, *low])),
            (_, [byte, ..]) => i64::from(*byte),
            (_, []) => return None,
        };
        let least = header.len().max(length.at + width);
        let whole = usize::try_from(value.saturating_add(length.plus)).unwrap_or(0);
        Some(if whole < least || whole > self.max { 0 } else { whole })
    }

    /// The frame after its named recipe.
    pub fn unpack<'a>(&self, frame: &'a [u8]) -> Cow<'a, [u8]> {
        match self.unpack {
            None => Cow::Borrowed(frame),
            Some(Unpack::HighBits) => Cow::Owned(high_bits(frame)),
        }
    }
}

fn check_fixed(frame: &[u8], length: usize, sync: &[super::link::SyncByte]) -> Result<(), FrameFault> {
    if frame.len() != length {
        return Err(FrameFault::new("sync", format!("{} bytes, a frame has {length}", frame.len())));
    }
    for (at, (byte, pattern)) in frame.iter().zip(sync).enumerate() {
        if byte & pattern.mask != pattern.value {
            return Err(FrameFault::new("sync", format!("byte {at} is {byte:08b} and does not fit its pattern")));
        }
    }
    Ok(())
}

/// Byte 0 stays; byte 1 gives its bit `i` as the top bit of byte `i + 2`, for the seven bytes that it can reach.
fn high_bits(frame: &[u8]) -> Vec<u8> {
    let (Some(&first), Some(&high)) = (frame.first(), frame.get(1)) else { return frame.to_vec() };
    let rest = frame.iter().skip(2).enumerate().map(|(i, byte)| {
        let top = if i < 7 { (high >> i & 1) << 7 } else { 0 };
        byte & 0x7f | top
    });
    std::iter::once(first).chain(rest).collect()
}

impl ChecksumSpec {
    /// Whether the frame carries the checksum of its bytes.
    pub fn check(&self, frame: &[u8]) -> Result<(), FrameFault> {
        let short = || FrameFault::new("checksum", format!("{} bytes are too few to carry it", frame.len()));
        let (from, to) = (place(self.over.0, frame).ok_or_else(short)?, place(self.over.1, frame).ok_or_else(short)?);
        let covered = frame.get(from..=to).ok_or_else(short)?;
        let at = place(self.at, frame).ok_or_else(short)?;
        let carried = frame.get(at..at + self.kind.width()).ok_or_else(short)?;
        let fold = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        let found = if self.big_endian { carried.iter().fold(0, fold) } else { carried.iter().rev().fold(0, fold) };
        let expected = self.kind.of(covered);
        if found == expected {
            return Ok(());
        }
        let digits = self.kind.width() * 2;
        Err(FrameFault::new("checksum", format!("found {found:0digits$x}, the bytes make {expected:0digits$x}")))
    }
}

/// An offset from the start, or from the end where it is negative.
fn place(at: i64, frame: &[u8]) -> Option<usize> {
    let length = i64::try_from(frame.len()).ok()?;
    let at = if at < 0 { length.checked_add(at)? } else { at };
    usize::try_from(at).ok().filter(|at| *at < frame.len())
}

impl ChecksumKind {
    /// All kinds with the names that profiles use.
    pub const NAMES: [(&'static str, ChecksumKind); 10] = [
        ("sum8", ChecksumKind::Sum8),
        ("xor8", ChecksumKind::Xor8),
        ("lrc", ChecksumKind::Lrc),
        ("crc8", ChecksumKind::Crc8),
        ("crc8-maxim", ChecksumKind::Crc8Maxim),
        ("crc16-modbus", ChecksumKind::Crc16Modbus),
        ("crc16-ccitt", ChecksumKind::Crc16Ccitt),
        ("crc16-xmodem", ChecksumKind::Crc16Xmodem),
        ("crc16-kermit", ChecksumKind::Crc16Kermit),
        ("crc32", ChecksumKind::Crc32),
    ];

    /// Bytes that it takes.
    pub fn width(self) -> usize {
        match self {
            Self::Sum8 | Self::Xor8 | Self::Lrc | Self::Crc8 | Self::Crc8Maxim => 1,
            Self::Crc16Modbus | Self::Crc16Ccitt | Self::Crc16Xmodem | Self::Crc16Kermit => 2,
            Self::Crc32 => 4,
        }
    }

    /// Whether it is customarily sent high byte first.
    pub fn big_endian(self) -> bool {
        matches!(self, Self::Crc16Ccitt | Self::Crc16Xmodem)
    }

    /// The checksum of these bytes.
    pub fn of(self, bytes: &[u8]) -> u32 {
        let sum = || bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        match self {
            Self::Sum8 => sum().into(),
            Self::Xor8 => bytes.iter().fold(0u8, |x, byte| x ^ byte).into(),
            Self::Lrc => sum().wrapping_neg().into(),
            Self::Crc8 => CRC8.checksum(bytes).into(),
            Self::Crc8Maxim => MAXIM.checksum(bytes).into(),
            Self::Crc16Modbus => MODBUS.checksum(bytes).into(),
            Self::Crc16Ccitt => CCITT.checksum(bytes).into(),
            Self::Crc16Xmodem => XMODEM.checksum(bytes).into(),
            Self::Crc16Kermit => KERMIT.checksum(bytes).into(),
            Self::Crc32 => CRC32.checksum(bytes),
        }
    }
}

/// Joins frames into one reading.
#[derive(Debug, Clone)]
pub struct Gatherer {
    gather: Gather,
    held: Vec<u8>,
    frames: usize,
}

/// What a frame did to the gathering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gathered {
    /// More frames are needed; `dropped` of those before did not make a whole.
    Waiting {
        /// Frames that are lost: they came before a new first one, or without a first one.
        dropped: usize,
    },
    /// The joined bytes.
    Whole(Vec<u8>),
}

impl Gatherer {
    /// Nothing gathered yet.
    pub fn new(gather: Gather) -> Gatherer {
        Gatherer { gather, held: Vec::new(), frames: 0 }
    }

    /// Takes the next good frame.
    pub fn push(&mut self, frame: &[u8]) -> Gathered {
        let at = self.gather.first_if;
        let first = frame.get(at.byte).is_some_and(|byte| byte >> at.bit & 1 == 1);
        let mut dropped = 0;
        if first {
            dropped = self.drop_held();
        } else if self.frames == 0 {
            return Gathered::Waiting { dropped: 1 };
        }
        self.held.extend_from_slice(frame);
        self.frames += 1;
        if self.frames < self.gather.frames {
            return Gathered::Waiting { dropped };
        }
        self.frames = 0;
        Gathered::Whole(std::mem::take(&mut self.held))
    }

    /// Forgets what was gathered (a bad frame, a pause) and says how many frames that were.
    pub fn drop_held(&mut self) -> usize {
        self.held.clear();
        std::mem::take(&mut self.frames)
    }
}

/// What a serial source makes of whole frames: checked, unpacked and gathered. Where frames are gathered, several may
/// also stand in one piece. Without a framing every frame is a reading.
pub fn readings_of(spec: Option<&FrameSpec>, frames: Vec<Bytes>) -> Vec<Result<Bytes, FrameFault>> {
    let Some(spec) = spec else { return frames.into_iter().map(Ok).collect() };
    let good = |frame: &[u8]| spec.check(frame).map(|()| Bytes::from(spec.unpack(frame).into_owned()));
    let Some(gather) = spec.gather else {
        return frames.iter().map(|frame| good(spec.trimmed(frame))).collect();
    };
    let piece = match spec.cut {
        Cut::Fixed { length, .. } => length,
        _ => usize::MAX,
    };
    let mut gatherer = Gatherer::new(gather);
    let mut readings = Vec::new();
    for frame in frames.iter().flat_map(|frame| frame.chunks(piece.max(1))) {
        match good(frame) {
            Err(fault) => {
                gatherer.drop_held();
                readings.push(Err(fault));
            }
            Ok(frame) => {
                if let Gathered::Whole(whole) = gatherer.push(&frame) {
                    readings.push(Ok(Bytes::from(whole)));
                }
            }
        }
    }
    let held = gatherer.drop_held();
    if held > 0 || readings.is_empty() {
        let message = format!("{held} frames of the {} that make a reading", gather.frames);
        readings.push(Err(FrameFault::new("gather", message)));
    }
    readings
}

impl FrameSpec {
    /// A text line without its end, as the framer hands it on.
    fn trimmed<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let Cut::Line { end } = &self.cut else { return frame };
        let line = frame.strip_suffix(end.as_ref()).unwrap_or(frame);
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_give_the_catalogues_check_values() {
        let check = |kind: ChecksumKind| kind.of(b"123456789");
        let expected = [
            (ChecksumKind::Sum8, 0xdd),
            (ChecksumKind::Xor8, 0x31),
            (ChecksumKind::Lrc, 0x23),
            (ChecksumKind::Crc8, 0xf4),
            (ChecksumKind::Crc8Maxim, 0xa1),
            (ChecksumKind::Crc16Modbus, 0x4b37),
            (ChecksumKind::Crc16Ccitt, 0x29b1),
            (ChecksumKind::Crc16Xmodem, 0x31c3),
            (ChecksumKind::Crc16Kermit, 0x2189),
            (ChecksumKind::Crc32, 0xcbf4_3926),
        ];
        for (kind, value) in expected {
            assert_eq!(check(kind), value, "{kind:?}");
        }
    }

    #[test]
    fn a_modbus_answer_is_checked_from_its_end() {
        let spec = ChecksumSpec { kind: ChecksumKind::Crc16Modbus, over: (0, -3), at: -2, big_endian: false };
        assert_eq!(spec.check(&[0x01, 0x03, 0x00, 0x00, 0x00, 0x02, 0xc4, 0x0b]), Ok(()));
        assert!(spec.check(&[0x01, 0x03, 0x00, 0x00, 0x00, 0x02, 0x0b, 0xc4]).is_err());
        assert!(spec.check(&[0x01, 0x02]).is_err() && spec.check(&[]).is_err());
    }

    #[test]
    fn a_header_frame_tells_its_length() {
        use crate::interpret::link::{LengthField, LengthKind};
        let length = LengthField { at: 2, kind: LengthKind::U8, plus: 4 };
        let cut = Cut::Header { header: Bytes::from_static(&[0xaa, 0x55]), length };
        let spec = FrameSpec { cut, max: 32, timeout: None, checksum: None, gather: None, unpack: None };
        assert_eq!(spec.whole_length(&[0xaa, 0x55]), None);
        assert_eq!(spec.whole_length(&[0xaa, 0x55, 2]), Some(6));
        assert_eq!(spec.whole_length(&[0xaa, 0x55, 200]), Some(0), "longer than max");
        assert_eq!(spec.check(&[0xaa, 0x55, 2, 1, 2, 3]), Ok(()));
        assert_eq!(spec.check(&[0xaa, 0x55, 2, 1, 2]).unwrap_err().what, "length");
        assert_eq!(spec.check(&[0xab, 0x55, 2, 1, 2, 3]).unwrap_err().what, "sync");
    }

    #[test]
    fn frames_before_a_first_one_are_dropped_and_counted() {
        let mut gatherer =
            Gatherer::new(Gather { frames: 2, first_if: crate::interpret::link::BitAt { byte: 0, bit: 0 } });
        assert_eq!(gatherer.push(&[2]), Gathered::Waiting { dropped: 1 });
        assert_eq!(gatherer.push(&[1]), Gathered::Waiting { dropped: 0 });
        assert_eq!(gatherer.push(&[3]), Gathered::Waiting { dropped: 1 });
        assert_eq!(gatherer.push(&[4]), Gathered::Whole(vec![3, 4]));
    }
}
