//! PURE Whether the far end keeps up: how old the oldest unacknowledged event was, second by second.

use std::time::Duration;

/// With fewer samples nothing is said of growth.
const FEWEST: usize = 20;

/// Why the lag is not bounded; `None` where it is.
///
/// `samples`: its seconds while events came in. `most`: what it may have beyond a commit interval, which every event may wait
/// in its hub. `left`: events that were not acknowledged when the time for it was over.
/// A lag grows when its mean over the last quarter exceeds that over the second one by more than a commit interval: the
/// first quarter is the start's, and a hub's lag swings by that interval.
pub(super) fn unbounded(samples: &[f64], most: Duration, commit: Duration, left: u64) -> Option<String> {
    if left > 0 {
        return Some(format!("{left} events were not acknowledged within {} s after the last one", most.as_secs()));
    }
    let worst = samples[samples.len() / 2..].iter().copied().fold(0.0, f64::max);
    let most = most + commit;
    if worst > most.as_secs_f64() {
        return Some(format!("the oldest unacknowledged event was {worst:.1} s old, more than {} s", most.as_secs()));
    }
    let quarter = samples.len() / 4;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    if samples.len() >= FEWEST {
        let (early, late) = (mean(&samples[quarter..2 * quarter]), mean(&samples[samples.len() - quarter..]));
        if late > early + commit.as_secs_f64() {
            return Some(format!(
                "the lag grows: {early:.1} s on average in the second quarter, {late:.1} s in the last"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(30);
    const COMMIT: Duration = Duration::from_secs(4);

    fn said(samples: impl IntoIterator<Item = f64>, left: u64) -> String {
        let samples: Vec<f64> = samples.into_iter().collect();
        unbounded(&samples, MOST, COMMIT, left).unwrap_or_default()
    }

    #[test]
    fn a_lag_that_swings_with_the_commits_is_bounded_and_one_that_grows_is_not() {
        assert_eq!(said((0..60).map(|second| f64::from(second % 5)), 0), "");
        assert!(said((0..60).map(|second| f64::from(second) / 4.0), 0).contains("grows"));
        assert!(said((0..60).map(f64::from), 0).contains("59.0 s old, more than 34 s"));
        assert_eq!(said((0..60).map(|second| if second < 20 { 40.0 } else { 33.0 }), 0), "", "a start may be slow");
        assert!(said([1.0, 1.0], 5).starts_with("5 events were not acknowledged within 30 s"));
        assert_eq!(said([], 0), "");
    }
}
