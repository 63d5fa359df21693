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

use super::record::{Lane, Row, Ticket};
use super::words::{self, Who};

/// A word on the connection that is older says nothing of how it is now: librdkafka repeats what still holds.
const WORD_HOLDS: Duration = Duration::from_secs(60);

/// One producer's news.
#[derive(Debug)]
pub(super) struct Shared {
    who: Who,
    health: Health,
    /// Of the batch in hand and the one behind it.
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
            Ticket::Event(..) => &self.events,
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
    /// Not reported yet, on each lane.
    waiting: [usize; 2],
    /// What became of the others.
    outcomes: [Outcome; 2],
    /// Who waits is woken once, when so few are left.
    awaited: Option<Enough>,
    /// The last report.
    progress: Instant,
}

/// How few have to be left.
#[derive(Debug, Clone, Copy)]
pub(super) enum Enough {
    /// So many in all.
    Left(usize),
    /// None on this lane.
    None(Lane),
    /// Either: so many in all, or none on this lane.
    LeftOrNone(usize, Lane),
}

impl State {
    fn waiting(&self) -> usize {
        self.waiting.iter().sum()
    }

    fn is(&self, enough: Enough) -> bool {
        match enough {
            Enough::Left(most) => self.waiting() <= most,
            Enough::None(lane) => self.waiting[lane as usize] == 0,
            Enough::LeftOrNone(most, lane) => self.is(Enough::Left(most)) || self.is(Enough::None(lane)),
        }
    }
}

impl Default for Flight {
    fn default() -> Self {
        let state = State { waiting: [0; 2], outcomes: Default::default(), awaited: None, progress: Instant::now() };
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
    pub(super) fn one_more(&self, lane: Lane) {
        let mut state = lock(&self.state);
        if state.waiting() == 0 {
            state.progress = Instant::now();
        }
        state.waiting[lane as usize] += 1;
    }

    /// It was not taken after all.
    pub(super) fn one_less(&self, lane: Lane) {
        lock(&self.state).waiting[lane as usize] -= 1;
    }

    pub(super) fn waiting(&self) -> usize {
        lock(&self.state).waiting()
    }

    pub(super) fn is(&self, enough: Enough) -> bool {
        lock(&self.state).is(enough)
    }

    /// When the last report came, or the first of what waits was sent.
    pub(super) fn progress(&self) -> Instant {
        lock(&self.state).progress
    }

    pub(super) fn take(&self, lane: Lane) -> Outcome {
        std::mem::take(&mut lock(&self.state).outcomes[lane as usize])
    }

    /// Waits until few enough wait, or until somebody has something to say. `true`: few enough.
    pub(super) async fn settled(&self, enough: Enough) -> bool {
        {
            let mut state = lock(&self.state);
            if state.is(enough) {
                return true;
            }
            state.awaited = Some(enough);
        }
        // A notice that comes between is kept.
        self.changed.notified().await;
        self.is(enough)
    }

    /// The same on a thread of its own, until an instant: whether few enough wait then.
    pub(super) fn wait(&self, enough: Enough, until: Instant) -> bool {
        let mut state = lock(&self.state);
        while !state.is(enough) {
            state.awaited = Some(enough);
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

    fn reported(&self, lane: Lane, result: Result<usize, (RDKafkaErrorCode, Row)>) {
        let mut state = lock(&self.state);
        let outcome = &mut state.outcomes[lane as usize];
        match result {
            Ok(bytes) => {
                outcome.delivered += 1;
                outcome.bytes += bytes as u64;
            }
            Err(failed) => outcome.failed.push(failed),
        }
        let waiting = &mut state.waiting[lane as usize];
        *waiting = waiting.saturating_sub(1);
        state.progress = Instant::now();
        // Once: a wake is a system call.
        let is_enough = state.awaited.is_some_and(|awaited| state.is(awaited));
        if is_enough {
            state.awaited = None;
        }
        drop(state);
        if is_enough {
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
                flight.reported(ticket.lane(), Ok(message.payload_len()));
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
                flight.reported(ticket.lane(), Err((code, row)));
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
        (0..3).for_each(|_| flight.one_more(Lane::Even));
        assert!(flight.settled(Enough::Left(3)).await);
        flight.reported(Lane::Even, Ok(10));
        assert!(waits(&flight, Enough::Left(0)).await, "two still wait");
        flight.reported(Lane::Even, Ok(10));
        flight.reported(Lane::Even, Ok(10));
        assert!(flight.settled(Enough::Left(0)).await);
        let outcome = flight.take(Lane::Even);
        assert_eq!((outcome.delivered, outcome.bytes, outcome.failed.len()), (3, 30, 0));
    }

    #[tokio::test]
    async fn each_lane_has_a_count_of_its_own() {
        let flight = Flight::default();
        (0..3).for_each(|_| flight.one_more(Lane::Even));
        (0..4).for_each(|_| flight.one_more(Lane::Odd));
        flight.reported(Lane::Odd, Ok(10));
        assert!(waits(&flight, Enough::LeftOrNone(5, Lane::Even)).await, "six wait");
        flight.reported(Lane::Odd, Ok(10));
        assert!(flight.settled(Enough::LeftOrNone(5, Lane::Even)).await);
        assert!(waits(&flight, Enough::None(Lane::Even)).await, "three of it wait");
        (0..3).for_each(|_| flight.reported(Lane::Even, Ok(1)));
        assert!(flight.settled(Enough::None(Lane::Even)).await);
        assert!(flight.settled(Enough::LeftOrNone(0, Lane::Even)).await);
        assert_eq!(flight.waiting(), 2);
        assert_eq!((flight.take(Lane::Even).bytes, flight.take(Lane::Odd).bytes), (3, 20));
    }

    async fn waits(flight: &Flight, enough: Enough) -> bool {
        let settled = async { while !flight.settled(enough).await {} };
        tokio::time::timeout(Duration::from_millis(50), settled).await.is_err()
    }
}
