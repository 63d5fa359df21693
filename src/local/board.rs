//! What the gateway knows of itself, gathered for whoever asks.

use std::sync::Arc;
#[cfg(feature = "ble")]
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};

use super::persons::Order;
use crate::clock::system;
use crate::coverage::{LastDay, by_name};
use crate::forward::failover::CURSOR;
use crate::forward::{self, Gate};
use crate::intake::Taps;
use crate::local::condition::{Condition, Destination, Seen};
use crate::local::listener::Listening;
use crate::local::metrics::Named;
use crate::quarantine::Quarantine;
use crate::reading::{BootId, Heard, RunId};
use crate::resolve::{Resolved, Resolver, Timeline};
use crate::source;
#[cfg(feature = "ble")]
use crate::source::ble::nearby::{Near, Nearby};
use crate::store::{self, Store};

/// Everything that a status is made of.
pub struct Board {
    /// This process start's boot.
    pub boot: BootId,
    /// This process start.
    pub run: RunId,
    /// The queue.
    pub store: Store,
    /// What passes.
    pub taps: Taps,
    /// State and counts of devices and brokers.
    pub sources: Arc<source::health::Health>,
    /// State and counts of destinations.
    pub destinations: Vec<forward::health::Health>,
    /// Anchors and bases, for rendering rows.
    pub timeline: watch::Receiver<Arc<Timeline>>,
    /// What is set aside.
    pub quarantine: Arc<Quarantine>,
    /// Whether rows wait for the clock.
    pub gate: watch::Receiver<Gate>,
    /// Changes of who wears what, for the gateway to carry out.
    pub orders: mpsc::Sender<Order>,
    /// Where what will never come is told to the account of each device's seconds.
    pub gone: mpsc::Sender<Vec<store::Gap>>,
    /// Seconds of each device in the last 24 hours.
    pub last_day: watch::Receiver<LastDay>,
    /// The Bluetooth peripherals that are heard, listed or not.
    #[cfg(feature = "ble")]
    pub nearby: Arc<Mutex<Nearby>>,
    /// When the process started, in milliseconds of uptime.
    pub started_ms: u64,
    /// Whether the configuration says that nothing is sent for now.
    pub offline: bool,
    /// The TCP listener's state.
    pub listening: Listening,
    /// Who has metrics of its own.
    pub named: Named,
}

impl Board {
    /// How everything is now.
    pub fn condition(&self) -> Condition {
        let timeline = self.timeline.borrow().clone();
        let (ledger, stat) = (self.store.ledger(), self.store.stat());
        let age_s = |heard: Heard| age_ms(&timeline, self.boot, heard) / 1_000;
        let healths: Vec<_> = self.destinations.iter().map(forward::health::Health::snapshot).collect();
        let order: Vec<_> = healths.iter().filter(|health| health.active.is_some()).cloned().collect();
        let of = |name: &str| match name == CURSOR && !order.is_empty() {
            true => order.iter().find(|health| health.active == Some(true)).cloned(),
            false => healths.iter().find(|health| health.name == name).cloned(),
        };
        let destination = |(name, tally): &(String, store::DestinationTally)| Destination {
            name: name.clone(),
            health: of(name),
            order: if name == CURSOR { order.clone() } else { Vec::new() },
            tally: *tally,
            oldest_waiting_s: stat
                .destinations
                .iter()
                .find(|of| of.name == *name)
                .and_then(|of| of.oldest_waiting)
                .map(age_s),
        };
        let last_day = self.last_day.borrow().clone();
        let seen = |source: source::health::Snapshot| Seen {
            heard_ago_s: source.last_heard.map(age_s),
            last_day_s: last_day.get(&source.name).map(by_name),
            source,
        };
        Condition {
            gateway: timeline.bases.last_key_value().map(|(_, basis)| basis.gateway_id.clone()),
            uptime_s: system::uptime_ms().saturating_sub(self.started_ms) / 1_000,
            held: match &*self.gate.borrow() {
                Gate::Open => None,
                Gate::Held(reason) => Some(reason.clone()),
            },
            synchronised: timeline.anchors.is_synced(self.boot),
            offline: self.offline,
            failure: self.store.failure().map(|why| why.to_string()),
            oldest_waiting_s: stat.oldest_waiting.map(age_s),
            sources: self.sources.snapshot().into_iter().map(seen).collect(),
            destinations: ledger.destinations.iter().map(destination).collect(),
            ledger,
            store: stat,
        }
    }

    /// One JSON document: gateway, clock, ledger, store, devices, destinations, each device's last day.
    pub fn status(&self) -> Value {
        let mut document = self.condition().document();
        document["local"] = self.listening.document();
        document["coverage"] = last_day(&self.last_day.borrow());
        document
    }

    /// What is near, the strongest first. Who asks makes the radio listen for a while.
    #[cfg(feature = "ble")]
    pub fn near(&self) -> Vec<Near> {
        let now = tokio::time::Instant::now();
        let mut nearby = self.nearby.lock().unwrap_or_else(PoisonError::into_inner);
        nearby.ask_for(now);
        nearby.snapshot(now)
    }

    /// The oldest kept rows, as they would be rendered now. Nothing moves by it.
    pub async fn export(&self, limit: usize) -> Result<Vec<Value>, store::Error> {
        let timeline = self.timeline.borrow().clone();
        export(&self.store, &timeline, limit).await
    }
}

/// Seconds of each device in the last 24 hours, by what they were.
pub fn last_day(of: &LastDay) -> Value {
    of.iter().map(|(device, seconds)| (device.to_string(), json!(by_name(seconds)))).collect::<Map<_, _>>().into()
}

/// How long ago something was heard: by the uptime where it was in this boot, else by what is known of that boot.
fn age_ms(timeline: &Timeline, boot: BootId, heard: Heard) -> u64 {
    if heard.boot == boot && boot != BootId::WALL {
        return system::uptime_ms().saturating_sub(heard.ms);
    }
    let (then, _) = timeline.anchors.unix_ms(timeline.anchors.version(), heard);
    u64::try_from(system::wall_ms().saturating_sub(then)).unwrap_or(0)
}

/// The rows of at most `limit` of the oldest observations that the store still keeps.
pub async fn export(store: &Store, timeline: &Timeline, limit: usize) -> Result<Vec<Value>, store::Error> {
    let Some((_, basis)) = timeline.bases.last_key_value() else { return Ok(Vec::new()) };
    let resolver = Resolver::new(&timeline.anchors, timeline.anchors.version(), basis);
    let mut rows = Vec::new();
    for chunk in store.export(0, limit).await? {
        for observation in chunk.observations {
            if let Resolved::Event(event) = resolver.resolve(chunk.run, observation) {
                rows.push(serde_json::to_value(event).unwrap_or_default());
            }
        }
    }
    rows.truncate(limit);
    Ok(rows)
}
