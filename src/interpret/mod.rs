//! From bytes to observations, by declarative profiles. Pure: no IO, no clock, no async.
#![allow(missing_docs, unused_variables, clippy::unimplemented)]

pub mod frame;
pub mod link;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::observation::{EventType, Observation, Value};
use crate::reading::Reading;

/// Profiles by id, device entries by name, and the limits of plausibility: everything that interpretation needs.
#[derive(Debug)]
pub struct Catalog {}

/// What a device entry says of interpretation.
#[derive(Debug, Clone)]
pub struct EntryBinding {
    pub entry: Arc<str>,
    pub profile: String,
    /// Overrides the component of the profile's emits (for a thermometer worn on the skin, say).
    pub component: Option<Arc<str>>,
}

/// Plausible ranges by type (component `None`: the whole type) and component, in the type's unit; both ends belong.
#[derive(Debug, Clone, Default)]
pub struct Limits(pub BTreeMap<(EventType, Option<String>), (f64, f64)>);

/// What interpretation remembers of one device. Only what must outlive a restart (counter totals, reset counts) is in
/// `to_state`; twins, `every` and context are not.
#[derive(Debug, Default)]
pub struct DeviceMemory {}

impl DeviceMemory {
    pub fn to_state(&self) -> Vec<u8> {
        unimplemented!()
    }
    /// Unreadable state is an empty memory.
    pub fn from_state(bytes: &[u8]) -> DeviceMemory {
        unimplemented!()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    Refused,
    Stopped,
    NoKey,
    Implausible,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub kind: FaultKind,
    pub field: String,
    pub message: String,
}

/// All that one reading said. Values and faults come together: interpretation never fails as a whole.
#[derive(Debug, Default)]
pub struct Interpretation {
    pub observations: Vec<Observation>,
    /// Outside the limits; to be set aside with the reason, not forwarded.
    pub implausible: Vec<(Observation, String)>,
    pub faults: Vec<Fault>,
    /// A twin of a reading within `same_within`.
    pub duplicate: bool,
    /// The persistent part of the memory changed: commit `to_state` with what came of the reading.
    pub memory_changed: bool,
    /// Every decoded field by name (for people, `decode` and battery status).
    pub fields: Vec<(Arc<str>, Value)>,
    pub missing: Vec<Arc<str>>,
    pub withheld: Vec<Arc<str>>,
}

impl Catalog {
    /// Profile id and version ("contec-cms50/1") of an entry.
    pub fn profile_of(&self, entry: &str) -> Option<Arc<str>> {
        unimplemented!()
    }
    pub fn interpret(&self, reading: &Reading, number: u64, memory: &mut DeviceMemory) -> Interpretation {
        unimplemented!()
    }
}
