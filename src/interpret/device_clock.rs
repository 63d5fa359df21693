//! Coincident time: a device told the time of its own clock, and the hub heard it at that instant. The times of its
//! stored records are counted back from there, so that it does not matter how wrong the clock is.
//!
//! ```text
//! device's clock   T ........ D        a record of T was made D - T before the instant
//! hub's uptime              at ms
//! ```
//!
//! A clock that is set between two such instants begins a new count. The one before is kept: records from before the
//! setting may still come.

use crate::observation::Counted;
use crate::reading::Heard;

/// Two instants that differ by more than this, and by more than a poor crystal drifts, were told by a clock that was set
/// between them.
const STEP_MS: u64 = 2_000;

/// A crystal that drifts more than one part in so many is broken: 200 ppm, 17 s a day.
const DRIFT: u64 = 5_000;

/// A record may seem so much newer than the moment at which it came: clocks tell whole seconds.
const ROUNDING_MS: i64 = 2_000;

/// What is known of a device's clock.
#[derive(Debug, Default)]
pub(super) struct DeviceClock {
    newest: Option<Count>,
    before: Option<Count>,
}

/// The time as one setting of the clock counts it.
#[derive(Debug, Clone, Copy)]
struct Count {
    /// What the clock told when this count was first seen.
    first_ms: i64,
    /// What it told last.
    device_ms: i64,
    /// When that was heard.
    heard: Heard,
}

impl DeviceClock {
    /// The device told its time, in milliseconds of its own count.
    pub(super) fn told(&mut self, device_ms: i64, heard: Heard) {
        let fresh = Count { first_ms: device_ms, device_ms, heard };
        self.newest = Some(match self.newest {
            Some(known) if known.goes_on_to(&fresh) => Count { first_ms: known.first_ms, ..fresh },
            known => {
                // A count of another boot cannot be related to this one's uptime.
                self.before = known.filter(|known| known.heard.boot == heard.boot);
                fresh
            }
        });
    }

    /// How long before an instant that the hub knows a record of this device was made. `None` where the device told no
    /// time, or none that the record's can be counted from.
    pub(super) fn count(&self, utc: bool, ms: i64, heard: Heard) -> Option<Counted> {
        let newest = self.newest.filter(|count| count.heard.boot == heard.boot)?;
        let is_of_newest = ms >= newest.first_ms.saturating_sub(ROUNDING_MS);
        let of = match self.before {
            Some(before) if !is_of_newest || !newest.has_come_to(ms, heard) => before,
            _ => newest,
        };
        let counted = Counted { utc, ms, at_ms: of.heard.ms, age_ms: of.device_ms.checked_sub(ms)? };
        of.has_come_to(ms, heard).then_some(counted)
    }
}

impl Count {
    /// Whether the same setting of the clock tells `later`.
    fn goes_on_to(&self, later: &Count) -> bool {
        let passed = later.heard.ms.saturating_sub(self.heard.ms);
        let told = later.device_ms.saturating_sub(self.device_ms);
        self.heard.boot == later.heard.boot
            && later.heard.ms >= self.heard.ms
            && told.abs_diff(passed.min(i64::MAX as u64) as i64) <= STEP_MS + passed / DRIFT
    }

    /// Whether the clock has shown `ms` by the moment `heard`.
    fn has_come_to(&self, ms: i64, heard: Heard) -> bool {
        let passed = (heard.ms as i64).saturating_sub(self.heard.ms as i64);
        ms <= self.device_ms.saturating_add(passed.max(0)).saturating_add(ROUNDING_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::BootId;
    use uuid::Uuid;

    const HOUR: i64 = 3_600_000;

    fn at(ms: u64) -> Heard {
        Heard { boot: BootId(Uuid::from_u128(1)), ms }
    }

    fn age(clock: &DeviceClock, ms: i64, heard: Heard) -> Option<(u64, i64)> {
        clock.count(false, ms, heard).map(|counted| (counted.at_ms, counted.age_ms))
    }

    #[test]
    fn a_record_is_counted_back_from_the_instant_at_which_the_device_told_its_time() {
        let mut clock = DeviceClock::default();
        assert_eq!(age(&clock, 5, at(9)), None, "a device that told no time");
        clock.told(10 * HOUR, at(50_000));
        assert_eq!(age(&clock, 7 * HOUR, at(51_000)), Some((50_000, 3 * HOUR)));
        assert_eq!(age(&clock, 10 * HOUR + 1_000, at(51_000)), Some((50_000, -1_000)), "measured a second later");
        assert_eq!(age(&clock, 11 * HOUR, at(51_000)), None, "by its own clock it is not yet so late");
        assert_eq!(age(&clock, 7 * HOUR, Heard { boot: BootId::WALL, ms: 51_000 }), None, "another boot's uptime");
        assert_eq!(age(&clock, i64::MIN, at(51_000)), None, "nothing overflows");
    }

    #[test]
    fn a_clock_that_is_set_counts_anew_and_older_records_stay_in_the_old_count() {
        let mut clock = DeviceClock::default();
        clock.told(HOUR, at(1_000));
        clock.told(100 * HOUR, at(2_000));
        assert_eq!(age(&clock, HOUR / 2, at(3_000)), Some((1_000, HOUR / 2)));
        assert_eq!(age(&clock, 100 * HOUR, at(3_000)), Some((2_000, 0)));
        clock.told(100 * HOUR + 10_000, at(12_000));
        assert_eq!(age(&clock, 100 * HOUR + 4_000, at(13_000)), Some((12_000, 6_000)), "the same count went on");
        assert_eq!(age(&clock, HOUR / 2, at(13_000)), Some((1_000, HOUR / 2)));
    }

    #[test]
    fn a_clock_that_was_ahead_and_is_set_back_keeps_both_counts() {
        let mut clock = DeviceClock::default();
        clock.told(200 * HOUR, at(1_000));
        clock.told(100 * HOUR, at(2_000));
        assert_eq!(age(&clock, 199 * HOUR, at(3_000)), Some((1_000, HOUR)));
        assert_eq!(age(&clock, 100 * HOUR + 500, at(3_000)), Some((2_000, -500)));
        assert_eq!(age(&clock, 98 * HOUR, at(3_000)), Some((1_000, 102 * HOUR)));
    }

    #[test]
    fn drift_is_no_setting() {
        let mut clock = DeviceClock::default();
        clock.told(0, at(0));
        let week = 7 * 24 * HOUR;
        clock.told(week + 60_000, at(week as u64));
        assert_eq!(age(&clock, week, at(week as u64)), Some((week as u64, 60_000)));
        assert!(clock.before.is_none());
    }
}
