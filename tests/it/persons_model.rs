//! Who wore what: the history against a plain model, its limits, its clock, and the form in which it is stored.

use std::collections::BTreeMap;

use biogate::clock::{Anchor, Anchors};
use biogate::reading::{BootId, Heard};
use biogate::resolve::Basis;
use biogate::resolve::history::{Assignment, By, MOST_IN_ALL, MOST_OF_DEVICE, Says, Worn, bound, number, settle, wall};
use proptest::prelude::*;
use uuid::Uuid;

/// The instants of the model: one person and one room for each.
const INSTANTS: i64 = 40;

const BOOT: BootId = BootId(Uuid::from_u128(1));

fn user(number: u8) -> Option<Uuid> {
    (number > 0).then(|| Uuid::from_u128(u128::from(number)))
}

fn statement(device: &str, person: u8, from: Option<i64>, until: Option<i64>, says: Says) -> Assignment {
    Assignment {
        device: device.into(),
        user_id: user(person),
        location: (person > 0).then(|| format!("room {person}").into()),
        from: from.map(wall),
        until: until.map(wall),
        says,
        by: By::Command,
        version: 0,
        revision: 0,
        said: None,
        estimated: false,
    }
}

fn unix_ms(heard: Heard) -> i64 {
    heard.ms as i64
}

/// Device, person (0 is nobody), from, until, what it says.
fn said() -> impl Strategy<Value = (bool, u8, Option<i64>, Option<i64>, Says)> {
    let says = prop_oneof![3 => Just(Says::Person), 1 => Just(Says::Place), 1 => Just(Says::Both)];
    let instant = 0..INSTANTS;
    (any::<bool>(), 0u8..4, prop::option::of(instant.clone()), prop::option::of(instant), says)
}

proptest! {
    #[test]
    fn at_every_instant_the_history_and_a_plain_model_agree(said in prop::collection::vec(said(), 0..60)) {
        let mut history = Vec::new();
        let mut model: BTreeMap<(bool, i64), (Option<Uuid>, Option<String>)> = BTreeMap::new();
        for (first, person, from, until, says) in said {
            let next = statement(if first { "one" } else { "two" }, person, from, until, says);
            for at in (0..INSTANTS).filter(|at| from.is_none_or(|from| from <= *at) && until.is_none_or(|until| *at < until)) {
                let known = model.entry((first, at)).or_default();
                if says != Says::Place {
                    known.0 = next.user_id;
                }
                if says != Says::Person {
                    known.1 = next.location.as_deref().map(str::to_owned);
                }
            }
            history.push(next);
        }
        let worn = Worn::new(&history, unix_ms);
        for (name, first) in [("one", true), ("two", false)] {
            let device = worn.of(name);
            for at in 0..INSTANTS {
                let expected = model.get(&(first, at)).cloned().unwrap_or_default();
                let found = (device.person(at), device.place(at).map(|place| place.to_string()));
                prop_assert_eq!(&found, &expected, "{} at {}", name, at);
                let within: Vec<_> = device
                    .intervals()
                    .into_iter()
                    .filter(|it| it.from.is_none_or(|from| from <= at) && it.until.is_none_or(|until| at < until))
                    .collect();
                prop_assert_eq!(within.len(), 1, "one stretch at each instant: {:?}", within);
                prop_assert_eq!((within[0].user_id, within[0].location.as_deref().map(str::to_owned)), expected);
            }
            let stretches = device.intervals();
            prop_assert_eq!((stretches.first().unwrap().from, stretches.last().unwrap().until), (None, None));
            for pair in stretches.windows(2) {
                prop_assert_eq!(pair[0].until, pair[1].from, "in order, without a hole");
                prop_assert!(pair[0].from < pair[0].until);
                prop_assert!((pair[0].user_id, &pair[0].location) != (pair[1].user_id, &pair[1].location));
            }
        }
    }

    #[test]
    fn what_the_limit_leaves_is_the_newest_of_the_device_s_time(
        said in prop::collection::vec(said(), MOST_OF_DEVICE + 1..MOST_OF_DEVICE * 2),
    ) {
        let full: Vec<Assignment> =
            said.into_iter().map(|(_, person, from, until, says)| statement("one", person, from, until, says)).collect();
        let mut bounded = full.clone();
        number(&mut bounded, 0);
        bound(&mut bounded, unix_ms);
        prop_assert!(bounded.len() <= MOST_OF_DEVICE);
        // So few instants make no more stretches than are kept: nothing is lost by it.
        for at in 0..INSTANTS {
            let at_instant = |history: &[Assignment]| {
                let worn = Worn::new(history, unix_ms);
                (worn.of("one").person(at), worn.of("one").place(at).cloned())
            };
            prop_assert_eq!(at_instant(&bounded), at_instant(&full), "at {}", at);
        }
    }
}

#[test]
fn a_full_history_fits_a_state_value_and_keeps_who_wears_what_now() {
    let mut history = Vec::new();
    for n in 0..6_000u64 {
        let from = 1_763_900_000_000 + n as i64 * 7_777_777;
        let mut next = statement(&format!("strap-{}", n % 100), 1, Some(from), None, Says::Person);
        next.user_id = Some(Uuid::new_v4());
        next.said = Some(wall(from + 12_345));
        history.push(next);
        number(&mut history, from as u64);
        bound(&mut history, unix_ms);
    }
    assert!(history.len() <= MOST_IN_ALL, "{}", history.len());
    let worn = Worn::new(&history, unix_ms);
    assert!((0..100).all(|n| worn.of(&format!("strap-{n}")).person(i64::MAX - 1).is_some()));
    let basis = Basis {
        gateway_id: "hub".into(),
        timezone: "UTC".to_owned(),
        location: None,
        unassigned: Default::default(),
        assignments: history,
    };
    let stored = serde_cbor::to_vec(&basis).unwrap();
    let packed = zstd::bulk::compress(&stored, 3).unwrap();
    assert!(packed.len() < 64 << 10, "{} of {} bytes", packed.len(), stored.len());
}

#[test]
fn a_moment_of_an_unknown_clock_becomes_a_time_with_the_first_sync_and_is_told_anew() {
    let mut anchors = Anchors::new(1_000_000);
    anchors.append(Anchor { boot: BOOT, from_ms: 0, offset_ms: 0, synced: false });
    let heard = Heard { boot: BOOT, ms: 60_000 };
    let mut by_entry = statement("strap", 2, None, None, Says::Both);
    by_entry.from = Some(heard);
    // Said while the clock was unknown, at 13:00 by the estimate; in truth it was later than the command's interval.
    let mut history = vec![statement("strap", 1, None, None, Says::Both), by_entry];
    history.push(statement("strap", 3, Some(2_000_000), Some(3_000_000), Says::Person));
    number(&mut history, 0);
    settle(&mut history, &anchors, BOOT);
    assert_eq!(history[1].from, Some(heard), "nothing is certain yet");
    let person = |history: &[Assignment], anchors: &Anchors, at| {
        let worn = Worn::new(history, |heard| anchors.unix_ms(anchors.version(), heard).0);
        worn.of("strap").person(at)
    };
    assert_eq!(person(&history, &anchors, 1_500_000), user(2));
    anchors.append(Anchor { boot: BOOT, from_ms: 90_000, offset_ms: 4_000_000, synced: true });
    settle(&mut history, &anchors, BOOT);
    assert_eq!((history[1].from, history[1].revision, history[1].version), (Some(wall(4_060_000)), 0, 2));
    number(&mut history, 0);
    assert_eq!((history[1].revision, history[1].version, history[1].estimated), (4, 2, false));
    for (at, expected) in [(1_500_000, 1), (2_500_000, 3), (3_500_000, 1), (4_060_000, 2)] {
        assert_eq!(person(&history, &anchors, at), user(expected), "{at}");
    }
}

#[test]
fn a_boot_that_never_knew_the_time_is_settled_by_its_estimate_once_it_is_over() {
    let mut anchors = Anchors::new(1_000_000);
    anchors.append(Anchor { boot: BOOT, from_ms: 0, offset_ms: 0, synced: false });
    let mut said = statement("strap", 1, None, None, Says::Both);
    said.from = Some(Heard { boot: BOOT, ms: 60_000 });
    let mut history = vec![said];
    settle(&mut history, &anchors, BootId(Uuid::from_u128(2)));
    assert_eq!((history[0].from, history[0].estimated), (Some(wall(1_060_000)), true));
}

/// If this test fails, the program reads stores of earlier versions wrongly. Change the program, not the test.
#[test]
fn a_basis_that_an_earlier_version_stored_is_read_with_the_same_meaning() {
    // {gateway_id: "hub-1", timezone: "UTC", location: "ward", unassigned: "forward", assignments: [
    //   {device: "strap", user_id: h'..01', location: null, from: null},
    //   {device: "strap", user_id: null, location: "room", from: {boot: h'00..', ms: 500}}]}
    let stored = "a56a676174657761795f6964656875622d316874696d657a6f6e6563555443686c6f636174696f6e64776172646a756e6173\
                  7369676e656467666f72776172646b61737369676e6d656e747382a4666465766963656573747261706775736572\
                  5f69645000000000000000000000000000000001686c6f636174696f6ef66466726f6df6a46664657669636565\
                  73747261706775736572\
                  5f6964f6686c6f636174696f6e64726f6f6d6466726f6da264626f6f745000000000000000000000000000000000\
                  626d731901f4";
    let digits: Vec<u8> = stored.bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    let basis: Basis = serde_cbor::from_slice(&bytes).unwrap();
    assert_eq!((&*basis.gateway_id, basis.assignments.len()), ("hub-1", 2));
    let worn = Worn::new(&basis.assignments, unix_ms);
    let at = |ms| (worn.of("strap").person(ms), worn.of("strap").place(ms).map(|place| place.to_string()));
    assert_eq!(at(-1), (user(1), None));
    assert_eq!(at(499), (user(1), None));
    assert_eq!(at(500), (None, Some("room".to_owned())));
    let mut history = basis.assignments.clone();
    number(&mut history, 100);
    assert_eq!(history.iter().map(|said| (said.version, said.revision)).collect::<Vec<_>>(), [(101, 101), (102, 102)]);
}
