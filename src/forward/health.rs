//! How a destination is: what `status`, the page and the log say of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tracing::{info, warn};

/// What the loop of a destination is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not started yet.
    Starting,
    /// The clock holds back the cutting of batches; `reason` says for how long.
    WaitingForClock,
    /// Nothing waits to be sent.
    Idle,
    /// A batch is on its way.
    Delivering,
    /// A try failed and will be made again; `reason` says why.
    Retrying,
    /// Another destination of the failover gets the events; `reason` says what is wrong with this one, if anything is.
    Standby,
    /// The loop has ended.
    Stopped,
}

/// One destination's health at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// The destination's name.
    pub name: String,
    /// `file`, `clickhouse` or `kafka`.
    pub kind: &'static str,
    /// What its loop is doing.
    pub state: State,
    /// In plain words, why it waits; `None` while all is well.
    pub reason: Option<String>,
    /// Of a failover: whether it gets the events now. `None` of a destination that always does.
    pub active: Option<bool>,
    /// Of a failover, in plain words: why it gets the events, or why another does.
    pub failover: Option<String>,
    /// Failed tries since the last success.
    pub attempts: u32,
    /// Unix milliseconds by the hub's wall clock.
    pub last_delivered_at_ms: Option<u64>,
    /// Batches settled since the start.
    pub batches: u64,
    /// Rows delivered since the start.
    pub rows: u64,
    /// Bytes sent or written since the start, after compression.
    pub bytes: u64,
    /// Rows beside the events that went out since the start.
    pub reports: u64,
    /// Such rows that the destination will never take for what they are.
    pub reports_dropped: u64,
    /// In plain words, why such rows wait; `None` while all is well.
    pub reports_reason: Option<String>,
    /// How the connections are, of a destination that keeps such figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
}

/// A destination's connections at one moment, some seconds old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Brokers that are connected.
    pub connected: u32,
    /// Records that wait to be sent or acknowledged.
    pub queued: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Of the slowest broker, in microseconds, while anything was asked of it.
    pub round_trip_us: Option<u64>,
}

impl Snapshot {
    /// Whether events reach the destination as far as is known.
    pub fn is_healthy(&self) -> bool {
        match self.state {
            State::Retrying => false,
            State::Standby => self.reason.is_none(),
            State::Starting | State::WaitingForClock | State::Idle | State::Delivering | State::Stopped => true,
        }
    }
}

/// Shared between the loop and those who ask.
#[derive(Debug, Clone)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    snapshot: Snapshot,
    /// The kind of trouble that was logged last: the same one is not logged again.
    logged: Option<&'static str>,
}

impl Health {
    /// Of a destination that has not started.
    pub fn new(name: &str, kind: &'static str) -> Self {
        let snapshot = Snapshot {
            name: name.to_owned(),
            kind,
            state: State::Starting,
            reason: None,
            active: None,
            failover: None,
            attempts: 0,
            last_delivered_at_ms: None,
            batches: 0,
            rows: 0,
            bytes: 0,
            reports: 0,
            reports_dropped: 0,
            reports_reason: None,
            peer: None,
        };
        Health { inner: Arc::new(Mutex::new(Inner { snapshot, logged: None })) }
    }

    /// As it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    pub(crate) fn enter(&self, state: State) {
        let mut inner = self.lock();
        // A retry that is under way keeps its reason until it succeeds: "retrying" must not flicker to "delivering".
        if state == State::Delivering && inner.snapshot.state == State::Retrying {
            return;
        }
        inner.snapshot.state = state;
        if state != State::Retrying {
            inner.snapshot.reason = None;
        }
    }

    pub(crate) fn holding(&self, reason: &str) {
        let mut inner = self.lock();
        inner.snapshot.state = State::WaitingForClock;
        inner.snapshot.reason = Some(reason.to_owned());
    }

    /// A try failed. Logged when the kind of trouble is another than before.
    pub(crate) fn retrying(&self, kind: &'static str, reason: &str, attempts: u32) {
        let mut inner = self.lock();
        inner.snapshot.state = State::Retrying;
        inner.snapshot.reason = Some(reason.to_owned());
        inner.snapshot.attempts = attempts;
        if inner.logged != Some(kind) {
            inner.logged = Some(kind);
            warn!(destination = inner.snapshot.name, "cannot deliver, events wait in the store: {reason}");
        }
    }

    /// From now on it gets the events of its failover.
    pub(crate) fn take_over(&self, why: &str) {
        let mut inner = self.lock();
        inner.snapshot.state = State::Idle;
        inner.snapshot.reason = None;
        (inner.snapshot.active, inner.snapshot.failover) = (Some(true), Some(why.to_owned()));
    }

    /// From now on another destination of its failover gets the events.
    pub(crate) fn step_back(&self, why: &str) {
        let mut inner = self.lock();
        inner.snapshot.state = State::Standby;
        inner.snapshot.reason = None;
        inner.snapshot.attempts = 0;
        (inner.snapshot.active, inner.snapshot.failover) = (Some(false), Some(why.to_owned()));
        inner.logged = None;
    }

    /// What a question to a destination in reserve found.
    pub(crate) fn standby(&self, wrong: Option<&str>) {
        let mut inner = self.lock();
        if inner.snapshot.state == State::Standby {
            inner.snapshot.reason = wrong.map(str::to_owned);
        }
    }

    #[cfg(feature = "kafka")]
    pub(crate) fn peer(&self, peer: Peer) {
        self.lock().snapshot.peer = Some(peer);
    }

    pub(crate) fn delivered(&self, rows: u64, bytes: u64) {
        let mut inner = self.lock();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let attempts = std::mem::take(&mut inner.snapshot.attempts);
        inner.snapshot.state = State::Idle;
        inner.snapshot.reason = None;
        inner.snapshot.last_delivered_at_ms = Some(now);
        inner.snapshot.batches += 1;
        inner.snapshot.rows += rows;
        inner.snapshot.bytes += bytes;
        if inner.logged.take().is_some() {
            info!(destination = inner.snapshot.name, attempts, "delivering again");
        }
    }

    pub(crate) fn reported(&self, sent: u64, dropped: u64) {
        let mut inner = self.lock();
        inner.snapshot.reports += sent;
        inner.snapshot.reports_dropped += dropped;
    }

    /// Why reports wait, if any do for a reason.
    pub(crate) fn reports_wait(&self, reason: Option<&str>) {
        self.lock().snapshot.reports_reason = reason.map(str::to_owned);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A snapshot of counters is right whatever happened to the thread that held it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stays_until_the_retry_succeeds() {
        let health = Health::new("warehouse", "clickhouse");
        health.retrying("unreachable", "connection refused", 1);
        health.enter(State::Delivering);
        assert_eq!(health.snapshot().state, State::Retrying);
        assert_eq!(health.snapshot().reason.as_deref(), Some("connection refused"));
        health.delivered(3, 100);
        let after = health.snapshot();
        assert_eq!((after.state, after.reason, after.attempts, after.rows), (State::Idle, None, 0, 3));
    }
}
