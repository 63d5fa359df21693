//! The ways out: one loop per destination, from the store's ranges to rows delivered and settled.
//!
//! The promise: at least once to every destination, with the same event ids, in the store's order. A range and the
//! versions of all that its rows depend on are durable before its first try, so every try renders the same rows, also
//! after a crash; the cursor moves only once the destination has them for good. What may pass is tried again for ever;
//! a row that is refused for what it is goes aside with the reason, and the rest goes on.

mod ahead;
#[cfg(feature = "clickhouse")]
pub mod clickhouse;
mod destination;
pub mod failover;
pub mod file;
mod halves;
pub mod health;
pub mod json;
#[cfg(feature = "kafka")]
pub mod kafka;
pub(crate) mod pace;
mod probe;
pub mod reconciliation;
pub mod refusal;
mod reporting;
pub mod retry;
pub mod rows;
mod run;
mod switch;

use crate::store::CutLimit;

pub use destination::{Destination, Kind, Settings};
pub use run::{Forwarder, Gate, Inputs};

use refusal::Refusal;
use rows::Batch;

/// How large a batch may be. A smaller one leaves whenever less waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    /// Rows, to begin with.
    pub usual_rows: u64,
    /// Rows, while a long queue drains quickly, and where an overloaded destination is helped by fewer and larger
    /// batches.
    pub most_rows: u64,
    /// Bytes in the store.
    pub bytes: u64,
}

impl BatchLimit {
    fn cut(&self, retry: &retry::Retry, pace: &pace::Pace) -> CutLimit {
        let overloaded = retry.batch_limit(self.usual_rows, self.most_rows);
        CutLimit { max_observations: pace.rows(overloaded), max_bytes: self.bytes }
    }
}

/// How a try ended.
#[derive(Debug)]
pub enum Delivery {
    /// Every row is delivered or rejected.
    Done(Batch),
    /// Every row is on its way, and there is room for the batch behind. Goes on with the next call, whether that came or
    /// not.
    Underway(Batch),
    /// Not now. The batch goes on where it stopped.
    Later(Batch, Refusal),
    /// Not now. The range is read and rendered again.
    Again(Refusal),
}
