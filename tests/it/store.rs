//! The store's promises: limits, damage, a full disk, a key, and what memory it takes.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use biogate::observation::Value;
use biogate::store::{Commit, Error, IntakeTally, Settings, Settled, StateChange, Store, WhenFull};
use tokio::time::timeout;

use crate::store_rig::{
    BOOT, LIMIT, RUN, aside_entry, assert_balanced, assert_no_blobs, commit_of, drain, filled, generations, open,
    readings, runtime, settings, status_of, waiting,
};

#[test]
fn a_full_store_evicts_its_oldest_generation_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.max_bytes = 1 << 20;
    runtime().block_on(async {
        let store = open(&settings, &["a", "b"]);
        store.commit(commit_of(0..100)).await.unwrap();
        let held = store.next_range("a", 0, 0, LIMIT).await.unwrap();
        for round in 1..300 {
            store.commit(commit_of(round * 100..(round + 1) * 100)).await.unwrap();
            assert_balanced(&store);
            assert!(store.stat().disk_bytes <= settings.max_bytes, "{:?}", store.stat());
        }
        let chunks = store.read(&held).await.unwrap().collect::<Vec<_>>();
        assert_eq!(readings(&held, &chunks), (0..100).collect::<Vec<_>>(), "a range in hand is never evicted");
        store.settle("a", &held, Settled { delivered: held.count(), ..Settled::default() }).await.unwrap();
        let ledger = store.ledger();
        let (a, b) = (ledger.destinations[0].1, ledger.destinations[1].1);
        assert!(a.evicted > 0 && b.evicted > 0, "{ledger:?}");
        let gaps = store.gaps();
        let gone: u64 = gaps.iter().map(|(_, gap)| gap.count).sum();
        assert!(gone >= a.evicted && gaps.iter().all(|(_, gap)| gap.device.is_some()));
        let rest = drain(&store, "a").await;
        assert_eq!(rest.len() as u64, 30_000 - a.delivered - a.evicted);
        assert!(rest.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
        assert!(rest.contains(&29_999) && rest.contains(&28_000), "the newest are kept");
        let last = gaps.last().unwrap().0;
        store.forget_gaps(last).await.unwrap();
        store.close().await.unwrap();
        let store = open(&settings, &["a", "b"]);
        assert!(store.gaps().is_empty());
        assert_balanced(&store);
    });
}

#[test]
fn what_is_older_than_the_limit_goes_by_time_that_nobody_steps() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.max_age = Duration::from_millis(400);
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        store.commit(commit_of(0..100)).await.unwrap();
        // The store's own clock runs while it is open, also over a reopen; a test cannot pause it.
        std::thread::sleep(Duration::from_millis(500));
        store.commit(commit_of(100..200)).await.unwrap();
        store.close().await.unwrap();
        let store = open(&settings, &["a"]);
        assert!(drain(&store, "a").await == (100..200).collect::<Vec<_>>());
        assert_eq!(store.ledger().destinations[0].1.evicted, 100);
        assert_balanced(&store);
    });
}

#[test]
fn a_full_store_that_pauses_its_sources_takes_more_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.max_bytes = 1 << 20;
    settings.when_full = WhenFull::PauseSources;
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        let mut next = 0;
        // Without room a commit waits.
        while let Ok(stored) = timeout(Duration::from_secs(1), store.commit(commit_of(next..next + 100))).await {
            stored.unwrap();
            next += 100;
        }
        assert!(store.stat().unhealthy.is_some_and(|why| why.contains("the store is full")), "{:?}", store.stat());
        store.close().await.unwrap();
        // Who opens it notes its clock and its name first. That must not wait for room: nothing would be forwarded then.
        let store = open(&settings, &["a"]);
        let state = vec![StateChange { key: "clock/anchors".to_owned(), value: Some(vec![1; 500]) }];
        let noted = timeout(Duration::from_secs(5), store.commit(Commit { state, ..Commit::default() })).await;
        noted.expect("at once").unwrap();
        assert!(drain(&store, "a").await == (0..next).collect::<Vec<_>>());
        store.commit(commit_of(next..next + 100)).await.unwrap();
        assert_balanced(&store);
        assert_eq!(store.ledger().destinations[0].1.evicted, 0);
    });
}

#[test]
fn what_is_set_aside_is_listed_bounded_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.aside_max_bytes = 4 << 20;
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        for reading in 0..300 {
            let aside = vec![aside_entry(reading, 30_000)];
            let intake = IntakeTally { accepted: 1, decoded: 1, made: 1, implausible: 1, ..IntakeTally::default() };
            store.commit(Commit { aside, intake, ..Commit::default() }).await.unwrap();
        }
        store.commit(Commit { aside: vec![aside_entry(300, 70_000)], ..Commit::default() }).await.unwrap();
        let listed = store.aside(10).await.unwrap();
        let numbers: Vec<u64> = listed.iter().map(|entry| entry.reading).collect();
        assert_eq!(numbers, (291..=300).collect::<Vec<_>>());
        assert_eq!(listed[0], aside_entry(291, 30_000));
        assert!(listed[9].bytes.is_empty() && listed[9].reason.contains("70000 bytes"));
        let stat = store.stat();
        assert!(stat.aside_bytes <= settings.aside_max_bytes, "{stat:?}");
        store.close().await.unwrap();
        let store = open(&settings, &["a"]);
        let all = store.aside(usize::MAX).await.unwrap();
        let stat = store.stat();
        assert_eq!(stat.aside_entries, all.len() as u64);
        assert_eq!(stat.aside_entries + stat.aside_evicted, 301);
    });
    assert_no_blobs(dir.path());
}

#[test]
fn a_sealed_store_opens_with_its_key_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&dir.path().join("store"));
    let key = dir.path().join("key");
    fs::write(&key, "0f".repeat(32) + "\n").unwrap();
    settings.key_file = Some(key.clone());
    let commit = || Commit {
        state: vec![biogate::store::StateChange { key: "secret/strap".into(), value: Some(b"who wears it".to_vec()) }],
        aside: vec![aside_entry(1, 100)],
        ..commit_of(0..500)
    };
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        store.commit(commit()).await.unwrap();
        store.close().await.unwrap();
    });
    for generation in generations(&settings.dir).into_iter().chain(generations(&settings.dir.join("aside"))) {
        let bytes = fs::read(generation.join("db")).unwrap();
        for secret in [&b"device-0"[..], b"secret/strap", b"who wears it", b"heart_rate 999"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
    let refused = |settings: &Settings| match Store::open(settings, RUN, BOOT, &["a".to_owned()]) {
        Err(error) => error,
        Ok(_) => panic!("it opened"),
    };
    settings.key_file = None;
    assert!(matches!(refused(&settings), Error::Sealed { .. }));
    let other = dir.path().join("other");
    fs::write(&other, [7u8; 32]).unwrap();
    settings.key_file = Some(other);
    assert!(matches!(refused(&settings), Error::Sealed { .. }));
    // Without the note of the key's fingerprint too, a wrong key is no damage.
    fs::remove_file(settings.dir.join("format")).unwrap();
    assert!(matches!(refused(&settings), Error::Sealed { .. }));
    fs::write(&key, "short").unwrap();
    settings.key_file = Some(key.clone());
    assert!(matches!(refused(&settings), Error::Key { .. }));
    fs::write(&key, [0x0f; 32]).unwrap();
    fs::remove_file(settings.dir.join("format")).unwrap();
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        assert!(drain(&store, "a").await == (0..500).collect::<Vec<_>>());
        assert_eq!(store.aside(9).await.unwrap(), [aside_entry(1, 100)]);
        assert_eq!(store.state("secret/").len(), 1);
    });
}

#[test]
fn a_newer_format_is_refused_and_garbage_in_its_place_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let settings = filled(dir.path());
    fs::write(dir.path().join("format"), "biogate store 2\n").unwrap();
    let newer = Store::open(&settings, RUN, BOOT, &[]).err();
    assert!(matches!(newer, Some(Error::Newer { found: 2, known: 1, .. })), "{newer:?}");
    fs::write(dir.path().join("format"), b"\xff\x00garbage").unwrap();
    let store = open(&settings, &["a", "b"]);
    assert_eq!(waiting(&store, "b"), 4_000);
}

#[test]
fn destinations_come_and_go_without_losing_the_balance() {
    let dir = tempfile::tempdir().unwrap();
    let settings = filled(dir.path());
    runtime().block_on(async {
        let store = open(&settings, &["b"]);
        drain(&store, "b").await;
        assert_eq!(store.stat().generations, 1, "what only a removed destination had waited for is gone");
        store.commit(commit_of(4_000..4_100)).await.unwrap();
        store.close().await.unwrap();
        let store = open(&settings, &["b", "new"]);
        assert_balanced(&store);
        let seen = drain(&store, "new").await;
        assert_eq!(seen.last(), Some(&4_099));
        assert!(store.ledger().destinations[1].1.before >= 3_000);
        assert_balanced(&store);
    });
}

/// Mounts a small tmpfs, or says why not.
fn small_disk(dir: &Path, bytes: u64) -> bool {
    let size = format!("size={bytes}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir).output();
    match mounted {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("skipped: no tmpfs can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            eprintln!("skipped: no tmpfs can be mounted: {error}");
            false
        }
    }
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_is_said_loses_nothing_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    if !small_disk(dir.path(), 64 << 20) {
        return;
    }
    let mounted = Mounted(dir.path().to_owned());
    let mut settings = settings(&dir.path().join("store"));
    settings.when_full = WhenFull::PauseSources;
    settings.generation_bytes = 1 << 20;
    let filler = dir.path().join("filler");
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        assert!(settings.dir.join("ballast").exists());
        store.commit(commit_of(0..1_000)).await.unwrap();
        let free = store.stat().free_bytes;
        fs::write(&filler, vec![1u8; (free - (4 << 20)) as usize]).unwrap();
        let mut next = 1_000;
        while let Ok(stored) = timeout(Duration::from_secs(1), store.commit(commit_of(next..next + 1_000))).await {
            stored.unwrap();
            next += 1_000;
        }
        // What lies beside the events never takes their last room.
        let refused = store.report(vec![status_of(1)]).await;
        assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
        assert!(store.stat().unhealthy.is_some_and(|why| why.contains("free")), "{:?}", store.stat());
        // Full to the last byte, even the store opens: the ballast makes room.
        fs::write(dir.path().join("rest"), vec![1u8; 8 << 20]).unwrap_err();
        store.close().await.unwrap();
        let store = open(&settings, &["a"]);
        assert_eq!(waiting(&store, "a"), next);
        fs::remove_file(&filler).unwrap();
        fs::remove_file(dir.path().join("rest")).unwrap();
        store.commit(commit_of(next..next + 1_000)).await.unwrap();
        assert!(drain(&store, "a").await == (0..next + 1_000).collect::<Vec<_>>());
        assert_balanced(&store);
        store.close().await.unwrap();
    });
    drop(mounted);
}

/// Rolls generations in a process of its own, where malloc is set as the unit sets it. Says what memory it holds.
#[test]
fn rolling_child() {
    let Some(dir) = std::env::var_os("BIOGATE_TEST_ROLL") else { return };
    let mut settings = settings(Path::new(&dir));
    settings.generation_bytes = 1 << 20;
    let mut random = fastrand::Rng::with_seed(1);
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        let opened = anonymous_kib();
        let (mut next, mut after_twenty) = (0, 0);
        for generation in 0..200 {
            // Text that does not compress below three quarters: about 60 KB a commit, 18 commits a generation.
            for _ in 0..18 {
                let mut commit = commit_of(next..next + 40);
                for observation in &mut commit.observations {
                    let noise: String = (0..2_000).map(|_| random.alphanumeric()).collect();
                    observation.metadata = vec![("noise".into(), Value::Text(noise.into()))];
                }
                store.commit(commit).await.unwrap();
                next += 40;
            }
            drain(&store, "a").await;
            if generation == 20 {
                after_twenty = anonymous_kib();
            }
        }
        fs::write(Path::new(&dir).join("rss"), format!("{opened} {after_twenty} {}", anonymous_kib())).unwrap();
        store.close().await.unwrap();
    });
    assert!(generations(Path::new(&dir))[0].file_name().is_some_and(|name| name != "gen-1"));
}

fn anonymous_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn two_hundred_generations_leave_memory_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::rolling_child"])
        .env("BIOGATE_TEST_ROLL", dir.path())
        .env("MALLOC_ARENA_MAX", "1")
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .status()
        .unwrap();
    assert!(status.success());
    let rss = fs::read_to_string(dir.path().join("rss")).unwrap();
    let kib: Vec<u64> = rss.split(' ').map(|kib| kib.parse().unwrap()).collect();
    eprintln!("anonymous memory: {} KiB opened, {} after 20 generations, {} after 200", kib[0], kib[1], kib[2]);
    // What an empty sled database takes depends on the build: 22 MB without optimisation, 4 with.
    assert!(kib[1] < kib[0] + 10 * 1_024 && kib[2] < kib[1] + 3 * 1_024, "{kib:?}");
}

#[test]
fn a_commit_of_any_size_is_stored_whole() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        assert_eq!(store.commit(commit_of(0..20_000)).await.unwrap(), Some(1..=20_000));
        let mut monster = commit_of(20_000..20_001);
        let noise: String = (0..9_000)
            .map(|n| uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &[n as u8, (n >> 8) as u8]).to_string())
            .collect();
        monster.observations[0].metadata = vec![("dump".into(), Value::Text(noise.into()))];
        store.commit(monster).await.unwrap();
        assert!(drain(&store, "a").await == (0..=20_000).collect::<Vec<_>>());
        assert_balanced(&store);
        tokio::time::sleep(Duration::ZERO).await;
    });
    assert_no_blobs(dir.path());
}
