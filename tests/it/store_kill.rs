//! kill -9 at random moments and at named points: what was acknowledged is there, once and in order.
//!
//! The child is this test binary itself. It writes what it acknowledged to a file, whose pages outlive the process.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use biogate::report::Kind;
use biogate::store::{Settled, Store};

use crate::store_rig::{
    LIMIT, all_reports, aside_entry, assert_balanced, assert_no_blobs, commit_of, drain, open, readings, runtime,
    settings, status_of,
};

const DIR: &str = "BIOGATE_TEST_STORE";

/// Commits, cuts and settles for ever; `b` is never settled, so nothing leaves the store but by deaths of what `b` has
/// not: with `BIOGATE_TEST_ONE` there is `a` only, and generations die.
#[test]
fn store_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let one = std::env::var_os("BIOGATE_TEST_ONE").is_some();
    let mut log = OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let mut note = |line: String| log.write_all(line.as_bytes()).unwrap();
    let log_so_far = fs::read_to_string(dir.join("log")).unwrap_or_default();
    let mut next = log_so_far
        .lines()
        .filter_map(|line| line.strip_prefix("try "))
        .filter_map(|n| n.parse().ok())
        .max()
        .unwrap_or(0);
    let mut random = fastrand::Rng::new();
    runtime().block_on(async {
        let store = open(&settings(&dir.join("store")), if one { &["a"] } else { &["a", "b"] });
        loop {
            let end = next + random.u64(1..200);
            note(format!("try {end}\n"));
            let mut commit = commit_of(next..end);
            if random.u8(..) < 20 {
                commit.aside.push(aside_entry(next, 100));
            }
            store.commit(commit).await.unwrap();
            note(format!("acked {next} {end}\n"));
            next = end;
            if random.u8(..) < 60 {
                store.report(vec![status_of(end)]).await.unwrap();
                note(format!("reported {end}\n"));
            }
            if random.u8(..) < 30 {
                let (through, reports) = store.reports("a", Kind::Status, 1_000).await.unwrap();
                reports.iter().for_each(|report| note(format!("told {}\n", report.key)));
                store.reports_done("a", Kind::Status, through).await.unwrap();
            }
            if random.u8(..) < 160 {
                let range = store.next_range("a", 0, 0, LIMIT).await.unwrap();
                let these = readings(&range, &store.read(&range).await.unwrap().collect::<Vec<_>>());
                assert_eq!(these.len() as u64, range.count());
                // Sent before the cursor moves: a repeat is allowed, a gap is not.
                note(format!("sent {} {}\n", these[0], these[these.len() - 1] + 1));
                store.settle("a", &range, Settled { delivered: range.count(), ..Settled::default() }).await.unwrap();
            }
        }
    });
}

fn spawn(dir: &Path, one: bool, kill_at: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "store_kill::store_child"]).env(DIR, dir);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    if one {
        command.env("BIOGATE_TEST_ONE", "1");
    }
    if let Some(point) = kill_at {
        command.env("BIOGATE_TEST_KILL_AT", point);
    }
    command.spawn().unwrap()
}

/// All spans of the log's lines of this kind, as sets of readings.
fn spans(log: &str, kind: &str) -> std::collections::BTreeSet<u64> {
    let mut all = std::collections::BTreeSet::new();
    for line in log.lines().filter_map(|line| line.strip_prefix(kind)) {
        // The last line may be torn by the kill.
        if let Some((first, end)) = line.trim().split_once(' ')
            && let (Ok(first), Ok(end)) = (first.parse::<u64>(), end.parse::<u64>())
        {
            all.extend(first..end);
        }
    }
    all
}

/// Opens what the killed process left and compares it with what it had acknowledged.
fn check(dir: &Path, one: bool) {
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    let (acked, sent) = (spans(&log, "acked"), spans(&log, "sent"));
    let store_dir = dir.join("store");
    runtime().block_on(async {
        let store = open(&settings(&store_dir), if one { &["a"] } else { &["a", "b"] });
        assert_balanced(&store);
        assert_eq!(store.stat().damaged_bytes, 0, "a kill damages nothing");
        let kept = store.export(0, usize::MAX).await.unwrap();
        let kept: Vec<u64> = kept.iter().flat_map(|chunk| &chunk.observations).map(|found| found.reading).collect();
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
        let kept: std::collections::BTreeSet<u64> = kept.into_iter().collect();
        let missing: Vec<_> =
            acked.iter().filter(|reading| !kept.contains(reading) && !sent.contains(reading)).collect();
        assert!(missing.is_empty(), "acknowledged, and neither sent nor kept: {missing:?}");
        if !one {
            assert!(acked.iter().all(|reading| kept.contains(reading)), "b has nothing yet");
        }
        check_reports(&store, &log).await;
        assert!(store.verify().await.unwrap().faults.is_empty());
        store.close().await.unwrap();
    });
    assert_no_blobs(&store_dir);
}

/// What was reported and not told yet is there, each report once and in order.
async fn check_reports(store: &Store, log: &str) {
    let numbers = |kind: &str| -> Vec<u64> {
        log.lines().filter_map(|line| line.strip_prefix(kind)?.trim().parse().ok()).collect()
    };
    let (reported, told) = (numbers("reported "), numbers("told "));
    let kept: Vec<u64> =
        all_reports(store, "a", Kind::Status).await.iter().map(|row| row.key.parse().unwrap()).collect();
    assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "{kept:?}");
    let missing: Vec<_> = reported.iter().filter(|number| !told.contains(number) && !kept.contains(number)).collect();
    assert!(missing.is_empty(), "reported, and neither told nor kept: {missing:?}");
    // The next process goes on with those.
    store.report(kept.into_iter().map(status_of).collect()).await.unwrap();
}

fn final_check(dir: &Path, one: bool) {
    runtime().block_on(async {
        let store = open(&settings(&dir.join("store")), if one { &["a"] } else { &["a", "b"] });
        drain(&store, "a").await;
        if !one {
            let b = drain(&store, "b").await;
            let acked = spans(&fs::read_to_string(dir.join("log")).unwrap(), "acked");
            assert!(acked.iter().all(|reading| b.binary_search(reading).is_ok()));
        }
        assert_balanced(&store);
        assert_eq!(store.stat().generations, 1);
        assert_eq!(store.ledger().destinations[0].1.damaged, 0);
        store.close().await.unwrap();
    });
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    for one in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..12 {
            let mut child = spawn(dir.path(), one, None);
            std::thread::sleep(Duration::from_millis(fastrand::u64(5..400)));
            child.kill().unwrap();
            child.wait().unwrap();
            check(dir.path(), one);
        }
        final_check(dir.path(), one);
    }
}

#[test]
fn a_kill_in_a_birth_a_death_or_an_open_loses_nothing() {
    let points = [
        "birth-empty",
        "birth-synced",
        "birth-before-rename",
        "birth-after-rename",
        "death-before-rename",
        "death-after-rename",
        "open",
    ];
    let dir = tempfile::tempdir().unwrap();
    for point in points {
        for times in [1, 2, 3] {
            let at = format!("{point}:{times}");
            let mut child = spawn(dir.path(), true, Some(&at));
            // A point that this run never comes by ends by the clock.
            let deadline = std::time::Instant::now() + Duration::from_secs(5);
            while child.try_wait().unwrap().is_none() {
                if std::time::Instant::now() > deadline {
                    child.kill().unwrap();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            check(dir.path(), true);
        }
    }
    final_check(dir.path(), true);
}

#[test]
fn an_open_that_never_ends_is_damage_after_three_tries() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(&dir.path().join("store"));
    runtime().block_on(async {
        let store = open(&settings, &["a", "b"]);
        store.commit(commit_of(0..500)).await.unwrap();
        store.close().await.unwrap();
    });
    for _ in 0..3 {
        spawn(dir.path(), false, Some("open:1")).wait().unwrap();
    }
    runtime().block_on(async {
        let store = open(&settings, &["a", "b"]);
        assert!(store.stat().damaged_bytes > 0, "the one that hung lies in damaged/");
        assert!(drain(&store, "a").await == (0..500).collect::<Vec<_>>(), "and all of it was saved");
        assert_balanced(&store);
        store.close().await.unwrap();
    });
}
