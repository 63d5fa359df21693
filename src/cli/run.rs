//! `biogate run`: the service.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::profile_folders::ProfileFolders;
use crate::config::Config;
use crate::gateway::{Gateway, Plan, Reload};

/// Runs until SIGTERM or SIGINT; SIGHUP reads profiles and device entries again.
pub(super) async fn run(file: &Path, folders: &ProfileFolders) -> anyhow::Result<ExitCode> {
    let plan = plan(file, folders)?;
    let (stop, stopping) = watch::channel(false);
    let (reload, reloads) = mpsc::channel(1);
    let gateway = Gateway::start(plan).await?;
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    let signals = tokio::spawn(follow_signals(file.to_path_buf(), folders.clone(), stop, reload));
    let watchdog = tokio::spawn(feed_watchdog());
    let ledger = gateway.run(stopping, reloads).await;
    watchdog.abort();
    signals.abort();
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    let ledger = ledger?;
    info!("stopped; {}", super::ledger_line::of(&ledger));
    Ok(ExitCode::SUCCESS)
}

/// What the files say now.
pub(super) fn plan(file: &Path, folders: &ProfileFolders) -> anyhow::Result<Plan> {
    let config = Config::load(file)?;
    let profiles = folders.load()?.set;
    Ok(Plan { config, profiles })
}

async fn follow_signals(
    file: std::path::PathBuf,
    folders: ProfileFolders,
    stop: watch::Sender<bool>,
    reload: mpsc::Sender<Reload>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => match plan(&file, &folders) {
                Ok(plan) => {
                    let _gateway_is_stopping = reload.send(Reload(plan)).await;
                }
                Err(why) => warn!("the configuration is refused and the old one runs on: {why:#}"),
            },
        }
    }
    let _gateway_is_gone = stop.send(true);
    Ok(())
}

/// Tells systemd that the runtime still turns, twice in each watchdog interval.
async fn feed_watchdog() {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    loop {
        tell_systemd(&[sd_notify::NotifyState::Watchdog]);
        tokio::time::sleep(interval / 2).await;
    }
}

fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(states) {
        warn!("systemd was not told: {why}");
    }
}
