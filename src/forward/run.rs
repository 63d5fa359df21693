//! The loop of one cursor, as a state machine whose steps return the next state. It delivers to one destination, or to
//! those of a failover, one at a time (`switch`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, warn};

use crate::forward::ahead::Ahead;
use crate::forward::failover::{self, Failover};
use crate::forward::health::{Health, State as Doing};
use crate::forward::pace::Pace;
use crate::forward::probe::Probes;
use crate::forward::refusal::{Refusal, Trouble};
use crate::forward::reporting::Reporting;
use crate::forward::retry::Retry;
use crate::forward::rows::{Batch, Behind};
use crate::forward::{BatchLimit, Delivery, Destination, Kind, Settings, switch};
use crate::resolve::Timeline;
use crate::store::{self, Range, Settled, Store};

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

/// One cursor's loop.
pub struct Forwarder {
    /// The cursor's name: the destination's, or that of the failover.
    pub(super) name: Arc<str>,
    /// One, or those of the failover in their order; never empty.
    pub(super) outs: Vec<Out>,
    /// Which of them gets the events.
    pub(super) active: usize,
    pub(super) failover: Option<Failover>,
    /// Questions to those of the order before the active one.
    pub(super) probes: Option<Probes>,
    /// The batch behind the one in hand.
    pub(super) ahead: Option<Ahead>,
    pub(super) store: Store,
    pub(super) inputs: Inputs,
    pub(super) reporting: Reporting,
    /// The instant that the retry's times count from.
    pub(super) started: Instant,
}

/// One destination, and how it has been treating us.
pub(super) struct Out {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) limit: BatchLimit,
    pub(super) destination: Destination,
    pub(super) health: Health,
    pub(super) retry: Retry,
    pub(super) pace: Pace,
}

impl Out {
    fn new(settings: &Settings, seed: u64) -> Result<Out, String> {
        let health = Health::new(&settings.name, settings.kind.name());
        let limit = settings.kind.batch();
        Ok(Out {
            name: settings.name.as_str().into(),
            kind: settings.kind.clone(),
            limit,
            destination: Destination::new(settings, &health)?,
            health,
            retry: Retry::new(seed).waiting_at_most(settings.kind.longest_wait()),
            pace: Pace::new(limit),
        })
    }
}

/// Where the loop stands.
pub(super) enum State {
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
    /// The active destination of a failover is given up: the next one gets the range.
    Switch { range: Range, why: String },
    /// Every row has its outcome; moves the cursor. `took`: how long the last try lasted.
    Settle { batch: Batch, took: Duration },
    /// Done; what is in hand stays stored.
    Stopped,
}

impl Forwarder {
    /// The loop of one destination, not started. `Err` says what is wrong with the settings.
    pub fn new(settings: &Settings, store: Store, inputs: Inputs, seed: u64) -> Result<Forwarder, String> {
        let out = Out::new(settings, seed)?;
        Ok(Forwarder::of(out.name.clone(), vec![out], None, store, inputs, seed))
    }

    /// The loop of a failover over these destinations, which are in its order and at least one.
    pub fn with_failover(
        settings: failover::Settings,
        destinations: &[&Settings],
        store: Store,
        inputs: Inputs,
        seed: u64,
    ) -> Result<Forwarder, String> {
        let outs = destinations.iter().zip(0..).map(|(settings, nth)| Out::new(settings, seed.wrapping_add(nth)));
        let outs = outs.collect::<Result<Vec<_>, _>>()?;
        if outs.is_empty() {
            return Err("a failover needs destinations".to_owned());
        }
        let failover = switch::resume(settings, &store, seed);
        Ok(Forwarder::of(failover::CURSOR.into(), outs, Some(failover), store, inputs, seed))
    }

    fn of(
        name: Arc<str>,
        outs: Vec<Out>,
        failover: Option<Failover>,
        store: Store,
        inputs: Inputs,
        seed: u64,
    ) -> Forwarder {
        let active = failover.as_ref().map_or(0, Failover::active);
        let health = outs[active].health.clone();
        let reporting = Reporting::new(name.clone(), store.clone(), health, inputs.timeline.clone(), seed);
        let started = Instant::now();
        let forwarder =
            Forwarder { name, outs, active, failover, probes: None, ahead: None, store, inputs, reporting, started };
        forwarder.introduce();
        forwarder
    }

    /// How each destination is; stays valid while and after the loop runs.
    pub fn healths(&self) -> Vec<Health> {
        self.outs.iter().map(|out| out.health.clone()).collect()
    }

    /// The destination that gets the events.
    pub(super) fn out(&self) -> &Out {
        &self.outs[self.active]
    }

    pub(super) fn out_mut(&mut self) -> &mut Out {
        &mut self.outs[self.active]
    }

    /// Delivers until told to stop. An error of the store ends it: nothing may be sent that is not accounted for.
    pub async fn run(mut self) -> Result<(), store::Error> {
        // A range in hand was cut by an earlier process: its versions are fixed, so the gate does not hold it.
        let mut state = match self.store.in_hand(&self.name) {
            Some(range) => State::Read { range, resumed: true },
            None => State::Gate,
        };
        self.take_up().await?;
        loop {
            state = match state {
                State::Gate => self.wait_for_gate().await?,
                State::Cut => self.cut().await?,
                State::Read { range, resumed } => self.read(range, resumed).await?,
                State::Deliver(batch) => self.deliver(batch).await?,
                State::Wait { refusal, then } => self.wait(refusal, *then).await?,
                State::Switch { range, why } => self.switch(range, &why).await?,
                State::Settle { batch, took } => self.settle(batch, took).await?,
                State::Stopped => break,
            };
        }
        self.outs.iter().for_each(|out| out.health.enter(Doing::Stopped));
        Ok(())
    }

    async fn wait_for_gate(&mut self) -> Result<State, store::Error> {
        loop {
            if self.is_stopping() {
                return Ok(State::Stopped);
            }
            match &*self.inputs.gate.borrow_and_update() {
                Gate::Open => return Ok(State::Cut),
                Gate::Held(reason) => self.outs[self.active].health.holding(reason),
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
        self.out().health.enter(Doing::Idle);
        let not_before = self.started + self.out().retry.next_batch_at();
        let mut tend_at = self.out().destination.tend_in().map(|wait| Instant::now() + wait);
        loop {
            let versions = self.inputs.timeline.borrow_and_update().newest();
            let out = self.out();
            let limit = out.limit.cut(&out.retry, &out.pace);
            let next = async {
                sleep_until(not_before).await;
                match versions {
                    Some(at) => self.store.next_range(&self.name, at.anchors, at.basis, limit).await,
                    // Nothing can be rendered before there is a basis.
                    None => std::future::pending().await,
                }
            };
            let tend = at(tend_at);
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
    pub(super) async fn report(&mut self) -> Result<(), store::Error> {
        let mut stop = self.inputs.stop.clone();
        tokio::select! {
            sent = self.reporting.send(&mut self.outs[self.active].destination) => sent,
            () = deadline(&mut stop) => Ok(()),
        }
    }

    /// Lets the destination do what time asks for; returns when it wants that again.
    async fn tend(&mut self) -> Option<Instant> {
        let out = self.out_mut();
        match out.destination.tend().await {
            Ok(()) => {
                out.health.enter(Doing::Idle);
                out.destination.tend_in().map(|wait| Instant::now() + wait)
            }
            Err(refusal) => {
                out.health.retrying(refusal.trouble.name(), &refusal.reason, 1);
                Some(Instant::now() + TEND_AGAIN)
            }
        }
    }

    async fn read(&mut self, range: Range, resumed: bool) -> Result<State, store::Error> {
        if !resumed {
            self.begin(&range).await?;
        }
        self.out().health.enter(Doing::Delivering);
        // What one destination of a failover did not take is for whichever is active now.
        let outs: Vec<Arc<str>> = self.outs.iter().map(|out| out.name.clone()).collect();
        let chunks = self.store.read(&range).await?.map(move |mut chunk| {
            chunk.only_for.take_if(|only| outs.contains(only));
            chunk
        });
        let timeline = self.inputs.timeline.borrow().clone();
        if !timeline.bases.contains_key(&range.basis) {
            let reason = format!("basis {} of a batch in hand is not known; it stays stored", range.basis);
            let refusal = Refusal::new(Trouble::Internal, reason);
            return Ok(State::Wait { refusal, then: Box::new(State::Read { range, resumed }) });
        }
        let name = self.out().name.clone();
        debug!(destination = &*name, first = range.first, last = range.last, resumed, "batch in hand");
        let halved = self.halved(&range);
        let mut batch = Batch::new(name, range, resumed, chunks, timeline);
        batch.halved = halved;
        Ok(State::Deliver(batch))
    }

    async fn deliver(&mut self, mut batch: Batch) -> Result<State, store::Error> {
        if !self.note_halved(&batch).await? {
            return Ok(State::Stopped);
        }
        crash_point!("forward.send.before");
        self.look_ahead(&mut batch);
        let began = self.started.elapsed();
        let hangs_at = self.failover.as_ref().map(|failover| self.started + failover.hangs_at(began));
        let mut stop = self.inputs.stop.clone();
        self.out().health.enter(Doing::Delivering);
        let (refusal, partly, then) = loop {
            let range = batch.in_hand();
            let delivery = tokio::select! {
                delivery = self.outs[self.active].destination.deliver(batch) => delivery,
                () = deadline(&mut stop) => return Ok(State::Stopped),
                () = at(hangs_at) => return Ok(self.hangs(range, began)),
            };
            match delivery {
                Delivery::Done(batch) => {
                    return Ok(State::Settle { batch, took: self.started.elapsed().saturating_sub(began) });
                }
                Delivery::Underway(underway) => batch = self.let_follow(underway).await?,
                Delivery::Later(batch, refusal) => {
                    break (refusal, batch.tally.delivered > 0, State::Deliver(batch));
                }
                Delivery::Again(refusal) => break (refusal, false, State::Read { range, resumed: true }),
            }
        };
        self.ahead = None;
        let out = self.out_mut();
        out.pace.failed(refusal.failure());
        if let Some(failover) = &mut self.failover {
            failover.failed(began, refusal.in_doubt || partly);
        }
        Ok(State::Wait { refusal, then: Box::new(then) })
    }

    async fn wait(&mut self, refusal: Refusal, then: State) -> Result<State, store::Error> {
        let now = self.started.elapsed();
        let started = self.started;
        let out = self.out_mut();
        let again_at = started + out.retry.failed(now, refusal.failure());
        out.health.retrying(refusal.trouble.name(), &refusal.reason, out.retry.attempts());
        let give_up_at = self.failover.as_ref().and_then(Failover::give_up_at).map(|at| started + at);
        let until = give_up_at.map_or(again_at, |give_up_at| again_at.min(give_up_at));
        if timeout_at(until, stopping(&mut self.inputs.stop)).await.is_ok() {
            // The batch in hand stays stored; the next start takes it up.
            self.leave(&then).await?;
            return Ok(State::Stopped);
        }
        Ok(match (give_up_at, then) {
            (Some(at), State::Deliver(batch)) if at <= until => {
                State::Switch { range: batch.range, why: refusal.reason }
            }
            (Some(at), State::Read { range, .. }) if at <= until => State::Switch { range, why: refusal.reason },
            (_, then) => then,
        })
    }

    async fn settle(&mut self, mut batch: Batch, took: Duration) -> Result<State, store::Error> {
        let range = batch.range.clone();
        let behind = std::mem::take(&mut batch.behind);
        let (rows, bytes) = (batch.tally.delivered, batch.tally.bytes);
        let (rejected, parked, damaged) = (batch.tally.rejected.len(), batch.tally.parked.len(), batch.damaged());
        if rejected > 0 || damaged > 0 {
            // Without the reason: it may quote the row. It stands with the entry that is set aside.
            warn!(destination = &*self.out().name, rejected, parked, damaged, "not every event could be delivered");
        }
        // Only now, and only where rows were rejected, are the observations needed again.
        let chunks = match batch.rejected_range() {
            Some(part) => Some(self.store.read(&part).await?),
            None => None,
        };
        let copies = self.failover.as_mut().map_or(0, Failover::delivered);
        let settled = Settled { in_doubt_resent: rows * copies, ..batch.settle(chunks.into_iter().flatten()) };
        let next = self.made_ready().await;
        crash_point!("forward.acknowledged.before");
        let in_hand =
            self.store.settle_then(&self.name, &range, settled, next.as_ref().map(|next| &next.range)).await?;
        crash_point!("forward.acknowledged.after");
        let (now, waiting) = (self.started.elapsed(), self.store.waiting(&self.name));
        let out = self.out_mut();
        out.retry.succeeded(now);
        out.pace.delivered(took, waiting);
        out.health.delivered(rows, bytes);
        match (behind, next.filter(|_| in_hand)) {
            (Behind::InHand(behind), _) => self.go_on(*behind).await,
            (_, Some(next)) => self.go_on(next).await,
            (_, None) => Ok(State::Gate),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.inputs.stop.borrow().is_some()
    }
}

/// Returns once the gateway stops, also when it is gone.
pub(super) async fn stopping(stop: &mut watch::Receiver<Option<Instant>>) {
    // The only error is that the sender is gone.
    stop.wait_for(Option::is_some).await.ok();
}

/// Returns at the deadline that the gateway sets when it stops.
async fn deadline(stop: &mut watch::Receiver<Option<Instant>>) {
    let until = stop.wait_for(Option::is_some).await.ok().and_then(|until| *until);
    sleep_until(until.unwrap_or_else(Instant::now)).await;
}

/// Returns at this instant, or never.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
