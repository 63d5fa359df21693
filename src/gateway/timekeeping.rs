//! Follows the clock and the configuration, and keeps the timeline that rows are rendered with: every change is
//! durable before a row can depend on it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::persons::Known;
use super::{basis, persons};
use crate::clock::Anchors;
use crate::clock::keeper::{Held, Keeper};
use crate::clock::system::{self, StepWatch};
use crate::config::Config;
use crate::forward::Gate;
use crate::local::board::Board;
use crate::local::persons::{Answer, Change};
use crate::reading::BootId;
use crate::resolve::Timeline;
use crate::resolve::history::Assignment;
use crate::source::context::WallClock;
use crate::store::{Commit, StateChange, Store};

/// State key of the anchors.
const ANCHORS: &str = "clock/anchors";

/// How often the clocks are compared when nobody steps them.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a command may wait for the store.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);

/// Nothing is older than this program: 2026-11-01, in Unix milliseconds. The first floor of every estimate.
const BUILD_FLOOR_MS: i64 = 1_793_491_200_000;

/// The clock's task and what it tells.
pub(super) struct Timekeeping {
    boot: BootId,
    gateway_id: Arc<str>,
    timeline: Arc<watch::Sender<Arc<Timeline>>>,
    gate: watch::Receiver<Gate>,
    /// One change at a time: an anchor and a reload must not overtake each other between store and timeline.
    changing: Arc<Mutex<()>>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Drop for Timekeeping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Timekeeping {
    /// Takes up the stored anchors and bases, adds what is new, and follows the clock from then on.
    pub(super) async fn start(config: &Config, store: &Store, boot: BootId) -> anyhow::Result<Self> {
        let timeline = stored(store);
        let mut keeper = Keeper::new(config.clock, boot, system::uptime_ms(), &timeline.anchors);
        let (gateway_id, changes) = basis::gateway_id(config, store);
        if !changes.is_empty() {
            store.commit(Commit { state: changes, ..Commit::default() }).await.context("storing the hub's name")?;
        }
        let (timeline, _) = watch::channel(Arc::new(timeline));
        let timeline = Arc::new(timeline);
        look(&mut keeper, store, &timeline, boot).await?;
        let (gating, gate) = watch::channel(gate_of(held_for(&keeper, boot)));
        let changing = Arc::new(Mutex::new(()));
        let cursors = config.cursors();
        let task = follow_clock(keeper, store.clone(), timeline.clone(), boot, gating, changing.clone(), cursors);
        let task = tokio::spawn(task);
        let timekeeping = Timekeeping { boot, gateway_id, timeline, gate, changing, task };
        timekeeping.follow(config, store).await?;
        Ok(timekeeping)
    }

    /// The hub's name.
    pub(super) fn gateway_id(&self) -> &str {
        &self.gateway_id
    }

    /// What rows are rendered with.
    pub(super) fn timeline(&self) -> watch::Receiver<Arc<Timeline>> {
        self.timeline.subscribe()
    }

    /// The time of day at the hub's place, while this boot has a synchronised anchor: what devices are set by.
    pub(super) fn wall_clock(&self, boot: BootId) -> WallClock {
        let timeline = self.timeline.subscribe();
        Arc::new(move || {
            let timeline = timeline.borrow();
            if !timeline.anchors.is_synced(boot) {
                return None;
            }
            let (_, basis) = timeline.bases.last_key_value()?;
            let zone = TimeZone::get(&basis.timezone).ok()?;
            // Not the wall clock itself: somebody may have stepped it since it was synchronised.
            let (now_ms, _) = timeline.anchors.known_ms(timeline.anchors.version(), system::heard_now(boot))?;
            Some(zone.to_datetime(Timestamp::from_millisecond(now_ms).ok()?))
        })
    }

    /// Whether rows wait for the clock.
    pub(super) fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.clone()
    }

    /// Makes a new version of the basis if the configuration says something new, and forgets those that no range names.
    pub(super) async fn follow(&self, config: &Config, store: &Store) -> anyhow::Result<()> {
        let _one_at_a_time = self.changing.lock().await;
        self.revise(config, store, None).await
    }

    /// The same, with what a command says about a device. While the store has no room it gives up after a time, or the
    /// gateway could not be stopped.
    pub(super) async fn assign(
        &self,
        config: &Config,
        store: &Store,
        board: &Board,
        change: &Change,
    ) -> anyhow::Result<Answer> {
        let unknown = "the store has no room, so the change is not durable yet; free some space, then look with \
                       `biogate assignments` whether it holds";
        timeout(COMMAND_DEADLINE, self.carry_out(config, store, board, change)).await.context(unknown)?
    }

    async fn carry_out(
        &self,
        config: &Config,
        store: &Store,
        board: &Board,
        change: &Change,
    ) -> anyhow::Result<Answer> {
        let _one_at_a_time = self.changing.lock().await;
        let timeline = self.timeline.borrow().clone();
        let mut heard = persons::remembered(store);
        heard.extend(board.sources.snapshot().into_iter().map(|device| device.name));
        let known = Known { config, timeline: &timeline, heard, now: system::heard_now(self.boot) };
        let said = match known.statement(change) {
            Ok(said) => said,
            Err(why) => return Ok(Answer::Refused(why)),
        };
        self.revise(config, store, Some(said.clone())).await?;
        info!(device = &*change.device, "who wears it was changed by command");
        known.done(&said, &self.timeline.borrow()).map(Answer::Done).context("what was said is not in the history")
    }

    async fn revise(&self, config: &Config, store: &Store, command: Option<Assignment>) -> anyhow::Result<()> {
        let before = self.timeline.borrow().clone();
        let news = basis::News {
            config,
            gateway_id: self.gateway_id.clone(),
            anchors: &before.anchors,
            now: system::heard_now(self.boot),
            told: persons::told(store),
        };
        let next = news.over(before.bases.last_key_value().map(|(_, basis)| basis), command);
        let cursors = config.cursors();
        let in_hand = persons::in_hand(store, cursors.iter().map(String::as_str));
        let (after, state) = basis::next_version(&before, next, &in_hand)?;
        if !state.is_empty() {
            store.commit(Commit { state, ..Commit::default() }).await.context("storing who wears what")?;
            self.timeline.send_replace(Arc::new(after));
        }
        let timeline = self.timeline.borrow().clone();
        persons::tell(store, &timeline).await
    }

    /// Returns only when the task has ended, with the reason.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow::anyhow!("the clock's task ended although nobody stopped it"),
            Ok(Err(why)) => why,
            Err(why) => anyhow::Error::new(why).context("the clock's task failed"),
        }
    }
}

/// The timeline as the store has it.
pub(super) fn stored(store: &Store) -> Timeline {
    let stored = store.state(ANCHORS).into_iter().find(|(key, _)| key == ANCHORS);
    let anchors = stored.and_then(|(_, bytes)| serde_cbor::from_slice(&bytes).ok());
    Timeline {
        anchors: anchors.unwrap_or_else(|| Anchors::new(BUILD_FLOOR_MS)),
        bases: basis::known(store).into_iter().collect(),
    }
}

fn held_for(keeper: &Keeper, boot: BootId) -> Held {
    if boot == BootId::WALL { Held::No } else { keeper.held(system::uptime_ms()) }
}

/// In words, to the minute: a reason that changed every second would be logged every second.
fn gate_of(held: Held) -> Gate {
    match held {
        Held::No => Gate::Open,
        Held::WaitingForTheClock(None) => Gate::Held("waiting for the clock, as long as it takes".to_owned()),
        Held::WaitingForTheClock(Some(left_ms)) => {
            Gate::Held(format!("waiting for the clock, at most {} min", left_ms.div_ceil(60_000)))
        }
    }
}

async fn follow_clock(
    mut keeper: Keeper,
    store: Store,
    timeline: Arc<watch::Sender<Arc<Timeline>>>,
    boot: BootId,
    gating: watch::Sender<Gate>,
    changing: Arc<Mutex<()>>,
    destinations: Vec<String>,
) -> anyhow::Result<()> {
    let mut steps = StepWatch::new().context("watching for steps of the clock")?;
    let mut told = None;
    loop {
        {
            let _one_at_a_time = changing.lock().await;
            if look(&mut keeper, &store, &timeline, boot).await? {
                let before = timeline.borrow().clone();
                let settled = persons::settle(&store, &before, boot, &destinations).await?;
                settled.into_iter().for_each(|settled| drop(timeline.send_replace(Arc::new(settled))));
            }
            let now = timeline.borrow().clone();
            persons::tell(&store, &now).await?;
        }
        let held = held_for(&keeper, boot);
        let gate = gate_of(held);
        if told.as_ref() != Some(&matches!(gate, Gate::Open)) {
            told = Some(matches!(gate, Gate::Open));
            if let Gate::Held(reason) = &gate {
                warn!("{reason}: it is not synchronised");
            }
        }
        gating.send_if_modified(|before| std::mem::replace(before, gate.clone()) != gate);
        let wait = match held {
            Held::WaitingForTheClock(_) => Duration::from_secs(1),
            Held::No => LOOK_EVERY,
        };
        tokio::select! {
            stepped = steps.stepped() => stepped.context("watching for steps of the clock")?,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Appends an anchor if the clocks tell something new, and raises the floor now and then: stored first, then used. Returns
/// whether there is a new anchor.
async fn look(
    keeper: &mut Keeper,
    store: &Store,
    timeline: &watch::Sender<Arc<Timeline>>,
    boot: BootId,
) -> anyhow::Result<bool> {
    if boot == BootId::WALL {
        return Ok(false);
    }
    let sample = system::sample();
    let (anchor, floor) = (keeper.observe(sample), keeper.floor(sample));
    if anchor.is_none() && floor.is_none() {
        return Ok(false);
    }
    let before = timeline.borrow().clone();
    let mut after = Timeline::clone(&before);
    if let Some(anchor) = anchor {
        let needed = store.boots_needed();
        let said: Vec<&Assignment> = before.bases.values().flat_map(|basis| &basis.assignments).collect();
        let is_named = |of: BootId| said.iter().any(|said| said.needs(of));
        after.anchors.forget_boots_except(|of| of == boot || needed.contains(&of) || is_named(of));
        after.anchors.append(anchor);
    }
    if let Some(floor_ms) = floor {
        after.anchors.raise_floor(floor_ms);
    }
    let value = serde_cbor::to_vec(&after.anchors)?;
    let change = StateChange { key: ANCHORS.to_owned(), value: Some(value) };
    store.commit(Commit { state: vec![change], ..Commit::default() }).await.context("storing the clock's anchor")?;
    if let Some(anchor) = anchor {
        info!(synchronised = anchor.synced, offset_ms = anchor.offset_ms, "a clock anchor is stored");
    }
    timeline.send_replace(Arc::new(after));
    Ok(anchor.is_some())
}
