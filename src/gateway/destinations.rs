//! The loops that run: one for each destination, and one for those of a failover together.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::timekeeping::Timekeeping;
use crate::config::Config;
use crate::forward::health::Health;
use crate::forward::{Forwarder, Inputs};
use crate::store::{self, Store};

/// All running loops.
pub(super) struct Forwarding {
    stop: watch::Sender<Option<Instant>>,
    loops: JoinSet<Result<(), store::Error>>,
    healths: Vec<Health>,
}

impl Forwarding {
    /// Starts the loop of every destination.
    pub(super) fn start(config: &Config, store: &Store, timekeeping: &Timekeeping) -> anyhow::Result<Forwarding> {
        let (stop, stopping) = watch::channel(None);
        let mut forwarding = Forwarding { stop, loops: JoinSet::new(), healths: Vec::new() };
        if config.gateway.offline {
            info!("gateway.offline is true: nothing is sent, events wait in the store");
            return Ok(forwarding);
        }
        let inputs = || Inputs { gate: timekeeping.gate(), timeline: timekeeping.timeline(), stop: stopping.clone() };
        for destination in config.destinations.iter().filter(|to| !config.is_in_order(&to.name)) {
            let forwarder = Forwarder::new(destination, store.clone(), inputs(), fastrand::u64(..));
            forwarding.spawn(forwarder.map_err(anyhow::Error::msg)?);
        }
        if let Some(failover) = &config.failover {
            let named = |name: &String| config.destinations.iter().find(|to| to.name == *name);
            let order: Vec<_> = failover.order.iter().filter_map(named).collect();
            let seed = fastrand::u64(..);
            let forwarder = Forwarder::with_failover(failover.clone(), &order, store.clone(), inputs(), seed);
            forwarding.spawn(forwarder.map_err(anyhow::Error::msg)?);
        }
        Ok(forwarding)
    }

    fn spawn(&mut self, forwarder: Forwarder) {
        self.healths.extend(forwarder.healths());
        self.loops.spawn(forwarder.run());
    }

    /// How each destination is.
    pub(super) fn healths(&self) -> Vec<Health> {
        self.healths.clone()
    }

    /// Returns only when a loop has ended, which only an error of the store does.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        match self.loops.join_next().await {
            Some(Ok(Ok(()))) => anyhow::anyhow!("a destination's loop ended although nobody stopped it"),
            Some(Ok(Err(why))) => anyhow::Error::new(why).context("the store failed"),
            Some(Err(why)) => anyhow::Error::new(why).context("a destination's loop failed"),
            None => std::future::pending().await,
        }
    }

    /// The batches in hand may finish until the deadline; what does not stays stored and is sent again.
    pub(super) async fn stop(&mut self, deadline: Duration) {
        let end = Instant::now() + deadline;
        self.stop.send_replace(Some(end));
        let all = async { while self.loops.join_next().await.is_some() {} };
        if timeout_at(end + Duration::from_millis(200), all).await.is_err() {
            info!("a batch is still under way; it stays stored and is sent again");
            self.loops.abort_all();
        }
    }
}
