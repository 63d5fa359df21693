//! The way in: delivery -> interpret -> store -> receipt.
//!
//! One task reads the deliveries of every source, turns them into observations, and collects these into a commit. A
//! commit ends after its interval, when it is large, or when a source waits for half of its receipts. While one commit
//! becomes durable the next one collects; a third never begins, so a slow disk is felt by the sources and nothing else.
//!
//! The ledger's intake counts are made here and travel in the commit that carries what they count.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::interpret::{Catalog, DeviceMemory, Fault, FaultKind, Interpretation};
use crate::observation::{Observation, Value};
use crate::reading::{Heard, Reading, RunId};
use crate::source::delivery::{Delivery, Receipt};
use crate::store::{self, AsideEntry, AsideKind, Commit, StateChange, Store};

mod bursts;
mod repeats;
pub mod seen;
mod watches;

pub use watches::Watches;

use bursts::Bursts;
use repeats::Repeats;
use seen::Seen;

/// A commit of so many observations ends at once.
pub(crate) const MAX_OBSERVATIONS: usize = 4_096;

/// A commit whose observations take so many bytes before compression ends at once. With one more reading it stays below
/// the 96 KiB of one chunk whatever the values are made of, so a commit is one record: a crash never leaves half of it.
pub(crate) const MAX_COLLECTED_BYTES: usize = 64 << 10;

/// A commit whose set-aside readings take so many bytes ends at once.
const MAX_ASIDE_BYTES: usize = 384 << 10;

/// What an observation takes in a chunk beside its metadata, at most.
const OBSERVATION_BYTES: usize = 32;

/// A reading whose observations carry more metadata than this is refused whole: it could not share a record.
const MAX_READING_BYTES: usize = 24 << 10;

/// State keys of device memories begin so; the rest is the `device_id`.
pub(crate) const DEVICE_STATE: &str = "device/";

/// Most deliveries that are taken between two looks at everything else the task waits for.
const MAX_AT_ONCE: usize = 64;

/// So many devices are remembered over a restart.
const MAX_MEMORIES: usize = 8_192;

/// How many taps may lag behind before they lose the oldest.
const TAP_CAPACITY: usize = 1_024;

/// What passes the intake, for `record`, the live line of `demo` and the like. Nobody listening costs nothing.
#[derive(Debug, Clone)]
pub struct Taps {
    /// Every reading, before it is interpreted.
    pub readings: broadcast::Sender<Reading>,
    /// Every observation that will be stored.
    pub observations: broadcast::Sender<Observation>,
    /// What is known of each device.
    pub seen: Seen,
}

impl Default for Taps {
    fn default() -> Self {
        Taps {
            readings: broadcast::Sender::new(TAP_CAPACITY),
            observations: broadcast::Sender::new(TAP_CAPACITY),
            seen: Seen::default(),
        }
    }
}

/// What the intake is made with.
pub struct Parts {
    /// The queue that observations go to.
    pub store: Store,
    /// This process start.
    pub run: RunId,
    /// Profiles and entries; replaced whole when the configuration is read again.
    pub catalog: Arc<RwLock<Arc<Catalog>>>,
    /// Where passing values can be seen.
    pub taps: Taps,
    /// The account of each device's seconds.
    pub watches: Watches,
    /// How long a commit collects.
    pub commit_interval: Duration,
}

type Committing = Pin<Box<dyn Future<Output = Result<(), store::Error>> + Send>>;

/// The task's state.
pub struct Intake {
    parts: Parts,
    next_reading: u64,
    memories: HashMap<Arc<str>, DeviceMemory>,
    repeats: Repeats,
    bursts: Bursts,
    collecting: Collecting,
    /// Receipts of the commit that is becoming durable.
    committing: Option<(Committing, Vec<Receipt>)>,
}

/// The commit that is being collected.
#[derive(Default)]
struct Collecting {
    commit: Commit,
    bytes: usize,
    aside_bytes: usize,
    changed: HashSet<Arc<str>>,
    receipts: Vec<Receipt>,
    /// Receipts by source, with the source's window.
    awaited: HashMap<Arc<str>, (usize, usize)>,
    since: Option<Instant>,
}

impl Intake {
    /// Takes up what the store remembers of devices and of unacknowledged messages.
    pub fn new(parts: Parts) -> Self {
        let mut memories = HashMap::new();
        let mut collecting = Collecting::default();
        for (key, bytes) in parts.store.state(DEVICE_STATE) {
            if memories.len() < MAX_MEMORIES {
                memories.insert(Arc::from(&key[DEVICE_STATE.len()..]), DeviceMemory::from_state(&bytes));
            } else {
                // Names come and go with what publishers call themselves; their counters begin anew.
                collecting.commit.state.push(StateChange { key, value: None });
            }
        }
        Intake {
            next_reading: 0,
            memories,
            repeats: Repeats::from_state(&parts.store),
            bursts: Bursts::default(),
            collecting,
            committing: None,
            parts,
        }
    }

    /// Runs until every source has gone and all that they brought is durable, or the store fails.
    ///
    /// `drain` becomes true when the gateway stops: what is in the channel is still taken and committed.
    pub async fn run(
        mut self,
        mut deliveries: mpsc::Receiver<Delivery>,
        mut drain: watch::Receiver<bool>,
    ) -> Result<(), store::Error> {
        let mut open = true;
        let mut received = Vec::new();
        // What was received and not taken yet; left over only when the commit is full.
        let mut arrived = Vec::new().into_iter();
        while open || self.committing.is_some() || self.collecting.since.is_some() || arrived.len() > 0 {
            self.take_from(&mut arrived);
            let full = self.collecting.is_full();
            let draining = !open || *drain.borrow();
            if self.committing.is_none()
                && (full
                    || self.collecting.is_due()
                    || (draining && self.collecting.since.is_some() && deliveries.is_empty()))
            {
                self.begin_commit();
            }
            let due = self.collecting.since.map(|since| since + self.parts.commit_interval);
            tokio::select! {
                biased;
                done = async { match &mut self.committing { Some((future, _)) => future.await, None => std::future::pending().await } } => {
                    done?;
                    if let Some((_, receipts)) = self.committing.take() {
                        crash_point!("intake.receipt.before");
                        receipts.into_iter().for_each(Receipt::give);
                        crash_point!("intake.receipt.after");
                    }
                }
                count = deliveries.recv_many(&mut received, MAX_AT_ONCE), if open && !full => {
                    open = count > 0;
                    arrived = std::mem::take(&mut received).into_iter();
                }
                () = async { match due { Some(due) => sleep_until(due).await, None => std::future::pending().await } }, if self.committing.is_none() => {
                    self.begin_commit();
                }
                changed = drain.changed(), if !draining => {
                    if changed.is_err() { open = false; }
                    deliveries.close();
                }
            }
        }
        Ok(())
    }

    fn begin_commit(&mut self) {
        let mut collected = std::mem::take(&mut self.collecting);
        for device in collected.changed {
            if let Some(memory) = self.memories.get(&device) {
                let key = format!("{DEVICE_STATE}{device}");
                collected.commit.state.push(StateChange { key, value: Some(memory.to_state()) });
            }
        }
        let store = self.parts.store.clone();
        let commit = collected.commit;
        let durable: Committing = Box::pin(async move { store.commit(commit).await.map(drop) });
        self.committing = Some((durable, collected.receipts));
    }

    /// Takes deliveries until there are no more or the commit is full.
    fn take_from(&mut self, arrived: &mut std::vec::IntoIter<Delivery>) {
        if arrived.len() == 0 {
            return;
        }
        let catalog = Arc::clone(&self.parts.catalog.read().unwrap_or_else(|poisoned| poisoned.into_inner()));
        while !self.collecting.is_full()
            && let Some(delivery) = arrived.next()
        {
            self.take(delivery, &catalog);
        }
    }

    fn take(&mut self, delivery: Delivery, catalog: &Catalog) {
        self.collecting.since.get_or_insert_with(Instant::now);
        let number = self.next_reading;
        self.next_reading += 1;
        let repeated = delivery.publish.as_ref().is_some_and(|publish| self.repeats.is_repeat(publish));
        self.collecting.commit.intake.accepted += 1;
        if repeated {
            self.collecting.commit.intake.duplicate += 1;
        } else {
            self.interpret(&delivery.reading, delivery.clock_checked, number, catalog);
            if let Some(publish) = &delivery.publish {
                self.collecting.commit.state.push(self.repeats.remember(publish));
            }
        }
        if let Some(receipt) = delivery.receipt {
            self.collecting.await_receipt(receipt);
        }
    }

    fn interpret(&mut self, reading: &Reading, clock_checked: bool, number: u64, catalog: &Catalog) {
        if self.parts.taps.readings.receiver_count() > 0 {
            let _nobody_listens = self.parts.taps.readings.send(reading.clone());
        }
        let memory = match self.memories.get_mut(&reading.device) {
            Some(memory) => memory,
            None => self.memories.entry(reading.device.clone()).or_default(),
        };
        let newly_checked = memory.set_clock_checked(clock_checked);
        let before = (memory.counters(), memory.resets());
        let interpretation = catalog.interpret(reading, number, memory);
        if (newly_checked || interpretation.memory_changed) && !self.collecting.changed.contains(&reading.device) {
            self.collecting.changed.insert(reading.device.clone());
        }
        let refused = refused_for(&interpretation, 0);
        self.parts.watches.heard(&reading.device, reading.heard, refused.is_some(), &interpretation);
        self.parts.taps.seen.heard(reading, refused.as_deref(), &interpretation);
        self.report(reading, &interpretation.faults);
        self.collect(reading, number, catalog, interpretation, before);
    }

    /// Puts what came of a reading into the commit and counts it: each reading in exactly one of four ways.
    /// `before`: the device's totals and resets from before it.
    fn collect(
        &mut self,
        reading: &Reading,
        number: u64,
        catalog: &Catalog,
        interpretation: Interpretation,
        before: (Vec<(Arc<str>, f64, Heard)>, u64),
    ) {
        let carried: usize = interpretation.observations.iter().map(carried_bytes).sum();
        let aside_before = self.collecting.commit.aside.len();
        let profile = || catalog.profile_of(&reading.entry).unwrap_or_default();
        let aside = |kind, reason: String, which| AsideEntry {
            which,
            counters: before.0.clone(),
            resets: before.1,
            ..aside(kind, reason, reading, number, profile(), self.parts.run)
        };
        let Commit { observations, aside: set_aside, intake, .. } = &mut self.collecting.commit;
        if interpretation.duplicate {
            intake.duplicate += 1;
        } else if let Some(reason) = refused_for(&interpretation, carried) {
            intake.refused += 1;
            if carried > MAX_READING_BYTES {
                intake.oversized += 1;
                warn!(device = &*reading.device, "refused a reading: {reason}");
            }
            set_aside.push(aside(AsideKind::Refused, reason, None));
        } else if interpretation.observations.is_empty() && interpretation.implausible.is_empty() {
            intake.without_event += 1;
        } else {
            intake.decoded += 1;
            intake.made += (interpretation.observations.len() + interpretation.implausible.len()) as u64;
            intake.implausible += interpretation.implausible.len() as u64;
            intake.stored += interpretation.observations.len() as u64;
            set_aside.extend(interpretation.implausible.into_iter().map(|(observation, reason)| {
                aside(AsideKind::Implausible, reason, Some((observation.index, observation.event_type)))
            }));
            if self.parts.taps.observations.receiver_count() > 0 {
                for observation in &interpretation.observations {
                    let _nobody_listens = self.parts.taps.observations.send(observation.clone());
                }
            }
            observations.extend(interpretation.observations);
        }
        self.collecting.bytes += carried;
        self.collecting.aside_bytes +=
            self.collecting.commit.aside[aside_before..].iter().map(|entry| entry.bytes.len()).sum::<usize>();
    }

    /// Says what went wrong, once per burst of the same fault of the same device.
    fn report(&mut self, reading: &Reading, faults: &[Fault]) {
        for fault in faults {
            if let Some(suppressed) = self.bursts.first_of_burst(&reading.device, fault.kind) {
                let (kind, again) = (fault.kind, suppressed);
                warn!(device = &*reading.device, ?kind, since_last_told = again, "{}: {}", fault.field, fault.message);
            }
        }
    }
}

/// Why a reading is refused as a whole. A stop half-way keeps what came before it. `carried`: what its observations take.
pub(crate) fn refused_for(interpretation: &Interpretation, carried: usize) -> Option<String> {
    if carried > MAX_READING_BYTES {
        return Some(format!("its observations carry {carried} bytes of metadata, more than {MAX_READING_BYTES}"));
    }
    let refuses = |fault: &&Fault| matches!(fault.kind, FaultKind::Refused | FaultKind::NoKey);
    let fault = interpretation.faults.iter().find(refuses)?;
    Some(format!("{}: {}", fault.field, fault.message))
}

fn aside(kind: AsideKind, reason: String, reading: &Reading, number: u64, profile: Arc<str>, run: RunId) -> AsideEntry {
    AsideEntry {
        kind,
        reason,
        device: reading.device.clone(),
        entry: reading.entry.clone(),
        channel: reading.channel.clone(),
        profile,
        run,
        reading: number,
        heard: reading.heard,
        bytes: reading.bytes.to_vec(),
        destination: None,
        which: None,
        counters: Vec::new(),
        resets: 0,
    }
}

/// How many bytes an observation takes before compression, at most. Names are in the chunk's table, once each.
pub(crate) fn carried_bytes(observation: &Observation) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::Null | Value::Bool(_) => 1,
            Value::Int(_) | Value::Num(_) => 9,
            Value::Text(text) => 3 + text.len(),
            Value::List(values) => 3 + values.iter().map(of).sum::<usize>(),
        }
    }
    OBSERVATION_BYTES + observation.metadata.iter().map(|(_, value)| 3 + of(value)).sum::<usize>()
}

impl Collecting {
    fn await_receipt(&mut self, receipt: Receipt) {
        let awaited = self.awaited.entry(receipt.source.clone()).or_insert((0, receipt.window));
        awaited.0 += 1;
        self.receipts.push(receipt);
    }

    fn is_full(&self) -> bool {
        self.commit.observations.len() >= MAX_OBSERVATIONS
            || self.bytes >= MAX_COLLECTED_BYTES
            || self.aside_bytes >= MAX_ASIDE_BYTES
    }

    /// Whether it should end before its interval: it is full, or a source waits for half of its window.
    fn is_due(&self) -> bool {
        self.is_full() || self.awaited.values().any(|(waiting, window)| waiting * 2 >= *window)
    }
}
