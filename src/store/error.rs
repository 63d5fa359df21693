//! What can go wrong, by what a caller can do about it.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// An error of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Another process has the store open.
    #[error("another process holds the store at {}", .dir.display())]
    Locked {
        /// The store's folder.
        dir: PathBuf,
    },
    /// The store was written by a newer program.
    #[error("the store at {} has format {found}, and this program knows formats up to {known}", .dir.display())]
    Newer {
        /// The store's folder.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The key file cannot be used.
    #[error("the store's key file {}: {what}", .path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The key does not open the store.
    #[error("the store is not readable: {what}")]
    Sealed {
        /// Why not.
        what: &'static str,
    },
    /// The machine does not let us open it: full disk, IO error, no permission, too many files. No damage is concluded.
    #[error("{doing} {}: {what}", .path.display())]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system answered.
        what: String,
    },
    /// There is no room, by the settings or on the disk. Nothing was stored; the same commit may be tried again.
    #[error("the store is full: {what}")]
    Full {
        /// Which limit.
        what: String,
    },
    /// The request can never succeed.
    #[error("refused: {what}")]
    Refused {
        /// Why.
        what: String,
    },
    /// The store can do nothing more in this process. Nobody knows whether the last commit is there: give no receipt,
    /// end the process, open again.
    #[error("the store failed while {doing}: {what}")]
    Fatal {
        /// What was being done.
        doing: &'static str,
        /// What happened.
        what: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    pub(super) fn fatal(doing: &'static str, what: impl Display) -> Error {
        Error::Fatal { doing, what: what.to_string() }
    }

    pub(super) fn unavailable(doing: &'static str, path: &Path, error: io::Error) -> Error {
        Error::Unavailable { doing, path: path.to_owned(), what: error.to_string() }
    }

    /// Whether the store is of no more use in this process.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Error::Fatal { .. })
    }
}
