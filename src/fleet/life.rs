//! A hub's loop: each commit it sends what was measured since, in batches as the gateway's pace has them, and tries again
//! as the gateway does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::forward::pace::Pace;
use crate::forward::retry::Retry;
use crate::forward::{Delivery, Destination};

use super::Plan;
use super::hub::Hub;
use super::tally::Tally;

/// A connection, which has one batch in hand.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) destination: Destination,
}

/// How the far end has been treating this hub.
struct Manners {
    retry: Retry,
    pace: Pace,
}

/// Until every event of the load is through.
pub(super) async fn live(mut hub: Hub, number: u32, lane: Arc<Mutex<Lane>>, plan: Plan, tally: Arc<Tally>) {
    let retry = Retry::new(fastrand::u64(..)).waiting_at_most(plan.longest_wait);
    let mut manners = Manners { retry, pace: Pace::new(plan.limit) };
    // Hubs were not switched on in step.
    let commits =
        Commits { first: plan.began + plan.commit.mul_f64(fastrand::f64()), every: plan.commit, end: plan.end };
    let mut next = commits.first.min(plan.end);
    loop {
        sleep_until(next).await;
        loop {
            sleep_until(plan.began + manners.retry.next_batch_at()).await;
            let mut lane = lane.lock().await;
            // Commits went on while this hub waited for its turn: the batch takes all that they brought.
            let waiting = commits.last(Instant::now()).map_or(0, |commit| hub.waiting(plan.ms(commit)));
            if waiting == 0 {
                break;
            }
            deliver(&mut hub, number, &mut lane, &mut manners, &plan, waiting, &tally).await;
        }
        let Some(later) = commits.next(Instant::now()) else { return };
        next = later;
    }
}

/// When a hub commits: a fixed time apart, and a last time when the load ends.
struct Commits {
    first: Instant,
    every: Duration,
    end: Instant,
}

impl Commits {
    /// The last one until now.
    fn last(&self, now: Instant) -> Option<Instant> {
        if now >= self.end {
            return Some(self.end);
        }
        let since = now.checked_duration_since(self.first)?;
        let nth = (since.as_secs_f64() / self.every.as_secs_f64()).floor();
        Some((self.first + self.every.mul_f64(nth)).min(now))
    }

    /// The first one after now; `None` after the last.
    fn next(&self, now: Instant) -> Option<Instant> {
        if now >= self.end {
            return None;
        }
        let next = self.last(now).map_or(self.first, |last| last + self.every);
        Some(next.max(now + Duration::from_millis(1)).min(self.end))
    }
}

/// Sends one batch until it is through.
async fn deliver(
    hub: &mut Hub,
    number: u32,
    lane: &mut Lane,
    manners: &mut Manners,
    plan: &Plan,
    waiting: u64,
    tally: &Tally,
) {
    let limit = manners.pace.rows(manners.retry.batch_limit(plan.limit.usual_rows, plan.limit.most_rows));
    let rows = limit.min(waiting);
    let (mut batch, mut settling) = hub.cut(rows, false).open();
    loop {
        let began = Instant::now();
        let delivery = lane.destination.deliver(batch).await;
        let took = began.elapsed();
        let refusal = match delivery {
            Delivery::Done(batch) => {
                hub.settle(settling);
                let outcome = (batch.tally.delivered, batch.tally.rejected.len() as u64);
                tally.through(number, hub.done, outcome, took);
                manners.retry.succeeded(plan.began.elapsed());
                return manners.pace.delivered(took, waiting.saturating_sub(rows));
            }
            Delivery::Underway(underway) => {
                batch = underway;
                continue;
            }
            Delivery::Later(again, refusal) => {
                batch = again;
                refusal
            }
            Delivery::Again(refusal) => {
                (batch, settling) = hub.cut(rows, true).open();
                refusal
            }
        };
        tally.failed(&refusal);
        manners.pace.failed(refusal.failure());
        let wait: Duration = manners.retry.failed(plan.began.elapsed(), refusal.failure());
        sleep_until(plan.began + wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hub_commits_in_its_rhythm_and_once_more_at_the_end() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let commits = Commits { first: began + second, every: 4 * second, end: began + 10 * second };
        assert_eq!((commits.last(began), commits.next(began)), (None, Some(began + second)));
        assert_eq!(commits.last(began + 6 * second), Some(began + 5 * second));
        assert_eq!(commits.next(began + 6 * second), Some(began + 9 * second));
        assert_eq!(commits.next(began + 9 * second), Some(began + 10 * second));
        assert_eq!(
            (commits.last(began + 11 * second), commits.next(began + 10 * second)),
            (Some(began + 10 * second), None)
        );
    }
}
