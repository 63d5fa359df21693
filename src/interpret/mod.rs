//! From bytes to observations, by declarative profiles. Pure: no IO, no clock, no async.
//!
//! A profile is TOML ([`file`], with the short forms of [`notation`]). It is compiled once (`compile`) to the flat
//! steps of `step`, proven by its own examples (`example`), and run on each frame (`decode`, `emit`).
//! Interpretation never fails as a whole: values and faults both come back.

pub mod bluetooth;
pub mod builtin;
pub mod catalog;
mod compile;
mod compile_emit;
mod compile_link;
mod compile_row;
mod compile_work;
mod counter;
pub mod decode;
pub mod decrypt;
mod device_clock;
mod emit;
pub mod error;
mod example;
pub mod file;
pub mod file_link;
pub mod frame;
mod kind;
pub mod link;
pub mod memory;
mod message;
pub mod notation;
pub mod plausible;
pub mod profile;
mod read;
mod records;
#[cfg(test)]
mod schema;
mod step;
mod unit;
mod work;

use std::sync::Arc;

use crate::observation::{Observation, Value};

pub use catalog::{Catalog, EntryBinding};
pub use memory::DeviceMemory;
pub use plausible::Limits;
pub use profile::{Profile, ProfileSet};

use frame::FrameFault;

/// Why something did not become an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The frame is not what the profile says: no event of it.
    Refused,
    /// Reading stopped at something unknown; what came before counts.
    Stopped,
    /// The frame is encrypted and there is no key.
    NoKey,
    /// Understood, and outside the limits for a person.
    Implausible,
}

impl FaultKind {
    /// The name that commands print.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Refused => "refused",
            FaultKind::Stopped => "stopped",
            FaultKind::NoKey => "no_key",
            FaultKind::Implausible => "implausible",
        }
    }
}

/// One thing that was wrong with a reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// The field, or a word for what is no field: `left over`, `sync`, `checksum`, `no key`, `nothing known` ...
    pub field: String,
    /// For people.
    pub message: String,
}

impl From<FrameFault> for Fault {
    fn from(fault: FrameFault) -> Fault {
        Fault { kind: FaultKind::Refused, field: fault.what.to_owned(), message: fault.message }
    }
}

/// All that one reading said. Values and faults come together: interpretation never fails as a whole.
#[derive(Debug, Default)]
pub struct Interpretation {
    /// What it means.
    pub observations: Vec<Observation>,
    /// Outside the limits; to be set aside with the reason, not forwarded.
    pub implausible: Vec<(Observation, String)>,
    /// What was wrong. Each implausible observation stands here too.
    pub faults: Vec<Fault>,
    /// A value was withheld: the device says that nobody wears it, or that it does not know.
    pub withholds: bool,
    /// A twin of a reading within `same_within`.
    pub duplicate: bool,
    /// The persistent part of the memory changed: commit `to_state` with what came of the reading.
    pub memory_changed: bool,
    /// Every decoded field by name. Filled by [`Catalog::explain`] only, as the two below.
    pub fields: Vec<(Arc<str>, Value)>,
    /// Fields by which the device says "no value".
    pub missing: Vec<Arc<str>>,
    /// Fields that withheld an event.
    pub withheld: Vec<Arc<str>>,
}
