//! What a reading means: a quantity, its value in the one unit of its type, and when it was heard.
//! This is what the store keeps: person and wall time are applied later, when a range is cut.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::reading::Heard;

/// The ten kinds of event. The numbers are those of the warehouse's Enum8 and never change; new kinds only append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i8)]
pub enum EventType {
    /// Beats per minute.
    HeartRate = 1,
    /// Arterial or cuff pressure; the component says systolic, diastolic or mean.
    BloodPressure = 2,
    /// Degrees Celsius; the component says body, skin or ambient.
    Temperature = 3,
    /// Steps made in a period (an increment, never a running total).
    Steps = 4,
    /// Seconds slept in a period.
    Sleep = 5,
    /// Seconds of a workout.
    Workout = 6,
    /// Peripheral oxygen saturation in percent.
    Spo2 = 7,
    /// Body weight in kilograms.
    Weight = 8,
    /// Breaths per minute.
    RespirationRate = 9,
    /// Blood glucose in milligrams per decilitre.
    Glucose = 10,
}

impl EventType {
    /// All kinds, in the order of their numbers.
    pub const ALL: [EventType; 10] = [
        EventType::HeartRate,
        EventType::BloodPressure,
        EventType::Temperature,
        EventType::Steps,
        EventType::Sleep,
        EventType::Workout,
        EventType::Spo2,
        EventType::Weight,
        EventType::RespirationRate,
        EventType::Glucose,
    ];

    /// The name in JSON, in profiles and in the warehouse's enum.
    pub fn name(self) -> &'static str {
        match self {
            EventType::HeartRate => "heart_rate",
            EventType::BloodPressure => "blood_pressure",
            EventType::Temperature => "temperature",
            EventType::Steps => "steps",
            EventType::Sleep => "sleep",
            EventType::Workout => "workout",
            EventType::Spo2 => "spo2",
            EventType::Weight => "weight",
            EventType::RespirationRate => "respiration_rate",
            EventType::Glucose => "glucose",
        }
    }

    /// The type's one UCUM unit.
    pub fn unit(self) -> &'static str {
        match self {
            EventType::HeartRate | EventType::RespirationRate => "/min",
            EventType::BloodPressure => "mm[Hg]",
            EventType::Temperature => "Cel",
            EventType::Steps => "{steps}",
            EventType::Sleep | EventType::Workout => "s",
            EventType::Spo2 => "%",
            EventType::Weight => "kg",
            EventType::Glucose => "mg/dL",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<EventType> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind of this number.
    pub fn from_number(number: i8) -> Option<EventType> {
        Self::ALL.into_iter().find(|kind| *kind as i8 == number)
    }
}

/// One quantity that one reading carried.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The reading's number in its run; with `index` the base of the event id.
    pub reading: u64,
    /// Which observation of that reading, from 0.
    pub index: u16,
    /// The `device_id` of the event.
    pub device: Arc<str>,
    /// Profile id and version, as `bluetooth-heart-rate/1`.
    pub profile: Arc<str>,
    /// What was measured.
    pub event_type: EventType,
    /// Which part of it: `systolic`, `body`, ...; empty where the type has one.
    pub component: Arc<str>,
    /// The value in `event_type.unit()`. Always finite.
    pub value: f64,
    /// When the hub heard it.
    pub heard: Heard,
    /// What the device itself says of the time, where it says something.
    pub device_time: Option<DeviceTime>,
    /// For an increment: the end of the period before, so the start of this one.
    pub since: Option<Heard>,
    /// The event id, where the device has an identity of its own; else it is derived from run, reading and index.
    pub identity: Option<Uuid>,
    /// What the profile lists, in its order; the names of the profile's fields.
    pub metadata: Vec<(Arc<str>, Value)>,
}

/// A time that the device's own clock gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceTime {
    /// Unix milliseconds.
    Utc(i64),
    /// Wall time of the hub's place, as milliseconds that would be Unix time if the place were at UTC.
    Local(i64),
    /// Either, of a device that also told what its clock shows now: counted from that instant.
    Counted(Counted),
}

/// How long before an instant of the hub's uptime something was, by a device's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Whether `ms` is Unix time; else wall time of the hub's place.
    pub utc: bool,
    /// What the device's clock showed then.
    pub ms: i64,
    /// The instant at which the device told its time: uptime in the boot in which the observation was heard.
    pub at_ms: u64,
    /// How long before it; below zero where it was after it.
    pub age_ms: i64,
}

impl DeviceTime {
    /// What the device's own clock showed, without any count.
    pub fn shown(self) -> DeviceTime {
        match self {
            DeviceTime::Counted(Counted { utc: true, ms, .. }) => DeviceTime::Utc(ms),
            DeviceTime::Counted(Counted { utc: false, ms, .. }) => DeviceTime::Local(ms),
            shown => shown,
        }
    }

    /// The same as a number.
    pub fn shown_ms(self) -> i64 {
        match self {
            DeviceTime::Utc(ms) | DeviceTime::Local(ms) | DeviceTime::Counted(Counted { ms, .. }) => ms,
        }
    }
}

/// A field's value after decoding: what metadata carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Read, and said by the device to be missing.
    Null,
    /// One bit.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number after scaling. Always finite.
    Num(f64),
    /// A name from a table, a text, or bytes as hex.
    Text(Arc<str>),
    /// A repeated field.
    List(Vec<Value>),
}
