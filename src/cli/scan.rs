//! `biogate scan`: which sensors are near, what they say, and the lines that would list them.
// Printing is what this command is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::signal::ctrl_c;
use tokio::time::Instant;

use super::near::Claims;
use super::profile_folders::ProfileFolders;
use super::scan_table::{lines_to_paste, table};
use super::surroundings::{self, Ears, Peripheral};
use crate::config::DEFAULT_SOCKET;

/// How often the table is drawn anew.
const TURN: Duration = Duration::from_secs(1);

/// Rows that are drawn again and again; more would scroll.
const LIVE_ROWS: usize = 20;

/// Arguments of `scan`.
#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    /// How long to listen
    #[arg(long = "for", value_name = "TIME", default_value = "10 s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
    /// Shows also what no profile claims
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    folders: ProfileFolders,
}

/// Listens, then prints what is near. Fails where Bluetooth could not be heard.
pub(super) async fn run(arguments: ScanArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let config = surroundings::config_if_any(file)?;
    let socket = config.as_ref().map_or_else(|| DEFAULT_SOCKET.into(), |config| config.control_socket());
    let (devices, adapters) = config.map(|config| (config.devices, config.ble.adapters)).unwrap_or_default();
    let claims = Claims::new(arguments.folders.load()?.set)?;
    let ears = Ears::open(&socket, adapters).await?;
    let end = Instant::now() + arguments.time;
    let live = std::io::stdout().is_terminal() && !arguments.json;
    let mut drawn = 0;
    let heard = loop {
        let rows = surroundings::peripherals(ears.near().await?, &claims, &devices);
        let over = Instant::now() >= end || ears.are_deaf();
        if live {
            let most = if over { usize::MAX } else { LIVE_ROWS };
            drawn = redraw(drawn, &table(&rows, arguments.all, most))?;
        }
        if over {
            break rows;
        }
        tokio::select! {
            () = tokio::time::sleep(TURN.min(end.saturating_duration_since(Instant::now()))) => {}
            _ = ctrl_c() => break rows,
        }
    };
    let problem = ears.close().await;
    let ports = surroundings::serial_ports(&devices)?;
    if arguments.json {
        println!("{}", json!({ "bluetooth": shown(heard, arguments.all), "serial": ports, "problem": problem }));
    } else {
        if !live && problem.is_none() {
            print!("{}", table(&heard, arguments.all, usize::MAX));
        }
        print!("{}", lines_to_paste(&heard, &ports));
    }
    Ok(match problem {
        None => ExitCode::SUCCESS,
        Some(why) => {
            eprintln!("biogate scan: {why}");
            ExitCode::FAILURE
        }
    })
}

fn shown(rows: Vec<Peripheral>, all: bool) -> Vec<Peripheral> {
    rows.into_iter().filter(|row| all || row.is_known()).collect()
}

/// Draws over what was drawn before; returns the number of lines.
fn redraw(before: usize, text: &str) -> std::io::Result<usize> {
    let mut out = std::io::stdout().lock();
    if before > 0 {
        write!(out, "\x1b[{before}A\x1b[J")?;
    }
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(text.lines().count())
}
