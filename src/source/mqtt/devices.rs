//! The devices of a broker: who is admitted, what is held of each until the intake has a place, and who floods.
//!
//! It holds at most [`RECEIVE_MAXIMUM`] messages and [`MAX_HELD`] bytes. When more than half of either is held for longer
//! than [`GRACE`], or all of it, a device that holds more than half of what is held floods: its held messages are
//! acknowledged, dropped and counted. Where no device stands out, none floods, however much is held: then a backlog comes
//! in after an outage or the intake is slow, and the broker holds back by itself. Only where memory is short, by bytes,
//! does the largest go whatever the others hold.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::reading::{Channel, Reading};
use crate::source::delivery::{DeviceInlet, Inlet, NotTaken, PLACES, Publish, Receipt};
use crate::source::health::{Count, DeviceHealth, Health, Kind};
use crate::source::mqtt::RECEIVE_MAXIMUM;
use crate::source::mqtt::acks::{Acks, State};

/// The most bytes held.
pub(super) const MAX_HELD: usize = 4 * 1024 * 1024;

/// How long more than half may be held before a device counts as flooding: longer than a slow disk's worst commit, so
/// that the backlog of an outage is none.
const GRACE: Duration = Duration::from_secs(5);

/// What each held message costs beside its payload.
const OVERHEAD: usize = 256;

/// The devices of one broker.
#[derive(Debug)]
pub(super) struct Devices {
    inlet: Option<Inlet>,
    health: Arc<Health>,
    /// The name under which receipts are counted.
    source: Arc<str>,
    /// Where each device stands in `known`.
    by_name: HashMap<Arc<str>, usize>,
    known: Vec<Device>,
    /// The devices that hold something, so that a thousand silent ones cost nothing.
    busy: Vec<usize>,
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

/// A device that was admitted, and the message's channel.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) place: usize,
    pub(super) name: Arc<str>,
    pub(super) channel: Channel,
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
            by_name: HashMap::new(),
            known: Vec::new(),
            busy: Vec::new(),
            captured: 0,
            max_captured,
            held: 0,
            held_bytes: 0,
            over_since: None,
        }
    }

    /// The device of this name; `None` when there are too many captured ones.
    pub(super) fn admit(&mut self, name: &str, captured: bool, topic: &str) -> Option<Admitted> {
        let place = match self.by_name.get(name) {
            Some(place) => *place,
            None => self.add(name, captured, topic)?,
        };
        let device = self.known.get_mut(place)?;
        if *device.topic != *topic {
            device.topic = topic.into();
        }
        let channel = Channel::Message { topic: device.topic.clone() };
        Some(Admitted { place, name: device.name.clone(), channel })
    }

    fn add(&mut self, name: &str, captured: bool, topic: &str) -> Option<usize> {
        if captured && self.captured >= self.max_captured {
            return None;
        }
        let inlet = self.inlet.as_ref()?.device();
        self.captured += usize::from(captured);
        let (name, health): (Arc<str>, _) = (name.into(), self.health.device(name));
        health.set_kind(Kind::Mqtt);
        health.set_state("receiving");
        let place = self.known.len();
        self.by_name.insert(name.clone(), place);
        self.known.push(Device { name, inlet, health, queue: VecDeque::new(), bytes: 0, topic: topic.into() });
        Some(place)
    }

    /// Holds a message of the device at `place` until the intake has one.
    pub(super) fn hold(&mut self, place: usize, held: Held) {
        let Some(device) = self.known.get_mut(place) else { return };
        device.health.heard(held.reading.heard);
        if device.queue.is_empty() {
            self.busy.push(place);
        }
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
        let (known, source) = (&mut self.known, &self.source);
        self.busy.retain(|place| {
            let Some(device) = known.get_mut(*place) else { return false };
            while let Some(held) = device.queue.front() {
                // Looked at first: what is refused would have been copied for nothing.
                if !device.inlet.has_place() || device.try_deliver(held, acks, source, window).is_err() {
                    return true;
                }
                let bytes = held.bytes();
                self.held -= 1;
                self.held_bytes -= bytes;
                device.bytes -= bytes;
                device.queue.pop_front();
            }
            false
        });
    }

    /// Drops what flooding devices have waiting.
    pub(super) fn drop_floods(&mut self, now: Instant, acks: &mut Acks) {
        while self.is_over(now) {
            let by_bytes = self.held_bytes > MAX_HELD / 2;
            let size = |device: &Device| if by_bytes { device.bytes } else { device.queue.len() };
            let most = self.busy.iter().filter_map(|place| Some((size(self.known.get(*place)?), *place))).max();
            let Some(flooder) = most.and_then(|(_, place)| self.known.get_mut(place)) else { return };
            let stands_out = flooder.queue.len() > PLACES && flooder.queue.len() * 2 > self.held;
            if !by_bytes && !stands_out {
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
            self.busy.retain(|place| self.known.get(*place).is_some_and(|device| !device.queue.is_empty()));
        }
    }

    fn is_over(&mut self, now: Instant) -> bool {
        if self.held <= RECEIVE_MAXIMUM / 2 && self.held_bytes <= MAX_HELD / 2 {
            self.over_since = None;
            return false;
        }
        let since = *self.over_since.get_or_insert(now);
        self.held >= RECEIVE_MAXIMUM || self.held_bytes >= MAX_HELD || now.duration_since(since) >= GRACE
    }

    /// A new connection: with the session, the broker sends again what was held; without it, it never will.
    pub(super) fn reconnected(&mut self, session_present: bool) {
        for device in &mut self.known {
            if session_present {
                device.queue.retain(|held| held.publish.is_none());
            } else {
                device.queue.iter_mut().for_each(|held| held.publish = None);
            }
            device.bytes = device.queue.iter().map(Held::bytes).sum();
        }
        self.held = self.known.iter().map(|device| device.queue.len()).sum();
        self.held_bytes = self.known.iter().map(|device| device.bytes).sum();
        self.busy.retain(|place| self.known.get(*place).is_some_and(|device| !device.queue.is_empty()));
    }

    /// Whether the broker, and by it every device, can be heard.
    pub(super) fn set_in_reach(&self, in_reach: bool) {
        self.known.iter().for_each(|device| device.health.set_in_reach(in_reach));
    }

    /// Takes nothing more, and lets the intake see that this source has ended.
    pub(super) fn close(&mut self) {
        for device in &self.known {
            let unacknowledged = device.queue.iter().filter(|held| held.publish.is_none()).count();
            device.health.fault(Count::Dropped, unacknowledged as u64, &"held at QoS 0 at the stop");
        }
        self.by_name.clear();
        self.known.clear();
        self.busy.clear();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{BootId, Heard};
    use crate::source::delivery;

    struct Rig {
        devices: Devices,
        acks: Acks,
        health: Arc<Health>,
        now: Instant,
    }

    impl Rig {
        fn new() -> Rig {
            let health = Arc::new(Health::default());
            let devices = Devices::new(delivery::channel().0, health.clone(), "ward".into(), 1_000);
            Rig { devices, acks: Acks::default(), health, now: Instant::now() }
        }

        fn hold(&mut self, name: &str, bytes: usize) {
            let Admitted { place, name, channel } = self.devices.admit(name, true, "topic").unwrap();
            let heard = Heard { boot: BootId::WALL, ms: 0 };
            let reading = Reading { device: name.clone(), entry: name, channel, bytes: vec![0; bytes].into(), heard };
            let publish = Publish {
                broker: "ward".into(),
                packet_id: 1,
                redelivered: false,
                payload_hash: 0,
                window: RECEIVE_MAXIMUM,
            };
            let number = self.acks.came(1, 0, State::Held);
            self.devices.hold(place, Held { reading, publish: Some((number, publish)) });
        }

        /// What is counted as flooded of this device, once the floods of `later` are dropped.
        fn flooded(&mut self, later: Duration, name: &str) -> u64 {
            self.devices.drop_floods(self.now + later, &mut self.acks);
            self.health.device(name).total(Count::Flooded)
        }
    }

    #[test]
    fn a_burst_that_drains_in_time_is_no_flood() {
        let mut rig = Rig::new();
        (0..600).for_each(|_| rig.hold("loud", 10));
        assert_eq!(rig.flooded(Duration::ZERO, "loud"), 0);
        assert_eq!(rig.flooded(GRACE / 2, "loud"), 0);
        rig.hold("quiet", 10);
        assert_eq!(rig.flooded(GRACE, "loud"), 600);
        assert_eq!((rig.devices.held, rig.devices.held_bytes), (1, 10 + OVERHEAD));
        let mut settled = 0;
        assert!(
            rig.acks
                .settle(|_| {
                    settled += 1;
                    true
                })
                .is_ok()
        );
        assert_eq!(settled, 600, "what is dropped is acknowledged, what is held is not");
    }

    #[test]
    fn all_that_can_be_held_is_a_flood_at_once() {
        let mut rig = Rig::new();
        (0..RECEIVE_MAXIMUM).for_each(|_| rig.hold("loud", 10));
        assert_eq!(rig.flooded(Duration::ZERO, "loud"), RECEIVE_MAXIMUM as u64);
    }

    #[test]
    fn many_devices_with_little_each_are_no_flood() {
        let mut rig = Rig::new();
        (0..30 * 20).for_each(|n| rig.hold(&format!("bed-{}", n % 30), 10));
        rig.flooded(Duration::ZERO, "bed-0");
        let later = rig.flooded(GRACE * 100, "bed-0");
        assert_eq!((later, rig.devices.held), (0, 600));
    }

    #[test]
    fn a_backlog_in_which_no_device_stands_out_is_no_flood() {
        let mut rig = Rig::new();
        (0..RECEIVE_MAXIMUM).for_each(|n| rig.hold(&format!("bed-{}", n % 7), 10));
        let later = rig.flooded(GRACE * 100, "bed-0");
        assert_eq!((later, rig.devices.held), (0, RECEIVE_MAXIMUM));
    }

    #[test]
    fn the_device_with_most_bytes_floods_where_bytes_are_short() {
        let mut rig = Rig::new();
        (0..100).for_each(|_| rig.hold("chatty", 10));
        (0..3).for_each(|_| rig.hold("large", 1024 * 1024 - OVERHEAD));
        assert_eq!(rig.flooded(Duration::ZERO, "large"), 0);
        rig.hold("large", 1024 * 1024 - OVERHEAD);
        assert_eq!(rig.flooded(Duration::ZERO, "large"), 4);
        assert_eq!(rig.devices.held, 100);
    }

    #[test]
    fn with_the_session_what_was_held_comes_again_and_without_it_is_kept() {
        for (session_present, held) in [(true, 0), (false, 2)] {
            let mut rig = Rig::new();
            rig.hold("a", 10);
            rig.hold("b", 10);
            rig.devices.reconnected(session_present);
            assert_eq!((rig.devices.held, rig.devices.busy.len()), (held, held));
        }
    }
}
