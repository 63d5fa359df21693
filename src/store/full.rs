//! Limits by bytes, age and free disk: what goes when they are reached.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use super::folder::{self, RESERVE_BYTES};
use super::queue::Queue;
use super::{Commit, Error, Gap, GapCause, IntakeTally, WhenFull};
use crate::reading::Heard;

impl Queue {
    /// Makes room for one more commit, or says that there is none.
    fn make_room(&mut self) -> Result<(), Error> {
        if self.settings.when_full == WhenFull::EvictOldest {
            self.evict_aged()?;
        }
        while let Some(limit) = self.reached_limit()? {
            let went =
                self.settings.when_full == WhenFull::EvictOldest && (self.evict_oldest()? || self.remove_damaged());
            if !went {
                return Err(Error::Full { what: limit });
            }
        }
        self.ensure_reserve()
    }

    /// The same for what the gateway notes of itself, its clock and names: only the disk can stand against it, not the
    /// limits. Nothing is forwarded before it is stored, so a store at its limit would wait for room for ever.
    fn make_room_for_state(&self) -> Result<(), Error> {
        self.free_reserve()?;
        self.ensure_reserve()
    }

    /// Makes room for this commit, or says that there is none.
    pub(super) fn make_room_for(&mut self, commit: &Commit) -> Result<(), Error> {
        if is_of_a_source(commit) { self.make_room() } else { self.make_room_for_state() }
    }

    /// Whether this commit may be written now. A refusal stands in `stat` until there is room again.
    pub(super) fn has_room_for(&mut self, commit: &Commit) -> Result<bool, Error> {
        match self.make_room_for(commit) {
            Ok(()) => {
                if is_of_a_source(commit) && self.no_room.take().is_some() {
                    tracing::info!("there is room again");
                }
                Ok(true)
            }
            Err(Error::Full { what }) => {
                self.refuse_for_room(what);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the disk has what every write needs.
    pub(super) fn has_reserve(&mut self) -> bool {
        match self.ensure_reserve() {
            Err(Error::Full { what }) => {
                self.refuse_for_room(what);
                false
            }
            // An error of the disk is found by the write itself.
            Ok(()) | Err(_) => true,
        }
    }

    fn refuse_for_room(&mut self, what: String) {
        if self.no_room.is_none() {
            tracing::warn!("the store is full: {what}; the sources wait");
        }
        self.no_room = Some(format!("the store is full: {what}; the sources wait"));
        self.publish();
    }

    /// Which limit is reached, in a sentence.
    fn reached_limit(&self) -> Result<Option<String>, Error> {
        let (bytes, max) = (self.disk_bytes(), crate::crash::tuned("store.max_bytes", self.settings.max_bytes));
        // Room for what the newest generation may still grow by the next commit.
        if bytes.saturating_add(RESERVE_BYTES.min(max / 8)) > max {
            return Ok(Some(format!("it has {bytes} of {max} bytes")));
        }
        let free = self.free_bytes()?;
        let min_free = self.settings.min_free.max(RESERVE_BYTES);
        Ok((free < min_free).then(|| format!("{free} bytes are free on the disk, and {min_free} are to stay free")))
    }

    fn evict_aged(&mut self) -> Result<(), Error> {
        let max_ms = u64::try_from(self.settings.max_age.as_millis()).unwrap_or(u64::MAX);
        let oldest_kept = self.now_ms().saturating_sub(max_ms);
        let newest = self.own.generations.get(&self.newest.number);
        let grows_old = |from_ms: u64| from_ms.saturating_add(max_ms / 4) < self.now_ms();
        if newest.is_some_and(|known| !known.is_empty() && grows_old(known.from_ms)) && self.ensure_reserve().is_ok() {
            self.roll()?;
        }
        while let Some(number) = self.evictable()
            && self.own.generations.get(&number).is_some_and(|known| known.to_ms < oldest_kept)
        {
            self.evict(number)?;
        }
        Ok(())
    }

    /// Whether a generation went.
    fn evict_oldest(&mut self) -> Result<bool, Error> {
        if self.evictable().is_none()
            && self.own.generations.get(&self.newest.number).is_some_and(|known| !known.is_empty())
        {
            self.free_reserve()?;
            self.ensure_reserve()?;
            self.roll()?;
        }
        let Some(number) = self.evictable() else { return Ok(false) };
        self.evict(number)?;
        Ok(true)
    }

    /// The oldest generation that holds no range in hand; never the newest.
    fn evictable(&self) -> Option<u64> {
        let in_hand = |first: u64, last: u64| {
            let ranges = self.own.destinations.values().filter_map(|to| to.range.as_ref());
            ranges.into_iter().any(|range| range.first <= last && range.last >= first)
        };
        let all = self.own.generations.iter();
        let mut older = all.filter(|(number, known)| **number != self.newest.number && !known.is_empty());
        older.find(|(_, known)| !in_hand(known.first, known.last)).map(|(number, _)| *number)
    }

    /// Takes one generation out: cursors and gaps durable first, then the files.
    fn evict(&mut self, number: u64) -> Result<(), Error> {
        let Some(known) = self.own.generations.get(&number).cloned() else { return Ok(()) };
        self.free_reserve()?;
        self.ensure_reserve()?;
        let lowest = self.own.destinations.values().map(|to| to.cursor).min().unwrap_or(0);
        self.note_gaps(number, lowest)?;
        self.own.note_lost(&known, GapCause::Evicted);
        self.own.set_generation(number, None);
        tracing::warn!(generation = number, from = known.first, to = known.last, "the store is full: the oldest goes");
        self.put(&[], &[])?;
        self.sync(Vec::new())?;
        drop(self.open.remove(&number));
        self.older_bytes.remove(&number);
        folder::remove(&self.row.dir, number).map_err(|error| Error::fatal("removing a generation", error))?;
        folder::ensure_ballast(&self.settings.dir, self.settings.min_free);
        Ok(())
    }

    /// One gap for each device of the generation that somebody still waited for.
    fn note_gaps(&mut self, number: u64, lowest: u64) -> Result<(), Error> {
        let records = match self.generation(number)? {
            Some(generation) => {
                let entries = generation.index.iter().filter(|entry| entry.last() >= lowest);
                entries.filter_map(|entry| generation.get(entry.record).ok()).collect()
            }
            None => Vec::new(),
        };
        let mut devices: BTreeMap<Arc<str>, (Heard, Heard, u64)> = BTreeMap::new();
        for record in records {
            let chunk = super::record::parse(&record).and_then(|record| self.codec.decode(record.chunk));
            for observation in chunk.map(|chunk| chunk.observations).unwrap_or_default() {
                let heard = observation.heard;
                let gap = devices.entry(observation.device).or_insert((heard, heard, 0));
                (gap.1, gap.2) = (heard, gap.2 + 1);
            }
        }
        for (device, (from, to, count)) in devices {
            let cause = GapCause::Evicted;
            self.own.add_gap(Gap { device: Some(device), from: Some(from), to: Some(to), count, cause });
        }
        Ok(())
    }

    /// Damaged generations go last. Whether one went.
    fn remove_damaged(&mut self) -> bool {
        let damaged = self.row.dir.join("damaged");
        let oldest = fs::read_dir(&damaged).ok().and_then(|entries| entries.flatten().map(|entry| entry.path()).min());
        let Some(path) = oldest else { return false };
        tracing::warn!(path = %path.display(), "the store is full: a damaged generation goes");
        let went = fs::remove_dir_all(&path).is_ok();
        self.damaged_bytes = folder::disk_bytes(&damaged);
        went
    }
}

fn is_of_a_source(commit: &Commit) -> bool {
    !commit.observations.is_empty() || !commit.aside.is_empty() || commit.intake != IntakeTally::default()
}
