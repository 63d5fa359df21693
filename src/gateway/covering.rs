//! The account of each device's seconds: once a minute, spans of uptime become hours in wall time, and complete hours
//! become reports.
//!
//! What was collected since the last minute is lost by a kill, and counts as the hub having been off.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::clock::{Anchors, system};
use crate::config::{Config, Link};
use crate::coverage::hours::{Day, Hours, Row};
use crate::coverage::{LastDay, Second};
use crate::event::ClockQuality;
use crate::forward::Gate;
use crate::intake::Watches;
use crate::reading::{BootId, Heard};
use crate::report::{Kind, Report};
use crate::resolve::Timeline;
use crate::source::health::Health;
use crate::store::{Commit, Gap, StateChange, Store};

/// State keys begin so; then the device, a slash, and the day since the epoch.
const STATE: &str = "coverage/";
/// How often spans become hours, in milliseconds.
const EVERY_MS: u64 = 60_000;
/// With more devices less often, so that the account does not wear out the disk.
const DEVICES_A_MINUTE: usize = 64;
/// A captured name that was silent for so long is no longer expected after a restart.
const FORGOTTEN_AFTER_MS: i64 = 7 * 24 * 3_600_000;

/// What the account is made of.
pub(super) struct Parts {
    pub(super) boot: BootId,
    pub(super) store: Store,
    pub(super) watches: Watches,
    pub(super) sources: Arc<Health>,
    pub(super) timeline: watch::Receiver<Arc<Timeline>>,
    pub(super) gate: watch::Receiver<Gate>,
}

/// The account's ends of what the rest of the gateway has of it.
pub(super) struct Ends {
    gone: mpsc::Receiver<Vec<Gap>>,
    last_day: watch::Sender<LastDay>,
}

/// What left the store without being delivered goes in; seconds of each device in the last 24 hours come out.
pub(super) fn ends() -> (mpsc::Sender<Vec<Gap>>, watch::Receiver<LastDay>, Ends) {
    let (going, gone) = mpsc::channel(4);
    let (telling, last_day) = watch::channel(LastDay::default());
    (going, last_day, Ends { gone, last_day: telling })
}

/// The running account.
pub(super) struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

/// The account.
pub(super) struct Covering {
    parts: Parts,
    hours: HashMap<Arc<str>, Hours>,
    /// When this process started, until the devices that were known before have been told that the hub was off.
    started: Option<Heard>,
    telling: watch::Sender<LastDay>,
}

impl Covering {
    /// Starts the account of the devices of this configuration and of those that were captured lately.
    pub(super) fn start(parts: Parts, ends: Ends, config: &Config) -> Running {
        let covering = Covering::new(parts, config, ends.last_day);
        let (stop, stopping) = watch::channel(false);
        Running { stop, task: tokio::spawn(covering.run(ends.gone, stopping)) }
    }

    /// Takes up what was kept, and expects every device of the configuration.
    fn new(parts: Parts, config: &Config, telling: watch::Sender<LastDay>) -> Covering {
        let started = system::heard_now(parts.boot);
        let hours = kept(&parts.store);
        let newest = hours.values().filter_map(Hours::upto_ms).max().unwrap_or(0);
        let captures = config.devices.iter().any(|device| matches!(device.link, Link::Mqtt { .. }));
        let captured = hours.iter().filter(|(_, of)| captures && of.upto_ms() > Some(newest - FORGOTTEN_AFTER_MS));
        let names: BTreeSet<Arc<str>> = expected(config).chain(captured.map(|(name, _)| name.clone())).collect();
        names.iter().for_each(|name| parts.watches.expect(name, started.ms));
        Covering { parts, hours, started: Some(started), telling }
    }

    /// Until the gateway stops or the store fails.
    async fn run(
        mut self,
        mut gaps: mpsc::Receiver<Vec<Gap>>,
        mut stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        while !*stopping.borrow() {
            let devices = self.hours.len();
            let every = Duration::from_millis(crate::crash::tuned("coverage.every_ms", EVERY_MS));
            let wait = every * (1 + devices / DEVICES_A_MINUTE) as u32;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Some(gaps) = gaps.recv() => self.evicted(&gaps),
                changed = stopping.changed() => if changed.is_err() { break },
            }
            self.keep().await?;
        }
        Ok(())
    }

    /// One turn: what is complete is reported, and everything is kept.
    async fn keep(&mut self) -> anyhow::Result<()> {
        if *self.parts.gate.borrow() != Gate::Open {
            return Ok(());
        }
        let timeline = self.parts.timeline.borrow().clone();
        let Some((_, basis)) = timeline.bases.last_key_value() else { return Ok(()) };
        let gateway = basis.gateway_id.clone();
        self.add_spans(&timeline.anchors);
        let delivered_ms = self.oldest_waiting_ms(&timeline.anchors);
        let (mut state, mut reports) = (Vec::new(), Vec::new());
        for (device, hours) in &mut self.hours {
            reports.extend(hours.due().iter().map(|row| report(&gateway, device, row)));
            hours.forget_before(delivered_ms);
            for (day, kept) in hours.take_changed() {
                let value = kept.as_ref().map(serde_cbor::to_vec).transpose()?;
                state.push(StateChange { key: format!("{STATE}{device}/{day}"), value });
            }
        }
        self.hours.retain(|_, hours| hours.upto_ms().is_some());
        if !reports.is_empty() {
            // First the reports: after a crash between the two they are said again, which does no harm.
            self.parts.store.report(reports).await.context("storing what seconds were")?;
        }
        if !state.is_empty() {
            let commit = Commit { state, ..Commit::default() };
            self.parts.store.commit(commit).await.context("keeping what seconds were")?;
        }
        // What is shown has been kept: a kill takes none of it back.
        let last_day = self.hours.iter().map(|(device, hours)| (device.clone(), hours.last_day()));
        self.telling.send_replace(last_day.collect());
        Ok(())
    }

    /// Spans since the last turn become parts of hours.
    fn add_spans(&mut self, anchors: &Anchors) {
        let now = system::heard_now(self.parts.boot);
        let wall = |ms: u64| anchors.known_ms(anchors.version(), Heard { boot: now.boot, ms });
        if let Some(started) = self.started.take()
            && let Some((started_ms, quality)) = wall(started.ms)
        {
            self.hours.values_mut().for_each(|hours| hours.was_off(started_ms, quality == ClockQuality::Synced));
        }
        let unreached: BTreeSet<Arc<str>> =
            self.parts.sources.snapshot().into_iter().filter(|of| of.out_of_reach).map(|of| of.name).collect();
        for device in self.parts.watches.devices() {
            let Some(spans) = self.parts.watches.take(&device, !unreached.contains(&device), now.ms) else { continue };
            let hours = self.hours.entry(device).or_default();
            for span in spans {
                if let (Some((from, quality)), Some((to, _))) = (wall(span.from_ms), wall(span.to_ms)) {
                    hours.add(from, to, span.what, quality == ClockQuality::Synced);
                }
            }
        }
    }

    /// Nothing that was heard before can still be evicted.
    fn oldest_waiting_ms(&self, anchors: &Anchors) -> i64 {
        let stat = self.parts.store.stat();
        let waits = stat.destinations.iter().any(|destination| destination.waiting > 0);
        match stat.oldest_waiting.filter(|_| waits) {
            Some(heard) => anchors.known_ms(anchors.version(), heard).map_or(0, |(ms, _)| ms),
            None => i64::MAX,
        }
    }

    fn evicted(&mut self, gaps: &[Gap]) {
        let timeline = self.parts.timeline.borrow().clone();
        let ms = |heard| timeline.anchors.known_ms(timeline.anchors.version(), heard).map(|(ms, _)| ms);
        for gap in gaps {
            let (Some(from), Some(to)) = (gap.from.and_then(ms), gap.to.and_then(ms)) else { continue };
            let of = |device: &Arc<str>| gap.device.as_ref().is_none_or(|known| known == device);
            self.hours.iter_mut().filter(|(device, _)| of(device)).for_each(|(_, hours)| hours.evicted(from, to));
        }
    }
}

impl Running {
    /// Keeps what was collected until now and ends.
    pub(super) async fn stop(self, deadline: Duration) {
        self.stop.send_replace(true);
        match tokio::time::timeout(deadline, self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(why))) => warn!("what seconds were is not kept: {why:#}"),
            Ok(Err(why)) => warn!("the account of seconds ended badly: {why}"),
            Err(_elapsed) => warn!("what seconds were is not kept: the store is too slow"),
        }
    }
}

/// What a store keeps of each device.
fn kept(store: &Store) -> HashMap<Arc<str>, Hours> {
    let mut hours: HashMap<Arc<str>, Hours> = HashMap::new();
    for (key, bytes) in store.state(STATE) {
        let Some((device, _)) = key[STATE.len()..].rsplit_once('/') else { continue };
        match serde_cbor::from_slice::<Day>(&bytes) {
            Ok(day) => hours.entry(device.into()).or_default().restore(day),
            Err(why) => warn!("the account of {device}'s seconds is not readable: {why}"),
        }
    }
    hours
}

/// Seconds of each device in the 24 hours before its account ends, as the store keeps them.
pub(super) fn stored(store: &Store) -> LastDay {
    kept(store).into_iter().map(|(device, hours)| (device, hours.last_day())).collect()
}

/// The devices that the configuration names one by one; captured names are expected once they were heard.
pub(super) fn expected(config: &Config) -> impl Iterator<Item = Arc<str>> {
    let captured = |link: &Link| matches!(link, Link::Mqtt { template, .. } if template.contains("{device}"));
    config.devices.iter().filter(move |device| !captured(&device.link)).map(|device| device.name.clone())
}

/// The row of one hour.
fn report(gateway: &str, device: &str, row: &Row) -> Report {
    let mut columns = serde_json::Map::new();
    columns.insert("gateway_id".to_owned(), gateway.into());
    columns.insert("device_id".to_owned(), device.into());
    columns.insert("hour".to_owned(), row.hour_ms.into());
    for (what, seconds) in Second::ALL.into_iter().zip(row.seconds) {
        columns.insert(what.name().to_owned(), seconds.into());
    }
    columns.insert("version".to_owned(), row.version.into());
    Report { kind: Kind::Coverage, key: device.to_owned(), row: serde_json::Value::Object(columns).to_string() }
}

#[cfg(test)]
mod tests;
