//! An event as a record, and what is needed to send one again.

use std::ops::ControlFlow;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use uuid::fmt::Hyphenated;

use crate::event::Event;
use crate::forward::json;
use crate::report::Report;

use super::client::Producer;
use super::context::Flight;

/// The version of the value's form, in the header `schema`.
const SCHEMA: &str = "1";

/// What a batch's frame and a record's own fields take at most, beside key, value and headers.
const FRAME: usize = 61 + 41;

/// Goes with a record and comes back with its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ticket {
    /// The n-th observation of the range in hand.
    Event(usize),
    /// A report beside the events.
    Report,
}

impl From<usize> for Ticket {
    fn from(opaque: usize) -> Self {
        opaque.checked_sub(1).map_or(Ticket::Report, Ticket::Event)
    }
}

impl From<Ticket> for usize {
    fn from(ticket: Ticket) -> usize {
        match ticket {
            Ticket::Event(nth) => nth + 1,
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
    /// The record of an event; `room` is reused for the value.
    pub(super) fn of(event: &Event, nth: usize, mut room: Vec<u8>) -> Row {
        room.clear();
        json::line(&mut room, event);
        // The line feed belongs to files.
        room.pop();
        let mut id = [0; Hyphenated::LENGTH];
        let id: &str = event.event_id.hyphenated().encode_lower(&mut id);
        let headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header { key: "event_id", value: Some(id) })
            .insert(Header { key: "schema", value: Some(SCHEMA) })
            .insert(Header { key: "gateway", value: Some(&*event.gateway_id) });
        Row {
            ticket: Ticket::Event(nth),
            key: event.device_id.as_bytes().to_vec(),
            payload: room,
            headers: Some(headers),
            alone: false,
        }
    }

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

    /// The most bytes that a topic with a limit can measure of it.
    pub(super) fn size(&self, gateway: &str) -> usize {
        let header = |key: &str, value: usize| 10 + key.len() + value;
        let headers =
            header("event_id", Hyphenated::LENGTH) + header("schema", SCHEMA.len()) + header("gateway", gateway.len());
        FRAME + self.key.len() + self.payload.len() + headers
    }

    /// Gives it to the producer, which copies it. What is not taken comes back.
    pub(super) fn send(self, topic: &str, producer: &Producer, flight: &Flight) -> Result<Vec<u8>, (Row, NotTaken)> {
        let Row { ticket, key, payload, headers, alone } = self;
        let mut record = BaseRecord::with_opaque_to(topic, ticket.into()).key(&key[..]).payload(&payload[..]);
        record.headers = headers;
        flight.one_more();
        let refused = match producer.send(record) {
            Ok(()) => None,
            Err((error, record)) => Some((error, record.headers)),
        };
        let Some((error, headers)) = refused else { return Ok(payload) };
        flight.one_less();
        let why = match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => NotTaken::Full,
            other => NotTaken::Refused(other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        Err((Row { ticket, key, payload, headers, alone }, why))
    }
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
        for ticket in [Ticket::Report, Ticket::Event(0), Ticket::Event(19_999)] {
            assert_eq!(Ticket::from(usize::from(ticket)), ticket);
        }
    }
}
