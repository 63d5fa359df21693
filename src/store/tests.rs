//! What a store promises in one process, and over a reopen.

use std::time::Duration;

use super::*;
use crate::observation::{EventType, Observation, Value};
use crate::reading::{BootId, Heard, RunId};

fn settings(dir: &std::path::Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        max_bytes: 1 << 30,
        aside_max_bytes: 64 << 20,
        min_free: 0,
        max_age: Duration::from_secs(90 * 86_400),
        when_full: WhenFull::EvictOldest,
        key_file: None,
        generation_bytes: 16 * 1024,
    }
}

fn observation(reading: u64) -> Observation {
    Observation {
        reading,
        index: 0,
        device: "strap-anna".into(),
        profile: "bluetooth-heart-rate/1".into(),
        event_type: EventType::HeartRate,
        component: "".into(),
        value: 60.0 + (reading * 7919 % 40) as f64,
        heard: Heard { boot: BootId(uuid::Uuid::from_u128(1)), ms: 1_000 * reading },
        device_time: None,
        since: None,
        identity: None,
        metadata: vec![("rr".into(), Value::List(vec![Value::Num((reading % 977) as f64 / 1024.0)]))],
    }
}

fn commit_of(readings: std::ops::Range<u64>) -> Commit {
    let n = readings.end - readings.start;
    Commit {
        observations: readings.map(observation).collect(),
        intake: IntakeTally { accepted: n, decoded: n, made: n, stored: n, ..IntakeTally::default() },
        ..Commit::default()
    }
}

const LIMIT: CutLimit = CutLimit { max_observations: 5_000, max_bytes: 1 << 20 };

fn open(settings: &Settings) -> Store {
    let boot = BootId(uuid::Uuid::from_u128(1));
    Store::open(settings, RunId(uuid::Uuid::from_u128(9)), boot, &["a".into(), "b".into()]).unwrap()
}

fn assert_balanced(store: &Store) {
    let ledger = store.ledger();
    for (name, tally) in &ledger.destinations {
        assert_eq!(tally.sum(), ledger.intake.stored, "{name}: {tally:?}");
    }
}

async fn drain(store: &Store, name: &str, seen: &mut Vec<u64>) {
    while store.stat().destinations.iter().any(|to| to.name == name && to.waiting > 0) {
        let range = store.next_range(name, 0, 0, LIMIT).await.unwrap();
        let chunks = store.read(&range).await.unwrap();
        let mut count = 0;
        for chunk in chunks {
            count += chunk.observations.len() as u64;
            seen.extend(chunk.observations.iter().map(|observation| observation.reading));
        }
        assert_eq!(count, range.count());
        store.settle(name, &range, Settled { delivered: count, ..Settled::default() }).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_committed_comes_out_in_order_over_reopens_and_generations() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings);
    let mut seen = Vec::new();
    for round in 0..40u64 {
        store.commit(commit_of(round * 300..(round + 1) * 300)).await.unwrap();
        assert_balanced(&store);
    }
    assert!(store.stat().generations > 1, "{:?}", store.stat());
    store.clone().close().await.unwrap();
    let store = open(&settings);
    drain(&store, "a", &mut seen).await;
    assert_eq!(seen, (0..12_000).collect::<Vec<_>>());
    assert_balanced(&store);
    let mut other = Vec::new();
    drain(&store, "b", &mut other).await;
    assert_eq!(other, seen);
    assert_eq!(store.stat().generations, 1, "what both have is gone");
    store.close().await.unwrap();
    let store = open(&settings);
    assert_balanced(&store);
    assert_eq!(store.commit(commit_of(0..1)).await.unwrap(), Some(12_001..=12_001));
    assert!(store.verify().await.unwrap().faults.is_empty());
}

#[tokio::test]
async fn an_idle_destinations_range_rides_on_the_commit_that_brings_its_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings);
    let before = store.stat().syncs;
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.next_range("a", 3, 4, LIMIT).await }
    });
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    store.commit(commit_of(0..5)).await.unwrap();
    let range = waiting.await.unwrap().unwrap();
    assert_eq!(range, Range { first: 1, last: 5, anchors: 3, basis: 4 });
    assert_eq!(store.stat().syncs, before + 1);
    assert_eq!(store.in_hand("a"), Some(range.clone()));
    store.close().await.unwrap();
    let store = open(&settings);
    assert_eq!(store.in_hand("a"), Some(range.clone()));
    assert_eq!(store.next_range("a", 9, 9, LIMIT).await.unwrap(), range);
}

#[tokio::test]
async fn a_range_in_hand_is_extended_and_settled_from_its_front() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings);
    for round in 0..4u64 {
        store.commit(commit_of(round * 100..(round + 1) * 100)).await.unwrap();
    }
    let limit = CutLimit { max_observations: 100, ..LIMIT };
    let of = |first, last| Range { first, last, anchors: 3, basis: 4 };
    let settled = |count| Settled { delivered: count, ..Settled::default() };
    let front = store.next_range("a", 3, 4, limit).await.unwrap();
    assert_eq!(front, of(1, 100));
    let (next, _) = store.ahead(&front, limit).await.unwrap().unwrap();
    assert_eq!(next, of(101, 200));
    let other_versions = Range { basis: 5, ..next.clone() };
    assert!(!store.extend("a", &other_versions).await.unwrap());
    assert!(!store.extend("a", &of(201, 300)).await.unwrap(), "it does not follow");
    assert!(!store.extend("b", &next).await.unwrap(), "nothing is in hand there");
    assert_eq!(store.in_hand("a"), Some(front.clone()));
    let syncs = store.stat().syncs;
    assert!(store.extend("a", &next).await.unwrap());
    assert_eq!((store.in_hand("a"), store.stat().syncs), (Some(of(1, 200)), syncs + 1));
    assert!(store.settle("a", &next, settled(100)).await.is_err(), "only from its front");
    store.settle("a", &front, settled(100)).await.unwrap();
    assert_eq!(store.in_hand("a"), Some(next.clone()));
    assert_balanced(&store);
    let (third, _) = store.ahead(&next, limit).await.unwrap().unwrap();
    assert!(store.extend("a", &third).await.unwrap());
    store.close().await.unwrap();
    let store = open(&settings);
    assert_eq!(store.in_hand("a"), Some(of(101, 300)), "the front that was settled is gone for good");
    store.settle("a", &of(101, 300), settled(200)).await.unwrap();
    assert_eq!(store.next_range("a", 3, 4, limit).await.unwrap(), of(301, 400));
}

#[tokio::test]
async fn a_range_in_hand_stays_within_its_generation() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings);
    for round in 0..40u64 {
        store.commit(commit_of(round * 300..(round + 1) * 300)).await.unwrap();
    }
    assert!(store.stat().generations > 1);
    let limit = CutLimit { max_observations: 600, ..LIMIT };
    let mut front = store.next_range("a", 0, 0, limit).await.unwrap();
    let mut refused = 0;
    while let Some((next, _)) = store.ahead(&front, limit).await.unwrap() {
        if store.extend("a", &next).await.unwrap() {
            let whole = store.in_hand("a").unwrap();
            assert_eq!((whole.first, whole.last), (front.first, next.last));
            let chunks = store.read(&whole).await.unwrap();
            let count: usize = chunks.map(|chunk| chunk.observations.len()).sum();
            assert_eq!(count as u64, whole.count(), "all of it can be read at once");
        } else {
            refused += 1;
            assert_eq!(store.in_hand("a"), Some(front.clone()));
        }
        let delivered = Settled { delivered: front.count(), ..Settled::default() };
        store.settle("a", &front, delivered).await.unwrap();
        front = store.next_range("a", 0, 0, limit).await.unwrap();
        assert_eq!(front.first, next.first);
    }
    assert_eq!(refused, store.stat().generations - 1);
}

#[tokio::test]
async fn state_is_there_after_a_reopen_and_gone_when_it_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings);
    let set = |key: &str, value: Option<&[u8]>| StateChange { key: key.into(), value: value.map(<[u8]>::to_vec) };
    let big = vec![7u8; 300_000];
    let state = vec![set("device/a", Some(b"1")), set("device/b", Some(b"2")), set("big", Some(&big))];
    store.commit(Commit { state, ..Commit::default() }).await.unwrap();
    store.commit(Commit { state: vec![set("device/a", None)], ..Commit::default() }).await.unwrap();
    store.close().await.unwrap();
    let store = open(&settings);
    assert_eq!(store.state("device/"), vec![("device/b".to_owned(), b"2".to_vec())]);
    assert_eq!(store.state("big"), vec![("big".to_owned(), big)]);
    let own = store.commit(Commit { state: vec![set("!totals", None)], ..Commit::default() }).await;
    assert!(matches!(own, Err(Error::Refused { .. })));
}

#[test]
fn a_second_process_is_refused_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let _store = open(&settings);
    let second = Store::open(&settings, RunId::random(), BootId::WALL, &[]);
    assert!(matches!(second.err(), Some(Error::Locked { .. })));
}
