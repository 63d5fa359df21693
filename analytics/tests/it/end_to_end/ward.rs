//! Virtual patients: what their sensors say, byte for byte, and what that means. The second is the truth that every number
//! is held against; it is made here, from the patients alone.

use std::collections::BTreeMap;

use biogate::observation::EventType;
use biogate::source::virtual_patient::model::{Patient, STEPS_WRAP, Vitals};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use uuid::Uuid;

/// A value, and when it was measured, in Unix milliseconds.
type Measured = (i64, f64);

/// Person, type and component, and what was measured of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth(BTreeMap<(Uuid, EventType, &'static str), Vec<Measured>>);

impl Truth {
    fn measured(&mut self, user: Uuid, kind: EventType, component: &'static str, at_ms: i64, value: f64) {
        self.0.entry((user, kind, component)).or_default().push((at_ms, value));
    }

    /// Everything that anybody measured.
    pub(crate) fn count(&self) -> u64 {
        self.0.values().map(|values| values.len() as u64).sum()
    }

    /// It never happened.
    pub(crate) fn forget(&mut self, user: Uuid, kind: EventType, at_ms: i64) {
        let values = self.0.get_mut(&(user, kind, "")).unwrap();
        let before = values.len();
        values.retain(|(at, _)| *at != at_ms);
        assert_eq!(values.len() + 1, before, "one value was measured at {at_ms}");
    }

    /// The days of one person and type as the API should tell them, the newest first.
    pub(crate) fn days(&self, user: Uuid, kind: EventType, zone: &TimeZone) -> Vec<Value> {
        let mut days: BTreeMap<_, Vec<f64>> = BTreeMap::new();
        for ((_, _, component), values) in self.0.iter().filter(|((who, what, _), _)| (*who, *what) == (user, kind)) {
            for (at_ms, value) in values {
                let date = zone.to_datetime(Timestamp::from_millisecond(*at_ms).unwrap()).date();
                days.entry((std::cmp::Reverse(date), *component)).or_default().push(*value);
            }
        }
        let day = |((date, component), values): (&(std::cmp::Reverse<_>, &str), &Vec<f64>)| {
            let mut day = numbers(values);
            day["date"] = json!(date.0);
            day["component"] = json!(component);
            day["unit"] = json!(kind.unit());
            day
        };
        days.iter().map(day).collect()
    }
}

/// By the definition of each: the quantiles interpolate between the values around them.
fn numbers(values: &[f64]) -> Value {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let sum: f64 = sorted.iter().sum();
    let quantile = |share: f64| {
        let at = share * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        below + (above - below) * at.fract()
    };
    json!({
        "readings": sorted.len(), "min": sorted[0], "max": sorted[sorted.len() - 1], "avg": sum / sorted.len() as f64,
        "median": quantile(0.5), "p95": quantile(0.95), "sum": sum,
    })
}

/// One virtual patient and her sensor.
pub(crate) struct Wearer {
    pub(crate) user: Uuid,
    /// The `device_id`.
    pub(crate) device: &'static str,
    patient: Patient,
    counter: Option<u64>,
    /// Her steps since she was first seen, with what her counter began with; it never wraps.
    total: u64,
    measurements: u32,
}

impl Wearer {
    pub(crate) fn new(user: Uuid, device: &'static str, seed: u64) -> Wearer {
        Wearer { user, device, patient: Patient::new(seed), counter: None, total: 0, measurements: 0 }
    }

    /// What the demo's band says at this time of her day, as a line; measured now.
    pub(crate) fn line(&mut self, day_ms: u64, now_ms: i64, truth: &mut Truth) -> Option<String> {
        let vitals = self.patient.at(day_ms)?;
        self.vitals(&vitals, now_ms, truth);
        let heart = vitals.heart_rate.map_or("--".to_owned(), |heart| heart.to_string());
        let tenths = vitals.temperature_tenths;
        Some(format!("HR:{heart},T:{}.{},S:{}\n", tenths / 10, tenths % 10, vitals.steps))
    }

    /// What the demo's publishers say, and the types that the demo lacks: the last part of each topic, and the message.
    pub(crate) fn messages(&mut self, at_ms: u64, truth: &mut Truth) -> Vec<(&'static str, String)> {
        let Some(vitals) = self.patient.at(at_ms) else { return Vec::new() };
        let (at, nth) = (at_ms as i64, self.measurements);
        self.measurements += 1;
        self.vitals(&vitals, at, truth);
        let tenths = f64::from(vitals.temperature_tenths);
        let mut vital = json!({"ts": at_ms, "seq": nth, "hr": vitals.heart_rate, "temp": {"c": tenths / 10.0}});
        let mut measured = |kind, component, value| {
            truth.measured(self.user, kind, component, at, value);
            json!(value)
        };
        // Now and then, and never twice the same: each number of a day hangs on each of its values.
        if nth % 4 == 0 {
            vital["spo2"] = measured(EventType::Spo2, "", 98.0 - f64::from(nth * 7 % 9) / 2.0);
        }
        if nth % 6 == 1 {
            let pulse = f64::from(nth * 5 % 23);
            vital["bp"] = json!({
                "sys": measured(EventType::BloodPressure, "systolic", 110.0 + pulse),
                "dia": measured(EventType::BloodPressure, "diastolic", 70.0 + pulse / 2.0),
            });
        }
        let mut messages =
            vec![("vitals", vital.to_string()), ("steps", json!({"steps": self.total, "ts": at_ms}).to_string())];
        if nth % 8 == 3 {
            let of = |step: u32, modulus: u32| f64::from(nth * step % modulus);
            let rest = json!({
                "ts": at_ms,
                "sleep": measured(EventType::Sleep, "", 60.0 * of(11, 31)),
                "workout": measured(EventType::Workout, "", 30.0 * of(13, 29)),
                "weight": measured(EventType::Weight, "", 70.0 + of(3, 17) / 10.0),
                "breath": measured(EventType::RespirationRate, "", 12.0 + of(7, 9)),
                "sugar": measured(EventType::Glucose, "", 80.0 + of(17, 43)),
            });
            messages.push(("rest", rest.to_string()));
        }
        messages
    }

    fn vitals(&mut self, vitals: &Vitals, at_ms: i64, truth: &mut Truth) {
        if let Some(heart) = vitals.heart_rate {
            truth.measured(self.user, EventType::HeartRate, "", at_ms, f64::from(heart));
        }
        let celsius = f64::from(vitals.temperature_tenths) / 10.0;
        truth.measured(self.user, EventType::Temperature, "body", at_ms, celsius);
        // The sensors tell a running total. What the first one adds, nobody knows.
        match self.counter.replace(vitals.steps) {
            None => self.total = vitals.steps,
            Some(before) => {
                let steps = (vitals.steps + STEPS_WRAP - before) % STEPS_WRAP;
                self.total += steps;
                truth.measured(self.user, EventType::Steps, "", at_ms, steps as f64);
            }
        }
    }
}

/// The profile of the messages with the types that the demo lacks.
pub(crate) const REST_PROFILE: &str = r#"
schema  = 1
id      = "mqtt-rest-json"
version = 1
title   = "What a night and a morning bring, as one JSON object over MQTT"
source  = "the tests"
match   = { mqtt = true }
same_if = ["measured_at"]

[[channel]]
name   = "message"
format = "json"
fields = [
  { name = "measured_at", at = "/ts",      type = "unix_ms", optional = true },
  { name = "sleep",       at = "/sleep",   type = "number", unit = "s",     optional = true },
  { name = "workout",     at = "/workout", type = "number", unit = "s",     optional = true },
  { name = "weight",      at = "/weight",  type = "number", unit = "kg",    optional = true },
  { name = "breath",      at = "/breath",  type = "number", unit = "/min",  optional = true },
  { name = "sugar",       at = "/sugar",   type = "number", unit = "mg/dL", optional = true },
]
emit = [
  { event = "sleep",            value = "sleep",   time = "measured_at" },
  { event = "workout",          value = "workout", time = "measured_at" },
  { event = "weight",           value = "weight",  time = "measured_at" },
  { event = "respiration_rate", value = "breath",  time = "measured_at" },
  { event = "glucose",          value = "sugar",   time = "measured_at" },
]
examples = [{ text = '{"ts":1763900000000,"weight":70.5}', events = [{ weight = 70.5 }] }]
"#;
