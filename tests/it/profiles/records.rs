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
fn an_unchecked_clock_recognises_nothing_and_costs_no_state() {
    let mut cuff = Device::shipped("bluetooth-blood-pressure");
    let empty = cuff.memory.to_state();
    let record = &records()[..1];
    for _ in 0..2 {
        let said = hear(&mut cuff, record);
        assert_eq!((said[0].observations.len(), duplicates(&said)), (3, 0));
    }
    assert_eq!(cuff.memory.to_state(), empty);
    cuff.memory.set_clock_checked(true);
    cuff.restarts();
    assert_eq!(ids(&hear(&mut cuff, record)).len(), 3, "checked once, it stays so");
}
