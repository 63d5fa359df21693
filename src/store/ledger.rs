//! What became of everything: the counts that are committed in the same record as what they count.

use serde::{Deserialize, Serialize};

use super::{Range, Sequence, Settled};

/// What the intake counted. `accepted = without_event + refused + duplicate + decoded` and `made = implausible + stored`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeTally {
    /// Readings taken from sources.
    pub accepted: u64,
    /// Readings that say nothing to store: a first counter total, context, a withheld value.
    pub without_event: u64,
    /// Readings whose bytes do not fit their profile.
    pub refused: u64,
    /// Readings that were heard before.
    pub duplicate: u64,
    /// Readings that became observations.
    pub decoded: u64,
    /// Observations made.
    pub made: u64,
    /// Observations outside the plausible range.
    pub implausible: u64,
    /// Observations stored.
    pub stored: u64,
    /// Beside the balance: of the refused, those over a limit of size.
    pub oversized: u64,
}

impl IntakeTally {
    pub(super) fn add(&mut self, more: &IntakeTally) {
        self.accepted += more.accepted;
        self.without_event += more.without_event;
        self.refused += more.refused;
        self.duplicate += more.duplicate;
        self.decoded += more.decoded;
        self.made += more.made;
        self.implausible += more.implausible;
        self.stored += more.stored;
        self.oversized += more.oversized;
    }
}

/// What became of the stored observations for one destination:
/// `stored = delivered + rejected + parked + evicted + damaged + waiting`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationTally {
    /// Taken by the destination.
    pub delivered: u64,
    /// Refused for what they are, and set aside.
    pub rejected: u64,
    /// Set aside until somebody is assigned.
    pub parked: u64,
    /// Deleted to make room, or gone before this destination was configured.
    pub evicted: u64,
    /// Lost to damage of the files.
    pub damaged: u64,
    /// Still to be sent: what the balance leaves.
    #[serde(default)]
    pub waiting: u64,
    /// Beside the balance: rows that were sent although an earlier try may have arrived.
    pub resent: u64,
}

impl DestinationTally {
    /// All outcomes but waiting.
    pub(super) fn settled(&self) -> u64 {
        self.delivered + self.rejected + self.parked + self.evicted + self.damaged
    }

    pub(super) fn add(&mut self, settled: &Settled) {
        self.delivered += settled.delivered;
        self.rejected += settled.rejected;
        self.parked += settled.parked;
        self.damaged += settled.damaged;
        self.resent += settled.resent;
    }
}

/// The whole account, as of the last durable record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The way in.
    pub intake: IntakeTally,
    /// The ways out, by name.
    pub destinations: Vec<(String, DestinationTally)>,
}

/// Where a destination stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DestinationState {
    /// The next observation to send.
    pub(super) cursor: Sequence,
    /// The range in hand.
    pub(super) range: Option<Range>,
    /// Totals; `waiting` is not kept.
    pub(super) tally: DestinationTally,
}
