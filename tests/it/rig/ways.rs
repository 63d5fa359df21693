//! A real store with several destinations, as the gateway wires them: each with a loop of its own, or as a failover.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use biogate::forward::failover::{self, CURSOR};
use biogate::forward::health::{Health, Snapshot};
use biogate::forward::{Forwarder, Gate, Inputs, Kind, Settings};
use biogate::observation::Observation;
use biogate::reading::{BootId, RunId};
use biogate::resolve::{Timeline, Unassigned};
use biogate::store::{self, Commit, DestinationTally, IntakeTally, Store, WhenFull};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::DEADLINE;
use super::events::timeline;

/// Store and loops of one process.
pub(crate) struct Ways {
    pub(crate) store: Store,
    healths: Vec<Health>,
    stop: watch::Sender<Option<tokio::time::Instant>>,
    running: JoinSet<Result<(), store::Error>>,
    _gate: watch::Sender<Gate>,
    _timeline: watch::Sender<Arc<Timeline>>,
}

impl Ways {
    /// Each destination has a loop of its own.
    pub(crate) fn fan_out(dir: &Path, destinations: &[(&str, Kind)]) -> Ways {
        let names: Vec<String> = destinations.iter().map(|(name, _)| (*name).to_owned()).collect();
        Ways::start(dir, &names, |store, inputs| {
            let one = |(name, kind): &(&str, Kind)| {
                let settings = Settings { name: (*name).to_owned(), kind: kind.clone() };
                Forwarder::new(&settings, store.clone(), inputs.clone(), 1).unwrap()
            };
            destinations.iter().map(one).collect()
        })
    }

    /// They share one cursor, in this order.
    pub(crate) fn failover(dir: &Path, destinations: &[(&str, Kind)], times: &failover::Settings) -> Ways {
        Ways::start(dir, &[CURSOR.to_owned()], |store, inputs| {
            let one = |(name, kind): &(&str, Kind)| Settings { name: (*name).to_owned(), kind: kind.clone() };
            let all: Vec<Settings> = destinations.iter().map(one).collect();
            let order = all.iter().map(|to| to.name.clone()).collect();
            let settings = failover::Settings { order, ..times.clone() };
            let all: Vec<&Settings> = all.iter().collect();
            vec![Forwarder::with_failover(settings, &all, store.clone(), inputs.clone(), 1).unwrap()]
        })
    }

    fn start(dir: &Path, cursors: &[String], loops: impl FnOnce(&Store, &Inputs) -> Vec<Forwarder>) -> Ways {
        let settings = store::Settings {
            dir: dir.join("store"),
            max_bytes: 64 << 20,
            aside_max_bytes: 8 << 20,
            min_free: 0,
            max_age: Duration::from_secs(86_400),
            when_full: WhenFull::EvictOldest,
            key_file: None,
            generation_bytes: 4 << 20,
        };
        let store = Store::open(&settings, RunId::random(), BootId::WALL, cursors).unwrap();
        let (gate, gate_seen) = watch::channel(Gate::Open);
        let (timeline, timeline_seen) = watch::channel(timeline(Unassigned::Forward));
        let (stop, stop_seen) = watch::channel(None);
        let inputs = Inputs { gate: gate_seen, timeline: timeline_seen, stop: stop_seen };
        let mut healths = Vec::new();
        let mut running = JoinSet::new();
        for forwarder in loops(&store, &inputs) {
            healths.extend(forwarder.healths());
            running.spawn(forwarder.run());
        }
        Ways { store, healths, stop, running, _gate: gate, _timeline: timeline }
    }

    /// Stores observations durably.
    pub(crate) async fn commit(&self, observations: Vec<Observation>) {
        let count = observations.len() as u64;
        let intake =
            IntakeTally { accepted: count, decoded: count, made: count, stored: count, ..IntakeTally::default() };
        self.store.commit(Commit { observations, intake, ..Commit::default() }).await.unwrap();
    }

    /// What became of the observations for this cursor.
    pub(crate) fn tally(&self, cursor: &str) -> DestinationTally {
        let ledger = self.store.ledger();
        let tally = ledger.destinations.iter().find(|(name, _)| name == cursor).unwrap().1;
        assert_eq!(ledger.intake.stored, tally.sum(), "the ledger balances: {tally:?}");
        tally
    }

    pub(crate) fn health(&self, name: &str) -> Snapshot {
        self.healths.iter().map(Health::snapshot).find(|snapshot| snapshot.name == name).unwrap()
    }

    /// Waits until `holds`.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&Ways) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !holds(self) {
            let healths: Vec<_> = self.healths.iter().map(Health::snapshot).collect();
            assert!(Instant::now() < end, "not in time: {what}: {:?} {healths:?}", self.store.ledger());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends as the gateway does.
    pub(crate) async fn shut_down(mut self) {
        self.stop.send_replace(Some(tokio::time::Instant::now() + Duration::from_millis(500)));
        while let Some(ended) = tokio::time::timeout(DEADLINE, self.running.join_next()).await.unwrap() {
            ended.unwrap().unwrap();
        }
        self.store.close().await.unwrap();
    }
}

/// What a process that is killed now would leave of its store: its files as they are.
pub(crate) fn store_of_the_killed(dir: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let left = tempfile::tempdir().unwrap();
    copy(&dir.join("store"), &left.path().join("store"));
    left
}

/// An address that takes every connection and every byte, and never answers.
pub(crate) struct Swallower {
    pub(crate) address: String,
    inserts: Arc<AtomicU64>,
}

impl Swallower {
    pub(crate) fn new() -> Swallower {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let inserts = Arc::new(AtomicU64::new(0));
        let count = inserts.clone();
        // It ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let count = count.clone();
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(read) = stream.read(&mut bytes) {
                        if read == 0 {
                            return;
                        }
                        // The first bytes of a request; a question after the destination's health is no insert.
                        let line = String::from_utf8_lossy(&bytes[..read]).into_owned();
                        count.fetch_add(u64::from(line.contains("query=INSERT%20")), Ordering::SeqCst);
                    }
                });
            }
        });
        Swallower { address, inserts }
    }

    /// How many inserts it swallowed.
    pub(crate) fn inserts(&self) -> u64 {
        self.inserts.load(Ordering::SeqCst)
    }
}
