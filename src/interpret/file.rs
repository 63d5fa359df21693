//! The TOML of a profile, as types. Every key stands here, with its meaning; the JSON Schema is made from this.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::file_link::{FrameTable, LinkTable};
use super::notation::{At, Condition, Count, Expected, Names, Scalars, Scale, Span, Texts};

/// A device profile.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProfileFile {
    /// Version of this language: 1.
    pub schema: u32,
    /// Small letters, digits and hyphens; a file of the same id overrides the shipped one.
    #[cfg_attr(test, schemars(with = "String"))]
    pub id: Spanned<String>,
    /// Version of this file; travels with every event.
    pub version: u32,
    /// What the device is, in a few words.
    pub title: String,
    /// Where the layout is from.
    pub source: String,
    /// What claims a reading.
    pub r#match: MatchTable,
    /// How the device is opened and kept talking.
    pub link: Option<LinkTable>,
    /// Serial: how the stream of bytes is cut into frames.
    #[cfg_attr(test, schemars(with = "Option<FrameTable>"))]
    pub frame: Option<Spanned<FrameTable>>,
    /// Fields that two readings of the same measurement share.
    #[cfg_attr(test, schemars(with = "Option<Vec<String>>"))]
    pub same_if: Option<Spanned<Vec<String>>>,
    /// How far apart twins may be; 4 s unless said.
    pub same_within: Option<Span>,
    /// Fields that make a reading unique for ever: the base of the event ids.
    #[cfg_attr(test, schemars(with = "Option<Vec<String>>"))]
    pub identity: Option<Spanned<Vec<String>>>,
    /// The identity counts only once the hub has set or checked the device's clock.
    #[serde(default)]
    pub identity_needs_clock: bool,
    /// One for each GATT characteristic, frame kind or message.
    #[cfg_attr(test, schemars(with = "Vec<ChannelTable>"))]
    pub channel: Vec<Spanned<ChannelTable>>,
}

/// What claims a reading.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MatchTable {
    /// A GATT service: four hexadecimal digits, or 128 bits with hyphens.
    pub ble_service: Option<String>,
    /// Advertised service data of this service.
    pub ble_service_data: Option<String>,
    /// Advertised manufacturer data of this company identifier: four hexadecimal digits.
    pub ble_manufacturer: Option<String>,
    /// The advertised name, `*` for any text.
    pub name: Option<String>,
    /// A serial device; the device entry names the port.
    #[serde(default)]
    pub serial: bool,
    /// An MQTT publisher; the device entry names the topic.
    #[serde(default)]
    pub mqtt: bool,
}

/// One GATT characteristic, frame kind or message.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChannelTable {
    /// A characteristic (`2a37`; `2a6e#2` for the second one of that UUID on the device), `frame`, `advertisement` or `message`.
    pub name: String,
    /// How the bytes are got: notify, indicate, read_once or poll.
    pub get: Option<GetName>,
    /// With `get = "poll"`: the time between two reads; 1 min unless said.
    pub every: Option<Span>,
    /// What the bytes are; binary unless said.
    pub format: Option<Format>,
    /// What is read, in order.
    #[cfg_attr(test, schemars(with = "Vec<FieldRow>"))]
    pub fields: Vec<Spanned<FieldRow>>,
    /// A field that tells what the device's clock shows at this moment: the times of its records are counted from it.
    pub now: Option<String>,
    /// The rows of a field of type `objects`, by tag.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<FieldRow>"))]
    pub objects: Vec<Spanned<FieldRow>>,
    /// The events that come of it.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<EmitRow>"))]
    pub emit: Vec<Spanned<EmitRow>>,
    /// Frames that prove it: at least one good and one refused.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<ExampleRow>"))]
    pub examples: Vec<Spanned<ExampleRow>>,
}

/// How the bytes of a characteristic are got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GetName {
    /// It notifies.
    Notify,
    /// It indicates: each value is acknowledged.
    Indicate,
    /// It is read once after each connect; its fields are remembered for the device.
    ReadOnce,
    /// It is read again and again.
    Poll,
}

/// What the bytes of a channel are.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FormatName {
    /// Bytes, read in order.
    Binary,
    /// One JSON value.
    Json,
}

/// `"binary"`, `"json"`, `{ pairs = ",", equals = ":" }` or `{ template = "HR={hr}" }`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(
    untagged,
    expecting = "found something else, expected \"binary\", \"json\", { pairs = \",\", equals = \":\" } \
                               or { template = \"SPO2={spo2} HR={pulse_rate}\" }"
)]
pub enum Format {
    /// Bytes or JSON.
    Named(FormatName),
    /// Text in pairs.
    Pairs(PairsTable),
    /// Text after a template.
    Template(TemplateTable),
}

/// Text in pairs: `HR:72,T:36.6`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PairsTable {
    /// What stands between two pairs.
    pub pairs: String,
    /// What stands between key and value; a part without it is skipped.
    pub equals: String,
}

/// Text after a template: `SPO2={spo2} HR={pulse_rate}`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TemplateTable {
    /// The text, with `{name}` where a value stands; a blank in it is any number of blanks.
    pub template: String,
}

/// One field. With `type` it reads bytes (or a part of a text); with `bits` it looks into what was read.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FieldRow {
    /// The name in `fields` and in metadata.
    pub name: Option<String>,
    /// How it is written: u8, i16le, medfloat32, utf8, decimal, date_time ...
    pub r#type: Option<String>,
    /// Which bits of a byte (`"b0.4"`, `"b3.6-0"`) or of a field (`"flags.2-1"`), highest piece first.
    pub bits: Option<Texts>,
    /// Where it stands, if not next: a byte offset, a key or a JSON pointer.
    pub at: Option<At>,
    /// In `objects`: the tag that announces it, a number. On the row of type `objects`: how tags are written, as `"u8"`.
    pub tag: Option<Count>,
    /// Read only if this holds.
    pub r#if: Option<Condition>,
    /// Not read if this holds.
    pub unless: Option<Condition>,
    /// What it must be, or a range as `"0..100"` (both ends belong); anything else refuses the frame.
    pub must: Option<Scalars>,
    /// The values by which the device says "no value".
    pub missing: Option<Scalars>,
    /// Names for numbers.
    pub values: Option<Names>,
    /// Times this.
    pub scale: Option<Scale>,
    /// Plus this, after the scale.
    pub offset: Option<f64>,
    /// UCUM unit after scale and offset.
    pub unit: Option<String>,
    /// Read again and again: `"to_end"`, a number, or the field that counts.
    pub repeat: Option<Count>,
    /// With `repeat = "to_end"`: how many there must be.
    pub at_least: Option<u32>,
    /// Of utf8, bytes, decimal and bcd: bytes, a prefix (`"u8"`) or the field that says. In `objects`: the prefix of each.
    pub length: Option<Count>,
    /// In a text or JSON: it may be absent.
    #[serde(default)]
    pub optional: bool,
    /// Of date_time: whose clock it is.
    pub zone: Option<ZoneName>,
    /// Of `decrypt`: the recipe's name.
    pub recipe: Option<RecipeName>,
    /// Of `objects`: what to do with a tag that is not in the table; stop unless said.
    pub unknown: Option<UnknownName>,
}

/// Whose clock a date_time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ZoneName {
    /// Wall time of the hub's place.
    #[serde(rename = "hub")]
    Hub,
    /// UTC.
    #[serde(rename = "UTC")]
    Utc,
}

/// The hub's own decryption recipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum RecipeName {
    /// BTHome version 2.
    #[serde(rename = "bthome-v2")]
    BthomeV2,
    /// Xiaomi MiBeacon.
    #[serde(rename = "mibeacon")]
    MiBeacon,
}

/// What to do with a tag that is not in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnknownName {
    /// It ends the frame; what came before counts.
    Stop,
    /// It is skipped; needs `length`.
    Skip,
    /// It refuses the frame.
    Refuse,
}

/// One event that comes of a good frame.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EmitRow {
    /// heart_rate, blood_pressure, temperature, steps, sleep, workout, spo2, weight, respiration_rate or glucose.
    pub event: String,
    /// The field that is its value.
    pub value: String,
    /// Which part: systolic, body, pulse ... The device entry may override it.
    pub component: Option<String>,
    /// The field that is the device's own time.
    pub time: Option<String>,
    /// Fields that travel with it.
    #[serde(default)]
    pub metadata: Vec<String>,
    /// No event if this holds; judged before missing.
    pub withhold_if: Option<Condition>,
    /// At most one in this time, the last good value.
    pub every: Option<Span>,
    /// The value is a running total; events carry increments.
    pub counter: Option<CounterTable>,
}

/// A running total.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CounterTable {
    /// The total after the largest one is 0: 65536 for 16 bits. Without it every fall is a restart.
    pub wraps_at: Option<u64>,
}

/// A frame, or several in order, and what must come of it.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExampleRow {
    /// The frame in hexadecimal, or several.
    pub hex: Option<Texts>,
    /// The frame as text, or several.
    pub text: Option<Texts>,
    /// Encrypted frames: the device's key, 32 hexadecimal digits. Published ones only.
    pub key: Option<String>,
    /// Advertisements: the sender's address, as `"A0:9E:1A:00:11:22"`.
    pub mac: Option<String>,
    /// Exactly these events, in order, of all frames together: `{ heart_rate = 72 }`, value in the type's unit.
    pub events: Option<Vec<BTreeMap<String, f64>>>,
    /// These fields of the last frame have these values; others may be there.
    #[serde(default)]
    pub fields: BTreeMap<String, Expected>,
    /// Exactly these fields of the last frame are missing.
    pub missing: Option<Vec<String>>,
    /// Exactly these conditions withheld an event of the last frame.
    pub withheld: Option<Vec<String>>,
    /// Where reading stopped: `"tag 0xf0"`.
    pub stopped: Option<String>,
    /// Why the frame is refused: the field, or `left over`, `sync`, `checksum`, `no key`, `nothing known`, `json` ...
    pub refuse: Option<String>,
}
