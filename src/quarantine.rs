//! What was set aside and comes back: readings that a profile refused or the limits called implausible are read again,
//! observations that a destination refused or nobody wore go to that destination once more.
//!
//! What comes back has the event ids and the times that it would have had: run, reading number and uptime are kept with
//! the entry. Observations and the removal of their entries are one record of the store, so a crash leaves either both
//! or neither. What is still refused stays, with the reason of now.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Mutex, watch};

use crate::interpret::Catalog;
use crate::resolve::Timeline;
use crate::store::{AsideEntry, AsideKind, Commit, Error, StateChange, Store};

mod again;
mod batch;
mod filter;
mod scan;

pub use again::{Again, Rereader, Stored};
pub use filter::Filter;

use batch::{Came, Replaying};
use filter::{names, short, shown, time_of};
use scan::Scan;

/// State keys of the memories that reading again leaves begin so; the rest is the `device_id`.
const REPLAY_STATE: &str = "replay/";

/// Of so many entries an outcome tells what came of them; the rest is counted.
const MOST_TOLD: usize = 1_000;

/// A listing holds no more bytes of entries than this.
const MAX_LISTED_BYTES: usize = 16 << 20;

/// What is set aside in one store, and what it is read again by.
pub struct Quarantine {
    store: Store,
    catalog: Arc<RwLock<Arc<Catalog>>>,
    timeline: watch::Receiver<Arc<Timeline>>,
    /// Names of the configured destinations.
    destinations: Vec<String>,
    /// Two replays at once would bring the same entry back twice.
    one_at_a_time: Mutex<()>,
}

/// What a replay did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Entries that came back.
    pub replayed: u64,
    /// Events that came of them.
    pub events: u64,
    /// Entries that are still refused and stay.
    pub still: u64,
    /// What came of each entry, of the first thousand.
    pub entries: Vec<Told>,
    /// Ids that name no entry.
    pub unknown: Vec<String>,
}

/// What came of one entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Its id.
    pub id: String,
    /// Why it was set aside.
    pub kind: AsideKind,
    /// The device.
    pub device: Arc<str>,
    /// When it was heard, in Unix milliseconds.
    pub time: Option<i64>,
    /// Why it stays; `None` when it came back.
    pub still: Option<String>,
    /// What it said: no word for events, `without event`, `known already`, `implausible`.
    pub said: Option<String>,
    /// Its events.
    pub events: Vec<Value>,
}

impl Quarantine {
    /// What is set aside in this store, and the names of the destinations that it can go to.
    pub fn new(
        store: Store,
        catalog: Arc<RwLock<Arc<Catalog>>>,
        timeline: watch::Receiver<Arc<Timeline>>,
        destinations: Vec<String>,
    ) -> Quarantine {
        Quarantine { store, catalog, timeline, destinations, one_at_a_time: Mutex::new(()) }
    }

    /// The newest `limit` of the entries that are meant, oldest of them first.
    pub async fn list(&self, filter: &Filter, limit: usize) -> Result<Vec<Value>, Error> {
        let timeline = self.timeline.borrow().clone();
        list(&self.store, &timeline, filter, limit).await
    }

    /// Removes the entries that are meant for good; says how many there were.
    pub async fn drop(&self, filter: &Filter) -> Result<u64, Error> {
        let timeline = self.timeline.borrow().clone();
        drop_entries(&self.store, &timeline, filter).await
    }

    /// What is parked of a device, or of every device, and has a person now, goes to the destinations that parked it.
    pub async fn parked_of(&self, device: Option<&str>) -> Result<Outcome, Error> {
        let was_parked = self.store.ledger().destinations.iter().any(|(_, tally)| tally.parked > 0);
        if !was_parked || self.store.stat().aside_entries == 0 {
            return Ok(Outcome::default());
        }
        self.replay(&Filter::parked(device), false).await
    }

    /// Reads the entries that are meant again and brings back what is understood, oldest first.
    pub async fn replay(&self, filter: &Filter, dry_run: bool) -> Result<Outcome, Error> {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        let catalog = Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner));
        let timeline = self.timeline.borrow().clone();
        let stored = |device: &str| {
            let state = |prefix: &str| value_of(&self.store, &format!("{prefix}{device}"));
            (state(crate::intake::DEVICE_STATE), state(REPLAY_STATE))
        };
        let reread = Rereader::new(&catalog, &timeline.anchors, &stored);
        let mut replaying = Replaying::new(&self.store, reread, &timeline, &self.destinations, dry_run);
        let mut scan = Scan::new(&self.store);
        let mut left: HashSet<Arc<str>> = HashSet::new();
        while let Some(page) = scan.page().await? {
            for found in page {
                let scanned = scan.look(found);
                let time = time_of(&timeline.anchors, scanned.entry.heard);
                let came = match scanned.twin {
                    Some(true) => {
                        replaying.remove_twin(scanned.place);
                        continue;
                    }
                    Some(false) => continue,
                    None if !filter.means(scanned.id, &scanned.entry, time) => Came::Stays,
                    None => replaying.take(&scanned, time).await?,
                };
                if came == Came::Stays && scanned.entry.kind == AsideKind::Refused {
                    left.insert(scanned.entry.device);
                }
                scan.note(scanned.id, came == Came::Back);
            }
        }
        let mut outcome = replaying.finish().await?;
        let is_unknown = |wanted: &&String| !scan.ids().any(|id| names(wanted, id));
        outcome.unknown = filter.ids.iter().filter(is_unknown).cloned().collect();
        if !dry_run {
            self.forget_memories_except(&left).await?;
        }
        Ok(outcome)
    }

    /// Memories of devices of which no refused reading is left are needed no more.
    async fn forget_memories_except(&self, left: &HashSet<Arc<str>>) -> Result<(), Error> {
        let keys = self.store.state(REPLAY_STATE).into_iter().map(|(key, _)| key);
        let unneeded = keys.filter(|key| !left.contains(&key[REPLAY_STATE.len()..]));
        let state: Vec<StateChange> = unneeded.map(|key| StateChange { key, value: None }).collect();
        if !state.is_empty() {
            self.store.commit(Commit { state, ..Commit::default() }).await?;
        }
        Ok(())
    }
}

/// The newest `limit` entries of a store that are meant, oldest of them first, each once.
pub async fn list(store: &Store, timeline: &Timeline, filter: &Filter, limit: usize) -> Result<Vec<Value>, Error> {
    let mut newest = std::collections::VecDeque::new();
    let mut bytes = 0;
    let mut scan = Scan::new(store);
    while let Some(page) = scan.page().await? {
        for found in page {
            let scanned = scan.look(found);
            let time = time_of(&timeline.anchors, scanned.entry.heard);
            if scanned.twin.is_some() || !filter.means(scanned.id, &scanned.entry, time) {
                continue;
            }
            scan.note(scanned.id, false);
            bytes += scanned.entry.bytes.len();
            newest.push_back(scanned.entry);
            while newest.len() > limit || bytes > MAX_LISTED_BYTES {
                bytes -= newest.pop_front().map_or(bytes, |oldest: AsideEntry| oldest.bytes.len());
            }
        }
    }
    Ok(newest.iter().map(|entry| shown(entry, &timeline.anchors)).collect())
}

/// Removes the entries of a store that are meant for good; says how many there were.
pub async fn drop_entries(store: &Store, timeline: &Timeline, filter: &Filter) -> Result<u64, Error> {
    let mut scan = Scan::new(store);
    let mut dropped = 0;
    while let Some(page) = scan.page().await? {
        let meant = |entry: &AsideEntry| filter.means(entry.id(), entry, time_of(&timeline.anchors, entry.heard));
        let places: Vec<_> = page.iter().filter(|(_, entry)| meant(entry)).map(|(place, _)| *place).collect();
        if !places.is_empty() {
            dropped += store.drop_aside(places).await?;
        }
    }
    Ok(dropped)
}

fn value_of(store: &Store, key: &str) -> Option<Vec<u8>> {
    store.state(key).into_iter().find(|(found, _)| found == key).map(|(_, value)| value)
}
