//! One campaign: sources at one end, destinations at the other, and what the plan says in between.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bus::{Broker, repeats_too_much};
use crate::hub::{armed, hub, subscribed};
use crate::judge::{FarEnd, Terms};
use crate::oracle::{CABLES, Said, Sources, leap, now_ms};
use crate::plan::{Bus, End, Plan, Step, Theme};
use crate::receipts::Receipts;
use crate::rig::clickhouse::Engine;
use crate::rig::gateway::{Hub, destinations, wait_for};
use crate::rig::kafka::Kafka;
use crate::rig::mosquitto::Mosquitto;
use crate::rig::pty::Pty;
use crate::trouble::{Clock, SmallDisk, flip};

/// A start that takes longer is a finding.
pub(crate) const START: Duration = Duration::from_secs(3);
/// A gateway that has not come by its point by then is killed as it stands.
const POINT_PATIENCE: Duration = Duration::from_secs(6);
/// The same where Kafka must have taken something before: its producer needs seconds after a death.
const BUS_PATIENCE: Duration = Duration::from_secs(20);
/// When everything must have arrived after the last fault.
const DRAIN: Duration = Duration::from_secs(90);
/// What a source says to a gateway that listens is stored within this.
const TAKEN_MS: i64 = 1_000;
/// How a start ends that finds no room even to open the store.
const NO_SPACE: &str = "No space left on device (os error 28)";
/// An outage of so long, in so many leaps.
const TEN_HOURS_MS: i64 = 36_000_000;
const LEAPS: usize = 12;

/// What a campaign came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) kills: u32,
    pub(crate) points: BTreeSet<&'static str>,
    pub(crate) readings: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    pub(crate) mistimed: u64,
    pub(crate) estimated: u64,
    pub(crate) excused: u64,
    /// Events with an event_id that was there, where only the first is promised to count.
    pub(crate) repeated: u64,
    pub(crate) slowest_start: Duration,
    /// KiB, one look before each end of a run that had warmed up.
    pub(crate) memory: Vec<u64>,
    /// Starts that a full disk refused.
    pub(crate) refused: u32,
    /// What the theme did, to find a failure again.
    pub(crate) done: Vec<String>,
    pub(crate) wrong: Vec<String>,
}

/// A campaign under way.
pub(crate) struct Campaign<'a> {
    plan: &'a Plan,
    engine: &'a Engine,
    bus: Option<Broker<'a>>,
    mosquitto: Mosquitto,
    receipts: Receipts,
    hub: Hub,
    sources: Sources,
    clock: Clock,
    disk: Option<SmallDisk>,
    outcome: Outcome,
    listening: Vec<(i64, i64)>,
    /// Since when the gateway listens without anything in its way.
    since: Option<i64>,
    /// The MQTT broker has forgotten all sessions at least once.
    forgot: bool,
    /// The warehouse takes nothing until the theme lets it.
    is_away: bool,
    /// Spans of boots that were never synchronised.
    unsynced: Vec<(i64, i64)>,
    booted: i64,
    /// The clock was synchronised in this run of the gateway, which may not have seen it.
    sync_is_unseen: bool,
    /// The most that a ledger ever counted as stored: it never falls.
    stored: u64,
    random: fastrand::Rng,
}

/// Runs the campaign; `None` where something it needs is not installed.
pub(crate) fn run(plan: &Plan, engine: &Engine, kafka: Option<&Kafka>) -> Option<Outcome> {
    let bus = kafka.map(|kafka| Broker::new(kafka, plan.exactly_once));
    let mut campaign = Campaign::begin(plan, engine, bus)?;
    for (nth, step) in plan.steps.iter().enumerate() {
        campaign.before(nth, step);
        campaign.step(step);
    }
    Some(campaign.end())
}

impl<'a> Campaign<'a> {
    fn begin(plan: &'a Plan, engine: &'a Engine, bus: Option<Broker<'a>>) -> Option<Campaign<'a>> {
        let mosquitto = Mosquitto::start()?;
        let receipts = Receipts::before(mosquitto.port);
        let mut hub = hub(plan, engine, receipts.port, bus.as_ref());
        let disk = match plan.theme {
            Theme::FullDisk => Some(SmallDisk::mount(&hub.data_dir())?),
            _ => None,
        };
        let (code, said, error) = hub.output(&["schema", "apply"]);
        assert_eq!(code, 0, "{said}{error}");
        // A merge would take repeats away before they are counted.
        engine.sql("SYSTEM STOP MERGES biometric_events");
        let cables = (0..CABLES).map(|nth| Pty::plug(&hub.dir.path().join(format!("tty-{nth}")))).collect();
        let clock = Clock::at(hub.dir.path().join("clock"));
        hub.env("FAILPOINTS", &armed(plan, &hub, None));
        hub.start();
        subscribed(&hub, &mosquitto);
        assert_eq!(hub.stop(), 0, "{}", hub.log());
        Some(Campaign {
            sources: Sources::start(mosquitto.port, cables, plan.sequences),
            plan,
            engine,
            bus,
            mosquitto,
            receipts,
            hub,
            clock,
            disk,
            outcome: Outcome::default(),
            listening: Vec::new(),
            since: None,
            forgot: false,
            is_away: false,
            unsynced: Vec::new(),
            booted: now_ms(),
            sync_is_unseen: false,
            stored: 0,
            random: fastrand::Rng::with_seed(plan.seed ^ 0x6661_756c_7473),
        })
    }

    /// What the theme does before this run of the gateway.
    fn before(&mut self, nth: usize, step: &Step) {
        match self.plan.theme {
            Theme::Kills => {}
            Theme::FullDisk => {
                let disk = self.disk.as_ref().expect("the small disk");
                // On a full disk no point is come by.
                let is_full = !matches!(step.end, End::Point(..)) && self.random.bool();
                if is_full { disk.fill() } else { disk.clear() }
            }
            Theme::Damage => {
                // What is flipped shall still be waiting: nothing was delivered in the run before.
                self.is_away = nth % 4 == 2;
                self.engine.fault("503", if self.is_away { u32::MAX } else { 0 });
                if nth % 4 == 3
                    && let Some(place) = flip(&self.hub.data_dir().join("store"), &mut self.random)
                {
                    self.outcome.done.push(format!("before run {nth}: flipped {place}"));
                }
            }
            Theme::Clock => {
                if self.random.bool() {
                    self.end_boot();
                    self.clock.boot(&mut self.random);
                }
            }
            Theme::Outage => {
                self.is_away = true;
                self.engine.fault("503", u32::MAX);
                if nth < LEAPS {
                    self.leap();
                }
            }
        }
    }

    /// A boot that was never synchronised may leave estimates; so may one whose gateway died before it saw that. The
    /// injected clock does not wake it, as the kernel would: it looks every 5 s, and at each start.
    fn end_boot(&mut self) {
        if !self.clock.synchronised || self.sync_is_unseen {
            self.unsynced.push((self.booted, now_ms()));
        }
        self.booted = now_ms();
    }

    /// Uptime and wall clock go on by a part of the ten hours, while nobody says anything.
    fn leap(&mut self) {
        self.sources.pause();
        self.clock.ahead_ms += TEN_HOURS_MS / LEAPS as i64;
        self.clock.tell();
        leap(self.clock.ahead_ms);
        self.sources.resume();
    }

    fn step(&mut self, step: &Step) {
        if let Some((kind, n, skip)) = step.warehouse
            && !self.is_away
        {
            self.engine.fault_later(kind, n, skip);
        }
        if let (Some(bus), Some(fault)) = (&self.bus, step.bus) {
            bus.before(fault);
        }
        self.run_to_its_end(step);
        if let Some(bus) = &self.bus {
            bus.after();
        }
    }

    fn run_to_its_end(&mut self, step: &Step) {
        let point = match &step.end {
            End::Point(point, passes) => Some((*point, *passes)),
            _ => None,
        };
        self.hub.env("FAILPOINTS", &armed(self.plan, &self.hub, point));
        self.hub.start();
        let started = Instant::now();
        if let End::Early(after) = step.end {
            std::thread::sleep(after);
            return self.kill();
        }
        if !self.ready(started) {
            return self.died(point);
        }
        self.since = (!self.is_full() && !self.may_pause()).then(now_ms);
        self.sync_is_unseen = false;
        self.meanwhile(step);
        match &step.end {
            End::Point(name, _) => {
                let waits_for_bus = name.starts_with("kafka") || name.starts_with("store.death");
                let patience = if waits_for_bus { BUS_PATIENCE } else { POINT_PATIENCE };
                let ended = wait_for(patience, || (!self.hub.is_running()).then_some(()));
                match ended {
                    Some(()) => self.died(point),
                    None => self.kill(),
                }
            }
            End::Random(after) | End::Early(after) => {
                std::thread::sleep(*after);
                self.look();
                self.kill();
            }
            End::Stop(after) => {
                std::thread::sleep(*after);
                self.stop();
            }
        }
    }

    fn is_full(&self) -> bool {
        self.disk.as_ref().is_some_and(SmallDisk::is_full)
    }

    /// Whether the store may fill up in this run and make the sources wait: what is said then is heard late.
    fn may_pause(&self) -> bool {
        self.plan.theme == Theme::Outage && !self.plan.evicts && self.is_away
    }

    /// Faults in the middle of a run.
    fn meanwhile(&mut self, step: &Step) {
        if step.broker {
            self.sources.pause();
            if self.plan.forgets {
                self.mosquitto.forget();
                self.forgot = true;
            } else {
                self.mosquitto.stop();
                std::thread::sleep(Duration::from_millis(self.random.u64(0..300)));
                self.mosquitto.launch();
            }
            // Who has no session yet is told nothing: the gateway is back after half a second.
            if self.forgot {
                std::thread::sleep(Duration::from_millis(1_500));
            }
            self.sources.resume();
        }
        if let (Some(bus), Some(Bus::Killed)) = (&self.bus, step.bus) {
            bus.restart();
        }
        if self.plan.theme == Theme::Clock {
            std::thread::sleep(Duration::from_millis(self.random.u64(0..800)));
            if self.random.bool() {
                self.clock.step(&mut self.random);
                std::thread::sleep(Duration::from_millis(self.random.u64(0..800)));
            }
            if self.random.u8(..) < 200 {
                self.sync_is_unseen |= !self.clock.synchronised;
                self.clock.sync();
            }
        }
    }

    /// Waits until the gateway answers; false when it has died before.
    fn ready(&mut self, started: Instant) -> bool {
        let socket = self.hub.data_dir().join("control.sock");
        while started.elapsed() < 5 * START {
            if !self.hub.is_running() {
                return false;
            }
            if UnixStream::connect(&socket).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = started.elapsed();
        self.outcome.slowest_start = self.outcome.slowest_start.max(took);
        if took > START {
            let full = if self.is_full() { ", on a full disk" } else { "" };
            self.outcome.wrong.push(format!("a start took {} ms{full}", took.as_millis()));
        }
        true
    }

    /// What the ledger counts as stored is an obligation from now on; and how much memory the gateway holds.
    fn look(&mut self) {
        if !self.hub.is_running() {
            return;
        }
        self.outcome.memory.push(self.hub.memory_kib());
        if self.random.u8(..) < 80
            && let Some(stat) = self.hub.stat()
        {
            self.count(&stat);
        }
    }

    fn count(&mut self, stat: &Value) {
        let stored = stat["ledger"]["intake"]["stored"].as_u64().unwrap_or(0);
        if stored < self.stored && self.plan.theme != Theme::Damage {
            self.outcome.wrong.push(format!("{stored} are stored, and before it were {}", self.stored));
        }
        self.stored = stored;
    }

    fn deaf(&mut self) {
        if let Some(since) = self.since.take() {
            self.listening.push((since, now_ms()));
        }
    }

    fn kill(&mut self) {
        self.deaf();
        if self.hub.is_running() {
            self.hub.kill();
            self.outcome.kills += 1;
        } else {
            self.died(None);
        }
    }

    /// It ended by itself: at its point as by kill -9, or else something is wrong.
    fn died(&mut self, point: Option<(&'static str, u32)>) {
        self.deaf();
        let Some(status) = self.hub.ended() else { return };
        match (status.signal(), point) {
            (Some(9), Some((point, _))) => {
                self.outcome.kills += 1;
                self.outcome.points.insert(point);
            }
            // A start on a full disk may be refused, in plain words; the service manager tries again.
            _ if self.is_full() && status.code() == Some(1) && self.hub.log().trim_end().ends_with(NO_SPACE) => {
                self.outcome.refused += 1;
            }
            _ => self.outcome.wrong.push(format!("it ended by itself ({status}): {}", last_of(&self.hub.log()))),
        }
    }

    fn stop(&mut self) {
        self.deaf();
        let code = self.hub.stop();
        if code != 0 {
            self.outcome.wrong.push(format!("a clean stop ended with {code}: {}", last_of(&self.hub.log())));
        }
    }

    /// The faults are over: everything must arrive.
    fn end(mut self) -> Outcome {
        self.engine.fault("clear", 0);
        if let Some(disk) = &self.disk {
            disk.clear();
        }
        self.end_boot();
        self.clock.sync();
        self.hub.env("FAILPOINTS", &armed(self.plan, &self.hub, None));
        self.hub.start();
        if !self.ready(Instant::now()) {
            self.died(None);
            return self.outcome;
        }
        let from = now_ms();
        self.since = Some(from);
        std::thread::sleep(Duration::from_millis(2_500));
        let until = now_ms();
        self.deaf();
        let Campaign { sources, hub, .. } = &mut self;
        let said = sources.finish();
        let mut stored = (0, Instant::now());
        let drained = wait_for(DRAIN, || {
            let stat = hub.stat()?;
            let now = stat["ledger"]["intake"]["stored"].as_u64()?;
            if now != stored.0 {
                stored = (now, Instant::now());
            }
            let waiting = destinations(&stat).iter().any(|(_, tally)| tally["waiting"] != 0);
            (!waiting && stored.1.elapsed() > Duration::from_secs(1)).then_some(stat)
        });
        match drained {
            Some(stat) => self.count(&stat),
            None => self.outcome.wrong.push(format!("not drained: {:?}", self.hub.stat())),
        }
        self.stop();
        if let Some(stat) = self.hub.stat() {
            self.outcome.done.push(format!("at the end: {}", stat["store"]));
            self.outcome.done.push(format!("at the end: {}", stat["ledger"]["destinations"]));
        }
        match self.hub.stat() {
            Some(stat) => self.judge(&said, &stat, (from, until)),
            None => self.outcome.wrong.push("the stopped store cannot be read".to_owned()),
        }
        self.engine.sql(&format!("DROP DATABASE {}", self.engine.database));
        self.outcome
    }

    fn judge(&mut self, said: &Said, stat: &Value, last: (i64, i64)) {
        self.count(stat);
        self.outcome.wrong.extend(unbalanced(stat));
        let given = self.receipts.given();
        let forgot = self.forgot;
        let must = |device: &str, number: u32| {
            let at = said[device][number as usize - 1];
            let in_the_end = at > last.0 + TAKEN_MS && at < last.1;
            match device.starts_with("cable") {
                true => in_the_end,
                // The broker keeps what it has for a session that it knows.
                false => in_the_end || !forgot || given.contains(&(device.to_owned(), number)),
            }
        };
        let tallies = destinations(stat);
        // A cursor may be among what was damaged: then its range comes again, with the same event ids.
        let again = self.plan.theme == Theme::Damage;
        let archive = self.hub.dir.path().join("archive");
        let mut far_ends = vec![FarEnd::warehouse(self.engine, again), FarEnd::files(&archive, again)];
        far_ends.extend(self.bus.as_ref().map(|bus| bus.far_end(again)));
        for far in far_ends {
            let Some((_, tally)) = tallies.iter().find(|(name, _)| name == far.name) else { continue };
            let count = |key: &str| tally[key].as_u64().unwrap_or(0);
            let terms = Terms {
                listening: self.listening.clone(),
                excused: count("damaged") + count("evicted"),
                unsynced: self.unsynced.clone(),
            };
            let verdict = far.judge(said, &terms, must);
            // A damaged record takes its part of the ledger along, and what counters had counted in it.
            if far.events < count("delivered") || (!again && far.events != count("delivered")) {
                let told = count("delivered");
                self.outcome.wrong.push(format!("{}: {} events, and the ledger says {told}", far.name, far.events));
            }
            if count("rejected") + count("parked") > 0 {
                self.outcome.wrong.push(format!("{}: rejected or parked: {tally}", far.name));
            }
            if terms.excused > 0 && !matches!(self.plan.theme, Theme::Damage | Theme::Outage) {
                self.outcome.wrong.push(format!("{}: damaged or evicted: {tally}", far.name));
            }
            let outcome = &mut self.outcome;
            outcome.readings += verdict.readings;
            outcome.lost += verdict.lost;
            outcome.doubled += verdict.doubled;
            outcome.reordered += verdict.reordered;
            outcome.mistimed += verdict.mistimed;
            outcome.estimated += verdict.estimated;
            outcome.excused += terms.excused;
            outcome.repeated += far.repeated;
            // A damaged cursor may bring more than the batch in hand again.
            outcome.wrong.extend(repeats_too_much(&far, &self.hub.log()).filter(|_| !again));
            if terms.excused == 0 && !again {
                outcome.wrong.extend(far.miscounted());
            }
            if verdict.is_bad() {
                outcome.wrong.extend(verdict.said);
            }
        }
    }
}

/// Where a ledger does not balance.
fn unbalanced(stat: &Value) -> Option<String> {
    let balanced = std::panic::catch_unwind(|| crate::rig::gateway::assert_balanced(stat));
    balanced.is_err().then(|| format!("the ledger does not balance: {}", stat["ledger"]))
}

/// The end of a log, the last line first.
fn last_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(6)..].iter().rev().copied().collect::<Vec<_>>().join(" | ")
}
