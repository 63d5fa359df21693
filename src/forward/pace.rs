//! How many rows the next batch may have: small while it is live, larger while a queue drains quickly, smaller for a
//! peer that cannot take so much at once. Pure.

use std::time::Duration;

use super::BatchLimit;
use super::retry::Failure;

/// A try that takes less time is quick: the peer can take more at once.
const QUICK: Duration = Duration::from_secs(2);

/// A try that takes longer is slow: fewer rows come back with their answer before somebody loses patience.
const SLOW: Duration = Duration::from_secs(15);

/// No batch limit falls below this.
const FEWEST_ROWS: u64 = 256;

/// The size of one destination's batches.
///
/// While less waits than fits into one batch every batch leaves at once, as large as what waits, and the limit plays no
/// part. Each change takes effect with the next batch that is cut: one in hand stays as it is, so that every try of it
/// sends the same rows.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: BatchLimit,
    rows: u64,
    /// It had to shrink: from then on it grows in small steps.
    careful: bool,
    /// The batch in hand made it shrink: that it is refused again says nothing of a smaller one.
    judged: bool,
}

impl Pace {
    pub(crate) fn new(limit: BatchLimit) -> Pace {
        Pace { limit, rows: limit.usual_rows, careful: false, judged: false }
    }

    /// The most rows of the next batch. `overloaded` is what an overloaded peer is helped with: fewer and larger batches.
    pub(crate) fn rows(&self, overloaded: u64) -> u64 {
        if self.careful { self.rows } else { self.rows.max(overloaded).min(self.limit.most_rows.max(self.rows)) }
    }

    /// A batch was delivered in `took`, and so many events wait behind it.
    pub(crate) fn delivered(&mut self, took: Duration, waiting: u64) {
        let BatchLimit { usual_rows, most_rows, .. } = self.limit;
        if std::mem::take(&mut self.judged) {
            return;
        }
        if took >= SLOW {
            return self.shrink();
        }
        if waiting <= self.rows {
            // The queue is drained: the next one begins as this one did.
            self.rows = self.rows.min(usual_rows);
        } else if took < QUICK {
            let step = if self.careful { usual_rows / 8 } else { self.rows };
            self.rows = self.rows.saturating_add(step.max(1)).min(most_rows.max(usual_rows));
            self.careful &= self.rows < usual_rows;
        }
    }

    /// A try failed.
    pub(crate) fn failed(&mut self, failure: Failure) {
        match failure {
            Failure::Heavy | Failure::Slow if !self.judged => {
                self.shrink();
                self.judged = true;
            }
            Failure::Heavy | Failure::Slow | Failure::Unavailable | Failure::Overload { .. } => {}
        }
    }

    fn shrink(&mut self) {
        self.rows = (self.rows / 2).max(FEWEST_ROWS.min(self.limit.usual_rows));
        self.careful = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: BatchLimit = BatchLimit { usual_rows: 8_192, most_rows: 20_000, bytes: 4 << 20 };
    const MOMENT: Duration = Duration::from_millis(100);

    #[test]
    fn a_queue_that_drains_quickly_goes_in_larger_batches_and_a_live_one_in_small() {
        let mut pace = Pace::new(LIMIT);
        let mut waiting: u64 = 100_000;
        let mut batches = Vec::new();
        while waiting > 0 {
            let batch = pace.rows(0).min(waiting);
            waiting -= batch;
            batches.push(batch);
            pace.delivered(MOMENT, waiting);
        }
        assert_eq!(batches[..3], [8_192, 16_384, 20_000]);
        assert_eq!(pace.rows(0), 8_192, "the next queue begins as this one did");
        let mut slow = Pace::new(LIMIT);
        slow.delivered(QUICK, 1_000_000);
        assert_eq!(slow.rows(0), 8_192, "a peer that needs its time is not given more");
        slow.delivered(SLOW, 1_000_000);
        assert_eq!(slow.rows(0), 4_096);
    }

    #[test]
    fn too_much_at_once_shrinks_and_too_many_parts_grows() {
        let mut pace = Pace::new(LIMIT);
        assert_eq!(pace.rows(20_000), 20_000, "an overload asks for larger batches");
        pace.failed(Failure::Overload { asked: None });
        assert_eq!(pace.rows(0), 8_192);
        pace.failed(Failure::Heavy);
        pace.failed(Failure::Slow);
        assert_eq!(pace.rows(0), 4_096, "the batch in hand is as large as it was");
        pace.delivered(MOMENT, 1_000_000);
        pace.failed(Failure::Slow);
        pace.delivered(SLOW, 1_000_000);
        assert_eq!(pace.rows(20_000), 2_048, "what cannot take so much is not given more for being busy");
        pace.delivered(MOMENT, 1_000_000);
        assert_eq!(pace.rows(0), 3_072, "and grows in small steps");
        for _ in 0..5 {
            pace.delivered(MOMENT, 1_000_000);
        }
        assert_eq!(pace.rows(0), 8_192);
        pace.delivered(MOMENT, 1_000_000);
        assert_eq!(pace.rows(0), 16_384, "until it is as large as usual");
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            events in proptest::collection::vec((0u8..5, 0u64..40, 0u64..100_000), 0..200),
            usual in 1u64..10_000,
            more in 0u64..20_000,
        ) {
            let limit = BatchLimit { usual_rows: usual, most_rows: usual + more, bytes: 1 };
            let mut pace = Pace::new(limit);
            for (kind, seconds, waiting) in events {
                match kind {
                    0 => pace.failed(Failure::Heavy),
                    1 => pace.failed(Failure::Slow),
                    2 => pace.failed(Failure::Unavailable),
                    _ => pace.delivered(Duration::from_secs(seconds), waiting),
                }
                for overloaded in [0, usual, usual + more] {
                    let rows = pace.rows(overloaded);
                    prop_assert!(rows >= FEWEST_ROWS.min(usual) && rows <= usual + more);
                }
            }
        }
    }
}
