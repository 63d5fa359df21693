//! A profile after compiling: a flat list of steps for each channel. All names are resolved, nothing is looked up.

use std::sync::Arc;
use std::time::Duration;

use crate::observation::{EventType, Value};

use super::file::{GetName, RecipeName, UnknownName};
use super::kind::{Kind, Width};
use super::notation::{Scalar, Scale};
use super::unit::Conversion;

/// Where a field's value is kept while a frame is read.
pub(super) type SlotId = u16;
/// Which row of the file a value came of: rows of one name may differ in unit.
pub(super) type RowId = u16;

/// One channel, ready to run.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    pub(super) name: Arc<str>,
    pub(super) get: Option<GetName>,
    /// The time between two reads of what is polled.
    pub(super) every: Duration,
    pub(super) format: Layout,
    /// Names of the slots.
    pub(super) slots: Vec<Arc<str>>,
    pub(super) steps: Vec<Step>,
    pub(super) emits: Vec<Emit>,
    /// Bytes at the end that belong to the frame and to no field (a checksum).
    pub(super) trailer: usize,
    /// Whether bytes left over refuse the frame (not where the framing fixes the length).
    pub(super) strict_end: bool,
    /// The slot that tells what the device's clock shows now.
    pub(super) now: Option<(SlotId, TimeBase)>,
    /// Slots that twins share.
    pub(super) same_if: Vec<SlotId>,
    /// Slots that make the reading unique for ever.
    pub(super) identity: Vec<SlotId>,
    /// Its readings are stored records: they come again and in any order.
    pub(super) stored: bool,
    /// Slots that are remembered for the device, with their place in its context.
    pub(super) remembered: Vec<(SlotId, u16)>,
    /// Only the number of examples is needed after loading.
    pub(super) good_examples: usize,
    pub(super) refused_examples: usize,
}

/// What the bytes of a channel are.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layout {
    Binary,
    Json,
    Pairs { between: String, equals: String },
    Template(Vec<TemplatePart>),
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TemplatePart {
    Literal(String),
    Capture(String),
}

/// One row of `fields`.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) only_if: Option<Test>,
    pub(super) unless: Option<Test>,
    pub(super) act: Act,
}

/// A compiled condition.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Any(Vec<SlotId>),
    All(Vec<(SlotId, Scalar)>),
}

#[derive(Debug, Clone)]
pub(super) enum Act {
    Field(Field),
    Objects(Objects),
    Decrypt(Decrypt),
}

/// Replaces the encrypted rest of the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decrypt {
    pub(super) recipe: RecipeName,
    /// The field `mac`, where the frame may carry the sender's address.
    pub(super) mac: Option<SlotId>,
}

/// Tag-value rows to the end.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    pub(super) tag: Width,
    pub(super) length: Option<Width>,
    pub(super) unknown: UnknownName,
    /// Sorted by tag.
    pub(super) rows: Vec<(u64, Field)>,
}

/// Reads one value (or a list) into a slot.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: Arc<str>,
    pub(super) slot: SlotId,
    pub(super) row: RowId,
    pub(super) source: Source,
    pub(super) repeat: Option<Repeat>,
    pub(super) work: Work,
    pub(super) optional: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Source {
    Next(Kind, Length),
    At(i64, Kind, Length),
    Bits(Vec<Piece>),
    /// A key or pointer in a text or JSON.
    Part(String, Kind),
}

/// Some bits of a byte of the frame or of an earlier field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) from: PieceFrom,
    pub(super) high: u8,
    pub(super) low: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceFrom {
    Byte(usize),
    Slot(SlotId),
}

/// How many bytes a value takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Bytes(usize),
    Prefix(Width),
    Slot(SlotId),
    Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    ToEnd { at_least: usize },
    Times(usize),
    Slot(SlotId),
}

/// What is done with a raw value, in this order.
#[derive(Debug, Clone, Default)]
pub(super) struct Work {
    pub(super) must: Vec<Must>,
    pub(super) missing: Vec<Scalar>,
    pub(super) names: Option<NameTable>,
    pub(super) scale: Option<Scale>,
    pub(super) offset: f64,
    /// Nothing of it is to be done: the raw value is the value.
    pub(super) plain: bool,
    /// One bit without further meaning: true or false.
    pub(super) flag: bool,
}

/// What a value must be.
#[derive(Debug, Clone)]
pub(super) enum Must {
    Be(Scalar),
    /// Both ends belong.
    Lie(f64, f64),
}

#[derive(Debug, Clone)]
pub(super) enum NameTable {
    /// Name of 0, 1, ...
    List(Vec<Value>),
    /// Sorted by number.
    Numbers(Vec<(i64, Value)>),
    /// Sorted by text.
    Texts(Vec<(String, Value)>),
}

/// One event that a good frame makes.
#[derive(Debug, Clone)]
pub(super) struct Emit {
    pub(super) event: EventType,
    pub(super) value: SlotId,
    pub(super) component: Arc<str>,
    pub(super) time: Option<(SlotId, TimeBase)>,
    pub(super) metadata: Vec<(Arc<str>, From)>,
    pub(super) withhold: Option<(Test, Vec<Arc<str>>)>,
    pub(super) every: Option<Duration>,
    pub(super) counter: Option<Option<f64>>,
    /// Names its counter in the device's memory.
    pub(super) key: Arc<str>,
    /// How the value of each row becomes the type's unit.
    pub(super) units: Vec<(RowId, UnitOf)>,
}

#[derive(Debug, Clone)]
pub(super) struct UnitOf {
    pub(super) unit: Arc<str>,
    pub(super) conversion: Conversion,
    /// Goes into metadata: the unit is not the type's own.
    pub(super) foreign: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Slot(SlotId),
    Context(u16),
}

/// What a time field's number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeBase {
    UtcMs,
    UtcS,
    LocalMs,
}
