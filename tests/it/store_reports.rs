//! The store's row of reports: durable, in order, each destination and kind at its own pace, bounded.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use biogate::report::{Kind, Report};
use biogate::store::{HourSum, SaidSum, Settled, Store};

use crate::store_rig::{
    LIMIT, all_reports, assert_balanced, assert_no_blobs, commit_of, drain, generations, open, settings, status_of,
};

fn numbers(reports: &[Report]) -> Vec<u64> {
    reports.iter().map(|report| report.key.parse().unwrap()).collect()
}

fn of_kind(kind: Kind, number: u64) -> Report {
    Report { kind, ..status_of(number) }
}

fn waiting(store: &Store, name: &str) -> u64 {
    store.stat().destinations.iter().find(|to| to.name == name).unwrap().reports_waiting.values().sum()
}

#[tokio::test]
async fn each_destination_gets_every_report_in_order_over_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings, &["a", "b"]);
    for round in 0..20 {
        store.report((round * 10..round * 10 + 10).map(status_of).collect()).await.unwrap();
    }
    let (through, first) = store.reports("a", Kind::Status, 300).await.unwrap();
    assert!((1..10).contains(&first.len()), "a portion: {}", first.len());
    assert_eq!(store.reports("a", Kind::Status, 300).await.unwrap(), (through, first.clone()), "until it is done");
    store.reports_done("a", Kind::Status, through).await.unwrap();
    store.close().await.unwrap();
    let store = open(&settings, &["a", "b"]);
    assert_eq!((waiting(&store, "a"), waiting(&store, "b")), (200 - first.len() as u64, 200));
    let rest = all_reports(&store, "a", Kind::Status).await;
    assert_eq!(numbers(&[first, rest].concat()), (0..200).collect::<Vec<_>>());
    assert_eq!(numbers(&all_reports(&store, "b", Kind::Status).await), (0..200).collect::<Vec<_>>());
    assert_eq!((waiting(&store, "a"), waiting(&store, "b")), (0, 0));
    store.report(vec![status_of(200)]).await.unwrap();
    assert_eq!(numbers(&all_reports(&store, "b", Kind::Status).await), [200], "numbers go on");
    store.close().await.unwrap();
    assert_no_blobs(dir.path());
}

#[tokio::test]
async fn a_kind_that_cannot_be_sent_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings, &["a"]);
    for number in 0..50 {
        let kind = if number % 2 == 0 { Kind::Gap } else { Kind::Status };
        store.report(vec![of_kind(kind, number)]).await.unwrap();
    }
    assert_eq!(numbers(&all_reports(&store, "a", Kind::Status).await), (0..25).map(|n| 2 * n + 1).collect::<Vec<_>>());
    assert_eq!(waiting(&store, "a"), 25);
    assert_eq!(numbers(&all_reports(&store, "a", Kind::Gap).await), (0..25).map(|n| 2 * n).collect::<Vec<_>>());
    assert!(all_reports(&store, "a", Kind::Coverage).await.is_empty());
}

#[tokio::test]
async fn what_every_destination_has_is_removed_and_what_is_too_much_goes_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings, &["a", "b"]);
    // Rows that do not compress.
    let large = |number: u64| {
        let mut random = fastrand::Rng::with_seed(number);
        let noise: String = (0..60_000).map(|_| random.alphanumeric()).collect();
        Report { kind: Kind::Status, key: number.to_string(), row: format!("\"{noise}\"") }
    };
    for number in 0..60 {
        store.report(vec![large(number)]).await.unwrap();
    }
    let several = generations(&dir.path().join("reports")).len();
    assert!(several > 3, "{several}");
    all_reports(&store, "a", Kind::Status).await;
    assert_eq!(generations(&dir.path().join("reports")).len(), several, "b has none yet");
    all_reports(&store, "b", Kind::Status).await;
    assert_eq!(generations(&dir.path().join("reports")).len(), 1);
    for number in 60..800 {
        store.report(vec![large(number)]).await.unwrap();
    }
    let stat = store.stat();
    assert!(stat.reports_bytes <= 16 << 20, "{}", stat.reports_bytes);
    assert!(stat.reports_evicted > 0);
    let kept = numbers(&all_reports(&store, "a", Kind::Status).await);
    assert_eq!(kept, (60 + stat.reports_evicted..800).collect::<Vec<_>>(), "the oldest went, each counted");
    store.close().await.unwrap();
    let store = open(&settings, &["a", "b"]);
    assert_eq!(numbers(&all_reports(&store, "b", Kind::Status).await), kept);
    assert_no_blobs(dir.path());
}

#[tokio::test]
async fn a_destination_that_is_gone_holds_nothing_back_and_a_new_one_begins_at_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings, &["a", "gone"]);
    store.report((0..10).map(status_of).collect()).await.unwrap();
    all_reports(&store, "a", Kind::Status).await;
    store.close().await.unwrap();
    let store = open(&settings, &["a", "new"]);
    assert_eq!(numbers(&all_reports(&store, "new", Kind::Status).await), [9]);
    assert!(all_reports(&store, "a", Kind::Status).await.is_empty());
    assert!(store.reports("gone", Kind::Status, 1).await.is_err());
}

#[tokio::test]
async fn damage_to_reports_costs_reports_and_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings, &["a"]);
    store.commit(commit_of(0..100)).await.unwrap();
    for number in 0..40 {
        store.report(vec![status_of(number)]).await.unwrap();
    }
    store.close().await.unwrap();
    let newest = generations(&dir.path().join("reports")).pop().unwrap();
    let mut bytes = fs::read(newest.join("db")).unwrap();
    let middle = bytes.windows(7).rposition(|window| window == b"bgrecd\x1a").unwrap();
    bytes[middle + 40] ^= 0xff;
    fs::write(newest.join("db"), &bytes).unwrap();
    let store = open(&settings, &["a"]);
    let kept = numbers(&all_reports(&store, "a", Kind::Status).await);
    assert!(kept.len() >= 38 && kept.windows(2).all(|pair| pair[0] < pair[1]), "{kept:?}");
    store.report(vec![status_of(40)]).await.unwrap();
    assert_eq!(numbers(&all_reports(&store, "a", Kind::Status).await), [40]);
    assert_eq!(drain(&store, "a").await.len(), 100);
    assert_balanced(&store);
    store.close().await.unwrap();
    fs::remove_file(newest.join("db")).unwrap();
    let store = open(&settings, &["a"]);
    store.report(vec![status_of(41)]).await.unwrap();
    assert_eq!(numbers(&all_reports(&store, "a", Kind::Status).await), [41]);
}

fn sum(device: &str, hour: u32, count: u64) -> HourSum {
    let xor = u128::from(crc32fast::hash(device.as_bytes())) << 90 | u128::from(hour);
    HourSum { device: device.into(), hour, count, xor }
}

async fn settle(store: &Store, sums: Vec<HourSum>) {
    let range = store.next_range("a", 0, 0, LIMIT).await.unwrap();
    store.settle("a", &range, Settled { delivered: range.count(), sums, ..Settled::default() }).await.unwrap();
}

async fn due(store: &Store) -> Vec<(String, u32, u64, u64)> {
    let due = store.sums_due("a", Duration::ZERO).await.unwrap();
    due.iter().map(|SaidSum { sum, version }| (sum.device.to_string(), sum.hour, sum.count, *version)).collect()
}

/// What a crash now would leave.
fn image(of: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(of).arg(to).status().unwrap().success());
}

#[tokio::test]
async fn what_was_sent_counts_once_though_a_crash_repeats_the_settlement() {
    // Few devices share one record with the cursor; those of many lie in several.
    for devices in [2, 3_000] {
        let root = tempfile::tempdir().unwrap();
        let (dir, left) = (root.path().join("store"), root.path().join("left"));
        let sums = |count: u64| -> Vec<HourSum> {
            (0..devices).map(|n| sum(&format!("a-device-with-a-rather-long-name-{n}"), 7, count + n)).collect()
        };
        let store = open(&settings(&dir), &["a"]);
        store.commit(commit_of(0..10)).await.unwrap();
        settle(&store, sums(1)).await;
        store.commit(commit_of(10..20)).await.unwrap();
        let range = store.next_range("a", 0, 0, LIMIT).await.unwrap();
        settle(&store, sums(5)).await;
        // The cursor has not moved on the disk.
        image(&dir, &left);
        store.close().await.unwrap();
        let store = open(&settings(&left), &["a"]);
        assert_eq!(store.in_hand("a"), Some(range));
        settle(&store, sums(5)).await;
        store.commit(commit_of(20..30)).await.unwrap();
        store.close().await.unwrap();
        let store = open(&settings(&left), &["a"]);
        let mut seen = 0;
        loop {
            let said = store.sums_due("a", Duration::ZERO).await.unwrap();
            if said.is_empty() {
                break;
            }
            for SaidSum { sum, version } in &said {
                let n: u64 = sum.device.rsplit('-').next().unwrap().parse().unwrap();
                assert_eq!((sum.count, sum.xor, *version), (6 + 2 * n, 0, 2), "{sum:?}");
            }
            seen += said.len() as u64;
            store.sums_said("a", said).await.unwrap();
        }
        assert_eq!(seen, devices);
        store.close().await.unwrap();
        assert_no_blobs(&left);
    }
}

#[tokio::test]
async fn hours_are_said_once_when_they_are_quiet_and_the_newest_of_each_device_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let store = open(&settings, &["a", "b"]);
    store.commit(commit_of(0..3)).await.unwrap();
    settle(&store, (100..300).map(|hour| sum("strap", hour, 1)).chain([sum("scale", 1, 1)]).collect()).await;
    assert!(store.sums_due("a", Duration::from_secs(60)).await.unwrap().is_empty(), "they may still change");
    assert!(store.sums_due("b", Duration::ZERO).await.unwrap().is_empty(), "each destination has its own");
    let said = store.sums_due("a", Duration::ZERO).await.unwrap();
    assert_eq!(said.len(), 201);
    store.sums_said("a", said).await.unwrap();
    assert!(due(&store).await.is_empty());
    store.commit(commit_of(3..6)).await.unwrap();
    // An hour whose first events are forgotten is not told anew; those that are kept are told as a whole.
    settle(&store, vec![sum("strap", 100, 5), sum("strap", 299, 2), sum("scale", 1, 3), sum("scale", 0, 1)]).await;
    store.close().await.unwrap();
    let store = open(&settings, &["a", "b"]);
    let mut found = due(&store).await;
    found.sort();
    let named = |device: &str, hour, count, version| (device.to_owned(), hour, count, version);
    assert_eq!(found, [named("scale", 0, 1, 1), named("scale", 1, 4, 2), named("strap", 299, 3, 2)]);
    store.close().await.unwrap();
    let store = open(&settings, &["b"]);
    store.close().await.unwrap();
    let store = open(&settings, &["a", "b"]);
    assert!(due(&store).await.is_empty(), "a destination that was removed left nothing");
}
