//! `biogate status`: how the running gateway is: clock, what waits and why, and each device, radio and broker in words.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::Value;
use tokio::signal::ctrl_c;

use super::status_table;
use crate::config::Config;
use crate::local::client;

/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Prints the whole JSON document
    #[arg(long)]
    json: bool,
    /// Looks again every so many seconds (2 unless said) until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    watch: Option<u64>,
}

/// Asks the running gateway; fails where none runs.
pub(super) async fn run(arguments: StatusArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let socket = Config::load(file)?.control_socket();
    let mut output = std::io::stdout();
    let Some(seconds) = arguments.watch else {
        let Some(status) = client::get::<Value>(&socket, "/status").await? else {
            bail!("no gateway runs here (nobody answers at {}); start it: systemctl start biogate", socket.display());
        };
        print(&mut output, &status, arguments.json, "")?;
        return Ok(ExitCode::SUCCESS);
    };
    let before = if !arguments.json && output.is_terminal() { CLEAR } else { "" };
    loop {
        match client::get::<Value>(&socket, "/status").await {
            Ok(Some(status)) => print(&mut output, &status, arguments.json, before)?,
            // It may be starting again at this moment: who watches wants to see it come back.
            Ok(None) => writeln!(output, "{before}no gateway runs here: nobody answers at {}", socket.display())?,
            Err(why) => writeln!(output, "{before}{why:#}")?,
        }
        output.flush()?;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            _ = ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn print(output: &mut impl Write, status: &Value, json: bool, before: &str) -> std::io::Result<()> {
    match json {
        true => writeln!(output, "{status}"),
        false => write!(output, "{before}{}", status_table::of(status)),
    }
}
