//! The life of one device, told step by step.

use std::time::Duration;

use tokio::time::Instant;

use super::*;

/// A link, the time, and how many values there were.
struct Life {
    link: Link,
    now: Instant,
    values: u64,
    /// What the jitter is drawn from; 1.0 for the whole wait.
    random: f64,
}

const STAY: Do = Do::Disconnect { forget: false };
const FORGET: Do = Do::Disconnect { forget: true };

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn aborted() -> Happened {
    Happened::Failed(Failure::Transient("le-connection-abort-by-local".to_owned()))
}

fn refused() -> Happened {
    Happened::Failed(Failure::Passing("refused".to_owned()))
}

impl Life {
    fn of(kind: Kind, silence: Option<Duration>) -> Life {
        Life { link: Link::new(kind, silence), now: Instant::now(), values: 0, random: 1.0 }
    }

    fn stream() -> Life {
        Life::of(Kind::Streams, None)
    }

    fn on(&mut self, happened: Happened) -> Vec<Do> {
        self.link.on(self.now, happened, self.random)
    }

    /// Time passes, with the looks that the driver takes meanwhile; what was to be done.
    fn pass(&mut self, span: Duration) -> Vec<Do> {
        let (end, mut todo) = (self.now + span, Vec::new());
        while let Some(at) = self.link.wake_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            todo.extend(self.on(Happened::Values(self.values)));
            todo.extend(self.on(Happened::Time));
        }
        self.now = end;
        todo
    }

    fn value(&mut self) -> Vec<Do> {
        self.values += 1;
        self.on(Happened::Values(self.values))
    }

    /// A value each `every`, `count` times.
    fn streams(&mut self, every: Duration, count: u32) {
        for _ in 0..count {
            assert_eq!(self.pass(every), []);
            assert_eq!(self.value(), []);
        }
    }

    fn connecting(mut self) -> Life {
        self.on(Happened::Heard);
        self.on(Happened::Turn);
        self
    }

    fn discovering(self) -> Life {
        let mut life = self.connecting();
        assert_eq!(life.on(Happened::Linked), [Do::Subscribe]);
        life
    }

    fn subscribed(self) -> Life {
        let mut life = self.discovering();
        assert_eq!(life.on(Happened::Subscribed(life.values)), []);
        life
    }

    fn streaming(self) -> Life {
        let mut life = self.subscribed();
        assert_eq!(life.value(), []);
        assert!(life.link.is_streaming());
        life
    }

    /// Heard all the time: as soon as it may, it asks again and gets its turn. The wait until then.
    fn waits_for_its_turn(&mut self) -> Duration {
        let begun = self.now;
        for _ in 0..10_000 {
            self.on(Happened::Heard);
            if matches!(self.link.state(), State::Advertising { .. }) {
                self.on(Happened::Turn);
                return self.now - begun;
            }
            self.pass(Duration::from_millis(100));
        }
        panic!("it never asks: {:?}", self.link.state());
    }

    fn pauses_for(&self) -> Duration {
        match self.link.state() {
            State::Backoff { until, .. } | State::Blocked { until, .. } => *until - self.now,
            state => panic!("it does not pause: {state:?}"),
        }
    }
}

#[test]
fn a_device_that_is_heard_asks_once_connects_subscribes_and_streams() {
    let mut life = Life::stream();
    assert_eq!((life.link.state(), life.link.wake_at()), (&State::Unseen, None));
    assert_eq!(life.on(Happened::Heard), [Do::Ask]);
    assert_eq!(life.on(Happened::Heard), []);
    assert_eq!(life.on(Happened::Turn), [Do::Connect]);
    assert_eq!(life.on(Happened::Heard), []);
    assert_eq!(life.on(Happened::Linked), [Do::Subscribe]);
    assert!(life.link.is_discovering());
    assert_eq!(life.on(Happened::Linked), [], "told by the bus and by the call: once is enough");
    assert_eq!(life.on(Happened::Subscribed(0)), []);
    assert_eq!(life.on(Happened::Values(0)), []);
    assert!(!life.link.is_streaming());
    assert_eq!(life.value(), []);
    assert!(life.link.is_streaming());
    assert_eq!(life.link.words(), "receiving");
}

#[test]
fn a_device_that_is_unheard_for_a_minute_gives_its_place_up_and_asks_again_when_heard() {
    let mut life = Life::stream();
    life.on(Happened::Heard);
    assert_eq!(life.pass(seconds(50)), []);
    life.on(Happened::Heard);
    assert_eq!(life.pass(seconds(59)), [], "counted from the last time");
    assert_eq!(life.pass(seconds(1)), [Do::Withdraw]);
    assert_eq!(life.link.state(), &State::Unseen);
    assert_eq!(life.on(Happened::Heard), [Do::Ask]);
}

#[test]
fn a_turn_that_comes_too_late_is_given_back() {
    let mut life = Life::stream();
    assert_eq!(life.on(Happened::Turn), [STAY, Do::Withdraw]);
    assert_eq!(life.link.state(), &State::Unseen);
}

#[test]
fn each_state_between_the_turn_and_the_first_value_has_its_own_end() {
    for (mut life, ends, words) in [
        (Life::stream().connecting(), 20, "no link in time"),
        (Life::stream().discovering(), 25, "its services are not resolved in time"),
    ] {
        assert_eq!(life.pass(seconds(ends) - Duration::from_millis(1)), []);
        assert_eq!(life.pass(Duration::from_millis(1)), [STAY, Do::Failed(words.to_owned()), Do::Withdraw]);
        assert_eq!(life.pauses_for(), seconds(2));
    }
    let mut life = Life::stream().subscribed();
    assert_eq!(life.pass(seconds(20) - Duration::from_millis(1)), []);
    let mute = "subscribed, but no value came".to_owned();
    assert_eq!(life.pass(Duration::from_millis(1)), [Do::Silent(seconds(20)), STAY, Do::Failed(mute), Do::Withdraw]);
}

#[test]
fn a_transient_failure_is_tried_again_at_once_twice_and_then_with_growing_pauses() {
    let mut life = Life::stream().connecting();
    let said = Do::Failed("le-connection-abort-by-local".to_owned());
    for _ in 0..2 {
        assert_eq!(life.on(aborted()), [STAY, said.clone(), Do::Withdraw, Do::Ask]);
        assert_eq!(life.on(Happened::Turn), [Do::Connect]);
    }
    let mut pauses = Vec::new();
    for _ in 0..8 {
        assert!(!life.on(aborted()).contains(&Do::Ask));
        pauses.push(life.pauses_for().as_secs());
        life.waits_for_its_turn();
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 120, 120]);
}

#[test]
fn a_pause_has_jitter_of_one_half() {
    let mut life = Life { random: 0.0, ..Life::stream() }.connecting();
    life.on(refused());
    assert_eq!(life.pauses_for(), seconds(1));
}

#[test]
fn a_value_ends_the_row_of_failures_and_their_pauses() {
    let mut life = Life::stream().connecting();
    for _ in 0..5 {
        life.on(refused());
        life.waits_for_its_turn();
    }
    life.on(Happened::Linked);
    life.on(Happened::Subscribed(0));
    life.value();
    life.on(Happened::Dropped);
    assert_eq!(life.on(Happened::Heard), [Do::Ask]);
    life.on(Happened::Turn);
    life.on(refused());
    assert_eq!(life.pauses_for(), seconds(2));
}

#[test]
fn bluez_is_made_to_forget_a_device_at_every_third_failure_in_a_row() {
    let mut life = Life::stream().connecting();
    let mut forgotten = Vec::new();
    for _ in 0..7 {
        forgotten.push(life.on(refused()).contains(&FORGET));
        life.waits_for_its_turn();
    }
    assert_eq!(forgotten, [false, false, true, false, false, true, false]);
}

#[test]
fn a_stream_without_a_first_value_waits_twice_as_long_each_time_and_is_forgotten_at_every_second() {
    let mut life = Life::stream();
    let (mut waits, mut forgotten) = (Vec::new(), Vec::new());
    for round in 0..7 {
        if round == 0 {
            life = life.connecting();
        } else {
            life.waits_for_its_turn();
        }
        life.on(Happened::Linked);
        life.on(Happened::Subscribed(0));
        let begun = life.now;
        life.now = life.link.wake_at().unwrap();
        waits.push((life.now - begun).as_secs());
        let todo = life.on(Happened::Time);
        assert_eq!(todo[0], Do::Silent(life.now - begun));
        forgotten.push(todo.contains(&FORGET));
    }
    assert_eq!(waits, [20, 40, 80, 160, 320, 600, 600]);
    assert_eq!(forgotten, [false, true, true, true, false, true, false], "and at every third failure");
}

#[test]
fn a_first_value_makes_the_next_wait_short_again() {
    let mut life = Life::stream().subscribed();
    life.pass(seconds(20));
    life.waits_for_its_turn();
    life.on(Happened::Linked);
    life.on(Happened::Subscribed(0));
    life.value();
    life.on(Happened::Dropped);
    life.on(Happened::Heard);
    life.on(Happened::Turn);
    life.on(Happened::Linked);
    life.on(Happened::Subscribed(life.values));
    assert_eq!(life.link.wake_at(), Some(life.now + seconds(20)));
}

#[test]
fn silence_is_several_of_the_devices_own_intervals_within_bounds() {
    for (every, silence) in [(Duration::from_millis(200), 10), (seconds(5), 40), (seconds(9), 72)] {
        let mut life = Life::stream().streaming();
        life.streams(every, 60);
        let learned = life.link.silence_after();
        assert!(learned.abs_diff(seconds(silence)) < seconds(2), "{every:?}: {learned:?}");
    }
    let mut slow = Life::of(Kind::Streams, Some(seconds(1_000))).streaming();
    slow.streams(seconds(300), 20);
    slow.link.silence = None;
    assert_eq!(slow.link.silence_after(), LONGEST_SILENCE);
}

#[test]
fn a_stream_that_falls_silent_is_linked_anew_at_once() {
    let mut life = Life::stream().streaming();
    life.streams(seconds(1), 60);
    assert_eq!(life.pass(seconds(9)), []);
    let todo = life.pass(seconds(7));
    assert!(matches!(todo[0], Do::Silent(span) if span >= seconds(10) && span <= seconds(15)), "{todo:?}");
    assert_eq!(todo[1..], [STAY, Do::Failed("it fell silent".to_owned()), Do::Withdraw]);
}

#[test]
fn the_word_of_the_entry_beats_what_was_learned_and_holds_for_the_first_value_too() {
    let mut life = Life::of(Kind::Streams, Some(seconds(2))).subscribed();
    assert_eq!(life.link.wake_at(), Some(life.now + seconds(2)));
    life.value();
    life.streams(seconds(1), 30);
    assert_eq!(life.link.silence_after(), seconds(2));
    assert!(matches!(life.pass(seconds(3))[0], Do::Silent(_)));
}

#[test]
fn a_stream_whose_rhythm_is_known_says_its_first_value_as_soon() {
    let mut life = Life::stream().streaming();
    life.streams(seconds(1), 60);
    life.on(Happened::Dropped);
    life.on(Happened::Heard);
    life.on(Happened::Turn);
    life.on(Happened::Linked);
    life.on(Happened::Subscribed(life.values));
    assert_eq!(life.link.wake_at(), Some(life.now + life.link.silence_after()));
    assert_eq!(life.link.silence_after(), SHORTEST_SILENCE);
}

#[test]
fn a_lost_link_is_said_and_made_again_when_the_device_is_heard() {
    let lost = [Do::Lost, STAY, Do::Failed("the link was lost".to_owned()), Do::Withdraw];
    assert_eq!(Life::stream().streaming().on(Happened::Dropped), lost);
    assert_eq!(Life::stream().subscribed().on(Happened::Dropped), lost);
    for mut life in [Life::stream().connecting(), Life::stream().discovering()] {
        let todo = life.on(Happened::Dropped);
        assert_eq!(todo[1], Do::Failed("the link went down at once".to_owned()));
        assert_eq!(todo.last(), Some(&Do::Ask));
    }
}

#[test]
fn a_drop_that_is_told_twice_counts_once() {
    let mut life = Life::stream().streaming();
    life.on(Happened::Dropped);
    assert_eq!(life.on(Happened::Dropped), []);
    assert_eq!(life.link.failures, 1);
}

#[test]
fn what_only_a_person_mends_is_said_and_tried_again_after_five_minutes() {
    let mut life = Life::stream().discovering();
    let reason = "wants to be paired".to_owned();
    let todo = life.on(Happened::Failed(Failure::Lasting(reason.clone())));
    assert_eq!(todo, [STAY, Do::Failed(reason.clone()), Do::Withdraw]);
    assert_eq!((life.link.words(), life.pauses_for()), (reason, seconds(300)));
    assert_eq!(life.pass(seconds(299)), []);
    assert_eq!(life.on(Happened::Heard), []);
    assert_eq!(life.pass(seconds(1)), [Do::Ask]);
}

#[test]
fn after_a_pause_a_device_that_was_heard_lately_asks_and_another_is_unseen() {
    for (heard_before, ends) in [(59, true), (60, false)] {
        let mut life = Life::stream().connecting();
        life.on(Happened::Failed(Failure::Lasting("paired?".to_owned())));
        life.pass(seconds(300 - heard_before));
        life.on(Happened::Heard);
        assert_eq!(life.pass(seconds(heard_before)), if ends { vec![Do::Ask] } else { vec![] });
        assert_eq!(*life.link.state() == State::Unseen, !ends);
    }
}

#[test]
fn who_yields_comes_back_after_a_second_and_has_not_failed() {
    let mut life = Life::stream().streaming();
    assert_eq!(life.on(Happened::Yield), [STAY, Do::Withdraw]);
    assert_eq!(life.pauses_for(), seconds(1));
    assert_eq!(life.on(Happened::Dropped), [], "its own doing");
    assert_eq!((life.pass(seconds(1)), life.link.failures), (vec![Do::Ask], 0));
    for mut life in [Life::stream().connecting(), Life::stream().discovering(), Life::stream()] {
        assert_eq!(life.on(Happened::Yield), [], "nothing to yield");
    }
}

#[test]
fn a_visitor_asks_with_every_advertisement_while_it_waits() {
    let mut life = Life::of(Kind::Visits, None);
    assert_eq!(life.on(Happened::Heard), [Do::Ask]);
    assert_eq!(life.on(Happened::Heard), [Do::Ask]);
}

#[test]
fn a_visitor_that_hangs_up_or_says_nothing_more_has_said_all() {
    let mut cuff = Life::of(Kind::Visits, None).subscribed();
    cuff.value();
    assert!(!cuff.link.is_streaming());
    assert_eq!(cuff.on(Happened::Dropped), [STAY, Do::Withdraw]);
    assert_eq!((cuff.pauses_for(), cuff.link.failures), (seconds(1), 0));
    let mut scale = Life::of(Kind::Visits, None).subscribed();
    scale.pass(seconds(20));
    scale.value();
    assert_eq!(scale.pass(seconds(29)), [], "each value makes it linger");
    assert_eq!(scale.pass(seconds(1)), [STAY, Do::Withdraw]);
    assert_eq!((scale.link.words().as_str(), scale.link.failures), ("has said all, rests", 0));
}

#[test]
fn a_polled_device_rests_until_it_is_asked_again() {
    let mut life = Life::of(Kind::Polls, None).subscribed();
    assert_eq!(life.value(), []);
    assert_eq!(life.on(Happened::Finished { again: seconds(45) }), [STAY, Do::Withdraw]);
    assert_eq!(life.pauses_for(), seconds(45));
    assert_eq!(life.pass(seconds(44)), []);
    assert_eq!(life.pass(seconds(1)), [Do::Ask]);
    let failing = &mut Life::of(Kind::Polls, None).subscribed();
    assert!(failing.on(refused()).contains(&Do::Failed("refused".to_owned())));
}

#[test]
fn without_the_radio_a_device_is_unseen_whatever_it_did_and_counts_no_failure() {
    let waiting = || {
        let mut life = Life::stream();
        life.on(Happened::Heard);
        life
    };
    let lives = [
        waiting(),
        Life::stream().connecting(),
        Life::stream().discovering(),
        Life::stream().subscribed(),
        Life::stream().streaming(),
    ];
    for mut life in lives {
        assert_eq!(life.on(Happened::RadioGone), [Do::Withdraw]);
        assert_eq!((life.link.state(), life.link.failures), (&State::Unseen, 0));
        assert_eq!(life.on(Happened::Heard), [Do::Ask]);
    }
    let mut pausing = Life::stream().connecting();
    pausing.on(refused());
    assert_eq!((pausing.on(Happened::RadioGone), pausing.link.state()), (vec![], &State::Unseen));
}

#[test]
fn a_profile_tells_how_its_device_uses_the_radio() {
    use crate::interpret::link::LinkSpec;
    use crate::interpret::profile::Get;
    let plan = |ways: &[(Get, bool)]| Plan {
        element: None,
        channels: ways
            .iter()
            .map(|(get, emits)| crate::source::ble::Wanted {
                name: "2a37".into(),
                get: *get,
                every: seconds(60),
                emits: *emits,
            })
            .collect(),
        link: LinkSpec::default(),
    };
    assert_eq!(kind_of(&plan(&[(Get::ReadOnce, false), (Get::Notify, true)])), Kind::Streams);
    assert_eq!(kind_of(&plan(&[(Get::Indicate, true), (Get::Notify, false)])), Kind::Visits);
    assert_eq!(kind_of(&plan(&[(Get::Poll, true), (Get::Notify, false)])), Kind::Polls);
}
