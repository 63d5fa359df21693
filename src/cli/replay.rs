//! `biogate replay`: recorded frames through the whole path to the configured destinations.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tokio::signal::ctrl_c;
use tokio::sync::watch;

use super::profile_folders::ProfileFolders;
use super::run::plan;
use crate::gateway::Gateway;
use crate::source::replay::Speed;

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// A file that `record` wrote
    file: PathBuf,
    /// As fast as the path takes it
    #[arg(long)]
    full_speed: bool,
    /// So many times faster than it was recorded
    #[arg(long, value_name = "N", default_value_t = 1.0, conflicts_with = "full_speed")]
    factor: f64,
    #[command(flatten)]
    folders: ProfileFolders,
}

/// Replays, waits until every destination has everything, and prints the ledger.
#[allow(clippy::print_stdout, reason = "this command reports to a person")]
pub(super) async fn run(arguments: ReplayArgs, file: &Path) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(arguments.factor > 0.0, "--factor: found {}; write a number above 0", arguments.factor);
    let speed = if arguments.full_speed { Speed::Full } else { Speed::Factor(arguments.factor) };
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        if ctrl_c().await.is_ok() {
            let _replay_is_over = stop.send(true);
        }
        std::future::pending::<()>().await;
    });
    let (replayed, ledger) = Gateway::replay(plan(file, &arguments.folders)?, arguments.file, speed, stopping).await?;
    println!("replayed frames={} without_entry={}", replayed.frames, replayed.without_entry);
    println!("{}", super::ledger_line::of(&ledger));
    Ok(ExitCode::SUCCESS)
}
