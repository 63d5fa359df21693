//! The durable queue. (Signatures of the contract; see DESIGN 7.)
#![allow(missing_docs, unused_variables, clippy::unimplemented)]

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observation::Observation;
use crate::reading::{BootId, Channel, Heard, RunId};

/// Number of an observation in this store, from 1, never reused.
pub type Sequence = u64;

#[derive(Debug, Clone)]
pub struct Settings {
    pub dir: PathBuf,
    pub max_bytes: u64,
    pub aside_max_bytes: u64,
    pub min_free: u64,
    pub max_age: Duration,
    pub when_full: WhenFull,
    pub key_file: Option<PathBuf>,
    pub generation_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    EvictOldest,
    PauseSources,
}

/// Everything that becomes durable together.
#[derive(Debug, Default)]
pub struct Commit {
    pub observations: Vec<Observation>,
    pub state: Vec<StateChange>,
    pub aside: Vec<AsideEntry>,
    pub intake: IntakeTally,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    pub key: String,
    pub value: Option<Vec<u8>>,
}

/// What the intake counted since its last commit. `accepted = without_event + refused + duplicate + decoded` and
/// `made = implausible + stored`, in every commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeTally {
    pub accepted: u64,
    pub without_event: u64,
    pub refused: u64,
    pub duplicate: u64,
    pub decoded: u64,
    pub made: u64,
    pub implausible: u64,
    pub stored: u64,
    pub flooded: u64,
    pub oversized: u64,
}

/// What became of the observations for one destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationTally {
    pub delivered: u64,
    pub rejected: u64,
    pub parked: u64,
    pub evicted: u64,
    pub damaged: u64,
    pub waiting: u64, // computed
    pub resent: u64,  // beside the balance
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Ledger {
    pub intake: IntakeTally,
    pub destinations: Vec<(String, DestinationTally)>,
}

/// A batch that is being delivered: whole chunks of one generation, and the versions of all that `resolve` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub first: Sequence,
    pub last: Sequence,
    pub anchors: u64,
    pub basis: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct CutLimit {
    pub max_observations: u64,
    pub max_bytes: u64,
}

/// One commit's observations, as read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    pub run: RunId,
    pub first: Sequence,
    pub observations: Vec<Observation>,
}

/// What happened to a range; the counts sum to its observations.
#[derive(Debug, Default)]
pub struct Settled {
    pub delivered: u64,
    pub rejected: u64,
    pub parked: u64,
    pub damaged: u64,
    pub resent: u64,
    pub aside: Vec<AsideEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AsideKind {
    Refused,
    Implausible,
    Rejected,
    Parked,
}

/// Something that is no waiting event and that a person may want to see or bring back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AsideEntry {
    pub kind: AsideKind,
    pub reason: String,
    pub device: Arc<str>,
    pub entry: Arc<str>,
    pub channel: Channel,
    pub profile: Arc<str>,
    pub run: RunId,
    pub reading: u64,
    pub heard: Heard,
    /// Raw bytes of the reading; for `Rejected` and `Parked` the observation's CBOR.
    pub bytes: Vec<u8>,
    pub destination: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Placeholder(String),
}

/// A handle; clones share the one store thread.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens or makes the store. Never refuses because of damage; see the module's prose for the two refusals.
    pub fn open(settings: &Settings, run: RunId, boot: BootId, destinations: &[String]) -> Result<Store, Error> {
        unimplemented!()
    }
    /// Makes the commit durable; after `Ok` its receipts may be given. Returns the sequences of its observations.
    pub async fn commit(&self, commit: Commit) -> Result<Option<RangeInclusive<Sequence>>, Error> {
        unimplemented!()
    }
    /// State keys and values as of the last durable commit.
    pub fn state(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        unimplemented!()
    }
    /// The range that was in hand when the process ended, or is in hand now.
    pub fn in_hand(&self, destination: &str) -> Option<Range> {
        unimplemented!()
    }
    /// Waits until observations wait for this destination, cuts a range and makes it durable (at once, or, when nothing
    /// waits yet, in the same record as the commit that brings the next chunk). Cancel-safe: a dropped call cuts nothing.
    pub async fn next_range(
        &self,
        destination: &str,
        anchors: u64,
        basis: u64,
        limit: CutLimit,
    ) -> Result<Range, Error> {
        unimplemented!()
    }
    /// The range's chunks in order; chunks that are damaged are left out (count them: last-first+1 minus what came).
    pub async fn read(&self, range: &Range) -> Result<Vec<Chunk>, Error> {
        unimplemented!()
    }
    /// Moves the cursor past the range. Durable with the next record (`next_range`, `commit` or `close`).
    pub async fn settle(&self, destination: &str, range: &Range, settled: Settled) -> Result<(), Error> {
        unimplemented!()
    }
    pub fn ledger(&self) -> Ledger {
        unimplemented!()
    }
    /// Entries set aside, newest last, at most `limit`.
    pub async fn aside(&self, limit: usize) -> Result<Vec<AsideEntry>, Error> {
        unimplemented!()
    }
    /// Makes all pending settlements durable and closes, within 10 s.
    pub async fn close(self) -> Result<(), Error> {
        unimplemented!()
    }
}
