//! Which inserts of the batch in hand go in halves, written down before the first half leaves.
//!
//! Halves have tokens of their own. A process that took up the batch as a whole, where another had divided it, would send
//! rows again that the server has, under a token that it does not know.

use super::run::{Forwarder, stopping};
use crate::forward::rows::Batch;
use crate::store::{self, Range, StateChange};

/// State keys begin so; then the destination.
const STATE: &str = "halved/";

/// The batch by its first sequence, and the tokens.
type Halved = (u64, Vec<String>);

impl Forwarder {
    /// What was written down of this range.
    pub(super) fn halved(&self, range: &Range) -> Vec<String> {
        let key = self.key();
        let stored = self.store.state(&key).into_iter().find(|(found, _)| *found == key);
        let halved: Option<Halved> = stored.and_then(|(_, bytes)| serde_json::from_slice(&bytes).ok());
        halved.filter(|(first, _)| *first == range.first).map(|(_, tokens)| tokens).unwrap_or_default()
    }

    /// Writes down what is new. `false`: the gateway stops, and nothing may be sent.
    pub(super) async fn note_halved(&mut self, batch: &Batch) -> Result<bool, store::Error> {
        if batch.halved.is_empty() || self.halved(&batch.range) == batch.halved {
            return Ok(true);
        }
        let halved: Halved = (batch.range.first, batch.halved.clone());
        let value = serde_json::to_vec(&halved).map_err(|why| store::Error::Refused { what: why.to_string() })?;
        let change = StateChange { key: self.key(), value: Some(value) };
        tokio::select! {
            noted = self.store.note(change) => noted.map(|()| true),
            () = stopping(&mut self.inputs.stop) => Ok(false),
        }
    }

    fn key(&self) -> String {
        format!("{STATE}{}", self.out().name)
    }
}
