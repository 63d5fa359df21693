//! What the store remembers beside its chunks: folded from the newest generation at an open, kept in memory from then on.

use std::collections::BTreeMap;

use super::ledger::{DestinationState, DestinationTally, IntakeTally, Ledger};
use super::record::{Bytes, Changes, GenerationMeta, Own};
use super::stat::Stat;
use super::{Gap, Sequence};
use crate::reading::{BootId, Heard};

/// So many gaps are kept.
const MAX_GAPS: usize = 64;

/// The folded state, as of the last durable record.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) keys: BTreeMap<String, Vec<u8>>,
    pub(super) intake: IntakeTally,
    pub(super) destinations: BTreeMap<String, DestinationState>,
    pub(super) own: Own,
    /// The open generation at the end of the row, as it would be remembered.
    pub(super) newest: Option<GenerationMeta>,
    /// What only this process knows: for `stat`.
    pub(super) seen: Stat,
}

impl State {
    /// Takes over what a record says.
    pub(super) fn apply(&mut self, changes: Changes) {
        let Changes(keys, intake, destinations, own) = changes;
        for (key, value) in keys {
            match value {
                Some(Bytes(value)) => self.keys.insert(key, value),
                None => self.keys.remove(&key),
            };
        }
        if let Some(intake) = intake {
            self.intake = intake;
        }
        for (name, destination) in destinations {
            match destination {
                Some(destination) => self.destinations.insert(name, destination),
                None => self.destinations.remove(&name),
            };
        }
        if let Some(own) = own {
            self.own = own;
        }
    }

    /// Changes that make the whole state out of nothing, in parts of about this many bytes.
    pub(super) fn whole(&self, part: usize) -> Vec<Changes> {
        let destinations =
            self.destinations.iter().map(|(name, destination)| (name.clone(), Some(destination.clone())));
        let mut parts = vec![Changes(Vec::new(), Some(self.intake), destinations.collect(), Some(self.own.clone()))];
        let mut bytes = 0;
        for (key, value) in &self.keys {
            let own = key.len() + value.len() + 16;
            if bytes + own > part {
                parts.push(Changes::default());
                bytes = 0;
            }
            bytes += own;
            if let Some(Changes(keys, ..)) = parts.last_mut() {
                keys.push((key.clone(), Some(Bytes(value.clone()))));
            }
        }
        parts
    }

    /// About how many bytes the state takes in records.
    pub(super) fn bytes(&self) -> u64 {
        let keys: usize = self.keys.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
        (keys + 256 * self.destinations.len() + 96 * self.own.closed.len() + 1_024) as u64
    }

    pub(super) fn ledger(&self) -> Ledger {
        let of = |(name, destination): (&String, &DestinationState)| {
            let waiting = self.waiting(&destination.tally);
            (name.clone(), DestinationTally { waiting, ..destination.tally })
        };
        Ledger { intake: self.intake, destinations: self.destinations.iter().map(of).collect() }
    }

    /// What the balance leaves.
    pub(super) fn waiting(&self, tally: &DestinationTally) -> u64 {
        self.intake.stored.saturating_sub(tally.settled())
    }

    /// The first observation that some destination still needs; without destinations everything may go.
    pub(super) fn lowest_cursor(&self) -> Sequence {
        self.destinations.values().map(|destination| destination.cursor).min().unwrap_or(Sequence::MAX)
    }

    /// All generations, oldest first.
    pub(super) fn generations(&self) -> impl Iterator<Item = &GenerationMeta> {
        self.own.closed.iter().chain(&self.newest)
    }

    pub(super) fn boots_needed(&self) -> Vec<BootId> {
        let cursor = self.lowest_cursor();
        let mut boots: Vec<BootId> =
            self.generations().filter(|meta| meta.end > cursor).flat_map(|meta| meta.boots.iter().copied()).collect();
        boots.sort_unstable();
        boots.dedup();
        boots
    }

    pub(super) fn stat(&self) -> Stat {
        let cursor = self.lowest_cursor();
        let oldest = self.generations().find(|meta| meta.end > cursor && meta.first < meta.end);
        Stat {
            newest: self.own.next.saturating_sub(1),
            oldest_waiting: oldest.and_then(|meta| Some(Heard { boot: *meta.boots.first()?, ms: meta.oldest_ms })),
            bytes: self.generations().map(|meta| meta.bytes).sum(),
            generations: self.generations().count() as u64,
            aside_evicted: self.own.aside_evicted,
            aside_not_kept: self.own.aside_not_kept,
            state_keys: self.keys.len() as u64,
            ..self.seen.clone()
        }
    }

    /// Notes observations that will not be delivered.
    pub(super) fn note_gap(&mut self, gap: Gap) {
        self.own.gaps.push(gap);
        let surplus = self.own.gaps.len().saturating_sub(MAX_GAPS);
        self.own.gaps.drain(..surplus);
    }
}
