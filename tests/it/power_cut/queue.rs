//! The store as the writer, and as the checker that opens what a cut left of it.
//!
//! Small generations, so that many cuts meet one at its birth or its removal. One destination keeps up, one lags.

use std::path::Path;

use biogate::observation::{EventType, Observation};
use biogate::reading::{BootId, Heard, RunId};
use biogate::store::{Commit, CutLimit, IntakeTally, Settings, Settled, StateChange, Store, WhenFull};

use super::Acknowledgements;
use super::trial::LOST;

const COMMITS: u64 = 150;

const DESTINATIONS: [&str; 2] = ["prompt", "late"];

/// The state key that each commit sets to its newest reading.
const NEWEST: &str = "power-cut/newest";

fn open(folder: &Path, run: u128) -> Store {
    let settings = Settings {
        dir: folder.join("store"),
        max_bytes: 1 << 30,
        aside_max_bytes: 1 << 20,
        min_free: 0,
        max_age: std::time::Duration::from_secs(90 * 86_400),
        when_full: WhenFull::EvictOldest,
        key_file: None,
        generation_bytes: 24 * 1_024,
    };
    let names = DESTINATIONS.map(String::from);
    Store::open(&settings, RunId(uuid::Uuid::from_u128(run)), BootId(uuid::Uuid::from_u128(1)), &names).unwrap()
}

fn observation(reading: u64) -> Observation {
    Observation {
        reading,
        index: 0,
        device: "strap-anna".into(),
        profile: "bluetooth-heart-rate/1".into(),
        event_type: EventType::HeartRate,
        component: "".into(),
        value: 60.0 + fastrand::f64(),
        heard: Heard { boot: BootId(uuid::Uuid::from_u128(1)), ms: 1_000 * reading },
        device_time: None,
        since: None,
        identity: None,
        metadata: Vec::new(),
    }
}

/// Commits, and delivers now and then; `in N`: readings to N are taken, `prompt N`: those to N were delivered there.
pub(super) fn write(folder: &Path, mut acknowledgements: Acknowledgements) {
    runtime().block_on(async {
        std::fs::create_dir_all(folder.join("store")).unwrap();
        let store = open(folder, 1);
        let mut next = 1;
        for number in 1..=COMMITS {
            let count = 1 + number * 7_919 % 60;
            let newest = next + count - 1;
            let commit = Commit {
                observations: (next..=newest).map(observation).collect(),
                state: vec![StateChange { key: NEWEST.into(), value: Some(newest.to_be_bytes().to_vec()) }],
                intake: IntakeTally {
                    accepted: count,
                    decoded: count,
                    made: count,
                    stored: count,
                    ..IntakeTally::default()
                },
                ..Commit::default()
            };
            store.commit(commit).await.unwrap();
            acknowledgements.give(format_args!("in {newest}"));
            next = newest + 1;
            if number % 3 == 0 {
                deliver(&store, "prompt", &mut acknowledgements, 0).await;
            }
            if number % 20 == 0 {
                deliver(&store, "late", &mut acknowledgements, 500).await;
            }
        }
        // No closing: the power goes first.
        std::mem::forget(store);
    });
}

/// Delivers until no more than `leave` observations wait.
async fn deliver(store: &Store, to: &str, acknowledgements: &mut Acknowledgements, leave: u64) {
    while waiting(store, to) > leave {
        let (range, readings) = take(store, to).await;
        // Said before the cursor moves: from then on the store may remove them.
        acknowledgements.give(format_args!("{to} {}", readings.last().unwrap()));
        let settled = Settled { delivered: range.count(), ..Settled::default() };
        store.settle(to, &range, settled).await.unwrap();
    }
}

async fn take(store: &Store, to: &str) -> (biogate::store::Range, Vec<u64>) {
    let range = store.next_range(to, 0, 0, CutLimit { max_observations: 300, max_bytes: 1 << 20 }).await.unwrap();
    let chunks = store.read(&range).await.unwrap();
    let readings = chunks.iter().flat_map(|chunk| &chunk.observations).map(|observation| observation.reading);
    (range, readings.collect())
}

fn waiting(store: &Store, to: &str) -> u64 {
    store.stat().destinations.iter().find(|stat| stat.name == to).unwrap().waiting
}

/// Opens the store and demands, for each destination, every reading that was taken and not delivered there.
pub(super) fn check(folder: &Path, owed: &str) {
    runtime().block_on(async {
        let promised = |what: &str| -> u64 {
            let of = |line: &str| line.strip_prefix(what)?.strip_prefix(' ')?.parse().ok();
            owed.lines().filter_map(of).max().unwrap_or(0)
        };
        let taken = promised("in");
        std::fs::create_dir_all(folder.join("store")).unwrap();
        let store = open(folder, 2);
        let ledger = store.ledger();
        for (name, tally) in &ledger.destinations {
            assert_eq!(tally.sum(), ledger.intake.stored, "{name} is out of balance: {tally:?}");
        }
        let newest = store
            .state(NEWEST)
            .first()
            .map_or(0, |(_, value)| u64::from_be_bytes(value.as_slice().try_into().unwrap()));
        assert!(newest >= taken, "{LOST}: the state of reading {taken}, it is that of {newest}");
        for to in DESTINATIONS {
            let mut expected = None;
            while waiting(&store, to) > 0 {
                let (range, readings) = take(&store, to).await;
                let found = readings.first().copied().unwrap_or(0);
                let first = expected.unwrap_or(found);
                let delivered = promised(to);
                assert!(
                    expected.is_some() || first <= delivered + 1,
                    "{LOST}: {to} begins at reading {first}, and {delivered} is the last that was delivered"
                );
                assert!(
                    readings.iter().copied().eq(first..first + range.count()),
                    "{LOST}: {to} has a hole after reading {first}: {readings:?}"
                );
                expected = Some(first + range.count());
                store.settle(to, &range, Settled { delivered: range.count(), ..Settled::default() }).await.unwrap();
            }
            let through = expected.map_or(promised(to), |after| after - 1);
            assert!(through >= taken, "{LOST}: {to} ends at reading {through} of {taken}");
            assert!(expected.is_none() || through == newest, "{to} ends at {through}, the state says {newest}");
        }
        let (_, tally) = &store.ledger().destinations[0];
        assert_eq!(tally.damaged, 0, "{LOST}: counted as damaged: {tally:?}");
        store.close().await.unwrap();
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
