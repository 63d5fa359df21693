//! What the gateway knows of itself, gathered for whoever asks.

use std::sync::Arc;
#[cfg(feature = "ble")]
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::persons::Order;
use crate::clock::system;
use crate::forward::{self, Gate};
use crate::intake::Taps;
use crate::quarantine::Quarantine;
use crate::reading::BootId;
use crate::resolve::{Resolved, Resolver, Timeline};
use crate::source;
#[cfg(feature = "ble")]
use crate::source::ble::nearby::{Near, Nearby};
use crate::store::{self, Store};

/// Everything that a status is made of.
pub struct Board {
    /// This process start's boot.
    pub boot: BootId,
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
    /// The Bluetooth peripherals that are heard, listed or not.
    #[cfg(feature = "ble")]
    pub nearby: Arc<Mutex<Nearby>>,
    /// When the process started, in milliseconds of uptime.
    pub started_ms: u64,
}

impl Board {
    /// One JSON document: gateway, clock, ledger, store, devices, destinations.
    pub fn status(&self) -> Value {
        let timeline = self.timeline.borrow().clone();
        let clock = match &*self.gate.borrow() {
            Gate::Open => "known",
            Gate::Held(reason) => reason,
        }
        .to_owned();
        json!({
            "gateway": timeline.bases.last_key_value().map(|(_, basis)| basis.gateway_id.clone()),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": system::uptime_ms().saturating_sub(self.started_ms) / 1_000,
            "clock": { "state": clock, "synchronised": timeline.anchors.is_synced(self.boot) },
            "ledger": self.store.ledger(),
            "store": self.store.stat(),
            "devices": self.sources.snapshot(),
            "destinations": self.destinations.iter().map(forward::health::Health::snapshot).collect::<Vec<_>>(),
        })
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
