//! Why a try failed in a way that may pass: in plain words, and as far as the next try depends on it.

use std::time::Duration;

use crate::forward::retry::Failure;

/// The kinds of trouble. The log says a kind once, until another follows or all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No connection, or it broke.
    Unreachable,
    /// No answer within the deadline.
    Timeout,
    /// The peer has too much to do.
    Overload,
    /// The peer cannot take so much at once.
    Heavy,
    /// Wrong user, password, certificate or rights.
    Access,
    /// A database or table is missing or does not fit.
    Schema,
    /// The peer failed, or is not what was expected.
    Peer,
    /// A file or folder cannot be read or written.
    Disk,
    /// A fault of this program.
    Internal,
}

impl Trouble {
    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Unreachable => "unreachable",
            Trouble::Timeout => "timeout",
            Trouble::Overload => "overload",
            Trouble::Heavy => "heavy",
            Trouble::Access => "access",
            Trouble::Schema => "schema",
            Trouble::Peer => "peer",
            Trouble::Disk => "disk",
            Trouble::Internal => "internal",
        }
    }
}

/// One failed try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of trouble.
    pub trouble: Trouble,
    /// What, where and what to do, without secrets.
    pub reason: String,
    /// The peer's own word on when to come back.
    pub asked: Option<Duration>,
    /// Rows of this try may be there all the same. Another destination gets them only after a long wait.
    pub in_doubt: bool,
}

impl Refusal {
    /// Without a word on when to come back, and in doubt: who knows better says so.
    pub fn new(trouble: Trouble, reason: String) -> Self {
        Refusal { trouble, reason, asked: None, in_doubt: true }
    }

    /// The same of a try that certainly left no row at the peer.
    pub fn not_arrived(self) -> Self {
        Refusal { in_doubt: false, ..self }
    }

    /// The same with the peer's own word on when to come back.
    pub fn asked(self, asked: Option<Duration>) -> Self {
        Refusal { asked, ..self }
    }

    /// What the backoff needs to know.
    pub fn failure(&self) -> Failure {
        match self.trouble {
            Trouble::Overload => Failure::Overload { asked: self.asked },
            Trouble::Heavy => Failure::Heavy,
            Trouble::Timeout => Failure::Slow,
            Trouble::Unreachable
            | Trouble::Access
            | Trouble::Schema
            | Trouble::Peer
            | Trouble::Disk
            | Trouble::Internal => Failure::Unavailable,
        }
    }
}
