//! Log lines: for people on a terminal, JSON where a service manager collects them. `BIOGATE_LOG` sets the level.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One readable line an event.
    Human,
    /// One JSON object an event.
    Json,
}

impl Format {
    /// For `run`: readable on a terminal, JSON otherwise.
    pub fn for_service() -> Self {
        if stderr().is_terminal() { Format::Human } else { Format::Json }
    }
}

/// Starts logging to standard error, at this level where the environment names none.
pub fn start(format: Format, usual: &str) {
    let quiet = || EnvFilter::new(format!("{usual},sled=error,rumqttc=error"));
    let level = EnvFilter::try_from_env("BIOGATE_LOG").unwrap_or_else(|_| quiet());
    let builder = tracing_subscriber::fmt().with_env_filter(level).with_writer(stderr);
    match format {
        Format::Human => builder.with_target(false).with_ansi(stderr().is_terminal()).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
}
