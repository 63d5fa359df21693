//! `/tap`: events as they pass, one JSON line each, to who asks on the control socket. Persons and values are masked
//! unless they are asked for.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::answer::{self, Answer};
use super::board::Board;
use crate::observation::Observation;
use crate::resolve::{Resolved, Resolver};

/// How many pieces may wait for a slow client before it loses some.
const QUEUE: usize = 16;

/// How many events are rendered at once.
const AT_ONCE: usize = 256;

/// What stands in the place of what is not shown.
const MASKED: &str = "masked";

/// The field of the metadata that tells nothing of a person.
const PROFILE: &str = "profile";

/// What is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Values and metadata.
    pub(super) values: bool,
    /// Person ids.
    pub(super) persons: bool,
}

impl Shown {
    /// As the query says it: `values=1`, `persons=1`.
    pub(super) fn of(query: Option<&str>) -> Self {
        let said = |name: &str| query.unwrap_or("").split('&').any(|pair| pair.strip_prefix(name) == Some("=1"));
        Shown { values: said("values"), persons: said("persons") }
    }

    /// Masks the rest.
    fn mask(self, event: &mut Value) {
        let Some(fields) = event.as_object_mut() else { return };
        if !self.persons {
            fields.insert("user_id".to_owned(), MASKED.into());
        }
        if !self.values {
            fields.insert("value".to_owned(), MASKED.into());
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|name, _| name == PROFILE);
            }
        }
    }
}

/// An answer that ends when the client goes or the gateway stops.
pub(super) fn open(board: Arc<Board>, shown: Shown) -> Answer {
    let (mut lines, body) = Channel::<Bytes, Infallible>::new(QUEUE);
    let mut observations = board.taps.observations.subscribe();
    tokio::spawn(async move {
        while let Some(some) = next(&mut observations).await {
            if lines.send_data(rendered(&board, some, shown).into()).await.is_err() {
                return;
            }
        }
    });
    answer::stream(body.boxed())
}

/// What has passed, and how many were lost before it; `None` when nothing will pass any more.
struct Passed {
    observations: Vec<Observation>,
    lost: u64,
}

async fn next(observations: &mut Receiver<Observation>) -> Option<Passed> {
    let mut passed = Passed { observations: Vec::new(), lost: 0 };
    match observations.recv().await {
        Ok(observation) => passed.observations.push(observation),
        Err(RecvError::Lagged(lost)) => passed.lost += lost,
        Err(RecvError::Closed) => return None,
    }
    while passed.observations.len() < AT_ONCE {
        match observations.try_recv() {
            Ok(observation) => passed.observations.push(observation),
            Err(TryRecvError::Lagged(lost)) => passed.lost += lost,
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    Some(passed)
}

/// The lines, rendered as they would be sent now.
fn rendered(board: &Board, passed: Passed, shown: Shown) -> Vec<u8> {
    let mut lines = Vec::new();
    if passed.lost > 0 {
        push(&mut lines, &serde_json::json!({ "lost": passed.lost }));
    }
    let timeline = board.timeline.borrow().clone();
    let Some((_, basis)) = timeline.bases.last_key_value() else { return lines };
    let resolver = Resolver::new(&timeline.anchors, timeline.anchors.version(), basis);
    for observation in passed.observations {
        // Whether it waits for its person is not the tap's business: the observation passed.
        let device = observation.device.clone();
        let mut event = match resolver.resolve(board.run, observation) {
            Resolved::Event(event) => serde_json::to_value(event).unwrap_or_default(),
            Resolved::Parked(_) => serde_json::json!({ "device_id": device, "parked": true }),
        };
        shown.mask(&mut event);
        push(&mut lines, &event);
    }
    lines
}

fn push(lines: &mut Vec<u8>, value: &Value) {
    // A Value into a Vec: there is nothing that could fail.
    serde_json::to_writer(&mut *lines, value).ok();
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_of_a_person_is_shown_unless_it_is_asked_for() {
        let event = json!({ "user_id": "u", "value": 71.0, "device_id": "d",
            "metadata": { "rr": [800], "profile": "p/1" } });
        let masked = |query: &str| {
            let mut event = event.clone();
            Shown::of(Some(query)).mask(&mut event);
            event
        };
        assert_eq!(
            masked("limit=3"),
            json!({ "user_id": "masked", "value": "masked", "device_id": "d", "metadata": { "profile": "p/1" } })
        );
        assert_eq!(masked("values=1")["value"], 71.0);
        assert_eq!(masked("values=1")["metadata"]["rr"], json!([800]));
        assert_eq!(masked("values=1")["user_id"], "masked");
        assert_eq!(masked("values=1&persons=1"), event);
        assert_eq!(masked("values=10&persons=0")["value"], "masked");
    }
}
