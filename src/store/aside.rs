//! What is set aside: a second row of generations of the same form, bounded by bytes, oldest generation out first.
//!
//! Entries are durable before the record of the commit that made them, so a crash between the two leaves an entry twice
//! at worst; a listing shows each once.

use std::collections::{BTreeMap, HashSet};

use super::chunk::Codec;
use super::folder;
use super::generation::{Generation, MAX_RECORDS};
use super::queue::Queue;
use super::record::{self, Kind, MAX_TAIL_BYTES, Place};
use super::row::Row;
use super::{AsideEntry, AsideKind, Error};

/// Bytes kept of one entry.
const MAX_ENTRY_BYTES: usize = 64 * 1024;
/// Entries' bytes put into one record.
const MAX_PLAIN_BYTES: usize = 80 * 1024;

/// The row set aside. Its newest generation is opened by the first entry of a process.
pub(super) struct Aside {
    row: Row,
    newest: Option<Generation>,
    /// Bytes on disk of each generation that is not open.
    bytes: BTreeMap<u64, u64>,
}

impl Aside {
    pub(super) fn new(row: Row) -> Result<Aside, Error> {
        let numbers = row.prepare()?;
        let bytes = |number: u64| folder::disk_bytes(&folder::named(&row.dir, "gen", number));
        let bytes = numbers.into_iter().map(|number| (number, bytes(number))).collect();
        Ok(Aside { row, newest: None, bytes })
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.bytes.values().sum::<u64>() + self.newest.as_ref().map_or(0, Generation::disk_bytes)
    }

    /// Generations, oldest first.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.bytes.keys().copied().chain(self.newest.as_ref().map(|newest| newest.number)).collect()
    }

    /// The generation to append to. A full one is followed by another.
    fn writable(&mut self, codec: &mut Codec, generation_bytes: u64) -> Result<&mut Generation, Error> {
        let is_full =
            |generation: &Generation| generation.bytes >= generation_bytes || generation.records >= MAX_RECORDS;
        if self.newest.is_none()
            && let Some(number) = self.bytes.keys().next_back().copied()
        {
            self.newest = self.row.open(number, codec, false)?.map(|opened| opened.generation);
            self.bytes.remove(&number);
        }
        let number = match self.newest.take() {
            Some(newest) if is_full(&newest) => {
                self.bytes.insert(newest.number, newest.disk_bytes());
                newest.number + 1
            }
            Some(newest) => return Ok(self.newest.insert(newest)),
            None => self.bytes.keys().next_back().map_or(1, |number| number + 1),
        };
        let born = self.row.birth(number, codec, &[])?;
        Ok(self.newest.insert(born))
    }

    pub(super) fn forget(self) {
        self.newest.into_iter().for_each(Generation::forget);
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
            rest = &rest[count..];
            let sealed = self.codec.key().is_some();
            let generation = self.aside.writable(&mut self.codec, generation_bytes)?;
            let place = Place { kind: Kind::Aside, generation: generation.number, record: generation.records };
            generation.put(&record::build(place, sealed, &[], &tail), None)?;
            let number = generation.number;
            let kept = &mut self.own.totals_mut().aside.kept;
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
            if let Err(error) = folder::remove(&self.aside.row.dir, number) {
                tracing::error!(%error, "the oldest entries set aside cannot be removed");
                self.unhealthy = Some(format!("the oldest entries set aside cannot be removed: {error}"));
                return;
            }
            let totals = &mut self.own.totals_mut().aside;
            let gone = totals.kept.iter().filter(|(of, _)| *of == number).map(|(_, entries)| entries).sum::<u64>();
            totals.kept.retain(|(of, _)| *of != number);
            totals.evicted += gone;
            tracing::warn!(entries = gone, "too much is set aside: the oldest entries go");
        }
    }

    /// The newest entries, oldest of them first.
    pub(super) fn list_aside(&mut self, limit: usize) -> Result<Vec<AsideEntry>, Error> {
        let mut parts: Vec<Vec<AsideEntry>> = Vec::new();
        let mut count = 0;
        for number in self.aside.numbers().into_iter().rev() {
            if count >= limit {
                break;
            }
            let entries = self.entries_of(number)?;
            count += entries.len();
            parts.push(entries);
        }
        let mut seen = HashSet::new();
        let mut all: Vec<AsideEntry> = parts.into_iter().rev().flatten().collect();
        all.retain(|entry| seen.insert(identity(entry)));
        let surplus = all.len().saturating_sub(limit);
        all.drain(..surplus);
        Ok(all)
    }

    fn entries_of(&mut self, number: u64) -> Result<Vec<AsideEntry>, Error> {
        let opened;
        let generation = match &self.aside.newest {
            Some(newest) if newest.number == number => newest,
            _ => match self.aside.row.open(number, &mut self.codec, false)? {
                Some(found) => {
                    opened = found.generation;
                    &opened
                }
                None => return Ok(Vec::new()),
            },
        };
        let mut entries = Vec::new();
        for record in 0..generation.records {
            let Ok(value) = generation.get(record) else { continue };
            let Ok(parsed) = record::parse(&value) else { continue };
            if parsed.tail.is_empty() {
                continue;
            }
            let plain = self.codec.unwrap(parsed.tail, parsed.sealed);
            match plain.map(|plain| serde_cbor::from_slice::<Vec<AsideEntry>>(&plain)) {
                Ok(Ok(found)) => entries.extend(found),
                _ => tracing::error!(generation = number, record, "entries set aside cannot be read"),
            }
        }
        Ok(entries)
    }
}

type Identity = (AsideKind, uuid::Uuid, u64, Option<String>, Vec<u8>);

fn identity(entry: &AsideEntry) -> Identity {
    (entry.kind, entry.run.0, entry.reading, entry.destination.clone(), entry.bytes.clone())
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
