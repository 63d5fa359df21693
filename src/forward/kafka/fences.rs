//! Who else uses this hub's name? A transactional id belongs to its newest user; the older one is fenced off. Pure.
//!
//! Once is a restart: the process that was left over loses. Twice within minutes are two hubs that take it from each
//! other in turn, as two do whose card was copied. Then this one says so and tries ever more seldom, so that the other
//! can work and a technician has something to read.

use std::time::Duration;

use super::client::TRANSACTION_TIMEOUT;

/// Fenced again within this is more than a restart.
const SOON: Duration = Duration::from_secs(600);
/// The first wait once it is certain.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Times are durations since any fixed instant.
#[derive(Debug, Default)]
pub(super) struct Fences {
    last: Option<Duration>,
    /// In a row.
    count: u32,
    not_before: Duration,
}

/// What a fence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Our own transaction was open for too long, and the brokers ended it.
    TooSlow,
    /// Another process has the name now; it may be one that is just going.
    Taken,
    /// Another hub has the name for good.
    Shared,
}

impl Fences {
    /// Fenced at `now`, in a transaction that was open for so long.
    pub(super) fn fenced(&mut self, now: Duration, open: Duration) -> Meaning {
        if open + Duration::from_secs(1) >= TRANSACTION_TIMEOUT {
            return Meaning::TooSlow;
        }
        let again = self.last.is_some_and(|last| now < last + SOON.max(self.wait() * 2));
        self.count = if again { self.count + 1 } else { 1 };
        self.last = Some(now);
        if self.count < 2 {
            return Meaning::Taken;
        }
        self.not_before = now + self.wait();
        Meaning::Shared
    }

    /// When the name may be taken back.
    pub(super) fn not_before(&self) -> Duration {
        self.not_before
    }

    fn wait(&self) -> Duration {
        let doublings = self.count.saturating_sub(2).min(8);
        FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_restart_fences_once_and_a_copied_card_again_and_again() {
        let mut fences = Fences::default();
        assert_eq!(fences.fenced(seconds(100), seconds(1)), Meaning::Taken);
        assert_eq!(fences.not_before(), Duration::ZERO);
        assert_eq!(fences.fenced(seconds(110), seconds(0)), Meaning::Shared);
        assert_eq!(fences.not_before(), seconds(140));
        let mut now = seconds(150);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(fences.fenced(now, seconds(0)), Meaning::Shared);
            waits.push((fences.not_before() - now).as_secs());
            now = fences.not_before() + seconds(5);
        }
        assert_eq!(waits, [60, 120, 240, 480, 600, 600, 600, 600]);
    }

    #[test]
    fn fences_long_apart_are_restarts() {
        let mut fences = Fences::default();
        for day in 1..5 {
            assert_eq!(fences.fenced(seconds(day * 86_400), seconds(2)), Meaning::Taken);
        }
    }

    #[test]
    fn a_transaction_that_was_open_too_long_accuses_nobody() {
        let mut fences = Fences::default();
        assert_eq!(fences.fenced(seconds(5), seconds(11)), Meaning::TooSlow);
        assert_eq!(fences.fenced(seconds(30), seconds(9)), Meaning::TooSlow);
        assert_eq!(fences.fenced(seconds(40), seconds(1)), Meaning::Taken);
    }
}
