//! When to try again, and how much to send: exponential backoff with jitter, and room for an overloaded peer.
//!
//! Pure and told the time, so that a test needs no clock and a seed makes it repeat. Written here because the crates
//! for this wrap the whole call in their own timer; what is left without the timer is thirty lines.

use std::time::Duration;

/// The first wait after a failure.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// What a wait has at least of what it may have at most. The wider the span the less in step are the hubs that lost
/// their peer at the same moment.
const LEAST_SHARE: f64 = 0.25;

/// Past what a peer asked for, a hub waits by so much of it longer at random: it asks all hubs alike.
const PAST_ASKED: f64 = 0.5;

/// No wait is longer than this, but for what the peer itself asks for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A peer that asks for more than this (`Retry-After`) is asked again all the same.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(600);

/// After an overload no two batches follow each other faster than this, at first.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between batches: a calmer rhythm must still drain the queue.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why a try failed, as far as the wait depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Not reached, not allowed, not there: time or a person may mend it.
    Unavailable,
    /// No answer in time: the next batch should be smaller.
    Slow,
    /// The peer cannot take so much at once: the next batch should be smaller.
    Heavy,
    /// The peer has too much to do. Fewer and larger batches help it.
    Overload {
        /// The peer's own word (`Retry-After`).
        asked: Option<Duration>,
    },
}

/// The backoff of one destination. All times are durations since any fixed instant.
#[derive(Debug)]
pub struct Retry {
    rng: fastrand::Rng,
    longest: Duration,
    attempts: u32,
    pause: Duration,
    not_before: Duration,
}

impl Retry {
    /// A backoff whose jitter follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Retry {
            rng: fastrand::Rng::with_seed(seed),
            longest: LONGEST_WAIT,
            attempts: 0,
            pause: Duration::ZERO,
            not_before: Duration::ZERO,
        }
    }

    /// The same, with a longest wait of its own.
    pub(crate) fn waiting_at_most(self, longest: Duration) -> Self {
        Retry { longest, ..self }
    }

    /// Failures since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Nothing failed since the last success, and no pause is left of an overload.
    pub fn is_calm(&self) -> bool {
        self.attempts == 0 && self.pause.is_zero()
    }

    /// A try failed at `now`; returns when to try again.
    pub fn failed(&mut self, now: Duration, failure: Failure) -> Duration {
        let doubled = FIRST_WAIT.saturating_mul(1u32 << self.attempts.min(16)).min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        // Mostly random: ten thousand hubs whose warehouse comes back must not knock in step.
        let mut wait = doubled.mul_f64(LEAST_SHARE + (1.0 - LEAST_SHARE) * self.rng.f64());
        if let Failure::Overload { asked } = failure {
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            let asked = asked.unwrap_or_default().min(LONGEST_ASKED_WAIT);
            wait = wait.max(asked.mul_f64(1.0 + PAST_ASKED * self.rng.f64()));
        }
        now.saturating_add(wait)
    }

    /// A batch was delivered at `now`.
    pub fn succeeded(&mut self, now: Duration) {
        self.attempts = 0;
        self.not_before = now.saturating_add(self.pause.mul_f64(0.5 + 0.5 * self.rng.f64()));
        // Halved with each success: the overload is over when batches go through at a calmer rhythm.
        self.pause = if self.pause < FIRST_PAUSE { Duration::ZERO } else { self.pause / 2 };
    }

    /// When the next batch may be cut: at once, but for a pause after an overload.
    pub fn next_batch_at(&self) -> Duration {
        self.not_before
    }

    /// The most rows to put into the next batch: `usual`, and more the longer the pauses, up to `most`.
    pub fn batch_limit(&self, usual: u64, most: u64) -> u64 {
        let factor = self.pause.as_secs().clamp(1, LONGEST_PAUSE.as_secs());
        usual.saturating_mul(factor).min(most).max(usual.min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestCaseError;

    /// Of 1,000 arrivals no second has more than `most`.
    fn in_no_step(arrivals: Vec<Duration>, most: u32) -> Result<(), TestCaseError> {
        let mut seconds = std::collections::BTreeMap::<u64, u32>::new();
        for arrival in arrivals {
            *seconds.entry(arrival.as_secs()).or_default() += 1;
        }
        prop_assert!(seconds.values().all(|count| *count <= most), "{:?}", seconds);
        Ok(())
    }

    fn any_failure() -> impl Strategy<Value = Failure> {
        prop_oneof![
            Just(Failure::Unavailable),
            Just(Failure::Slow),
            Just(Failure::Heavy),
            proptest::option::of(0u64..100_000)
                .prop_map(|asked| Failure::Overload { asked: asked.map(Duration::from_secs) }),
        ]
    }

    proptest! {
        #[test]
        fn every_wait_is_bounded_and_honours_what_was_asked(seed: u64, failures in proptest::collection::vec(any_failure(), 1..50)) {
            let mut retry = Retry::new(seed);
            let mut now = Duration::from_secs(5);
            for (nth, failure) in failures.into_iter().enumerate() {
                let wait = retry.failed(now, failure) - now;
                let full = FIRST_WAIT.saturating_mul(1 << nth.min(16)).min(LONGEST_WAIT);
                prop_assert!(wait >= full.mul_f64(LEAST_SHARE));
                match failure {
                    Failure::Overload { asked: Some(asked) } => {
                        let asked = asked.min(LONGEST_ASKED_WAIT);
                        prop_assert!(wait >= asked);
                        prop_assert!(wait <= asked.mul_f64(1.0 + PAST_ASKED).max(full));
                    }
                    Failure::Overload { asked: None } | Failure::Unavailable | Failure::Slow | Failure::Heavy => {
                        prop_assert!(wait <= full);
                    }
                }
                let limit = retry.batch_limit(1_000, 20_000);
                prop_assert!((1_000..=20_000).contains(&limit));
                now += wait;
            }
        }

        #[test]
        fn success_resets_the_wait_and_calms_down(seed: u64, overloads in 1usize..40) {
            let mut retry = Retry::new(seed);
            for _ in 0..overloads {
                retry.failed(Duration::ZERO, Failure::Overload { asked: None });
            }
            prop_assert!(retry.batch_limit(10, 20_000) >= 10);
            for _ in 0..8 {
                retry.succeeded(Duration::ZERO);
                prop_assert!(retry.next_batch_at() <= LONGEST_PAUSE);
            }
            prop_assert_eq!(retry.next_batch_at(), Duration::ZERO);
            prop_assert_eq!(retry.attempts(), 0);
            prop_assert!(retry.failed(Duration::ZERO, Failure::Unavailable) <= FIRST_WAIT);
        }

        #[test]
        fn a_thousand_hubs_that_come_back_at_once_do_not_arrive_in_step(outage_s in 5u64..40_000, seed: u64) {
            let down_until = Duration::from_secs(outage_s);
            let arrivals = (0..1_000).map(|hub| {
                // All lose the peer within one commit interval, and none can know when it is back.
                let mut retry = Retry::new(seed.wrapping_add(hub));
                let mut now = Duration::from_millis(4 * hub);
                while now < down_until {
                    now = retry.failed(now, Failure::Unavailable);
                }
                now - down_until
            });
            // While all is well 250 of them come in each second: one commit in four seconds each.
            let most = if outage_s < 30 { 400 } else { 120 };
            in_no_step(arrivals.collect(), most)?;
        }

        #[test]
        fn a_thousand_hubs_that_are_told_when_to_come_back_do_not_come_in_step(asked_s in 20u64..600, seed: u64) {
            let asked = Some(Duration::from_secs(asked_s));
            let told = |hub| Retry::new(seed.wrapping_add(hub)).failed(Duration::ZERO, Failure::Overload { asked });
            in_no_step((0..1_000).map(told).collect(), 180)?;
        }

        #[test]
        fn the_same_seed_waits_the_same(seed: u64) {
            let waits = |mut retry: Retry| (0..10).map(|_| retry.failed(Duration::ZERO, Failure::Unavailable)).collect::<Vec<_>>();
            prop_assert_eq!(waits(Retry::new(seed)), waits(Retry::new(seed)));
        }
    }
}
