//! The durable queue between the way in and the ways out, and the only room that names sled.
//!
//! # The contract
//!
//! **In.** [`Store::commit`] returns after its observations, the state that changed with them and the counts of both are
//! on the disk: our own fdatasync of sled's file, since sled's flush ends in the kernel's memory. A commit is one value
//! under one key, so it is there whole or not at all; one that does not fit continues in the next values and counts only
//! once its last is there.
//!
//! **Out.** Every destination has a cursor. [`Store::next_range`] cuts whole chunks and makes the range durable before
//! it returns, with the versions of everything that rendering reads, so that each try, also after a crash, sends the same
//! rows. When nothing waits, the range rides on the commit that brings the next chunk and costs no fdatasync of its own.
//! [`Store::settle`] moves the cursor; that rides on the next record. If it is lost, the range is still in hand and is
//! sent again with the same event ids. Forwarders see only what is on the disk.
//!
//! **The account.** `stored = delivered + rejected + parked + evicted + damaged + waiting`, for every destination, in
//! every record. Whatever an open does not find again is counted as damaged.
//!
//! **Room.** The queue is a row of small append-only databases ([`generation`]); nothing is removed inside one. When
//! every cursor has passed one, and that is durable, it goes whole. Limits of bytes, age and free disk are kept by
//! evicting the oldest generation, or by making commits wait; both are counted and shown. Age is time that gateways ran
//! with this store: the wall clock of a hub may be years off.
//!
//! **Damage.** An open never refuses for damage: what can be read of a damaged generation is copied into a new one and
//! the rest is counted. It refuses when another process holds the folder, and when the format is newer than this
//! program. A full disk or a missing permission is an error that says so. After any other error of sled the databases are
//! never dropped: a drop after a failed write can hang for ever. They are forgotten, the commit gets no receipt, and the
//! process is expected to end; the next open tells whether the record is there.
//!
//! **Limits.** A record 120 KiB, a chunk 96 KiB, eight records in a tree, 2,048 records or 4 MiB in a generation (more
//! only so that the folded state stays below an eighth), 64 KiB of raw bytes in an entry set aside.

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::observation::Observation;
use crate::reading::{BootId, Channel, Heard, RunId};

mod aside;
mod chunk;
mod disk;
mod generation;
mod ledger;
mod metadata;
mod opening;
mod record;
mod salvage;
mod seal;
mod stat;
mod state;
mod writer;

pub use ledger::{DestinationTally, IntakeTally, Ledger};
pub use stat::{Stat, Verified};

#[cfg(test)]
mod tests;

use state::State;
use writer::{Request, Writer};

/// Number of an observation in this store, from 1. Numbers have no holes but where damage made them.
pub type Sequence = u64;

/// How long a commit and the closing may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Requests that may wait for the store's thread; every caller has at most one.
const REQUESTS: usize = 64;

/// The `[store]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder.
    pub dir: PathBuf,
    /// Everything that waits, with what is set aside because it was damaged.
    pub max_bytes: u64,
    /// What is set aside.
    pub aside_max_bytes: u64,
    /// Disk space that is left to others.
    pub min_free: u64,
    /// Older observations are evicted; counted while a gateway runs.
    pub max_age: Duration,
    /// What gives when a limit is reached.
    pub when_full: WhenFull,
    /// Seals chunks and state: 32 bytes, or 64 hex digits.
    pub key_file: Option<PathBuf>,
    /// About how large a generation grows.
    pub generation_bytes: u64,
}

/// What gives when a limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The oldest generation that holds no range in hand.
    EvictOldest,
    /// The sources: commits wait until there is room.
    PauseSources,
}

/// Everything that becomes durable together.
#[derive(Debug, Default)]
pub struct Commit {
    /// In order; all heard in the boot that the store was opened with.
    pub observations: Vec<Observation>,
    /// State keys that changed.
    pub state: Vec<StateChange>,
    /// What is set aside. It becomes durable before the rest.
    pub aside: Vec<AsideEntry>,
    /// What was counted since the last commit.
    pub intake: IntakeTally,
}

/// A state key's new value; `None` removes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// Rooms keep theirs apart by a prefix such as `device/`.
    pub key: String,
    /// At most 64 KiB.
    pub value: Option<Vec<u8>>,
}

/// A batch that is being delivered: whole chunks of one generation, and the versions of all that `resolve` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First observation.
    pub first: Sequence,
    /// Last observation.
    pub last: Sequence,
    /// How many clock anchors rendering sees.
    pub anchors: u64,
    /// The basis that rendering uses.
    pub basis: u64,
}

/// How large a range may be. It holds at least one chunk.
#[derive(Debug, Clone, Copy)]
pub struct CutLimit {
    /// Observations.
    pub max_observations: u64,
    /// Bytes in the store.
    pub max_bytes: u64,
}

/// One commit's observations, as read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The process start that made them.
    pub run: RunId,
    /// The number of the first.
    pub first: Sequence,
    /// In order.
    pub observations: Vec<Observation>,
}

/// What happened to a range; the counts sum to its observations.
#[derive(Debug, Default)]
pub struct Settled {
    /// Taken.
    pub delivered: u64,
    /// Refused for what they are.
    pub rejected: u64,
    /// Waiting aside for a person.
    pub parked: u64,
    /// Not found again.
    pub damaged: u64,
    /// Beside the sum.
    pub resent: u64,
    /// The rejected and parked ones. They become durable before the cursor moves.
    pub aside: Vec<AsideEntry>,
}

/// Why something was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AsideKind {
    /// Its bytes do not fit the profile.
    Refused,
    /// Its value is outside the limits.
    Implausible,
    /// A destination refused its row.
    Rejected,
    /// Nobody is assigned.
    Parked,
}

/// Something that is no waiting event and that a person may want to see or bring back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AsideEntry {
    /// Why, in one word.
    pub kind: AsideKind,
    /// Why, in words.
    pub reason: String,
    /// The `device_id`.
    pub device: Arc<str>,
    /// The entry that admitted it.
    pub entry: Arc<str>,
    /// Where on the device it came from.
    pub channel: Channel,
    /// Profile id and version.
    pub profile: Arc<str>,
    /// The process start that heard it.
    pub run: RunId,
    /// The reading's number in it.
    pub reading: u64,
    /// When it was heard.
    pub heard: Heard,
    /// Raw bytes of the reading; of rejected and parked ones the observation. Over 64 KiB they are not kept, only counted.
    #[serde(with = "record::as_bytes")]
    pub bytes: Vec<u8>,
    /// Which destination refused or parked it.
    pub destination: Option<String>,
}

/// Observations that will not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First of them.
    pub first: Sequence,
    /// Last of them.
    pub last: Sequence,
    /// How many.
    pub count: u64,
    /// evicted or damaged.
    pub why: String,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("{}: another process holds this store; stop it first, or ask it (`biogate buffer stat` does)", .0.display())]
    Held(PathBuf),
    /// A newer program has written it.
    #[error("{}: found store format {found}, this program reads format {known}; install the newer program again", .dir.display())]
    Newer {
        /// The folder.
        dir: PathBuf,
        /// What the folder says.
        found: String,
        /// What this program knows.
        known: u32,
    },
    /// The key does not fit, or cannot be read.
    #[error("{0}")]
    Key(String),
    /// The system refuses: a full disk, a missing permission, an error of the device.
    #[error("{doing} {}: {error}", .path.display())]
    Refused {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A write failed; whether its record is there the next open tells.
    #[error("the store failed while {doing}: {why}")]
    Fatal {
        /// What was tried.
        doing: &'static str,
        /// What sled said.
        why: String,
    },
    /// The store's thread has ended, or does not answer in time.
    #[error("the store does not answer")]
    Silent,
    /// A commit that can never be stored.
    #[error("{0}")]
    Unstorable(String),
}

/// A handle; clones share the one store thread. The last one that goes ends it.
#[derive(Clone)]
pub struct Store {
    requests: SyncSender<Request>,
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens or makes the store for these destinations. A destination that is new starts at the oldest observation that
    /// is kept; one that is gone no longer holds anything back.
    pub fn open(settings: &Settings, run: RunId, boot: BootId, destinations: &[String]) -> Result<Store, Error> {
        let writer = Writer::open(settings, run, boot, destinations)?;
        let state = writer.state();
        let (requests, queue) = sync_channel(REQUESTS);
        let thread = std::thread::Builder::new().name("store".to_owned());
        let refused = |error| Error::Refused { doing: "starting the thread of", path: settings.dir.clone(), error };
        thread.spawn(move || writer.run(queue)).map_err(refused)?;
        Ok(Store { requests, state })
    }

    /// Makes the commit durable; after `Ok` its receipts may be given. While there is no room it waits, and `stat` says
    /// so. Returns the numbers of its observations.
    pub async fn commit(&self, commit: Commit) -> Result<Option<std::ops::RangeInclusive<Sequence>>, Error> {
        self.ask(|reply| Request::Commit(commit, reply)).await
    }

    /// State keys that begin so, with their values, as of the last durable record.
    pub fn state(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let state = self.lock();
        let from = state.keys.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        from.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The range that was in hand when the process ended, or is in hand now.
    pub fn in_hand(&self, destination: &str) -> Option<Range> {
        self.lock().destinations.get(destination)?.range.clone()
    }

    /// Waits until observations wait for this destination, cuts a range and makes it durable: at once, or, when nothing
    /// waits yet, in the same record as the commit that brings the next chunk. A range that is in hand already is
    /// returned as it is. Cancel-safe: after a dropped call the range is at most in hand.
    pub async fn next_range(
        &self,
        destination: &str,
        anchors: u64,
        basis: u64,
        limit: CutLimit,
    ) -> Result<Range, Error> {
        let wish = writer::Wish { destination: destination.to_owned(), anchors, basis, limit };
        self.ask(|reply| Request::NextRange(wish, reply)).await
    }

    /// The range's chunks in order. Damaged ones are left out.
    pub async fn read(&self, range: &Range) -> Result<Vec<Chunk>, Error> {
        let range = range.clone();
        self.ask(|reply| Request::Read(range, reply)).await
    }

    /// Moves the cursor past the range. Durable with the next record.
    pub async fn settle(&self, destination: &str, range: &Range, settled: Settled) -> Result<(), Error> {
        let (destination, range) = (destination.to_owned(), range.clone());
        self.ask(|reply| Request::Settle(destination, range, settled, reply)).await
    }

    /// The whole account.
    pub fn ledger(&self) -> Ledger {
        self.lock().ledger()
    }

    /// What a person or a monitor wants to know.
    pub fn stat(&self) -> Stat {
        self.lock().stat()
    }

    /// The boots that waiting observations were heard in: their clock anchors are still needed.
    pub fn boots_needed(&self) -> Vec<BootId> {
        self.lock().boots_needed()
    }

    /// The newest gaps, oldest first.
    pub fn gaps(&self) -> Vec<Gap> {
        self.lock().own.gaps.clone()
    }

    /// The newest entries that were set aside, oldest of them first, at most `limit`.
    pub async fn aside(&self, limit: usize) -> Result<Vec<AsideEntry>, Error> {
        self.ask(|reply| Request::Aside(limit, reply)).await
    }

    /// Reads every record of every generation and checks it.
    pub async fn verify(&self) -> Result<Verified, Error> {
        self.ask(Request::Verify).await
    }

    /// Chunks from `from` on that are still kept, until they hold `limit` observations.
    pub async fn export(&self, from: Sequence, limit: u64) -> Result<Vec<Chunk>, Error> {
        self.ask(|reply| Request::Export(from, limit, reply)).await
    }

    /// Makes what was settled durable and closes, within ten seconds. Other handles get [`Error::Silent`] from then on.
    pub async fn close(self) -> Result<(), Error> {
        let closed = self.ask(Request::Close);
        tokio::time::timeout(DEADLINE, closed).await.map_err(|_| Error::Silent)?
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        // Never full: every caller waits for its answer, and there are fewer callers than places.
        self.requests.try_send(request(reply)).map_err(|_| Error::Silent)?;
        answer.await.map_err(|_| Error::Silent)?
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
