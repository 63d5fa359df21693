//! `serve` and `check`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{runtime, say};
use crate::api::{Api, listener};
use crate::config::Config;
use crate::warehouse::Warehouse;

fn ready(file: &Path) -> anyhow::Result<(Config, Warehouse, Arc<Api>)> {
    let config = Config::load(file)?;
    let inside = |section: &str| format!("{}: {section}", file.display());
    let warehouse = Warehouse::new(&config.warehouse).with_context(|| inside("warehouse"))?;
    let api =
        Api::new(config.api.clone(), warehouse.clone()).map_err(|why| anyhow!(why)).with_context(|| inside("api"))?;
    Ok((config, warehouse, api))
}

/// Says what is wrong, or that nothing is.
pub(super) fn check(file: &Path) -> anyhow::Result<ExitCode> {
    let (config, warehouse, _) = ready(file)?;
    runtime()?.block_on(async {
        let columns = "SELECT count() AS columns FROM system.columns WHERE database = currentDatabase() AND table = 'events'";
        let found: Vec<serde_json::Value> = warehouse.rows(columns, &[]).await?;
        match found.first().and_then(|row| row["columns"].as_u64()) {
            Some(1..) => Ok(()),
            _ => Err(anyhow!(
                "{} has no view events in the database {}: apply the schema (`biogate schema apply`) or grant the user SELECT on it",
                config.warehouse.url, config.warehouse.database
            )),
        }
    })?;
    say(&format!("{}: right; the warehouse at {} answers", file.display(), config.warehouse.url));
    Ok(ExitCode::SUCCESS)
}

/// Serves until it is told to stop.
pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let (config, _, api) = ready(file)?;
    runtime()?.block_on(async {
        let listener = TcpListener::bind(config.api.listen).await.with_context(|| {
            format!("cannot listen at {}; end the program that has the port, or write another one", config.api.listen)
        })?;
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        // Whoever started it by port 0 reads here which one it is.
        say(&format!("listening http://{}", listener.local_addr()?));
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        listener::serve(api, listener, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}
