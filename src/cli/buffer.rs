//! `biogate buffer`: what waits, what is set aside, and whether it is sound. A running gateway is asked; otherwise the
//! command opens the store itself.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::quarantine::QuarantineArgs;
use crate::clock::system;
use crate::config::Config;
use crate::gateway;
use crate::local::{board, client};
use crate::reading::RunId;
use crate::store::Store;

/// Subcommands of `buffer`.
#[derive(Debug, Subcommand)]
pub(super) enum BufferCommand {
    /// How much waits for whom, how much room is left, and what the seconds of each device's last day were
    Stat(OutputArgs),
    /// Reads every record of the queue and of the reports and checks it; exit code 1 where one is damaged
    Verify(OutputArgs),
    /// Prints the oldest kept events, one JSON line each, as they would be sent now
    Export(ListArgs),
    /// What was set aside (refused, implausible, rejected, parked): lists it, brings it back, removes it
    Quarantine(Box<QuarantineArgs>),
}

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub(super) async fn run(command: BufferCommand, file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(file)?;
    match command {
        BufferCommand::Stat(output) => stat(&config, output.json).await,
        BufferCommand::Verify(output) => verify(&config, output.json).await,
        BufferCommand::Export(list) => export(&config, list.limit).await,
        BufferCommand::Quarantine(arguments) => super::quarantine::run(*arguments, config).await,
    }
}

/// Opens the store as a command does while no gateway runs.
pub(super) fn open(config: &Config) -> anyhow::Result<Store> {
    let names = config.cursors();
    let boot = system::boot_id().context("reading this boot's id")?;
    let dir = &config.store.dir;
    anyhow::ensure!(dir.exists(), "there is no store in {}; start `biogate run` first", dir.display());
    Store::open(&config.store, RunId::random(), boot, &names)
        .with_context(|| format!("opening the store in {}", dir.display()))
}

#[allow(clippy::print_stdout, reason = "this command reports to a person")]
async fn stat(config: &Config, as_json: bool) -> anyhow::Result<ExitCode> {
    let status: Value = match client::get(&config.control_socket(), "/status").await? {
        Some(status) => status,
        None => {
            let store = open(config)?;
            let coverage = board::last_day(&gateway::stored_last_day(&store));
            let status = json!({ "ledger": store.ledger(), "store": store.stat(), "coverage": coverage });
            store.close().await?;
            status
        }
    };
    let sections = ["store", "ledger", "coverage"];
    let found = sections.map(|section| (section.to_owned(), status[section].clone()));
    let found = Value::Object(found.into_iter().collect());
    if as_json {
        println!("{found}");
    } else {
        for section in sections {
            for line in flat(section, &found[section]) {
                println!("{line}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "this command reports to a person")]
async fn verify(config: &Config, as_json: bool) -> anyhow::Result<ExitCode> {
    let report: Value = match client::get(&config.control_socket(), "/verify").await? {
        Some(report) => report,
        None => {
            let store = open(config)?;
            let report = serde_json::to_value(store.verify().await?)?;
            store.close().await?;
            report
        }
    };
    if as_json {
        println!("{report}");
    } else {
        flat("verify", &report).iter().for_each(|line| println!("{line}"));
    }
    let is_sound = report["faults"].as_array().is_some_and(Vec::is_empty);
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[allow(clippy::print_stdout, reason = "this command reports to a person")]
async fn export(config: &Config, limit: usize) -> anyhow::Result<ExitCode> {
    let rows: Vec<Value> = match client::get(&config.control_socket(), &format!("/export?limit={limit}")).await? {
        Some(rows) => rows,
        None => {
            let store = open(config)?;
            let timeline = gateway::stored_timeline(&store);
            let rows = board::export(&store, &timeline, limit).await?;
            store.close().await?;
            rows
        }
    };
    rows.iter().for_each(|row| println!("{row}"));
    Ok(ExitCode::SUCCESS)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A JSON document as lines of `path value`, for people and grep.
pub(super) fn flat(path: &str, value: &Value) -> Vec<String> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(entries) => entries.iter().flat_map(|(key, value)| flat(&below(key), value)).collect(),
        Value::Array(entries) => {
            entries.iter().enumerate().flat_map(|(index, value)| flat(&below(&index.to_string()), value)).collect()
        }
        leaf => vec![format!("{path} {}", text(leaf))],
    }
}
