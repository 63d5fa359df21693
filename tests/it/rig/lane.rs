//! A real store and one destination's loop, as the gateway wires them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use biogate::clock::Anchors;
use biogate::forward::health::Health;
use biogate::forward::{Forwarder, Gate, Inputs, Kind, Settings};
use biogate::observation::Observation;
use biogate::reading::{BootId, RunId};
use biogate::resolve::{Timeline, Unassigned};
use biogate::store::{self, Commit, DestinationTally, IntakeTally, Store, WhenFull};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::events::timeline;

/// Every wait in a test ends after this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// The one destination's name.
const NAME: &str = "out";

/// Store and loop of one process.
pub(crate) struct Lane {
    pub(crate) store: Store,
    pub(crate) health: Health,
    gate: watch::Sender<Gate>,
    timeline: watch::Sender<Arc<Timeline>>,
    stop: watch::Sender<Option<Instant>>,
    running: JoinHandle<Result<(), store::Error>>,
}

impl Lane {
    /// Opens the store in `dir` and starts the loop; the gate stands as given.
    pub(crate) fn start(dir: &Path, kind: Kind, gate: Gate, unassigned: Unassigned) -> Lane {
        Lane::start_with(dir, kind, gate, timeline(unassigned))
    }

    /// The same of a hub with this name, where the destination keeps something under it.
    #[allow(dead_code, reason = "for Kafka's exactly_once")]
    pub(crate) fn start_named(dir: &Path, kind: Kind, gateway: &str) -> Lane {
        let mut timeline = Timeline::clone(&timeline(Unassigned::Forward));
        timeline.bases.values_mut().for_each(|basis| basis.gateway_id = gateway.into());
        Lane::start_with(dir, kind, Gate::Open, Arc::new(timeline))
    }

    fn start_with(dir: &Path, kind: Kind, gate: Gate, timeline: Arc<Timeline>) -> Lane {
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
        let store = Store::open(&settings, RunId::random(), BootId::WALL, &[NAME.to_owned()]).unwrap();
        let (gate, gate_seen) = watch::channel(gate);
        let (timeline, timeline_seen) = watch::channel(timeline);
        let (stop, stop_seen) = watch::channel(None);
        let inputs = Inputs { gate: gate_seen, timeline: timeline_seen, stop: stop_seen };
        let settings = Settings { name: NAME.to_owned(), kind };
        let forwarder = Forwarder::new(&settings, store.clone(), inputs, 1).unwrap();
        let health = forwarder.healths().remove(0);
        Lane { store, health, gate, timeline, stop, running: tokio::spawn(forwarder.run()) }
    }

    /// Stores observations durably.
    pub(crate) async fn commit(&self, observations: Vec<Observation>) {
        let count = observations.len() as u64;
        let intake =
            IntakeTally { accepted: count, decoded: count, made: count, stored: count, ..IntakeTally::default() };
        self.store.commit(Commit { observations, intake, ..Commit::default() }).await.unwrap();
    }

    pub(crate) fn open_gate(&self) {
        self.gate.send_replace(Gate::Open);
    }

    /// The hub moves: a new basis.
    pub(crate) fn move_to(&self, location: &str) {
        self.timeline.send_modify(|timeline| {
            let mut next = Timeline::clone(timeline);
            let (number, basis) = next.bases.last_key_value().unwrap();
            let (number, mut basis) = (*number, basis.clone());
            basis.location = Some(location.into());
            next.bases.insert(number + 1, basis);
            next.anchors = Anchors::new(0);
            *timeline = Arc::new(next);
        });
    }

    pub(crate) fn tally(&self) -> DestinationTally {
        let ledger = self.store.ledger();
        ledger.destinations.iter().find(|(name, _)| name == NAME).unwrap().1
    }

    /// Waits until `holds` of the tally.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&DestinationTally) -> bool) -> DestinationTally {
        let end = Instant::now() + DEADLINE;
        loop {
            let tally = self.tally();
            if holds(&tally) {
                return tally;
            }
            assert!(Instant::now() < end, "not in time: {what}: {tally:?} {:?}", self.health.snapshot());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends as the gateway does.
    pub(crate) async fn shut_down(self) {
        self.stop.send_replace(Some(Instant::now() + Duration::from_secs(5)));
        timeout(DEADLINE, self.running).await.unwrap().unwrap().unwrap();
        self.store.close().await.unwrap();
    }
}
