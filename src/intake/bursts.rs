//! Which fault is told: the first of a burst, then nothing until the same fault has been quiet for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::interpret::FaultKind;

/// The same fault of the same device within this time of the last telling belongs to the same burst.
const BURST: Duration = Duration::from_secs(60);

/// When each fault of each device was last told, and how many were not told since. Bounded by devices times kinds.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    told: HashMap<(Arc<str>, FaultKind), (Instant, u64)>,
}

impl Bursts {
    /// Whether to tell this fault now, and how many were passed over since it was last told.
    pub(super) fn first_of_burst(&mut self, device: &Arc<str>, kind: FaultKind) -> Option<u64> {
        let now = Instant::now();
        match self.told.get_mut(&(device.clone(), kind)) {
            Some((last, passed_over)) if now.duration_since(*last) < BURST => {
                *passed_over += 1;
                None
            }
            Some((last, passed_over)) => {
                *last = now;
                Some(std::mem::take(passed_over))
            }
            None => {
                self.told.insert((device.clone(), kind), (now, 0));
                Some(0)
            }
        }
    }
}
