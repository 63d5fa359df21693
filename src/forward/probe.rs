//! Asks destinations that are not in use whether they are well, beside the loop: a peer that hangs delays nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::forward::Kind;
use crate::forward::health::Health;

/// A peer that has not answered for so long is not well.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest and the shortest time between two questions.
const LEAST_OFTEN: Duration = Duration::from_secs(30);
const MOST_OFTEN: Duration = Duration::from_millis(100);

/// Since when each destination has been well, in their order.
type WellSince = Arc<Mutex<Vec<Option<Instant>>>>;

/// The questions that are under way; dropping it ends them.
#[derive(Debug)]
pub(super) struct Probes {
    well_since: WellSince,
    _tasks: JoinSet<()>,
}

impl Probes {
    /// Asks each of these from now on. `span` is how long they have to be well: within it each is asked ten times.
    pub(super) fn start(asked: Vec<(Kind, Health)>, span: Duration) -> Probes {
        let well_since = Arc::new(Mutex::new(vec![None; asked.len()]));
        let mut tasks = JoinSet::new();
        for (place, (kind, health)) in asked.into_iter().enumerate() {
            tasks.spawn(ask(place, kind, health, (span / 10).clamp(MOST_OFTEN, LEAST_OFTEN), well_since.clone()));
        }
        Probes { well_since, _tasks: tasks }
    }

    /// How long each has been well.
    pub(super) fn well_for(&self) -> Vec<Option<Duration>> {
        let well_since = self.well_since.lock().unwrap_or_else(PoisonError::into_inner);
        well_since.iter().map(|since| since.map(|since| since.elapsed())).collect()
    }
}

/// One question after another, never two at once.
async fn ask(place: usize, kind: Kind, health: Health, every: Duration, well_since: WellSince) {
    let tell = |is_well: bool| {
        let mut well_since = well_since.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = well_since.get_mut(place) {
            *since = if is_well { since.or_else(|| Some(Instant::now())) } else { None };
        }
    };
    loop {
        let mut question = std::pin::pin!(kind.probe());
        let answer = match timeout(PATIENCE, &mut question).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                tell(false);
                health.standby(Some("it does not answer"));
                question.await
            }
        };
        match answer {
            Ok(()) => {
                tell(true);
                health.standby(None);
            }
            Err(refusal) => {
                tell(false);
                health.standby(Some(&refusal.reason));
            }
        }
        sleep(every).await;
    }
}
