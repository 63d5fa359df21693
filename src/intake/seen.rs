//! What is known of each device, for the heartbeat: when it was heard, what it says of itself, how much was refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::interpret::Interpretation;
use crate::observation::{Observation, Value};
use crate::reading::{Heard, Reading};

/// So many devices are told apart; of further ones nothing is told.
const MAX_DEVICES: usize = 8_192;

/// Every device that was heard in this process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    devices: Arc<Mutex<BTreeMap<Arc<str>, Device>>>,
}

/// What is known of one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// When its last reading was heard.
    pub last: Heard,
    /// Readings taken since the start.
    pub accepted: u64,
    /// Of these, readings that its profile refused.
    pub refused: u64,
    /// Percent, where its events carry it.
    pub battery: Option<u8>,
    /// Whether somebody wears it, where it says so.
    pub worn: Option<bool>,
    /// What was refused and not reported yet.
    unreported: Option<Refusals>,
}

/// Readings of a device that their profile refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals {
    /// When the first was heard.
    pub from: Heard,
    /// When the last was heard.
    pub to: Heard,
    /// How many.
    pub count: u64,
    /// What was wrong with the last.
    pub why: String,
}

impl Seen {
    /// Every device, by name.
    pub fn snapshot(&self) -> Vec<(Arc<str>, Device)> {
        self.lock().iter().map(|(name, device)| (name.clone(), device.clone())).collect()
    }

    /// What was refused since the last call.
    pub fn take_refusals(&self) -> Vec<(Arc<str>, Refusals)> {
        let mut devices = self.lock();
        devices.iter_mut().filter_map(|(name, device)| Some((name.clone(), device.unreported.take()?))).collect()
    }

    /// Gives back what could not be reported.
    pub fn put_back(&self, refusals: Vec<(Arc<str>, Refusals)>) {
        let mut devices = self.lock();
        for (name, earlier) in refusals {
            let Some(device) = devices.get_mut(&name) else { continue };
            device.unreported = Some(match device.unreported.take() {
                Some(later) => Refusals { from: earlier.from, count: earlier.count + later.count, ..later },
                None => earlier,
            });
        }
    }

    /// A reading was interpreted.
    pub(super) fn heard(&self, reading: &Reading, refused: Option<&str>, meant: &Interpretation) {
        let mut devices = self.lock();
        if !devices.contains_key(&reading.device) {
            if devices.len() >= MAX_DEVICES {
                return;
            }
            devices.insert(reading.device.clone(), Device::new(reading.heard));
        }
        let Some(device) = devices.get_mut(&reading.device) else { return };
        device.last = reading.heard;
        device.accepted += 1;
        if let Some(why) = refused {
            device.refuse(reading.heard, why);
        }
        if meant.observations.is_empty() && meant.withholds {
            device.worn = Some(false);
        }
        meant.observations.iter().for_each(|observation| device.take(observation));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Device>> {
        // A device is whole between its calls, whatever happened to the thread that held it.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device {
    fn new(heard: Heard) -> Device {
        Device { last: heard, accepted: 0, refused: 0, battery: None, worn: None, unreported: None }
    }

    fn refuse(&mut self, heard: Heard, why: &str) {
        self.refused += 1;
        let refusals =
            self.unreported.get_or_insert_with(|| Refusals { from: heard, to: heard, count: 0, why: why.to_owned() });
        refusals.to = heard;
        refusals.count += 1;
    }

    fn take(&mut self, observation: &Observation) {
        // A value came, so whoever had taken it off wears it again.
        self.worn = self.worn.map(|_| true);
        for (name, value) in &observation.metadata {
            match (&**name, value) {
                ("battery", Value::Int(percent)) => self.battery = u8::try_from(*percent).ok(),
                ("battery", Value::Num(percent)) if (0.0..=100.0).contains(percent) => {
                    self.battery = Some(percent.round() as u8);
                }
                ("contact", Value::Text(text)) if &**text == "detected" => self.worn = Some(true),
                ("contact", Value::Text(text)) if &**text == "not_detected" => self.worn = Some(false),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::observation::EventType;
    use crate::reading::{BootId, Channel};

    fn reading(ms: u64) -> Reading {
        let heard = Heard { boot: BootId(Uuid::from_u128(1)), ms };
        Reading { device: "strap".into(), entry: "strap".into(), channel: Channel::Frame, bytes: Bytes::new(), heard }
    }

    fn measured(contact: &str, battery: i64) -> Interpretation {
        let text = |value: &str| Value::Text(value.into());
        let observation = Observation {
            reading: 1,
            index: 0,
            device: "strap".into(),
            profile: "p/1".into(),
            event_type: EventType::HeartRate,
            component: "".into(),
            value: 60.0,
            heard: reading(0).heard,
            device_time: None,
            since: None,
            identity: None,
            metadata: vec![("contact".into(), text(contact)), ("battery".into(), Value::Int(battery))],
        };
        Interpretation { observations: vec![observation], ..Interpretation::default() }
    }

    #[test]
    fn a_device_says_how_it_is_and_refusals_are_told_once() {
        let seen = Seen::default();
        seen.heard(&reading(1), None, &measured("detected", 80));
        let device = &seen.snapshot()[0].1;
        assert_eq!((device.battery, device.worn, device.accepted, device.refused), (Some(80), Some(true), 1, 0));
        seen.heard(&reading(2), None, &Interpretation { withholds: true, ..Interpretation::default() });
        assert_eq!(seen.snapshot()[0].1.worn, Some(false));
        let why = Some("flags: too short");
        for ms in [3, 4] {
            seen.heard(&reading(ms), why, &Interpretation::default());
        }
        let told = seen.take_refusals();
        assert_eq!((told[0].1.count, told[0].1.from.ms, told[0].1.to.ms), (2, 3, 4));
        assert_eq!(told[0].1.why, "flags: too short");
        assert!(seen.take_refusals().is_empty());
        seen.heard(&reading(5), why, &Interpretation::default());
        seen.put_back(told);
        let again = &seen.take_refusals()[0].1;
        assert_eq!((again.count, again.from.ms, again.to.ms), (3, 3, 5));
        assert_eq!(seen.snapshot()[0].1.refused, 3);
    }
}
