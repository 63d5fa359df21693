//! What a link's state means to people and to who counts the seconds.

use super::{Link, Pause, State};

impl Link {
    /// Its state for people.
    pub(in crate::source::ble) fn words(&self) -> String {
        match &self.state {
            State::Unseen => "not heard; is it switched on and near?".to_owned(),
            State::Advertising { .. } => "heard, waits for its turn".to_owned(),
            State::Connecting { .. } => "connecting".to_owned(),
            State::Discovering { .. } => "connected, looking for its services".to_owned(),
            State::Subscribed { .. } => "connected, waiting for a value".to_owned(),
            State::Streaming { .. } => "receiving".to_owned(),
            State::Backoff { pause: Pause::Failed, .. } => {
                format!("failed {} times in a row, waits before the next try", self.failures)
            }
            State::Backoff { pause: Pause::Done, .. } => "has said all, rests".to_owned(),
            State::Backoff { pause: Pause::Yielded, .. } => "let another device have the radio".to_owned(),
            State::Blocked { reason, .. } => reason.clone(),
        }
    }

    /// Whether it was heard lately and can be talked to.
    pub(in crate::source::ble) fn is_in_reach(&self) -> bool {
        match &self.state {
            State::Unseen | State::Connecting { .. } | State::Blocked { .. } => false,
            State::Backoff { pause, .. } => *pause != Pause::Failed,
            State::Advertising { .. }
            | State::Discovering { .. }
            | State::Subscribed { .. }
            | State::Streaming { .. } => true,
        }
    }
    /// Whether the words tell of trouble: something that a person may have to mend.
    pub(in crate::source::ble) fn is_in_trouble(&self) -> bool {
        matches!(self.state, State::Unseen | State::Blocked { .. } | State::Backoff { pause: Pause::Failed, .. })
    }
}
