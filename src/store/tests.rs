//! The queue as its users see it: in, out, over a reopen.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::observation::{EventType, Value};

const BOOT: BootId = BootId(Uuid::from_u128(1));
const LIMIT: CutLimit = CutLimit { max_observations: 1_000, max_bytes: 1 << 20 };

fn settings(dir: &std::path::Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        max_bytes: 1 << 30,
        aside_max_bytes: 1 << 20,
        min_free: 0,
        max_age: Duration::from_secs(1 << 30),
        when_full: WhenFull::EvictOldest,
        key_file: None,
        generation_bytes: 64 << 10,
    }
}

fn observation(number: u64) -> Observation {
    Observation {
        reading: number,
        index: 0,
        device: "band".into(),
        profile: "p/1".into(),
        event_type: EventType::HeartRate,
        component: "".into(),
        value: number as f64,
        heard: Heard { boot: BOOT, ms: number },
        device_time: None,
        since: None,
        identity: (number % 3 == 0).then(|| Uuid::from_u128(number.into())),
        metadata: vec![
            ("contact".into(), Value::Text("detected".into())),
            ("rr".into(), Value::List(vec![Value::Num(0.5), Value::Int(3), Value::Null])),
        ],
    }
}

fn commit(from: u64, count: u64) -> Commit {
    let intake = IntakeTally { accepted: count, decoded: count, made: count, stored: count, ..IntakeTally::default() };
    Commit {
        observations: (from..from + count).map(observation).collect(),
        state: vec![StateChange { key: "device/band".into(), value: Some(from.to_be_bytes().to_vec()) }],
        aside: Vec::new(),
        intake,
    }
}

fn open(dir: &std::path::Path) -> Store {
    Store::open(&settings(dir), RunId(Uuid::from_u128(5)), BOOT, &["a".to_owned(), "b".to_owned()]).unwrap()
}

async fn drain(store: &Store, to: &str) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let waiting = store.ledger().destinations.iter().find(|(name, _)| name == to).unwrap().1.waiting;
        if waiting == 0 {
            return all;
        }
        let range = store.next_range(to, 1, 1, LIMIT).await.unwrap();
        let chunks = store.read(&range).await.unwrap();
        let found: Vec<u64> = chunks.iter().flat_map(|chunk| &chunk.observations).map(|of| of.reading).collect();
        assert_eq!(found.len() as u64, range.last + 1 - range.first);
        let settled = Settled { delivered: found.len() as u64, ..Settled::default() };
        store.settle(to, &range, settled).await.unwrap();
        all.extend(found);
    }
}

#[tokio::test]
async fn what_goes_in_comes_out_once_in_order_over_many_generations_and_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    let mut out_a = Vec::new();
    for round in 0..6 {
        let store = open(dir.path());
        for _ in 0..30 {
            store.commit(commit(next, 100)).await.unwrap();
            next += 100;
        }
        assert_eq!(store.state("device/"), [("device/band".to_owned(), (next - 100).to_be_bytes().to_vec())]);
        if round % 2 == 1 {
            out_a.extend(drain(&store, "a").await);
        }
        store.close().await.unwrap();
    }
    let store = open(dir.path());
    assert_eq!(out_a, (0..next).collect::<Vec<u64>>());
    assert!(store.stat().generations > 2, "{:?}", store.stat());
    assert_eq!(drain(&store, "b").await, (0..next).collect::<Vec<u64>>());
    store.commit(Commit::default()).await.unwrap();
    assert_eq!(store.stat().generations, 1, "what everybody has is gone");
    assert_eq!(store.verify().await.unwrap().damaged, 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_range_is_cut_with_the_commit_that_brings_it_and_stays_in_hand_over_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.next_range("a", 7, 8, LIMIT).await }
    });
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let before = store.stat().syncs;
    store.commit(commit(0, 10)).await.unwrap();
    let range = waiting.await.unwrap().unwrap();
    assert_eq!((store.stat().syncs - before, range.first, range.last), (1, 1, 10), "one fdatasync for both");
    store.close().await.unwrap();
    let store = open(dir.path());
    assert_eq!(store.in_hand("a"), Some(Range { first: 1, last: 10, anchors: 7, basis: 8 }));
    assert_eq!(store.next_range("a", 9, 9, LIMIT).await.unwrap(), range);
    let chunks = store.read(&range).await.unwrap();
    assert_eq!(chunks[0].observations, (0..10).map(observation).collect::<Vec<_>>());
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_oldest_is_evicted_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let small = Settings { max_bytes: 200 << 10, ..settings(dir.path()) };
    let store = Store::open(&small, RunId::random(), BOOT, &["a".to_owned()]).unwrap();
    for turn in 0..300 {
        store.commit(commit(turn * 100, 100)).await.unwrap();
    }
    let ledger = store.ledger();
    let (_, tally) = &ledger.destinations[0];
    assert!(tally.evicted > 0 && tally.evicted + tally.waiting == 30_000, "{tally:?}");
    let out = drain(&store, "a").await;
    assert_eq!(out, (tally.evicted..30_000).collect::<Vec<u64>>());
    store.close().await.unwrap();
}

#[tokio::test]
async fn damage_anywhere_never_stops_an_open_and_is_counted() {
    for seed in 0..12u64 {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for turn in 0..60 {
            store.commit(commit(turn * 100, 100)).await.unwrap();
        }
        store.close().await.unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        let numbers = disk::numbers(dir.path()).unwrap();
        let victim = disk::folder(dir.path(), numbers[random.usize(..numbers.len())]).join("db");
        let mut bytes = std::fs::read(&victim).unwrap();
        match seed % 4 {
            0 => (0..20).for_each(|_| {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 0x55;
            }),
            1 => bytes.truncate(random.usize(1_000..bytes.len())),
            2 => bytes.clear(),
            _ => bytes[4_096..40_000].fill(0),
        }
        std::fs::write(&victim, bytes).unwrap();
        let store = open(dir.path());
        let out = drain(&store, "a").await;
        let (_, tally) = store.ledger().destinations[0].clone();
        assert_eq!(tally.delivered, out.len() as u64);
        assert!(out.is_sorted());
        assert_eq!(tally.settled(), store.ledger().intake.stored, "seed {seed}: {tally:?}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_sealed_store_needs_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, [7u8; 32]).unwrap();
    let sealed = Settings { key_file: Some(key.clone()), ..settings(&dir.path().join("s")) };
    let names = ["a".to_owned()];
    let store = Store::open(&sealed, RunId::random(), BOOT, &names).unwrap();
    store.commit(commit(0, 10)).await.unwrap();
    store.close().await.unwrap();
    let plain = Settings { key_file: None, ..sealed.clone() };
    assert!(matches!(Store::open(&plain, RunId::random(), BOOT, &names), Err(Error::Key(_))));
    std::fs::write(&key, [8u8; 32]).unwrap();
    assert!(matches!(Store::open(&sealed, RunId::random(), BOOT, &names), Err(Error::Key(_))));
    std::fs::write(&key, [7u8; 32]).unwrap();
    let store = Store::open(&sealed, RunId::random(), BOOT, &names).unwrap();
    assert_eq!(drain(&store, "a").await, (0..10).collect::<Vec<u64>>());
    let raw = std::fs::read(dir.path().join("s/gen-1/db")).unwrap();
    assert!(!raw.windows(4).any(|window| window == b"band"), "no name is readable");
}

#[tokio::test]
async fn a_second_process_and_a_newer_format_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let names: Arc<[String]> = Arc::from(["a".to_owned()]);
    assert!(matches!(Store::open(&settings(dir.path()), RunId::random(), BOOT, &names), Err(Error::Held(_))));
    store.close().await.unwrap();
    std::fs::write(dir.path().join("format"), "9\n").unwrap();
    assert!(matches!(Store::open(&settings(dir.path()), RunId::random(), BOOT, &names), Err(Error::Newer { .. })));
}
