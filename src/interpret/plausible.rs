//! What a value can be for a person: limits by type and component. Outside them lies an artefact or a wrong profile.

use std::collections::BTreeMap;

use crate::observation::EventType;

/// Plausible ranges by type (component `None`: the whole type) and component, in the type's unit; both ends belong.
///
/// What is not here has a built-in range. A range given for a component wins over one given for its type, and either
/// wins over the built-in ones.
#[derive(Debug, Clone, Default)]
pub struct Limits(pub BTreeMap<(EventType, Option<String>), (f64, f64)>);

/// The widest that living people show and sensors measure; wide on purpose, since a rare truth must not be set aside.
const BUILT_IN: [(EventType, &str, f64, f64); 17] = [
    (EventType::HeartRate, "", 20.0, 300.0),
    (EventType::BloodPressure, "", 10.0, 320.0),
    (EventType::BloodPressure, "systolic", 40.0, 320.0),
    (EventType::BloodPressure, "diastolic", 20.0, 220.0),
    (EventType::BloodPressure, "mean", 25.0, 260.0),
    (EventType::Temperature, "", -60.0, 100.0),
    (EventType::Temperature, "body", 25.0, 45.0),
    (EventType::Temperature, "skin", 10.0, 45.0),
    (EventType::Temperature, "ambient", -60.0, 85.0),
    // Of one period; a hub may have been away for days.
    (EventType::Steps, "", 0.0, 500_000.0),
    (EventType::Sleep, "", 0.0, 172_800.0),
    (EventType::Workout, "", 0.0, 172_800.0),
    (EventType::Spo2, "", 30.0, 100.0),
    (EventType::Weight, "", 0.2, 500.0),
    (EventType::RespirationRate, "", 1.0, 120.0),
    (EventType::Glucose, "", 10.0, 1_000.0),
    (EventType::HeartRate, "pulse", 20.0, 300.0),
];

impl Limits {
    /// The range that holds for this type and component.
    pub fn range(&self, kind: EventType, component: &str) -> (f64, f64) {
        if !self.0.is_empty() {
            let given = self.0.get(&(kind, Some(component.to_owned()))).or_else(|| self.0.get(&(kind, None)));
            if let Some(range) = given {
                return *range;
            }
        }
        let of = |wanted: &str| BUILT_IN.iter().find(|(other, part, ..)| *other == kind && *part == wanted);
        of(component).or_else(|| of("")).map_or((f64::MIN, f64::MAX), |(_, _, low, high)| (*low, *high))
    }

    /// Why a value is implausible, or `None`.
    pub(super) fn objection(&self, kind: EventType, component: &str, value: f64) -> Option<String> {
        let (low, high) = self.range(kind, component);
        if value >= low && value <= high {
            return None;
        }
        let unit = kind.unit();
        Some(format!("{value} {unit} is outside {low} to {high} {unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_built_in_range() {
        for kind in EventType::ALL {
            let (low, high) = Limits::default().range(kind, "");
            assert!(low > f64::MIN && high < f64::MAX && low < high, "{}", kind.name());
        }
    }

    #[test]
    fn a_given_range_wins_and_both_ends_belong() {
        let limits = Limits(BTreeMap::from([
            ((EventType::Temperature, Some("body".to_owned())), (30.0, 43.0)),
            ((EventType::HeartRate, None), (30.0, 250.0)),
        ]));
        assert_eq!(limits.range(EventType::Temperature, "body"), (30.0, 43.0));
        assert_eq!(limits.range(EventType::Temperature, "skin"), (10.0, 45.0));
        assert_eq!(limits.range(EventType::HeartRate, "pulse"), (30.0, 250.0));
        assert_eq!(limits.objection(EventType::HeartRate, "", 250.0), None);
        assert!(limits.objection(EventType::HeartRate, "", 250.1).is_some_and(|why| why.contains("30 to 250")));
        assert!(limits.objection(EventType::HeartRate, "", f64::NAN).is_some());
    }
}
