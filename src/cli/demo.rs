//! `biogate demo`: the gateway for real, with virtual patients at one end and files at the other. No broker, warehouse,
//! Bluetooth or hardware is needed. Half-way the destination is cut off for some seconds, so that the promise is seen.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::ctrl_c;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, interval, sleep_until, timeout};

use crate::config::Config;
use crate::gateway::{Gateway, Plan};
use crate::interpret::ProfileSet;
use crate::local::board::Board;
use crate::observation::{EventType, Observation};
use crate::source::context::Stop;
use crate::source::mqtt::publisher;
use crate::source::virtual_patient::{self, PatientLine, PatientSettings};

/// How long the destination is cut off, and when where no end is given.
const CUT: Duration = Duration::from_secs(6);
const CUT_AFTER: Duration = Duration::from_secs(15);

/// How long the end waits for what still waits.
const LAST_DRAIN: Duration = Duration::from_secs(5);

const NAMES: [&str; 8] = ["anna", "bela", "carla", "dario", "edda", "farid", "greta", "hugo"];

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many virtual patients, each on a serial line of its own; none with --mqtt alone
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=8))]
    patients: u8,
    /// End by itself after this time; otherwise with Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Where configuration, store and events go; otherwise a fresh folder under the system's temporary folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Two more patients that publish to this broker: mqtt://HOST:PORT
    #[arg(long, value_name = "URL")]
    mqtt: Option<String>,
}

/// Runs it and prints the ledger.
#[allow(clippy::print_stdout, reason = "this command reports to a person")]
pub(super) async fn run(arguments: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(arguments.patients > 0 || arguments.mqtt.is_some(), "--patients 0 leaves nobody; add --mqtt URL");
    let dir = folder(arguments.dir.as_deref())?;
    let (end_patients, patients_end) = watch::channel(false);
    let lines =
        (0..arguments.patients).map(|_| PatientLine::open()).collect::<Result<Vec<_>, _>>().context("opening a pty")?;
    let topic = format!("biogate-demo-{:08x}", fastrand::u32(..));
    let file = dir.join("biogate.toml");
    std::fs::write(&file, configuration(&dir, &lines, arguments.mqtt.as_deref(), &topic))
        .context("writing the configuration")?;
    let plan = Plan { config: Config::load(&file)?, profiles: ProfileSet::builtin()? };
    let (stop, stopping) = watch::channel(false);
    let (_no_reloads, reloads) = mpsc::channel(1);
    let gateway = Gateway::start(plan).await?;
    let show = Show::new(gateway.board.clone());
    for (number, line) in lines.into_iter().enumerate() {
        tokio::spawn(virtual_patient::run_serial(
            PatientSettings::new(number as u64),
            line,
            Stop::new(patients_end.clone()),
        ));
    }
    if let Some(url) = &arguments.mqtt {
        publish(url, &topic, &patients_end)?;
    }
    let running = tokio::spawn(gateway.run(stopping, reloads));
    show.until_the_end(arguments.duration, &dir.join("archive")).await?;
    end_patients.send_replace(true);
    show.drained(LAST_DRAIN).await;
    stop.send_replace(true);
    let ledger = running.await.context("the gateway")??;
    println!("{} dir={}", super::ledger_line::of(&ledger), dir.display());
    Ok(ExitCode::SUCCESS)
}

fn folder(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = match named {
        Some(dir) => std::path::absolute(dir).context("--dir")?,
        None => std::env::temp_dir().join(format!("biogate-demo-{:08x}", fastrand::u32(..))),
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

/// The demo's own configuration, left in the folder to be read.
fn configuration(dir: &Path, lines: &[PatientLine], mqtt: Option<&str>, topic: &str) -> String {
    let (data, archive) = (dir.join("data"), dir.join("archive"));
    let mut text = format!(
        "[gateway]\nid = \"hub-demo\"\ndata_dir = {data:?}\n\n[clock]\ntrust = \"always\"      # the wall clock as it is\n\n\
         [store]\ncommit_interval = \"250 ms\"\nmin_free = \"16 MiB\"\n\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\nrotate = {{ bytes = \"1 MiB\", age = \"1 h\" }}\n"
    );
    for (name, line) in NAMES.iter().zip(lines) {
        text += &format!(
            "\n[[device]]\nname = \"band-{name}\"\nprofile = \"serial-vitals-line\"\nserial = {:?}\nuser_id = \"{}\"\n",
            line.port(),
            person(name)
        );
    }
    if let Some(url) = mqtt {
        text += &format!("\n[[mqtt]]\nname = \"demo\"\nurl = \"{url}\"\n");
        for (entry, profile, last) in
            [("vitals", "mqtt-vitals-json", "vitals"), ("steps", "mqtt-step-counter", "steps")]
        {
            text += &format!(
                "\n[[device]]\nname = \"{entry}\"\nprofile = \"{profile}\"\nmqtt = \"{topic}/{{device}}/{last}\"\n"
            );
        }
    }
    text
}

/// A made-up person, the same at every run.
fn person(name: &str) -> uuid::Uuid {
    uuid::Uuid::new_v5(&crate::event::NAMESPACE, format!("demo {name}").as_bytes())
}

fn publish(url: &str, topic: &str, end: &watch::Receiver<bool>) -> anyhow::Result<()> {
    let (publisher, connection) = publisher::publisher(url, &format!("{topic}-patients"), Stop::new(end.clone()))?;
    tokio::spawn(connection);
    for (number, name) in [(100, "mqtt-ines"), (101, "mqtt-jan")] {
        let (settings, stop) = (PatientSettings::new(number), Stop::new(end.clone()));
        tokio::spawn(virtual_patient::run_mqtt(settings, topic.to_owned(), name.to_owned(), publisher.clone(), stop));
    }
    Ok(())
}

/// What a person sees of one device.
#[derive(Default)]
struct Seen {
    heart_rate: Option<f64>,
    temperature: Option<f64>,
    steps: f64,
    events: u64,
}

/// The live lines.
struct Show {
    board: Arc<Board>,
    observations: std::cell::RefCell<broadcast::Receiver<Observation>>,
    seen: std::cell::RefCell<BTreeMap<Arc<str>, Seen>>,
    drawn: std::cell::Cell<usize>,
    live: bool,
}

impl Show {
    fn new(board: Arc<Board>) -> Self {
        let observations = board.taps.observations.subscribe();
        let live = std::io::stdout().is_terminal();
        Show { board, observations: observations.into(), seen: Default::default(), drawn: 0.into(), live }
    }

    /// Draws until the end or Ctrl-C, and cuts the destination off half-way.
    async fn until_the_end(&self, duration: Option<Duration>, archive: &Path) -> anyhow::Result<()> {
        let begin = Instant::now();
        let end = duration.map(|duration| begin + duration);
        let cut_at = begin + duration.map_or(CUT_AFTER, |duration| duration / 2);
        let cut_for = duration.map_or(CUT, |duration| CUT.min(duration / 4));
        let mut cut = Cut { archive, away: archive.with_extension("cut-off"), is_cut: false };
        let mut ticks = interval(if self.live { Duration::from_millis(500) } else { Duration::from_secs(2) });
        let mut turn = 0;
        loop {
            tokio::select! {
                _ = ticks.tick() => self.draw()?,
                () = sleep_until(if turn == 0 { cut_at } else { cut_at + cut_for }), if turn < 2 => {
                    let waiting = self.waiting();
                    match turn {
                        0 => { cut.off()?; self.say("the destination is cut off: events wait in the store")?; }
                        _ => { cut.on()?; self.say(&format!("the destination is back: {waiting} waiting"))?; }
                    }
                    turn += 1;
                }
                () = async { match end { Some(end) => sleep_until(end).await, None => std::future::pending().await } } => break,
                _ = ctrl_c() => break,
            }
        }
        Ok(())
    }

    fn waiting(&self) -> u64 {
        self.board.store.ledger().destinations.iter().map(|(_, tally)| tally.waiting).sum()
    }

    /// Waits until nothing waits any more, at most so long.
    async fn drained(&self, deadline: Duration) {
        let quiet = async {
            // What the patients said last is still on its way in for a moment.
            tokio::time::sleep(Duration::from_millis(600)).await;
            while self.waiting() > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _drained_in_time = timeout(deadline, quiet).await;
    }

    fn take_observations(&self) {
        let mut seen = self.seen.borrow_mut();
        loop {
            let observation = match self.observations.borrow_mut().try_recv() {
                Ok(observation) => observation,
                Err(broadcast::error::TryRecvError::Lagged(_)) => continue,
                Err(_) => return,
            };
            let of = seen.entry(observation.device.clone()).or_default();
            of.events += 1;
            match observation.event_type {
                EventType::HeartRate => of.heart_rate = Some(observation.value),
                EventType::Temperature => of.temperature = Some(observation.value),
                EventType::Steps => of.steps += observation.value,
                _ => {}
            }
        }
    }

    fn draw(&self) -> std::io::Result<()> {
        self.take_observations();
        let mut out = std::io::stdout().lock();
        if self.live && self.drawn.get() > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.drawn.get())?;
        }
        let seen = self.seen.borrow();
        let number = |value: Option<f64>| value.map_or("--".to_owned(), |value| format!("{value}"));
        for (device, of) in seen.iter() {
            writeln!(
                out,
                "{device:<12} {:>4} /min  {:>5} Cel  {:>5} steps  {:>6} events",
                number(of.heart_rate),
                number(of.temperature),
                of.steps,
                of.events
            )?;
        }
        let delivered: u64 = self.board.store.ledger().destinations.iter().map(|(_, tally)| tally.delivered).sum();
        writeln!(out, "{:<12} {delivered} delivered, {} waiting", "archive", self.waiting())?;
        self.drawn.set(seen.len() + 1);
        out.flush()
    }

    /// A line that stays.
    fn say(&self, line: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.live && self.drawn.get() > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.drawn.get())?;
        }
        self.drawn.set(0);
        writeln!(out, "-- {line}")?;
        out.flush()
    }
}

/// The destination's folder, as if somebody pulled a network mount.
struct Cut<'a> {
    archive: &'a Path,
    away: PathBuf,
    is_cut: bool,
}

impl Cut<'_> {
    fn off(&mut self) -> anyhow::Result<()> {
        std::fs::rename(self.archive, &self.away).context("cutting the destination off")?;
        self.is_cut = true;
        Ok(())
    }

    fn on(&mut self) -> anyhow::Result<()> {
        self.is_cut = false;
        std::fs::rename(&self.away, self.archive).context("bringing the destination back")
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if self.is_cut {
            let _at_the_end = std::fs::rename(&self.away, self.archive);
        }
    }
}
