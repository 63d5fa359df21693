//! A source under test: its context, the intake's end of the channel, and what reaches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use biogate::reading::{BootId, Heard};
use biogate::source::context::{Context, Stop};
use biogate::source::delivery::{self, Delivery};
use biogate::source::health::{Count, Health};
use tokio::sync::{mpsc, watch};

use super::DEADLINE;

/// The intake's side of a source.
pub(crate) struct Rig {
    pub(crate) deliveries: mpsc::Receiver<Delivery>,
    pub(crate) health: Arc<Health>,
    pub(crate) stop: watch::Sender<bool>,
}

impl Rig {
    /// A context for a source, and the other side of it.
    pub(crate) fn new() -> (Context, Rig) {
        let (inlet, deliveries) = delivery::channel();
        let health = Arc::new(Health::default());
        let (stop, switch) = watch::channel(false);
        let ticks = AtomicU64::new(1_000);
        let uptime = Arc::new(move || Heard { boot: BootId::WALL, ms: ticks.fetch_add(1, Relaxed) });
        let context =
            Context { inlet, health: health.clone(), uptime, wall: Arc::new(|| None), stop: Stop::new(switch) };
        (context, Rig { deliveries, health, stop })
    }

    /// The next delivery; panics at the deadline.
    pub(crate) async fn next(&mut self) -> Delivery {
        let next = tokio::time::timeout(DEADLINE, self.deliveries.recv()).await;
        next.expect("a delivery in time").expect("the source is there")
    }

    /// The next delivery's payload as text; its receipt is given.
    pub(crate) async fn next_text(&mut self) -> String {
        let delivery = self.next().await;
        let text = String::from_utf8_lossy(&delivery.reading.bytes).into_owned();
        if let Some(receipt) = delivery.receipt {
            receipt.give();
        }
        text
    }

    /// Nothing more comes for a moment: for what must never come.
    pub(crate) async fn nothing_comes(&mut self) {
        let more = tokio::time::timeout(Duration::from_millis(300), self.deliveries.recv()).await;
        assert!(more.is_err(), "came: {more:?}");
    }

    pub(crate) fn count(&self, name: &str, kind: Count) -> u64 {
        self.health.device(name).total(kind)
    }

    pub(crate) fn state(&self, name: &str) -> String {
        self.health.device(name).snapshot().state
    }
}
