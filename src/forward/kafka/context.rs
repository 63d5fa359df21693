//! What librdkafka tells from its own threads: each record's outcome, why it has no connection, how it is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use serde::Deserialize;
use tokio::sync::Notify;
use tracing::debug;

use crate::forward::health::{Health, Peer};
use crate::forward::refusal::Refusal;

use super::record::{Row, Ticket};
use super::words::{self, Who};

/// A word on the connection that is older says nothing of how it is now: librdkafka repeats what still holds.
const WORD_HOLDS: Duration = Duration::from_secs(60);

/// One producer's news.
#[derive(Debug)]
pub(super) struct Shared {
    who: Who,
    health: Health,
    /// Of the batch in hand.
    pub(super) events: Flight,
    /// Of reports beside the events.
    pub(super) reports: Flight,
    word: Mutex<Option<(Refusal, Instant)>>,
    has_word: AtomicBool,
}

impl Shared {
    pub(super) fn new(who: Who, health: Health) -> Self {
        Shared {
            who,
            health,
            events: Flight::default(),
            reports: Flight::default(),
            word: Mutex::new(None),
            has_word: AtomicBool::new(false),
        }
    }

    /// What the connection suffers from, as far as librdkafka said since the last success.
    pub(super) fn word(&self) -> Option<Refusal> {
        let word = lock(&self.word);
        word.as_ref().filter(|(_, told)| told.elapsed() < WORD_HOLDS).map(|(refusal, _)| refusal.clone())
    }

    pub(super) fn who(&self) -> &Who {
        &self.who
    }

    fn flight(&self, ticket: Ticket) -> &Flight {
        match ticket {
            Ticket::Event(_) => &self.events,
            Ticket::Report => &self.reports,
        }
    }

    fn said(&self, code: RDKafkaErrorCode, reason: &str) {
        let Some(refusal) = words::of_connection(code, reason, &self.who) else { return };
        let mut word = lock(&self.word);
        // "All brokers are down" follows whatever brought the last of them down, and says less.
        let vague = code == RDKafkaErrorCode::AllBrokersDown;
        if vague && word.as_ref().is_some_and(|(_, told)| told.elapsed() < WORD_HOLDS) {
            return;
        }
        if word.as_ref().is_none_or(|(before, _)| before.reason != refusal.reason) {
            debug!("librdkafka: {code:?}: {reason}");
        }
        *word = Some((refusal, Instant::now()));
        self.has_word.store(true, Ordering::Relaxed);
        drop(word);
        self.events.wake();
        self.reports.wake();
    }

    fn all_is_well(&self) {
        if self.has_word.swap(false, Ordering::Relaxed) {
            *lock(&self.word) = None;
        }
    }
}

/// Records that are on their way.
#[derive(Debug)]
pub(super) struct Flight {
    state: Mutex<State>,
    changed: Notify,
    /// For those who wait on a thread of their own.
    moved: Condvar,
}

#[derive(Debug)]
struct State {
    /// Not reported yet.
    waiting: usize,
    /// Who waits is woken when so few are left.
    enough: usize,
    outcome: Outcome,
    /// The last report.
    progress: Instant,
}

impl Default for Flight {
    fn default() -> Self {
        let state = State { waiting: 0, enough: 0, outcome: Outcome::default(), progress: Instant::now() };
        Flight { state: Mutex::new(state), changed: Notify::new(), moved: Condvar::new() }
    }
}

/// What became of records since it was last asked.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) delivered: u64,
    /// Of their values.
    pub(super) bytes: u64,
    /// With what the record was, so that it can be sent again.
    pub(super) failed: Vec<(RDKafkaErrorCode, Row)>,
}

impl Flight {
    /// One more is given to librdkafka. Before the call: its report may come at once.
    pub(super) fn one_more(&self) {
        let mut state = lock(&self.state);
        if state.waiting == 0 {
            state.progress = Instant::now();
        }
        state.waiting += 1;
    }

    /// It was not taken after all.
    pub(super) fn one_less(&self) {
        lock(&self.state).waiting -= 1;
    }

    pub(super) fn waiting(&self) -> usize {
        lock(&self.state).waiting
    }

    /// When the last report came, or the first of what waits was sent.
    pub(super) fn progress(&self) -> Instant {
        lock(&self.state).progress
    }

    pub(super) fn take(&self) -> Outcome {
        std::mem::take(&mut lock(&self.state).outcome)
    }

    /// Waits until at most `enough` wait, or until somebody has something to say. `true`: few enough.
    pub(super) async fn settled(&self, enough: usize) -> bool {
        {
            let mut state = lock(&self.state);
            if state.waiting <= enough {
                return true;
            }
            state.enough = enough;
        }
        // A notice that comes between is kept.
        self.changed.notified().await;
        self.waiting() <= enough
    }

    /// The same on a thread of its own, until an instant: whether at most `enough` wait then.
    pub(super) fn wait(&self, enough: usize, until: Instant) -> bool {
        let mut state = lock(&self.state);
        state.enough = enough;
        while state.waiting > enough {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn wake(&self) {
        self.changed.notify_one();
        self.moved.notify_all();
    }

    fn reported(&self, result: Result<usize, (RDKafkaErrorCode, Row)>) {
        let mut state = lock(&self.state);
        match result {
            Ok(bytes) => {
                state.outcome.delivered += 1;
                state.outcome.bytes += bytes as u64;
            }
            Err(failed) => state.outcome.failed.push(failed),
        }
        state.waiting = state.waiting.saturating_sub(1);
        state.progress = Instant::now();
        let wake = state.waiting <= state.enough;
        drop(state);
        if wake {
            self.wake();
        }
    }
}

/// The context that a client owns.
pub(super) struct Told(pub(super) std::sync::Arc<Shared>);

impl ClientContext for Told {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        debug!("librdkafka: {facility}: {line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.0.said(code, reason);
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) {
            self.0.health.peer(statistics.peer());
        }
    }
}

impl ProducerContext for Told {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let ticket = Ticket::from(opaque);
        let flight = self.0.flight(ticket);
        match result {
            Ok(message) => {
                self.0.all_is_well();
                flight.reported(Ok(message.payload_len()));
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                let row = Row {
                    ticket,
                    key: message.key().unwrap_or_default().to_vec(),
                    payload: message.payload().unwrap_or_default().to_vec(),
                    headers: message.headers().map(BorrowedHeaders::detach),
                    alone: false,
                };
                flight.reported(Err((code, row)));
            }
        }
    }
}

/// What is read of librdkafka's statistics.
#[derive(Debug, Deserialize)]
struct Statistics {
    msg_cnt: u64,
    msg_size: u64,
    #[serde(default)]
    brokers: HashMap<String, Broker>,
}

#[derive(Debug, Deserialize)]
struct Broker {
    nodeid: i32,
    state: String,
    rtt: Option<Window>,
}

#[derive(Debug, Deserialize)]
struct Window {
    avg: i64,
    cnt: i64,
}

impl Statistics {
    fn peer(&self) -> Peer {
        // Those below 0 are the addresses of the settings and the coordinators, beside the brokers themselves.
        let known = self.brokers.values().filter(|broker| broker.nodeid >= 0);
        let connected = known.filter(|broker| broker.state == "UP");
        let (mut count, mut sum) = (0u32, 0);
        let mut slowest = None;
        for broker in connected {
            count += 1;
            if let Some(rtt) = broker.rtt.as_ref().filter(|rtt| rtt.cnt > 0) {
                sum += 1;
                slowest = slowest.max(u64::try_from(rtt.avg).ok());
            }
        }
        debug_assert!(sum <= count);
        Peer { connected: count, queued: self.msg_cnt, queued_bytes: self.msg_size, round_trip_us: slowest }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters and a text are right whatever happened to the thread that held them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_become_a_few_numbers() {
        let text = br#"{ "name": "x", "msg_cnt": 7, "msg_size": 900, "brokers": {
            "a:9092/bootstrap": { "nodeid": -1, "state": "UP", "rtt": { "avg": 9999, "cnt": 1 } },
            "a:9092/1": { "nodeid": 1, "state": "UP", "rtt": { "avg": 1500, "cnt": 10, "p99": 3 } },
            "b:9092/2": { "nodeid": 2, "state": "UP", "rtt": { "avg": 0, "cnt": 0 } },
            "c:9092/3": { "nodeid": 3, "state": "DOWN" } } }"#;
        let statistics: Statistics = serde_json::from_slice(text).unwrap();
        let expected = Peer { connected: 2, queued: 7, queued_bytes: 900, round_trip_us: Some(1500) };
        assert_eq!(statistics.peer(), expected);
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_few_enough_are_left() {
        let flight = Flight::default();
        (0..3).for_each(|_| flight.one_more());
        assert!(flight.settled(3).await);
        flight.reported(Ok(10));
        let waited = tokio::time::timeout(Duration::from_millis(50), flight.settled(0)).await;
        assert!(waited.is_err(), "two still wait");
        flight.reported(Ok(10));
        flight.reported(Ok(10));
        assert!(flight.settled(0).await);
        let outcome = flight.take();
        assert_eq!((outcome.delivered, outcome.bytes, outcome.failed.len()), (3, 30, 0));
    }
}
