//! Stored records: read again after a dropped link, in any order, each is one event.

use biogate::interpret::Interpretation;
use uuid::Uuid;

use super::Device;

/// Thirty measurements of a cuff, a minute apart.
fn records() -> Vec<Vec<u8>> {
    (0..30u8).map(|minute| vec![0x02, 0x79, 0, 0x4f, 0, 0x5d, 0, 0xea, 0x07, 11, 23, 8, minute, 0]).collect()
}

fn cuff() -> Device {
    let mut cuff = Device::shipped("bluetooth-blood-pressure");
    cuff.memory.set_clock_checked(true);
    cuff
}

fn hear(cuff: &mut Device, records: &[Vec<u8>]) -> Vec<Interpretation> {
    // Ten seconds apart: nothing here is a twin.
    (0..).step_by(10_000).zip(records).map(|(ms, record)| cuff.hears("2a35", record, ms)).collect()
}

fn ids(said: &[Interpretation]) -> Vec<Uuid> {
    said.iter().flat_map(|said| &said.observations).map(|observation| observation.identity.unwrap()).collect()
}

fn duplicates(said: &[Interpretation]) -> usize {
    assert!(said.iter().all(|said| said.faults.is_empty()));
    said.iter().filter(|said| said.duplicate).count()
}

#[test]
fn thirty_records_are_thirty_events_over_a_dropped_link_and_a_restart() {
    let records = records();
    let whole = ids(&hear(&mut cuff(), &records));
    assert_eq!(whole.len(), 90, "systolic, diastolic and mean of each");

    let mut cuff = cuff();
    let mut said = hear(&mut cuff, &records[..15]);
    cuff.restarts();
    said.extend(hear(&mut cuff, &records));
    assert_eq!((ids(&said), duplicates(&said)), (whole, 15));
}

#[test]
fn newest_first_gives_the_same_events() {
    let mut records = records();
    let mut whole = ids(&hear(&mut cuff(), &records));
    records.reverse();
    let mut cuff = cuff();
    let mut said = hear(&mut cuff, &records[..15]);
    said.extend(hear(&mut cuff, &records));
    let mut found = ids(&said);
    whole.sort();
    found.sort();
    assert_eq!((found, duplicates(&said)), (whole, 15));
}

#[test]
fn an_unchecked_clock_gives_no_ids_and_records_are_recognised_all_the_same() {
    let records = records();
    let mut cuff = Device::shipped("bluetooth-blood-pressure");
    let mut said = hear(&mut cuff, &records[..15]);
    cuff.restarts();
    said.extend(hear(&mut cuff, &records));
    assert_eq!((said.iter().map(|said| said.observations.len()).sum::<usize>(), duplicates(&said)), (90, 15));
    assert!(said.iter().flat_map(|said| &said.observations).all(|observation| observation.identity.is_none()));
    // Once it is checked they would have other ids, so they must stay known; what is new has its own id.
    cuff.memory.set_clock_checked(true);
    cuff.restarts();
    assert_eq!(duplicates(&hear(&mut cuff, &records)), 30);
    let next = vec![0x02, 0x79, 0, 0x4f, 0, 0x5d, 0, 0xea, 0x07, 11, 23, 9, 0, 0];
    assert_eq!(ids(&hear(&mut cuff, &[next])).len(), 3, "checked once, it stays so");
}

#[test]
fn readings_without_a_time_are_never_taken_for_each_other() {
    let mut cuff = cuff();
    let said = hear(&mut cuff, &vec![vec![0x00, 0x79, 0, 0x4f, 0, 0x5d, 0]; 2]);
    assert_eq!((said.iter().map(|said| said.observations.len()).sum::<usize>(), duplicates(&said)), (6, 0));
}
