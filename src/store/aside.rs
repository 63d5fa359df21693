//! What is no waiting event and that a person may want to see or bring back: a second row of generations, of the same
//! form, oldest out first.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::generation::{Generation, MAX_RECORDS, OpenFailure};
use super::record::{self, Bytes, Changes};
use super::seal::Seal;
use super::{AsideEntry, disk, salvage};

/// Longer raw bytes are counted and not kept.
pub(super) const MAX_BYTES: usize = 64 << 10;

/// So many generations share the limit: what is pushed out at once is an eighth of it.
const PARTS: u64 = 8;

/// The row.
pub(super) struct Aside {
    row: PathBuf,
    max_bytes: u64,
    seal: Option<Arc<Seal>>,
    /// Number, bytes and entries of each, oldest first; the last is the open one.
    parts: VecDeque<(u64, u64, u64)>,
    newest: Generation,
}

impl Aside {
    pub(super) fn open(row: &Path, max_bytes: u64, seal: Option<Arc<Seal>>) -> Result<Aside, OpenFailure> {
        let refused = OpenFailure::Refused;
        std::fs::create_dir_all(row).map_err(refused)?;
        disk::sweep(row).map_err(refused)?;
        let fatal = |why: sled::Error| OpenFailure::Refused(std::io::Error::other(why.to_string()));
        let mut parts = VecDeque::new();
        let mut newest = None;
        for number in disk::numbers(row).map_err(refused)? {
            let mut entries = 0;
            let mut count = |bytes: &[u8]| entries += entries_of(bytes, seal.as_ref()).len() as u64;
            let generation = match Generation::open(&disk::folder(row, number), number, &mut count) {
                Ok(generation) => generation,
                Err(OpenFailure::Damaged(why)) => salvage::rebuild(row, number, &why, &mut count).map_err(fatal)?,
                Err(refusal) => return Err(refusal),
            };
            parts.push_back((number, generation.bytes, entries));
            newest = Some(generation);
        }
        let newest = match newest {
            Some(generation) => generation,
            None => {
                parts.push_back((1, 0, 0));
                Generation::birth(row, "new", 1, &[], || Ok(())).map_err(fatal)?
            }
        };
        Ok(Aside { row: row.to_owned(), max_bytes, seal, parts, newest })
    }

    /// Makes the entries durable; returns how many older ones were pushed out, and how many were too long to keep.
    pub(super) fn append(&mut self, entries: Vec<AsideEntry>) -> Result<(u64, u64), sled::Error> {
        let before = entries.len();
        let kept: Vec<AsideEntry> = entries.into_iter().filter(|entry| entry.bytes.len() <= MAX_BYTES).collect();
        let not_kept = (before - kept.len()) as u64;
        let mut evicted = 0;
        for batch in batches(kept) {
            evicted += self.make_room()?;
            let number = self.newest.next;
            let keys = vec![(String::new(), Some(Bytes(serde_cbor::to_vec(&batch).map_err(broken)?)))];
            let changes = Changes(keys, None, Default::default(), None);
            let bytes = record::encode(number, number, true, &[], &changes, self.seal.as_ref()).map_err(broken)?;
            self.newest.append(&bytes)?;
            if let Some(part) = self.parts.back_mut() {
                part.1 += bytes.len() as u64;
                part.2 += batch.len() as u64;
            }
        }
        self.newest.make_durable()?;
        Ok((evicted, not_kept))
    }

    fn make_room(&mut self) -> Result<u64, sled::Error> {
        if self.newest.bytes >= self.max_bytes / PARTS || self.newest.next >= MAX_RECORDS {
            let number = self.newest.number + 1;
            self.newest = Generation::birth(&self.row, "new", number, &[], || Ok(()))?;
            self.parts.push_back((number, 0, 0));
        }
        let mut evicted = 0;
        while self.parts.len() > 1 && self.bytes() >= self.max_bytes {
            if let Some((number, _, entries)) = self.parts.pop_front() {
                disk::remove(&disk::folder(&self.row, number))?;
                evicted += entries;
            }
        }
        Ok(evicted)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, bytes, _)| bytes).sum()
    }

    pub(super) fn count(&self) -> u64 {
        self.parts.iter().map(|(_, _, entries)| entries).sum()
    }

    /// The newest entries, oldest of them first, at most `limit`.
    pub(super) fn list(&self, limit: usize) -> Result<Vec<AsideEntry>, String> {
        let mut newest_first: VecDeque<AsideEntry> = VecDeque::new();
        for &(number, _, _) in self.parts.iter().rev() {
            if newest_first.len() >= limit {
                break;
            }
            let mut of_part = Vec::new();
            let mut take = |bytes: &[u8]| of_part.extend(entries_of(bytes, self.seal.as_ref()));
            if number == self.newest.number {
                for record in 0..self.newest.next {
                    if let Some(bytes) = self.newest.record(record).map_err(|why| why.to_string())? {
                        take(&bytes);
                    }
                }
            } else {
                let opened = Generation::open(&disk::folder(&self.row, number), number, &mut take);
                drop(opened.map_err(|why| format!("{why:?}"))?);
            }
            of_part.into_iter().rev().for_each(|entry| newest_first.push_front(entry));
        }
        while newest_first.len() > limit {
            newest_first.pop_front();
        }
        // A crash between this row's record and the queue's lets a source repeat a reading: the copy is not shown.
        let mut seen = std::collections::HashSet::new();
        newest_first.retain(|entry| seen.insert((entry.run, entry.reading, entry.kind, entry.reason.clone())));
        Ok(newest_first.into())
    }
}

fn broken(why: impl std::fmt::Display) -> sled::Error {
    sled::Error::Unsupported(why.to_string())
}

fn entries_of(bytes: &[u8], seal: Option<&Arc<Seal>>) -> Vec<AsideEntry> {
    let Some(record) = record::decode(bytes, seal) else { return Vec::new() };
    let Changes(keys, ..) = record.changes;
    keys.into_iter()
        .filter_map(|(_, value)| serde_cbor::from_slice::<Vec<AsideEntry>>(&value?.0).ok())
        .flatten()
        .collect()
}

/// Cut so that each batch fits a record.
fn batches(entries: Vec<AsideEntry>) -> Vec<Vec<AsideEntry>> {
    let mut all: Vec<Vec<AsideEntry>> = Vec::new();
    let mut bytes = usize::MAX;
    for entry in entries {
        // What CBOR adds: names of fields, and two characters for a byte of a plain byte list at worst.
        let own = entry.bytes.len() + entry.reason.len() + 512;
        if bytes.saturating_add(own) > 96 << 10 {
            all.push(Vec::new());
            bytes = 0;
        }
        bytes += own;
        if let Some(batch) = all.last_mut() {
            batch.push(entry);
        }
    }
    all
}
