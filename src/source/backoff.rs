//! PURE How long to wait before the next attempt: doubling, bounded, jittered.

use std::time::Duration;

/// The waits of one thing that is tried again and again.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from about `first`, doubling up to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Backoff { first, most, failures: 0 }
    }

    /// How many attempts failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and returns the wait before the next attempt. `random` lies in 0..1; the wait lies between half
    /// and all of the doubled one, so that a ward of hubs does not knock in step after a power cut.
    pub fn next_wait(&mut self, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// An attempt succeeded and lasted.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        assert_eq!(backoff.next_wait(1.0), Duration::from_millis(500));
        assert_eq!(backoff.next_wait(0.0), Duration::from_millis(500));
        for _ in 0..100 {
            assert!(backoff.next_wait(1.0) <= Duration::from_secs(30));
        }
        backoff.reset();
        assert_eq!(backoff.next_wait(0.0), Duration::from_millis(250));
    }
}
