//! The queue as the store thread owns it: the newest generation, those under a cursor, and how a record becomes durable.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::aside::Aside;
use super::chunk::{Codec, Header};
use super::folder::{self, RESERVE_BYTES};
use super::generation::{Generation, MAX_RECORDS};
use super::ledger::{Known, MAX_BOOTS, Own, SUMS};
use super::record::{self, Kind, MAX_RECORD_BYTES, MAX_TAIL_BESIDE_CHUNK, Place};
use super::reports::Reports;
use super::row::{Row, split_state};
use super::view::Shared;
use super::{CutLimit, DestinationStat, Error, Gap, GapCause, Ledger, Range, Settings, Stat, StateChange};
use crate::reading::RunId;

/// A forwarder that waits for the next range of an idle destination.
pub(super) struct Waiter {
    pub(super) destination: String,
    pub(super) anchors: u64,
    pub(super) basis: u64,
    pub(super) limit: CutLimit,
    pub(super) reply: oneshot::Sender<Result<Range, Error>>,
}

/// The store thread's own.
pub(super) struct Queue {
    pub(super) settings: Settings,
    pub(super) run: RunId,
    pub(super) codec: Codec,
    pub(super) row: Row,
    pub(super) own: Own,
    pub(super) shared: Arc<Shared>,
    pub(super) newest: Generation,
    /// Older generations under a cursor.
    pub(super) open: BTreeMap<u64, Generation>,
    /// Bytes on disk of the generations but the newest, and of `damaged/`.
    pub(super) older_bytes: BTreeMap<u64, u64>,
    pub(super) damaged_bytes: u64,
    pub(super) waiters: Vec<Waiter>,
    pub(super) aside: Aside,
    pub(super) reports: Reports,
    pub(super) unhealthy: Option<String>,
    /// Which limit makes commits wait.
    pub(super) no_room: Option<String>,
    pub(super) syncs: u64,
    pub(super) opened: Instant,
    pub(super) opened_ms: u64,
    /// Replies that wait for the next fdatasync.
    pub(super) ranged: Vec<(oneshot::Sender<Result<Range, Error>>, Range)>,
    pub(super) _lock: File,
}

impl Queue {
    /// Milliseconds that the store has been open in all.
    pub(super) fn now_ms(&self) -> u64 {
        self.opened_ms + self.opened.elapsed().as_millis() as u64
    }

    /// Puts a record into the newest generation: the chunk, the store's own changes and, where there is room, `changes`;
    /// what does not fit goes into the next records. Durable after [`Queue::sync`].
    pub(super) fn put(&mut self, chunk: &[u8], changes: &[StateChange]) -> Result<(), Error> {
        let now_ms = self.now_ms();
        self.own.totals_mut().open_ms = now_ms;
        self.note_newest();
        let mut beside = self.own.take_changes();
        let own_count = beside.len();
        beside.extend_from_slice(changes);
        let tail = record::tail(&mut self.codec, &beside)?;
        if tail.len() <= MAX_TAIL_BESIDE_CHUNK.max(MAX_RECORD_BYTES.saturating_sub(chunk.len() + 64)) {
            return self.put_record(chunk, &tail);
        }
        if chunk.is_empty() {
            return split_state(&mut self.codec, &beside)?.iter().try_for_each(|tail| self.put_record(&[], tail));
        }
        // Many devices' sums go before: each says up to where it counts, so a crash in between counts nothing twice.
        let sums = beside[..own_count].iter().take_while(|change| change.key.starts_with(SUMS)).count();
        if sums > 0 {
            split_state(&mut self.codec, &beside[..sums])?.iter().try_for_each(|tail| self.put_record(&[], tail))?;
        }
        let own_tail = record::tail(&mut self.codec, &beside[sums..own_count])?;
        self.put_record(chunk, &own_tail)?;
        split_state(&mut self.codec, changes)?.iter().try_for_each(|tail| self.put_record(&[], tail))
    }

    fn put_record(&mut self, chunk: &[u8], tail: &[u8]) -> Result<(), Error> {
        let place = Place { kind: Kind::Queue, generation: self.newest.number, record: self.newest.records };
        let header = if chunk.is_empty() { None } else { Header::read(chunk).ok() };
        let record = record::build(place, self.codec.key().is_some(), chunk, tail);
        self.newest.put(&record, header.as_ref())
    }

    fn note_newest(&mut self) {
        let number = self.newest.number;
        let mut known = self.own.generations.get(&number).cloned().unwrap_or_default();
        (known.records, known.bytes) = (self.newest.records, self.newest.bytes);
        self.own.set_generation(number, Some(known));
    }

    /// Makes everything put so far durable, then lets it be seen.
    pub(super) fn sync(&mut self, changes: Vec<StateChange>) -> Result<(), Error> {
        self.newest.sync()?;
        self.syncs += 1;
        if self.newest.has_blobs() {
            self.unhealthy = Some("sled put a record outside its log, where a power cut can lose it".to_owned());
        }
        self.shared.write().apply(changes);
        self.remove_drained();
        self.publish();
        for (reply, range) in self.ranged.drain(..) {
            // A forwarder that went away finds its range in hand when it comes back.
            drop(reply.send(Ok(range)));
        }
        Ok(())
    }

    /// A record of what changed, without observations.
    pub(super) fn write_changes(&mut self) -> Result<(), Error> {
        self.ensure_reserve()?;
        self.roll_if_full()?;
        self.put(&[], &[])?;
        self.sync(Vec::new())
    }

    /// Refuses where sled could meet a full disk in the middle of its log.
    pub(super) fn ensure_reserve(&self) -> Result<(), Error> {
        let free = self.free_bytes()?;
        if free < RESERVE_BYTES {
            Err(Error::Full { what: format!("{free} bytes are free on the disk") })
        } else {
            Ok(())
        }
    }

    /// Gives up the ballast where a record that frees room would find none. Nothing else may use it while the store is
    /// open: it is kept for opening on a full disk.
    pub(super) fn free_reserve(&self) -> Result<(), Error> {
        if self.free_bytes()? < RESERVE_BYTES && folder::give_up_ballast(&self.settings.dir) {
            tracing::warn!("the disk is full: the ballast is given up to make room");
        }
        Ok(())
    }

    pub(super) fn free_bytes(&self) -> Result<u64, Error> {
        folder::free_bytes(&self.row.dir).map_err(|error| Error::fatal("asking for the free disk space", error))
    }

    /// Begins a new generation when the newest has its size.
    pub(super) fn roll_if_full(&mut self) -> Result<(), Error> {
        let state_bytes = self.shared.read().bytes() + self.own.sums_bytes();
        let usual = self.settings.generation_bytes.max(8 * state_bytes);
        let limit = crate::crash::tuned("store.generation_bytes", usual);
        let boots = self.own.generations.get(&self.newest.number).map_or(0, |known| known.boots.len());
        if self.newest.bytes >= limit || self.newest.records >= MAX_RECORDS || boots >= MAX_BOOTS {
            self.roll()
        } else {
            Ok(())
        }
    }

    /// Begins a new generation.
    pub(super) fn roll(&mut self) -> Result<(), Error> {
        self.newest.sync()?;
        self.note_newest();
        let number = self.newest.number + 1;
        self.own.set_generation(number, Some(Known::default()));
        let mut state = self.own.whole();
        state.extend(self.shared.read().whole());
        let generation = self.row.birth(number, &mut self.codec, &state)?;
        self.syncs += 1;
        let old = std::mem::replace(&mut self.newest, generation);
        self.older_bytes.insert(old.number, old.disk_bytes());
        self.open.insert(old.number, old);
        self.close_unneeded();
        Ok(())
    }

    /// Closes generations that no cursor is in.
    pub(super) fn close_unneeded(&mut self) {
        let needed = |known: &Known| {
            self.own
                .destinations
                .values()
                .any(|to| !known.is_empty() && to.cursor <= known.last && to.cursor >= known.first)
        };
        let generations = &self.own.generations;
        self.open.retain(|number, _| generations.get(number).is_some_and(needed));
    }

    /// The generation of this number, opened if it is not yet. `None` when nothing is left of it.
    pub(super) fn generation(&mut self, number: u64) -> Result<Option<&Generation>, Error> {
        if number == self.newest.number {
            return Ok(Some(&self.newest));
        }
        if !self.open.contains_key(&number) {
            if !folder::named(&self.row.dir, "gen", number).exists() {
                return Ok(None);
            }
            let Some(opened) = self.row.open_beside(&self.open, number, &mut self.codec, false)? else {
                self.lose(number);
                return Ok(None);
            };
            if opened.healed {
                self.damaged_bytes = folder::disk_bytes(&self.row.dir.join("damaged"));
            }
            for generation in opened.before.into_iter().chain([opened.generation]) {
                self.open.entry(generation.number).or_insert(generation);
            }
        }
        Ok(self.open.get(&number))
    }

    /// A generation of which nothing is left. It stays known: its ranges are cut and settled as damaged like any hole.
    fn lose(&mut self, number: u64) {
        self.damaged_bytes = folder::disk_bytes(&self.row.dir.join("damaged"));
        self.older_bytes.remove(&number);
        let Some(known) = self.own.generations.get(&number) else { return };
        let lowest = self.own.destinations.values().map(|to| to.cursor).min().unwrap_or(0);
        let (device, cause) = (None, GapCause::Damaged);
        let gap = Gap { device, from: known.oldest, to: known.newest, count: known.waiting_at(lowest), cause };
        self.own.add_gap(gap);
    }

    /// Removes the generations that every cursor has passed. Their cursors are durable: this runs after an fdatasync.
    pub(super) fn remove_drained(&mut self) {
        let drained: Vec<u64> = self.own.drained(self.newest.number).collect();
        let frees = !drained.is_empty();
        for number in drained {
            drop(self.open.remove(&number));
            match folder::remove(&self.row.dir, number) {
                Ok(()) => {
                    self.older_bytes.remove(&number);
                    self.own.set_generation(number, None);
                }
                Err(error) => {
                    tracing::error!(generation = number, %error, "a delivered generation cannot be removed");
                    self.unhealthy = Some(format!("a delivered generation cannot be removed: {error}"));
                }
            }
        }
        if frees {
            folder::ensure_ballast(&self.settings.dir, self.settings.min_free);
        }
    }

    /// Bytes that the queue has on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.older_bytes.values().sum::<u64>() + self.newest.disk_bytes() + self.damaged_bytes
    }

    /// Lets the handles see how things are now.
    pub(super) fn publish(&self) {
        let own = &self.own;
        let destinations: Vec<_> = own.destinations.iter().map(|(name, to)| (name.clone(), own.tally(to))).collect();
        let stat = Stat {
            unhealthy: self.unhealthy.clone().or_else(|| self.no_room.clone()),
            newest: own.totals.next.saturating_sub(1),
            destinations: own
                .destinations
                .iter()
                .zip(&destinations)
                .map(|((name, to), (_, tally))| DestinationStat {
                    name: name.clone(),
                    waiting: tally.waiting,
                    cursor: to.cursor,
                    in_hand: to.range.clone(),
                    oldest_waiting: own.oldest_waiting(to.cursor),
                    reports_waiting: own.reports.waiting(&to.reports),
                })
                .collect(),
            oldest_waiting: own.oldest_waiting(own.destinations.values().map(|to| to.cursor).min().unwrap_or(0)),
            generations: own.generations.len() as u64,
            disk_bytes: self.disk_bytes(),
            max_bytes: self.settings.max_bytes,
            damaged_bytes: self.damaged_bytes,
            aside_bytes: self.aside.disk_bytes(),
            aside_entries: own.totals.aside.kept.iter().map(|(_, entries)| entries).sum(),
            aside_evicted: own.totals.aside.evicted,
            aside_replayed: own.totals.aside.replayed,
            aside_dropped: own.totals.aside.dropped,
            evicted: destinations.iter().map(|(_, tally)| tally.evicted).max().unwrap_or(0),
            gaps: own.gaps.len() as u64,
            reports_bytes: self.reports.disk_bytes(),
            reports_evicted: own.reports.evicted,
            free_bytes: folder::free_bytes(&self.row.dir).unwrap_or(0),
            sealed: self.codec.key().is_some(),
            syncs: self.syncs,
        };
        let ranges = own.destinations.iter().filter_map(|(name, to)| Some((name.clone(), to.range.clone()?)));
        let mut view = self.shared.write();
        view.ranges = ranges.collect();
        view.ledger = Ledger { intake: own.totals.intake, destinations };
        view.stat = stat;
        if view.gaps.len() != own.gaps.len() || view.gaps.last().map(|(number, _)| number) != own.gaps.keys().last() {
            view.gaps = own.gaps.iter().map(|(number, gap)| (*number, gap.clone())).collect();
        }
        let boots = own.boots();
        if view.boots != boots {
            view.boots = boots;
        }
    }

    /// Leaves everything as it stands, without running sled's destructors.
    pub(super) fn forget(self) {
        let Queue { newest, open, aside, reports, .. } = self;
        newest.forget();
        open.into_values().for_each(Generation::forget);
        aside.forget();
        reports.forget();
    }
}
