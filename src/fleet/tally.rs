//! What all hubs have done so far.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::forward::refusal::Refusal;

use super::hub::{EVENTS, Rhythm};
use super::latency::{Latencies, Percentiles};

/// Failed tries of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// As the gateway's log names it.
    pub kind: &'static str,
    /// How many.
    pub tries: u64,
    /// The last one's.
    pub reason: String,
}

/// Shared by the hubs and who looks on. Each lock is held for a moment, by nobody who waits.
#[derive(Debug)]
pub(super) struct Tally(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// Each hub's rhythm and how many of its measurements are through.
    hubs: Vec<(Rhythm, u64)>,
    acknowledged: u64,
    rejected: u64,
    troubles: BTreeMap<&'static str, (u64, String)>,
    latencies: Latencies,
    last_done: Option<Instant>,
}

impl Tally {
    pub(super) fn new(hubs: u32) -> Tally {
        let never = Rhythm { first_ms: f64::MAX, period_ms: 1.0 };
        Tally(Mutex::new(Inner {
            hubs: vec![(never, 0); hubs as usize],
            acknowledged: 0,
            rejected: 0,
            troubles: BTreeMap::new(),
            latencies: Latencies::default(),
            last_done: None,
        }))
    }

    pub(super) fn begins(&self, hub: u32, rhythm: Rhythm) {
        self.lock().hubs[hub as usize] = (rhythm, 0);
    }

    pub(super) fn failed(&self, refusal: &Refusal) {
        let mut inner = self.lock();
        let (tries, reason) = inner.troubles.entry(refusal.trouble.name()).or_default();
        *tries += 1;
        reason.clone_from(&refusal.reason);
    }

    /// A batch of this hub is through, which has `done` measurements behind it now.
    pub(super) fn through(&self, hub: u32, done: u64, (acknowledged, rejected): (u64, u64), took: Duration) {
        let mut inner = self.lock();
        inner.hubs[hub as usize].1 = done;
        inner.acknowledged += acknowledged;
        inner.rejected += rejected;
        inner.latencies.add(took);
        inner.last_done = Some(Instant::now());
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.lock().acknowledged
    }

    pub(super) fn rejected(&self) -> u64 {
        self.lock().rejected
    }

    pub(super) fn last_done(&self) -> Option<Instant> {
        self.lock().last_done
    }

    pub(super) fn retries(&self) -> u64 {
        self.lock().troubles.values().map(|(tries, _)| tries).sum()
    }

    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let of = |(kind, (tries, reason)): (&&'static str, &(u64, String))| Trouble {
            kind,
            tries: *tries,
            reason: reason.clone(),
        };
        self.lock().troubles.iter().map(of).collect()
    }

    /// Of the batches since the `from`-th, and how many there are in all.
    pub(super) fn latency(&self, from: usize) -> (Percentiles, usize) {
        let inner = self.lock();
        (inner.latencies.percentiles(from), inner.latencies.len())
    }

    /// Events that were measured before this moment.
    pub(super) fn offered(&self, ms: f64) -> u64 {
        self.lock().hubs.iter().map(|(rhythm, _)| rhythm.before(ms) * EVENTS).sum()
    }

    /// How old the oldest unacknowledged event of all hubs is.
    pub(super) fn lag_s(&self, now_ms: f64) -> f64 {
        let oldest = self.lock().hubs.iter().map(|(rhythm, done)| rhythm.at_ms(*done)).fold(f64::MAX, f64::min);
        ((now_ms - oldest) / 1_000.0).max(0.0)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::refusal::Trouble as Kind;

    #[test]
    fn the_lag_is_that_of_the_hub_that_is_furthest_behind() {
        let tally = Tally::new(2);
        assert_eq!((tally.lag_s(5_000.0), tally.offered(5_000.0)), (0.0, 0), "nobody began");
        for hub in 0..2 {
            tally.begins(hub, Rhythm { first_ms: 1_000.0, period_ms: 1_000.0 });
        }
        tally.through(0, 4, (12, 0), Duration::from_millis(3));
        assert_eq!((tally.lag_s(5_000.0), tally.offered(5_000.0), tally.acknowledged()), (4.0, 24, 12));
        tally.through(1, 3, (8, 1), Duration::from_millis(5));
        assert_eq!((tally.lag_s(5_000.0), tally.rejected()), (1.0, 1));
        let refusal = Refusal::new(Kind::Overload, "too many parts".to_owned());
        tally.failed(&refusal);
        tally.failed(&refusal);
        let said = Trouble { kind: "overload", tries: 2, reason: "too many parts".to_owned() };
        assert_eq!((tally.retries(), tally.troubles()), (2, vec![said]));
    }
}
