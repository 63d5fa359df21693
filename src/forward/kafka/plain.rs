//! At least once: the batch in hand lies in the producer's queue until every record has its report. While its last ones
//! are waited for, the rows of the batch behind it follow; what became of those is looked at when it is their turn.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;
use tokio::time::{Instant, timeout_at};

use crate::forward::Delivery;
use crate::forward::health::Health;
use crate::forward::refusal::{Refusal, Trouble};
use crate::forward::rows::{Batch, Behind};
use crate::report::{Kind, Report};

use super::client;
use super::context::{Enough, Flight, Shared};
use super::hand::{Filling, Hand, Stop};
use super::open::Open;
use super::record::{Lane, NotTaken, Row};
use super::words::{self, Who};
use super::{Settings, survey};

/// Without a report for so long, the reason is told; it is asked for where librdkafka said nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where librdkafka already said why.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// Reports beside the events wait no longer than this before the events' turn.
const REPORTS_PATIENCE: Duration = Duration::from_secs(3);
/// A queue that was full is filled again from here on.
const HALF: usize = client::MOST_RECORDS as usize / 2;
/// From this many rows on, rendering and queueing leave the async thread.
const LARGE: u64 = 1_000;

/// The way in from async code.
#[derive(Debug)]
pub(super) struct Plain {
    settings: Arc<Settings>,
    health: Health,
    open: Option<Open>,
    hand: Hand,
    /// That of the batch behind the one in hand.
    behind: Hand,
    /// The reports that are on their way or were not acknowledged, by their content.
    reporting: Option<u64>,
    /// The kinds of reports whose topics were found.
    seen: BTreeSet<Kind>,
}

impl Plain {
    pub(super) fn new(settings: Arc<Settings>, health: Health) -> Plain {
        let (hand, behind) = (Hand::on(Lane::Even), Hand::on(Lane::Odd));
        Plain { settings, health, open: None, hand, behind, reporting: None, seen: BTreeSet::new() }
    }

    /// Sends what is not sent, and waits.
    pub(super) async fn deliver(&mut self, mut batch: Batch) -> Delivery {
        if self.hand.of != Some(Hand::mark(&batch)) {
            // Another batch than the one whose records are on their way: those are not wanted any more.
            if self.hand.of.is_some() {
                self.close().await;
            }
            self.forget();
        }
        let again = Instant::now() + SHORT_PATIENCE;
        loop {
            if let Err(refusal) = self.connect().await {
                // Before the topic was found nothing is queued, and of a batch that was never queued nothing arrived.
                let untouched = batch.rendered == 0 && self.hand.outbox.is_empty();
                return self.later(batch, if untouched { refusal.not_arrived() } else { refusal });
            }
            let stop;
            crash_point!("kafka.send.before");
            (batch, stop) = self.queue(batch).await;
            crash_point!("kafka.send.after");
            let enough = match stop {
                Stop::Room => {
                    self.remember(&batch);
                    return Delivery::Underway(batch);
                }
                Stop::All => Enough::None(self.hand.lane),
                Stop::Behind => Enough::LeftOrNone(HALF, self.hand.lane),
                Stop::Full => Enough::Left(HALF),
                Stop::Alone | Stop::Refused(_) => Enough::Left(0),
                Stop::Basis => return Delivery::Again(unknown_basis(&batch)),
            };
            if !self.settled(enough, again).await {
                let refusal = self.stalled(&mut batch).await;
                return self.not_now(batch, refusal);
            }
            let Some(shared) = self.open.as_ref().map(|open| open.shared.clone()) else { continue };
            let is_through = shared.events.is(Enough::None(self.hand.lane));
            if stop == Stop::Full || !is_through {
                continue;
            }
            match (self.hand.account(&shared, &mut batch), stop) {
                (Some(code), _) | (None, Stop::Refused(code)) => {
                    let refusal = self.failed(&mut batch, code).await;
                    return self.not_now(batch, refusal);
                }
                (None, _) if self.hand.rendered && self.hand.outbox.is_empty() => {
                    self.go_on_behind(&batch);
                    return Delivery::Done(batch);
                }
                (None, _) => {}
            }
        }
    }

    /// The batch in hand is through: the one behind it has its place, with what of it is on its way.
    fn go_on_behind(&mut self, batch: &Batch) {
        let next = Hand::on(self.hand.lane);
        self.hand = std::mem::replace(&mut self.behind, next);
        if let Behind::InHand(behind) = &batch.behind {
            self.remember(behind);
        }
    }

    /// The batch in hand comes back as it is now.
    fn remember(&mut self, batch: &Batch) {
        self.hand.of = Some(Hand::mark(batch));
    }

    fn forget(&mut self) {
        (self.hand, self.behind) = (Hand::on(Lane::Even), Hand::on(Lane::Odd));
    }

    /// Drops the batch in hand with the producer that has its records. `true`: some were queued, so they may have arrived.
    pub(super) async fn abandon(&mut self) -> bool {
        let of = self.hand.of;
        self.forget();
        // Whether a queued record ever left is known to librdkafka only.
        let queued = of.is_none_or(|(_, _, rendered)| rendered > 0);
        if queued {
            self.close().await;
        }
        queued
    }

    /// `Err` where the records have to be rendered anew.
    fn not_now(&mut self, batch: Batch, refusal: Result<Refusal, Refusal>) -> Delivery {
        match refusal {
            Ok(refusal) => self.later(batch, refusal),
            Err(refusal) => {
                self.forget();
                Delivery::Again(refusal)
            }
        }
    }

    fn later(&mut self, batch: Batch, refusal: Refusal) -> Delivery {
        self.remember(&batch);
        Delivery::Later(batch, refusal)
    }

    /// Makes the producer and finds the topic. Nothing is queued for a topic that was not seen yet, so that a wrong
    /// address, password or name is known by its own words.
    async fn connect(&mut self) -> Result<(), Refusal> {
        if self.open.as_ref().is_some_and(|open| open.ready) {
            return Ok(());
        }
        let (settings, health, open) = (self.settings.clone(), self.health.clone(), self.open.take());
        let opened = tokio::task::spawn_blocking(move || Open::make(&settings, &health, None, open)).await;
        let (open, result) = opened.map_err(|why| Refusal::new(Trouble::Internal, format!("connecting: {why}")))?;
        self.open = open;
        result
    }

    /// Queues rows until there are no more, or the queue is full; those of the batch behind come last.
    async fn queue(&mut self, batch: Batch) -> (Batch, Stop) {
        let hand = std::mem::take(&mut self.hand);
        let (hand, mut batch, stop) = self.fill(hand, batch).await;
        self.hand = hand;
        if stop != Stop::All {
            return (batch, stop);
        }
        match std::mem::take(&mut batch.behind) {
            Behind::InHand(behind) => {
                let hand = std::mem::take(&mut self.behind);
                let (hand, behind, stop) = self.fill(hand, *behind).await;
                self.behind = hand;
                batch.behind = Behind::InHand(Box::new(behind));
                // Whatever else became of it is looked at in its turn.
                (batch, if stop == Stop::Full { Stop::Behind } else { Stop::All })
            }
            Behind::Coming => (batch, Stop::Room),
            Behind::Nothing => (batch, Stop::All),
        }
    }

    async fn fill(&self, hand: Hand, batch: Batch) -> (Hand, Batch, Stop) {
        let Some(open) = &self.open else { return (hand, batch, Stop::Full) };
        let mut filling = Filling {
            producer: open.producer.clone(),
            shared: open.shared.clone(),
            topic: self.settings.topic.clone(),
            limit: open.limit as usize,
            hand,
            batch,
        };
        let rows = if filling.hand.rendered { 0 } else { filling.batch.range.count() };
        let (filling, stop) = off_thread(rows, move || {
            let stop = filling.run();
            (filling, stop)
        })
        .await;
        (filling.hand, filling.batch, stop)
    }

    /// Waits until few enough records have no report. `false` when none came for too long; not before `again`, so that a
    /// batch that comes back has its chance.
    async fn settled(&self, enough: Enough, again: Instant) -> bool {
        let Some(open) = &self.open else { return true };
        let events = &open.shared.events;
        loop {
            let patience = if open.shared.word().is_some() { SHORT_PATIENCE } else { PATIENCE };
            let until = (Instant::from_std(events.progress()) + patience).max(again);
            match timeout_at(until, events.settled(enough)).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(_) if Instant::from_std(events.progress()) + patience > Instant::now() => {}
                Err(_) => return events.is(enough),
            }
        }
    }

    /// Why nothing moves. `Err` where the records have to be rendered anew.
    async fn stalled(&mut self, batch: &mut Batch) -> Result<Refusal, Refusal> {
        let Some(open) = &self.open else { return Ok(Refusal::new(Trouble::Internal, "no producer".to_owned())) };
        let refusal = why_silent(open, open.shared.who()).await;
        let changed = refusal.trouble == Trouble::Access && client::fingerprint(&self.settings) != open.secrets;
        let fatal = open.producer.client().fatal_error().is_some();
        if (changed || fatal) && !self.remake(batch).await {
            return Err(refusal);
        }
        Ok(refusal)
    }

    /// Records came back with `code`.
    async fn failed(&mut self, batch: &mut Batch, code: RDKafkaErrorCode) -> Result<Refusal, Refusal> {
        let Some(open) = &self.open else { return Ok(Refusal::new(Trouble::Internal, "no producer".to_owned())) };
        let fatal = open.producer.client().fatal_error();
        let refusal = match &fatal {
            Some((code, text)) => words::of_code(*code, text, open.shared.who()),
            None => words::of_code(code, "", open.shared.who()),
        };
        if fatal.is_some() && !self.remake(batch).await {
            return Err(refusal);
        }
        Ok(refusal)
    }

    /// Ends the producer, after which a new one is made with the files as they are then. Its records come back into the
    /// outboxes. `false`: some did not.
    async fn remake(&mut self, batch: &mut Batch) -> bool {
        let Some(shared) = self.close().await else { return true };
        self.hand.take_back(&shared, batch);
        if let Behind::InHand(behind) = &mut batch.behind {
            self.behind.take_back(&shared, behind);
        }
        shared.events.waiting() == 0
    }

    /// Ends the producer, off the async thread: that takes it a while. What it had left is reported as purged.
    async fn close(&mut self) -> Option<Arc<Shared>> {
        self.reporting = None;
        self.seen.clear();
        let Open { producer, shared, .. } = self.open.take()?;
        // An error is a panic of librdkafka's wrapper; the producer is gone in any case.
        tokio::task::spawn_blocking(move || drop(producer)).await.ok();
        Some(shared)
    }

    /// Sends reports, at least once each. While some are on their way the same ones are only waited for.
    pub(super) async fn report(&mut self, kind: Kind, reports: &[Report]) -> Result<(), Refusal> {
        self.connect().await?;
        let Some(open) = &self.open else { return Ok(()) };
        let flight = &open.shared.reports;
        let who = open.shared.who().about(kind.topic());
        if !self.seen.contains(&kind) {
            // A topic that is not there is found out before anything lies in the queue for it.
            ask(open, &who).await?;
            self.seen.insert(kind);
        }
        let until = Instant::now() + REPORTS_PATIENCE;
        let these = fingerprint(kind, reports);
        if self.reporting != Some(these) {
            if !quiet(flight, until).await {
                return Err(why_silent(open, &who).await);
            }
            // What became of those nobody asks for any more.
            flight.take(Lane::default());
            self.reporting = None;
            for report in reports {
                let mut row = Row::of_report(report);
                while let Err((back, why)) = row.send(kind.topic(), &open.producer, flight) {
                    match why {
                        NotTaken::Full
                            if timeout_at(until, flight.settled(Enough::Left(flight.waiting() / 2))).await.is_ok() => {}
                        NotTaken::Full => return Err(words::of_code(RDKafkaErrorCode::QueueFull, "", &who)),
                        NotTaken::Refused(code) => return Err(words::of_code(code, "", &who)),
                    }
                    row = back;
                }
            }
            // Only now: a caller that gave up in between sends them all again.
            self.reporting = Some(these);
        }
        if !quiet(flight, until).await {
            return Err(why_silent(open, &who).await);
        }
        self.reporting = None;
        match flight.take(Lane::default()).failed.first() {
            Some((code, _)) => Err(words::of_code(*code, "", &who)),
            None => Ok(()),
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.end();
        }
    }
}

/// Whether the topic is there and can be written to.
async fn ask(open: &Open, who: &Who) -> Result<(), Refusal> {
    let (producer, shared, who) = (open.producer.clone(), open.shared.clone(), who.clone());
    let asked = tokio::task::spawn_blocking(move || survey::topic(&producer, &shared, &who).map(|_| ())).await;
    asked.unwrap_or_else(|why| Err(Refusal::new(Trouble::Internal, format!("asking the brokers: {why}"))))
}

/// What librdkafka said, or what the brokers say when they are asked.
async fn why_silent(open: &Open, who: &Who) -> Refusal {
    if let Some(word) = open.shared.word() {
        return word;
    }
    let (producer, shared, who) = (open.producer.clone(), open.shared.clone(), who.clone());
    let asked = tokio::task::spawn_blocking(move || survey::why_silent(&producer, &shared, &who)).await;
    asked.unwrap_or_else(|why| Refusal::new(Trouble::Internal, format!("asking the brokers: {why}")))
}

/// Waits until none is on its way.
async fn quiet(flight: &Flight, until: Instant) -> bool {
    let quiet = async { while !flight.settled(Enough::Left(0)).await {} };
    timeout_at(until, quiet).await.is_ok()
}

fn fingerprint(kind: Kind, reports: &[Report]) -> u64 {
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    for report in reports {
        (&report.key, &report.row).hash(&mut hasher);
    }
    hasher.finish()
}

fn unknown_basis(batch: &Batch) -> Refusal {
    Refusal::new(Trouble::Internal, format!("basis {} of the batch is not known any more", batch.range.basis))
}

/// Runs `work` on a blocking thread where it is large.
async fn off_thread<T: Send + 'static>(rows: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    if rows < LARGE {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            // It goes on here as if the work had been done here.
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
