//! The way in: a commit becomes one record, or as few as its limits allow.

use std::ops::RangeInclusive;

use super::chunk::{Header, MAX_CHUNK_BYTES};
use super::ledger::OWN;
use super::queue::Queue;
use super::row::split_state;
use super::{Commit, Error, IntakeTally, Range, Sequence, StateChange};
use crate::observation::{Observation, Value};
use crate::reading::RunId;

/// Most observations of one chunk: what a reader has to hold at once.
const MAX_CHUNK_OBSERVATIONS: usize = 8_192;
/// A state value up to this many bytes fits into a record whatever it is made of.
const SURELY_FITTING_VALUE: usize = 64 * 1024;

impl Queue {
    /// Makes a commit durable and lets forwarders that wait see it.
    pub(super) fn commit(&mut self, commit: Commit) -> Result<Option<RangeInclusive<Sequence>>, Error> {
        self.check_state(&commit.state)?;
        self.make_room_for(&commit)?;
        let Commit { observations, state, aside, intake, run, only_for, replayed } = commit;
        let run = run.unwrap_or(self.run);
        if !aside.is_empty() {
            self.set_aside(aside)?;
        }
        let nothing =
            observations.is_empty() && state.is_empty() && replayed.is_empty() && intake == IntakeTally::default();
        if nothing && !self.own.is_dirty() {
            return Ok(None);
        }
        let mut rest = consistent(intake, observations.len() as u64);
        let first = self.own.totals.next;
        let mut left = &observations[..];
        while !left.is_empty() {
            self.roll_if_full()?;
            let (chunk, count) = self.fitting_chunk(run, only_for.as_deref(), left)?;
            let (these, after) = left.split_at(count);
            left = after;
            let part = if left.is_empty() {
                rest
            } else {
                IntakeTally { made: count as u64, stored: count as u64, ..Default::default() }
            };
            rest.made -= count as u64;
            rest.stored -= count as u64;
            self.take_in(these, &part);
            if left.is_empty() {
                self.note_replayed(&replayed);
            }
            // State goes with the last observations: a crash between two records repeats readings, and loses none.
            self.put(&chunk, if left.is_empty() { &state } else { &[] })?;
        }
        if observations.is_empty() {
            self.roll_if_full()?;
            self.own.totals_mut().intake.add(&rest);
            self.note_replayed(&replayed);
            self.put(&[], &state)?;
        }
        self.sync(state)?;
        self.remove_empty_aside(&replayed)?;
        Ok((!observations.is_empty()).then(|| first..=first + observations.len() as u64 - 1))
    }

    /// Makes one state key durable. Unlike a commit it does not wait for the limits of the queue: what lets the queue
    /// drain must not wait for its draining.
    pub(super) fn note(&mut self, change: StateChange) -> Result<(), Error> {
        let changes = vec![change];
        self.check_state(&changes)?;
        self.roll_if_full()?;
        self.put(&[], &changes)?;
        self.sync(changes)
    }

    fn check_state(&mut self, state: &[StateChange]) -> Result<(), Error> {
        for change in state {
            if change.key.starts_with(OWN) {
                return Err(Error::Refused { what: format!("the state key {} is the store's own", change.key) });
            }
            let bytes = change.key.len() + change.value.as_ref().map_or(0, Vec::len);
            if bytes > SURELY_FITTING_VALUE {
                split_state(&mut self.codec, std::slice::from_ref(change))?;
            }
        }
        Ok(())
    }

    /// Counts observations that the next record carries, and gives them to the destinations that wait idly.
    fn take_in(&mut self, observations: &[Observation], part: &IntakeTally) {
        let now_ms = self.now_ms();
        let first = self.own.totals.next;
        let last = first + observations.len() as u64 - 1;
        self.give_to_waiters(first, last);
        let totals = self.own.totals_mut();
        totals.next = last + 1;
        totals.intake.add(part);
        let number = self.newest.number;
        let mut known = self.own.generations.get(&number).cloned().unwrap_or_default();
        if let [oldest, .., newest] | [oldest @ newest] = observations {
            known.add(first, last, (oldest.heard, newest.heard), now_ms);
        }
        let mut boot = None;
        for observation in observations {
            for heard in std::iter::once(&observation.heard).chain(&observation.since) {
                if boot != Some(heard.boot) {
                    known.add_boot(heard.boot);
                    boot = Some(heard.boot);
                }
            }
        }
        self.own.set_generation(number, Some(known));
    }

    /// An idle destination's range rides on the record that brings its chunk.
    fn give_to_waiters(&mut self, first: Sequence, last: Sequence) {
        for waiter in std::mem::take(&mut self.waiters) {
            if waiter.reply.is_closed() {
                continue;
            }
            let is_idle = self
                .own
                .destinations
                .get(&waiter.destination)
                .is_some_and(|to| to.range.is_none() && self.own.waiting(to) == 0);
            if !is_idle {
                self.waiters.push(waiter);
                continue;
            }
            let range = Range { first, last, anchors: waiter.anchors, basis: waiter.basis };
            if let Some(destination) = self.own.destination_mut(&waiter.destination) {
                destination.cursor = first;
                destination.range = Some(range.clone());
                self.ranged.push((waiter.reply, range));
            }
        }
    }

    /// The chunk of as many of these observations as fit, and how many those are.
    fn fitting_chunk(
        &mut self,
        run: RunId,
        only_for: Option<&str>,
        observations: &[Observation],
    ) -> Result<(Vec<u8>, usize), Error> {
        let first = self.own.totals.next;
        let mut count = observations.len().min(MAX_CHUNK_OBSERVATIONS);
        loop {
            let chunk = self.codec.encode(run, first, only_for, &observations[..count])?;
            if chunk.len() <= MAX_CHUNK_BYTES && Header::read(&chunk).is_ok() {
                return Ok((chunk, count));
            }
            if count == 1 {
                return self.bare_chunk(run, only_for, &observations[0]).map(|chunk| (chunk, 1));
            }
            count = count.div_ceil(2);
        }
    }

    /// An observation whose metadata do not fit into any chunk is kept without them.
    fn bare_chunk(&mut self, run: RunId, only_for: Option<&str>, observation: &Observation) -> Result<Vec<u8>, Error> {
        tracing::warn!(device = %observation.device, "metadata too large for the store: kept without");
        let mut bare = observation.clone();
        bare.metadata = vec![("metadata_too_large".into(), Value::Bool(true))];
        let chunk = self.codec.encode(run, self.own.totals.next, only_for, &[bare])?;
        if chunk.len() > MAX_CHUNK_BYTES {
            return Err(Error::Refused { what: format!("an observation of {} bytes", chunk.len()) });
        }
        Ok(chunk)
    }
}

/// The intake's tally with what is in the commit as `stored`: the ledger follows the observations.
fn consistent(mut intake: IntakeTally, stored: u64) -> IntakeTally {
    if intake.stored != stored {
        tracing::debug!(said = intake.stored, stored, "the tally of a commit does not count its observations");
        intake.made = (intake.made + stored).saturating_sub(intake.stored).max(stored);
        intake.stored = stored;
    }
    intake.made = intake.made.max(stored);
    intake
}
