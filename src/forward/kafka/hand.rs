//! A batch in hand as far as the producer has it, and how its rows get into the producer's queue.

use std::collections::VecDeque;
use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode;

use crate::forward::rows::{Batch, Rejected};

use super::client::Producer;
use super::context::Shared;
use super::record::{self, Lane, NotTaken, Row, Ticket, go_on};
use super::words;

/// A batch in hand, as far as the producer has it.
#[derive(Debug, Default)]
pub(super) struct Hand {
    pub(super) lane: Lane,
    /// First and last sequence, and how many rows were rendered: which batch, and how far it had come.
    pub(super) of: Option<(u64, u64, u64)>,
    /// Rows to send before any other: refused by a full queue, or come back.
    pub(super) outbox: VecDeque<Row>,
    /// The row that has gone alone.
    pub(super) alone: Option<Ticket>,
    /// No row is left to render.
    pub(super) rendered: bool,
}

impl Hand {
    pub(super) fn on(lane: Lane) -> Hand {
        Hand { lane, ..Hand::default() }
    }

    pub(super) fn mark(batch: &Batch) -> (u64, u64, u64) {
        (batch.range.first, batch.range.last, batch.rendered)
    }

    /// Enters the outcomes in the tally; what has to go again is in the outbox. Returns why, where it should not go at
    /// once.
    pub(super) fn account(&mut self, shared: &Shared, batch: &mut Batch) -> Option<RDKafkaErrorCode> {
        let mut outcome = shared.events.take(self.lane);
        batch.tally.delivered += outcome.delivered;
        batch.tally.bytes += outcome.bytes;
        outcome.failed.sort_by_key(|(_, row)| usize::from(row.ticket));
        let mut why = None;
        for (code, mut row) in outcome.failed.into_iter().rev() {
            let was_alone = self.alone == Some(row.ticket);
            match (words::of_record(code), was_alone, row.ticket) {
                (true, true, Ticket::Event(_, nth)) => {
                    let reason = words::given_up(code, row.payload.len(), shared.who());
                    batch.tally.rejected.push(Rejected { sequence: batch.range.first + nth as u64, reason });
                    continue;
                }
                // The whole request was refused: which record it was shows when each goes alone.
                (true, _, _) => row.alone = true,
                (false, _, _) => why = Some(code),
            }
            self.outbox.push_front(row);
        }
        self.alone = None;
        why
    }

    /// Takes the records of a producer that ended into the outbox. They may have arrived without our knowing, so they
    /// count as sent again.
    pub(super) fn take_back(&mut self, shared: &Shared, batch: &mut Batch) {
        let before = self.outbox.len();
        self.account(shared, batch);
        batch.tally.resent += (self.outbox.len() - before) as u64;
    }
}

/// Why rows are not queued further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// All are.
    All,
    /// All are, and a batch is coming behind: it is asked for.
    Room,
    /// Those of the batch in hand are; before the last of the one behind it the queue is full.
    Behind,
    /// The queue is full.
    Full,
    /// A row goes alone, or has gone alone.
    Alone,
    /// One was not taken.
    Refused(RDKafkaErrorCode),
    /// The batch's basis is gone.
    Basis,
}

/// What queueing needs, so that it can go to another thread and come back.
pub(super) struct Filling {
    pub(super) producer: Producer,
    pub(super) shared: Arc<Shared>,
    pub(super) topic: String,
    pub(super) limit: usize,
    pub(super) hand: Hand,
    pub(super) batch: Batch,
}

impl Filling {
    pub(super) fn run(&mut self) -> Stop {
        let events = &self.shared.events;
        while let Some(mut row) = self.hand.outbox.pop_front() {
            let (alone, ticket) = (row.alone, row.ticket);
            if alone && events.waiting() > 0 {
                self.hand.outbox.push_front(row);
                return Stop::Alone;
            }
            row.alone = false;
            if let Err((mut row, why)) = row.send(&self.topic, &self.producer, events) {
                row.alone = alone;
                self.hand.outbox.push_front(row);
                return why.into();
            }
            if alone {
                self.hand.alone = Some(ticket);
                return Stop::Alone;
            }
        }
        match self.hand.rendered {
            true => Stop::All,
            false => self.render(),
        }
    }

    fn render(&mut self) -> Stop {
        let Filling { producer, shared, topic, limit, hand, batch } = self;
        let first = batch.range.first;
        let (mut rejected, mut stop) = (Vec::new(), None);
        let known = record::lines(batch, |line| {
            let size = line.size();
            if size > *limit {
                let reason = words::given_up(RDKafkaErrorCode::MessageSizeTooLarge, size, shared.who());
                rejected.push(Rejected { sequence: first + line.nth as u64, reason });
                return go_on(false);
            }
            if let Err((row, why)) = line.send(hand.lane, topic, producer, &shared.events) {
                hand.outbox.push_back(row);
                stop = Some(Stop::from(why));
            }
            go_on(stop.is_some())
        });
        batch.tally.rejected.append(&mut rejected);
        match (known, stop) {
            (false, _) => Stop::Basis,
            (true, Some(stop)) => stop,
            (true, None) => {
                hand.rendered = true;
                Stop::All
            }
        }
    }
}

impl From<NotTaken> for Stop {
    fn from(why: NotTaken) -> Stop {
        match why {
            NotTaken::Full => Stop::Full,
            NotTaken::Refused(code) => Stop::Refused(code),
        }
    }
}
