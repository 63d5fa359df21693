//! How a generation opens whose lock is held, or that is damaged.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use super::StateChange;
use super::chunk::Codec;
use super::folder::named;
use super::record::Kind;
use super::row::{Folded, Row, split_state};

#[test]
fn a_lock_that_a_dropped_database_still_holds_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let row = Row::new(dir.path(), Kind::Queue);
    row.prepare().unwrap();
    let mut codec = Codec::new(None).unwrap();
    drop(row.birth(1, &mut codec, &[]).unwrap());
    let db = fs::File::open(named(&row.dir, "gen", 1).join("db")).unwrap();
    db.lock().unwrap();
    let (held, release) = mpsc::sync_channel::<()>(0);
    let holder = std::thread::spawn(move || {
        release.recv_timeout(Duration::from_millis(50)).ok();
        drop(db);
    });
    assert!(row.open(1, &mut codec, true).unwrap().is_some());
    drop(held);
    holder.join().unwrap();
}

#[test]
fn what_was_opened_for_the_state_of_a_damaged_generation_is_handed_on_and_not_opened_twice() {
    let dir = tempfile::tempdir().unwrap();
    let row = Row::new(dir.path(), Kind::Queue);
    row.prepare().unwrap();
    let mut codec = Codec::new(None).unwrap();
    let state = state_of_two_records();
    for number in [1, 2] {
        drop(row.birth(number, &mut codec, &state).unwrap());
    }
    break_first_record(&row, &mut codec, &state);
    let opened = row.open(2, &mut codec, true).unwrap().unwrap();
    assert!(opened.healed);
    assert_eq!(opened.before.iter().map(|generation| generation.number).collect::<Vec<_>>(), [1]);
    assert_eq!(opened.folded.whole().len(), Folded::default().whole().len() + 2, "nothing of the state is lost");
}

#[test]
fn a_generation_that_is_open_gives_the_state_of_a_damaged_one_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let row = Row::new(dir.path(), Kind::Queue);
    row.prepare().unwrap();
    let mut codec = Codec::new(None).unwrap();
    let state = state_of_two_records();
    let open = BTreeMap::from([(1, row.birth(1, &mut codec, &state).unwrap())]);
    drop(row.birth(2, &mut codec, &state).unwrap());
    break_first_record(&row, &mut codec, &state);
    let opened = row.open_beside(&open, 2, &mut codec, true).unwrap().unwrap();
    assert!(opened.healed && opened.before.is_empty());
    assert_eq!(opened.folded.whole().len(), Folded::default().whole().len() + 2, "nothing of the state is lost");
}

/// It does not compress, so that a birth needs a record for each key.
fn state_of_two_records() -> [StateChange; 2] {
    let mut noise = fastrand::Rng::with_seed(7);
    let mut value = || Some(std::iter::repeat_with(|| noise.u8(..)).take(30_000).collect());
    ["a", "b"].map(|key| StateChange { key: key.to_owned(), value: value() })
}

/// Breaks a byte of the first record of the second generation, which was born with this state.
fn break_first_record(row: &Row, codec: &mut Codec, state: &[StateChange]) {
    let db = named(&row.dir, "gen", 2).join("db");
    let mut bytes = fs::read(&db).unwrap();
    let tail = split_state(codec, state).unwrap().remove(0);
    let at = bytes.windows(64).position(|window| window == &tail[..64]).unwrap();
    bytes[at + 32] ^= 1;
    fs::write(&db, bytes).unwrap();
}
