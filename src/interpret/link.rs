//! What a source needs to know of a profile: how to open the line, what to send, and how frames are cut. Plain data.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// How a device is opened and kept talking.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkSpec {
    /// Serial: bits per second. `None` where the profile says nothing (a pty, or 9,600).
    pub baud: Option<u32>,
    /// Serial: parity.
    pub parity: Parity,
    /// Serial: flow control.
    pub flow: Flow,
    /// Sent once after each open, in this order.
    pub init: Vec<Bytes>,
    /// Sent while the line is open, so that the device goes on talking.
    pub keepalive: Option<Repeated>,
    /// Sent while the line is open; the device answers each.
    pub poll: Option<Repeated>,
    /// BLE: the characteristic to which the hub writes its clock.
    pub set_clock: Option<Arc<str>>,
    /// BLE: stored records, where the device has them.
    pub records: Option<RecordsSpec>,
    /// BLE: the characteristic to which `init`, `keepalive` and `poll` are written.
    pub write_to: Option<Arc<str>>,
}

/// How a device's stored records are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsSpec {
    /// The record access control point.
    pub control: Arc<str>,
    /// Records that are durable are erased on the device; then `sequence_at` is there.
    pub erase: bool,
    /// The byte of a record at which its number begins: two bytes, low first.
    pub sequence_at: Option<usize>,
}

/// Bytes that are sent again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// One write each, in this order.
    pub send: Vec<Bytes>,
    /// The time between two rounds; never zero.
    pub every: Duration,
}

/// Parity of a serial line; 8 data bits and 1 stop bit always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parity {
    /// No parity bit.
    #[default]
    None,
    /// Odd.
    Odd,
    /// Even.
    Even,
}

/// Flow control of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// None.
    #[default]
    None,
    /// XON and XOFF.
    Software,
    /// RTS and CTS.
    Hardware,
}

/// How a stream of bytes is cut into frames, and what makes a frame good.
///
/// The order of work for one frame: cut, [`check`](FrameSpec::check), [`unpack`](FrameSpec::unpack), gather
/// ([`Gatherer`](super::frame::Gatherer)). What comes out is the reading's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSpec {
    /// Where a frame begins and ends.
    pub cut: Cut,
    /// The longest frame in bytes, terminator included; a longer one is garbage.
    pub max: usize,
    /// A pause this long inside a frame drops what came of it.
    pub timeout: Option<Duration>,
    /// The frame's checksum.
    pub checksum: Option<ChecksumSpec>,
    /// So many frames make one reading.
    pub gather: Option<Gather>,
    /// A named recipe that a good frame goes through.
    pub unpack: Option<Unpack>,
}

/// Where a frame begins and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Text lines: up to `end`, which is dropped; a carriage return before it too. Empty lines are no frames.
    Line {
        /// The end of a line, usually `\n`.
        end: Bytes,
    },
    /// Always `length` bytes; `sync` has one pattern for each (or is empty, and every start is as good as another).
    Fixed {
        /// Bytes in a frame.
        length: usize,
        /// What each byte must look like.
        sync: Vec<SyncByte>,
    },
    /// Between two delimiters, which are dropped. Empty frames are no frames.
    Delimiter {
        /// The delimiter.
        delimiter: Bytes,
    },
    /// Begins with `header` and carries its length. The frame keeps its header.
    Header {
        /// The first bytes.
        header: Bytes,
        /// Where the length stands.
        length: LengthField,
    },
    /// Consistent overhead byte stuffing, frames end with a zero byte. The frame is the unstuffed bytes.
    Cobs,
}

/// One byte of a sync pattern: good when `byte & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncByte {
    /// The bits that matter.
    pub mask: u8,
    /// What they must be.
    pub value: u8,
}

/// A length field: the whole frame has `value + plus` bytes, header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthField {
    /// Byte offset from the frame's first byte.
    pub at: usize,
    /// How it is written.
    pub kind: LengthKind,
    /// What to add to get the whole frame's length.
    pub plus: i64,
}

/// How a length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LengthKind {
    /// One byte.
    U8,
    /// Two bytes, low first.
    U16Le,
    /// Two bytes, high first.
    U16Be,
}

/// A checksum inside a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumSpec {
    /// The algorithm.
    pub kind: ChecksumKind,
    /// First and last byte that it covers, both included; negative counts from the end, -1 is the last byte.
    pub over: (i64, i64),
    /// Where its first byte stands; negative counts from the end.
    pub at: i64,
    /// High byte first.
    pub big_endian: bool,
}

/// The checksum algorithms by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumKind {
    /// Sum of the bytes, low eight bits.
    Sum8,
    /// Exclusive or of the bytes.
    Xor8,
    /// Two's complement of the sum: the covered bytes and this one add up to 0.
    Lrc,
    /// CRC-8/SMBUS.
    Crc8,
    /// CRC-8/MAXIM-DOW (1-Wire).
    Crc8Maxim,
    /// CRC-16/MODBUS; low byte first.
    Crc16Modbus,
    /// CRC-16/IBM-3740 (often called CCITT-FALSE); high byte first.
    Crc16Ccitt,
    /// CRC-16/XMODEM; high byte first.
    Crc16Xmodem,
    /// CRC-16/KERMIT (often called true CCITT); low byte first.
    Crc16Kermit,
    /// CRC-32/ISO-HDLC (zip, Ethernet); low byte first.
    Crc32,
}

/// So many frames make one reading: the bytes are joined in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gather {
    /// How many; at least 2.
    pub frames: usize,
    /// The bit that is set in the first frame and in no other.
    pub first_if: BitAt,
}

/// One bit of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitAt {
    /// Byte offset.
    pub byte: usize,
    /// 0 is the least significant bit.
    pub bit: u8,
}

/// The named recipes that a frame can go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpack {
    /// Contec CMS50D+: the second byte carries the top bits of those after it and is dropped.
    HighBits,
}
