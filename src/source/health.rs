//! How each source is: state in words, last heard, and counts. Atomics, bounded, read by `status` and metrics.
//!
//! A state is logged when it changes and a fault once per burst, never per frame: a device that sends garbage for a
//! week writes a line when it begins and one more each time it begins again after a quiet minute.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tracing::{info, warn};

use crate::reading::Heard;

/// How many devices and brokers are told apart; what comes after shares one entry.
pub const MOST_ENTRIES: usize = 8_192;

/// The name of the shared entry.
const OTHERS: &str = "(others)";

/// A burst of faults ends after this many quiet milliseconds.
const BURST_QUIET_MS: u64 = 60_000;

/// What is counted per device or broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Whole frames or messages heard.
    Frames,
    /// Bytes skipped to find the start of a frame.
    GarbageBytes,
    /// Frames whose checksum was wrong.
    ChecksumFailures,
    /// Frames or messages over the limit of size.
    Oversized,
    /// Messages dropped because their device sent too many.
    Flooded,
    /// Readings dropped for another reason.
    Dropped,
    /// Connections or ports lost.
    Disconnects,
    /// Retained MQTT messages, which are old news.
    Retained,
    /// Messages whose device name is not allowed, or one too many.
    Refused,
    /// Times that a device was silent for too long.
    Silences,
    /// Tries to reach a device that failed.
    Failures,
}

/// The kinds in the order of their places, with the words that a log line uses.
const KINDS: [(Count, &str); 11] = [
    (Count::Frames, "frames"),
    (Count::GarbageBytes, "bytes of garbage"),
    (Count::ChecksumFailures, "frames with a wrong checksum"),
    (Count::Oversized, "over the limit of size"),
    (Count::Flooded, "dropped because the device floods"),
    (Count::Dropped, "dropped"),
    (Count::Disconnects, "disconnects"),
    (Count::Retained, "retained messages passed over"),
    (Count::Refused, "refused"),
    (Count::Silences, "silences"),
    (Count::Failures, "failed tries"),
];

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A device that is read over Bluetooth.
    Bluetooth,
    /// A device on a serial line.
    Serial,
    /// A device whose messages come through a broker.
    Mqtt,
    /// An MQTT broker.
    Broker,
    /// A Bluetooth adapter, or bluetoothd as a whole.
    Radio,
    /// A recording, or the entry that names beyond the bound share.
    Other,
}

impl Kind {
    /// As `status` and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bluetooth => "bluetooth",
            Kind::Serial => "serial",
            Kind::Mqtt => "mqtt",
            Kind::Broker => "broker",
            Kind::Radio => "radio",
            Kind::Other => "other",
        }
    }

    /// Whether it is a sensor, and not what sensors are reached through.
    pub fn is_device(self) -> bool {
        !matches!(self, Kind::Broker | Kind::Radio)
    }
}

/// The health of all sources.
#[derive(Debug, Default)]
pub struct Health {
    entries: Mutex<BTreeMap<Arc<str>, Arc<DeviceHealth>>>,
}

/// The health of one device or broker.
#[derive(Debug)]
pub struct DeviceHealth {
    name: Arc<str>,
    kind: OnceLock<Kind>,
    state: Mutex<State>,
    last_heard: Mutex<Option<Heard>>,
    out_of_reach: AtomicBool,
    counts: [AtomicU64; KINDS.len()],
    /// When the last fault of a kind was counted, in milliseconds since `since`, plus one; 0 for never.
    last_fault: [AtomicU64; KINDS.len()],
    since: Instant,
    /// What only some sources count, by its name in `status` and metrics.
    named: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Debug)]
struct State {
    words: String,
    trouble: bool,
}

/// What `status` shows of one device or broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// The device's name, or `broker NAME`.
    pub name: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// Its state in words.
    pub state: String,
    /// Whether the words tell of something that is not as it should be.
    pub trouble: bool,
    /// When it was last heard.
    pub last_heard: Option<Heard>,
    /// Its port, link or broker is not there.
    pub out_of_reach: bool,
    /// Whole frames or messages heard.
    pub frames: u64,
    /// Bytes skipped to find the start of a frame.
    pub garbage_bytes: u64,
    /// Frames whose checksum was wrong.
    pub checksum_failures: u64,
    /// Frames or messages over the limit of size.
    pub oversized: u64,
    /// Messages dropped because their device sent too many.
    pub flooded: u64,
    /// Readings dropped for another reason.
    pub dropped: u64,
    /// Connections or ports lost.
    pub disconnects: u64,
    /// Retained messages passed over.
    pub retained: u64,
    /// Messages whose device name is not allowed, or one too many.
    pub refused: u64,
    /// Times that it was silent for too long.
    pub silences: u64,
    /// Tries to reach it that failed.
    pub failures: u64,
    /// What only some sources count.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<&'static str, u64>,
}

impl Health {
    /// The entry of this name, made at first use.
    pub fn device(&self, name: &str) -> Arc<DeviceHealth> {
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.get(name) {
            return entry.clone();
        }
        let name = if entries.len() < MOST_ENTRIES { name } else { OTHERS };
        let name: Arc<str> = name.into();
        entries.entry(name.clone()).or_insert_with(|| Arc::new(DeviceHealth::new(name))).clone()
    }

    /// The entry of a broker: it is no device and must not be taken for one of the same name.
    pub fn broker(&self, name: &str) -> Arc<DeviceHealth> {
        self.device(&format!("broker {name}"))
    }

    /// Every entry as it is now, by name.
    pub fn snapshot(&self) -> Vec<Snapshot> {
        lock(&self.entries).values().map(|entry| entry.snapshot()).collect()
    }
}

impl DeviceHealth {
    fn new(name: Arc<str>) -> Self {
        DeviceHealth {
            name,
            kind: OnceLock::new(),
            state: Mutex::new(State { words: "starting".to_owned(), trouble: false }),
            last_heard: Mutex::new(None),
            out_of_reach: AtomicBool::new(false),
            counts: Default::default(),
            last_fault: Default::default(),
            since: Instant::now(),
            named: Mutex::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Says what it is; the first word stays.
    pub fn set_kind(&self, kind: Kind) {
        self.kind.get_or_init(|| kind);
    }

    /// Its state in words, with nothing wrong; logged when it differs from the last one.
    pub fn set_state(&self, state: &str) {
        self.say(state, false);
    }

    /// The same, of something that is not as it should be.
    pub fn set_trouble(&self, state: &str) {
        self.say(state, true);
    }

    fn say(&self, words: &str, trouble: bool) {
        let mut current = lock(&self.state);
        current.trouble = trouble;
        if current.words != words {
            words.clone_into(&mut current.words);
            info!(source = %self.name, "{words}");
        }
    }

    /// Whether its port, link or broker is there, so that it could be heard.
    pub fn set_in_reach(&self, in_reach: bool) {
        self.out_of_reach.store(!in_reach, Relaxed);
    }

    /// A whole frame or message was heard.
    pub fn heard(&self, heard: Heard) {
        *lock(&self.last_heard) = Some(heard);
        self.counts[Count::Frames as usize].fetch_add(1, Relaxed);
    }

    /// Counts `n` without a word, for what is no fault.
    pub fn count(&self, kind: Count, n: u64) {
        self.counts[kind as usize].fetch_add(n, Relaxed);
    }

    /// Counts what only some sources count.
    pub fn count_named(&self, name: &'static str, n: u64) {
        *lock(&self.named).entry(name).or_default() += n;
    }

    /// Counts `n` faults; the first of a burst is logged with `detail`.
    pub fn fault(&self, kind: Count, n: u64, detail: &dyn std::fmt::Display) {
        if n == 0 {
            return;
        }
        self.count(kind, n);
        let now = self.since.elapsed().as_millis() as u64 + 1;
        let last = self.last_fault[kind as usize].swap(now, Relaxed);
        if last == 0 || now.saturating_sub(last) > BURST_QUIET_MS {
            warn!(source = %self.name, "{}: {detail}", KINDS[kind as usize].1);
        }
    }

    /// What was counted of this kind.
    pub fn total(&self, kind: Count) -> u64 {
        self.counts[kind as usize].load(Relaxed)
    }

    /// As it is now.
    pub fn snapshot(&self) -> Snapshot {
        let (words, trouble) = {
            let state = lock(&self.state);
            (state.words.clone(), state.trouble)
        };
        Snapshot {
            name: self.name.clone(),
            kind: self.kind.get().copied().unwrap_or(Kind::Other),
            state: words,
            trouble,
            last_heard: *lock(&self.last_heard),
            out_of_reach: self.out_of_reach.load(Relaxed),
            frames: self.total(Count::Frames),
            garbage_bytes: self.total(Count::GarbageBytes),
            checksum_failures: self.total(Count::ChecksumFailures),
            oversized: self.total(Count::Oversized),
            flooded: self.total(Count::Flooded),
            dropped: self.total(Count::Dropped),
            disconnects: self.total(Count::Disconnects),
            retained: self.total(Count::Retained),
            refused: self.total(Count::Refused),
            silences: self.total(Count::Silences),
            failures: self.total(Count::Failures),
            named: lock(&self.named).clone(),
        }
    }
}

/// A lock whose holder cannot leave the value half written: what a panic poisoned is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_own_place() {
        for (place, (kind, _)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, place);
        }
    }

    #[test]
    fn names_beyond_the_bound_share_one_entry() {
        let health = Health::default();
        for n in 0..MOST_ENTRIES + 10 {
            health.device(&n.to_string()).count(Count::Frames, 1);
        }
        assert_eq!(health.snapshot().len(), MOST_ENTRIES + 1);
        assert_eq!(health.device(OTHERS).total(Count::Frames), 10);
    }
}
