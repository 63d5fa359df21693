//! The loop of one destination, as a state machine whose steps return the next state.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, warn};

use crate::forward::health::{Health, State as Doing};
use crate::forward::refusal::{Refusal, Trouble};
use crate::forward::reporting::Reporting;
use crate::forward::retry::Retry;
use crate::forward::rows::Batch;
use crate::forward::{BatchLimit, Delivery, Destination, Settings};
use crate::resolve::Timeline;
use crate::store::{self, Range, Store};

/// A file that could not be closed is tried again after this.
const TEND_AGAIN: Duration = Duration::from_secs(10);

/// Whether batches may be cut: not while the wall clock may still turn out to be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// They may.
    Open,
    /// Not yet; the reason is for people, as `waiting for the clock, at most 10 min`.
    Held(String),
}

/// What the gateway tells its forwarders while they run. Every sender outlives the loops.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Whether batches may be cut.
    pub gate: watch::Receiver<Gate>,
    /// What rows depend on. A new one is seen by the next batch that is cut.
    pub timeline: watch::Receiver<Arc<Timeline>>,
    /// `Some` when the gateway stops: the batch in hand may finish until then, and no new one is cut.
    pub stop: watch::Receiver<Option<Instant>>,
}

/// One destination's loop.
pub struct Forwarder {
    name: Arc<str>,
    limit: BatchLimit,
    destination: Destination,
    store: Store,
    inputs: Inputs,
    health: Health,
    retry: Retry,
    reporting: Reporting,
    /// The instant that the retry's times count from.
    started: Instant,
}

/// Where the loop stands.
enum State {
    /// May a batch be cut?
    Gate,
    /// Waits for events to cut a range from.
    Cut,
    /// Reads a range's chunks. `resumed`: it may have been sent before, in part or whole.
    Read { range: Range, resumed: bool },
    /// Tries to deliver.
    Deliver(Batch),
    /// A try failed; waits for the next.
    Wait { refusal: Refusal, then: Box<State> },
    /// Every row has its outcome; moves the cursor.
    Settle(Batch),
    /// Done; what is in hand stays stored.
    Stopped,
}

impl Forwarder {
    /// A loop that has not started. `Err` says what is wrong with the settings.
    pub fn new(settings: &Settings, store: Store, inputs: Inputs, seed: u64) -> Result<Forwarder, String> {
        let health = Health::new(&settings.name, settings.kind.name());
        let name: Arc<str> = settings.name.as_str().into();
        Ok(Forwarder {
            name: name.clone(),
            limit: settings.kind.batch(),
            destination: Destination::new(settings, &health)?,
            reporting: Reporting::new(name, store.clone(), health.clone(), inputs.timeline.clone(), seed),
            store,
            inputs,
            health,
            retry: Retry::new(seed).waiting_at_most(settings.kind.longest_wait()),
            started: Instant::now(),
        })
    }

    /// How the destination is; stays valid while and after the loop runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Delivers until told to stop. An error of the store ends it: nothing may be sent that is not accounted for.
    pub async fn run(mut self) -> Result<(), store::Error> {
        // A range in hand was cut by an earlier process: its versions are fixed, so the gate does not hold it.
        let mut state = match self.store.in_hand(&self.name) {
            Some(range) => State::Read { range, resumed: true },
            None => State::Gate,
        };
        loop {
            state = match state {
                State::Gate => self.wait_for_gate().await?,
                State::Cut => self.cut().await?,
                State::Read { range, resumed } => self.read(range, resumed).await?,
                State::Deliver(batch) => self.deliver(batch).await,
                State::Wait { refusal, then } => self.wait(refusal, *then).await,
                State::Settle(batch) => self.settle(batch).await?,
                State::Stopped => break,
            };
        }
        self.health.enter(Doing::Stopped);
        Ok(())
    }

    async fn wait_for_gate(&mut self) -> Result<State, store::Error> {
        loop {
            if self.is_stopping() {
                return Ok(State::Stopped);
            }
            match &*self.inputs.gate.borrow_and_update() {
                Gate::Open => return Ok(State::Cut),
                Gate::Held(reason) => self.health.holding(reason),
            }
            tokio::select! {
                changed = self.inputs.gate.changed() => if changed.is_err() { return Ok(State::Stopped) },
                () = stopping(&mut self.inputs.stop) => return Ok(State::Stopped),
                () = self.reporting.due() => self.report().await?,
            }
        }
    }

    /// Waits for a range. The call is made anew when what rows depend on has changed, so that a range that is cut in
    /// the end names the newest versions, and when the gate closes.
    async fn cut(&mut self) -> Result<State, store::Error> {
        self.health.enter(Doing::Idle);
        let not_before = self.started + self.retry.next_batch_at();
        let mut tend_at = self.destination.tend_in().map(|wait| Instant::now() + wait);
        loop {
            let versions = self.inputs.timeline.borrow_and_update().newest();
            let limit = self.limit.cut(&self.retry);
            let next = async {
                sleep_until(not_before).await;
                match versions {
                    Some(at) => self.store.next_range(&self.name, at.anchors, at.basis, limit).await,
                    // Nothing can be rendered before there is a basis.
                    None => std::future::pending().await,
                }
            };
            let tend = async {
                match tend_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stopping(&mut self.inputs.stop) => return Ok(State::Stopped),
                changed = self.inputs.gate.changed() => {
                    return Ok(if changed.is_ok() { State::Gate } else { State::Stopped });
                }
                changed = self.inputs.timeline.changed() => if changed.is_err() { return Ok(State::Stopped) },
                range = next => return Ok(State::Read { range: range?, resumed: false }),
                () = self.reporting.due() => self.report().await?,
                () = tend => tend_at = self.tend().await,
            }
        }
    }

    /// A round of reports; a stop does not wait for it.
    async fn report(&mut self) -> Result<(), store::Error> {
        let mut stop = self.inputs.stop.clone();
        tokio::select! {
            sent = self.reporting.send(&mut self.destination) => sent,
            () = deadline(&mut stop) => Ok(()),
        }
    }

    /// Lets the destination do what time asks for; returns when it wants that again.
    async fn tend(&mut self) -> Option<Instant> {
        match self.destination.tend().await {
            Ok(()) => {
                self.health.enter(Doing::Idle);
                self.destination.tend_in().map(|wait| Instant::now() + wait)
            }
            Err(refusal) => {
                self.health.retrying(refusal.trouble.name(), &refusal.reason, 1);
                Some(Instant::now() + TEND_AGAIN)
            }
        }
    }

    async fn read(&mut self, range: Range, resumed: bool) -> Result<State, store::Error> {
        self.health.enter(Doing::Delivering);
        let chunks = self.store.read(&range).await?;
        let timeline = self.inputs.timeline.borrow().clone();
        if !timeline.bases.contains_key(&range.basis) {
            let reason = format!("basis {} of a batch in hand is not known; it stays stored", range.basis);
            let refusal = Refusal::new(Trouble::Internal, reason);
            return Ok(State::Wait { refusal, then: Box::new(State::Read { range, resumed }) });
        }
        debug!(destination = &*self.name, first = range.first, last = range.last, resumed, "batch in hand");
        Ok(State::Deliver(Batch::new(self.name.clone(), range, resumed, chunks, timeline)))
    }

    async fn deliver(&mut self, batch: Batch) -> State {
        self.health.enter(Doing::Delivering);
        crash_point!("forward.send.before");
        let range = batch.range.clone();
        let mut stop = self.inputs.stop.clone();
        let delivery = tokio::select! {
            delivery = self.destination.deliver(batch) => delivery,
            () = deadline(&mut stop) => return State::Stopped,
        };
        match delivery {
            Delivery::Done(batch) => State::Settle(batch),
            Delivery::Later(batch, refusal) => State::Wait { refusal, then: Box::new(State::Deliver(batch)) },
            Delivery::Again(refusal) => State::Wait { refusal, then: Box::new(State::Read { range, resumed: true }) },
        }
    }

    async fn wait(&mut self, refusal: Refusal, then: State) -> State {
        let until = self.started + self.retry.failed(self.started.elapsed(), refusal.failure());
        self.health.retrying(refusal.trouble.name(), &refusal.reason, self.retry.attempts());
        match timeout_at(until, stopping(&mut self.inputs.stop)).await {
            // The batch in hand stays stored; the next start takes it up.
            Ok(()) => State::Stopped,
            Err(_) => then,
        }
    }

    async fn settle(&mut self, batch: Batch) -> Result<State, store::Error> {
        let range = batch.range.clone();
        let (rows, bytes) = (batch.tally.delivered, batch.tally.bytes);
        let (rejected, parked, damaged) = (batch.tally.rejected.len(), batch.tally.parked.len(), batch.tally.damaged);
        if rejected > 0 || damaged > 0 {
            // Without the reason: it may quote the row. It stands with the entry that is set aside.
            warn!(destination = &*self.name, rejected, parked, damaged, "not every event could be delivered");
        }
        // Only now, and only where rows were rejected, are the observations needed again.
        let chunks = if batch.tally.rejected.is_empty() { Vec::new() } else { self.store.read(&range).await? };
        crash_point!("forward.acknowledged.before");
        self.store.settle(&self.name, &range, batch.settle(&chunks)).await?;
        crash_point!("forward.acknowledged.after");
        self.retry.succeeded(self.started.elapsed());
        self.health.delivered(rows, bytes);
        Ok(State::Gate)
    }

    fn is_stopping(&self) -> bool {
        self.inputs.stop.borrow().is_some()
    }
}

/// Returns once the gateway stops, also when it is gone.
async fn stopping(stop: &mut watch::Receiver<Option<Instant>>) {
    // The only error is that the sender is gone.
    stop.wait_for(Option::is_some).await.ok();
}

/// Returns at the deadline that the gateway sets when it stops.
async fn deadline(stop: &mut watch::Receiver<Option<Instant>>) {
    let until = stop.wait_for(Option::is_some).await.ok().and_then(|until| *until);
    sleep_until(until.unwrap_or_else(Instant::now)).await;
}
