//! What comes back, on a real store and without a gateway: what a destination rejected goes to that one only, and what
//! cannot come back says why.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use biogate::clock::Anchors;
use biogate::forward::rows::Batch;
use biogate::interpret::{Catalog, Limits, ProfileSet};
use biogate::quarantine::{Filter, Quarantine};
use biogate::reading::{BootId, Channel, Heard, RunId};
use biogate::resolve::{Timeline, Unassigned};
use biogate::store::{AsideEntry, AsideKind, Commit, DestinationTally, Store, observation_to_cbor};
use tokio::sync::watch;
use uuid::Uuid;

use crate::rig::events::{heart_rate, timeline, yesterday_ms};
use crate::store_rig::{LIMIT, assert_balanced, open, settings};

/// A run of another process start.
const EARLIER: RunId = RunId(Uuid::from_u128(4_711));

fn quarantine(store: &Store, destinations: &[&str], timeline: Arc<Timeline>) -> Quarantine {
    let catalog = Catalog::new(&ProfileSet::empty(), Vec::new(), Limits(BTreeMap::new())).unwrap();
    let (_, timeline) = watch::channel(timeline);
    let names = destinations.iter().map(|name| (*name).to_owned()).collect();
    Quarantine::new(store.clone(), Arc::new(RwLock::new(Arc::new(catalog))), timeline, names)
}

/// An event that `destination` rejected.
fn rejected(reading: u64, destination: &str) -> AsideEntry {
    let observation = heart_rate(reading, 60.0 + reading as f64, yesterday_ms());
    AsideEntry {
        kind: AsideKind::Rejected,
        reason: "the table has no such column".to_owned(),
        device: observation.device.clone(),
        entry: observation.device.clone(),
        channel: Channel::Gatt("observation".into()),
        profile: observation.profile.clone(),
        run: EARLIER,
        reading,
        heard: observation.heard,
        bytes: observation_to_cbor(&observation),
        destination: Some(destination.to_owned()),
        which: None,
        counters: Vec::new(),
        resets: 0,
    }
}

async fn set_aside(store: &Store, aside: Vec<AsideEntry>) {
    store.commit(Commit { aside, ..Commit::default() }).await.unwrap();
}

/// Takes everything as a forwarder does; returns the ids that the destination got.
async fn drain(store: &Store, name: &str) -> Vec<Uuid> {
    let mut ids = Vec::new();
    while store.stat().destinations.iter().any(|to| to.name == name && to.waiting > 0) {
        let range = store.next_range(name, 0, 1, LIMIT).await.unwrap();
        let chunks = store.read(&range).await.unwrap().collect::<Vec<_>>();
        let mut batch = Batch::new(name.into(), range.clone(), false, chunks, timeline(Unassigned::Forward));
        let mut rows = 0;
        assert!(batch.fill(|_, event| {
            rows += 1;
            ids.push(event.event_id);
            std::ops::ControlFlow::Continue(())
        }));
        batch.tally.delivered = rows;
        store.settle(name, &range, batch.settle([])).await.unwrap();
    }
    ids
}

fn tally(store: &Store, name: &str) -> DestinationTally {
    store.ledger().destinations.into_iter().find(|(of, _)| of == name).unwrap().1
}

#[tokio::test]
async fn what_was_rejected_goes_to_that_destination_and_to_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&settings(dir.path()), &["a", "b"]);
    // Twice there, as a crash may leave it.
    set_aside(&store, vec![rejected(1, "b"), rejected(2, "b")]).await;
    set_aside(&store, vec![rejected(2, "b"), rejected(3, "gone")]).await;
    let timeline = timeline(Unassigned::Forward);
    let quarantine = quarantine(&store, &["a", "b"], timeline);
    assert_eq!(quarantine.list(&Filter::default(), 9).await.unwrap().len(), 3);
    let dry = quarantine.replay(&Filter::default(), true).await.unwrap();
    assert_eq!((dry.replayed, dry.events, dry.still), (2, 2, 1));
    assert_eq!((store.stat().aside_entries, store.ledger().intake.replayed), (4, 0), "a dry run changes nothing");
    let outcome = quarantine.replay(&Filter::default(), false).await.unwrap();
    assert_eq!((outcome.replayed, outcome.events, outcome.still), (2, 2, 1));
    let still = outcome.entries.iter().find_map(|entry| entry.still.clone()).unwrap();
    assert!(still.contains("\"gone\" is not configured"), "{still}");
    assert_eq!(store.stat().aside_entries, 1);
    let wanted: Vec<Uuid> = [1, 2].map(|n| biogate::event::event_id(EARLIER, &heart_rate(n, 0.0, 0))).into();
    assert_eq!(drain(&store, "a").await, Vec::<Uuid>::new());
    assert_eq!(drain(&store, "b").await, wanted);
    assert_balanced(&store);
    assert_eq!((tally(&store, "a").passed_over, tally(&store, "b").delivered), (2, 2));
    let intake = store.ledger().intake;
    assert_eq!((intake.accepted, intake.decoded, intake.replayed), (2, 2, 2));
}

#[tokio::test]
async fn what_cannot_come_back_stays_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&settings(dir.path()), &["a"]);
    let unknown = Heard { boot: BootId(Uuid::from_u128(5)), ms: 7 };
    let refused = AsideEntry { kind: AsideKind::Refused, destination: None, ..rejected(4, "a") };
    let entries = vec![
        AsideEntry { heard: unknown, ..rejected(1, "a") },
        AsideEntry { bytes: b"no CBOR".to_vec(), ..rejected(2, "a") },
        AsideEntry { bytes: vec![7; 70_000], ..rejected(3, "a") },
        refused,
    ];
    set_aside(&store, entries).await;
    let timeline = Arc::new(Timeline { anchors: Anchors::new(0), ..Timeline::clone(&timeline(Unassigned::Forward)) });
    let outcome = quarantine(&store, &["a"], timeline).replay(&Filter::default(), false).await.unwrap();
    assert_eq!((outcome.replayed, outcome.still), (0, 4));
    let told: Vec<String> = outcome.entries.into_iter().filter_map(|entry| entry.still).collect();
    for (told, why) in told.iter().zip(["clock of the boot", "no observation", "too many to keep", "no device entry"]) {
        assert!(told.contains(why), "{told}");
    }
    assert_eq!(store.stat().aside_entries, 4);
    assert_eq!(store.ledger().intake.accepted, 0);
}
