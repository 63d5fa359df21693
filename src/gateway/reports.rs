//! What the hub says of itself beside the events: heartbeats, and gaps where events will never come.
//!
//! A heartbeat is made every five minutes and soon after each change of health. While no destination takes any for about
//! a day they are made once an hour, so that weeks offline stay small. A gap is dropped from the store only once it lies
//! there as a report.

mod certificates;
mod gaps;
mod status;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::warn;

use crate::config::{Config, Link};
use crate::interpret::ProfileSet;
use crate::local::board::Board;
use crate::report::{Kind, Report};
use crate::store;

/// How often the hub looks at itself.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A heartbeat is never longer in coming.
const HEARTBEAT: Duration = Duration::from_secs(300);

/// No two heartbeats are nearer to each other.
const APART: Duration = Duration::from_secs(10);

/// Heartbeats made by changes within an hour; what flaps more is seen by the next regular one.
const MOST_CHANGES: u32 = 60;

/// So many waiting heartbeats are about a day: from then on one an hour.
const MANY_WAITING: u64 = 300;

/// The distance of heartbeats that nobody takes.
const THINNED: Duration = Duration::from_secs(3600);

/// How long a stop may take for the last gaps.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the configuration says that heartbeats tell.
#[derive(Debug, Clone, Default)]
struct Facts {
    config_hash: String,
    profiles_hash: String,
    certificates: Vec<PathBuf>,
    /// Bluetooth address, and the device of that address.
    addresses: HashMap<String, Arc<str>>,
}

impl Facts {
    fn of(config: &Config, profiles: &ProfileSet) -> Facts {
        let of_destinations = config.destinations.iter().flat_map(|to| to.kind.certificates());
        let of_brokers = config
            .brokers
            .iter()
            .flat_map(|broker| [&broker.cert_file, &broker.ca_file])
            .flatten()
            .map(PathBuf::as_path);
        let address = |device: &crate::config::Device| match &device.link {
            Link::Ble { target, .. } => Some((target.to_ascii_uppercase(), device.name.clone())),
            Link::Serial { .. } | Link::Mqtt { .. } => None,
        };
        Facts {
            config_hash: config.fingerprint.clone(),
            profiles_hash: profiles.fingerprint(),
            certificates: of_destinations.chain(of_brokers).map(PathBuf::from).collect(),
            addresses: config.devices.iter().filter_map(address).collect(),
        }
    }
}

/// The task that reports.
pub(super) struct Reporter {
    board: Arc<Board>,
    facts: Arc<Mutex<Facts>>,
    task: JoinHandle<()>,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reporter {
    /// Begins to report.
    pub(super) fn start(board: Arc<Board>, config: &Config, profiles: &ProfileSet) -> Reporter {
        let facts = Arc::new(Mutex::new(Facts::of(config, profiles)));
        let task = tokio::spawn(run(board.clone(), facts.clone()));
        Reporter { board, facts, task }
    }

    /// The configuration was read again.
    pub(super) fn follow(&self, config: &Config, profiles: &ProfileSet) {
        *lock(&self.facts) = Facts::of(config, profiles);
    }

    /// Reports the last gaps and ends.
    pub(super) async fn stop(self) {
        self.task.abort();
        if timeout(LAST_WORDS, gaps::report(&self.board, true)).await.is_err() {
            warn!("the last gaps are not reported: the store does not answer");
        }
    }
}

async fn run(board: Arc<Board>, facts: Arc<Mutex<Facts>>) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.tick().await;
    let mut rhythm = Rhythm::default();
    let mut said: Option<status::Health> = None;
    loop {
        look.tick().await;
        let health = status::Health::of(&board);
        let stat = board.store.stat();
        let waiting = stat.destinations.iter().map(|to| to.reports_waiting.get(&Kind::Status).copied());
        let thinned = waiting.map(Option::unwrap_or_default).min().is_some_and(|waiting| waiting > MANY_WAITING);
        let due = rhythm.due(Instant::now(), said.as_ref() != Some(&health), thinned);
        gaps::report(&board, due).await;
        if !due {
            continue;
        }
        let facts = lock(&facts).clone();
        if let Some(heartbeat) = status::heartbeat(&board, &facts) {
            store_reports(&board, vec![heartbeat]).await;
        }
        said = Some(health);
    }
}

/// When heartbeats are made. Told the time.
#[derive(Debug, Default)]
struct Rhythm {
    last: Option<Instant>,
    /// When the hour began in which changes are counted, and how many there were.
    hour: Option<(Instant, u32)>,
}

impl Rhythm {
    fn due(&mut self, now: Instant, changed: bool, thinned: bool) -> bool {
        let since = self.last.map(|last| now.duration_since(last));
        let regular = if thinned { THINNED } else { HEARTBEAT };
        let is_regular = since.is_none_or(|since| since >= regular);
        let (begun, changes) = self.hour.filter(|(begun, _)| now.duration_since(*begun) < THINNED).unwrap_or((now, 0));
        let is_change = changed && !thinned && changes < MOST_CHANGES && since.is_none_or(|since| since >= APART);
        if !is_regular && !is_change {
            return false;
        }
        self.last = Some(now);
        self.hour = Some((begun, changes + u32::from(!is_regular)));
        true
    }
}

/// Whether they are stored now.
async fn store_reports(board: &Board, reports: Vec<Report>) -> bool {
    match board.store.report(reports).await {
        Ok(()) => true,
        // Said by the store itself; gaps stay there until there is room.
        Err(store::Error::Full { .. } | store::Error::Closed) => false,
        Err(why) => {
            warn!("a report is not stored: {why}");
            false
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_regular_and_a_change_makes_one_soon_but_not_for_ever() {
        let start = Instant::now();
        let mut rhythm = Rhythm::default();
        let mut at = |seconds, changed, thinned| rhythm.due(start + Duration::from_secs(seconds), changed, thinned);
        assert!(at(0, false, false), "at the start");
        assert!(!at(4, true, false), "not so near to the last");
        assert!(at(10, true, false));
        assert!(!at(309, false, false));
        assert!(at(310, false, false));
        let flapping = (311..3_600).filter(|second| at(*second, true, false)).count();
        assert!((60..80).contains(&flapping), "{flapping}");
    }

    #[test]
    fn nobody_takes_them_so_they_are_few() {
        let start = Instant::now();
        let mut rhythm = Rhythm::default();
        let made = (0..86_400).step_by(2).filter(|at| rhythm.due(start + Duration::from_secs(*at), true, true)).count();
        assert_eq!(made, 24);
    }
}
