//! What a person or a monitor wants to know of the store.

use serde::{Deserialize, Serialize};

use super::Sequence;
use crate::reading::Heard;

/// The store at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Why it does not do its work, in words; `None` while all is well.
    pub unhealthy: Option<String>,
    /// Number of the newest observation.
    pub newest: Sequence,
    /// When the oldest observation that still waits was heard.
    pub oldest_waiting: Option<Heard>,
    /// Bytes of records that are kept.
    pub bytes: u64,
    /// The limit of it.
    pub max_bytes: u64,
    /// Databases in the row.
    pub generations: u64,
    /// Bytes of damaged databases that are kept for a look.
    pub damaged_bytes: u64,
    /// What is set aside.
    pub aside_entries: u64,
    /// Its bytes.
    pub aside_bytes: u64,
    /// Entries that were pushed out of it.
    pub aside_evicted: u64,
    /// Entries whose bytes were too long to keep.
    pub aside_not_kept: u64,
    /// Free bytes of the disk.
    pub disk_free: u64,
    /// State keys.
    pub state_keys: u64,
    /// Records made durable since the start.
    pub syncs: u64,
}

/// What a verification found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Databases that were read.
    pub generations: u64,
    /// Records that were read.
    pub records: u64,
    /// Observations in them.
    pub observations: u64,
    /// Records or chunks that are damaged.
    pub damaged: u64,
    /// Files outside sled's log: there must be none.
    pub blobs: u64,
}
