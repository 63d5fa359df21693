//! The rules one by one, then random traffic and a day of hungry devices.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Asks until there is nothing left to do.
fn all(turns: &mut Turns, now: Instant) -> Vec<Turn> {
    std::iter::from_fn(|| turns.next(now)).collect()
}

fn link(turns: &mut Turns, now: Instant, device: usize, kind: Kind) {
    turns.ask(now, device, kind);
    assert_eq!(turns.next(now), Some(Turn::Connect(device)));
    turns.connected(now, device);
}

#[test]
fn one_connects_at_a_time_and_the_cap_holds() {
    let (mut turns, now) = (Turns::new(2), Instant::now());
    (0..4).for_each(|device| turns.ask(now, device, Kind::Streams));
    assert_eq!(all(&mut turns, now), [Turn::Connect(0)]);
    assert_eq!(turns.connecting(), Some(0));
    turns.connected(now, 0);
    assert_eq!(all(&mut turns, now), [Turn::Connect(1)]);
    turns.connected(now, 1);
    assert_eq!((all(&mut turns, now), turns.links(), turns.waiting()), (vec![], 2, 2));
}

#[test]
fn a_visitor_that_just_advertised_goes_first_but_three_do_not_shut_out_a_stream() {
    let (mut turns, now) = (Turns::new(9), Instant::now());
    turns.ask(now, 0, Kind::Streams);
    (1..6).for_each(|device| turns.ask(now, device, Kind::Visits));
    let mut order = Vec::new();
    while let Some(Turn::Connect(device)) = turns.next(now) {
        turns.connected(now, device);
        order.push(device);
    }
    assert_eq!(order, [1, 2, 3, 0, 4, 5]);
}

#[test]
fn a_visitor_heard_long_ago_has_no_precedence() {
    let (mut turns, now) = (Turns::new(1), Instant::now());
    turns.ask(now, 0, Kind::Streams);
    turns.ask(now + SECOND, 1, Kind::Visits);
    assert_eq!(turns.next(now + FRESH + SECOND), Some(Turn::Connect(0)));
}

#[test]
fn the_stream_that_holds_longest_yields_once_its_slot_is_over_and_someone_waited() {
    let (mut turns, now) = (Turns::new(2), Instant::now());
    link(&mut turns, now, 0, Kind::Streams);
    link(&mut turns, now + SECOND, 1, Kind::Streams);
    turns.ask(now + 2 * SECOND, 2, Kind::Streams);
    assert_eq!(turns.next(now + 59 * SECOND), None);
    assert_eq!(turns.next_look(now + 59 * SECOND), Some(now + SLOT));
    assert_eq!(all(&mut turns, now + SLOT), [Turn::Yield(0)]);
    assert_eq!(turns.next_look(now + SLOT), Some(now + SLOT + YIELD_BOUND));
    turns.freed(now + SLOT, 0);
    turns.ask(now + SLOT, 0, Kind::Streams);
    assert_eq!(all(&mut turns, now + SLOT), [Turn::Connect(2)]);
    assert_eq!(turns.held(now + 2 * SLOT, 0), SLOT);
    assert_eq!(turns.waited_longest(now + SLOT), 58 * SECOND);
}

#[test]
fn nobody_yields_while_nobody_waits() {
    let (mut turns, now) = (Turns::new(1), Instant::now());
    link(&mut turns, now, 0, Kind::Streams);
    assert_eq!((turns.next(now + OVERDUE), turns.next_look(now + OVERDUE)), (None, None));
}

#[test]
fn a_visit_is_not_interrupted_early_and_later_only_where_no_stream_can_yield() {
    let (mut turns, now) = (Turns::new(2), Instant::now());
    link(&mut turns, now, 0, Kind::Visits);
    turns.ask(now, 2, Kind::Streams);
    link(&mut turns, now, 2, Kind::Streams);
    turns.ask(now, 1, Kind::Polls);
    assert_eq!(turns.next(now + 59 * SECOND), None);
    assert_eq!(turns.next(now + SLOT), Some(Turn::Yield(2)));
    turns.freed(now + SLOT, 2);
    assert_eq!(turns.next(now + SLOT), Some(Turn::Connect(1)));
    turns.connected(now + SLOT, 1);
    turns.ask(now + SLOT, 2, Kind::Streams);
    assert_eq!(turns.next(now + SLOT + PATIENCE), Some(Turn::Yield(0)));
}

#[test]
fn a_waiting_visitor_makes_a_stream_yield_in_time() {
    let (mut turns, now) = (Turns::new(1), Instant::now());
    link(&mut turns, now, 0, Kind::Streams);
    turns.ask(now + 2 * SLOT, 1, Kind::Visits);
    assert_eq!(turns.next_look(now + 2 * SLOT), Some(now + 2 * SLOT + VISITOR_PATIENCE));
    assert_eq!(turns.next(now + 2 * SLOT + VISITOR_PATIENCE), Some(Turn::Yield(0)));
}

#[test]
fn one_that_fails_again_and_again_goes_to_the_end_and_still_gets_its_attempts() {
    let (mut turns, mut now) = (Turns::new(1), Instant::now());
    for _ in 0..FAILURES {
        turns.ask(now, 0, Kind::Streams);
        assert_eq!(turns.next(now), Some(Turn::Connect(0)));
        turns.failed(now, 0);
    }
    turns.ask(now, 0, Kind::Streams);
    let mut attempts = Vec::new();
    for minute in 0..30 {
        turns.ask(now, 1, Kind::Polls);
        let Some(Turn::Connect(device)) = turns.next(now) else { panic!("a link is free") };
        if device == 0 {
            attempts.push(minute);
            turns.failed(now, 0);
            turns.ask(now, 0, Kind::Streams);
        } else {
            turns.connected(now, 1);
            turns.freed(now + SECOND, 1);
        }
        now += SLOT;
    }
    assert_eq!(attempts, [10, 20]);
}

#[test]
fn a_stream_that_is_lost_at_once_has_failed_and_one_that_lasts_is_forgiven() {
    let (mut turns, now) = (Turns::new(1), Instant::now());
    for _ in 0..FAILURES {
        link(&mut turns, now, 0, Kind::Streams);
        turns.freed(now + SECOND, 0);
    }
    turns.ask(now, 0, Kind::Streams);
    turns.ask(now + SECOND, 1, Kind::Streams);
    assert_eq!(turns.next(now + SECOND), Some(Turn::Connect(1)));
    turns.failed(now + SECOND, 1);
    assert_eq!(turns.next(now + SECOND), Some(Turn::Connect(0)));
    turns.connected(now + SECOND, 0);
    turns.freed(now + SLOT, 0);
    assert_eq!(turns.devices[&0].failures, 0);
}

#[test]
fn an_attempt_without_end_is_over_after_its_bound_and_a_late_link_is_given_up() {
    let (mut turns, now) = (Turns::new(1), Instant::now());
    turns.ask(now, 0, Kind::Streams);
    turns.ask(now, 1, Kind::Streams);
    assert_eq!(all(&mut turns, now), [Turn::Connect(0)]);
    assert_eq!(turns.next_look(now), Some(now + CONNECT_BOUND));
    let later = now + CONNECT_BOUND;
    assert_eq!(all(&mut turns, later), [Turn::Connect(1)]);
    turns.connected(later, 0);
    turns.connected(later + SECOND, 1);
    assert_eq!(turns.links(), 2);
    assert_eq!(all(&mut turns, later + SECOND), [Turn::Yield(0)]);
    turns.freed(later + SECOND, 0);
    assert_eq!((turns.links(), turns.next(later + SECOND)), (1, None));
}

#[test]
fn who_withdraws_is_out_and_stray_reports_are_harmless() {
    let (mut turns, now) = (Turns::new(1), Instant::now());
    turns.withdraw(now, 7);
    turns.failed(now, 7);
    turns.freed(now, 7);
    turns.ask(now, 0, Kind::Polls);
    turns.withdraw(now, 0);
    assert_eq!((turns.next(now), turns.next_look(now)), (None, None));
    turns.ask(now, 0, Kind::Polls);
    assert_eq!(turns.next(now), Some(Turn::Connect(0)));
    turns.withdraw(now, 0);
    assert_eq!((turns.connecting(), turns.waiting(), turns.links()), (None, 0, 0));
}

proptest! {
    #[test]
    fn random_traffic_never_exceeds_the_cap_nor_connects_two(
        max in 1_usize..6,
        steps in proptest::collection::vec((0_u8..6, 0_usize..15, 0_u64..90), 1..400),
    ) {
        let (mut turns, mut now) = (Turns::new(max), Instant::now());
        let mut connecting: Option<(usize, Instant)> = None;
        for (what, device, seconds) in steps {
            now += Duration::from_secs(seconds);
            // The driver's own deadline is shorter than the bound.
            if let Some((hung, since)) = connecting && now >= since + 45 * SECOND {
                turns.failed(since + 45 * SECOND, hung);
                connecting = None;
            }
            let kind = [Kind::Streams, Kind::Visits, Kind::Polls][device % 3];
            match what {
                0 | 1 => turns.ask(now, device, kind),
                2 => turns.freed(now, device),
                3 => turns.withdraw(now, device),
                4 => if let Some((device, _)) = connecting { turns.connected(now, device) },
                _ => if let Some((device, _)) = connecting { turns.failed(now, device) },
            }
            for turn in all(&mut turns, now) {
                if let Turn::Connect(device) = turn {
                    prop_assert!(connecting.is_none_or(|(other, _)| turns.connecting() != Some(other) || other == device));
                    connecting = Some((device, now));
                }
            }
            if turns.connecting().is_none() {
                connecting = None;
            }
            prop_assert!(turns.links() + usize::from(turns.connecting().is_some()) <= max);
            prop_assert!(turns.next_look(now).is_none_or(|at| at > now), "a look that finds nothing comes again at once");
        }
    }
}

proptest! {
    // A day is long.
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn hungry_devices_share_a_day_within_a_tenth(
        mix in proptest::collection::vec(0_u64..2, 12),
        seed in 1_u64..10_000,
    ) {
        let day = hungry_day(&mix, seed);
        let (least, most) = (day.iter().min().unwrap(), day.iter().max().unwrap());
        prop_assert!(most.as_secs_f64() <= 1.1 * least.as_secs_f64(), "{mix:?}: {day:?}");
    }
}

/// Link time of twelve devices on five links: streams that never leave (0) and polls of 5 to 40 s (1), each asking again
/// at once. Connecting takes 1 to 4 s.
fn hungry_day(mix: &[u64], seed: u64) -> Vec<Duration> {
    let (mut turns, start) = (Turns::new(5), Instant::now());
    let mut random = fastrand::Rng::with_seed(seed);
    let kind = |device: usize| if mix[device] == 0 { Kind::Streams } else { Kind::Polls };
    // What happens to a device next: it connects, or its poll is over.
    let mut due: Vec<Option<(Instant, Due)>> = vec![None; mix.len()];
    (0..mix.len()).for_each(|device| turns.ask(start, device, kind(device)));
    let (mut now, mut longest) = (start, Duration::ZERO);
    while now < start + Duration::from_secs(86_400) {
        for (device, due) in due.iter_mut().enumerate() {
            match due.filter(|(at, _)| *at <= now) {
                Some((_, Due::Connects)) => {
                    turns.connected(now, device);
                    let poll_ends = now + Duration::from_secs(random.u64(5..40));
                    *due = (kind(device) == Kind::Polls).then_some((poll_ends, Due::Leaves));
                }
                Some((_, Due::Leaves)) => {
                    turns.freed(now, device);
                    turns.ask(now, device, kind(device));
                    *due = None;
                }
                None => {}
            }
        }
        for turn in all(&mut turns, now) {
            match turn {
                Turn::Connect(device) => due[device] = Some((now + SECOND * random.u32(1..4), Due::Connects)),
                Turn::Yield(device) => due[device] = Some((now + SECOND, Due::Leaves)),
            }
        }
        longest = longest.max(turns.waited_longest(now));
        let next = due.iter().flatten().map(|(at, _)| *at).chain(turns.next_look(now)).min().unwrap();
        now = next.max(now + Duration::from_millis(1));
    }
    assert!(longest < OVERDUE + 2 * SLOT, "one waited {longest:?}");
    (0..mix.len()).map(|device| turns.held(now, device)).collect()
}

#[derive(Debug, Clone, Copy)]
enum Due {
    Connects,
    Leaves,
}
