//! The way out: ranges are cut, read and settled.

use tokio::sync::oneshot;

use super::generation::Entry;
use super::queue::{Queue, Waiter};
use super::{Chunks, CutLimit, Error, Range, Sequence, Settled};

impl Queue {
    /// Cuts the next range and makes it durable, or keeps the waiter until a commit brings observations.
    pub(super) fn next_range(&mut self, waiter: Waiter) -> Result<(), Error> {
        if waiter.reply.is_closed() {
            return Ok(());
        }
        let Some(destination) = self.own.destinations.get(&waiter.destination) else {
            let what = format!("no destination {} is configured", waiter.destination);
            drop(waiter.reply.send(Err(Error::Refused { what })));
            return Ok(());
        };
        if let Some(range) = destination.range.clone() {
            // A range that a dropped call left in hand: the same rows again, never others.
            drop(waiter.reply.send(Ok(range)));
            return Ok(());
        }
        let cursor = destination.cursor;
        let (first, last) = match self.cut(cursor, waiter.limit) {
            Ok(Some(span)) => span,
            Ok(None) => {
                self.waiters.retain(|other| other.destination != waiter.destination && !other.reply.is_closed());
                self.waiters.push(waiter);
                return Ok(());
            }
            Err(error) => return refuse(waiter.reply, error),
        };
        let range = Range { first, last, anchors: waiter.anchors, basis: waiter.basis };
        self.hold(&waiter.destination, first, Some(range.clone()));
        crash_point!("store.range.before");
        if let Err(error) = self.write_changes() {
            // A full disk was noticed before anything was written: the cut did not happen.
            self.hold(&waiter.destination, first, None);
            return refuse(waiter.reply, error);
        }
        crash_point!("store.range.after");
        // A forwarder that went away meanwhile finds its range in hand when it comes back.
        drop(waiter.reply.send(Ok(range)));
        Ok(())
    }

    fn hold(&mut self, name: &str, cursor: Sequence, range: Option<Range>) {
        if let Some(destination) = self.own.destination_mut(name) {
            destination.cursor = cursor;
            destination.range = range;
        }
    }

    /// First and last sequence of the next range from `cursor` on.
    fn cut(&mut self, cursor: Sequence, limit: CutLimit) -> Result<Option<(Sequence, Sequence)>, Error> {
        let next = self.own.generations.iter().find(|(_, known)| known.waiting_at(cursor) > 0);
        let Some((number, known)) = next.map(|(number, known)| (*number, known.clone())) else {
            return Ok(None);
        };
        let first = known.first.max(cursor);
        let Some(generation) = self.generation(number)? else { return Ok(Some((first, known.last))) };
        let entries = &generation.index[generation.index.partition_point(|entry| entry.last() < first)..];
        let (mut observations, mut bytes, mut taken) = (0, 0, 0);
        for entry in entries {
            observations += entry.count;
            bytes += entry.raw;
            if taken > 0 && (observations > limit.max_observations || bytes > limit.max_bytes) {
                break;
            }
            taken += 1;
        }
        // Sequences without a chunk are damaged: the range covers them, so that they are settled as such.
        let last = if taken < entries.len() { entries[taken].first - 1 } else { known.last };
        Ok(Some((first, last)))
    }

    /// The range's chunks in order, but for those that are damaged.
    pub(super) fn read(&mut self, range: &Range) -> Result<Chunks, Error> {
        Ok(Chunks::new(self.records(range)?, self.codec.decoder()?))
    }

    /// The range's records that can be read.
    fn records(&mut self, range: &Range) -> Result<Vec<(Sequence, sled::IVec)>, Error> {
        let holds = self
            .own
            .generations
            .iter()
            .find(|(_, known)| !known.is_empty() && known.first <= range.last && known.last >= range.first);
        let Some(number) = holds.map(|(number, _)| *number) else { return Ok(Vec::new()) };
        let Some(generation) = self.generation(number)? else { return Ok(Vec::new()) };
        let start = generation.index.partition_point(|entry| entry.last() < range.first);
        let entries = generation.index[start..].iter().take_while(|entry| entry.first <= range.last);
        let record = |entry: &Entry| match generation.get(entry.record) {
            Ok(record) => Some((entry.first, record)),
            Err(damaged) => {
                tracing::error!(sequence = entry.first, %damaged, "a chunk cannot be read");
                None
            }
        };
        Ok(entries.filter_map(record).collect())
    }

    /// The range that a cut behind this one would give, under the same versions, and its chunks. Nothing is cut: it may
    /// be gone when it is wanted.
    pub(super) fn ahead(&mut self, range: &Range, limit: CutLimit) -> Result<Option<(Range, Chunks)>, Error> {
        let Some((first, last)) = self.cut(range.last + 1, limit)? else { return Ok(None) };
        let next = Range { first, last, ..range.clone() };
        let chunks = self.read(&next)?;
        Ok(Some((next, chunks)))
    }

    /// Whether a cut at `cursor` could give this range: what was looked at ahead may have been evicted since.
    fn could_cut(&self, cursor: Sequence, range: &Range) -> bool {
        let next = self.own.generations.values().find(|known| known.waiting_at(cursor) > 0);
        next.is_some_and(|known| known.first.max(cursor) == range.first && range.last <= known.last)
    }

    /// Moves a cursor past its range, or past the front of it. Durable with the next record; written at once when a
    /// generation can go with it, and when `next` goes in hand, in the same record. Returns whether it did.
    pub(super) fn settle(
        &mut self,
        name: &str,
        range: &Range,
        settled: Settled,
        next: Option<Range>,
    ) -> Result<bool, Error> {
        let Some(whole) = self.in_hand(name).filter(|whole| range.is_front_of(whole)) else {
            let what = format!("{name} has another range in hand than {}..={}", range.first, range.last);
            return Err(Error::Refused { what });
        };
        let rest = (range.last < whole.last).then(|| Range { first: range.last + 1, ..whole });
        let next = next.filter(|_| rest.is_none());
        let counted = settled.delivered + settled.rejected + settled.parked + settled.passed_over + settled.damaged;
        if counted > range.count() {
            let what = format!("{counted} observations settled of {} in the range", range.count());
            return Err(Error::Refused { what });
        }
        let uncounted = range.count() - counted;
        if uncounted > 0 {
            tracing::warn!(destination = name, uncounted, "settled without an outcome: counted as damaged");
        }
        if !settled.aside.is_empty() {
            self.set_aside(settled.aside)?;
        }
        let now_ms = self.now_ms();
        self.own.add_sums(name, range.last, &settled.sums, now_ms);
        crash_point!("store.cursor.before");
        if let Some(destination) = self.own.destination_mut(name) {
            destination.cursor = range.last + 1;
            destination.range = rest;
            destination.tally.delivered += settled.delivered;
            destination.tally.rejected += settled.rejected;
            destination.tally.parked += settled.parked;
            destination.tally.passed_over += settled.passed_over;
            destination.tally.damaged += settled.damaged + uncounted;
            destination.tally.resent += settled.resent;
            destination.tally.in_doubt_resent += settled.in_doubt_resent;
        }
        crash_point!("store.cursor.after");
        self.close_unneeded();
        let drained = self.own.drained(self.newest.number).next().is_some();
        if drained {
            self.free_reserve()?;
        }
        let next = next.filter(|next| self.could_cut(range.last + 1, next));
        let in_hand = match next {
            Some(next) => self.hand_over(name, range.last + 1, None, next)?,
            None => {
                if drained {
                    self.write_if_room()?;
                }
                false
            }
        };
        self.publish();
        Ok(in_hand)
    }

    /// Puts a range in hand behind the one that is, so that both are one range; durable. `false`: they lie in two
    /// generations or have other versions, or there is no room for the record; then nothing changes.
    pub(super) fn extend(&mut self, name: &str, next: &Range) -> Result<bool, Error> {
        let Some(before) = self.in_hand(name) else { return Ok(false) };
        let whole = Range { last: next.last, ..before.clone() };
        let follows = *next == Range { first: before.last + 1, ..whole.clone() } && next.last > before.last;
        let mut known = self.own.generations.values();
        if !follows || !known.any(|known| known.first <= whole.first && known.last >= whole.last) {
            return Ok(false);
        }
        let extended = self.hand_over(name, before.first, Some(before), whole)?;
        self.publish();
        Ok(extended)
    }

    /// Puts `next` in hand in place of `before`. `false`: there is no room for the record, and all is as it was.
    fn hand_over(&mut self, name: &str, cursor: Sequence, before: Option<Range>, next: Range) -> Result<bool, Error> {
        self.hold(name, next.first, Some(next));
        crash_point!("store.range.before");
        let written = self.write_if_room()?;
        crash_point!("store.range.after");
        if !written {
            self.hold(name, cursor, before);
        }
        Ok(written)
    }

    fn in_hand(&self, name: &str) -> Option<Range> {
        self.own.destinations.get(name)?.range.clone()
    }

    /// Writes what changed. `false`: there is no room for the record, so the next one takes it along.
    fn write_if_room(&mut self) -> Result<bool, Error> {
        match self.write_changes() {
            Err(Error::Full { .. }) => Ok(false),
            other => other.map(|()| true),
        }
    }
}

/// Gives an error to the asker, and back when it ends the store.
fn refuse(reply: oneshot::Sender<Result<Range, Error>>, error: Error) -> Result<(), Error> {
    let is_fatal = error.is_fatal();
    drop(reply.send(Err(error.clone())));
    if is_fatal { Err(error) } else { Ok(()) }
}
