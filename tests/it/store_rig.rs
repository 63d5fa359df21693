//! What the store's tests share: settings, observations that name themselves, and a full drain.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use biogate::observation::{EventType, Observation, Value};
use biogate::reading::{BootId, Channel, Heard, RunId};
use biogate::report::{Kind, Report};
use biogate::store::{
    AsideEntry, AsideKind, Chunk, Commit, CutLimit, Error, IntakeTally, Range, Settings, Settled, Store, WhenFull,
};
use uuid::Uuid;

pub(crate) const RUN: RunId = RunId(Uuid::from_u128(9));
pub(crate) const BOOT: BootId = BootId(Uuid::from_u128(5));
pub(crate) const LIMIT: CutLimit = CutLimit { max_observations: 1_000, max_bytes: 1 << 20 };

/// Small generations, so that they roll often.
pub(crate) fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        max_bytes: 1 << 30,
        aside_max_bytes: 64 << 20,
        min_free: 0,
        max_age: Duration::from_secs(90 * 86_400),
        when_full: WhenFull::EvictOldest,
        key_file: None,
        generation_bytes: 24 * 1024,
    }
}

pub(crate) fn open(settings: &Settings, destinations: &[&str]) -> Store {
    let names: Vec<String> = destinations.iter().map(|name| (*name).to_owned()).collect();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(settings, RUN, BOOT, &names) {
            // A test beside this one starts processes: one that has not got to its exec has this one's locks.
            Err(Error::Locked { .. }) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened.unwrap_or_else(|error| panic!("{error}")),
        }
    }
}

/// An observation of this reading; the metadata do not compress, so that generations fill.
pub(crate) fn observation(reading: u64) -> Observation {
    let noise = Uuid::new_v5(&Uuid::NAMESPACE_OID, &reading.to_le_bytes()).to_string();
    Observation {
        reading,
        index: 0,
        device: format!("device-{}", reading % 3).into(),
        profile: "test/1".into(),
        event_type: EventType::HeartRate,
        component: "".into(),
        value: 40.0 + (reading % 100) as f64,
        heard: Heard { boot: BOOT, ms: reading },
        device_time: None,
        since: None,
        identity: None,
        metadata: vec![("noise".into(), Value::Text(noise.into()))],
    }
}

pub(crate) fn commit_of(readings: std::ops::Range<u64>) -> Commit {
    let n = readings.end - readings.start;
    Commit {
        observations: readings.map(observation).collect(),
        intake: IntakeTally { accepted: n, decoded: n, made: n, stored: n, ..IntakeTally::default() },
        ..Commit::default()
    }
}

pub(crate) fn aside_entry(reading: u64, bytes: usize) -> AsideEntry {
    AsideEntry {
        kind: AsideKind::Implausible,
        reason: "heart_rate 999 is outside 20..=300".to_owned(),
        device: "device-0".into(),
        entry: "device-0".into(),
        channel: Channel::Gatt("2a37".into()),
        profile: "test/1".into(),
        run: RUN,
        reading,
        heard: Heard { boot: BOOT, ms: reading },
        bytes: (0..bytes).map(|at| (reading as usize * 31 + at * at) as u8).collect(),
        destination: None,
        which: None,
        counters: Vec::new(),
        resets: 0,
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn waiting(store: &Store, name: &str) -> u64 {
    let stat = store.stat();
    stat.destinations.iter().find(|to| to.name == name).map_or(0, |to| to.waiting)
}

/// The readings of these chunks, whose sequences must ascend inside the range.
pub(crate) fn readings(range: &Range, chunks: &[Chunk]) -> Vec<u64> {
    let mut at = range.first;
    for chunk in chunks {
        assert!(chunk.first >= at, "sequences ascend");
        at = chunk.first + chunk.observations.len() as u64;
    }
    assert!(at <= range.last + 1);
    chunks.iter().flat_map(|chunk| &chunk.observations).map(|observation| observation.reading).collect()
}

/// Everything that waits for a destination, settled.
pub(crate) async fn drain(store: &Store, name: &str) -> Vec<u64> {
    let mut seen = Vec::new();
    while waiting(store, name) > 0 {
        let range = store.next_range(name, 0, 0, LIMIT).await.unwrap();
        let chunks = store.read(&range).await.unwrap().collect::<Vec<_>>();
        let these = readings(&range, &chunks);
        let delivered = these.len() as u64;
        let settled = Settled { delivered, damaged: range.count() - delivered, ..Settled::default() };
        seen.extend(these);
        store.settle(name, &range, settled).await.unwrap();
    }
    seen
}

pub(crate) fn assert_balanced(store: &Store) {
    let ledger = store.ledger();
    for (name, tally) in &ledger.destinations {
        assert_eq!(tally.sum(), ledger.intake.stored, "{name}: {tally:?}");
    }
    let intake = &ledger.intake;
    assert_eq!(intake.made, intake.implausible + intake.stored);
    assert_eq!(intake.accepted, intake.without_event + intake.refused + intake.duplicate + intake.decoded);
}

/// sled puts a log item over 131,052 bytes into a file that nobody syncs: there must never be one.
pub(crate) fn assert_no_blobs(dir: &Path) {
    for row in [dir.to_owned(), dir.join("aside"), dir.join("reports"), dir.join("damaged")] {
        for generation in std::fs::read_dir(row).into_iter().flatten().flatten() {
            let blobs = std::fs::read_dir(generation.path().join("blobs")).into_iter().flatten().count();
            assert_eq!(blobs, 0, "{}", generation.path().display());
        }
    }
}

/// The generations' folders, oldest first.
pub(crate) fn generations(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(u64, PathBuf)> = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_prefix("gen-")?.parse().ok()?, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// A closed store of 4,000 observations in several generations, of which `a` has settled the first range.
pub(crate) fn filled(dir: &Path) -> Settings {
    let settings = settings(dir);
    runtime().block_on(async {
        let store = open(&settings, &["a", "b", "c"]);
        for round in 0..40 {
            store.commit(commit_of(round * 100..(round + 1) * 100)).await.unwrap();
        }
        let range = store.next_range("a", 0, 0, LIMIT).await.unwrap();
        store.settle("a", &range, Settled { delivered: range.count(), ..Settled::default() }).await.unwrap();
        // `b` holds the first range and `c` the last.
        store.next_range("b", 0, 0, LIMIT).await.unwrap();
        loop {
            let range = store.next_range("c", 0, 0, LIMIT).await.unwrap();
            if range.last == 4_000 {
                break;
            }
            store.settle("c", &range, Settled { delivered: range.count(), ..Settled::default() }).await.unwrap();
        }
        store.close().await.unwrap();
    });
    assert!(generations(dir).len() >= 4, "{:?}", generations(dir));
    settings
}

/// A report of this number.
pub(crate) fn status_of(number: u64) -> Report {
    let noise = Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_le_bytes());
    Report {
        kind: Kind::Status,
        key: number.to_string(),
        row: format!("{{\"number\":{number},\"noise\":\"{noise}\"}}"),
    }
}

/// All reports of a kind that wait for a destination, which has them then.
pub(crate) async fn all_reports(store: &Store, name: &str, kind: Kind) -> Vec<Report> {
    let mut all = Vec::new();
    loop {
        let (through, reports) = store.reports(name, kind, 10_000).await.unwrap();
        if reports.is_empty() {
            return all;
        }
        all.extend(reports);
        store.reports_done(name, kind, through).await.unwrap();
    }
}
