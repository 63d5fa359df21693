//! How uptime becomes wall time: anchors, and (in `system`) what this machine's kernel says of its clock.
//!
//! A hub has no clock of its own, and the one it shows after a power cut is plausible and wrong. So every observation
//! is stamped with CLOCK_BOOTTIME, and an [`Anchor`] says what Unix time a boot's uptime stands for. Anchors are
//! numbered, only appended, and a range in hand names how many of them it saw: a retry renders the same times.

use serde::{Deserialize, Serialize};

use crate::event::ClockQuality;
use crate::reading::{BootId, Heard};

#[cfg(feature = "gateway")]
pub mod system;

pub mod keeper;

#[cfg(feature = "failpoints")]
mod injected;

/// From `from_ms` of this boot's uptime on, Unix time is uptime plus `offset_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The boot it holds for.
    pub boot: BootId,
    /// Milliseconds of CLOCK_BOOTTIME.
    pub from_ms: u64,
    /// Milliseconds to add to the uptime.
    pub offset_ms: i64,
    /// Whether the kernel's clock was synchronised when it was taken.
    pub synced: bool,
}

/// The anchors that are still needed, oldest first, each with its number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchors {
    /// How many older ones were dropped: the number of the first that is kept.
    dropped: u64,
    kept: Vec<Anchor>,
    /// The newest synchronised Unix time ever seen, in milliseconds: no estimate lies below it.
    floor_ms: i64,
}

impl Anchors {
    /// No anchor yet; nothing is older than `floor_ms` (at first the build's date).
    pub fn new(floor_ms: i64) -> Self {
        Anchors { dropped: 0, kept: Vec::new(), floor_ms }
    }

    /// How many anchors were ever appended: the version that a range in hand names.
    pub fn version(&self) -> u64 {
        self.dropped + self.kept.len() as u64
    }

    /// The newest synchronised Unix time ever seen, in milliseconds.
    pub fn floor_ms(&self) -> i64 {
        self.floor_ms
    }

    /// Raises the floor; it never falls.
    pub fn raise_floor(&mut self, unix_ms: i64) {
        self.floor_ms = self.floor_ms.max(unix_ms);
    }

    /// Appends an anchor. An unsynchronised one is lifted to the floor.
    pub fn append(&mut self, mut anchor: Anchor) {
        let unix_ms = (anchor.from_ms as i64).saturating_add(anchor.offset_ms);
        if anchor.synced {
            self.raise_floor(unix_ms);
        } else if unix_ms < self.floor_ms {
            anchor.offset_ms = self.floor_ms.saturating_sub(anchor.from_ms as i64);
        }
        self.kept.push(anchor);
    }

    /// Whether this boot has a synchronised anchor.
    pub fn is_synced(&self, boot: BootId) -> bool {
        boot == BootId::WALL || self.kept.iter().any(|anchor| anchor.boot == boot && anchor.synced)
    }

    /// The first anchor of this boot.
    pub fn first(&self, boot: BootId) -> Option<&Anchor> {
        self.kept.iter().find(|anchor| anchor.boot == boot)
    }

    /// The last anchor of this boot.
    pub fn newest(&self, boot: BootId) -> Option<&Anchor> {
        self.kept.iter().rev().find(|anchor| anchor.boot == boot)
    }

    /// Drops the anchors of boots that no waiting observation and no range in hand needs any more.
    pub fn forget_boots_except(&mut self, needed: impl Fn(BootId) -> bool) {
        let unneeded = self.kept.iter().take_while(|anchor| !needed(anchor.boot)).count();
        self.kept.drain(..unneeded);
        self.dropped += unneeded as u64;
    }

    /// Unix milliseconds of `heard` as the first `version` anchors tell it, and how well that is known; of a boot
    /// without an anchor the floor.
    pub fn unix_ms(&self, version: u64, heard: Heard) -> (i64, ClockQuality) {
        // Never seen of an observation: a run writes an anchor before its first one.
        self.known_ms(version, heard).unwrap_or((self.floor_ms, ClockQuality::Estimated))
    }

    /// The same, where the boot has an anchor.
    ///
    /// A synchronised anchor of the boot speaks for all of it, also for what was heard before the clock was set: uptime
    /// does not step. Only a boot without one falls back to its estimates.
    pub fn known_ms(&self, version: u64, heard: Heard) -> Option<(i64, ClockQuality)> {
        if heard.boot == BootId::WALL {
            return Some((heard.ms.min(i64::MAX as u64) as i64, ClockQuality::Synced));
        }
        let seen = version.saturating_sub(self.dropped).min(self.kept.len() as u64) as usize;
        let of_boot = || self.kept[..seen].iter().filter(|anchor| anchor.boot == heard.boot);
        let best = |synced: bool| {
            let mut of_quality = of_boot().filter(|anchor| anchor.synced == synced).peekable();
            let first = of_quality.peek().copied();
            of_quality.take_while(|anchor| anchor.from_ms <= heard.ms).last().or(first)
        };
        let at = |anchor: &Anchor| (heard.ms as i64).saturating_add(anchor.offset_ms);
        let synced = best(true).map(|anchor| (at(anchor), ClockQuality::Synced));
        synced.or_else(|| best(false).map(|anchor| (at(anchor), ClockQuality::Estimated)))
    }
}
