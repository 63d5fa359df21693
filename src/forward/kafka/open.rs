//! A producer that found its topic, and what goes with it.

use std::sync::Arc;
use std::time::Duration;

use crate::forward::health::Health;
use crate::forward::refusal::Refusal;

use super::client::{self, Producer};
use super::context::Shared;
use super::words::Who;
use super::{Settings, survey};

/// How long a stop waits for the producer's threads to end.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// The producer with its news.
pub(super) struct Open {
    pub(super) producer: Producer,
    pub(super) shared: Arc<Shared>,
    /// The topic was found and its limit is known.
    pub(super) ready: bool,
    /// Bytes of the largest record.
    pub(super) limit: u32,
    /// What the secrets were when it was made.
    pub(super) secrets: u64,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("ready", &self.ready).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Open {
    /// Goes on with a producer whose topic was not found yet, or makes one; blocks.
    pub(super) fn make(
        settings: &Settings,
        health: &Health,
        transactional_id: Option<&str>,
        open: Option<Open>,
    ) -> (Option<Open>, Result<(), Refusal>) {
        let secrets = client::fingerprint(settings);
        let new = |limit| Open::new(settings, health, transactional_id, limit, secrets);
        let mut open = match open.filter(|open| open.secrets == secrets) {
            Some(open) => open,
            None => match new(settings.max_message_bytes) {
                Ok(open) => open,
                Err(refusal) => return (None, Err(refusal)),
            },
        };
        let mut found = match survey::topics(&open.producer, &open.shared, settings) {
            Ok(found) => found,
            Err(refusal) => return (Some(open), Err(refusal)),
        };
        survey::limits(settings, &mut found);
        if let Some(limit) = found.max_message_bytes.filter(|limit| *limit != open.limit) {
            // The size is among the things that a producer is told once.
            open = match new(limit) {
                Ok(open) => open,
                Err(refusal) => return (None, Err(refusal)),
            };
        }
        open.ready = true;
        (Some(open), Ok(()))
    }

    fn new(
        settings: &Settings,
        health: &Health,
        transactional_id: Option<&str>,
        limit: u32,
        secrets: u64,
    ) -> Result<Open, Refusal> {
        let shared = Arc::new(Shared::new(Who::of(settings), health.clone()));
        let producer = client::producer(settings, limit, transactional_id, shared.clone())?;
        Ok(Open { producer, shared, ready: false, limit, secrets })
    }

    /// Ends it on another thread and waits a moment: its threads must be over before the process is, whose exit takes
    /// down the TLS library under them. One that hangs does not hold up the stop.
    pub(super) fn end(self) {
        let (ended, end) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            drop(self);
            ended.send(()).ok();
        });
        end.recv_timeout(END_PATIENCE).ok();
    }
}
