//! Reports to one destination, beside its events: each kind in its order and at its own pace, so that a table that is
//! missing holds up neither events nor other kinds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::forward::health::Health;
use crate::forward::refusal::{Refusal, Trouble};
use crate::forward::{Destination, reconciliation};
use crate::report::{Kind, Report};
use crate::resolve::Timeline;
use crate::store::{self, Store};

/// Bytes of rows that are sent at once.
const PORTION_BYTES: usize = 256 << 10;

/// Events wait for a report no longer than this.
const DEADLINE: Duration = Duration::from_secs(10);

/// Between two rounds: a backlog of reports leaves events their turn.
const ROUND: Duration = Duration::from_millis(200);

/// The first wait after a failure; doubled with each, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(15);

/// The longest wait, and the only one where a table is missing: that takes a person.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// How often the hours are looked through for what changed.
const RECONCILE: Duration = Duration::from_secs(60);

/// An hour is said once nothing of it was delivered for so long; the one that runs is not worth a row each minute.
const QUIET: Duration = Duration::from_secs(120);

/// Where a kind stands.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Some may wait.
    maybe: bool,
    not_before: Instant,
    failures: u32,
}

/// What goes out beside the events.
pub(super) struct Reporting {
    name: Arc<str>,
    store: Store,
    health: Health,
    news: watch::Receiver<u64>,
    timeline: watch::Receiver<Arc<Timeline>>,
    paces: [Pace; Kind::ALL.len()],
    round: Instant,
    /// The trouble that was said last.
    said: Option<Trouble>,
    rng: fastrand::Rng,
}

impl Reporting {
    pub(super) fn new(
        name: Arc<str>,
        store: Store,
        health: Health,
        timeline: watch::Receiver<Arc<Timeline>>,
        seed: u64,
    ) -> Reporting {
        let now = Instant::now();
        let pace = Pace { maybe: true, not_before: now, failures: 0 };
        let (news, rng) = (store.report_news(), fastrand::Rng::with_seed(seed));
        Reporting { name, store, health, news, timeline, paces: [pace; Kind::ALL.len()], round: now, said: None, rng }
    }

    /// From now on another destination gets them, which may take what the one before did not.
    pub(super) fn go_to(&mut self, health: Health) {
        self.health = health;
        let now = Instant::now();
        self.paces = [Pace { maybe: true, not_before: now, failures: 0 }; Kind::ALL.len()];
    }

    /// Returns when something may have to be sent. Cancel-safe.
    pub(super) async fn due(&mut self) {
        loop {
            if self.news.has_changed().unwrap_or(false) {
                self.news.mark_unchanged();
                self.paces.iter_mut().for_each(|pace| pace.maybe = true);
            }
            let waiting = self.paces.iter().filter(|pace| pace.maybe).map(|pace| pace.not_before);
            let next = waiting.min().unwrap_or_else(|| Instant::now() + RECONCILE).max(self.round);
            if next <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(next) => {}
                changed = self.news.changed() => match changed {
                    Ok(()) => self.paces.iter_mut().for_each(|pace| pace.maybe = true),
                    Err(_) => sleep_until(next).await,
                },
            }
        }
    }

    /// Sends one portion of each kind that is due. A dropped call sends it again.
    pub(super) async fn send(&mut self, destination: &mut Destination) -> Result<(), store::Error> {
        for kind in Kind::ALL {
            let pace = self.paces[kind as usize];
            if !pace.maybe || pace.not_before > Instant::now() {
                continue;
            }
            if let Err(refusal) = self.send_kind(kind, destination).await? {
                self.failed(kind, &refusal);
            }
        }
        self.round = Instant::now() + ROUND;
        Ok(())
    }

    async fn send_kind(
        &mut self,
        kind: Kind,
        destination: &mut Destination,
    ) -> Result<Result<(), Refusal>, store::Error> {
        if kind == Kind::Reconciliation {
            return self.send_sums(destination).await;
        }
        let (through, reports) = self.store.reports(&self.name, kind, PORTION_BYTES).await?;
        if reports.is_empty() {
            self.paces[kind as usize].maybe = false;
            return Ok(Ok(()));
        }
        if let Err(refusal) = self.send_rows(kind, &reports, destination).await {
            return Ok(Err(refusal));
        }
        self.store.reports_done(&self.name, kind, through).await?;
        Ok(Ok(()))
    }

    /// What this destination has, per device and hour: kept by the store as numbers, rendered only here.
    async fn send_sums(&mut self, destination: &mut Destination) -> Result<Result<(), Refusal>, store::Error> {
        let sums = self.store.sums_due(&self.name, QUIET).await?;
        let gateway = self.timeline.borrow().bases.last_key_value().map(|(_, basis)| basis.gateway_id.clone());
        let Some(gateway) = gateway.filter(|_| !sums.is_empty()) else {
            self.paces[Kind::Reconciliation as usize].not_before = Instant::now() + RECONCILE;
            return Ok(Ok(()));
        };
        let rows = reconciliation::rows(&gateway, &sums);
        if let Err(refusal) = self.send_rows(Kind::Reconciliation, &rows, destination).await {
            return Ok(Err(refusal));
        }
        self.store.sums_said(&self.name, sums).await?;
        Ok(Ok(()))
    }

    async fn send_rows(
        &mut self,
        kind: Kind,
        reports: &[Report],
        destination: &mut Destination,
    ) -> Result<(), Refusal> {
        let sent = match timeout(DEADLINE, destination.report(kind, reports)).await {
            Ok(sent) => sent,
            Err(_) => Err(Refusal::new(Trouble::Timeout, format!("no answer within {} s", DEADLINE.as_secs()))),
        };
        let dropped = sent?;
        self.paces[kind as usize].failures = 0;
        self.health.reported(reports.len() as u64 - dropped, dropped);
        if self.paces.iter().all(|pace| pace.failures == 0) && self.said.take().is_some() {
            self.health.reports_wait(None);
            info!(destination = &*self.name, "reports go out again");
        }
        Ok(())
    }

    /// Sets when to try again: for this kind where its table is to blame, else for all.
    fn failed(&mut self, kind: Kind, refusal: &Refusal) {
        let pace = &mut self.paces[kind as usize];
        let doubled = FIRST_WAIT.saturating_mul(1 << pace.failures.min(8)).min(LONGEST_WAIT);
        pace.failures = pace.failures.saturating_add(1);
        let is_table = refusal.trouble == Trouble::Schema;
        let wait =
            if is_table { LONGEST_WAIT } else { doubled.max(refusal.asked.unwrap_or_default().min(LONGEST_WAIT)) };
        let until = Instant::now() + wait.mul_f64(0.75 + 0.25 * self.rng.f64());
        pace.not_before = until;
        if !is_table {
            self.paces.iter_mut().for_each(|pace| pace.not_before = pace.not_before.max(until));
        }
        self.health.reports_wait(Some(&refusal.reason));
        if self.said != Some(refusal.trouble) {
            self.said = Some(refusal.trouble);
            let what = kind.topic();
            warn!(destination = &*self.name, "cannot send {what}, events go on: {}", refusal.reason);
        }
    }
}
