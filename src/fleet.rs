//! Many virtual hubs in one process, to see whether a warehouse or the brokers bear as many real ones.
//!
//! Each hub has its own name, run, patient, backoff and pace; its batches go through the gateway's own destinations, so
//! they are cut, named by tokens, sent and tried again as a hub's. What is left out is the hub's store: what waits is
//! computed and not kept, and a batch's events are made when it is cut. Hubs share connections, which bounds memory and
//! what is under way at once; a hub whose turn has not come waits, and that is in the lag.

mod hub;
mod lag;
mod latency;
mod life;
mod tally;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use crate::forward::health::Health;
use crate::forward::{self, Destination};

use hub::{EVENTS, Hub, Rhythm};
use life::Lane;
use tally::Tally;

pub use latency::Percentiles;
pub use tally::Trouble;

/// Names of gateways, and so of rows, that no real hub has.
pub const PREFIX: &str = "fleet-";

/// How often the lag is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the events go.
    pub kind: forward::Kind,
    /// Hubs.
    pub hubs: u32,
    /// Events a second of each.
    pub hz: f64,
    /// How long they measure.
    pub duration: Duration,
    /// From one commit of a hub to its next: it sends what was measured since.
    pub commit: Duration,
    /// Destinations that they share.
    pub connections: usize,
    /// The most that the oldest unacknowledged event may be old beyond a commit interval, and the time that the last ones have.
    pub most_lag: Duration,
    /// How often to report.
    pub every: Duration,
}

/// How it stands.
#[derive(Debug, Clone, Serialize)]
pub struct Progress {
    /// Seconds since the start.
    pub elapsed_s: f64,
    /// Events that were measured.
    pub offered: u64,
    /// Events that the far end has for good.
    pub acknowledged: u64,
    /// Acknowledged a second, since the report before.
    pub events_per_s: f64,
    /// How old the oldest unacknowledged event is.
    pub lag_s: f64,
    /// Failed tries so far.
    pub retries: u64,
    /// Of the batches since the report before.
    pub latency: Percentiles,
}

/// How it went.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What the gateways' names begin with.
    pub fleet: String,
    /// Hubs.
    pub hubs: u32,
    /// Events a second of each, as asked for.
    pub hz: f64,
    /// Seconds until the last acknowledgement, or until it was given up.
    pub seconds: f64,
    /// Events that were measured.
    pub offered: u64,
    /// Events that the far end has for good.
    pub acknowledged: u64,
    /// Events that it refused for what they are.
    pub rejected: u64,
    /// Events that were still waiting at the end.
    pub waiting: u64,
    /// Acknowledged a second, over all.
    pub events_per_s: f64,
    /// The age of the oldest unacknowledged event, second by second while events came in.
    pub lag: Lag,
    /// Batches that were acknowledged.
    pub batches: u64,
    /// Events of one, on average.
    pub events_per_batch: f64,
    /// Failed tries.
    pub retries: u64,
    /// The same by kind, with the last one's reason.
    pub troubles: Vec<Trouble>,
    /// From a batch's first byte to its answer.
    pub latency: Percentiles,
    /// The share of one core that this process itself took: near the machine's cores, it is the limit and not the far end.
    pub own_cores: f64,
    /// Whether the far end kept up.
    pub bounded: bool,
    /// Why not.
    pub why: Option<String>,
}

/// Seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Lag {
    /// On average.
    pub mean_s: f64,
    /// At most.
    pub worst_s: f64,
    /// When the last event was measured.
    pub last_s: f64,
    /// From the last measurement until all was acknowledged, or given up.
    pub drain_s: f64,
}

/// A fleet that has not started.
pub struct Fleet {
    settings: Settings,
    tag: String,
    lanes: Vec<Arc<Mutex<Lane>>>,
}

impl Fleet {
    /// The fleet of these settings under a name of its own. `Err` says what is wrong with the destination's settings.
    pub fn new(settings: Settings) -> Result<Fleet, String> {
        let tag = format!("{PREFIX}{:08x}", fastrand::u32(..));
        let destination = forward::Settings { name: "fleet".to_owned(), kind: settings.kind.clone() };
        let lane = |_| {
            let health = Health::new(&destination.name, destination.kind.name());
            Ok(Arc::new(Mutex::new(Lane { destination: Destination::new(&destination, &health)? })))
        };
        let lanes = (0..settings.connections.max(1)).map(lane).collect::<Result<Vec<_>, String>>()?;
        Ok(Fleet { settings, tag, lanes })
    }

    /// What its gateways' names begin with.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Runs it to its end; `tell` hears how it stands now and then, and at the end of the load.
    pub async fn run(self, mut tell: impl AsyncFnMut(&Progress)) -> Outcome {
        let Fleet { settings, tag, lanes } = self;
        let cpu = own_cpu();
        let plan = Plan::new(&settings);
        let tally = Arc::new(Tally::new(settings.hubs));
        let mut hubs = JoinSet::new();
        for number in 0..settings.hubs {
            let hub = Hub::new(&tag, number, plan.rhythm(), "fleet".into());
            tally.begins(number, hub.rhythm);
            let lane = lanes[number as usize % lanes.len()].clone();
            hubs.spawn(life::live(hub, number, lane, plan.clone(), tally.clone()));
        }
        let mut watch =
            Watch { plan: plan.clone(), tally: tally.clone(), every: settings.every, lags: Vec::new(), before: None };
        watch.load(&mut tell).await;
        let patience = plan.end + settings.most_lag;
        let all = async { while hubs.join_next().await.is_some() {} };
        // Those that are not done by then are given up with what they hold.
        let in_time = timeout_at(patience, all).await.is_ok();
        let own = own_cpu().saturating_sub(cpu);
        let drained = if in_time { tally.last_done().unwrap_or(plan.end).max(plan.end) } else { Instant::now() };
        hubs.shutdown().await;
        watch.outcome(&settings, tag, drained, own)
    }
}

/// What this process has had of the cores.
fn own_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// When what happens.
#[derive(Debug, Clone)]
struct Plan {
    began: Instant,
    began_ms: f64,
    end: Instant,
    period_ms: f64,
    commit: Duration,
    limit: forward::BatchLimit,
    longest_wait: Duration,
}

impl Plan {
    fn new(settings: &Settings) -> Plan {
        let began = Instant::now();
        let began_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1_000.0);
        Plan {
            began,
            began_ms,
            end: began + settings.duration,
            period_ms: 1_000.0 * EVENTS as f64 / settings.hz,
            commit: settings.commit,
            limit: settings.kind.batch(),
            longest_wait: settings.kind.longest_wait(),
        }
    }

    /// No two hubs measure in step.
    fn rhythm(&self) -> Rhythm {
        Rhythm { first_ms: self.began_ms + fastrand::f64() * self.period_ms, period_ms: self.period_ms }
    }

    /// A moment of the load, as Unix milliseconds; what is later is not measured any more.
    fn ms(&self, at: Instant) -> f64 {
        self.began_ms + at.min(self.end).duration_since(self.began).as_secs_f64() * 1_000.0
    }
}

/// Who looks on.
struct Watch {
    plan: Plan,
    tally: Arc<Tally>,
    every: Duration,
    /// Second by second while events come in.
    lags: Vec<f64>,
    /// What the last report said: when, acknowledged, and how many batches there were.
    before: Option<(Instant, u64, usize)>,
}

impl Watch {
    /// Until the last event is measured.
    async fn load(&mut self, tell: &mut impl AsyncFnMut(&Progress)) {
        let every = self.every;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.tick().await;
        let mut next = self.plan.began + every;
        while Instant::now() < self.plan.end {
            tokio::select! {
                _ = looks.tick() => self.lags.push(self.lag()),
                () = sleep_until(self.plan.end) => break,
            }
            if Instant::now() >= next {
                next = Instant::now() + every;
                tell(&self.progress()).await;
            }
        }
        tell(&self.progress()).await;
    }

    fn lag(&self) -> f64 {
        self.tally.lag_s(self.plan.ms(Instant::now()))
    }

    fn progress(&mut self) -> Progress {
        let now = Instant::now();
        let acknowledged = self.tally.acknowledged();
        let (since, had, from) = self.before.unwrap_or((self.plan.began, 0, 0));
        let (latency, batches) = self.tally.latency(from);
        self.before = Some((now, acknowledged, batches));
        Progress {
            elapsed_s: now.duration_since(self.plan.began).as_secs_f64(),
            offered: self.tally.offered(self.plan.ms(now)),
            acknowledged,
            events_per_s: (acknowledged - had) as f64 / now.duration_since(since).as_secs_f64().max(0.001),
            lag_s: self.lag(),
            retries: self.tally.retries(),
            latency,
        }
    }

    fn outcome(self, settings: &Settings, fleet: String, drained: Instant, own: Duration) -> Outcome {
        let Watch { plan, tally, lags, .. } = self;
        let offered = tally.offered(plan.ms(plan.end));
        let (acknowledged, rejected) = (tally.acknowledged(), tally.rejected());
        let waiting = offered.saturating_sub(acknowledged + rejected);
        let (latency, batches) = tally.latency(0);
        let seconds = drained.duration_since(plan.began).as_secs_f64();
        let why = lag::unbounded(&lags, settings.most_lag, settings.commit, waiting);
        Outcome {
            fleet,
            hubs: settings.hubs,
            hz: settings.hz,
            seconds,
            offered,
            acknowledged,
            rejected,
            waiting,
            events_per_s: acknowledged as f64 / seconds.max(0.001),
            lag: Lag {
                mean_s: lags.iter().sum::<f64>() / (lags.len().max(1)) as f64,
                worst_s: lags.iter().copied().fold(0.0, f64::max),
                last_s: lags.last().copied().unwrap_or_default(),
                drain_s: drained.duration_since(plan.end).as_secs_f64(),
            },
            batches: batches as u64,
            events_per_batch: acknowledged as f64 / (batches.max(1)) as f64,
            retries: tally.retries(),
            troubles: tally.troubles(),
            latency,
            own_cores: own.as_secs_f64() / seconds.max(0.001),
            bounded: why.is_none(),
            why,
        }
    }
}
