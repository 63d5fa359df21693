//! An event as a record, and what is needed to send one again.

use std::ops::ControlFlow;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::event::Event;
use crate::forward::json;
use crate::forward::rows::Batch;
use crate::report::Report;
use crate::store::Sequence;

use super::client::Producer;
use super::context::Flight;

/// The version of the value's form, in the header `schema`.
const SCHEMA: &str = "1";

/// What a batch's frame and a record's own fields take at most, beside key, value and headers.
const FRAME: usize = 61 + 41;

/// Which of the batches on their way a record belongs to: they take turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Lane {
    /// The first of a producer, its third and so on.
    #[default]
    Even = 0,
    /// The others.
    Odd = 1,
}

/// Goes with a record and comes back with its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ticket {
    /// The n-th observation of the batch on this lane.
    Event(Lane, usize),
    /// A report beside the events.
    Report,
}

impl Ticket {
    pub(super) fn lane(self) -> Lane {
        match self {
            Ticket::Event(lane, _) => lane,
            Ticket::Report => Lane::default(),
        }
    }
}

impl From<usize> for Ticket {
    fn from(opaque: usize) -> Self {
        match opaque.checked_sub(1) {
            None => Ticket::Report,
            Some(event) if event % 2 == 0 => Ticket::Event(Lane::Even, event / 2),
            Some(event) => Ticket::Event(Lane::Odd, event / 2),
        }
    }
}

impl From<Ticket> for usize {
    fn from(ticket: Ticket) -> usize {
        match ticket {
            Ticket::Event(lane, nth) => 1 + 2 * nth + lane as usize,
            Ticket::Report => 0,
        }
    }
}

/// A record that has to be sent (again).
#[derive(Debug)]
pub(super) struct Row {
    pub(super) ticket: Ticket,
    pub(super) key: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) headers: Option<OwnedHeaders>,
    /// In a request of its own, so that a refusal is about it and no other.
    pub(super) alone: bool,
}

/// Why a record was not taken into the queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// The queue is full: later.
    Full,
    /// Anything else.
    Refused(RDKafkaErrorCode),
}

impl Row {
    /// The same once more.
    pub(super) fn again(&self) -> Row {
        let Row { ticket, key, payload, headers, alone } = self;
        let headers = headers.clone();
        Row { ticket: *ticket, key: key.clone(), payload: payload.clone(), headers, alone: *alone }
    }

    /// The record of a report.
    pub(super) fn of_report(report: &Report) -> Row {
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: "schema", value: Some(SCHEMA) });
        Row {
            ticket: Ticket::Report,
            key: report.key.as_bytes().to_vec(),
            payload: report.row.as_bytes().to_vec(),
            headers: Some(headers),
            alone: false,
        }
    }

    /// Gives it to the producer, which copies it. What is not taken comes back.
    pub(super) fn send(self, topic: &str, producer: &Producer, flight: &Flight) -> Result<(), (Row, NotTaken)> {
        let Row { ticket, key, payload, headers, alone } = self;
        match queue((ticket, topic, &key, &payload), headers, producer, flight) {
            Ok(()) => Ok(()),
            Err((headers, why)) => Err((Row { ticket, key, payload, headers, alone }, why)),
        }
    }
}

/// An event's record where it was rendered, before it is a record of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Counted from the range's first observation.
    pub(super) nth: usize,
    pub(super) id: Uuid,
    pub(super) key: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) gateway: &'a str,
}

impl Line<'_> {
    /// The most bytes that a topic with a limit can measure of it.
    pub(super) fn size(&self) -> usize {
        let header = |key: &str, value: usize| 10 + key.len() + value;
        let headers = header("event_id", Hyphenated::LENGTH)
            + header("schema", SCHEMA.len())
            + header("gateway", self.gateway.len());
        FRAME + self.key.len() + self.payload.len() + headers
    }

    /// Gives it to the producer, which copies it. What is not taken comes back as a row.
    pub(super) fn send(
        self,
        lane: Lane,
        topic: &str,
        producer: &Producer,
        flight: &Flight,
    ) -> Result<(), (Row, NotTaken)> {
        let Line { nth, id, key, payload, gateway } = self;
        let mut room = [0; Hyphenated::LENGTH];
        let id: &str = id.hyphenated().encode_lower(&mut room);
        let headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header { key: "event_id", value: Some(id) })
            .insert(Header { key: "schema", value: Some(SCHEMA) })
            .insert(Header { key: "gateway", value: Some(gateway) });
        let ticket = Ticket::Event(lane, nth);
        queue((ticket, topic, key.as_bytes(), payload), Some(headers), producer, flight).map_err(|(headers, why)| {
            let (key, payload) = (key.as_bytes().to_vec(), payload.to_vec());
            (Row { ticket, key, payload, headers, alone: false }, why)
        })
    }
}

/// Queues a record; the headers come back with a refusal.
fn queue(
    (ticket, topic, key, payload): (Ticket, &str, &[u8], &[u8]),
    headers: Option<OwnedHeaders>,
    producer: &Producer,
    flight: &Flight,
) -> Result<(), (Option<OwnedHeaders>, NotTaken)> {
    let mut record = BaseRecord::with_opaque_to(topic, ticket.into()).key(key).payload(payload);
    record.headers = headers;
    flight.one_more(ticket.lane());
    let Err((error, record)) = producer.send(record) else { return Ok(()) };
    flight.one_less(ticket.lane());
    let why = match error {
        KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => NotTaken::Full,
        other => NotTaken::Refused(other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
    };
    Err((record.headers, why))
}

/// Hands out the batch's next lines, each as it is rendered, until `each` breaks. `false` when the batch's basis is unknown.
pub(super) fn lines(batch: &mut Batch, mut each: impl FnMut(Line<'_>) -> ControlFlow<()>) -> bool {
    let (first, mut room) = (batch.range.first, Vec::new());
    batch.fill(|sequence, event| {
        room.clear();
        value(&mut room, event);
        each(Line {
            nth: nth(sequence, first),
            id: event.event_id,
            key: &event.device_id,
            payload: &room,
            gateway: &event.gateway_id,
        })
    })
}

/// Appends the record's value.
fn value(into: &mut Vec<u8>, event: &Event) {
    json::line(into, event);
    // The line feed belongs to files.
    into.pop();
}

/// Counted from the range's first observation.
pub(super) fn nth(sequence: Sequence, first: Sequence) -> usize {
    usize::try_from(sequence.saturating_sub(first)).unwrap_or(usize::MAX)
}

/// Goes on while there is nothing to stop for.
pub(super) fn go_on(stop: bool) -> ControlFlow<()> {
    if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_comes_back_as_it_went() {
        let events = [Lane::Even, Lane::Odd].map(|lane| [0, 1, 39_999].map(|nth| Ticket::Event(lane, nth)));
        for ticket in events.into_iter().flatten().chain([Ticket::Report]) {
            assert_eq!(Ticket::from(usize::from(ticket)), ticket);
        }
    }
}
