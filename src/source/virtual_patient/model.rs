//! PURE A patient that is told the time and says what a sensor on her would measure.
//!
//! The same seed and times give the same values. The day has its rhythm (heart and temperature are lowest at about four
//! in the morning), a walk of a few minutes in most ten minutes of the day, now and then a measurement that failed or
//! went wrong, and once in an hour a sensor that says nothing for three minutes.

use std::f64::consts::TAU;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The step counter wraps like a small device's.
pub const STEPS_WRAP: u64 = 65_536;

/// A patient and what she has done so far.
#[derive(Debug, Clone)]
pub struct Patient {
    seed: u64,
    resting: f64,
    warmth: f64,
    /// How hard she works now, 0 to 1; follows rest and walk slowly, as a heart does.
    effort: f64,
    steps: f64,
    last_ms: Option<u64>,
}

/// What the sensor measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vitals {
    /// Beats a minute; `None` when the measurement failed.
    pub heart_rate: Option<u16>,
    /// Tenths of a degree Celsius.
    pub temperature_tenths: u16,
    /// The running total of the counter, below [`STEPS_WRAP`].
    pub steps: u64,
}

impl Patient {
    /// The patient of this seed.
    pub fn new(seed: u64) -> Self {
        let of = |what| unit(seed, what, 0);
        Patient {
            seed,
            resting: 55.0 + 20.0 * of(1),
            warmth: 36.4 + 0.5 * of(2),
            effort: 0.0,
            steps: (1_000.0 * of(3)).floor(),
            last_ms: None,
        }
    }

    /// What the sensor says at this time of her life; `None` while it says nothing. Times do not go back.
    pub fn at(&mut self, unix_ms: u64) -> Option<Vitals> {
        let passed_ms = unix_ms.saturating_sub(self.last_ms.unwrap_or(unix_ms));
        self.last_ms = Some(unix_ms);
        let walks = self.walks(unix_ms);
        let minutes = passed_ms as f64 / MINUTE_MS as f64;
        let goal = if walks { 0.7 + 0.3 * unit(self.seed, 5, unix_ms / (10 * MINUTE_MS)) } else { 0.0 };
        self.effort += (goal - self.effort) * (1.0 - (-minutes / 0.8).exp());
        if walks {
            self.steps += minutes * (95.0 + 20.0 * unit(self.seed, 6, unix_ms));
        }
        (!self.is_silent(unix_ms)).then(|| self.vitals(unix_ms))
    }

    fn vitals(&self, unix_ms: u64) -> Vitals {
        let day = (TAU * ((unix_ms % DAY_MS) as f64 / DAY_MS as f64 - 4.0 / 24.0)).cos();
        let noise = unit(self.seed, 7, unix_ms) - 0.5;
        let heart = self.resting - 6.0 * day + 60.0 * self.effort + 4.0 * noise;
        let artefact = unit(self.seed, 8, unix_ms);
        let heart_rate = match artefact {
            // The contact is lost.
            a if a < 0.02 => None,
            // Every beat is counted twice.
            a if a < 0.03 => Some(2.0 * heart),
            _ => Some(heart),
        };
        let temperature = self.warmth - 0.3 * day + 0.4 * self.effort + 0.1 * noise;
        Vitals {
            heart_rate: heart_rate.map(|heart| heart.round() as u16),
            temperature_tenths: (temperature * 10.0).round() as u16,
            steps: self.steps as u64 % STEPS_WRAP,
        }
    }

    /// By day, two to five minutes of most ten.
    fn walks(&self, unix_ms: u64) -> bool {
        let hour = unix_ms % DAY_MS / HOUR_MS;
        let (block, into) = (unix_ms / (10 * MINUTE_MS), unix_ms % (10 * MINUTE_MS));
        let (start, lasts) = (5.0 * unit(self.seed, 9, block), 2.0 + 3.0 * unit(self.seed, 10, block));
        let into = into as f64 / MINUTE_MS as f64;
        (7..22).contains(&hour) && unit(self.seed, 11, block) < 0.8 && (start..start + lasts).contains(&into)
    }

    /// Three minutes in each hour, at a time of its own.
    fn is_silent(&self, unix_ms: u64) -> bool {
        let start = (57.0 * unit(self.seed, 12, unix_ms / HOUR_MS) * MINUTE_MS as f64) as u64;
        (start..start + 3 * MINUTE_MS).contains(&(unix_ms % HOUR_MS))
    }
}

/// A number in 0..1 that depends on all three and on nothing else (the finalizer of splitmix64, twice).
fn unit(seed: u64, what: u64, when: u64) -> f64 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let mixed = mix(mix(seed.wrapping_add(what.wrapping_mul(0x9e37_79b9_7f4a_7c15))) ^ when);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day, one measurement a second.
    fn day(seed: u64) -> Vec<Option<Vitals>> {
        let mut patient = Patient::new(seed);
        (0..DAY_MS / 1_000).map(|second| patient.at(1_763_942_400_000 + second * 1_000)).collect()
    }

    #[test]
    fn the_same_seed_lives_the_same_day() {
        assert_eq!(day(7), day(7));
        assert_ne!(day(7), day(8));
    }

    #[test]
    fn a_day_has_rest_exercise_artefacts_and_dropouts() {
        for seed in 0..5 {
            let day = day(seed);
            let spoken: Vec<&Vitals> = day.iter().flatten().collect();
            let hearts: Vec<u16> = spoken.iter().filter_map(|vitals| vitals.heart_rate).collect();
            assert!(hearts.iter().all(|heart| (40..300).contains(heart)), "{seed}");
            assert!(hearts.iter().any(|heart| *heart < 75) && hearts.iter().any(|heart| *heart > 110), "{seed}");
            assert!(spoken.iter().all(|vitals| (355..385).contains(&vitals.temperature_tenths)), "{seed}");
            assert!(spoken.len() > hearts.len() && day.len() > spoken.len(), "{seed}");
            assert_eq!(day.len() - spoken.len(), 24 * 180, "{seed}: three minutes in each hour");
        }
    }

    #[test]
    fn steps_only_count_up_and_mostly_by_day() {
        let day = day(3);
        let steps: Vec<u64> = day.iter().flatten().map(|vitals| vitals.steps).collect();
        assert!(steps.is_sorted());
        assert!(steps.last() > Some(&5_000) && steps.last() < Some(&STEPS_WRAP));
    }
}
