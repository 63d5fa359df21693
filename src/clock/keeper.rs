//! When to write an anchor, and how long to wait for a trustworthy clock. Pure: told samples, never asks.

use std::time::Duration;

use serde::Deserialize;

use super::{Anchor, Anchors};
use crate::reading::BootId;

/// A wall clock that moved by more than this against uptime was stepped. NTP slews both alike.
const STEP_MS: i64 = 100;

/// A hub that is synchronised for months writes down how late it is so often: after a power cut no estimate lies further
/// back.
const FLOOR_EVERY_MS: i64 = 3_600_000;

/// How far the wall clock is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Only while the kernel says that it is synchronised.
    #[default]
    Kernel,
    /// A battery clock keeps it: an estimate at once.
    Rtc,
    /// It is taken as it is.
    Always,
}

/// How long cutting waits for a synchronised clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// At most this long after the start; then times are estimates.
    AtMost(Duration),
    /// Until it is synchronised.
    Forever,
}

/// The `[clock]` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How far the wall clock is believed.
    pub trust: Trust,
    /// How long cutting waits.
    pub max_hold: Hold,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { trust: Trust::Kernel, max_hold: Hold::AtMost(Duration::from_secs(600)) }
    }
}

/// The two clocks at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// CLOCK_BOOTTIME in milliseconds.
    pub uptime_ms: u64,
    /// CLOCK_REALTIME in Unix milliseconds.
    pub wall_ms: i64,
    /// Whether the kernel says that it is synchronised.
    pub synchronised: bool,
}

/// Whether rows may be rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Yes.
    No,
    /// The clock is not known yet; it waits at most so many milliseconds more, or (`None`) as long as it takes.
    WaitingForTheClock(Option<u64>),
}

/// Decides about anchors and the hold of one boot.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    boot: BootId,
    started_ms: u64,
    last: Option<Anchor>,
    was_synced: bool,
    floor_ms: i64,
}

impl Keeper {
    /// A keeper for a process that starts now and finds these anchors in its store. The hold of a boot is counted from its
    /// first anchor: a process that starts again and again does not wait for ever.
    pub fn new(settings: Settings, boot: BootId, uptime_ms: u64, known: &Anchors) -> Self {
        Keeper {
            settings,
            boot,
            started_ms: known.first(boot).map_or(uptime_ms, |first| first.from_ms.min(uptime_ms)),
            last: known.newest(boot).copied(),
            was_synced: known.is_synced(boot),
            floor_ms: known.floor_ms(),
        }
    }

    /// The floor to write down for this sample, if it lies an hour above the last one.
    pub fn floor(&mut self, sample: Sample) -> Option<i64> {
        let due = sample.synchronised && sample.wall_ms.saturating_sub(self.floor_ms) >= FLOOR_EVERY_MS;
        if !due {
            return None;
        }
        self.floor_ms = sample.wall_ms;
        Some(sample.wall_ms)
    }

    /// The anchor to append for this sample, if it tells something new: the first, a sync, or a step.
    pub fn observe(&mut self, sample: Sample) -> Option<Anchor> {
        let synced = sample.synchronised || self.settings.trust == Trust::Always;
        let offset_ms = sample.wall_ms.saturating_sub(sample.uptime_ms as i64);
        let anchor = Anchor { boot: self.boot, from_ms: sample.uptime_ms, offset_ms, synced };
        let news = match self.last {
            None => true,
            Some(last) => {
                let stepped = last.offset_ms.abs_diff(offset_ms) > STEP_MS as u64;
                // A step while the kernel no longer vouches for the clock says nothing about a boot that has been synchronised.
                (synced && !last.synced) || (stepped && (synced || !self.was_synced))
            }
        };
        if !news {
            return None;
        }
        self.was_synced |= synced;
        if synced {
            self.floor_ms = self.floor_ms.max(sample.wall_ms);
        }
        self.last = Some(anchor);
        Some(anchor)
    }

    /// Whether rows may be rendered now.
    pub fn held(&self, uptime_ms: u64) -> Held {
        if self.was_synced || self.settings.trust != Trust::Kernel {
            return Held::No;
        }
        match self.settings.max_hold {
            Hold::Forever => Held::WaitingForTheClock(None),
            Hold::AtMost(longest) => {
                let waited = uptime_ms.saturating_sub(self.started_ms);
                match (longest.as_millis() as u64).saturating_sub(waited) {
                    0 => Held::No,
                    left => Held::WaitingForTheClock(Some(left)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ClockQuality;
    use crate::reading::Heard;
    use uuid::Uuid;

    const BOOT: BootId = BootId(Uuid::from_u128(1));

    fn sample(uptime_ms: u64, wall_ms: i64, synchronised: bool) -> Sample {
        Sample { uptime_ms, wall_ms, synchronised }
    }

    #[test]
    fn a_sync_speaks_for_the_whole_boot_and_opens_the_gate() {
        let mut keeper = Keeper::new(Settings::default(), BOOT, 1_000, &Anchors::default());
        let mut anchors = Anchors::new(0);
        anchors.append(keeper.observe(sample(1_000, 500_000, false)).unwrap());
        assert_eq!(keeper.held(1_000), Held::WaitingForTheClock(Some(600_000)));
        assert_eq!(keeper.observe(sample(2_000, 501_000, false)), None, "nothing new");
        anchors.append(keeper.observe(sample(3_000, 9_000_000, true)).unwrap());
        assert_eq!(keeper.held(3_000), Held::No);
        let early = Heard { boot: BOOT, ms: 1_500 };
        assert_eq!(
            anchors.unix_ms(1, early),
            (500_500, ClockQuality::Estimated),
            "as a range cut before the sync saw it"
        );
        assert_eq!(anchors.unix_ms(2, early), (8_998_500, ClockQuality::Synced));
    }

    #[test]
    fn a_hold_ends_and_the_estimate_is_never_below_the_floor() {
        let mut keeper = Keeper::new(Settings::default(), BOOT, 0, &Anchors::default());
        let mut anchors = Anchors::new(1_000_000_000);
        anchors.append(keeper.observe(sample(10, 20, false)).unwrap());
        assert_eq!(keeper.held(600_000), Held::No);
        assert_eq!(anchors.unix_ms(1, Heard { boot: BOOT, ms: 15 }), (1_000_000_005, ClockQuality::Estimated));
    }

    #[test]
    fn a_step_by_years_makes_an_anchor_and_moves_nothing_that_was_heard_before() {
        let settings = Settings { trust: Trust::Always, ..Settings::default() };
        let mut keeper = Keeper::new(settings, BOOT, 0, &Anchors::default());
        let mut anchors = Anchors::new(0);
        anchors.append(keeper.observe(sample(0, 1_000, false)).unwrap());
        anchors.append(keeper.observe(sample(100, 1_000_000_000_000, false)).unwrap());
        assert_eq!(anchors.unix_ms(2, Heard { boot: BOOT, ms: 50 }).0, 1_050);
        assert_eq!(anchors.unix_ms(2, Heard { boot: BOOT, ms: 150 }).0, 1_000_000_000_050);
        assert_eq!(keeper.observe(sample(200, 1_000_000_000_100, false)), None);
    }

    #[test]
    fn a_synchronised_hub_raises_the_floor_every_hour() {
        let mut keeper = Keeper::new(Settings::default(), BOOT, 0, &Anchors::new(5));
        assert_eq!(keeper.floor(sample(0, 9 * FLOOR_EVERY_MS, false)), None, "a clock that nobody vouches for");
        keeper.observe(sample(10, FLOOR_EVERY_MS, true)).unwrap();
        assert_eq!(keeper.floor(sample(20, FLOOR_EVERY_MS + 10, true)), None);
        assert_eq!(keeper.floor(sample(30, 2 * FLOOR_EVERY_MS, true)), Some(2 * FLOOR_EVERY_MS));
        assert_eq!(keeper.floor(sample(40, 2 * FLOOR_EVERY_MS + 10, true)), None);
    }

    #[test]
    fn the_hold_of_a_boot_is_one_whole_however_often_the_process_starts() {
        let mut anchors = Anchors::new(0);
        let mut keeper = Keeper::new(Settings::default(), BOOT, 100_000, &anchors);
        anchors.append(keeper.observe(sample(100_000, 7, false)).unwrap());
        let again = Keeper::new(Settings::default(), BOOT, 500_000, &anchors);
        assert_eq!(again.held(500_000), Held::WaitingForTheClock(Some(200_000)));
        assert_eq!(again.held(700_000), Held::No);
    }

    #[test]
    fn a_boot_that_nobody_remembers_has_no_time() {
        let mut anchors = Anchors::new(7);
        anchors.append(Anchor { boot: BOOT, from_ms: 0, offset_ms: 1_000, synced: true });
        anchors.forget_boots_except(|_| false);
        assert_eq!(anchors.known_ms(1, Heard { boot: BOOT, ms: 5 }), None);
        assert_eq!(anchors.version(), 1, "numbers go on");
        anchors.append(Anchor { boot: BOOT, from_ms: 10, offset_ms: 2_000, synced: true });
        assert_eq!(anchors.known_ms(2, Heard { boot: BOOT, ms: 15 }), Some((2_015, ClockQuality::Synced)));
    }
}
