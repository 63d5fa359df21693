//! PURE: what each second of a device was: measured, or the reason why not.
//!
//! A [`Watch`] follows one device through one process, in uptime: what it hears makes spans. When the clock is known,
//! spans become [`hours::Hours`], in wall time: the seconds of each hour by reason, 3,600 in all. An analyst tells by it
//! "no data" from "data lost" from "not worn".

pub mod hours;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a second was. Where several hold, the first of this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Second {
    /// A reading gave an event at most three of the device's own intervals earlier.
    Measured,
    /// The device said that nobody wears it.
    NotWorn,
    /// The line, the link or the broker was gone.
    OutOfReach,
    /// The gateway did not run, or did not have this device yet.
    HubOff,
    /// Nobody knew what time it was.
    ClockUnsure,
    /// Readings came and were set aside.
    Aside,
    /// It was measured, and the events were removed because the store was full, or lost to a damaged disk.
    Evicted,
    /// In reach, and nothing came.
    Silent,
}

impl Second {
    /// In their order.
    pub const ALL: [Second; 8] = [
        Second::Measured,
        Second::NotWorn,
        Second::OutOfReach,
        Second::HubOff,
        Second::ClockUnsure,
        Second::Aside,
        Second::Evicted,
        Second::Silent,
    ];

    /// The column of the table `coverage`.
    pub fn name(self) -> &'static str {
        match self {
            Second::Measured => "measured",
            Second::NotWorn => "not_worn",
            Second::OutOfReach => "out_of_reach",
            Second::HubOff => "hub_off",
            Second::ClockUnsure => "clock_unsure",
            Second::Aside => "aside",
            Second::Evicted => "evicted",
            Second::Silent => "silent",
        }
    }
}

/// Of each device the seconds of each [`Second`], in their order, over the last 24 hours.
pub type LastDay = BTreeMap<Arc<str>, [u64; 8]>;

/// The seconds that there were, by what they were.
pub fn by_name(seconds: &[u64; 8]) -> BTreeMap<&'static str, u64> {
    let all = Second::ALL.into_iter().map(Second::name).zip(*seconds);
    all.filter(|(_, seconds)| *seconds > 0).collect()
}

/// What a reading says of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It gave an event.
    Measured,
    /// It withheld its value because nobody wears the device.
    NotWorn,
    /// It was refused, or implausible.
    Aside,
}

/// A stretch of uptime, in milliseconds, that was the same all along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from_ms: u64,
    /// Its end, not in it.
    pub to_ms: u64,
    /// What it was.
    pub what: Second,
}

/// How many of its own intervals a reading speaks for.
const INTERVALS: u64 = 3;
/// The interval of a device that has not shown its own yet.
const UNKNOWN_INTERVAL_MS: u64 = 10_000;
/// Bounds of a learned interval: records that come in one burst are not measured every millisecond.
const INTERVALS_MS: std::ops::RangeInclusive<u64> = 1_000..=24 * 3_600_000;
/// A gap so many times in a row is the device's new interval.
const NEW_INTERVAL_AFTER: u8 = 3;
/// Spans kept while the clock is not known. Of more, the oldest two become one.
const MAX_SPANS: usize = 512;

/// Follows one device.
#[derive(Debug)]
pub struct Watch {
    /// Every millisecond before is in a span.
    upto_ms: u64,
    measured_at_ms: Option<u64>,
    measured_until_ms: u64,
    aside_until_ms: u64,
    not_worn: bool,
    in_reach: bool,
    interval_ms: Option<u64>,
    long_gaps: u8,
    spans: Vec<Span>,
}

impl Watch {
    /// A device that is expected from now on.
    pub fn new(now_ms: u64) -> Watch {
        Watch {
            upto_ms: now_ms,
            measured_at_ms: None,
            measured_until_ms: 0,
            aside_until_ms: 0,
            not_worn: false,
            in_reach: true,
            interval_ms: None,
            long_gaps: 0,
            spans: Vec::new(),
        }
    }

    /// A reading came.
    pub fn heard(&mut self, at_ms: u64, sign: Sign) {
        self.close(at_ms);
        match sign {
            Sign::Measured => {
                self.learn(at_ms);
                self.not_worn = false;
                self.measured_until_ms = self.measured_until_ms.max(at_ms + INTERVALS * self.interval_ms());
            }
            Sign::NotWorn => {
                self.not_worn = true;
                self.measured_until_ms = self.measured_until_ms.min(at_ms);
            }
            Sign::Aside => self.aside_until_ms = self.aside_until_ms.max(at_ms + INTERVALS * self.interval_ms()),
        }
    }

    /// Whether the device can be heard at all.
    pub fn reach(&mut self, now_ms: u64, in_reach: bool) {
        if in_reach != self.in_reach {
            self.close(now_ms);
            self.in_reach = in_reach;
        }
    }

    /// Everything up to now that was not taken yet, in order and without a hole.
    pub fn take(&mut self, now_ms: u64) -> Vec<Span> {
        self.close(now_ms);
        std::mem::take(&mut self.spans)
    }

    /// The device's own interval, as far as it is known.
    fn interval_ms(&self) -> u64 {
        self.interval_ms.unwrap_or(UNKNOWN_INTERVAL_MS)
    }

    fn learn(&mut self, at_ms: u64) {
        let gap = self.measured_at_ms.map(|before| at_ms.saturating_sub(before));
        self.measured_at_ms = self.measured_at_ms.max(Some(at_ms));
        let Some(gap) = gap.filter(|gap| *gap > 0) else { return };
        let bounded = |interval: u64| interval.clamp(*INTERVALS_MS.start(), *INTERVALS_MS.end());
        match self.interval_ms {
            Some(interval) if gap > INTERVALS * interval => {
                self.long_gaps += 1;
                if self.long_gaps >= NEW_INTERVAL_AFTER {
                    (self.interval_ms, self.long_gaps) = (Some(bounded(gap)), 0);
                }
            }
            Some(interval) => {
                (self.interval_ms, self.long_gaps) = (Some(bounded((interval * 7 + gap) / 8)), 0);
            }
            None => self.interval_ms = Some(bounded(gap)),
        }
    }

    /// Puts everything before `to_ms` into spans.
    fn close(&mut self, to_ms: u64) {
        while self.upto_ms < to_ms {
            let at = self.upto_ms;
            let (what, until) = if at < self.measured_until_ms {
                (Second::Measured, self.measured_until_ms)
            } else if self.not_worn {
                (Second::NotWorn, to_ms)
            } else if !self.in_reach {
                (Second::OutOfReach, to_ms)
            } else if at < self.aside_until_ms {
                (Second::Aside, self.aside_until_ms)
            } else {
                (Second::Silent, to_ms)
            };
            let span = Span { from_ms: at, to_ms: until.min(to_ms), what };
            self.upto_ms = span.to_ms;
            match self.spans.last_mut() {
                Some(last) if last.what == what => last.to_ms = span.to_ms,
                _ => self.spans.push(span),
            }
        }
        if self.spans.len() > MAX_SPANS {
            let second = self.spans.remove(1);
            self.spans[0].to_ms = second.to_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(watch: &mut Watch, now_ms: u64) -> Vec<(u64, Second)> {
        watch.take(now_ms).into_iter().map(|span| (span.to_ms - span.from_ms, span.what)).collect()
    }

    #[test]
    fn a_reading_speaks_for_three_of_the_devices_own_intervals() {
        let mut watch = Watch::new(0);
        (0..100).for_each(|n| watch.heard(n * 1_000, Sign::Measured));
        assert_eq!(shape(&mut watch, 110_000), [(102_000, Second::Measured), (8_000, Second::Silent)]);
        // From now on once a minute: three long gaps teach that.
        (3..20).for_each(|n| watch.heard(n * 60_000, Sign::Measured));
        let shape = shape(&mut watch, 20 * 60_000);
        assert_eq!(shape.last(), Some(&(15 * 60_000, Second::Measured)), "{shape:?}");
    }

    #[test]
    fn not_worn_ends_with_the_next_value_and_beats_out_of_reach() {
        let mut watch = Watch::new(0);
        watch.heard(1_000, Sign::Measured);
        watch.heard(2_000, Sign::NotWorn);
        watch.reach(5_000, false);
        watch.reach(6_000, true);
        watch.heard(9_000, Sign::Measured);
        assert_eq!(
            shape(&mut watch, 10_000),
            [(1_000, Second::Silent), (1_000, Second::Measured), (7_000, Second::NotWorn), (1_000, Second::Measured)]
        );
    }

    #[test]
    fn what_is_set_aside_is_not_silence() {
        let mut watch = Watch::new(0);
        watch.heard(0, Sign::Aside);
        watch.reach(40_000, false);
        assert_eq!(
            shape(&mut watch, 50_000),
            [(30_000, Second::Aside), (10_000, Second::Silent), (10_000, Second::OutOfReach)]
        );
    }

    proptest! {
        #[test]
        fn spans_have_no_hole_and_no_overlap(
            start in 0u64..10_000,
            steps in proptest::collection::vec((0u64..100_000, 0u8..7), 0..2_000),
        ) {
            let mut watch = Watch::new(start);
            let (mut now, mut taken) = (start, Vec::new());
            for (wait, what) in steps {
                now += wait;
                match what {
                    0..=1 => watch.heard(now, Sign::Measured),
                    2 => watch.heard(now, Sign::NotWorn),
                    3 => watch.heard(now, Sign::Aside),
                    4 => watch.reach(now, false),
                    5 => watch.reach(now, true),
                    _ => taken.extend(watch.take(now)),
                }
                prop_assert!(watch.spans.len() <= MAX_SPANS + 1);
            }
            taken.extend(watch.take(now));
            let mut upto = start;
            for span in taken {
                prop_assert_eq!(span.from_ms, upto);
                prop_assert!(span.to_ms > span.from_ms);
                upto = span.to_ms;
            }
            prop_assert_eq!(upto, now);
        }
    }
}
