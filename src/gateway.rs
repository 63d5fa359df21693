//! Wiring: open the store, load profiles, start the forwarders and then the sources; stop in the reverse order.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use crate::clock::system;
use crate::config::Config;
use crate::coverage::LastDay;
use crate::intake::{Intake, Parts, Taps, Watches};
use crate::interpret::catalog::UnknownProfile;
use crate::interpret::{Catalog, EntryBinding, Profile, ProfileSet};
use crate::local::board::Board;
use crate::local::control::Control;
use crate::local::listener::{self, Listening};
use crate::local::metrics::Named;
use crate::local::persons::{ORDERS, Order};
use crate::quarantine::Quarantine;
use crate::reading::{BootId, RunId};
use crate::resolve::Timeline;
use crate::source::context::{Context, Stop};
use crate::source::delivery;
use crate::source::health::Health;
use crate::source::replay::{self, ReplaySettings, Replayed, Speed};
use crate::store::{self, Ledger, Store};

mod basis;
mod covering;
mod destinations;
pub mod persons;
mod reports;
mod sources;
mod timekeeping;

use covering::Covering;
use destinations::Forwarding;
use reports::Reporter;
use timekeeping::Timekeeping;

/// What is left of the ten seconds of a stop, for each of its steps.
const STEP_DEADLINE: Duration = Duration::from_millis(2_500);

/// What sources have in hand at a stop reaches the intake within this.
const IN_HAND: Duration = Duration::from_millis(150);

/// How long a start waits for a store that somebody else holds.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// What to run: the files as they are now.
#[derive(Debug)]
pub struct Plan {
    /// The checked configuration.
    pub config: Config,
    /// All profiles.
    pub profiles: ProfileSet,
}

/// A new plan for a running gateway.
#[derive(Debug)]
pub struct Reload(pub Plan);

/// A gateway that has started.
pub struct Gateway {
    config: Config,
    store: Store,
    /// What it knows of itself.
    pub board: Arc<Board>,
    catalog: Arc<RwLock<Arc<Catalog>>>,
    inlet: Option<delivery::Inlet>,
    sources: sources::Running,
    drain_intake: watch::Sender<bool>,
    intake: JoinHandle<Result<(), store::Error>>,
    forwarding: Forwarding,
    timekeeping: Timekeeping,
    /// Who answers on this machine: the control socket, and the TCP listener.
    answering: Vec<JoinHandle<()>>,
    watches: Watches,
    /// None while a recording is replayed: its time is another.
    covering: Option<covering::Running>,
    account_ends: Option<covering::Ends>,
    orders: mpsc::Receiver<Order>,
    /// None while a recording is replayed.
    reporter: Option<Reporter>,
}

impl Gateway {
    /// Starts everything that the plan names.
    pub async fn start(plan: Plan) -> anyhow::Result<Gateway> {
        let boot = system::boot_id().context("reading this boot's id")?;
        let profiles = plan.profiles.clone();
        let mut gateway = Self::without_sources(plan, boot).await?;
        gateway.answer();
        if let Some(ends) = gateway.account_ends.take() {
            gateway.covering = Some(Covering::start(gateway.account(), ends, &gateway.config));
        }
        gateway.reporter = Some(Reporter::start(gateway.board.clone(), &gateway.config, &profiles));
        drop(profiles);
        gateway.follow_sources().await?;
        gateway.send_parked(None);
        info!(devices = gateway.config.devices.len(), destinations = gateway.config.destinations.len(), "running");
        Ok(gateway)
    }

    /// Listens for the commands, and where the configuration says so for others.
    fn answer(&mut self) {
        let socket = self.config.control_socket();
        match Control::bind(&socket) {
            Ok(control) => self.answering.push(tokio::spawn(control.serve(self.board.clone()))),
            Err(why) => {
                warn!("no control socket, so the commands cannot ask this gateway: {}: {why}", socket.display());
            }
        }
        if let Some(local) = self.config.local.clone() {
            self.answering.push(tokio::spawn(listener::serve(local, self.board.clone())));
        }
    }

    /// Takes a recording through the whole path and returns when every destination has everything, or at a stop.
    pub async fn replay(
        plan: Plan,
        file: PathBuf,
        speed: Speed,
        mut stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<(Replayed, Ledger)> {
        let mut gateway = Self::without_sources(plan, BootId::WALL).await?;
        let entries = gateway.config.devices.iter().map(|device| (device.name.clone(), device.name.clone())).collect();
        let context = gateway.context()?;
        let replayed = tokio::select! {
            replayed = replay::run(ReplaySettings { file, speed, entries }, context) => replayed,
            () = stopped(&mut stopping) => Err(replay::ReplayError::Stopped),
            failed = &mut gateway.intake => return Err(intake_failure(failed)),
        };
        gateway.inlet = None;
        let drained = tokio::select! {
            ended = &mut gateway.intake => ended.context("the intake").and_then(|ended| Ok(ended?)),
            () = stopped(&mut stopping) => Ok(()),
        };
        if drained.is_ok() {
            tokio::select! {
                () = everything_delivered(&gateway.store) => {}
                () = stopped(&mut stopping) => {}
            }
        }
        let ledger = gateway.stop(false).await?;
        drained?;
        Ok((replayed?, ledger))
    }

    async fn without_sources(plan: Plan, boot: BootId) -> anyhow::Result<Gateway> {
        validate(&plan)?;
        let Plan { config, profiles } = plan;
        let catalog = Arc::new(RwLock::new(Arc::new(catalog(&config, &profiles)?)));
        let run = RunId::random();
        let names = config.cursors();
        let store = open_store(&config, run, boot, &names).await?;
        let timekeeping = Timekeeping::start(&config, &store, boot).await?;
        let forwarding = Forwarding::start(&config, &store, &timekeeping)?;
        let (inlet, deliveries) = delivery::channel();
        let (drain_intake, draining) = watch::channel(false);
        let taps = Taps::default();
        let watches = Watches::new(boot);
        let parts = Parts {
            store: store.clone(),
            run,
            catalog: catalog.clone(),
            taps: taps.clone(),
            watches: watches.clone(),
            commit_interval: config.commit_interval,
        };
        let intake = tokio::spawn(Intake::new(parts).run(deliveries, draining));
        let sources = sources::Running::default();
        let quarantine = Arc::new(Quarantine::new(
            store.clone(),
            catalog.clone(),
            timekeeping.timeline(),
            destination_names(&config),
        ));
        let (gone, last_day, account_ends) = covering::ends();
        let (ordering, orders) = mpsc::channel(ORDERS);
        let board = Arc::new(Board {
            boot,
            run,
            store: store.clone(),
            taps,
            sources: Arc::new(Health::default()),
            destinations: forwarding.healths(),
            timeline: timekeeping.timeline(),
            quarantine,
            gate: timekeeping.gate(),
            orders: ordering,
            gone,
            last_day,
            #[cfg(feature = "ble")]
            nearby: sources.nearby.clone(),
            started_ms: system::uptime_ms(),
            offline: config.gateway.offline,
            listening: Listening::default(),
            named: Named::default(),
        });
        Ok(Gateway {
            config,
            store,
            board,
            catalog,
            inlet: Some(inlet),
            sources,
            drain_intake,
            intake,
            forwarding,
            timekeeping,
            answering: Vec::new(),
            watches,
            covering: None,
            account_ends: Some(account_ends),
            orders,
            reporter: None,
        })
    }

    /// Runs until told to stop or until the store fails; returns the ledger after everything in hand is safe.
    pub async fn run(
        mut self,
        mut stopping: watch::Receiver<bool>,
        mut reloads: mpsc::Receiver<Reload>,
    ) -> anyhow::Result<Ledger> {
        loop {
            tokio::select! {
                () = stopped(&mut stopping) => break,
                Some(Reload(plan)) = reloads.recv() => self.reload(plan).await,
                Some(order) = self.orders.recv() => self.carry_out(order).await,
                failed = &mut self.intake => return Err(intake_failure(failed)),
                failed = self.timekeeping.failed() => return Err(failed),
                failed = self.forwarding.failed() => return Err(failed),
            }
        }
        self.stop(true).await
    }

    /// Changes who wears what, and answers.
    async fn carry_out(&mut self, order: Order) {
        let answer = self.timekeeping.assign(&self.config, &self.store, &self.board, &order.change).await;
        self.send_parked(Some(order.change.device.clone()));
        let _asker_is_gone = order.answer.send(answer);
    }

    /// Profiles and device entries anew. What cannot change while running is said and left.
    async fn reload(&mut self, plan: Plan) {
        if let Err(why) = validate(&plan) {
            return warn!("the new configuration is refused and the old one runs on: {why:#}");
        }
        let Plan { config, profiles } = plan;
        let reloaded = async {
            let catalog = Arc::new(catalog(&config, &profiles)?);
            self.timekeeping.follow(&config, &self.store).await?;
            *self.catalog.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = catalog.clone();
            let context = self.context()?;
            self.sources.follow(&config, &catalog, &context, self.timekeeping.gateway_id()).await
        };
        match reloaded.await {
            Ok(()) => {
                if config.destinations != self.config.destinations
                    || config.failover != self.config.failover
                    || config.clock != self.config.clock
                    || config.local != self.config.local
                    || config.gateway.offline != self.config.gateway.offline
                {
                    warn!(
                        "changes of destinations, failover, store, clock, local and gateway.offline take effect at the next start"
                    );
                }
                self.expect_devices(&config);
                if let Some(reporter) = &self.reporter {
                    reporter.follow(&config, &profiles);
                }
                info!(devices = config.devices.len(), "profiles and device entries read again");
                self.config = config;
                self.send_parked(None);
            }
            Err(why) => warn!("the new configuration is refused and the old one runs on: {why:#}"),
        }
    }

    /// What was parked of a device, or of any, and has a person now is sent, beside everything else.
    fn send_parked(&self, device: Option<Arc<str>>) {
        let quarantine = self.board.quarantine.clone();
        tokio::spawn(async move {
            match quarantine.parked_of(device.as_deref()).await {
                Ok(outcome) if outcome.replayed == 0 => {}
                Ok(outcome) => info!(events = outcome.events, still = outcome.still, "parked events have a person now"),
                Err(store::Error::Closed) => {}
                Err(why) => warn!("what is parked was not looked through: {why}"),
            }
        });
    }

    /// Sources stop, the intake drains, the store commits, the ranges in hand finish or stay stored: within ten seconds.
    async fn stop(mut self, drain: bool) -> anyhow::Result<Ledger> {
        // A receiver that is gone has stopped already.
        self.sources.stop();
        self.inlet = None;
        if drain {
            // A closed intake takes nothing more, and what a Bluetooth device was told is received comes never again.
            tokio::time::sleep(IN_HAND).await;
            self.drain_intake.send_replace(true);
            match timeout(STEP_DEADLINE, &mut self.intake).await {
                Ok(ended) => ended.context("the intake")??,
                Err(_elapsed) => error!("the intake did not drain in time; what has no receipt comes again"),
            }
        }
        self.sources.stopped(STEP_DEADLINE / 2).await;
        if let Some(reporter) = self.reporter.take() {
            reporter.stop().await;
        }
        self.forwarding.stop(STEP_DEADLINE).await;
        self.answering.iter().for_each(JoinHandle::abort);
        if let Some(covering) = self.covering.take() {
            covering.stop(STEP_DEADLINE / 2).await;
        }
        let ledger = self.store.ledger();
        drop(self.timekeeping);
        self.store.close().await.context("closing the store")?;
        Ok(ledger)
    }

    fn context(&self) -> anyhow::Result<Context> {
        let boot = self.board.boot;
        Ok(Context {
            inlet: self.inlet.clone().context("the gateway is stopping")?,
            health: self.board.sources.clone(),
            uptime: Arc::new(move || system::heard_now(boot)),
            wall: self.timekeeping.wall_clock(boot),
            stop: Stop::new(self.drain_intake.subscribe()),
        })
    }

    /// The seconds of a device count from its entry on, and no longer than that is there.
    fn expect_devices(&self, config: &Config) {
        let now_ms = system::uptime_ms();
        let expected: Vec<Arc<str>> = covering::expected(config).collect();
        covering::expected(&self.config)
            .filter(|name| !expected.contains(name))
            .for_each(|gone| self.watches.forget(&gone));
        expected.iter().for_each(|name| self.watches.expect(name, now_ms));
    }

    /// What the account of each device's seconds is made of.
    fn account(&self) -> covering::Parts {
        covering::Parts {
            boot: self.board.boot,
            store: self.store.clone(),
            watches: self.watches.clone(),
            sources: self.board.sources.clone(),
            timeline: self.timekeeping.timeline(),
            gate: self.timekeeping.gate(),
        }
    }

    async fn follow_sources(&mut self) -> anyhow::Result<()> {
        let catalog = self.catalog.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let context = self.context()?;
        self.sources.follow(&self.config, &catalog, &context, self.timekeeping.gateway_id()).await
    }
}

/// Opens the store. A command that looks into it holds it for a moment, and that must not stop a start.
async fn open_store(config: &Config, run: RunId, boot: BootId, names: &[String]) -> anyhow::Result<Store> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match Store::open(&config.store, run, boot, names) {
            Err(store::Error::Locked { .. }) if Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
            opened => return opened.with_context(|| format!("opening the store in {}", config.store.dir.display())),
        }
    }
}

/// The timeline as the store has it, for commands that render rows while no gateway runs.
pub fn stored_timeline(store: &Store) -> Timeline {
    timekeeping::stored(store)
}

/// Seconds of each device's last day as the store keeps them, for commands while no gateway runs.
pub fn stored_last_day(store: &Store) -> LastDay {
    covering::stored(store)
}

fn destination_names(config: &Config) -> Vec<String> {
    config.destinations.iter().map(|to| to.name.clone()).collect()
}

/// What is set aside in a store, read again by this plan's profiles and limits, for a command while no gateway runs.
pub fn quarantine(store: &Store, plan: &Plan) -> anyhow::Result<Quarantine> {
    let catalog = Arc::new(RwLock::new(Arc::new(catalog(&plan.config, &plan.profiles)?)));
    let (_, timeline) = watch::channel(Arc::new(timekeeping::stored(store)));
    Ok(Quarantine::new(store.clone(), catalog, timeline, destination_names(&plan.config)))
}

/// Finds what is wrong with the entries before anything is opened.
pub fn validate(plan: &Plan) -> anyhow::Result<()> {
    let catalog = catalog(&plan.config, &plan.profiles)?;
    sources::wanted(&plan.config, &catalog, "any")?;
    Ok(())
}

/// Every entry with its profile.
fn catalog(config: &Config, profiles: &ProfileSet) -> anyhow::Result<Catalog> {
    for device in config.devices.iter().filter(|device| device.key.is_some()) {
        if profiles.get(&device.profile).is_some_and(|profile| !profile.decrypts()) {
            let found =
                format!("found key_file, and the profile {} reads no encrypted frames; leave it out", device.profile);
            return Err(config.device_error(&device.name, found).into());
        }
    }
    let entries = config.devices.iter().map(|device| EntryBinding {
        entry: device.name.clone(),
        profile: device.profile.clone(),
        component: device.component.clone(),
        key: device.key.clone(),
    });
    let any = config.ble.services.iter().filter_map(|service| {
        let of_service = |profile: &&Arc<Profile>| profile.matches().ble_service.as_ref() == Some(service);
        let profile = profiles.iter().find(of_service)?.id().to_string();
        Some(EntryBinding { entry: sources::any_entry(service), profile, component: None, key: None })
    });
    let made = Catalog::new(profiles, entries.chain(any).collect(), config.limits.clone());
    made.map_err(|unknown| {
        let UnknownProfile { entry, profile, hint } = unknown;
        config.device_error(&entry, format!("found profile = \"{profile}\", which does not exist; {hint}")).into()
    })
}

fn intake_failure(ended: Result<Result<(), store::Error>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("the intake ended although nobody stopped it"),
        Ok(Err(why)) => {
            anyhow::Error::new(why).context("the store failed; the service manager starts the gateway again")
        }
        Err(why) => anyhow::Error::new(why).context("the intake failed"),
    }
}

/// Waits for the word to stop; a sender that is gone is one too.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _sender_is_gone = stopping.wait_for(|stop| *stop).await.is_err();
}

/// Waits until no destination has anything left.
async fn everything_delivered(store: &Store) {
    while store.ledger().destinations.iter().any(|(_, tally)| tally.waiting > 0) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
