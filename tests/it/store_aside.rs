//! The row set aside: entries are removed one by one, for good, and what came of them is durable in the same record.

use std::fs;

use biogate::reading::{BootId, Heard, RunId};
use biogate::store::{AsideEntry, AsideFrom, AsidePlace, Commit, IntakeTally, Range, Settled, Store};
use uuid::Uuid;

use crate::store_rig::{
    LIMIT, aside_entry, assert_balanced, assert_no_blobs, commit_of, generations, open, runtime, settings,
};

/// All entries with their places, over the pages.
async fn all(store: &Store) -> Vec<(AsidePlace, AsideEntry)> {
    let (mut all, mut from) = (Vec::new(), Some(AsideFrom::default()));
    while let Some(at) = from {
        let page = store.aside_page(at).await.unwrap();
        all.extend(page.entries);
        from = page.next;
    }
    all
}

async fn set_aside(store: &Store, entries: std::ops::Range<u64>, bytes: usize) {
    let aside: Vec<AsideEntry> = entries.map(|reading| aside_entry(reading, bytes)).collect();
    store.commit(Commit { aside, ..Commit::default() }).await.unwrap();
}

fn numbers(entries: &[(AsidePlace, AsideEntry)]) -> Vec<u64> {
    entries.iter().map(|(_, entry)| entry.reading).collect()
}

#[test]
fn entries_are_removed_one_by_one_and_an_empty_generation_goes_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    // The entries compress well.
    settings.generation_bytes = 3_000;
    let folder = dir.path().join("aside");
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        for round in 0..30 {
            set_aside(&store, round * 10..round * 10 + 10, 3_000).await;
        }
        let before = generations(&folder).len();
        assert!(before > 2, "{before} generations");
        let entries = all(&store).await;
        assert_eq!(numbers(&entries), (0..300).collect::<Vec<_>>());
        let odd = |(_, entry): &&(AsidePlace, AsideEntry)| entry.reading % 2 == 1;
        let places: Vec<AsidePlace> = entries.iter().filter(odd).map(|(place, _)| *place).collect();
        assert_eq!(store.drop_aside(places.clone()).await.unwrap(), 150);
        assert_eq!(store.drop_aside(places).await.unwrap(), 0, "they are gone already");
        assert_eq!(generations(&folder).len(), before);
        store.close().await.unwrap();

        let store = open(&settings, &["a"]);
        let left = all(&store).await;
        assert_eq!(numbers(&left), (0..300).step_by(2).collect::<Vec<_>>());
        assert_eq!(store.stat().aside_entries, 150);
        let replayed: Vec<AsidePlace> = left.iter().map(|(place, _)| *place).collect();
        store.commit(Commit { replayed, ..commit_of(0..150) }).await.unwrap();
        assert_eq!(all(&store).await, []);
        assert_eq!(generations(&folder).len(), 0, "nothing is left of any generation");
        let stat = store.stat();
        assert_eq!((stat.aside_entries, stat.aside_replayed, stat.aside_dropped), (0, 150, 150));
        store.close().await.unwrap();

        // A number is never given twice: what is known of a removed generation cannot hide a new one's entries.
        let store = open(&settings, &["a"]);
        set_aside(&store, 300..310, 100).await;
        assert_eq!(numbers(&all(&store).await), (300..310).collect::<Vec<_>>());
        store.close().await.unwrap();
        let store = open(&settings, &["a"]);
        assert_eq!(numbers(&all(&store).await), (300..310).collect::<Vec<_>>());
        let highest = generations(&folder).pop().unwrap();
        assert!(!highest.ends_with("gen-1"), "{}", highest.display());
        assert_balanced(&store);
    });
    assert_no_blobs(dir.path());
}

#[test]
fn a_page_is_bounded_whatever_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let store = open(&settings(dir.path()), &["a"]);
        for round in 0..40 {
            set_aside(&store, round..round + 1, 60_000).await;
        }
        let page = store.aside_page(AsideFrom::default()).await.unwrap();
        let bytes: usize = page.entries.iter().map(|(_, entry)| entry.bytes.len()).sum();
        assert!(bytes < (1 << 20) + 128 * 1024 && page.next.is_some(), "{bytes} bytes");
        assert_eq!(all(&store).await.len(), 40);
        set_aside(&store, 40..41, 10).await;
        let later = all(&store).await.pop().unwrap().0;
        assert!(!later.is_before(page.end), "what comes later is not before the end of an earlier page");
    });
}

#[test]
fn what_is_for_one_destination_is_passed_over_by_the_other_and_keeps_its_run() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let run = RunId(Uuid::from_u128(4_711));
    runtime().block_on(async {
        let store = open(&settings, &["a", "b"]);
        store.commit(commit_of(0..3)).await.unwrap();
        let commit = Commit { run: Some(run), only_for: Some("b".into()), ..commit_of(3..5) };
        store.commit(commit).await.unwrap();
        store.close().await.unwrap();
        let store = open(&settings, &["a", "b"]);
        for (name, passed_over) in [("a", 2), ("b", 0)] {
            let range: Range = store.next_range(name, 0, 0, LIMIT).await.unwrap();
            let chunks = store.read(&range).await.unwrap().collect::<Vec<_>>();
            let seen: Vec<_> = chunks.iter().map(|chunk| (chunk.run == run, chunk.only_for.as_deref())).collect();
            assert_eq!(seen, [(false, None), (true, Some("b"))]);
            let settled = Settled { delivered: 5 - passed_over, passed_over, ..Settled::default() };
            store.settle(name, &range, settled).await.unwrap();
        }
        assert_balanced(&store);
        let ledger = store.ledger();
        let passed: Vec<u64> = ledger.destinations.iter().map(|(_, tally)| tally.passed_over).collect();
        assert_eq!(passed, [2, 0]);
    });
}

#[test]
fn the_boots_of_entries_are_needed_the_newest_of_them_and_as_long_as_they_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let boot = |number: u64| BootId(Uuid::from_u128(u128::from(number) + 1_000));
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        for number in 0..100 {
            let heard = Heard { boot: boot(number), ms: 5 };
            let aside = vec![AsideEntry { heard, ..aside_entry(number, 10) }];
            let intake = IntakeTally { accepted: 1, refused: 1, ..IntakeTally::default() };
            store.commit(Commit { aside, intake, ..Commit::default() }).await.unwrap();
        }
        let needed = store.boots_needed();
        assert_eq!(needed.len(), 64);
        assert!((36..100).all(|number| needed.contains(&boot(number))), "the newest");
        store.close().await.unwrap();
        let store = open(&settings, &["a"]);
        assert_eq!(store.boots_needed(), needed);
        let places = all(&store).await.into_iter().map(|(place, _)| place).collect();
        store.drop_aside(places).await.unwrap();
        assert_eq!(store.boots_needed(), []);
    });
}

#[test]
fn a_damaged_generation_hides_none_of_its_entries() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        for number in 0..6 {
            set_aside(&store, number..number + 1, 2_000).await;
        }
        let entries = all(&store).await;
        store.drop_aside(vec![entries[4].0]).await.unwrap();
        store.close().await.unwrap();
    });
    // One of the first records breaks, so the later ones get other numbers.
    let db = generations(&dir.path().join("aside")).pop().unwrap().join("db");
    let mut bytes = fs::read(&db).unwrap();
    let magic = b"\xb1bgrecd\x1a";
    let records: Vec<usize> = bytes.windows(8).enumerate().filter(|(_, at)| at == magic).map(|(at, _)| at).collect();
    bytes[records[2] + 50] ^= 0xff;
    fs::write(&db, bytes).unwrap();
    runtime().block_on(async {
        let store = open(&settings, &["a"]);
        let seen = numbers(&all(&store).await);
        for number in [0, 2, 3, 5] {
            assert!(seen.contains(&number), "{number} is hidden: {seen:?}");
        }
        assert_balanced(&store);
    });
}
