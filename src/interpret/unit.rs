//! UCUM units: how a field's unit becomes the one unit of an event's type.

use crate::observation::EventType;

/// value * num / den + plus, after adding `before`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Conversion {
    before: f64,
    num: f64,
    den: f64,
}

impl Conversion {
    /// Nothing to do.
    pub(super) const NONE: Conversion = Conversion { before: 0.0, num: 1.0, den: 1.0 };

    const fn times(num: f64, den: f64) -> Conversion {
        Conversion { before: 0.0, num, den }
    }

    const fn after(before: f64, num: f64, den: f64) -> Conversion {
        Conversion { before, num, den }
    }

    /// The value in the type's unit, without the dust of binary fractions.
    pub(super) fn apply(self, value: f64) -> f64 {
        if self == Conversion::NONE { value } else { tidy((value + self.before) * self.num / self.den) }
    }
}

/// Rounds to nine decimals: sensors give five digits, and 300.15 - 273.15 should be 27.
pub(super) fn tidy(value: f64) -> f64 {
    let rounded = (value * 1e9).round() / 1e9;
    if value.abs() < 1e6 { rounded } else { value }
}

/// Each type's units, its own first. Factors: inch and pound are exact by definition; 1 mm[Hg] = 133.322387415 Pa;
/// glucose by its molar mass of 180.156 g/mol.
fn known(kind: EventType) -> &'static [(&'static str, Conversion)] {
    use Conversion as C;
    const MM_HG: f64 = 133.322_387_415;
    const RATE: &[(&str, Conversion)] = &[
        ("/min", C::NONE),
        ("{beats}/min", C::NONE),
        ("{breaths}/min", C::NONE),
        ("Hz", C::times(60.0, 1.0)),
        ("/s", C::times(60.0, 1.0)),
    ];
    const PRESSURE: &[(&str, Conversion)] = &[
        ("mm[Hg]", C::NONE),
        ("kPa", C::times(1000.0, MM_HG)),
        ("hPa", C::times(100.0, MM_HG)),
        ("mbar", C::times(100.0, MM_HG)),
        ("Pa", C::times(1.0, MM_HG)),
    ];
    const TEMPERATURE: &[(&str, Conversion)] =
        &[("Cel", C::NONE), ("[degF]", C::after(-32.0, 5.0, 9.0)), ("K", C::after(-273.15, 1.0, 1.0))];
    const STEPS: &[(&str, Conversion)] =
        &[("{steps}", C::NONE), ("{step}", C::NONE), ("{count}", C::NONE), ("1", C::NONE)];
    const TIME: &[(&str, Conversion)] = &[
        ("s", C::NONE),
        ("ms", C::times(1.0, 1000.0)),
        ("min", C::times(60.0, 1.0)),
        ("h", C::times(3600.0, 1.0)),
        ("d", C::times(86_400.0, 1.0)),
    ];
    const SHARE: &[(&str, Conversion)] = &[("%", C::NONE), ("1", C::times(100.0, 1.0))];
    const MASS: &[(&str, Conversion)] = &[
        ("kg", C::NONE),
        ("g", C::times(1.0, 1000.0)),
        ("[lb_av]", C::times(0.453_592_37, 1.0)),
        ("[stone_av]", C::times(6.350_293_18, 1.0)),
    ];
    const GLUCOSE: &[(&str, Conversion)] = &[
        ("mg/dL", C::NONE),
        ("mmol/L", C::times(18.0156, 1.0)),
        ("mol/L", C::times(18_015.6, 1.0)),
        ("kg/L", C::times(100_000.0, 1.0)),
        ("g/L", C::times(100.0, 1.0)),
    ];
    match kind {
        EventType::HeartRate | EventType::RespirationRate => RATE,
        EventType::BloodPressure => PRESSURE,
        EventType::Temperature => TEMPERATURE,
        EventType::Steps => STEPS,
        EventType::Sleep | EventType::Workout => TIME,
        EventType::Spo2 => SHARE,
        EventType::Weight => MASS,
        EventType::Glucose => GLUCOSE,
    }
}

/// How this unit becomes the type's own; `None` where it cannot.
pub(super) fn conversion(unit: &str, kind: EventType) -> Option<Conversion> {
    known(kind).iter().find(|(known, _)| *known == unit).map(|(_, conversion)| *conversion)
}

/// The units from which this type can be made.
pub(super) fn accepted(kind: EventType) -> String {
    known(kind).iter().map(|(unit, _)| *unit).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_takes_its_own_unit_unchanged() {
        for kind in EventType::ALL {
            assert_eq!(conversion(kind.unit(), kind), Some(Conversion::NONE), "{}", kind.name());
        }
    }

    #[test]
    fn other_units_become_the_types_own() {
        let cases = [
            ("[degF]", EventType::Temperature, 98.6, 37.0),
            ("K", EventType::Temperature, 300.15, 27.0),
            ("kPa", EventType::BloodPressure, 16.0, 120.009_852),
            ("[lb_av]", EventType::Weight, 150.0, 68.038_855_5),
            ("g", EventType::Weight, 3_450.0, 3.45),
            ("mmol/L", EventType::Glucose, 5.5, 99.0858),
            ("kg/L", EventType::Glucose, 0.001, 100.0),
            ("1", EventType::Spo2, 0.97, 97.0),
            ("min", EventType::Sleep, 90.0, 5_400.0),
            ("h", EventType::Workout, 0.5, 1_800.0),
            ("Hz", EventType::HeartRate, 1.2, 72.0),
        ];
        for (unit, kind, value, expected) in cases {
            let found = conversion(unit, kind).unwrap().apply(value);
            assert!((found - expected).abs() < 1e-5, "{value} {unit} became {found}, expected {expected}");
        }
        assert_eq!(conversion("[degF]", EventType::Temperature).unwrap().apply(98.6), 37.0);
    }

    #[test]
    fn a_unit_of_another_quantity_is_refused() {
        assert_eq!(conversion("kPa", EventType::Temperature), None);
        assert_eq!(conversion("bpm", EventType::HeartRate), None);
    }
}
