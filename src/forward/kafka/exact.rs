//! Exactly once: each batch is one transaction, and the cursor is committed in it.
//!
//! Every call of a transaction blocks, so a whole try runs on a blocking thread; it takes the session along and brings it
//! back. A try ends with the batch committed, or with nothing of it visible to readers of committed records. When that is
//! not known (the answer to a commit got lost), the cursor is read again and tells.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, error, info};

use crate::forward::Delivery;
use crate::forward::health::Health;
use crate::forward::refusal::{Refusal, Trouble};
use crate::forward::rows::{Batch, Rejected};
use crate::store::Sequence;

use super::client::TRANSACTION_TIMEOUT;
use super::context::Shared;
use super::cursor::{self, Cursor, Ids};
use super::fences::{Fences, Meaning};
use super::open::Open;
use super::record::{self, Row, Ticket, nth};
use super::transaction::{Failure, Transaction, again, commit, not_done};
use super::{Settings, words};

/// How long the brokers may take to give the id to this process; an earlier transaction has to end for that.
const INIT_PATIENCE: Duration = Duration::from_secs(15);

/// Without a sign for so long, the reason is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// So often in a row may looking for a refused record break off.
const MOST_BROKEN: u32 = 5;

/// The way in from async code.
#[derive(Debug)]
pub(super) struct Exact {
    /// Here or on the blocking thread, never on both.
    session: Option<Box<Session>>,
    /// A try that its caller gave up on; it still owns the session.
    working: Option<oneshot::Receiver<(Box<Session>, Delivery)>>,
    settings: Arc<Settings>,
    health: Health,
    name: Arc<str>,
    /// Nobody waits for the outcome any more.
    stop: Arc<AtomicBool>,
    /// Of the session's producer, also while the session is away.
    news: News,
}

/// What the producer that is in use tells.
type News = Arc<Mutex<Option<Arc<Shared>>>>;

impl Exact {
    pub(super) fn new(name: &str, settings: Arc<Settings>, health: Health) -> Exact {
        let (stop, news) = (Arc::default(), News::default());
        Exact { session: None, working: None, settings, health, name: name.into(), stop, news }
    }

    /// Sends the batch in a transaction of its own. A batch that failed is consumed: its range is read again.
    pub(super) async fn deliver(&mut self, batch: Batch) -> Delivery {
        // What it found does not matter any more: the cursor will tell.
        self.reclaim().await;
        let mut session = self.session.take().unwrap_or_else(|| {
            let (settings, health) = (self.settings.clone(), self.health.clone());
            Box::new(Session::new(settings, health, self.name.clone(), self.stop.clone(), self.news.clone()))
        });
        let (done, working) = oneshot::channel();
        // Not a thread of the runtime, whose end would wait for it: librdkafka's call that adds the cursor to a
        // transaction lasts as long as the brokers are away, whatever timeout it is given.
        let runtime = Handle::current();
        std::thread::spawn(move || {
            let _entered = runtime.enter();
            let delivery = session.deliver(batch);
            // Nobody waits once the program ends.
            done.send((session, delivery)).ok();
        });
        self.working = Some(working);
        self.reclaim().await.unwrap_or_else(|| {
            let reason = "the transaction ended unexpectedly; see the log".to_owned();
            Delivery::Again(Refusal::new(Trouble::Internal, reason))
        })
    }

    /// Waits until the blocking thread gives the session back. Cancel-safe: a dropped call leaves the handle in place.
    async fn reclaim(&mut self) -> Option<Delivery> {
        let handle = self.working.as_mut()?;
        let joined = loop {
            match timeout(PATIENCE, &mut *handle).await {
                Ok(joined) => break joined,
                Err(_) => silent(&self.news, &self.health, &self.settings),
            }
        };
        self.working = None;
        match joined {
            Ok((session, delivery)) => {
                self.session = Some(session);
                Some(delivery)
            }
            Err(_gone) => {
                error!("the thread of a Kafka transaction panicked");
                None
            }
        }
    }
}

/// Says why a try takes long, where nothing moves in it.
fn silent(news: &News, health: &Health, settings: &Settings) {
    let Some(shared) = news.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
    if shared.events.progress().elapsed() < PATIENCE {
        return;
    }
    let refusal = shared.word().unwrap_or_else(|| {
        let reason = format!("{} does not answer", settings.brokers.join(", "));
        Refusal::new(Trouble::Timeout, reason)
    });
    health.retrying(refusal.trouble.name(), &refusal.reason, 1);
}

impl Drop for Exact {
    fn drop(&mut self) {
        // A try that is under way gives up within a second, so that the end of the program does not wait for it. What it
        // had open is ended by the brokers, or by the next start.
        self.stop.store(true, Ordering::Relaxed);
        if let Some(open) = self.session.take().and_then(|session| session.open) {
            open.end();
        }
    }
}

/// All that lives from one try to the next.
#[derive(Debug)]
struct Session {
    settings: Arc<Settings>,
    health: Health,
    /// The destination's.
    name: Arc<str>,
    /// The hub's, as the rows have it.
    gateway: Arc<str>,
    open: Option<Open>,
    /// Present once the id is this process's alone.
    joined: Option<Joined>,
    fences: Fences,
    started: Instant,
    /// Rows of the range that begins there, which the brokers refuse for what they are.
    refused: (Sequence, BTreeMap<usize, String>),
    stop: Arc<AtomicBool>,
    news: News,
}

/// The id is ours, and the cursor was read.
struct Joined {
    group: ConsumerGroupMetadata,
    cursor: Option<Cursor>,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

/// What of a batch goes out.
#[derive(Debug, Default)]
struct Sent {
    ids: Ids,
    rejected: Vec<(usize, String)>,
}

impl Session {
    fn new(settings: Arc<Settings>, health: Health, name: Arc<str>, stop: Arc<AtomicBool>, news: News) -> Session {
        Session {
            settings,
            health,
            name,
            gateway: "".into(),
            open: None,
            joined: None,
            fences: Fences::default(),
            started: Instant::now(),
            refused: (0, BTreeMap::new()),
            stop,
            news,
        }
    }

    fn deliver(&mut self, mut batch: Batch) -> Delivery {
        let Some(gateway) = batch.gateway() else {
            let reason = format!("basis {} of the batch is not known any more", batch.range.basis);
            return Delivery::Again(Refusal::new(Trouble::Internal, reason));
        };
        if gateway != self.gateway {
            // The id is part of the promise: what was sent under one name is looked up under the same.
            self.leave();
            self.gateway = gateway;
        }
        if self.refused.0 != batch.range.first {
            self.refused = (batch.range.first, BTreeMap::new());
        }
        if let Err(refusal) = self.join() {
            return Delivery::Later(batch, refusal);
        }
        if let Some(done) = self.already_there(&mut batch) {
            return match done {
                Ok(()) => Delivery::Done(batch),
                Err(refusal) => Delivery::Again(refusal),
            };
        }
        match self.transact(&mut batch) {
            Ok(()) => Delivery::Done(batch),
            Err(failure) => Delivery::Again(self.judge(failure)),
        }
    }

    fn id(&self) -> String {
        format!("biogate-{}-{}", self.gateway, self.name)
    }

    /// Takes the id for this process and reads the cursor, in this order: what an older process may still commit is
    /// over once the id is taken.
    fn join(&mut self) -> Result<(), Refusal> {
        if self.joined.is_some() {
            return Ok(());
        }
        let now = self.started.elapsed();
        if now < self.fences.not_before() {
            return Err(self.shared_name(self.fences.not_before() - now));
        }
        let id = self.id();
        if !self.open.as_ref().is_some_and(|open| open.ready) {
            let (open, made) = Open::make(&self.settings, &self.health, Some(&id), self.open.take());
            self.open = open;
            made?;
        }
        let Some(open) = &self.open else { return Ok(()) };
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(open.shared.clone());
        let who = open.shared.who();
        if let Err(error) = again(INIT_PATIENCE, &self.stop, |left| open.producer.init_transactions(left)) {
            let refusal = not_done(&error, open);
            if matches!(&error, KafkaError::Transaction(error) if !error.is_retriable()) {
                self.open = None;
            }
            return Err(refusal);
        }
        let group = format!("biogate-{}", self.gateway);
        let (cursor, group) = cursor::read(&self.settings, &group, who)?;
        debug!(id, next = cursor.as_ref().map(|cursor| cursor.next), "transactions begin");
        self.joined = Some(Joined { group, cursor });
        Ok(())
    }

    /// Gives the producer up. The next try makes a new one.
    fn leave(&mut self) {
        self.joined = None;
        self.open = None;
    }

    /// A range that an earlier try or process committed is entered in the tally without being sent.
    fn already_there(&mut self, batch: &mut Batch) -> Option<Result<(), Refusal>> {
        let joined = self.joined.as_mut()?;
        // The cursor is asked once: from here on the outcome of every transaction is known here.
        let cursor = joined.cursor.take().filter(|cursor| cursor.next == batch.range.last + 1)?;
        let (mut ids, mut count) = (Ids::default(), 0);
        let (mut rejected, first) = (Vec::new(), batch.range.first);
        batch.fill(|sequence, event| {
            if cursor.refused.contains(&nth(sequence, first)) {
                rejected.push(Rejected { sequence, reason: "refused before the program was restarted".to_owned() });
            } else {
                ids.add(event.event_id);
                count += 1;
            }
            ControlFlow::Continue(())
        });
        if ids.token() != cursor.token {
            // The same number of another store: a new card under an old name. The batch was not sent.
            let reason = "the cursor in Kafka is of another store; the batch is sent".to_owned();
            return Some(Err(Refusal::new(Trouble::Internal, reason)));
        }
        info!(destination = &*self.name, next = cursor.next, "the batch in hand had been committed before");
        batch.tally.delivered += count;
        batch.tally.rejected.append(&mut rejected);
        Some(Ok(()))
    }

    fn transact(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        let (Some(open), Some(joined)) = (&self.open, &self.joined) else {
            return Err(Failure::Again(Refusal::new(Trouble::Internal, "no transaction".to_owned())));
        };
        let transaction = Transaction::begin(open, &self.stop)?;
        crash_point!("kafka.send.before");
        let sent = fill(open, &self.settings.topic, &transaction, batch, &self.refused.1)?;
        crash_point!("kafka.send.after");
        let reject = |(nth, reason): (usize, String)| Rejected { sequence: batch.range.first + nth as u64, reason };
        let cursor = Cursor {
            next: batch.range.last + 1,
            token: sent.ids.token(),
            refused: sent.rejected.iter().map(|(nth, _)| *nth).collect(),
        };
        if sent.ids.is_empty() {
            transaction.abort()?;
        } else {
            let offsets = cursor.offsets(&self.settings.cursor_topic).map_err(|error| transaction.failed(error))?;
            transaction.offsets(&offsets, &joined.group)?;
            let (delivered, bytes) = commit(transaction)?;
            batch.tally.delivered += delivered;
            batch.tally.bytes += bytes;
        }
        batch.tally.rejected.extend(sent.rejected.into_iter().map(reject));
        Ok(())
    }

    /// What a failed try means for the next.
    fn judge(&mut self, failure: Failure) -> Refusal {
        match failure {
            Failure::Again(refusal) => refusal,
            Failure::Refused(rows) => self.find_refused(rows),
            Failure::Unknown(refusal) => {
                self.leave();
                refusal
            }
            Failure::Fenced { open } => {
                self.leave();
                let now = self.started.elapsed();
                match self.fences.fenced(now, open) {
                    Meaning::TooSlow => Refusal::new(
                        Trouble::Timeout,
                        format!(
                            "a transaction took longer than {} s and was ended by the brokers",
                            TRANSACTION_TIMEOUT.as_secs()
                        ),
                    ),
                    Meaning::Taken => Refusal::new(
                        Trouble::Peer,
                        format!(
                            "another program took over {}: an older biogate that still runs, or a hub of the same name",
                            self.id()
                        ),
                    ),
                    Meaning::Shared => self.shared_name(self.fences.not_before().saturating_sub(now)),
                }
            }
        }
    }

    fn shared_name(&self, wait: Duration) -> Refusal {
        // The exact time would make each of these a new reason.
        let minutes = wait.as_secs().div_ceil(60);
        Refusal::new(
            Trouble::Access,
            format!(
                "another hub uses this hub's name {gateway} (was the card copied?): give this one a gateway.id of its own; until then it tries again every few minutes, now in {minutes} min",
                gateway = self.gateway
            ),
        )
    }

    /// Finds out which of the rows in a refused request is the one, by sending parts in transactions that are never
    /// committed.
    fn find_refused(&mut self, rows: Vec<Row>) -> Refusal {
        let Some(open) = &self.open else { return Refusal::new(Trouble::Internal, "no producer".to_owned()) };
        let who = open.shared.who();
        let (mut parts, mut found, mut broken) = (vec![rows], 0, 0);
        while let Some(mut part) = parts.pop() {
            let probed = Transaction::begin(open, &self.stop)
                .and_then(|transaction| transaction.probe(&self.settings.topic, &part));
            match probed {
                Ok(None) => {}
                Ok(Some(code)) => match (part.len(), part.first().map(|row| (row.ticket, row.payload.len()))) {
                    (1, Some((Ticket::Event(_, nth), bytes))) => {
                        found += 1;
                        self.refused.1.insert(nth, words::given_up(code, bytes, who));
                    }
                    _ => {
                        let half = part.split_off(part.len() / 2);
                        parts.push(half);
                        parts.push(part);
                    }
                },
                // What is left of a refusal breaks off the next transaction too.
                Err(Failure::Again(_) | Failure::Refused(_)) if broken < MOST_BROKEN => {
                    broken += 1;
                    parts.push(part);
                    continue;
                }
                Err(Failure::Again(refusal)) => return refusal,
                Err(Failure::Refused(_)) => break,
                Err(failure) => return self.judge(failure),
            }
            broken = 0;
        }
        Refusal::new(
            Trouble::Peer,
            format!("topic {} refuses {found} records of a batch; the rest is sent without them", who.topic),
        )
    }
}

/// Queues the rows of a batch; a full queue is waited for.
fn fill(
    open: &Open,
    topic: &str,
    transaction: &Transaction<'_>,
    batch: &mut Batch,
    refused: &BTreeMap<usize, String>,
) -> Result<Sent, Failure> {
    let limit = open.limit as usize;
    let (mut sent, mut failure) = (Sent::default(), None);
    record::lines(batch, |line| {
        let size = line.size();
        let reason = match refused.get(&line.nth) {
            None if size > limit => {
                Some(words::given_up(RDKafkaErrorCode::MessageSizeTooLarge, size, open.shared.who()))
            }
            known => known.cloned(),
        };
        if let Some(reason) = reason {
            sent.rejected.push((line.nth, reason));
            return ControlFlow::Continue(());
        }
        if let Err(why) = transaction.send(topic, line) {
            failure = Some(why);
            return ControlFlow::Break(());
        }
        sent.ids.add(line.id);
        ControlFlow::Continue(())
    });
    match failure {
        // A record that was not taken does not spoil the transaction: without this it would be committed one short.
        Some(why) => Err(transaction.stopped(why)),
        None => Ok(sent),
    }
}
