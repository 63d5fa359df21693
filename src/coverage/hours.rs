//! A device's hours in wall time, as they go into the table `coverage`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Second;

/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 3_600_000;
/// Seconds of an hour.
const HOUR_S: u64 = 3_600;
/// A gateway that was off for longer says so for this long only.
const LONGEST_OFF_MS: i64 = 90 * 24 * HOUR_MS;
/// Hours kept of one device: 90 days, as events are.
const MAX_HOURS: usize = 90 * 24;

/// The hours of one device that may still change, and up to when all is said.
#[derive(Debug, Clone, Default)]
pub struct Hours {
    /// Unix milliseconds before which every one is attributed; 0 at first.
    upto_ms: i64,
    /// Whether `upto_ms` was only an estimate.
    estimated: bool,
    /// By the hour's beginning, in hours since the epoch.
    hours: BTreeMap<i64, Hour>,
    /// Days since the epoch whose hours changed since they were last kept.
    changed: BTreeSet<i64>,
}

/// What is kept of one day, so that a change of today writes nothing of the weeks before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    upto_ms: i64,
    estimated: bool,
    hours: BTreeMap<i64, Hour>,
}

/// One hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Hour {
    /// Milliseconds of each [`Second`], in their order.
    ms: [u64; 8],
    /// How often it changed after it was complete.
    version: u64,
    /// The version that was last said, plus one.
    said: u64,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The hour's beginning, Unix milliseconds.
    pub hour_ms: i64,
    /// Seconds of each [`Second`] in their order; 3,600 in all.
    pub seconds: [u16; 8],
    /// Grows with each correction.
    pub version: u64,
}

impl Hours {
    /// Takes up what was kept.
    pub fn restore(&mut self, day: Day) {
        if day.upto_ms > self.upto_ms {
            (self.upto_ms, self.estimated) = (day.upto_ms, day.estimated);
        }
        self.hours.extend(day.hours);
    }

    /// The days, since the epoch, that have to be kept anew; `None`: nothing is left of it.
    pub fn take_changed(&mut self) -> Vec<(i64, Option<Day>)> {
        let changed = std::mem::take(&mut self.changed);
        let day = |day: i64| {
            let hours = self.hours.range(day * 24..(day + 1) * 24).map(|(hour, of)| (*hour, of.clone())).collect();
            Day { upto_ms: self.upto_ms, estimated: self.estimated, hours }
        };
        let newest = self.upto_ms.div_euclid(24 * HOUR_MS);
        changed
            .into_iter()
            .map(|of| (of, Some(day(of)).filter(|kept| !kept.hours.is_empty() || of == newest)))
            .collect()
    }

    /// Up to when all is attributed, Unix milliseconds; `None` at first.
    pub fn upto_ms(&self) -> Option<i64> {
        (self.upto_ms > 0).then_some(self.upto_ms)
    }

    /// A stretch of time. What was attributed before stays, so that a clock that is set back counts nothing twice; but a
    /// clock that is known corrects one that was guessed.
    pub fn add(&mut self, from_ms: i64, to_ms: i64, what: Second, synced: bool) {
        if synced && self.estimated && self.upto_ms > to_ms {
            self.retain(|hour, of| hour <= from_ms.div_euclid(HOUR_MS) || of.said > 0);
            self.upto_ms = from_ms;
        }
        let what = match (what, synced) {
            (Second::Aside | Second::Silent, false) => Second::ClockUnsure,
            (what, _) => what,
        };
        let mut at = from_ms.max(self.upto_ms);
        while at < to_ms {
            let hour = at.div_euclid(HOUR_MS);
            let end = to_ms.min((hour + 1) * HOUR_MS);
            let of = self.hours.entry(hour).or_default();
            of.ms[what as usize] += (end - at) as u64;
            of.version += u64::from(of.said > 0);
            self.changed.insert(hour.div_euclid(24));
            at = end;
        }
        if to_ms > self.upto_ms {
            (self.upto_ms, self.estimated) = (to_ms, !synced);
        }
        while self.hours.len() > MAX_HOURS
            && let Some((hour, _)) = self.hours.pop_first()
        {
            self.changed.insert(hour.div_euclid(24));
        }
    }

    /// The gateway was off from when all is attributed until now.
    pub fn was_off(&mut self, until_ms: i64, synced: bool) {
        if let Some(upto) = self.upto_ms() {
            self.add(upto.max(until_ms - LONGEST_OFF_MS), until_ms, Second::HubOff, synced);
        }
    }

    /// Events of this time left without being delivered.
    pub fn evicted(&mut self, from_ms: i64, to_ms: i64) {
        let (first, last) = (from_ms.div_euclid(HOUR_MS), to_ms.div_euclid(HOUR_MS));
        if first > last {
            return;
        }
        for (hour, of) in self.hours.range_mut(first..=last) {
            let (begin, end) = (hour * HOUR_MS, (hour + 1) * HOUR_MS);
            let overlap = (to_ms.min(end) - from_ms.max(begin)).max(1_000) as u64;
            let moved = of.ms[Second::Measured as usize].min(overlap);
            of.ms[Second::Measured as usize] -= moved;
            of.ms[Second::Evicted as usize] += moved;
            of.version += u64::from(of.said > 0 && moved > 0);
            self.changed.insert(hour.div_euclid(24));
        }
    }

    /// The rows of complete hours that were not said as they are now; from here on they count as said.
    pub fn due(&mut self) -> Vec<Row> {
        let complete = self.upto_ms.div_euclid(HOUR_MS);
        let mut rows = Vec::new();
        for (hour, of) in self.hours.range_mut(..complete) {
            if of.said <= of.version {
                of.said = of.version + 1;
                self.changed.insert(hour.div_euclid(24));
                rows.push(Row { hour_ms: hour * HOUR_MS, seconds: of.seconds(), version: of.version + 1 });
            }
        }
        rows
    }

    /// Seconds of each [`Second`] in the 24 hours before all that is attributed, the hour that runs included.
    pub fn last_day(&self) -> [u64; 8] {
        let newest = self.upto_ms.div_euclid(HOUR_MS);
        let mut ms = [0; 8];
        for (_, of) in self.hours.range(newest - 23..=newest) {
            ms.iter_mut().zip(of.ms).for_each(|(sum, ms)| *sum += ms);
        }
        ms.map(|ms| ms / 1_000)
    }

    /// Drops the hours that were said and end before this: nothing of theirs can still be evicted.
    pub fn forget_before(&mut self, unix_ms: i64) {
        let shown = self.upto_ms.div_euclid(HOUR_MS) - 23;
        self.retain(|hour, of| of.said <= of.version || hour >= shown || (hour + 1) * HOUR_MS > unix_ms);
    }

    fn retain(&mut self, keep: impl Fn(i64, &Hour) -> bool) {
        let changed = &mut self.changed;
        self.hours.retain(|hour, of| {
            let kept = keep(*hour, of);
            if !kept {
                changed.insert(hour.div_euclid(24));
            }
            kept
        });
    }
}

impl Hour {
    /// Whole seconds that sum to the hour's, by largest remainder. What is missing nobody listened for.
    fn seconds(&self) -> [u16; 8] {
        let mut ms = self.ms;
        let known: u64 = ms.iter().sum();
        ms[Second::HubOff as usize] += (HOUR_MS as u64).saturating_sub(known);
        let total: u64 = ms.iter().sum();
        let mut seconds = ms.map(|ms| (ms * HOUR_S / total) as u16);
        let mut by_remainder: Vec<usize> = (0..ms.len()).collect();
        by_remainder.sort_by_key(|at| std::cmp::Reverse(ms[*at] * HOUR_S % total));
        let missing = HOUR_S - seconds.iter().map(|seconds| u64::from(*seconds)).sum::<u64>();
        by_remainder.into_iter().take(missing as usize).for_each(|at| seconds[at] += 1);
        seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: i64 = 490_000 * HOUR_MS;

    fn of(row: &Row, what: Second) -> u16 {
        row.seconds[what as usize]
    }

    #[test]
    fn an_hour_is_said_once_complete_and_again_when_something_of_it_is_evicted() {
        let mut hours = Hours::default();
        hours.add(START, START + 3_000_000, Second::Measured, true);
        assert_eq!(hours.due(), []);
        hours.add(START + 3_000_000, START + HOUR_MS, Second::NotWorn, true);
        let said = hours.due();
        assert_eq!((of(&said[0], Second::Measured), of(&said[0], Second::NotWorn)), (3_000, 600));
        assert_eq!(hours.due(), []);
        hours.evicted(START + 60_000, START + 120_000);
        let again = hours.due();
        assert_eq!((of(&again[0], Second::Measured), of(&again[0], Second::Evicted)), (2_940, 60));
        assert!(again[0].version > said[0].version);
        assert_eq!(hours.last_day()[Second::Measured as usize], 2_940);
        hours.add(START + HOUR_MS, START + 30 * HOUR_MS, Second::Silent, true);
        hours.due();
        hours.forget_before(START + 40 * HOUR_MS);
        assert_eq!(hours.hours.first_key_value().map(|(hour, _)| hour * HOUR_MS), Some(START + 7 * HOUR_MS));
    }

    #[test]
    fn a_gateway_that_was_off_says_so_and_a_first_hour_too() {
        let mut hours = Hours::default();
        hours.was_off(START, true);
        assert_eq!(hours.hours.len(), 0, "nothing is known of before");
        hours.add(START + HOUR_MS / 2, START + HOUR_MS / 2 + 60_000, Second::Measured, true);
        hours.was_off(START + 3 * HOUR_MS, true);
        let rows = hours.due();
        assert_eq!(rows.iter().map(|row| of(row, Second::HubOff)).collect::<Vec<_>>(), [3_540, 3_600, 3_600]);
    }

    #[test]
    fn a_clock_that_is_known_corrects_one_that_was_guessed() {
        let mut hours = Hours::default();
        let wrong = START + 1_000 * HOUR_MS;
        hours.add(wrong, wrong + 60_000, Second::Silent, false);
        hours.add(START, START + HOUR_MS, Second::Measured, true);
        let rows = hours.due();
        assert_eq!((rows.len(), of(&rows[0], Second::Measured)), (1, 3_600));
        hours.add(START + HOUR_MS, START + HOUR_MS + 60_000, Second::Silent, false);
        hours.add(START + HOUR_MS + 60_000, START + 2 * HOUR_MS, Second::Measured, true);
        assert_eq!(of(&hours.due()[0], Second::ClockUnsure), 60);
    }

    #[test]
    fn a_clock_that_is_set_back_counts_nothing_twice() {
        let mut hours = Hours::default();
        hours.add(START, START + 1_800_000, Second::Measured, true);
        hours.add(START + 900_000, START + HOUR_MS, Second::Measured, true);
        assert_eq!(of(&hours.due()[0], Second::Measured), 3_600);
    }

    #[test]
    fn what_is_kept_day_by_day_comes_back() {
        let mut hours = Hours::default();
        hours.add(START, START + 100 * HOUR_MS, Second::Measured, true);
        let kept: BTreeMap<i64, Option<Day>> = hours.take_changed().into_iter().collect();
        hours.add(START + 100 * HOUR_MS, START + 100 * HOUR_MS + 5, Second::Measured, true);
        assert_eq!(hours.take_changed().len(), 1, "of five days only the newest changed");
        let mut back = Hours::default();
        kept.into_values().flatten().for_each(|day| back.restore(day));
        assert_eq!((back.upto_ms(), back.hours.len()), (Some(START + 100 * HOUR_MS), 100));
        back.due();
        back.forget_before(START + 200 * HOUR_MS);
        let gone = back.take_changed().into_iter().filter(|(_, day)| day.is_none()).count();
        assert_eq!((back.hours.len(), gone), (23, 3), "what is shown stays");
    }

    proptest! {
        #[test]
        fn every_hour_sums_to_3600(
            spans in proptest::collection::vec((0i64..4_000_000, 0usize..8, any::<bool>(), -100_000i64..100_000), 1..60),
            evictions in proptest::collection::vec((0i64..200_000_000, 0i64..10_000_000), 0..5),
        ) {
            let mut hours = Hours::default();
            let mut at = START;
            for (long, what, synced, step) in spans {
                hours.add(at, at + long, Second::ALL[what], synced);
                at += long + step;
            }
            for (from, long) in evictions {
                hours.evicted(START + from, START + from + long);
            }
            for row in hours.due() {
                prop_assert_eq!(row.seconds.iter().map(|seconds| u32::from(*seconds)).sum::<u32>(), 3_600);
            }
            prop_assert_eq!(hours.due(), vec![]);
        }
    }
}
