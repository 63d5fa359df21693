//! What is set aside: a second row of generations of the same form, bounded by bytes, oldest generation out first.
//!
//! Entries are durable before the record of the commit that made them, so a crash between the two leaves an entry twice
//! at worst; a listing shows each once. Entries are read and removed in `aside_read`.

use std::collections::BTreeMap;

use super::chunk::Codec;
use super::folder;
use super::generation::{Generation, MAX_RECORDS};
use super::ledger::MAX_BOOTS;
use super::queue::Queue;
use super::record::{self, Kind, MAX_TAIL_BYTES, Place};
use super::row::Row;
use super::{AsideEntry, Error};

/// Bytes kept of one entry.
const MAX_ENTRY_BYTES: usize = 64 * 1024;
/// Entries' bytes put into one record.
const MAX_PLAIN_BYTES: usize = 80 * 1024;

/// The row set aside. Its newest generation is opened by the first entry of a process.
pub(super) struct Aside {
    pub(super) row: Row,
    pub(super) newest: Option<Generation>,
    /// The older generation that is being read.
    pub(super) reading: Option<Generation>,
    /// Bytes on disk of each generation that is not open.
    pub(super) bytes: BTreeMap<u64, u64>,
}

impl Aside {
    pub(super) fn new(row: Row) -> Result<Aside, Error> {
        let numbers = row.prepare()?;
        let bytes = |number: u64| folder::disk_bytes(&folder::named(&row.dir, "gen", number));
        let bytes = numbers.into_iter().map(|number| (number, bytes(number))).collect();
        Ok(Aside { row, newest: None, reading: None, bytes })
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.bytes.values().sum::<u64>() + self.newest.as_ref().map_or(0, Generation::disk_bytes)
    }

    /// Generations, oldest first.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.bytes.keys().copied().chain(self.newest.as_ref().map(|newest| newest.number)).collect()
    }

    /// The generation to append to, once the newest is open. A full one is followed by another, after `last` at least.
    fn writable(
        &mut self,
        codec: &mut Codec,
        is_full: impl Fn(&Generation) -> bool,
        last: u64,
    ) -> Result<&mut Generation, Error> {
        match self.newest.take() {
            Some(newest) if !is_full(&newest) => return Ok(self.newest.insert(newest)),
            Some(newest) => drop(self.bytes.insert(newest.number, newest.disk_bytes())),
            None => {}
        }
        let highest = self.bytes.keys().next_back().copied().unwrap_or(0);
        let born = self.row.birth(highest.max(last) + 1, codec, &[])?;
        Ok(self.newest.insert(born))
    }

    /// Forgets a generation, so that its folder can be removed.
    pub(super) fn release(&mut self, number: u64) {
        self.newest.take_if(|newest| newest.number == number);
        self.reading.take_if(|reading| reading.number == number);
        self.bytes.remove(&number);
    }

    pub(super) fn forget(self) {
        self.newest.into_iter().chain(self.reading).for_each(Generation::forget);
    }
}

impl Queue {
    /// Makes entries durable. What is over the row's limit goes, oldest first.
    pub(super) fn set_aside(&mut self, mut entries: Vec<AsideEntry>) -> Result<(), Error> {
        let generation_bytes = self.settings.generation_bytes.min(self.settings.aside_max_bytes / 4).max(1);
        for entry in entries.iter_mut().filter(|entry| entry.bytes.len() > MAX_ENTRY_BYTES) {
            let length = entry.bytes.len();
            entry.bytes = Vec::new();
            entry.reason.push_str(&format!(" ({length} bytes, too many to keep)"));
            self.own.totals_mut().aside.stripped += 1;
        }
        let mut rest = &entries[..];
        while !rest.is_empty() {
            let (tail, count) = fitting(&mut self.codec, rest)?;
            let (these, after) = rest.split_at(count);
            rest = after;
            let sealed = self.codec.key().is_some();
            self.open_newest_aside()?;
            let own = &self.own;
            let is_full = |generation: &Generation| {
                let boots = own.aside.get(&generation.number).map_or(0, |known| known.boots.len());
                generation.bytes >= generation_bytes || generation.records >= MAX_RECORDS || boots >= MAX_BOOTS
            };
            let generation = self.aside.writable(&mut self.codec, is_full, own.totals.aside.last)?;
            let place = Place { kind: Kind::Aside, generation: generation.number, record: generation.records };
            generation.put(&record::build(place, sealed, &[], &tail), None)?;
            let number = generation.number;
            let known = self.own.aside_mut(number);
            these.iter().for_each(|entry| known.add_boot(entry.heard.boot));
            let totals = &mut self.own.totals_mut().aside;
            totals.last = totals.last.max(number);
            let kept = &mut totals.kept;
            match kept.iter_mut().find(|(of, _)| *of == number) {
                Some((_, known)) => *known += count as u64,
                None => kept.push((number, count as u64)),
            }
        }
        if let Some(generation) = &mut self.aside.newest {
            generation.sync()?;
            self.syncs += 1;
        }
        self.bound_aside();
        Ok(())
    }

    fn bound_aside(&mut self) {
        while self.aside.disk_bytes() > self.settings.aside_max_bytes
            && let Some((number, _)) = self.aside.bytes.pop_first()
        {
            self.aside.release(number);
            if let Err(error) = folder::remove(&self.aside.row.dir, number) {
                tracing::error!(%error, "the oldest entries set aside cannot be removed");
                self.unhealthy = Some(format!("the oldest entries set aside cannot be removed: {error}"));
                return;
            }
            let totals = &mut self.own.totals_mut().aside;
            let gone = totals.kept.iter().filter(|(of, _)| *of == number).map(|(_, entries)| entries).sum::<u64>();
            totals.kept.retain(|(of, _)| *of != number);
            totals.evicted += gone;
            self.own.forget_aside(number);
            tracing::warn!(entries = gone, "too much is set aside: the oldest entries go");
        }
    }
}

/// The tail of as many entries as fit, and how many those are.
fn fitting(codec: &mut Codec, entries: &[AsideEntry]) -> Result<(Vec<u8>, usize), Error> {
    let mut bytes = 0;
    let fitting = entries.iter().take_while(|entry| {
        bytes += entry.bytes.len() + entry.reason.len() + 256;
        bytes <= MAX_PLAIN_BYTES
    });
    let mut count = fitting.count().max(1);
    loop {
        let plain = serde_cbor::to_vec(&&entries[..count]).map_err(|error| Error::fatal("writing an entry", error))?;
        let tail = codec.wrap(&plain)?;
        if tail.len() <= MAX_TAIL_BYTES {
            return Ok((tail, count));
        }
        if count == 1 {
            return Err(Error::Refused { what: format!("an entry of {} bytes to set aside", tail.len()) });
        }
        count = count.div_ceil(2);
    }
}
