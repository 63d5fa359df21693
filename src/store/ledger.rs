//! The store's own state: totals, one entry for each destination and each generation, gaps. Each lies in the store as
//! one state key that begins with [`OWN`], committed in the same record as what it counts.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::removed::AsideKnown;
use super::reports::{PerKind, ReportTotals};
use super::sums::{Shard, SumKey};
use super::{DestinationTally, Gap, GapCause, IntakeTally, Range, Sequence, StateChange};
use crate::reading::{BootId, Heard};

/// The first character of the store's own keys.
pub(super) const OWN: char = '!';
/// How the keys of what was sent begin.
pub(super) const SUMS: &str = "!sums/";
/// Gaps kept until they are fetched; of more than these the oldest two become one.
const MAX_GAPS: usize = 1_024;
/// A generation of so many boots is full: each of its records names them.
pub(super) const MAX_BOOTS: usize = 64;

/// What stands beside the chunks as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    pub(super) intake: IntakeTally,
    /// The next sequence to give.
    pub(super) next: Sequence,
    /// Milliseconds that this store has been open, over all its processes: the one clock that nobody steps.
    pub(super) open_ms: u64,
    pub(super) next_gap: u64,
    pub(super) damaged_bytes: u64,
    pub(super) aside: AsideTotals,
}

/// What is known of the row of generations beside the queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AsideTotals {
    /// Generation, and the entries in it.
    pub(super) kept: Vec<(u64, u64)>,
    pub(super) evicted: u64,
    /// Entries whose bytes were too many to keep.
    pub(super) stripped: u64,
    /// Entries that came back, and those that a person removed.
    pub(super) replayed: u64,
    pub(super) dropped: u64,
    /// The highest number that a generation had: none is given twice, so what is known of one is never of another.
    pub(super) last: u64,
}

/// Where one destination stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Destination {
    /// The first sequence that it has not been settled for.
    pub(super) cursor: Sequence,
    pub(super) range: Option<Range>,
    pub(super) tally: DestinationTally,
    /// Of each kind the first report that it has not got.
    pub(super) reports: PerKind,
}

/// What is known of a generation without opening it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Known {
    /// 0 when it holds no observation.
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    pub(super) records: u32,
    pub(super) bytes: u64,
    pub(super) boots: Vec<BootId>,
    pub(super) oldest: Option<Heard>,
    pub(super) newest: Option<Heard>,
    /// `open_ms` when its first and its last chunk came.
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
}

impl Known {
    pub(super) fn is_empty(&self) -> bool {
        self.first == 0
    }

    /// How many of its sequences are `cursor` or later.
    pub(super) fn waiting_at(&self, cursor: Sequence) -> u64 {
        if self.is_empty() { 0 } else { (self.last + 1).saturating_sub(cursor.max(self.first)) }
    }

    /// When the observation of this sequence was heard, as if those of a generation came evenly: a generation may hold
    /// hours, and what waits may have come a second ago.
    fn heard_about(&self, sequence: Sequence) -> Option<Heard> {
        let (oldest, newest) = (self.oldest?, self.newest?);
        if oldest.boot != newest.boot || self.last <= self.first {
            return Some(oldest);
        }
        let past = sequence.saturating_sub(self.first).min(self.last - self.first);
        let span = newest.ms.saturating_sub(oldest.ms);
        let ms = (u128::from(span) * u128::from(past) / u128::from(self.last - self.first)) as u64;
        Some(Heard { boot: oldest.boot, ms: oldest.ms.saturating_add(ms) })
    }

    /// Takes note of one more chunk.
    pub(super) fn add(&mut self, first: Sequence, last: Sequence, heard: (Heard, Heard), now_ms: u64) {
        if self.is_empty() {
            (self.first, self.oldest, self.from_ms) = (first, Some(heard.0), now_ms);
        }
        (self.last, self.newest, self.to_ms) = (last, Some(heard.1), now_ms);
        for boot in [heard.0.boot, heard.1.boot] {
            self.add_boot(boot);
        }
    }

    pub(super) fn add_boot(&mut self, boot: BootId) {
        if !self.boots.contains(&boot) {
            self.boots.push(boot);
        }
    }
}

/// So many boots of what is set aside keep their clock anchors: the anchors are one value of the store.
const MAX_ASIDE_BOOTS: usize = 64;

/// Everything above, and which of its keys the next record has to carry.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) totals: Totals,
    pub(super) destinations: BTreeMap<String, Destination>,
    /// All generations but those that are being removed, the newest included.
    pub(super) generations: BTreeMap<u64, Known>,
    pub(super) gaps: BTreeMap<u64, Gap>,
    pub(super) reports: ReportTotals,
    pub(super) sums: BTreeMap<SumKey, Shard>,
    /// What is known of each generation set aside.
    pub(super) aside: BTreeMap<u64, AsideKnown>,
    dirty: BTreeSet<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// First, so that what does not fit into one record goes before the cursor that it belongs to.
    Sums(SumKey),
    Totals,
    Destination(String),
    Generation(u64),
    Gap(u64),
    Reports,
    Aside(u64),
}

impl Key {
    fn text(&self) -> String {
        match self {
            Key::Totals => "!totals".to_owned(),
            Key::Destination(name) => format!("!destination/{name}"),
            Key::Generation(number) => format!("!generation/{number}"),
            Key::Gap(number) => format!("!gap/{number}"),
            Key::Reports => "!reports".to_owned(),
            Key::Sums((name, hour, shard)) => format!("{SUMS}{name}/{hour}/{shard}"),
            Key::Aside(number) => format!("!aside/{number}"),
        }
    }

    fn parse(text: &str) -> Option<Key> {
        match text.strip_prefix(OWN)?.split_once('/') {
            None if text == "!reports" => Some(Key::Reports),
            None => (text == "!totals").then_some(Key::Totals),
            Some(("destination", name)) => Some(Key::Destination(name.to_owned())),
            Some(("generation", number)) => number.parse().ok().map(Key::Generation),
            Some(("sums", rest)) => {
                let mut parts = rest.rsplitn(3, '/');
                let shard = parts.next()?.parse().ok()?;
                let hour = parts.next()?.parse().ok()?;
                Some(Key::Sums((parts.next()?.to_owned(), hour, shard)))
            }
            Some(("gap", number)) => number.parse().ok().map(Key::Gap),
            Some(("aside", number)) => number.parse().ok().map(Key::Aside),
            Some(_) => None,
        }
    }
}

impl Own {
    /// Folds one change of the store's own keys. What does not decode is left as it was: a later record has it again.
    pub(super) fn apply(&mut self, change: &StateChange) {
        let value = change.value.as_deref();
        match Key::parse(&change.key) {
            Some(Key::Totals) => {
                if let Some(totals) = value.and_then(from_bytes) {
                    self.totals = totals;
                }
            }
            Some(Key::Destination(name)) => fold(&mut self.destinations, name, value),
            Some(Key::Generation(number)) => fold(&mut self.generations, number, value),
            Some(Key::Gap(number)) => fold(&mut self.gaps, number, value),
            Some(Key::Sums(key)) => fold(&mut self.sums, key, value),
            Some(Key::Reports) => {
                if let Some(reports) = value.and_then(from_bytes) {
                    self.reports = reports;
                }
            }
            Some(Key::Aside(number)) => fold(&mut self.aside, number, value),
            None => {}
        }
    }

    /// The whole of it, as a birth writes it.
    pub(super) fn whole(&self) -> Vec<StateChange> {
        let keys = [Key::Totals, Key::Reports]
            .into_iter()
            .chain(self.destinations.keys().cloned().map(Key::Destination))
            .chain(self.generations.keys().copied().map(Key::Generation))
            .chain(self.gaps.keys().copied().map(Key::Gap))
            .chain(self.sums.keys().cloned().map(Key::Sums))
            .chain(self.aside.keys().copied().map(Key::Aside));
        keys.map(|key| self.change(&key)).collect()
    }

    /// What changed since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<StateChange> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.iter().map(|key| self.change(key)).collect()
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn change(&self, key: &Key) -> StateChange {
        let value = match key {
            Key::Totals => to_bytes(&self.totals),
            Key::Destination(name) => self.destinations.get(name).and_then(to_bytes),
            Key::Generation(number) => self.generations.get(number).and_then(to_bytes),
            Key::Gap(number) => self.gaps.get(number).and_then(to_bytes),
            Key::Reports => to_bytes(&self.reports),
            Key::Sums(key) => self.sums.get(key).and_then(to_bytes),
            Key::Aside(number) => self.aside.get(number).and_then(to_bytes),
        };
        StateChange { key: key.text(), value }
    }

    pub(super) fn totals_mut(&mut self) -> &mut Totals {
        self.dirty.insert(Key::Totals);
        &mut self.totals
    }

    pub(super) fn reports_mut(&mut self) -> &mut ReportTotals {
        self.dirty.insert(Key::Reports);
        &mut self.reports
    }

    pub(super) fn sum_mut(&mut self, key: &SumKey) -> &mut Shard {
        self.dirty.insert(Key::Sums(key.clone()));
        self.sums.entry(key.clone()).or_default()
    }

    pub(super) fn remove_sums(&mut self, key: &SumKey) {
        self.dirty.insert(Key::Sums(key.clone()));
        self.sums.remove(key);
    }

    pub(super) fn destination_mut(&mut self, name: &str) -> Option<&mut Destination> {
        let destination = self.destinations.get_mut(name)?;
        self.dirty.insert(Key::Destination(name.to_owned()));
        Some(destination)
    }

    pub(super) fn set_destination(&mut self, name: &str, destination: Option<Destination>) {
        self.dirty.insert(Key::Destination(name.to_owned()));
        match destination {
            Some(destination) => self.destinations.insert(name.to_owned(), destination),
            None => self.destinations.remove(name),
        };
    }

    pub(super) fn set_generation(&mut self, number: u64, known: Option<Known>) {
        self.dirty.insert(Key::Generation(number));
        match known {
            Some(known) => self.generations.insert(number, known),
            None => self.generations.remove(&number),
        };
    }

    pub(super) fn aside_mut(&mut self, number: u64) -> &mut AsideKnown {
        self.dirty.insert(Key::Aside(number));
        self.aside.entry(number).or_default()
    }

    /// A generation set aside is gone, or its records have other numbers than before.
    pub(super) fn forget_aside(&mut self, number: u64) {
        if self.aside.remove(&number).is_some() {
            self.dirty.insert(Key::Aside(number));
        }
    }

    pub(super) fn add_gap(&mut self, gap: Gap) {
        let number = self.totals.next_gap;
        self.totals_mut().next_gap += 1;
        self.dirty.insert(Key::Gap(number));
        self.gaps.insert(number, gap);
        if self.gaps.len() > MAX_GAPS {
            self.join_oldest_gaps();
        }
    }

    fn join_oldest_gaps(&mut self) {
        let Some((first, oldest)) = self.gaps.pop_first() else { return };
        self.dirty.insert(Key::Gap(first));
        if let Some((second, next)) = self.gaps.iter_mut().next() {
            if next.device != oldest.device {
                next.device = None;
            }
            next.from = oldest.from.or(next.from);
            next.count += oldest.count;
            self.dirty.insert(Key::Gap(*second));
        }
    }

    pub(super) fn forget_gaps(&mut self, through: u64) {
        while let Some((number, _)) = self.gaps.first_key_value() {
            if *number > through {
                break;
            }
            self.dirty.insert(Key::Gap(*number));
            self.gaps.pop_first();
        }
    }

    /// Observations that are still to be settled for this destination.
    pub(super) fn waiting(&self, destination: &Destination) -> u64 {
        self.generations.values().map(|known| known.waiting_at(destination.cursor)).sum()
    }

    /// The destination's tally with `waiting` filled in. The balance with `stored` is kept by [`Own::balance`].
    pub(super) fn tally(&self, destination: &Destination) -> DestinationTally {
        DestinationTally { waiting: self.waiting(destination), ..destination.tally }
    }

    /// Generations but the newest that no destination needs. With no destination at all nothing is delivered.
    pub(super) fn drained(&self, newest: u64) -> impl Iterator<Item = u64> + '_ {
        let lowest = self.destinations.values().map(|to| to.cursor).min();
        let is_drained = move |known: &Known| known.is_empty() || lowest.is_some_and(|lowest| known.last < lowest);
        let all = self.generations.iter().filter(move |(number, known)| **number != newest && is_drained(known));
        all.map(|(number, _)| *number)
    }

    /// When the oldest observation that waits behind this cursor was heard, about.
    pub(super) fn oldest_waiting(&self, cursor: Sequence) -> Option<Heard> {
        self.generations.values().find(|known| known.waiting_at(cursor) > 0).and_then(|known| known.heard_about(cursor))
    }

    /// The boots of everything that is kept; of what is set aside the newest.
    pub(super) fn boots(&self) -> Vec<BootId> {
        let mut boots: Vec<BootId> = self.generations.values().flat_map(|known| known.boots.iter().copied()).collect();
        boots.sort_unstable();
        boots.dedup();
        let of_queue = boots.len();
        for boot in self.aside.values().rev().flat_map(|known| known.boots.iter().rev()) {
            if boots.len() - of_queue >= MAX_ASIDE_BOOTS {
                break;
            }
            if !boots.contains(boot) {
                boots.push(*boot);
            }
        }
        boots.sort_unstable();
        boots
    }

    /// Counts a generation that is gone for each destination that still waited for it.
    pub(super) fn note_lost(&mut self, known: &Known, cause: GapCause) {
        let names: Vec<String> = self.destinations.keys().cloned().collect();
        let mut most = 0;
        for name in names {
            let Some(destination) = self.destination_mut(&name) else { continue };
            let lost = known.waiting_at(destination.cursor);
            match cause {
                GapCause::Evicted => destination.tally.evicted += lost,
                GapCause::Damaged => destination.tally.damaged += lost,
            }
            if (known.first..=known.last).contains(&destination.cursor) {
                destination.cursor = known.last + 1;
                destination.range = None;
            }
            most = most.max(lost);
        }
        if most > 0 && cause == GapCause::Damaged {
            self.add_gap(Gap { device: None, from: known.oldest, to: known.newest, count: most, cause });
        }
    }

    /// Makes the ledger balance after damage: what neither waits nor was counted is damaged, and observations that were
    /// found although the totals of their commit were lost are stored.
    pub(super) fn balance(&mut self) -> u64 {
        let counted = |own: &Own, to: &Destination| own.tally(to).sum();
        let most = self.destinations.values().map(|to| counted(self, to)).max().unwrap_or(0);
        let found = most.saturating_sub(self.totals.intake.stored);
        if found > 0 {
            let intake = &mut self.totals_mut().intake;
            intake.stored += found;
            intake.made += found;
        }
        let stored = self.totals.intake.stored;
        let mut worst = 0;
        let names: Vec<String> = self.destinations.keys().cloned().collect();
        for name in names {
            let missing = self.destinations.get(&name).map_or(0, |to| stored.saturating_sub(counted(self, to)));
            if missing > 0
                && let Some(destination) = self.destination_mut(&name)
            {
                destination.tally.damaged += missing;
                worst = worst.max(missing);
            }
        }
        worst
    }
}

fn fold<K: Ord, V: DeserializeOwned>(map: &mut BTreeMap<K, V>, key: K, value: Option<&[u8]>) {
    match value.map(from_bytes) {
        None => drop(map.remove(&key)),
        Some(Some(value)) => drop(map.insert(key, value)),
        Some(None) => {}
    }
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_cbor::from_slice(bytes).ok()
}

fn to_bytes<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    // Plain values into a Vec: serde_cbor has no other failure here than an IO error, which a Vec never gives.
    serde_cbor::to_vec(value).ok()
}
