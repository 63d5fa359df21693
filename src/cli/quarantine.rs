//! `biogate buffer quarantine`: what was set aside is listed, shown, brought back and removed. A running gateway is
//! asked; otherwise the command opens the store itself.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::assign::{Refused, place};
use super::buffer::{flat, open};
use super::profile_folders::ProfileFolders;
use crate::clock::system;
use crate::config::Config;
use crate::gateway::{self, Plan};
use crate::local::client;
use crate::local::persons::When;
use crate::local::quarantine::Asked;
use crate::quarantine::{self, Filter, Outcome};
use crate::store::AsideKind;

/// Arguments of `buffer quarantine`; without a subcommand it lists.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct QuarantineArgs {
    #[command(subcommand)]
    command: Option<QuarantineCommand>,
    #[command(flatten)]
    list: ListArgs,
}

/// Subcommands of `buffer quarantine`.
#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// One line each, oldest first
    List(ListArgs),
    /// One entry whole
    Show(ShowArgs),
    /// Reads entries again, by the profiles and limits of now, and sends what is understood
    Replay(ReplayArgs),
    /// Removes entries for good
    Drop(DropArgs),
}

#[derive(Debug, Args)]
struct FilterArgs {
    /// Only those of this device
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Only those that were set aside for this
    #[arg(long)]
    kind: Option<KindName>,
    /// Only those read by this profile: its id, or id and version as contec-cms50/1
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// Only those heard since then: "2026-11-21 18:00", "14:00", "2 days ago", RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
    /// Prints JSON, one line each
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The id that `list` shows
    #[arg(value_name = "ID")]
    id: String,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// Only these; without any every one that the options mean
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only says what would come of it
    #[arg(long)]
    dry_run: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// While no gateway runs; a running one reads them by the profiles that it has
    #[command(flatten)]
    folders: ProfileFolders,
}

#[derive(Debug, Args)]
struct DropArgs {
    /// Only these
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Every entry
    #[arg(long)]
    all: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindName {
    /// A reading that its profile refused
    Refused,
    /// A value outside its plausible range
    Implausible,
    /// An event that a destination refused for good
    Rejected,
    /// An event of nobody
    Parked,
}

impl FilterArgs {
    fn filter(&self, ids: &[String], config: &Config) -> Result<Filter, Refused> {
        let kind = self.kind.map(|kind| match kind {
            KindName::Refused => AsideKind::Refused,
            KindName::Implausible => AsideKind::Implausible,
            KindName::Rejected => AsideKind::Rejected,
            KindName::Parked => AsideKind::Parked,
        });
        let since_ms = self.since.as_deref().map(|since| moment(since, config)).transpose()?;
        let filter =
            Filter { ids: ids.to_vec(), device: self.device.clone(), kind, profile: self.profile.clone(), since_ms };
        match filter.objection() {
            Some(wrong) => Err(Refused(wrong)),
            None => Ok(filter),
        }
    }
}

/// Runs the subcommand.
#[allow(clippy::print_stdout, reason = "this command reports to a person")]
pub(super) async fn run(arguments: QuarantineArgs, config: Config) -> anyhow::Result<ExitCode> {
    let said = match arguments.command.unwrap_or(QuarantineCommand::List(arguments.list)) {
        QuarantineCommand::List(list) => self::list(&config, &list).await?,
        QuarantineCommand::Show(show) => self::show(&config, &show).await?,
        QuarantineCommand::Replay(replay) => self::replay(config, &replay).await?,
        QuarantineCommand::Drop(drop) => self::drop_entries(&config, &drop).await?,
    };
    print!("{said}");
    Ok(ExitCode::SUCCESS)
}

async fn entries(config: &Config, filter: Filter, limit: usize) -> anyhow::Result<Vec<Value>> {
    let asked = Asked { filter, limit, dry_run: false };
    if let Some(entries) = client::post(&config.control_socket(), "/quarantine/list", &asked).await? {
        return Ok(entries);
    }
    let store = open(config)?;
    let entries = quarantine::list(&store, &gateway::stored_timeline(&store), &asked.filter, limit).await?;
    store.close().await?;
    Ok(entries)
}

async fn list(config: &Config, list: &ListArgs) -> anyhow::Result<String> {
    let entries = entries(config, list.filter.filter(&[], config)?, list.limit).await?;
    let zone = zone(config);
    Ok(entries.iter().fold(String::new(), |mut said, entry| {
        let line = match list.json {
            true => entry.to_string(),
            false => format!(
                "{}  {:<11}  {}  {}  {}  {}",
                text(&entry["id"]),
                text(&entry["kind"]),
                time(&entry["time"], &zone),
                text(&entry["device"]),
                text(&entry["profile"]),
                text(&entry["reason"])
            ),
        };
        said.push_str(&line);
        said.push('\n');
        said
    }))
}

async fn show(config: &Config, show: &ShowArgs) -> anyhow::Result<String> {
    let filter = Filter { ids: vec![show.id.clone()], ..Filter::default() };
    if let Some(wrong) = filter.objection() {
        return Err(Refused(wrong).into());
    }
    let entries = entries(config, filter, 100).await?;
    anyhow::ensure!(!entries.is_empty(), "no entry has the id {} (see `biogate buffer quarantine list`)", show.id);
    let lines = entries.iter().flat_map(|entry| if show.json { vec![entry.to_string()] } else { flat("", entry) });
    Ok(lines.fold(String::new(), |said, line| said + &line + "\n"))
}

async fn replay(config: Config, replay: &ReplayArgs) -> anyhow::Result<String> {
    let filter = replay.filter.filter(&replay.ids, &config)?;
    let asked = Asked { filter, limit: 0, dry_run: replay.dry_run };
    let zone = zone(&config);
    let outcome: Outcome = match client::post(&config.control_socket(), "/quarantine/replay", &asked).await? {
        Some(outcome) => outcome,
        None => {
            let store = open(&config)?;
            let plan = Plan { config, profiles: replay.folders.load()?.set };
            let quarantine = gateway::quarantine(&store, &plan)?;
            let outcome = quarantine.replay(&asked.filter, replay.dry_run).await;
            drop(quarantine);
            store.close().await?;
            outcome?
        }
    };
    if replay.json {
        return Ok(serde_json::to_string(&outcome).context("writing the outcome")? + "\n");
    }
    Ok(told(&outcome, &zone))
}

/// One line for each entry, and the sum.
fn told(outcome: &Outcome, zone: &TimeZone) -> String {
    let mut said = String::new();
    for entry in &outcome.entries {
        let events = entry.events.iter().map(|event| {
            let component = text(&event["component"]);
            let name = text(&event["event_type"]);
            let name = if component.is_empty() { name } else { format!("{name}/{component}") };
            format!("{name} {} {}", event["value"].as_f64().unwrap_or(f64::NAN), text(&event["unit"]))
        });
        let what = match (&entry.still, &entry.said) {
            (Some(reason), _) => format!("stays: {reason}"),
            (None, Some(said)) => said.clone(),
            (None, None) => events.collect::<Vec<_>>().join(", "),
        };
        let at = entry.time.map_or(Value::Null, Value::from);
        // Writing to a String cannot fail.
        let _infallible = writeln!(said, "{}  {}  {}  {what}", entry.id, time(&at, zone), entry.device);
    }
    let untold = (outcome.replayed + outcome.still).saturating_sub(outcome.entries.len() as u64);
    if untold > 0 {
        let _infallible = writeln!(said, "... and {untold} more");
    }
    for id in &outcome.unknown {
        let _infallible = writeln!(said, "{id}  no entry has this id");
    }
    let (came, stay) = if outcome.dry_run { ("would come", "would stay") } else { ("came", "stay") };
    let Outcome { replayed, events, still, .. } = outcome;
    let _infallible = writeln!(
        said,
        "{} {came} back as {}, {still} {stay}",
        count(*replayed, "entr", "y", "ies"),
        count(*events, "event", "", "s")
    );
    said
}

fn count(number: u64, word: &str, one: &str, more: &str) -> String {
    format!("{number} {word}{}", if number == 1 { one } else { more })
}

async fn drop_entries(config: &Config, drop: &DropArgs) -> anyhow::Result<String> {
    let filter = drop.filter.filter(&drop.ids, config)?;
    if filter.is_any() && !drop.all {
        let what = "say which entries: their ids, --device, --kind, --profile or --since; --all removes every one";
        return Err(Refused(what.to_owned()).into());
    }
    let asked = Asked { filter, ..Asked::default() };
    let dropped = match client::post::<Value>(&config.control_socket(), "/quarantine/drop", &asked).await? {
        Some(answer) => answer["dropped"].as_u64().unwrap_or(0),
        None => {
            let store = open(config)?;
            let timeline = gateway::stored_timeline(&store);
            let dropped = quarantine::drop_entries(&store, &timeline, &asked.filter).await;
            store.close().await?;
            dropped?
        }
    };
    Ok(match drop.json {
        true => format!("{{\"dropped\":{dropped}}}\n"),
        false => format!("{} removed for good\n", count(dropped, "entr", "y", "ies")),
    })
}

fn zone(config: &Config) -> TimeZone {
    TimeZone::get(&config.gateway.timezone).unwrap_or(TimeZone::UTC)
}

/// Unix milliseconds of what a person wrote.
fn moment(said: &str, config: &Config) -> Result<i64, Refused> {
    let now_ms = system::wall_ms();
    match place(config).when(said).map_err(|why| Refused(format!("--since: {why}")))? {
        When::Now => Ok(now_ms),
        When::Ago(ms) => Ok(now_ms.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX))),
        When::At(unix_ms) => Ok(unix_ms),
    }
}

/// A moment at the hub's place, with the place's offset.
fn time(ms: &Value, zone: &TimeZone) -> String {
    let Some(instant) = ms.as_i64().and_then(|ms| Timestamp::from_millisecond(ms).ok()) else {
        return "at an unknown time".to_owned();
    };
    let minutes = zone.to_offset(instant).seconds() / 60;
    let (sign, minutes) = (if minutes < 0 { '-' } else { '+' }, minutes.abs());
    let local = zone.to_datetime(instant).strftime("%Y-%m-%dT%H:%M:%S");
    format!("{local}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
