//! The store's row of reports: durable, in order, each destination and kind at its own pace, bounded.
#![allow(clippy::unwrap_used)]

use std::fs;

use biogate::report::{Kind, Report};
use biogate::store::Store;

use crate::store_rig::{
    all_reports, assert_balanced, assert_no_blobs, commit_of, drain, generations, open, settings, status_of,
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
