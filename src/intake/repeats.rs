//! Which PUBLISH is one that the broker sends again although it is stored.
//!
//! Of each broker the last `2 x window` messages are remembered: all that can be unacknowledged, and as many whose
//! acknowledgement may have been lost. Each takes one state key, a slot of a ring, and is committed with what came of it.
//! Each has a number too, so that a new process goes on where the last one stood, and of two messages under one packet id
//! (a broker that restarts begins its ids anew) knows the newer.

use std::collections::HashMap;
use std::sync::Arc;

use crate::source::delivery::Publish;
use crate::store::{StateChange, Store};

/// State keys begin so; then the broker's name and the slot: `publish/ward/17`.
const PUBLISH_STATE: &str = "publish/";

#[derive(Debug, Default)]
pub(super) struct Repeats {
    brokers: HashMap<Arc<str>, Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Packet id to slot and payload hash.
    by_packet: HashMap<u16, (usize, u64)>,
    /// Slot to packet id.
    slots: Vec<u16>,
    /// The number of the next message.
    next: u64,
}

/// A slot's state: packet id, payload hash, the message's number.
type Mark = (u16, u64, u64);

impl Repeats {
    /// What was committed before.
    pub(super) fn from_state(store: &Store) -> Self {
        Repeats::from_slots(store.state(PUBLISH_STATE))
    }

    fn from_slots(slots: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let parsed = slots.into_iter().filter_map(|(key, value)| {
            let (broker, slot) = key.strip_prefix(PUBLISH_STATE)?.rsplit_once('/')?;
            Some((mark(&value)?, broker.to_owned(), slot.parse::<usize>().ok()?))
        });
        let mut marks: Vec<_> = parsed.collect();
        marks.sort_unstable_by_key(|((_, _, number), ..)| *number);
        let mut repeats = Repeats::default();
        for ((packet_id, hash, number), broker, slot) in marks {
            let ring = repeats.brokers.entry(broker.into()).or_default();
            ring.put(slot, packet_id, hash);
            ring.next = number + 1;
        }
        repeats
    }

    /// Whether this message is marked as sent again and its first sending is stored, or about to be.
    pub(super) fn is_repeat(&self, publish: &Publish) -> bool {
        publish.redelivered
            && self
                .brokers
                .get(&publish.broker)
                .and_then(|ring| ring.by_packet.get(&publish.packet_id))
                .is_some_and(|(_, hash)| *hash == publish.payload_hash)
    }

    /// Remembers the message; the change goes into the commit that carries what came of it.
    pub(super) fn remember(&mut self, publish: &Publish) -> StateChange {
        let ring = self.brokers.entry(publish.broker.clone()).or_default();
        let mark: Mark = (publish.packet_id, publish.payload_hash, ring.next);
        let slot = (ring.next % (2 * publish.window.max(1) as u64)) as usize;
        ring.next += 1;
        ring.put(slot, publish.packet_id, publish.payload_hash);
        // Three integers into a Vec: serde_cbor has no failure for them.
        let value = serde_cbor::to_vec(&mark).unwrap_or_default();
        StateChange { key: format!("{PUBLISH_STATE}{}/{slot}", publish.broker), value: Some(value) }
    }
}

/// A slot as it is written, or as it was before messages had numbers.
fn mark(value: &[u8]) -> Option<Mark> {
    let unnumbered = || serde_cbor::from_slice::<(u16, u64)>(value).map(|(packet_id, hash)| (packet_id, hash, 0));
    serde_cbor::from_slice(value).or_else(|_| unnumbered()).ok()
}

impl Ring {
    fn put(&mut self, slot: usize, packet_id: u16, hash: u64) {
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, 0);
        }
        let replaced = std::mem::replace(&mut self.slots[slot], packet_id);
        if self.by_packet.get(&replaced).is_some_and(|(at, _)| *at == slot) {
            self.by_packet.remove(&replaced);
        }
        self.by_packet.insert(packet_id, (slot, hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(packet_id: u16, payload_hash: u64, redelivered: bool) -> Publish {
        Publish { broker: "ward".into(), packet_id, redelivered, payload_hash, window: 2 }
    }

    #[test]
    fn only_a_marked_message_with_the_same_id_and_payload_is_a_repeat() {
        let mut repeats = Repeats::default();
        repeats.remember(&publish(7, 70, false));
        assert!(repeats.is_repeat(&publish(7, 70, true)));
        assert!(
            !repeats.is_repeat(&publish(7, 70, false)),
            "the id is used again for a new message of the same content"
        );
        assert!(!repeats.is_repeat(&publish(7, 71, true)));
        assert!(!repeats.is_repeat(&publish(8, 70, true)));
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_never_grows() {
        let mut repeats = Repeats::default();
        for packet_id in 1..=5 {
            repeats.remember(&publish(packet_id, 1, false));
        }
        assert!(!repeats.is_repeat(&publish(1, 1, true)), "written over");
        assert!((2..=5).all(|packet_id| repeats.is_repeat(&publish(packet_id, 1, true))));
        assert_eq!(repeats.brokers["ward"].by_packet.len(), 4);
    }

    /// A new process that finds what these commits left.
    fn after(commits: &[StateChange]) -> Repeats {
        let slots: HashMap<_, _> =
            commits.iter().map(|change| (change.key.clone(), change.value.clone().unwrap())).collect();
        Repeats::from_slots(slots)
    }

    #[test]
    fn a_new_process_goes_on_in_the_ring_where_the_last_one_stood() {
        let mut commits = vec![];
        for packet_id in 1..=3 {
            let mut process = after(&commits);
            commits.push(process.remember(&publish(packet_id, 1, false)));
        }
        let process = after(&commits);
        assert!((1..=3).all(|packet_id| process.is_repeat(&publish(packet_id, 1, true))));
    }

    #[test]
    fn of_two_messages_under_one_packet_id_the_newer_counts_after_a_restart() {
        let mut process = Repeats::default();
        let commits: Vec<_> =
            [(7, 70), (8, 80), (7, 71)].map(|(id, hash)| process.remember(&publish(id, hash, false))).into();
        for commits in [commits.clone(), commits.into_iter().rev().collect()] {
            let process = after(&commits);
            assert!(process.is_repeat(&publish(7, 71, true)));
            assert!(
                !process.is_repeat(&publish(7, 70, true)),
                "the broker gave the id away again: this one was settled"
            );
        }
    }

    #[test]
    fn slots_of_before_messages_had_numbers_are_read() {
        let value = serde_cbor::to_vec(&(7u16, 70u64)).unwrap();
        let process = Repeats::from_slots([("publish/ward/0".to_owned(), value)]);
        assert!(process.is_repeat(&publish(7, 70, true)));
    }
}
