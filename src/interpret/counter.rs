//! Running totals to increments.

/// What a total adds to the one before. The first total adds nothing that could be known.
///
/// A fall from the top eighth to the bottom eighth of the range is a wrap; any other fall is a restart, after which the
/// device counted from 0.
pub(super) fn increment(before: f64, total: f64, wraps_at: Option<f64>) -> f64 {
    if total >= before {
        return total - before;
    }
    match wraps_at {
        Some(range) if before >= range * 7.0 / 8.0 && before < range && total < range / 8.0 => total + range - before,
        _ => total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn totals_count_on_wrap_and_restart() {
        let range = Some(65_536.0);
        assert_eq!(increment(1_042.0, 1_050.0, range), 8.0);
        assert_eq!(increment(65_530.0, 4.0, range), 10.0);
        assert_eq!(increment(1_042.0, 3.0, range), 3.0);
        assert_eq!(increment(65_530.0, 4.0, None), 4.0);
        assert_eq!(increment(57_344.0, 8_191.0, range), 16_383.0);
        assert_eq!(increment(57_343.0, 8_191.0, range), 8_191.0);
        assert_eq!(increment(57_344.0, 8_192.0, range), 8_192.0);
    }

    proptest! {
        /// A counter of 16 bits that is read at least once in 8,192 steps loses and invents none.
        #[test]
        fn increments_add_up_to_the_steps_made(strides in proptest::collection::vec(0u32..8_192, 1..64), start in 0u32..65_536) {
            let (mut steps, mut sum) = (start, 0.0);
            for stride in &strides {
                let before = f64::from(steps % 65_536);
                steps += stride;
                sum += increment(before, f64::from(steps % 65_536), Some(65_536.0));
            }
            prop_assert_eq!(sum, f64::from(strides.iter().sum::<u32>()));
        }
    }
}
