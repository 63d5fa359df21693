//! The tables `link` and `frame` of a profile, as types.

use serde::Deserialize;

use super::notation::{Hex, Span};

/// How the device is opened and kept talking.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LinkTable {
    /// Serial: bits per second.
    pub baud: Option<u32>,
    /// Serial: none, odd or even.
    pub parity: Option<ParityName>,
    /// Serial: none, software (XON, XOFF) or hardware (RTS, CTS).
    pub flow: Option<FlowName>,
    /// Sent after each open, in this order.
    #[serde(default)]
    pub init: Vec<Hex>,
    /// Sent while the line is open, so that the device goes on talking.
    pub keepalive: Option<SendTable>,
    /// Sent while the line is open; the device answers each.
    pub poll: Option<SendTable>,
    /// BLE: the characteristic to which `init`, `keepalive` and `poll` are written.
    pub write_to: Option<String>,
    /// BLE: the characteristic to which the hub writes its clock.
    pub set_clock: Option<String>,
    /// BLE: the control point through which stored records are asked for.
    pub records: Option<RecordsTable>,
}

/// Parity of a serial line.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ParityName {
    /// No parity bit.
    None,
    /// Odd.
    Odd,
    /// Even.
    Even,
}

/// Flow control of a serial line.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FlowName {
    /// None.
    None,
    /// XON and XOFF.
    Software,
    /// RTS and CTS.
    Hardware,
}

/// Bytes that are sent again and again.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SendTable {
    /// One write each, in this order.
    pub send: Vec<Hex>,
    /// The time between two rounds.
    pub every: Span,
}

/// Where stored records are asked for.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RecordsTable {
    /// The record access control point.
    pub control: String,
    /// Records that are durable are erased on the device; needs `sequence_at`.
    #[serde(default)]
    pub erase: bool,
    /// The byte of a record at which its number begins: two bytes, low first.
    pub sequence_at: Option<u16>,
}

/// How a stream of bytes is cut into frames: exactly one of line, fixed, delimiter, header, cobs.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FrameTable {
    /// Text lines that end so.
    pub line: Option<String>,
    /// Always so many bytes.
    pub fixed: Option<u32>,
    /// With `fixed`: a bit pattern for each byte, `.` = any.
    pub sync: Option<Vec<String>>,
    /// Between two of these, in hexadecimal.
    pub delimiter: Option<Hex>,
    /// Begins so, in hexadecimal; needs `length`.
    pub header: Option<Hex>,
    /// With `header`: where the length stands.
    pub length: Option<LengthTable>,
    /// Consistent overhead byte stuffing, zero byte at the end.
    #[serde(default)]
    pub cobs: bool,
    /// The longest frame in bytes; 1,024 unless said.
    pub max: Option<u32>,
    /// A pause this long inside a frame drops what came of it.
    pub timeout: Option<Span>,
    /// The frame's checksum.
    pub checksum: Option<ChecksumTable>,
    /// So many frames make one reading.
    pub gather: Option<GatherTable>,
    /// A named recipe that a good frame goes through: `high_bits`.
    pub unpack: Option<UnpackName>,
}

/// Where a frame's length stands.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LengthTable {
    /// Byte offset from the frame's first byte.
    pub at: u32,
    /// `u8`, `u16le` or `u16be`.
    pub r#type: LengthName,
    /// What to add to get the whole frame's length, header included; 0 unless said.
    #[serde(default)]
    pub plus: i32,
}

/// How a length is written.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LengthName {
    /// One byte.
    U8,
    /// Two bytes, low first.
    U16le,
    /// Two bytes, high first.
    U16be,
}

/// A checksum inside a frame.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChecksumTable {
    /// sum8, xor8, lrc, crc8, crc8-maxim, crc16-modbus, crc16-ccitt, crc16-xmodem, crc16-kermit or crc32.
    pub kind: String,
    /// First and last byte that it covers, as `"0..-3"`: both included, -1 is the last byte.
    pub over: String,
    /// Where its first byte stands; negative counts from the end.
    pub at: i64,
    /// `le` or `be`, where it differs from the custom of its kind.
    pub order: Option<OrderName>,
}

/// Byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OrderName {
    /// Low byte first.
    Le,
    /// High byte first.
    Be,
}

/// So many frames make one reading.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GatherTable {
    /// How many; at least 2.
    pub frames: u32,
    /// The bit that is set in the first frame only, as `"b1.0"`.
    pub first_if: String,
}

/// The named recipes that a frame can go through.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnpackName {
    /// The second byte carries the top bits of those after it and is dropped.
    HighBits,
}
