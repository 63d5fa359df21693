//! The steps of a loop whose cursor several destinations share: who is tried, and what is written down before.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use super::run::{Forwarder, State};
use crate::forward::failover::{Failover, STANDING, Settings, Standing};
use crate::forward::probe::Probes;
use crate::store::{self, Range, StateChange, Store};

/// Letting go of a batch takes no longer; after that it counts as in doubt.
const ABANDON_DEADLINE: Duration = Duration::from_secs(10);

/// The failover as an earlier process left it.
pub(super) fn resume(settings: Settings, store: &Store, seed: u64) -> Failover {
    let in_hand = store.in_hand(super::failover::CURSOR).map(|range| range.first);
    Failover::new(settings, stored(store), in_hand, seed)
}

fn stored(store: &Store) -> Option<Standing> {
    let (_, bytes) = store.state(STANDING).into_iter().find(|(key, _)| key == STANDING)?;
    serde_json::from_slice(&bytes).ok()
}

impl Forwarder {
    /// Goes on with the range that an earlier process left, if it did. What it said of an orderly stop holds no longer
    /// once something is tried, so that goes first.
    pub(super) async fn take_up(&mut self) -> Result<(), store::Error> {
        let Some(failover) = &self.failover else { return Ok(()) };
        let first = self.store.in_hand(&self.name).map_or(0, |range| range.first);
        let standing = failover.standing(first);
        self.ask_earlier();
        self.write(standing).await
    }

    /// Says of a loop that has not started who is active and why.
    pub(super) fn introduce(&self) {
        if self.failover.is_some() {
            let why = if self.active == 0 { "the first of the order" } else { "it got the events before the restart" };
            self.tell(&format!("{} gets the events", self.out().name), why);
        }
    }

    /// A range was cut that nobody has seen: does an earlier destination of the order get it?
    pub(super) async fn begin(&mut self, range: &Range) -> Result<(), store::Error> {
        let now = self.started.elapsed();
        let Some(failover) = &mut self.failover else { return Ok(()) };
        failover.begin();
        let well_for = self.probes.as_ref().map(Probes::well_for).unwrap_or_default();
        if !failover.go_back(now, &well_for) {
            return Ok(());
        }
        let (place, standing) = (failover.active(), failover.standing(range.first));
        self.write(standing).await?;
        let left = self.out().name.clone();
        self.active = place;
        let name = self.out().name.clone();
        info!(from = &*left, to = &*name, "an earlier destination of the order is well again and gets the events");
        self.tell(&format!("{name} is well again"), "it is well again");
        self.follow();
        Ok(())
    }

    /// A try that does not end: it is in doubt until it is given up, and that is now.
    pub(super) fn hangs(&mut self, range: Range, began: Duration) -> State {
        if let Some(failover) = &mut self.failover {
            failover.failed(began, true);
        }
        State::Switch { range, why: "it does not answer".to_owned() }
    }

    /// Takes the range from the active destination and gives it to the next.
    pub(super) async fn switch(&mut self, range: Range, why: &str) -> Result<State, store::Error> {
        let began = self.started.elapsed();
        let abandoned = timeout(ABANDON_DEADLINE, self.out_mut().destination.abandon()).await;
        let now = self.started.elapsed();
        let Some(failover) = &mut self.failover else { return Ok(State::Read { range, resumed: true }) };
        failover.failed(began, abandoned.unwrap_or(true));
        if failover.give_up_at().is_some_and(|at| at > now) {
            // What it let go of may have arrived after all, so it is tried there again for as long as doubt lasts.
            return Ok(State::Read { range, resumed: true });
        }
        failover.give_up(now);
        let (place, standing) = (failover.active(), failover.standing(range.first));
        let doubted = standing.doubted.len();
        let written = tokio::select! {
            written = self.store.note(change(&standing)?) => written,
            () = super::run::stopping(&mut self.inputs.stop) => return Ok(State::Stopped),
        };
        written?;
        let left = self.out().name.clone();
        self.active = place;
        let to = self.out().name.clone();
        warn!(
            from = &*left,
            to = &*to,
            in_doubt = doubted > 0,
            "the next destination of the order gets the events: {why}"
        );
        self.tell(&format!("{to} gets the events since {left} failed: {why}"), &format!("{left} failed: {why}"));
        self.follow();
        Ok(State::Read { range, resumed: true })
    }

    /// At an orderly stop: writes down that the range in hand never arrived, where that is certain.
    pub(super) async fn leave(&mut self, then: &State) -> Result<(), store::Error> {
        let first = match then {
            State::Deliver(batch) => batch.range.first,
            State::Read { range, .. } => range.first,
            _ => return Ok(()),
        };
        match self.failover.as_ref().and_then(|failover| failover.clear_standing(first)) {
            Some(standing) => self.write(standing).await,
            None => Ok(()),
        }
    }

    /// Says everywhere who is active and why.
    fn tell(&self, to_others: &str, to_active: &str) {
        for (place, out) in self.outs.iter().enumerate() {
            if place == self.active {
                out.health.take_over(to_active);
            } else {
                out.health.step_back(to_others);
            }
        }
    }

    /// What else goes with the active destination.
    fn follow(&mut self) {
        self.reporting.go_to(self.out().health.clone());
        self.ask_earlier();
    }

    /// From now on those before the active one are asked whether they are well again.
    fn ask_earlier(&mut self) {
        let Some(failover) = &self.failover else { return };
        let earlier = self.outs.iter().take(self.active).map(|out| (out.kind.clone(), out.health.clone()));
        let span = failover.back_after();
        self.probes = (self.active > 0).then(|| Probes::start(earlier.collect(), span));
    }

    /// Makes the standing durable, unless it is already. A store without any room is waited for until the stop.
    async fn write(&mut self, standing: Standing) -> Result<(), store::Error> {
        if stored(&self.store).is_some_and(|stored| stored.says_as_much_as(&standing)) {
            return Ok(());
        }
        self.store.note(change(&standing)?).await
    }
}

fn change(standing: &Standing) -> Result<StateChange, store::Error> {
    let value = serde_json::to_vec(standing);
    let value = value.map_err(|error| store::Error::Refused { what: format!("the failover's standing: {error}") })?;
    Ok(StateChange { key: STANDING.to_owned(), value: Some(value) })
}
