//! PURE What is near: a bounded list of the peripherals that were heard lately.
//!
//! BlueZ tells only what changed, so sightings are merged. Addresses rotate and anybody may advertise anything: the list
//! holds [`MOST`] peripherals, and of each a bounded name, few services and short payloads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Peripherals in the list; for a further one the one unheard longest goes.
pub const MOST: usize = 512;

/// The radio listens for so long after somebody asked what is near, also where every listed sensor is linked.
const ASKED: Duration = Duration::from_secs(15);

/// Characters of a name that are kept. Advertised names have at most 29, read ones at most 248.
const NAME_CHARS: usize = 64;

/// Services, and elements of each kind, that are kept of one peripheral.
const MOST_OF_EACH: usize = 16;

/// Bytes of an element's payload that are kept: twice what a legacy advertisement can hold.
const PAYLOAD_BYTES: usize = 64;

/// A signal is averaged over about this long; single values jump by 10 dB.
const QUICK: Duration = Duration::from_secs(2);

/// The average that the quick one is compared with.
const SLOW: Duration = Duration::from_secs(20);

/// A signal rises when its quick average is this many dB above the slow one.
const RISE_DB: f64 = 6.0;

/// Fewer values than this show no trend.
const LEAST_VALUES: u32 = 3;

/// A signal older than this tells nothing of where the sensor is now.
const SIGNAL_AGE: Duration = Duration::from_secs(10);

/// What one event of the bus told of a peripheral. Nothing told means nothing changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// Its name.
    pub name: Option<String>,
    /// The strength of its signal in dBm.
    pub rssi: Option<i16>,
    /// Services that it advertises.
    pub services: Vec<Arc<str>>,
    /// Service data by UUID.
    pub service_data: Vec<(Arc<str>, Bytes)>,
    /// Manufacturer data by company identifier.
    pub manufacturer: Vec<(u16, Bytes)>,
    /// Whether there is a link to it.
    pub connected: Option<bool>,
    /// Whether it is paired.
    pub paired: Option<bool>,
}

/// A peripheral as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Near {
    /// Its address, as `A0:9E:1A:00:11:22`.
    pub address: Arc<str>,
    /// The adapter that heard it.
    pub adapter: Arc<str>,
    /// Its name, where it told one.
    pub name: Option<Arc<str>>,
    /// Its signal in dBm, averaged.
    pub rssi: Option<i16>,
    /// Whether the signal is growing: somebody brings it nearer.
    pub rising: bool,
    /// Whether it is the strongest of those that are brought nearer: the one that is held to the hub.
    pub this_one: bool,
    /// Seconds since it was heard.
    pub seconds: u64,
    /// Whether there is a link to it.
    pub connected: bool,
    /// Whether it is paired.
    pub paired: bool,
    /// Services that it advertises.
    pub services: Vec<Arc<str>>,
    /// Its service data.
    pub service_data: Vec<Payload>,
    /// Its manufacturer data.
    pub manufacturer: Vec<Payload>,
}

/// An element of an advertisement as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// A service's UUID, or a company identifier as four hexadecimal digits.
    pub id: Arc<str>,
    /// The payload.
    pub hex: String,
}

/// The peripherals that were heard lately, on all adapters.
#[derive(Debug, Default)]
pub struct Nearby {
    by_adapter: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Peripheral>>,
    /// When somebody last wanted to see it.
    asked: Option<Instant>,
}

#[derive(Debug)]
struct Peripheral {
    heard: Instant,
    name: Option<Arc<str>>,
    signal: Option<Signal>,
    services: Vec<Arc<str>>,
    service_data: Vec<(Arc<str>, Bytes)>,
    manufacturer: Vec<(u16, Bytes)>,
    connected: bool,
    paired: bool,
}

#[derive(Debug, Clone, Copy)]
struct Signal {
    quick: f64,
    slow: f64,
    values: u32,
    at: Instant,
}

impl Nearby {
    /// Takes in what was told of a peripheral.
    pub fn hear(&mut self, now: Instant, adapter: &Arc<str>, address: &str, sighting: Sighting) {
        let known = self.by_adapter.get(adapter).is_some_and(|near| near.contains_key(address));
        if !known && self.len() >= MOST {
            self.forget_the_oldest();
        }
        let near = self.by_adapter.entry(adapter.clone()).or_default();
        match near.get_mut(address) {
            Some(peripheral) => peripheral.hear(now, sighting),
            None => {
                let mut peripheral = Peripheral::heard_first(now);
                peripheral.hear(now, sighting);
                near.insert(address.into(), peripheral);
            }
        }
    }

    /// Forgets whatever was not heard for so long. One with a link need not advertise to be there.
    pub fn forget_unheard(&mut self, now: Instant, longer_than: Duration) {
        for near in self.by_adapter.values_mut() {
            near.retain(|_, it| it.connected || now.saturating_duration_since(it.heard) <= longer_than);
        }
        self.by_adapter.retain(|_, near| !near.is_empty());
    }

    /// Forgets one.
    pub fn forget(&mut self, adapter: &str, address: &str) {
        if let Some(near) = self.by_adapter.get_mut(adapter) {
            near.remove(address);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_adapter.values().map(BTreeMap::len).sum()
    }

    /// Whether none was heard.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name and services of one, for deciding whose it is.
    #[allow(clippy::type_complexity, reason = "a name and a list, told once")]
    pub fn heard_of(&self, adapter: &str, address: &str) -> Option<(Option<&Arc<str>>, &[Arc<str>])> {
        let it = self.by_adapter.get(adapter)?.get(address)?;
        Some((it.name.as_ref(), &it.services))
    }

    /// The adapter that hears this address best, and how well in dBm. One without a signal counts as the worst.
    pub fn best_adapter(&self, address: &str) -> Option<(Arc<str>, Option<i16>)> {
        let hearing = self.by_adapter.iter().filter_map(|(adapter, near)| Some((adapter, near.get(address)?)));
        let best = hearing.max_by(|(_, one), (_, other)| one.strength().total_cmp(&other.strength()))?;
        Some((best.0.clone(), best.1.rssi()))
    }

    /// Somebody wants to see the list: it is kept fresh for a while.
    pub fn ask_for(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// Whether somebody wanted to see the list lately.
    pub fn is_asked_for(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now.duration_since(asked) < ASKED)
    }

    /// All of them, the strongest first.
    pub fn snapshot(&self, now: Instant) -> Vec<Near> {
        let mut all: Vec<Near> = Vec::with_capacity(self.len());
        for (adapter, near) in &self.by_adapter {
            all.extend(near.iter().map(|(address, it)| it.shown(now, adapter, address)));
        }
        all.sort_by_key(|near| std::cmp::Reverse(near.rssi.unwrap_or(i16::MIN)));
        if let Some(near) = all.iter_mut().find(|near| near.rising) {
            near.this_one = true;
        }
        all
    }

    fn forget_the_oldest(&mut self) {
        let all = self.by_adapter.iter().flat_map(|(adapter, near)| near.iter().map(move |(at, it)| (adapter, at, it)));
        let oldest =
            all.min_by_key(|(_, _, it)| it.heard).map(|(adapter, address, _)| (adapter.clone(), address.clone()));
        if let Some((adapter, address)) = oldest {
            self.forget(&adapter, &address);
        }
    }
}

impl Peripheral {
    fn heard_first(now: Instant) -> Self {
        Peripheral {
            heard: now,
            name: None,
            signal: None,
            services: Vec::new(),
            service_data: Vec::new(),
            manufacturer: Vec::new(),
            connected: false,
            paired: false,
        }
    }

    fn hear(&mut self, now: Instant, sighting: Sighting) {
        self.heard = self.heard.max(now);
        if let Some(name) = sighting.name.as_deref().map(legible).filter(|name| !name.is_empty()) {
            self.name = Some(name);
        }
        // BlueZ says 127 where it does not know; a receiver of this class hears nothing below -127 dBm.
        if let Some(rssi) = sighting.rssi.filter(|rssi| (-127..=20).contains(rssi)) {
            self.signal = Some(Signal::after(self.signal, now, f64::from(rssi)));
        }
        for service in sighting.services {
            if self.services.len() < MOST_OF_EACH && !self.services.contains(&service) {
                self.services.push(service);
            }
        }
        for (uuid, payload) in sighting.service_data {
            lay(&mut self.service_data, uuid, payload);
        }
        for (company, payload) in sighting.manufacturer {
            lay(&mut self.manufacturer, company, payload);
        }
        self.connected = sighting.connected.unwrap_or(self.connected);
        self.paired = sighting.paired.unwrap_or(self.paired);
    }

    fn rssi(&self) -> Option<i16> {
        self.signal.map(|signal| signal.quick.round() as i16)
    }

    fn strength(&self) -> f64 {
        self.signal.map_or(f64::NEG_INFINITY, |signal| signal.quick)
    }

    fn shown(&self, now: Instant, adapter: &Arc<str>, address: &Arc<str>) -> Near {
        let shown = |id: Arc<str>, payload: &Bytes| Payload { id, hex: hex(payload) };
        Near {
            address: address.clone(),
            adapter: adapter.clone(),
            name: self.name.clone(),
            rssi: self.rssi(),
            rising: self.signal.is_some_and(|signal| signal.rises(now)),
            this_one: false,
            seconds: now.saturating_duration_since(self.heard).as_secs(),
            connected: self.connected,
            paired: self.paired,
            services: self.services.clone(),
            service_data: self.service_data.iter().map(|(uuid, payload)| shown(uuid.clone(), payload)).collect(),
            manufacturer: self
                .manufacturer
                .iter()
                .map(|(company, payload)| shown(format!("{company:04x}").into(), payload))
                .collect(),
        }
    }
}

impl Signal {
    fn after(before: Option<Signal>, now: Instant, rssi: f64) -> Signal {
        let Some(Signal { quick, slow, values, at }) = before else {
            return Signal { quick: rssi, slow: rssi, values: 1, at: now };
        };
        // Events that come in one burst still count a little each.
        let passed = now.saturating_duration_since(at).max(Duration::from_millis(50)).as_secs_f64();
        let towards =
            |average: f64, over: Duration| average + (rssi - average) * (1.0 - (-passed / over.as_secs_f64()).exp());
        let (quick, slow) = (towards(quick, QUICK), towards(slow, SLOW));
        Signal { quick, slow, values: values.saturating_add(1), at: at.max(now) }
    }

    fn rises(&self, now: Instant) -> bool {
        self.values >= LEAST_VALUES
            && self.quick - self.slow >= RISE_DB
            && now.saturating_duration_since(self.at) <= SIGNAL_AGE
    }
}

/// A name without what would move a terminal's cursor or turn its text around.
fn legible(name: &str) -> Arc<str> {
    let turns = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = name.trim_end_matches('\0').chars().take(NAME_CHARS);
    shown.map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect::<String>().into()
}

/// Puts an element in the place of the one that had its id; a new one only where there is room.
fn lay<K: PartialEq>(elements: &mut Vec<(K, Bytes)>, id: K, payload: Bytes) {
    let payload = match payload.len() > PAYLOAD_BYTES {
        // A slice would keep the whole of it alive.
        true => Bytes::copy_from_slice(&payload[..PAYLOAD_BYTES]),
        false => payload,
    };
    match elements.iter().position(|(known, _)| *known == id) {
        Some(at) => elements[at].1 = payload,
        None if elements.len() < MOST_OF_EACH => elements.push((id, payload)),
        None => {}
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        let _a_string_takes_all = write!(hex, "{byte:02x}");
        hex
    })
}
