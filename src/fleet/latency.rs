//! PURE How long batches took, as percentiles.

use std::time::Duration;

use serde::Serialize;

/// More than these are not kept; a run that has so many says enough by them.
const MOST: usize = 1_000_000;

/// Times of batches in microseconds.
#[derive(Debug, Default)]
pub(super) struct Latencies(Vec<u32>);

/// Nearest ranks, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 95 of 100.
    pub p95_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// The longest.
    pub longest_ms: f64,
}

impl Latencies {
    pub(super) fn add(&mut self, took: Duration) {
        if self.0.len() < MOST {
            self.0.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// Of those since the `from`-th.
    pub(super) fn percentiles(&self, from: usize) -> Percentiles {
        let mut sorted = self.0[from.min(self.0.len())..].to_vec();
        sorted.sort_unstable();
        let rank = |share: f64| {
            let nth = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(nth.saturating_sub(1)).map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
        };
        Percentiles { p50_ms: rank(0.5), p95_ms: rank(0.95), p99_ms: rank(0.99), longest_ms: rank(1.0) }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles(0), Percentiles::default());
        (1..=100).rev().for_each(|ms| latencies.add(Duration::from_millis(ms)));
        let all = Percentiles { p50_ms: 50.0, p95_ms: 95.0, p99_ms: 99.0, longest_ms: 100.0 };
        assert_eq!(latencies.percentiles(0), all);
        assert_eq!(latencies.percentiles(99).longest_ms, 1.0, "only the last");
    }
}
