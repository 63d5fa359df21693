//! The climb, what ends it, and what it never does.

use proptest::prelude::*;

use super::*;

/// Tells of the symptom every second for so long; the rungs with the seconds at which they came.
fn climb(ladder: &mut Ladder, start: Instant, symptom: Symptom, links: usize, seconds: u64) -> Vec<(u64, Rung)> {
    let rung = |second| Some((second, ladder.sick(start + Duration::from_secs(second), symptom, links)?));
    (0..seconds).filter_map(rung).collect()
}

fn count(ladder: &Ladder, rung: Rung) -> u64 {
    ladder.counts().iter().find(|(other, _)| *other == rung).unwrap().1
}

#[test]
fn a_hanging_call_climbs_the_whole_ladder_and_each_rung_gets_its_time() {
    let (mut ladder, now) = (Ladder::new(true), Instant::now());
    let taken = climb(&mut ladder, now, Symptom::CallHung, 0, 200);
    let places = [0, 15, 30, 50, 80, 125];
    assert_eq!(taken, places.into_iter().zip(RUNGS).collect::<Vec<_>>());
    assert_eq!(ladder.next_look(), Some(now + Duration::from_secs(125) + AGAIN));
    assert!(ladder.counts().iter().all(|(_, count)| *count == 1));
}

#[test]
fn bluetoothd_is_left_alone_where_that_is_not_allowed() {
    let (mut ladder, now) = (Ladder::new(false), Instant::now());
    let taken = climb(&mut ladder, now, Symptom::CallHung, 0, 7_200);
    assert!(taken.iter().all(|(_, rung)| *rung != Rung::RestartBluetoothd), "{taken:?}");
}

#[test]
fn silence_alone_switches_the_radio_once_an_hour_and_never_restarts_bluetoothd() {
    let (mut ladder, now) = (Ladder::new(true), Instant::now());
    climb(&mut ladder, now, Symptom::SilentAir, 0, 4 * 3_600);
    assert!((2..=4).contains(&count(&ladder, Rung::PowerCycle)), "{:?}", ladder.counts());
    assert_eq!(count(&ladder, Rung::RestartBluetoothd), 0);
    assert_eq!(count(&ladder, Rung::GiveUp), 1);
    assert!(count(&ladder, Rung::RestartScan) >= 14, "{:?}", ladder.counts());
}

#[test]
fn a_value_does_not_hide_a_deaf_scanner_but_protects_its_link() {
    for symptom in [Symptom::SilentAir, Symptom::ScanRefused, Symptom::CallHung, Symptom::LinksFail] {
        let (mut ladder, now) = (Ladder::new(true), Instant::now());
        for second in 0..300 {
            let now = now + Duration::from_secs(second);
            ladder.well(now, Sign::Value);
            ladder.sick(now, symptom, 0);
        }
        let counts = ladder.counts().map(|(_, count)| count);
        assert_eq!(counts, [1, 1, 1, 0, 0, 1], "{symptom:?}");
    }
}

#[test]
fn links_that_deliver_forbid_cutting_them() {
    let (mut ladder, now) = (Ladder::new(true), Instant::now());
    let taken = climb(&mut ladder, now, Symptom::ScanRefused, 2, 100);
    assert_eq!(taken.last(), Some(&(50, Rung::GiveUp)));
    assert_eq!(taken.len(), 4);
}

#[test]
fn only_a_contradicting_sign_goes_back_to_the_bottom() {
    let (mut ladder, now) = (Ladder::new(true), Instant::now());
    climb(&mut ladder, now, Symptom::CallHung, 0, 20);
    ladder.well(now, Sign::Advertisement);
    assert!(ladder.next_look().is_some());
    ladder.well(now, Sign::Answer);
    assert_eq!(ladder.next_look(), None);
    assert_eq!(ladder.sick(now, Symptom::SilentAir, 0), Some(Rung::RestartScan));
    ladder.well(now, Sign::Advertisement);
    assert_eq!(ladder.next_look(), None);
}

#[test]
fn one_of_two_troubles_that_is_over_leaves_the_other() {
    let (mut ladder, now) = (Ladder::new(true), Instant::now());
    ladder.sick(now, Symptom::SilentAir, 0);
    ladder.sick(now, Symptom::LinksFail, 0);
    ladder.well(now, Sign::Advertisement);
    assert_eq!(ladder.sick(now + Duration::from_secs(15), Symptom::LinksFail, 0), Some(Rung::NewSession));
}

#[test]
fn giving_up_is_said_once_and_tried_again_until_a_good_sign() {
    let (mut ladder, now) = (Ladder::new(false), Instant::now());
    let taken = climb(&mut ladder, now, Symptom::LinksFail, 0, 3_600);
    assert_eq!(taken.iter().filter(|(_, rung)| *rung == Rung::GiveUp).count(), 1);
    assert!(taken.iter().filter(|(_, rung)| *rung == Rung::RestartScan).count() >= 3);
    let later = now + Duration::from_secs(3_600);
    ladder.well(later, Sign::Link);
    let again = climb(&mut ladder, later, Symptom::LinksFail, 0, 120);
    assert_eq!(again.last().map(|(_, rung)| *rung), Some(Rung::GiveUp));
}

#[test]
fn real_trouble_is_said_also_after_mere_silence() {
    let (mut ladder, now) = (Ladder::new(false), Instant::now());
    climb(&mut ladder, now, Symptom::SilentAir, 0, 120);
    climb(&mut ladder, now + Duration::from_secs(120), Symptom::CallHung, 0, 1_200);
    assert_eq!(count(&ladder, Rung::GiveUp), 2);
}

#[test]
fn a_radio_that_is_off_is_switched_on_first() {
    let (mut ladder, now) = (Ladder::new(true), Instant::now());
    assert_eq!(ladder.sick(now, Symptom::NotPowered, 0), Some(Rung::PowerCycle));
}

#[test]
fn trouble_after_a_calm_time_begins_at_the_bottom() {
    let (mut ladder, now) = (Ladder::new(true), Instant::now());
    climb(&mut ladder, now, Symptom::CallHung, 0, 40);
    assert_eq!(ladder.sick(now + 2 * CALM, Symptom::CallHung, 0), Some(Rung::RestartScan));
}

#[test]
fn the_words_say_what_was_seen_and_the_cure() {
    let (mut ladder, now) = (Ladder::new(true), Instant::now());
    ladder.well(now, Sign::Advertisement);
    let lasted = ladder.lasted(now + Duration::from_secs(170));
    assert_eq!(
        Rung::GiveUp.words("hci0", Symptom::SilentAir, lasted),
        "hci0: nothing was heard for 3 min; if a sensor is near and awake, unplug the dongle or the hub's power for \
         ten seconds"
    );
    let words = Rung::GiveUp.words("hci1", Symptom::CallHung, lasted);
    assert!(words.contains("unplug the dongle or the hub's power for ten seconds"), "{words}");
    assert_eq!(
        Rung::RestartScan.words("hci0", Symptom::ScanRefused, lasted),
        "hci0: bluetoothd refuses to scan; scanning is restarted"
    );
}

proptest! {
    #[test]
    fn no_rung_comes_before_its_time_and_none_that_cuts_a_healthy_link(
        steps in proptest::collection::vec((0_usize..9, 0_usize..3, 0_u64..40), 1..300),
    ) {
        const SYMPTOMS: [Symptom; 5] = [
            Symptom::SilentAir, Symptom::CallHung, Symptom::ScanRefused, Symptom::LinksFail, Symptom::NotPowered,
        ];
        const SIGNS: [Sign; 4] = [Sign::Advertisement, Sign::Value, Sign::Link, Sign::Answer];
        let (mut ladder, mut now) = (Ladder::new(true), Instant::now());
        for (what, links, seconds) in steps {
            now += Duration::from_secs(seconds);
            let Some(symptom) = SYMPTOMS.get(what) else {
                ladder.well(now, SIGNS[what - SYMPTOMS.len()]);
                continue;
            };
            let look = ladder.next_look();
            let rung = ladder.sick(now, *symptom, links);
            prop_assert!(rung.is_none() || look.is_none_or(|at| at <= now));
            if links > 0 {
                prop_assert!(!matches!(rung, Some(Rung::PowerCycle | Rung::RestartBluetoothd)));
            }
        }
    }
}
