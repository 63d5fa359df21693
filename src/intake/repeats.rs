//! Which PUBLISH is one that the broker sends again although it is stored.
//!
//! Of each broker the last `2 x window` messages are remembered: all that can be unacknowledged, and as many whose
//! acknowledgement may have been lost. Each takes one state key, a slot of a ring, and is committed with what came of it.

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
    next: usize,
}

impl Repeats {
    /// What was committed before. Where the ring's head stood is not kept: the slots are written over from the first.
    pub(super) fn from_state(store: &Store) -> Self {
        let mut repeats = Repeats::default();
        for (key, value) in store.state(PUBLISH_STATE) {
            let place = key[PUBLISH_STATE.len()..].rsplit_once('/');
            let parsed = place.and_then(|(broker, slot)| Some((broker, slot.parse::<usize>().ok()?)));
            let marks: Option<(u16, u64)> = serde_cbor::from_slice(&value).ok();
            if let (Some((broker, slot)), Some((packet_id, hash))) = (parsed, marks) {
                repeats.brokers.entry(broker.into()).or_default().put(slot, packet_id, hash);
            }
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
        let slot = ring.next % (2 * publish.window.max(1));
        ring.next = slot + 1;
        ring.put(slot, publish.packet_id, publish.payload_hash);
        // Two integers into a Vec: serde_cbor has no failure for them.
        let value = serde_cbor::to_vec(&(publish.packet_id, publish.payload_hash)).unwrap_or_default();
        StateChange { key: format!("{PUBLISH_STATE}{}/{slot}", publish.broker), value: Some(value) }
    }
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
}
