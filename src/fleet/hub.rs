//! PURE One virtual hub: what its sensors measure, and which rows its next batch holds. It is told the time.
//!
//! Measurements lie a fixed time apart, so that what waits is a number and no memory: the values are made when a batch is
//! cut, and made again, the same, when it has to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::clock::Anchors;
use crate::event::NAMESPACE;
use crate::forward::rows::Batch;
use crate::observation::{EventType, Observation, Value};
use crate::reading::{BootId, Heard, RunId};
use crate::resolve::history::{Assignment, By, Says};
use crate::resolve::{Basis, Timeline, Unassigned};
use crate::source::virtual_patient::model::{Patient, STEPS_WRAP, Vitals};
use crate::store::{Chunk, Range};

/// Heart rate, temperature and steps.
pub(super) const EVENTS: u64 = 3;

/// The one basis of a hub that nobody configures anew.
const BASIS: u64 = 1;

/// When a hub measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rhythm {
    /// Its first measurement: Unix milliseconds.
    pub(super) first_ms: f64,
    /// From one to the next.
    pub(super) period_ms: f64,
}

impl Rhythm {
    /// When the n-th is made, from 0.
    pub(super) fn at_ms(self, nth: u64) -> f64 {
        self.first_ms + nth as f64 * self.period_ms
    }

    /// How many are made before this moment.
    pub(super) fn before(self, ms: f64) -> u64 {
        if ms <= self.first_ms { 0 } else { ((ms - self.first_ms) / self.period_ms).ceil() as u64 }
    }
}

/// A hub with one patient who wears three devices.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) rhythm: Rhythm,
    /// Measurements that are acknowledged.
    pub(super) done: u64,
    destination: Arc<str>,
    run: RunId,
    timeline: Arc<Timeline>,
    devices: [Arc<str>; EVENTS as usize],
    body: Arc<str>,
    profile: Arc<str>,
    life: Life,
}

/// The patient, and what was last seen of her.
#[derive(Debug, Clone)]
struct Life {
    patient: Patient,
    last: Vitals,
}

/// A batch that was cut, and the patient after it.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) batch: Batch,
    measurements: u64,
    after: Life,
}

impl Cut {
    /// Takes the batch out and leaves what [`Hub::settle`] needs.
    pub(super) fn open(self) -> (Batch, Settling) {
        (self.batch, Settling { measurements: self.measurements, after: self.after })
    }
}

/// What a hub is once a batch is through.
#[derive(Debug)]
pub(super) struct Settling {
    measurements: u64,
    after: Life,
}

impl Hub {
    /// The hub of this number in the fleet `tag`.
    pub(super) fn new(tag: &str, number: u32, rhythm: Rhythm, destination: Arc<str>) -> Hub {
        let name = |what: &str| -> Arc<str> { format!("{what}-{number:05}").into() };
        let devices = [name("strap"), name("patch"), name("counter")];
        let user = Uuid::new_v5(&NAMESPACE, format!("simulate-fleet person {number}").as_bytes());
        let basis = Basis {
            gateway_id: format!("{tag}-{number:05}").into(),
            timezone: "Europe/Berlin".to_owned(),
            location: Some(format!("ward-{}", number / 20).into()),
            unassigned: Unassigned::Forward,
            assignments: devices.iter().map(|device| worn(device.clone(), user)).collect(),
        };
        let timeline = Timeline { anchors: Anchors::new(0), bases: BTreeMap::from([(BASIS, basis)]) };
        Hub {
            rhythm,
            done: 0,
            destination,
            run: RunId::random(),
            timeline: Arc::new(timeline),
            devices,
            body: "body".into(),
            profile: "serial-vitals-line/1".into(),
            life: Life {
                patient: Patient::new(number.into()),
                last: Vitals { heart_rate: Some(60), temperature_tenths: 366, steps: 0 },
            },
        }
    }

    /// Events that were measured before this moment and are not acknowledged.
    pub(super) fn waiting(&self, ms: f64) -> u64 {
        self.rhythm.before(ms).saturating_sub(self.done) * EVENTS
    }

    /// The next `rows` events, or one measurement where that is more. `resumed`: they were sent before.
    pub(super) fn cut(&self, rows: u64, resumed: bool) -> Cut {
        let measurements = (rows / EVENTS).max(1);
        let mut life = self.life.clone();
        let made = (self.done..self.done + measurements).flat_map(|nth| self.measure(&mut life, nth));
        let observations: Vec<Observation> = made.collect();
        let first = self.done * EVENTS + 1;
        let range = Range { first, last: first + measurements * EVENTS - 1, anchors: 0, basis: BASIS };
        let chunks = vec![Chunk { run: self.run, first, only_for: None, observations }];
        let batch = Batch::new(self.destination.clone(), range, resumed, chunks, self.timeline.clone());
        Cut { batch, measurements, after: life }
    }

    /// The batch is through.
    pub(super) fn settle(&mut self, settling: Settling) {
        self.done += settling.measurements;
        self.life = settling.after;
    }

    fn measure(&self, life: &mut Life, nth: u64) -> [Observation; EVENTS as usize] {
        let at_ms = self.rhythm.at_ms(nth) as u64;
        let before = life.last;
        // A sensor that says nothing is no load: it says what it said before.
        let said = life.patient.at(at_ms).unwrap_or(before);
        life.last = Vitals { heart_rate: said.heart_rate.or(before.heart_rate), ..said };
        let made = (STEPS_WRAP + said.steps - before.steps) % STEPS_WRAP;
        let made = if nth == 0 { 0 } else { made };
        let heart = life.last.heart_rate.map_or(60.0, f64::from);
        let [strap, patch, counter] = &self.devices;
        let of = |index, device: &Arc<str>, event_type, value| Observation {
            reading: nth,
            index,
            device: device.clone(),
            profile: self.profile.clone(),
            event_type,
            component: "".into(),
            value,
            heard: Heard { boot: BootId::WALL, ms: at_ms },
            device_time: None,
            since: None,
            identity: None,
            metadata: Vec::new(),
        };
        let since = nth.checked_sub(1).map(|nth| Heard { boot: BootId::WALL, ms: self.rhythm.at_ms(nth) as u64 });
        let contact = vec![("contact".into(), Value::Text("detected".into()))];
        [
            Observation { metadata: contact, ..of(0, strap, EventType::HeartRate, heart) },
            Observation {
                component: self.body.clone(),
                ..of(1, patch, EventType::Temperature, f64::from(said.temperature_tenths) / 10.0)
            },
            Observation { since, ..of(2, counter, EventType::Steps, made as f64) },
        ]
    }
}

fn worn(device: Arc<str>, user: Uuid) -> Assignment {
    Assignment {
        device,
        user_id: Some(user),
        location: None,
        from: None,
        until: None,
        says: Says::Both,
        by: By::Entry,
        version: 1,
        revision: 1,
        said: None,
        estimated: false,
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::event::Event;

    const START_MS: f64 = 1_763_942_400_000.0;

    fn hub() -> Hub {
        Hub::new("fleet-1", 7, Rhythm { first_ms: START_MS, period_ms: 1_000.0 }, "out".into())
    }

    fn events(mut cut: Cut) -> (Vec<Event>, Settling) {
        let mut found = Vec::new();
        assert!(cut.batch.fill(|_, event| {
            found.push(event.clone());
            ControlFlow::Continue(())
        }));
        (found, cut.open().1)
    }

    #[test]
    fn what_waits_is_what_was_measured_and_not_acknowledged() {
        let mut hub = hub();
        assert_eq!([0.0, START_MS, START_MS + 1.0, START_MS + 1_000.5].map(|ms| hub.waiting(ms)), [0, 0, 3, 6]);
        let (_, settling) = events(hub.cut(4, false));
        hub.settle(settling);
        assert_eq!((hub.done, hub.waiting(START_MS + 1_000.5)), (1, 3));
    }

    #[test]
    fn a_batch_that_is_cut_again_has_the_same_rows_and_the_next_one_others() {
        let mut hub = hub();
        let (first, _) = events(hub.cut(30, false));
        let (again, settling) = events(hub.cut(30, true));
        assert_eq!((first.len(), &first), (30, &again));
        hub.settle(settling);
        let (next, _) = events(hub.cut(30, false));
        assert!(next.iter().all(|event| first.iter().all(|other| other.event_id != event.event_id)));
        assert_eq!(next[0].timestamp, START_MS as i64 + 10_000);
        assert!(next.iter().all(|event| !event.user_id.is_nil() && &*event.gateway_id == "fleet-1-00007"));
        let kinds: Vec<EventType> = next[..3].iter().map(|event| event.event_type).collect();
        assert_eq!(kinds, [EventType::HeartRate, EventType::Temperature, EventType::Steps]);
        assert_eq!(next[2].period_start, Some(next[2].timestamp - 1_000));
    }

    #[test]
    fn cuts_of_any_size_are_one_life() {
        let (whole, _) = events(hub().cut(3_000, false));
        let mut hub = hub();
        let mut values = Vec::new();
        while values.len() < whole.len() {
            let (part, settling) = events(hub.cut(600, false));
            values.extend(part.into_iter().map(|event| (event.timestamp, event.value)));
            hub.settle(settling);
        }
        assert_eq!(values, whole.iter().map(|event| (event.timestamp, event.value)).collect::<Vec<_>>());
    }
}
