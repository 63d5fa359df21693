//! PURE Which messages of a connection are not acknowledged yet, and when each may be: in the order they came.
//!
//! MQTT wants acknowledgements in order, so one that is ready waits for those before it. What a lost connection leaves
//! is kept until the broker sends it again under the same packet id: then it is not delivered a second time.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio::sync::oneshot;

/// The messages of a broker that wait for their acknowledgement.
#[derive(Debug, Default)]
pub(super) struct Acks {
    unacked: VecDeque<Unacked>,
    /// The number of the first of them; each message of the process has its own.
    first: u64,
    /// What earlier connections of the session left, by packet id.
    earlier: HashMap<u16, (u64, State)>,
}

#[derive(Debug)]
struct Unacked {
    packet_id: u16,
    hash: u64,
    state: State,
}

/// How far a message is.
#[derive(Debug)]
pub(super) enum State {
    /// Not with the intake yet.
    Held,
    /// With the intake, which will say that it is durable.
    Delivered(oneshot::Receiver<()>),
    /// To be acknowledged.
    Done,
    /// Never to be acknowledged on this connection: the broker shall send it again.
    Abandoned,
}

/// A receipt was dropped: its message must come again, and only a new connection makes the broker send it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReceiptLost;

impl Acks {
    /// A message came; returns its number.
    pub(super) fn came(&mut self, packet_id: u16, hash: u64, state: State) -> u64 {
        self.earlier.remove(&packet_id);
        self.unacked.push_back(Unacked { packet_id, hash, state });
        self.first + self.unacked.len() as u64 - 1
    }

    /// The broker repeats a message; true when it is one that is known and needs no delivery.
    pub(super) fn came_again(&mut self, packet_id: u16, hash: u64) -> bool {
        match self.earlier.remove(&packet_id) {
            Some((same, state)) if same == hash => {
                self.unacked.push_back(Unacked { packet_id, hash, state });
                true
            }
            Some(_) | None => false,
        }
    }

    /// The message of this number is on this state now. Numbers of lost connections are passed over.
    pub(super) fn set(&mut self, number: u64, state: State) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(unacked) = place.and_then(|place| self.unacked.get_mut(place)) {
            unacked.state = state;
        }
    }

    /// Whether the next message in order waits for its receipt.
    pub(super) fn waits(&self) -> bool {
        matches!(self.unacked.front(), Some(Unacked { state: State::Delivered(_), .. }))
    }

    /// Waits until the next message in order has its receipt, or never will. Cancel-safe.
    pub(super) async fn receipt(&mut self) {
        poll_fn(|context| match self.unacked.front_mut() {
            Some(Unacked { state: State::Delivered(receipt), .. }) => Pin::new(receipt).poll(context).map(Some),
            Some(_) | None => Poll::Ready(None),
        })
        .await
        .into_iter()
        .for_each(|receipt| self.set(self.first, if receipt.is_ok() { State::Done } else { State::Abandoned }));
    }

    /// Hands out every packet id whose turn it is. `ack` says false when it cannot write now.
    pub(super) fn settle(&mut self, mut ack: impl FnMut(u16) -> bool) -> Result<(), ReceiptLost> {
        while let Some(front) = self.unacked.front_mut() {
            let durable = match &mut front.state {
                State::Held => return Ok(()),
                State::Done => true,
                State::Abandoned => false,
                State::Delivered(receipt) => match receipt.try_recv() {
                    Ok(()) => true,
                    Err(oneshot::error::TryRecvError::Empty) => return Ok(()),
                    Err(oneshot::error::TryRecvError::Closed) => false,
                },
            };
            if !durable {
                front.state = State::Abandoned;
                return Err(ReceiptLost);
            }
            if !ack(front.packet_id) {
                front.state = State::Done;
                return Ok(());
            }
            self.unacked.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    /// At a stop: what never came to the intake, or lost its receipt, no longer stands before the rest.
    pub(super) fn abandon_undelivered(&mut self) {
        let before = self.unacked.len();
        self.unacked.retain(|unacked| !matches!(unacked.state, State::Held | State::Abandoned));
        self.first += (before - self.unacked.len()) as u64;
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) {
        self.first += self.unacked.len() as u64;
        for Unacked { packet_id, hash, state } in self.unacked.drain(..) {
            match state {
                State::Delivered(_) | State::Done => {
                    self.earlier.insert(packet_id, (hash, state));
                }
                State::Held | State::Abandoned => {}
            }
        }
    }

    /// The broker lost the session: its packet ids begin anew.
    pub(super) fn session_lost(&mut self) {
        self.earlier.clear();
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.unacked.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(acks: &mut Acks) -> Vec<u16> {
        let mut ids = Vec::new();
        acks.settle(|id| {
            ids.push(id);
            true
        })
        .unwrap();
        ids
    }

    #[test]
    fn acknowledgements_keep_the_order_of_arrival() {
        let mut acks = Acks::default();
        let (first, second) = (acks.came(7, 1, State::Held), acks.came(8, 2, State::Held));
        let (durable, receipt) = oneshot::channel();
        acks.set(second, State::Done);
        acks.set(first, State::Delivered(receipt));
        assert_eq!(settled(&mut acks), [0u16; 0]);
        durable.send(()).unwrap();
        assert_eq!(settled(&mut acks), [7, 8]);
        assert_eq!(acks.len(), 0);
    }

    #[test]
    fn a_repeat_after_a_reconnect_takes_up_its_receipt() {
        let mut acks = Acks::default();
        let number = acks.came(7, 1, State::Held);
        let (durable, receipt) = oneshot::channel();
        acks.set(number, State::Delivered(receipt));
        acks.came(8, 2, State::Held);
        acks.disconnected();
        assert!(acks.came_again(7, 1));
        assert!(!acks.came_again(8, 2), "it never came to the intake");
        acks.set(number, State::Done);
        assert_eq!(settled(&mut acks), [0u16; 0], "a number of the lost connection says nothing");
        durable.send(()).unwrap();
        assert_eq!(settled(&mut acks), [7]);
    }

    #[test]
    fn a_new_session_and_another_payload_are_no_repeats() {
        let mut acks = Acks::default();
        acks.came(7, 1, State::Done);
        acks.came(8, 2, State::Done);
        acks.disconnected();
        assert!(!acks.came_again(7, 99));
        acks.session_lost();
        assert!(!acks.came_again(8, 2));
    }

    #[test]
    fn a_dropped_receipt_is_told_and_never_acknowledged() {
        let mut acks = Acks::default();
        let number = acks.came(7, 1, State::Held);
        let (durable, receipt) = oneshot::channel::<()>();
        acks.set(number, State::Delivered(receipt));
        drop(durable);
        assert_eq!(acks.settle(|_| true), Err(ReceiptLost));
        acks.came(8, 2, State::Done);
        acks.abandon_undelivered();
        assert_eq!(settled(&mut acks), [8]);
    }
}
