//! `biogate simulate-fleet`: loads a warehouse or brokers as many hubs would, and says whether they keep up.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::fleet::{Fleet, PREFIX, Progress, Settings};
use crate::forward::{Kind, clickhouse};
use report::{FarEnd, Report};

mod report;

/// Files that the program has open beside its connections.
const OTHER_FILES: u64 = 64;

/// Arguments of `simulate-fleet`.
#[derive(Debug, Args)]
pub(super) struct SimulateFleetArgs {
    /// How many hubs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hubs: u32,
    /// Events a second of each hub
    #[arg(long, value_name = "F", default_value_t = 3.0, value_parser = rate)]
    hz: f64,
    /// How long they measure
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// clickhouse URL, or kafka HOST:PORT..; otherwise a destination of the configuration
    #[arg(long, value_names = ["KIND", "ADDRESS"], num_args = 2..)]
    to: Vec<String>,
    /// Which destination of the configuration; otherwise its first ClickHouse or Kafka
    #[arg(long, value_name = "NAME", conflicts_with = "to")]
    destination: Option<String>,
    /// Database of the tables; `biogate schema apply` makes them
    #[arg(long)]
    database: Option<String>,
    /// User with the right to insert and to read
    #[arg(long)]
    user: Option<String>,
    /// File that holds the user's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Certificates to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Topic of the events; with --to kafka otherwise biogate-fleet
    #[arg(long)]
    topic: Option<String>,
    /// Write into a table or topic that holds events of real hubs
    #[arg(long)]
    beside_real_events: bool,
    /// How often each hub commits, and so sends
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = humantime::parse_duration)]
    commit_interval: Duration,
    /// Connections that the hubs share; otherwise one each, but at most 256 to ClickHouse and 8 to Kafka
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,
    /// How old the oldest unacknowledged event may get beyond a commit interval
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    most_lag: Duration,
    /// How often to report
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Report as JSON, an object a line; the last one is the result
    #[arg(long)]
    json: bool,
}

/// Wrong usage: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(String);

/// Runs it; exit code 1 where the far end does not keep up.
pub(super) async fn run(arguments: SimulateFleetArgs, file: &Path) -> anyhow::Result<ExitCode> {
    for (name, time) in [
        ("--duration", arguments.duration),
        ("--commit-interval", arguments.commit_interval),
        ("--every", arguments.every),
    ] {
        if time < Duration::from_millis(100) {
            return Err(Usage(format!("{name} is shorter than 100ms")).into());
        }
    }
    let kind = arguments.kind(file)?;
    let far = FarEnd::of(kind.clone());
    if !arguments.beside_real_events && far.has_real_events().await? {
        let what = far.name();
        let wanted = format!(
            "{what} holds events of hubs whose names do not begin with {PREFIX}; name another one, or write \
             --beside-real-events and delete the fleet's afterwards"
        );
        return Err(Usage(wanted).into());
    }
    let connections = arguments.connections(&kind)?;
    let begin = far.begin().await?;
    let fleet = Fleet::new(Settings {
        kind,
        hubs: arguments.hubs,
        hz: arguments.hz,
        duration: arguments.duration,
        commit: arguments.commit_interval,
        connections,
        most_lag: arguments.most_lag,
        every: arguments.every,
    })
    .map_err(Usage)?;
    let mut most_parts = None;
    let json = arguments.json;
    let outcome = fleet
        .run(async |progress: &Progress| {
            let parts = far.parts().await;
            most_parts = most_parts.max(parts.map(|parts| parts.most_of_a_partition));
            // Who reads the report no longer does not end the run: its exit code is wanted.
            report::progress(progress, parts, json).ok();
        })
        .await;
    let report = Report::new(outcome, connections, most_parts, &far, begin).await;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &report).context("writing the report")?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(hz) if (0.001..=10_000.0).contains(&hz) => Ok(hz),
        Ok(_) | Err(_) => Err("write a number from 0.001 to 10000".to_owned()),
    }
}

impl SimulateFleetArgs {
    /// Where the events go.
    fn kind(&self, file: &Path) -> anyhow::Result<Kind> {
        let mut kind = match self.to.split_first() {
            Some((kind, addresses)) => of_arguments(kind, addresses)?,
            None => self.of_configuration(Config::load(file)?)?,
        };
        match &mut kind {
            Kind::ClickHouse(settings) => self.apply(settings)?,
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) => self.apply_to_kafka(settings)?,
            Kind::File(_) => {}
        }
        Ok(kind)
    }

    fn of_configuration(&self, config: Config) -> Result<Kind, Usage> {
        let is_wanted = |to: &crate::forward::Settings| match &self.destination {
            Some(name) => to.name == *name,
            None => !matches!(to.kind, Kind::File(_)),
        };
        match (config.destinations.into_iter().find(is_wanted).map(|to| to.kind), &self.destination) {
            (Some(Kind::File(_)), _) => Err(Usage("a file needs no fleet; name ClickHouse or Kafka".to_owned())),
            (Some(kind), _) => Ok(kind),
            (None, Some(name)) => Err(Usage(format!("the configuration has no destination {name}"))),
            (None, None) => Err(Usage(
                "the configuration has no destination of kind \"clickhouse\" or \"kafka\"; add one or write --to"
                    .to_owned(),
            )),
        }
    }

    fn apply(&self, settings: &mut clickhouse::Settings) -> Result<(), Usage> {
        settings.check_url().map_err(Usage)?;
        if self.topic.is_some() {
            return Err(Usage("--topic is for Kafka".to_owned()));
        }
        if let Some(database) = &self.database {
            settings.database.clone_from(database);
        }
        // A user's password is not another user's.
        if let Some(user) = &self.user {
            settings.user = Some(user.clone());
            settings.password_file = None;
        }
        if self.password_file.is_some() {
            settings.password_file.clone_from(&self.password_file);
        }
        if self.ca_file.is_some() {
            settings.ca_file.clone_from(&self.ca_file);
        }
        Ok(())
    }

    #[cfg(feature = "kafka")]
    fn apply_to_kafka(&self, settings: &mut crate::forward::kafka::Settings) -> Result<(), Usage> {
        if self.database.is_some() || self.user.is_some() || self.password_file.is_some() || self.ca_file.is_some() {
            let wanted = "--database, --user, --password-file and --ca-file are for ClickHouse; brokers that want a user or \
                          TLS are named in the configuration";
            return Err(Usage(wanted.to_owned()));
        }
        if settings.exactly_once {
            let wanted = "exactly_once keeps the cursor of one hub's store, and virtual hubs have no store; write --to kafka \
                          HOST:PORT, or take exactly_once out";
            return Err(Usage(wanted.to_owned()));
        }
        if let Some(topic) = &self.topic {
            settings.topic.clone_from(topic);
        }
        Ok(())
    }

    /// As many as are wanted and as the process may have open.
    fn connections(&self, kind: &Kind) -> Result<usize, Usage> {
        let usual = match kind {
            #[cfg(feature = "kafka")]
            Kind::Kafka(_) => 8,
            Kind::ClickHouse(_) | Kind::File(_) => 256,
        };
        let wanted = self.connections.unwrap_or(usual).min(self.hubs);
        let files = u64::from(wanted) + OTHER_FILES;
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current.is_some_and(|current| current < files) {
            setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).map_err(|why| {
                Usage(format!("{wanted} connections need {files} open files: {why}; raise `ulimit -n`, or write fewer"))
            })?;
        }
        Ok(wanted as usize)
    }
}

fn of_arguments(kind: &str, addresses: &[String]) -> Result<Kind, Usage> {
    match (kind, addresses) {
        ("clickhouse", [url]) => Ok(Kind::ClickHouse(clickhouse::Settings::new(url, "biometrics"))),
        ("clickhouse", _) => Err(Usage("--to clickhouse wants one URL, as http://host:8123".to_owned())),
        #[cfg(feature = "kafka")]
        ("kafka", brokers) => Ok(Kind::Kafka(crate::forward::kafka::Settings::new(brokers.to_vec(), "biogate-fleet"))),
        (other, _) => Err(Usage(format!("--to {other}: write clickhouse URL or kafka HOST:PORT.."))),
    }
}
