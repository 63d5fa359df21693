//! The next batch, made ready while one is on its way.
//!
//! While a long queue drains, the destination would wait between two batches for the cursor, the next range, its chunks
//! and its rows. So the range behind the one in hand is read and rendered before its turn, one at a time and no larger than
//! any batch. It is not in hand: it becomes so, durably, in the record that moves the cursor past the one before, and
//! nothing of it is sent earlier. Whatever speaks against it, it is dropped, and its range is cut as if nothing had been.
//!
//! Where batches may overlap it does not wait for that record. As soon as the last rows of the one before are on their way,
//! the range in hand is extended by its range, durably, and its rows follow; the one before is then settled as the front of
//! what is in hand. So the connection is never idle, and at most two batches are in hand.

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::debug;

use super::run::{Forwarder, Gate, State};
use crate::forward::rows::{Batch, Behind};
use crate::store::{self, Range};

/// A batch that is being made ready, or is.
#[derive(Debug)]
pub(super) struct Ahead(JoinHandle<Result<Option<Batch>, store::Error>>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Forwarder {
    /// Begins to make the batch behind this one ready, where a whole one waits there. Not under a failover, which may take
    /// the next range elsewhere, and not while something fails: then the next batch may have to be smaller, and hours pass
    /// with it in memory.
    pub(super) fn look_ahead(&mut self, batch: &mut Batch) {
        if matches!(batch.behind, Behind::InHand(_)) {
            return;
        }
        let (range, out) = (&batch.range, self.out());
        let limit = out.limit.cut(&out.retry, &out.pace);
        let behind = self.store.waiting(&self.name).saturating_sub(range.count());
        if self.failover.is_some() || !out.retry.is_calm() || behind < limit.max_observations {
            return;
        }
        let timeline = self.inputs.timeline.borrow().clone();
        let Some(versions) = timeline.newest() else { return };
        let after = Range { anchors: versions.anchors, basis: versions.basis, ..range.clone() };
        let (store, name, kind) = (self.store.clone(), out.name.clone(), out.kind.clone());
        batch.behind = if kind.overlaps() { Behind::Coming } else { Behind::Nothing };
        self.ahead = Some(Ahead(tokio::spawn(async move {
            let Some((range, chunks)) = store.ahead(&after, limit).await? else { return Ok(None) };
            let mut batch = Batch::new(name, range, false, chunks, timeline);
            let prepared = spawn_blocking(move || kind.prepare(&mut batch).then_some(batch)).await;
            // Where rendering fails it fails again in its own turn, and says so there.
            Ok(prepared.ok().flatten())
        })));
    }

    /// The batch that was made ready, if it may go next.
    pub(super) async fn made_ready(&mut self) -> Option<Batch> {
        let mut ahead = self.ahead.take()?;
        let is_open = *self.inputs.gate.borrow() == Gate::Open;
        let has_to_tend = self.out().destination.tend_in().is_some_and(|wait| wait.is_zero());
        if self.is_stopping() || !is_open || has_to_tend {
            return None;
        }
        // An error of the store comes again with the next request.
        let batch = (&mut ahead.0).await.ok()?.ok()??;
        // What changed meanwhile counts from the next range on, and this one is not cut yet.
        let newest = self.inputs.timeline.borrow().newest()?;
        ((newest.anchors, newest.basis) == (batch.range.anchors, batch.range.basis)).then_some(batch)
    }

    /// Puts the batch that was made ready in hand behind one whose rows are all on their way.
    pub(super) async fn let_follow(&mut self, mut batch: Batch) -> Result<Batch, store::Error> {
        batch.behind = match self.made_ready().await {
            Some(next) if self.store.extend(&self.name, &next.range).await? => Behind::InHand(Box::new(next)),
            // Its turn comes when this one is settled.
            Some(_) | None => Behind::Nothing,
        };
        Ok(batch)
    }

    /// Goes on with a batch that is in hand since its forerunner's cursor moved. Reports have their turn before it.
    pub(super) async fn go_on(&mut self, batch: Batch) -> Result<State, store::Error> {
        let is_due = tokio::select! {
            biased;
            () = self.reporting.due() => true,
            () = std::future::ready(()) => false,
        };
        if is_due {
            self.report().await?;
        }
        debug!(destination = &*batch.destination, first = batch.range.first, last = batch.range.last, "batch in hand");
        Ok(State::Deliver(batch))
    }
}
