//! Damaged stores: they always open, save what the raw files hold, and count the rest.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::store_rig::{assert_balanced, assert_no_blobs, commit_of, drain, filled, generations, open, runtime};

type Harm = (&'static str, fn(&Path));

const HARMS: [Harm; 9] = [
    ("a byte flipped in the middle", |generation| {
        let path = generation.join("db");
        let mut bytes = fs::read(&path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[used / 2] ^= 0x55;
        fs::write(path, bytes).unwrap();
    }),
    ("a byte flipped at the start", |generation| {
        let path = generation.join("db");
        let mut bytes = fs::read(&path).unwrap();
        bytes[24] ^= 0x55;
        fs::write(path, bytes).unwrap();
    }),
    ("cut in half", |generation| {
        let path = generation.join("db");
        let length = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length / 2).unwrap();
    }),
    ("emptied", |generation| fs::write(generation.join("db"), b"").unwrap()),
    ("its file deleted", |generation| fs::remove_file(generation.join("db")).unwrap()),
    ("deleted whole", |generation| fs::remove_dir_all(generation).unwrap()),
    ("a page of zeros", |generation| {
        let path = generation.join("db");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() / 3;
        let end = bytes.len().min(at + 4_096);
        bytes[at..end].fill(0);
        fs::write(path, bytes).unwrap();
    }),
    ("its conf made garbage", |generation| fs::write(generation.join("conf"), b"segment_size: 77\nxx").unwrap()),
    ("an empty snapshot", |generation| {
        fs::write(generation.join("snap.0000000000000000.generating"), b"").unwrap();
        for entry in fs::read_dir(generation).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                fs::write(entry.path(), b"").unwrap();
            }
        }
    }),
];

#[test]
fn a_damaged_store_always_opens_and_counts_what_it_lost() {
    for (what, harm) in HARMS {
        for which in ["oldest", "middle", "newest"] {
            let dir = tempfile::tempdir().unwrap();
            let settings = filled(dir.path());
            let all = generations(dir.path());
            let target = match which {
                "oldest" => &all[0],
                "middle" => &all[all.len() / 2],
                _ => &all[all.len() - 1],
            };
            harm(target);
            let case = format!("{which} generation, {what}");
            runtime().block_on(async {
                let store = open(&settings, &["a", "b", "c"]);
                assert_balanced(&store);
                let b = drain(&store, "b").await;
                assert!(b.windows(2).all(|pair| pair[0] < pair[1]), "{case}: in order, each once");
                assert_balanced(&store);
                let tally = store.ledger().destinations[1].1;
                assert_eq!(tally.delivered, b.len() as u64, "{case}");
                // A loss at the very end of the newest generation takes the totals of the lost commits along.
                let known = store.ledger().intake.stored;
                assert!(
                    tally.delivered + tally.damaged == known && (which == "newest" || known == 4_000),
                    "{case}: {tally:?}"
                );
                let lost = 4_000 - b.len();
                assert!(lost <= 1_500, "{case}: {lost} lost");
                if what.starts_with("a byte") || what.starts_with("its conf") || what.starts_with("an empty") {
                    assert!(lost <= 100, "{case}: {lost} lost");
                }
                let a = drain(&store, "a").await;
                assert!(a.iter().all(|reading| b.contains(reading)), "{case}");
                drain(&store, "c").await;
                assert_balanced(&store);
                // It goes on as if nothing had been.
                store.commit(commit_of(9_000..9_100)).await.unwrap();
                store.close().await.unwrap();
                let store = open(&settings, &["a", "b", "c"]);
                assert_balanced(&store);
                drain(&store, "a").await;
                drain(&store, "c").await;
                assert!(drain(&store, "b").await == (9_000..9_100).collect::<Vec<_>>(), "{case}");
                assert!(store.verify().await.unwrap().faults.is_empty(), "{case}");
                store.close().await.unwrap();
            });
            assert_no_blobs(dir.path());
        }
    }
}

/// What a record of the store begins with.
const RECORD: &[u8] = b"\xb1bgrecd\x1a";
const HEALED: &str = "BIOGATE_TEST_HEALED_STORE";

/// Opens a store, as a hub does that starts.
#[test]
fn healing_child() {
    let Some(dir) = std::env::var_os(HEALED) else { return };
    open(&crate::store_rig::settings(Path::new(&dir)), &["a", "b", "c"]);
}

#[test]
fn a_kill_in_mid_repair_loses_no_more_than_the_damage_did() {
    let dir = tempfile::tempdir().unwrap();
    let settings = filled(&dir.path().join("whole"));
    let file = generations(&settings.dir).pop().unwrap().join("db");
    let bytes = fs::read(&file).unwrap();
    let magics = bytes.windows(RECORD.len()).enumerate().filter(|(_, bytes)| *bytes == RECORD);
    let records: Vec<usize> = magics.map(|(at, _)| at).collect();
    let (_, but_the_last) = records.split_last().unwrap();
    let mut repairs = 0;
    // Within a record, and in what sled wrote before it.
    for at in but_the_last.iter().rev().take(8).flat_map(|at| [at + 100, at - 3]) {
        let store = crate::store_rig::settings(&dir.path().join("damaged"));
        drop(fs::remove_dir_all(&store.dir));
        copy(&settings.dir, &store.dir);
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x55;
        fs::write(store.dir.join(file.strip_prefix(&settings.dir).unwrap()), flipped).unwrap();
        for point in ["heal-begin", "birth-empty", "birth-synced", "heal"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "store_damage::healing_child"]).env(HEALED, &store.dir);
            child.env("BIOGATE_TEST_KILL_AT", point).stdout(Stdio::null()).stderr(Stdio::null());
            repairs += usize::from(!child.status().unwrap().success());
        }
        runtime().block_on(async {
            let store = open(&store, &["a", "b", "c"]);
            let b = drain(&store, "b").await;
            let tally = store.ledger().destinations[1].1;
            assert!(b.len() >= 3_900, "byte {at}: {} of 4,000", b.len());
            assert_eq!(tally.delivered + tally.damaged, 4_000, "byte {at}: {tally:?}");
            store.close().await.unwrap();
        });
    }
    assert!(repairs >= 24, "{repairs} repairs were cut off");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}
