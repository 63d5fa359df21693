//! Transfers step by step, and that nothing is erased that is not durable.

use proptest::prelude::*;

use super::Happened::{Control, Durable, Quiet, Record, Started};
use super::*;

const ASKED_ALL: [u8; 2] = [0x01, 0x01];
const SENT: Happened<'static> = Control(&[0x06, 0x00, 0x01, 0x01]);
const NOTHING: Happened<'static> = Control(&[0x06, 0x00, 0x01, 0x06]);
const ERASED: Happened<'static> = Control(&[0x06, 0x00, 0x02, 0x01]);

/// Flags and a sequence number, as a glucose measurement begins.
fn record(sequence: u16) -> [u8; 3] {
    let [low, high] = sequence.to_le_bytes();
    [0x00, low, high]
}

fn started(erase: bool, after: Option<u16>) -> Transfer {
    let mut transfer = Transfer::new(erase, Some(1), after);
    assert!(matches!(transfer.tell(Started), Some(Do::Write(_))));
    transfer
}

fn with_records(erase: bool, after: Option<u16>, sequences: &[u16]) -> Transfer {
    let mut transfer = started(erase, after);
    for sequence in sequences {
        assert_eq!(transfer.tell(Record(&record(*sequence))), None);
    }
    transfer
}

fn failed(done: Option<Do>) -> String {
    let Some(Do::Failed(why)) = done else { panic!("{done:?} is no failure") };
    why
}

#[test]
fn all_records_are_asked_for_or_those_from_a_known_one_on() {
    let ask = |sequence_at, after| Transfer::new(false, sequence_at, after).tell(Started);
    assert_eq!(ask(Some(1), None), Some(Do::Write(ASKED_ALL.to_vec())));
    assert_eq!(ask(Some(1), Some(0x0102)), Some(Do::Write(vec![0x01, 0x03, 0x01, 0x02, 0x01])));
    assert_eq!(ask(None, Some(5)), Some(Do::Write(ASKED_ALL.to_vec())));
    assert_eq!(ask(Some(1), Some(65_535)), Some(Do::Write(ASKED_ALL.to_vec())));
}

#[test]
fn a_transfer_is_done_once_all_records_are_durable() {
    let mut transfer = with_records(false, None, &[1, 2]);
    assert_eq!(transfer.tell(Durable { records: 1 }), None);
    assert_eq!(transfer.tell(SENT), None);
    assert_eq!(transfer.tell(Durable { records: 2 }), Some(Do::Done));
    assert_eq!((transfer.received(), transfer.highest()), (2, Some(2)));
}

#[test]
fn a_device_without_records_is_done_and_not_erased() {
    assert_eq!(started(true, None).tell(NOTHING), Some(Do::Done));
    assert_eq!(started(true, None).tell(SENT), Some(Do::Done));
}

#[test]
fn numbers_that_began_again_are_found_by_asking_for_all() {
    let mut transfer = started(true, Some(900));
    assert_eq!(transfer.tell(NOTHING), Some(Do::Write(ASKED_ALL.to_vec())));
    assert_eq!(transfer.tell(Record(&record(0))), None);
    transfer.tell(Durable { records: 1 });
    assert_eq!(transfer.tell(SENT), Some(Do::Write(vec![0x02, 0x02, 0x01, 0x00, 0x00])));
    let mut empty = started(true, Some(900));
    empty.tell(NOTHING);
    assert_eq!(empty.tell(NOTHING), Some(Do::Done));
}

#[test]
fn erasing_waits_for_the_last_durable_record_and_names_the_highest() {
    let mut transfer = with_records(true, None, &[7, 8, 0x0109]);
    assert_eq!(transfer.tell(SENT), None);
    assert_eq!(transfer.tell(Durable { records: 2 }), None);
    assert_eq!(transfer.tell(Durable { records: 3 }), Some(Do::Write(vec![0x02, 0x02, 0x01, 0x09, 0x01])));
    assert_eq!(transfer.tell(ERASED), Some(Do::Done));
}

#[test]
fn nothing_is_erased_where_sequence_numbers_wrapped_or_are_missing() {
    for sequences in [&[65_534, 65_535, 0][..], &[5, 4], &[0, 40_000]] {
        let mut transfer = with_records(true, None, sequences);
        transfer.tell(Durable { records: sequences.len() });
        assert_eq!(transfer.tell(SENT), Some(Do::Done), "{sequences:?}");
        assert_eq!(transfer.highest(), None);
    }
    let mut short = with_records(true, None, &[1]);
    assert_eq!(short.tell(Record(&[0x00, 0x02])), None);
    short.tell(Durable { records: 2 });
    assert_eq!(short.tell(SENT), Some(Do::Done));
}

#[test]
fn nothing_is_erased_after_an_incomplete_transfer() {
    let mut transfer = with_records(true, None, &[1, 2]);
    transfer.tell(Durable { records: 2 });
    assert_eq!(failed(transfer.tell(Quiet)), "no record and no response for 30 s");
    assert_eq!(transfer.tell(SENT), None);
    assert_eq!(transfer.tell(Durable { records: 2 }), None);
}

#[test]
fn a_record_after_the_end_forbids_erasing() {
    let mut transfer = with_records(true, None, &[1]);
    transfer.tell(SENT);
    failed(transfer.tell(Record(&record(2))));
    assert_eq!(transfer.tell(Durable { records: 2 }), None);
}

#[test]
fn each_refusal_is_said_in_words() {
    for code in (2..=9).filter(|code| *code != 6) {
        let why = failed(started(true, None).tell(Control(&[0x06, 0x00, 0x01, code])));
        assert!(why.starts_with("asked for records, it says that "), "{why}");
    }
    let mut transfer = with_records(true, None, &[1]);
    transfer.tell(Durable { records: 1 });
    assert!(matches!(transfer.tell(SENT), Some(Do::Write(_))));
    let why = failed(transfer.tell(Control(&[0x06, 0x00, 0x02, 0x02])));
    assert_eq!(why, "asked to erase, it says that it does not know the request");
}

#[test]
fn quiet_ends_each_stage() {
    let mut settles = with_records(true, None, &[1]);
    settles.tell(SENT);
    failed(settles.tell(Quiet));
    let mut erases = with_records(true, None, &[1]);
    erases.tell(Durable { records: 1 });
    erases.tell(SENT);
    failed(erases.tell(Quiet));
}

#[test]
fn unknown_short_and_number_responses_are_harmless() {
    let mut transfer = with_records(false, None, &[1]);
    let odd: [&[u8]; 7] = [&[], &[6], &[6, 0, 1], &[5, 0, 9, 0], &[6, 0, 2, 1], &[6, 1, 1, 1], &[6, 0, 1, 1, 0]];
    for bytes in odd {
        assert_eq!(transfer.tell(Control(bytes)), None, "{bytes:?}");
    }
    transfer.tell(SENT);
    assert_eq!(transfer.tell(Durable { records: 1 }), Some(Do::Done));
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_erased_that_is_not_durable(
        happens in proptest::collection::vec((0_u8..6, 0_u16..200, 0_usize..6), 0..40),
    ) {
        let mut transfer = Transfer::new(true, Some(1), None);
        let (mut seen, mut most_durable, mut ended) = (Vec::new(), 0, false);
        for (what, sequence, records) in happens {
            let bytes = record(sequence);
            let done = transfer.tell(match what {
                0 => Started,
                1 => Record(&bytes),
                2 => SENT,
                3 => Durable { records },
                4 => ERASED,
                _ => Quiet,
            });
            match what {
                1 => seen.push(sequence),
                2 => ended = true,
                3 => most_durable = most_durable.max(records),
                _ => {}
            }
            if let Some(Do::Write(bytes)) = done && bytes[0] == DELETE {
                prop_assert!(ended && most_durable >= transfer.received());
                prop_assert!(seen.contains(&u16::from_le_bytes([bytes[3], bytes[4]])));
            }
        }
    }
}
