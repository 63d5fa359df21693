//! The store's one thread: it owns every database, and each request is a step of it.
//!
//! Requests that wait are taken together: what is settled, wished and committed meanwhile shares one record and one
//! fdatasync where it can.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::aside::Aside;
use super::chunk::{self, Decoder, Encoder};
use super::generation::{Generation, MAX_RECORDS, OpenFailure, Place};
use super::ledger::DestinationState;
use super::opening::{self, refused};
use super::record::{self, Bytes, Changes, GenerationMeta, MAX_RECORD};
use super::seal::Seal;
use super::state::State;
use super::{
    AsideEntry, Chunk, Commit, CutLimit, Error, Gap, Range, Sequence, Settings, Settled, Verified, WhenFull, disk,
};
use crate::observation::Observation;
use crate::reading::{BootId, RunId};

/// A chunk is at most this long.
const MAX_CHUNK: usize = 96 << 10;

/// State keys of one record are at most this long together: beside a chunk, or alone.
const MAX_CHANGES: usize = 16 << 10;
const MAX_CHANGES_ALONE: usize = 88 << 10;

/// A state value may be this long.
const MAX_VALUE: usize = 64 << 10;

/// A settlement that no commit takes along is written after this.
const SETTLE_ALONE: Duration = Duration::from_secs(5);

/// How often a commit that waits for room looks again.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(500);

/// A full disk must still let the store open: this much is given back then.
const BALLAST: u64 = 8 << 20;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the handle asks for.
pub(super) enum Request {
    Commit(Commit, Reply<Option<RangeInclusive<Sequence>>>),
    NextRange(Wish, Reply<Range>),
    Read(Range, Reply<Vec<Chunk>>),
    Settle(String, Range, Settled, Reply<()>),
    Aside(usize, Reply<Vec<AsideEntry>>),
    Verify(Reply<Verified>),
    Export(Sequence, u64, Reply<Vec<Chunk>>),
    Close(Reply<()>),
}

/// The range that a destination would like.
pub(super) struct Wish {
    pub(super) destination: String,
    pub(super) anchors: u64,
    pub(super) basis: u64,
    pub(super) limit: CutLimit,
}

/// Everything that the thread owns.
pub(super) struct Writer {
    settings: Settings,
    run: RunId,
    boot: BootId,
    _lock: File,
    state: Arc<Mutex<State>>,
    /// Open generations by number; the last is the newest.
    open: BTreeMap<u64, Generation>,
    aside: Aside,
    encoder: Encoder,
    decoder: Decoder,
    seal: Option<Arc<Seal>>,
    wishes: Vec<(Wish, Reply<Range>)>,
    commits: VecDeque<(Commit, Reply<Option<RangeInclusive<Sequence>>>)>,
    /// Destinations whose state is newer than the last record.
    unsaved: BTreeSet<String>,
    unsaved_since: Option<Instant>,
    age_from: Instant,
    age_before_ms: u64,
}

/// A write failed in a way that ends the store.
struct Failure {
    doing: &'static str,
    why: String,
}

fn failure(doing: &'static str) -> impl Fn(sled::Error) -> Failure {
    move |why| Failure { doing, why: why.to_string() }
}

fn io_failure(doing: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |why| Failure { doing, why: why.to_string() }
}

impl Writer {
    pub(super) fn open(settings: &Settings, run: RunId, boot: BootId, names: &[String]) -> Result<Writer, Error> {
        let dir = settings.dir.clone();
        let ballast = dir.join("ballast");
        let found = match opening::open(settings) {
            // Eight megabytes are kept for this moment.
            Err(Error::Refused { error, .. })
                if error.kind() == std::io::ErrorKind::StorageFull && ballast.exists() =>
            {
                std::fs::remove_file(&ballast).map_err(refused("removing", &ballast))?;
                opening::open(settings)?
            }
            outcome => outcome?,
        };
        let aside = Aside::open(&dir.join("aside"), settings.aside_max_bytes, found.seal.clone());
        let aside = aside.map_err(|why| match why {
            OpenFailure::Refused(error) => refused("opening", &dir.join("aside"))(error),
            OpenFailure::Damaged(why) => Error::Fatal { doing: "opening what is set aside", why },
        })?;
        let coding = refused("preparing compression for", &dir);
        let age_before_ms = found.state.own.age_ms;
        let mut writer = Writer {
            settings: settings.clone(),
            run,
            boot,
            _lock: found.lock,
            state: Arc::new(Mutex::new(found.state)),
            open: found.newest.into_iter().map(|generation| (generation.number, generation)).collect(),
            aside,
            encoder: Encoder::new(found.seal.clone()).map_err(&coding)?,
            decoder: Decoder::new(found.seal.clone()).map_err(&coding)?,
            seal: found.seal,
            wishes: Vec::new(),
            commits: VecDeque::new(),
            unsaved: BTreeSet::new(),
            unsaved_since: None,
            age_from: Instant::now(),
            age_before_ms,
        };
        let begun = writer.begin(names);
        begun.map_err(|Failure { doing, why }| Error::Fatal { doing, why })?;
        if !ballast.exists() && disk::free(&dir).unwrap_or(0) > settings.min_free.saturating_add(4 * BALLAST) {
            std::fs::write(&ballast, vec![0u8; BALLAST as usize]).map_err(refused("writing", &ballast))?;
        }
        writer.look_around();
        Ok(writer)
    }

    /// Squares the account with what is there, and makes the first generation if there is none.
    fn begin(&mut self, names: &[String]) -> Result<(), Failure> {
        if self.open.is_empty() {
            self.birth()?;
        }
        // The closed generations that a cursor stands in must be counted from the inside.
        let cursors: Vec<Sequence> = self.lock().destinations.values().map(|destination| destination.cursor).collect();
        let stood_in: Vec<u64> = {
            let state = self.lock();
            let inside =
                |meta: &&GenerationMeta| cursors.iter().any(|cursor| (meta.first + 1..meta.end).contains(cursor));
            state.own.closed.iter().filter(inside).map(|meta| meta.number).collect()
        };
        for number in stood_in {
            self.open_closed(number)?;
        }
        let counts: Vec<(Sequence, Sequence, Option<Vec<Place>>)> = {
            let state = self.lock();
            state
                .generations()
                .map(|meta| (meta.first, meta.end, self.open.get(&meta.number).map(|open| open.places.clone())))
                .collect()
        };
        let found = |_: &State, from: Sequence| -> u64 {
            counts
                .iter()
                .map(|(first, end, places)| match places {
                    Some(places) => places
                        .iter()
                        .map(|place| (place.first + place.count).saturating_sub(from.max(place.first)))
                        .sum(),
                    None => end.saturating_sub(from.max(*first)),
                })
                .sum()
        };
        let changes = opening::settle_destinations(&mut self.lock(), names, found);
        if changes != Changes::default() {
            self.write(&[], changes)?;
        }
        self.remove_delivered()
    }

    pub(super) fn state(&self) -> Arc<Mutex<State>> {
        self.state.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves until closed, until every handle is gone, or until a write fails.
    pub(super) fn run(mut self, queue: Receiver<Request>) {
        loop {
            let mut requests = Vec::new();
            match queue.recv_timeout(self.patience()) {
                Ok(request) => requests.push(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            requests.extend(queue.try_iter());
            let mut closing = None;
            let mut outcome = Ok(());
            for request in requests {
                if let Request::Close(reply) = request {
                    closing = Some(reply);
                } else if outcome.is_ok() {
                    outcome = self.take(request);
                }
            }
            let outcome = outcome.and_then(|()| self.work(closing.is_some()));
            if let Err(Failure { doing, why }) = outcome {
                self.fail(doing, &why, closing);
                return;
            }
            if let Some(reply) = closing {
                drop(self);
                let _nobody_waits = reply.send(Ok(()));
                return;
            }
        }
    }

    fn patience(&self) -> Duration {
        if !self.commits.is_empty() {
            return LOOK_FOR_ROOM;
        }
        self.unsaved_since.map_or(Duration::from_secs(60), |since| SETTLE_ALONE.saturating_sub(since.elapsed()))
    }

    /// Answers everybody and forgets the databases: dropping one after a failed write can hang for ever.
    fn fail(self, doing: &'static str, why: &str, closing: Option<Reply<()>>) {
        error!("the store failed while {doing}: {why}; no receipt is given for what was under way");
        self.lock().seen.unhealthy = Some(format!("the store failed while {doing}: {why}"));
        let fatal = || Error::Fatal { doing, why: why.to_owned() };
        let mut this = std::mem::ManuallyDrop::new(self);
        for (_, reply) in this.commits.drain(..) {
            let _nobody_waits = reply.send(Err(fatal()));
        }
        for (_, reply) in this.wishes.drain(..) {
            let _nobody_waits = reply.send(Err(fatal()));
        }
        if let Some(reply) = closing {
            let _nobody_waits = reply.send(Err(fatal()));
        }
    }

    fn take(&mut self, request: Request) -> Result<(), Failure> {
        match request {
            Request::Commit(commit, reply) => self.commits.push_back((commit, reply)),
            Request::NextRange(wish, reply) => self.wishes.push((wish, reply)),
            Request::Settle(destination, range, settled, reply) => {
                self.settle(&destination, &range, settled)?;
                let _nobody_waits = reply.send(Ok(()));
            }
            Request::Read(range, reply) => {
                let chunks = self.read(&range)?;
                let _nobody_waits = reply.send(Ok(chunks));
            }
            Request::Aside(limit, reply) => {
                let listed = self.aside.list(limit);
                let listed = listed.map_err(|why| Error::Fatal { doing: "listing what is set aside", why });
                let _nobody_waits = reply.send(listed);
            }
            Request::Verify(reply) => {
                let verified = self.verify()?;
                let _nobody_waits = reply.send(Ok(verified));
            }
            Request::Export(from, limit, reply) => {
                let chunks = self.export(from, limit)?;
                let _nobody_waits = reply.send(Ok(chunks));
            }
            Request::Close(_) => {}
        }
        Ok(())
    }

    /// Commits, ranges and settlements that can go now.
    fn work(&mut self, closing: bool) -> Result<(), Failure> {
        self.wishes.retain(|(_, reply)| !reply.is_closed());
        while !self.commits.is_empty() {
            if !self.has_room()? {
                break;
            }
            let Some((commit, reply)) = self.commits.pop_front() else { break };
            match self.commit(commit) {
                Ok(Ok(numbers)) => {
                    let _nobody_waits = reply.send(Ok(numbers));
                }
                Ok(Err(unstorable)) => {
                    let _nobody_waits = reply.send(Err(Error::Unstorable(unstorable)));
                }
                Err(failed) => {
                    let fatal = Error::Fatal { doing: failed.doing, why: failed.why.clone() };
                    let _nobody_waits = reply.send(Err(fatal));
                    return Err(failed);
                }
            }
        }
        let granted = self.grant(None)?;
        let alone = closing || self.unsaved_since.is_some_and(|since| since.elapsed() >= SETTLE_ALONE);
        if !granted.is_empty() || (alone && !self.unsaved.is_empty()) {
            self.write(&[], Changes::default())?;
        }
        self.answer(granted);
        self.remove_delivered()
    }

    // --- the way in

    fn commit(&mut self, commit: Commit) -> Result<Result<Option<RangeInclusive<Sequence>>, String>, Failure> {
        let Commit { observations, state, aside, intake } = commit;
        if let Some(change) =
            state.iter().find(|change| change.value.as_ref().is_some_and(|value| value.len() > MAX_VALUE))
        {
            return Ok(Err(format!("state key {} has more than 64 KiB", change.key)));
        }
        if let Some(foreign) = observations.iter().find(|observation| observation.heard.boot != self.boot) {
            return Ok(Err(format!("an observation of {} was heard in another boot", foreign.device)));
        }
        let first = self.lock().own.next;
        let mut chunks = Vec::new();
        if let Err(why) = self.cut_chunks(first, &observations, &mut chunks) {
            return Ok(Err(why));
        }
        let mut own = None;
        if !aside.is_empty() {
            let (evicted, not_kept) = self.aside.append(aside).map_err(failure("setting readings aside"))?;
            let mut state = self.lock();
            state.seen.aside_entries = self.aside.count();
            state.seen.aside_bytes = self.aside.bytes();
            if evicted + not_kept > 0 {
                state.own.aside_evicted += evicted;
                state.own.aside_not_kept += not_kept;
                own = Some(state.own.clone());
            }
        }
        let mut total = self.lock().intake;
        total.add(&intake);
        let keys = state.into_iter().map(|change| (change.key, change.value.map(Bytes))).collect();
        let count = observations.len() as u64;
        let granted = if count > 0 { self.grant(Some((first, &chunks)))? } else { Vec::new() };
        self.write(&chunks, Changes(keys, Some(total), BTreeMap::new(), own))?;
        self.answer(granted);
        Ok(Ok((count > 0).then(|| first..=first + count - 1)))
    }

    /// Encodes observations as chunks of at most 96 KiB, halving what is larger.
    fn cut_chunks(
        &mut self,
        first: Sequence,
        observations: &[Observation],
        chunks: &mut Vec<Vec<u8>>,
    ) -> Result<(), String> {
        if observations.is_empty() {
            return Ok(());
        }
        let chunk = self.encoder.encode(self.run, self.boot, first, observations).map_err(|why| why.to_string())?;
        if chunk.len() <= MAX_CHUNK {
            chunks.push(chunk);
            return Ok(());
        }
        if observations.len() == 1 {
            return Err(format!("one observation of {} takes {} bytes", observations[0].device, chunk.len()));
        }
        let (left, right) = observations.split_at(observations.len() / 2);
        self.cut_chunks(first, left, chunks)?;
        self.cut_chunks(first + left.len() as u64, right, chunks)
    }

    /// Writes one commit: its chunks, these changes, and whatever is unsaved; then makes it durable and takes it over.
    fn write(&mut self, chunks: &[Vec<u8>], mut changes: Changes) -> Result<(), Failure> {
        self.roll_over_if_full()?;
        let count: u64 = chunks
            .iter()
            .filter_map(|chunk| chunk::Header::checked(chunk).ok())
            .map(|header| u64::from(header.count))
            .sum();
        {
            let mut state = self.lock();
            for name in &self.unsaved {
                changes.2.entry(name.clone()).or_insert_with(|| state.destinations.get(name).cloned());
            }
            state.own.next += count;
            state.own.age_ms = self.age_before_ms + self.age_from.elapsed().as_millis() as u64;
        }
        let parts = self.parts(chunks, changes);
        let newest = self
            .open
            .values_mut()
            .next_back()
            .ok_or(Failure { doing: "writing", why: "no generation is open".into() })?;
        let commit = newest.next;
        let last = parts.len() - 1;
        for (index, (chunk, changes)) in parts.iter().enumerate() {
            let bytes = record::encode(newest.next, commit, index == last, chunk, changes, self.seal.as_ref());
            let bytes = bytes.map_err(|why| Failure { doing: "encoding a record", why })?;
            if bytes.len() > MAX_RECORD {
                return Err(Failure { doing: "encoding a record", why: format!("it takes {} bytes", bytes.len()) });
            }
            newest.append(&bytes).map_err(failure("writing a record"))?;
        }
        newest.make_durable().map_err(failure("making a record durable"))?;
        let boot = self.boot;
        let mut state = self.lock();
        let oldest_ms = state.newest.as_ref().map(|meta| meta.oldest_ms);
        let mut meta = self.open.values().next_back().and_then(|newest| opening::meta_of(newest, &state));
        for (_, changes) in parts {
            state.apply(changes);
        }
        if let Some(meta) = &mut meta {
            meta.oldest_ms =
                oldest_ms.unwrap_or_else(|| if boot == BootId::WALL { 0 } else { crate::clock::system::uptime_ms() });
        }
        state.newest = meta;
        state.seen.syncs += 1;
        drop(state);
        self.unsaved.clear();
        self.unsaved_since = None;
        Ok(())
    }

    /// Chunks and changes side by side in as few records as the limits allow; the counts are in the last.
    fn parts<'c>(&self, chunks: &'c [Vec<u8>], changes: Changes) -> Vec<(&'c [u8], Changes)> {
        let Changes(keys, intake, destinations, own) = changes;
        let mut parts: Vec<(&[u8], Changes)> =
            chunks.iter().map(|chunk| (chunk.as_slice(), Changes::default())).collect();
        let bytes_of = |(key, value): &(String, Option<Bytes>)| {
            key.len() + value.as_ref().map_or(0, |Bytes(value)| value.len()) + 16
        };
        let total: usize = keys.iter().map(bytes_of).sum();
        if parts.is_empty() || total > MAX_CHANGES {
            parts.push((&[], Changes::default()));
        }
        let mut held = 0;
        for entry in keys {
            let own = bytes_of(&entry);
            if held > 0 && held + own > MAX_CHANGES_ALONE {
                parts.push((&[], Changes::default()));
                held = 0;
            }
            held += own;
            if let Some((_, Changes(keys, ..))) = parts.last_mut() {
                keys.push(entry);
            }
        }
        if let Some((_, last)) = parts.last_mut() {
            last.1 = intake;
            last.2 = destinations;
            last.3 = own;
        }
        parts
    }

    fn roll_over_if_full(&mut self) -> Result<(), Failure> {
        let limit = self.settings.generation_bytes.max(8 * self.lock().bytes());
        let is_full =
            self.open.values().next_back().is_none_or(|newest| newest.bytes >= limit || newest.next >= MAX_RECORDS);
        if is_full { self.birth() } else { Ok(()) }
    }

    /// A new generation with the whole state in its first records.
    fn birth(&mut self) -> Result<(), Failure> {
        let mut state = self.lock().clone();
        let number = match self.open.keys().next_back() {
            Some(newest) => newest + 1,
            None => state.own.closed.last().map_or(1, |meta| meta.number + 1),
        };
        state.own.closed.extend(state.newest.take());
        state.own.age_ms = self.age_before_ms + self.age_from.elapsed().as_millis() as u64;
        let parts = state.whole(MAX_CHANGES_ALONE);
        let last = parts.len() - 1;
        let encode = |(number, changes): (usize, &Changes)| {
            record::encode(number as u64, 0, number == last, &[], changes, self.seal.as_ref())
        };
        let records = parts.iter().enumerate().map(encode).collect::<Result<Vec<_>, _>>();
        let records = records.map_err(|why| Failure { doing: "encoding the state", why })?;
        let generation = Generation::birth(&self.settings.dir, "new", number, &records, || Ok(()))
            .map_err(failure("beginning a generation"))?;
        if self.open.values().any(Generation::has_blobs) || generation.has_blobs() {
            self.lock().seen.unhealthy =
                Some("sled has moved data out of its log; they may be lost in a power cut".to_owned());
        }
        self.open.insert(number, generation);
        *self.lock() = state;
        self.look_around();
        Ok(())
    }

    // --- the ways out

    /// Ranges for the wishes that can be granted: now, or (`coming`) from the chunks of the commit that is being written.
    /// The ranges are part of the state from here on; the caller writes and then answers.
    fn grant(&mut self, coming: Option<(Sequence, &[Vec<u8>])>) -> Result<Vec<(Range, Reply<Range>)>, Failure> {
        let mut granted = Vec::new();
        for (wish, reply) in std::mem::take(&mut self.wishes) {
            let Some(destination) = self.lock().destinations.get(&wish.destination).cloned() else {
                let unknown = format!("no destination is called {}", wish.destination);
                let _nobody_waits = reply.send(Err(Error::Unstorable(unknown)));
                continue;
            };
            if let Some(range) = destination.range {
                granted.push((range, reply));
                continue;
            }
            let cut = match self.cut(destination.cursor, &wish.limit)? {
                Some(cut) => Some(cut),
                None => coming.and_then(|(_, chunks)| {
                    cut_of(chunks.iter().filter_map(|chunk| place_of(chunk)), destination.cursor, &wish.limit)
                }),
            };
            match cut {
                Some((first, last)) => {
                    let range = Range { first, last, anchors: wish.anchors, basis: wish.basis };
                    if let Some(destination) = self.lock().destinations.get_mut(&wish.destination) {
                        destination.range = Some(range.clone());
                    }
                    self.unsaved.insert(wish.destination);
                    granted.push((range, reply));
                }
                None => self.wishes.push((wish, reply)),
            }
        }
        Ok(granted)
    }

    fn answer(&self, granted: Vec<(Range, Reply<Range>)>) {
        for (range, reply) in granted {
            let _it_is_in_hand = reply.send(Ok(range));
        }
    }

    /// The next whole chunks after the cursor, of one generation and without a hole.
    fn cut(&mut self, cursor: Sequence, limit: &CutLimit) -> Result<Option<(Sequence, Sequence)>, Failure> {
        let number = self.lock().generations().find(|meta| meta.end > cursor).map(|meta| meta.number);
        let Some(number) = number else { return Ok(None) };
        let generation = self.open_closed(number)?;
        // Two searches instead of a scan: a generation has up to two thousand chunks.
        let from = generation.places.partition_point(|place| place.first + place.count <= cursor);
        Ok(cut_of(generation.places[from..].iter().copied(), cursor, limit))
    }

    /// An open generation; opens it if it is a closed one that nobody stood in yet.
    fn open_closed(&mut self, number: u64) -> Result<&mut Generation, Failure> {
        if !self.open.contains_key(&number) {
            let opened = opening::open_generation(&self.settings.dir, number, &mut |_| {});
            let opened = opened.map_err(|why| Failure { doing: "opening a generation", why: why.to_string() })?;
            self.open.insert(number, opened);
            self.count_lost(number);
        }
        self.open.get_mut(&number).ok_or(Failure { doing: "opening a generation", why: "it is not there".into() })
    }

    /// What a closed generation should hold and does not was lost to damage: counted for everyone who still needs it.
    fn count_lost(&mut self, number: u64) {
        let Some(meta) = self.lock().own.closed.iter().find(|meta| meta.number == number).cloned() else { return };
        let Some(generation) = self.open.get(&number) else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = Vec::new();
        for (name, destination) in &mut state.destinations {
            let from = destination.range.as_ref().map_or(destination.cursor, |range| range.last + 1);
            let missing = meta.end.saturating_sub(meta.first.max(from)).saturating_sub(generation.count_from(from));
            if missing > 0 {
                destination.tally.damaged += missing;
                lost.push((name.clone(), missing));
            }
        }
        for (name, missing) in lost {
            error!(destination = name, observations = missing, "lost to damage of the store");
            state.note_gap(Gap {
                first: meta.first,
                last: meta.end - 1,
                count: missing,
                why: format!("damaged, for {name}"),
            });
            self.unsaved.insert(name);
        }
        // Nothing is left of it: the row goes on behind it.
        if generation.places.is_empty() {
            state.own.closed.retain(|known| known.number != number);
        }
    }

    fn read(&mut self, range: &Range) -> Result<Vec<Chunk>, Failure> {
        let number = self.lock().generations().find(|meta| meta.end > range.first).map(|meta| meta.number);
        let Some(number) = number else { return Ok(Vec::new()) };
        self.open_closed(number)?;
        self.chunks_of(number, range.first, |place| place.first <= range.last)
    }

    fn chunks_of(
        &mut self,
        number: u64,
        from: Sequence,
        mut wanted: impl FnMut(&Place) -> bool,
    ) -> Result<Vec<Chunk>, Failure> {
        let Some(generation) = self.open.get(&number) else { return Ok(Vec::new()) };
        let start = generation.places.partition_point(|place| place.first + place.count <= from);
        let mut chunks = Vec::new();
        for place in generation.places[start..].iter().take_while(|place| wanted(place)) {
            let bytes = generation.record(place.record).map_err(failure("reading a record"))?;
            let chunk = bytes.as_deref().and_then(record::chunk_of).map(|(.., chunk)| self.decoder.decode(chunk));
            match chunk {
                Some(Ok(chunk)) => chunks.push(chunk),
                Some(Err(why)) => {
                    error!(record = place.record, observations = place.count, "a chunk is damaged: {why}")
                }
                None => error!(record = place.record, observations = place.count, "a record is damaged"),
            }
        }
        Ok(chunks)
    }

    fn settle(&mut self, name: &str, range: &Range, settled: Settled) -> Result<(), Failure> {
        if !settled.aside.is_empty() {
            let tally = (settled.delivered, settled.rejected, settled.parked);
            let Settled { aside, .. } = &settled;
            let (evicted, not_kept) = self.aside.append(aside.clone()).map_err(failure("setting rows aside"))?;
            let mut state = self.lock();
            state.own.aside_evicted += evicted;
            state.own.aside_not_kept += not_kept;
            state.seen.aside_entries = self.aside.count();
            state.seen.aside_bytes = self.aside.bytes();
            info!(destination = name, delivered = tally.0, rejected = tally.1, parked = tally.2, "rows were set aside");
        }
        let mut state = self.lock();
        let Some(destination) = state.destinations.get_mut(name) else { return Ok(()) };
        if destination.range.as_ref() != Some(range) {
            return Ok(());
        }
        destination.tally.add(&settled);
        destination.cursor = range.last + 1;
        destination.range = None;
        drop(state);
        self.unsaved.insert(name.to_owned());
        self.unsaved_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    // --- room

    /// Removes generations that are below every cursor, once the cursors are durable.
    fn remove_delivered(&mut self) -> Result<(), Failure> {
        if !self.unsaved.is_empty() {
            return Ok(());
        }
        let delivered: Vec<u64> = {
            let state = self.lock();
            let cursor = state.lowest_cursor();
            state.own.closed.iter().take_while(|meta| meta.end <= cursor).map(|meta| meta.number).collect()
        };
        for number in &delivered {
            self.remove(*number)?;
        }
        self.close_untouched();
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Result<(), Failure> {
        self.open.remove(&number);
        disk::remove(&disk::folder(&self.settings.dir, number))
            .map_err(io_failure("removing a delivered generation"))?;
        self.lock().own.closed.retain(|meta| meta.number != number);
        Ok(())
    }

    /// Open stay the newest and those under a cursor.
    fn close_untouched(&mut self) {
        let Some(&newest) = self.open.keys().next_back() else { return };
        let keep: Vec<u64> = {
            let state = self.lock();
            let under = |destination: &DestinationState| {
                state.generations().find(|meta| meta.end > destination.cursor).map(|meta| meta.number)
            };
            state.destinations.values().filter_map(under).collect()
        };
        self.open.retain(|number, _| *number == newest || keep.contains(number));
    }

    /// Whether a commit may be written now; evicts if that is the policy.
    fn has_room(&mut self) -> Result<bool, Failure> {
        while let Some(reason) = self.pressed() {
            if self.settings.when_full == WhenFull::EvictOldest && self.evict(&reason)? {
                continue;
            }
            // Age alone never stops the way in.
            if reason.is_age {
                break;
            }
            let mut state = self.lock();
            if state.seen.unhealthy.is_none() {
                warn!("{}; the sources wait", reason.words);
                state.seen.unhealthy = Some(format!("{}; the sources wait", reason.words));
            }
            return Ok(false);
        }
        let mut state = self.lock();
        if state.seen.unhealthy.as_ref().is_some_and(|why| why.ends_with("the sources wait")) {
            info!("there is room again");
            state.seen.unhealthy = None;
        }
        Ok(true)
    }

    /// Which limit is reached, if any.
    fn pressed(&mut self) -> Option<Pressure> {
        let free = disk::free(&self.settings.dir).unwrap_or(u64::MAX);
        let age_ms = self.age_before_ms + self.age_from.elapsed().as_millis() as u64;
        let mut state = self.lock();
        state.seen.disk_free = free;
        let bytes: u64 = state.generations().map(|meta| meta.bytes).sum::<u64>() + state.seen.damaged_bytes;
        let oldest = state.own.closed.first().map(|meta| meta.newest_age_ms);
        let pressure = |words: String, is_age| Some(Pressure { words, is_age });
        if free < self.settings.min_free {
            return pressure(
                format!("the disk has {free} bytes free, store.min_free leaves {}", self.settings.min_free),
                false,
            );
        }
        if bytes >= self.settings.max_bytes {
            return pressure(
                format!("the store holds {bytes} bytes, store.max_bytes is {}", self.settings.max_bytes),
                false,
            );
        }
        let max_age_ms = self.settings.max_age.as_millis() as u64;
        if oldest.is_some_and(|newest_ms| age_ms.saturating_sub(newest_ms) > max_age_ms) {
            return pressure("the oldest observations are older than store.max_age".to_owned(), true);
        }
        None
    }

    /// Takes the oldest generation that holds no range in hand; false when there is none.
    fn evict(&mut self, reason: &Pressure) -> Result<bool, Failure> {
        let candidate = |state: &State| {
            let in_hand = |meta: &GenerationMeta| {
                state
                    .destinations
                    .values()
                    .filter_map(|destination| destination.range.as_ref())
                    .any(|range| range.first < meta.end && range.last >= meta.first)
            };
            state.own.closed.iter().find(|meta| !in_hand(meta)).cloned()
        };
        let mut found = candidate(&self.lock());
        if found.is_none() && !reason.is_age && self.lock().newest.is_some() {
            // Everything is in the newest: close it, so that it can go.
            self.birth()?;
            found = candidate(&self.lock());
        }
        let Some(meta) = found else { return self.evict_damaged() };
        self.open_closed(meta.number)?;
        let mut most = 0;
        {
            let open = &self.open;
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let names: Vec<String> = state.destinations.keys().cloned().collect();
            for name in names {
                let Some(destination) = state.destinations.get_mut(&name) else { continue };
                let count = open.get(&meta.number).map_or(0, |generation| generation.count_from(destination.cursor));
                if destination.cursor < meta.end {
                    destination.tally.evicted += count;
                    // A cursor in an older generation that holds a range in hand stays; what is gone is skipped later.
                    if destination.range.is_none() {
                        destination.cursor = meta.end;
                    }
                    most = most.max(count);
                    self.unsaved.insert(name);
                }
            }
            state.own.closed.retain(|known| known.number != meta.number);
            if most > 0 {
                state.note_gap(Gap { first: meta.first, last: meta.end - 1, count: most, why: "evicted".to_owned() });
            }
        }
        warn!(observations = most, "{}: the oldest observations are deleted", reason.words);
        let own = self.lock().own.clone();
        self.write(&[], Changes(Vec::new(), None, BTreeMap::new(), Some(own)))?;
        self.open.remove(&meta.number);
        disk::remove(&disk::folder(&self.settings.dir, meta.number))
            .map_err(io_failure("removing the oldest generation"))?;
        Ok(true)
    }

    fn evict_damaged(&mut self) -> Result<bool, Failure> {
        let attic = self.settings.dir.join("damaged");
        if self.lock().seen.damaged_bytes == 0 {
            return Ok(false);
        }
        warn!("the damaged parts that were kept for a look are deleted to make room");
        std::fs::remove_dir_all(&attic).map_err(io_failure("removing damaged parts"))?;
        self.lock().seen.damaged_bytes = 0;
        Ok(true)
    }

    // --- looking

    fn look_around(&mut self) {
        let damaged = disk::bytes_below(&self.settings.dir.join("damaged"));
        let free = disk::free(&self.settings.dir).unwrap_or(0);
        let mut state = self.lock();
        state.seen.damaged_bytes = damaged;
        state.seen.disk_free = free;
        state.seen.max_bytes = self.settings.max_bytes;
        state.seen.aside_entries = self.aside.count();
        state.seen.aside_bytes = self.aside.bytes();
    }

    fn verify(&mut self) -> Result<Verified, Failure> {
        let numbers: Vec<u64> = self.lock().generations().map(|meta| meta.number).collect();
        let mut verified = Verified::default();
        for number in numbers {
            self.open_closed(number)?;
            let Some(generation) = self.open.get(&number) else { continue };
            verified.generations += 1;
            verified.blobs += u64::from(generation.has_blobs());
            for record in 0..generation.next {
                let Some(bytes) = generation.record(record).map_err(failure("reading a record"))? else { continue };
                verified.records += 1;
                match record::chunk_of(&bytes) {
                    Some((.., [])) => {}
                    Some((.., chunk)) => match self.decoder.decode(chunk) {
                        Ok(chunk) => verified.observations += chunk.observations.len() as u64,
                        Err(_) => verified.damaged += 1,
                    },
                    None => verified.damaged += 1,
                }
            }
            self.close_untouched();
        }
        Ok(verified)
    }

    fn export(&mut self, from: Sequence, limit: u64) -> Result<Vec<Chunk>, Failure> {
        let numbers: Vec<u64> =
            self.lock().generations().filter(|meta| meta.end > from).map(|meta| meta.number).collect();
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut held = 0;
        for number in numbers {
            self.open_closed(number)?;
            chunks.extend(self.chunks_of(number, from, |place| {
                let more = held < limit;
                held += place.count;
                more
            })?);
            self.close_untouched();
            if held >= limit {
                break;
            }
        }
        Ok(chunks)
    }
}

/// A limit that is reached.
struct Pressure {
    words: String,
    is_age: bool,
}

fn place_of(chunk: &[u8]) -> Option<Place> {
    let header = chunk::Header::checked(chunk).ok()?;
    Some(Place {
        record: 0,
        first: header.first,
        count: u64::from(header.count),
        bytes: header.length as u64,
        boot: header.boot,
    })
}

/// As many whole chunks as the limit takes, at least one, from the cursor to the first hole.
fn cut_of(places: impl Iterator<Item = Place>, cursor: Sequence, limit: &CutLimit) -> Option<(Sequence, Sequence)> {
    let mut cut: Option<(Sequence, Sequence)> = None;
    let (mut count, mut bytes) = (0, 0);
    for place in places.skip_while(|place| place.first + place.count <= cursor) {
        let first = place.first.max(cursor);
        count += place.count;
        bytes += place.bytes;
        match &mut cut {
            None => cut = Some((first, place.first + place.count - 1)),
            Some((_, last)) => {
                if place.first != *last + 1 || count > limit.max_observations || bytes > limit.max_bytes {
                    break;
                }
                *last = place.first + place.count - 1;
            }
        }
    }
    cut
}
