//! The values that go in and out of the store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AsideEntry, AsidePlace};
use crate::observation::Observation;
use crate::reading::{Heard, RunId};
use crate::report::Kind;

/// Number of an observation in this store, from 1, never reused.
pub type Sequence = u64;

/// Where the store lies and how much it may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its folder; made when it is missing.
    pub dir: PathBuf,
    /// Most bytes of the queue on disk, damaged generations included.
    pub max_bytes: u64,
    /// Most bytes of what is set aside.
    pub aside_max_bytes: u64,
    /// Bytes of the file system that are left to others.
    pub min_free: u64,
    /// Oldest observation kept, measured in time that the store was open: no wall clock decides over data. Only
    /// `EvictOldest` looks at it.
    pub max_age: Duration,
    /// What happens at a limit.
    pub when_full: WhenFull,
    /// The file of the key that seals everything written from now on.
    pub key_file: Option<PathBuf>,
    /// Size of a generation; larger only so that the state at its start stays below an eighth of it.
    pub generation_bytes: u64,
}

/// What happens when the store is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The oldest generation without a range in hand goes, is counted for each destination, and leaves a gap.
    EvictOldest,
    /// `commit` answers [`Error::Full`](super::Error::Full) until there is room again.
    PauseSources,
}

/// Everything that becomes durable together.
#[derive(Debug, Default)]
pub struct Commit {
    /// In the order in which they get their sequences.
    pub observations: Vec<Observation>,
    /// State that changed. Keys that begin with `!` are the store's own.
    pub state: Vec<StateChange>,
    /// What is set aside; durable before the rest.
    pub aside: Vec<AsideEntry>,
    /// What was counted since the last commit.
    pub intake: IntakeTally,
    /// The run that the observations' reading numbers belong to; `None` is this process start.
    pub run: Option<RunId>,
    /// The one destination that the observations are for; every other one passes them over.
    pub only_for: Option<Arc<str>>,
    /// Entries set aside that these observations came of: they go in the record of the last observation.
    pub replayed: Vec<AsidePlace>,
}

/// One state key that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// Any text that does not begin with `!`.
    pub key: String,
    /// `None` removes the key.
    pub value: Option<Vec<u8>>,
}

/// What the intake counted since its last commit. `accepted = without_event + refused + duplicate + decoded` and
/// `made = implausible + stored`, in every commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntakeTally {
    /// Readings taken.
    pub accepted: u64,
    /// Readings that carry nothing to store.
    pub without_event: u64,
    /// Readings that their profile refused.
    pub refused: u64,
    /// Readings that were known already.
    pub duplicate: u64,
    /// Readings that gave observations.
    pub decoded: u64,
    /// Observations made.
    pub made: u64,
    /// Observations outside their plausible range.
    pub implausible: u64,
    /// Observations stored.
    pub stored: u64,
    /// Beside the balance: messages dropped because their device sent too many.
    pub flooded: u64,
    /// Beside the balance: messages over the limit of size.
    pub oversized: u64,
    /// Beside the balance: of the accepted ones those that came back from what was set aside.
    pub replayed: u64,
}

impl IntakeTally {
    /// Adds what another commit counted.
    pub fn add(&mut self, more: &IntakeTally) {
        self.accepted += more.accepted;
        self.without_event += more.without_event;
        self.refused += more.refused;
        self.duplicate += more.duplicate;
        self.decoded += more.decoded;
        self.made += more.made;
        self.implausible += more.implausible;
        self.stored += more.stored;
        self.flooded += more.flooded;
        self.oversized += more.oversized;
        self.replayed += more.replayed;
    }
}

/// What became of the observations for one destination:
/// `stored = before + delivered + rejected + parked + passed_over + evicted + damaged + waiting`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DestinationTally {
    /// Gone from the store before this destination was first configured.
    pub before: u64,
    /// Taken by the destination.
    pub delivered: u64,
    /// Refused by it for good, and set aside.
    pub rejected: u64,
    /// Set aside until somebody is assigned.
    pub parked: u64,
    /// Brought back from what was set aside, for another destination only.
    pub passed_over: u64,
    /// Removed because the store was full.
    pub evicted: u64,
    /// Lost to a damaged disk.
    pub damaged: u64,
    /// Still to be settled; computed, never stored.
    pub waiting: u64,
    /// Beside the balance: sent more than once.
    pub resent: u64,
    /// Beside the balance: delivered by one destination of a failover while another may have them too.
    pub in_doubt_resent: u64,
}

impl DestinationTally {
    /// The right side of the balance.
    pub fn sum(&self) -> u64 {
        let settled = self.delivered + self.rejected + self.parked + self.passed_over;
        self.before + settled + self.evicted + self.damaged + self.waiting
    }
}

/// All counts since the store was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// The way in.
    pub intake: IntakeTally,
    /// Each configured destination.
    pub destinations: Vec<(String, DestinationTally)>,
}

/// A batch that is being delivered: whole chunks of one generation, and the versions of all that `resolve` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Its first sequence.
    pub first: Sequence,
    /// Its last sequence.
    pub last: Sequence,
    /// Number of anchors seen.
    pub anchors: u64,
    /// Number of the basis.
    pub basis: u64,
}

impl Range {
    /// How many sequences it covers; each has to be settled as something.
    pub fn count(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }

    /// Whether the other begins with it, or is it.
    pub(super) fn is_front_of(&self, whole: &Range) -> bool {
        self.last <= whole.last && *self == Range { last: self.last, ..whole.clone() }
    }
}

/// How large a range may be. One chunk is always allowed.
#[derive(Debug, Clone, Copy)]
pub struct CutLimit {
    /// Most observations.
    pub max_observations: u64,
    /// Most bytes of the chunks before compression.
    pub max_bytes: u64,
}

/// Observations of one commit, all of them or a part, as read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The run that their reading numbers belong to.
    pub run: RunId,
    /// Sequence of the first.
    pub first: Sequence,
    /// The one destination that they are for; `None` is every one.
    pub only_for: Option<Arc<str>>,
    /// The observations; the n-th has sequence `first + n`.
    pub observations: Vec<Observation>,
}

/// What happened to a range; the counts but `resent` and `in_doubt_resent` sum to its observations.
#[derive(Debug, Default)]
pub struct Settled {
    /// Taken by the destination.
    pub delivered: u64,
    /// Refused for good; each has an entry in `aside`.
    pub rejected: u64,
    /// Of nobody, by setting; each has an entry in `aside`.
    pub parked: u64,
    /// For another destination only.
    pub passed_over: u64,
    /// Could not be read.
    pub damaged: u64,
    /// Beside the sum: sent more than once.
    pub resent: u64,
    /// Beside the sum: delivered while another destination may have them too.
    pub in_doubt_resent: u64,
    /// Made durable before the cursor moves.
    pub aside: Vec<AsideEntry>,
    /// What was delivered, per device and hour.
    pub sums: Vec<HourSum>,
}

/// Events of a device in an hour of their own time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HourSum {
    /// The device.
    pub device: Arc<str>,
    /// Hours since 1970.
    pub hour: u32,
    /// How many.
    pub count: u64,
    /// The XOR of their ids, each read as one big-endian number.
    pub xor: u128,
}

/// All that a destination has of a device's hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaidSum {
    /// The numbers.
    pub sum: HourSum,
    /// Grows with each change of them.
    pub version: u64,
}

/// Why observations are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// The store was full.
    Evicted,
    /// The disk was damaged.
    Damaged,
}

/// Observations of a device that left the store without reaching every destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The device; `None` where it is not known, or where old gaps of several devices became one.
    pub device: Option<Arc<str>>,
    /// When the first was heard, where that is known.
    pub from: Option<Heard>,
    /// When the last was heard.
    pub to: Option<Heard>,
    /// How many.
    pub count: u64,
    /// Why.
    pub cause: GapCause,
}

/// How the store is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stat {
    /// Why it is not well, if it is not.
    pub unhealthy: Option<String>,
    /// The newest sequence given.
    pub newest: Sequence,
    /// Each destination: what waits, and from which sequence.
    pub destinations: Vec<DestinationStat>,
    /// When the oldest that waits for any destination was heard, about.
    pub oldest_waiting: Option<Heard>,
    /// Generations, the newest included.
    pub generations: u64,
    /// Bytes of the queue on disk, damaged generations included.
    pub disk_bytes: u64,
    /// What it may have there, by setting.
    pub max_bytes: u64,
    /// Bytes of damaged generations on disk.
    pub damaged_bytes: u64,
    /// Bytes on disk of what is set aside.
    pub aside_bytes: u64,
    /// Entries set aside and kept.
    pub aside_entries: u64,
    /// Entries set aside and removed since because they were too many.
    pub aside_evicted: u64,
    /// Entries set aside and brought back since.
    pub aside_replayed: u64,
    /// Entries set aside and removed since by a person.
    pub aside_dropped: u64,
    /// Observations removed because the store was full, for the destination that lost most.
    pub evicted: u64,
    /// Gaps that were not reported yet.
    pub gaps: u64,
    /// Bytes on disk of the rows beside the events.
    pub reports_bytes: u64,
    /// Such rows that were removed before every destination had them.
    pub reports_evicted: u64,
    /// Bytes free on the file system.
    pub free_bytes: u64,
    /// Whether the store is sealed.
    pub sealed: bool,
    /// fdatasyncs since it was opened.
    pub syncs: u64,
}

/// One destination in [`Stat`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DestinationStat {
    /// Its name.
    pub name: String,
    /// Observations to be settled.
    pub waiting: u64,
    /// The first sequence to be settled.
    pub cursor: Sequence,
    /// The range in hand.
    pub in_hand: Option<Range>,
    /// When the oldest that waits was heard, about: read off the times and numbers of its generation's ends.
    pub oldest_waiting: Option<Heard>,
    /// Rows beside the events that it has not got, of each kind that has any.
    pub reports_waiting: BTreeMap<Kind, u64>,
}

/// What reading everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Generations read.
    pub generations: u64,
    /// Records whose CRC fits.
    pub records: u64,
    /// Chunks that decode.
    pub chunks: u64,
    /// Observations in them.
    pub observations: u64,
    /// Rows beside the events, in records of their own.
    pub reports: u64,
    /// What does not fit, each in a sentence.
    pub faults: Vec<String>,
}
