//! The devices of a broker: who is admitted, what is held of each until the intake has a place, and who floods.
//!
//! It holds at most [`RECEIVE_MAXIMUM`] messages and [`MAX_HELD`] bytes. When more than half of either is held for longer
//! than [`GRACE`] (a burst after an outage drains in less), or all of it, the device with most of them floods: its held
//! messages are acknowledged, dropped and counted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::reading::{Channel, Reading};
use crate::source::delivery::{DeviceInlet, Inlet, NotTaken, PLACES, Publish, Receipt};
use crate::source::health::{Count, DeviceHealth, Health};
use crate::source::mqtt::RECEIVE_MAXIMUM;
use crate::source::mqtt::acks::{Acks, State};

/// The most bytes of payload held.
pub(super) const MAX_HELD: usize = 4 * 1024 * 1024;

/// How long more than half may be held before a device counts as flooding.
pub(super) const GRACE: Duration = Duration::from_millis(250);

/// What each held message costs beside its payload.
const OVERHEAD: usize = 256;

/// The devices of one broker.
#[derive(Debug)]
pub(super) struct Devices {
    inlet: Option<Inlet>,
    health: Arc<Health>,
    /// The name under which receipts are counted.
    source: Arc<str>,
    known: HashMap<Arc<str>, Device>,
    captured: usize,
    max_captured: usize,
    held: usize,
    held_bytes: usize,
    over_since: Option<Instant>,
}

#[derive(Debug)]
struct Device {
    name: Arc<str>,
    inlet: DeviceInlet,
    health: Arc<DeviceHealth>,
    queue: VecDeque<Held>,
    bytes: usize,
    /// The topic of its last message: a device mostly repeats it.
    topic: Arc<str>,
}

/// One message that has no place yet.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) reading: Reading,
    /// Its number among the unacknowledged, and what recognises it; `None` at QoS 0.
    pub(super) publish: Option<(u64, Publish)>,
}

impl Devices {
    pub(super) fn new(inlet: Inlet, health: Arc<Health>, source: Arc<str>, max_captured: usize) -> Self {
        Devices {
            inlet: Some(inlet),
            health,
            source,
            known: HashMap::new(),
            captured: 0,
            max_captured,
            held: 0,
            held_bytes: 0,
            over_since: None,
        }
    }

    /// The device's name and the topic, shared with earlier messages; `None` when there are too many captured names.
    pub(super) fn admit(&mut self, name: &str, captured: bool, topic: &str) -> Option<(Arc<str>, Channel)> {
        if !self.known.contains_key(name) {
            if captured && self.captured >= self.max_captured {
                return None;
            }
            let inlet = self.inlet.as_ref()?.device();
            self.captured += usize::from(captured);
            let name: Arc<str> = name.into();
            let device = Device {
                name: name.clone(),
                inlet,
                health: self.health.device(&name),
                queue: VecDeque::new(),
                bytes: 0,
                topic: topic.into(),
            };
            self.known.insert(name, device);
        }
        let device = self.known.get_mut(name)?;
        if *device.topic != *topic {
            device.topic = topic.into();
        }
        Some((device.name.clone(), Channel::Message { topic: device.topic.clone() }))
    }

    /// Holds a message of an admitted device until there is a place.
    pub(super) fn hold(&mut self, held: Held) {
        let Some(device) = self.known.get_mut(&held.reading.device) else { return };
        device.health.heard(held.reading.heard);
        let bytes = held.bytes();
        device.bytes += bytes;
        self.held_bytes += bytes;
        self.held += 1;
        device.queue.push_back(held);
    }

    /// Whether anything waits for a place.
    pub(super) fn holds(&self) -> bool {
        self.held > 0
    }

    /// Gives the intake what it has places for. `window` is how many receipts the source can wait for.
    pub(super) fn deliver(&mut self, acks: &mut Acks, window: usize) {
        if self.held == 0 {
            return;
        }
        for device in self.known.values_mut().filter(|device| !device.queue.is_empty()) {
            while let Some(held) = device.queue.front() {
                // Looked at first: what is refused would have been copied for nothing.
                if !device.inlet.has_place() || device.try_deliver(held, acks, &self.source, window).is_err() {
                    break;
                }
                let bytes = held.bytes();
                self.held -= 1;
                self.held_bytes -= bytes;
                device.bytes -= bytes;
                device.queue.pop_front();
            }
        }
    }

    /// Drops what flooding devices have waiting.
    pub(super) fn drop_floods(&mut self, now: Instant, acks: &mut Acks) {
        while self.floods(now) {
            let by_bytes = self.held_bytes > MAX_HELD / 2;
            let most = |device: &&mut Device| if by_bytes { device.bytes } else { device.queue.len() };
            let Some(flooder) = self.known.values_mut().max_by_key(most) else { return };
            let is_full = self.held >= RECEIVE_MAXIMUM || self.held_bytes >= MAX_HELD;
            if !is_full && !by_bytes && flooder.queue.len() <= PLACES {
                return;
            }
            let dropped = flooder.queue.len();
            for held in flooder.queue.drain(..) {
                if let Some((number, _)) = held.publish {
                    acks.set(number, State::Done);
                }
            }
            self.held -= dropped;
            self.held_bytes -= std::mem::take(&mut flooder.bytes);
            flooder.health.fault(Count::Flooded, dropped as u64, &self.source);
        }
    }

    fn floods(&mut self, now: Instant) -> bool {
        if self.held <= RECEIVE_MAXIMUM / 2 && self.held_bytes <= MAX_HELD / 2 {
            self.over_since = None;
            return false;
        }
        let since = *self.over_since.get_or_insert(now);
        self.held >= RECEIVE_MAXIMUM || self.held_bytes >= MAX_HELD || now.duration_since(since) >= GRACE
    }

    /// A new connection: with the session, the broker sends again what was held; without it, it never will.
    pub(super) fn reconnected(&mut self, session_present: bool) {
        for device in self.known.values_mut() {
            if session_present {
                device.queue.retain(|held| held.publish.is_none());
            } else {
                device.queue.iter_mut().for_each(|held| held.publish = None);
            }
            device.bytes = device.queue.iter().map(Held::bytes).sum();
        }
        self.held = self.known.values().map(|device| device.queue.len()).sum();
        self.held_bytes = self.known.values().map(|device| device.bytes).sum();
    }

    /// Takes nothing more, and lets the intake see that this source has ended.
    pub(super) fn close(&mut self) {
        for device in self.known.values() {
            let unacknowledged = device.queue.iter().filter(|held| held.publish.is_none()).count();
            device.health.fault(Count::Dropped, unacknowledged as u64, &"held at QoS 0 at the stop");
        }
        self.known.clear();
        (self.inlet, self.held, self.held_bytes) = (None, 0, 0);
    }
}

impl Held {
    fn bytes(&self) -> usize {
        self.reading.bytes.len() + OVERHEAD
    }
}

impl Device {
    fn try_deliver(&self, held: &Held, acks: &mut Acks, source: &Arc<str>, window: usize) -> Result<(), NotTaken> {
        let reading = held.reading.clone();
        let Some((number, publish)) = held.publish.clone() else {
            return self.inlet.try_deliver(reading, None, None);
        };
        let (receipt, waiting) = Receipt::new(source.clone(), window);
        self.inlet.try_deliver(reading, Some(receipt), Some(publish))?;
        acks.set(number, State::Delivered(waiting));
        Ok(())
    }
}
