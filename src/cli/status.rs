//! `biogate status`: how the running gateway is: clock, what waits, and each device, adapter and broker in words.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use crate::clock::system;
use crate::config::Config;
use crate::local::client;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Prints the whole JSON document
    #[arg(long)]
    json: bool,
}

/// Asks the running gateway; fails where none runs.
#[allow(clippy::print_stdout, reason = "this command reports to a person")]
pub(super) async fn run(arguments: StatusArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let socket = Config::load(file)?.control_socket();
    let Some(status) = client::get::<Value>(&socket, "/status").await? else {
        bail!("no gateway runs here (nobody answers at {}); start it: systemctl start biogate", socket.display());
    };
    match arguments.json {
        true => println!("{status}"),
        false => print!("{}", table(&status, system::uptime_ms())),
    }
    Ok(ExitCode::SUCCESS)
}

/// The document as people read it. `now_ms` is this machine's uptime.
fn table(status: &Value, now_ms: u64) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut lines = vec![format!(
        "{} runs {} for {}; clock {}",
        text(&status["gateway"]),
        text(&status["version"]),
        span(status["uptime_s"].as_u64().unwrap_or(0)),
        text(&status["clock"]["state"]),
    )];
    for pair in status["ledger"]["destinations"].as_array().into_iter().flatten() {
        let (name, tally) = (text(&pair[0]), &pair[1]);
        lines.push(format!("destination {name}: {} delivered, {} waiting", tally["delivered"], tally["waiting"]));
    }
    let empty = Vec::new();
    let devices = status["devices"].as_array().unwrap_or(&empty);
    let width = devices.iter().map(|device| text(&device["name"]).chars().count()).max().unwrap_or(0);
    for device in devices {
        let heard = device["last_heard"]["ms"].as_u64();
        let heard =
            heard.map_or_else(String::new, |at| format!(", heard {} ago", span(now_ms.saturating_sub(at) / 1_000)));
        lines.push(format!("{:width$}  {}{heard}{}", text(&device["name"]), text(&device["state"]), counts(device)));
    }
    lines.join("\n") + "\n"
}

/// What is not zero, but for the frames that were heard.
fn counts(device: &Value) -> String {
    let all = device.as_object().into_iter().flatten().chain(device["named"].as_object().into_iter().flatten());
    let told = all.filter(|(name, count)| *name != "frames" && count.as_u64().is_some_and(|count| count > 0));
    let told: Vec<String> = told.map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

fn span(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_is_a_line_with_its_state_its_age_and_what_went_wrong() {
        let status = json!({
            "gateway": "hub-1", "version": "0.1.0", "uptime_s": 3_700, "clock": { "state": "known" },
            "ledger": { "destinations": [["archive", { "delivered": 7, "waiting": 2 }]] },
            "devices": [
                { "name": "adapter hci0", "state": "listening", "last_heard": null, "frames": 0, "named": { "scan_restarts": 1 } },
                { "name": "strap-anna", "state": "receiving", "last_heard": { "boot": "b", "ms": 58_000 }, "frames": 9, "failures": 0 },
            ],
        });
        let expected = "hub-1 runs 0.1.0 for 1h 1m 40s; clock known\n\
            destination archive: 7 delivered, 2 waiting\n\
            adapter hci0  listening (scan restarts 1)\n\
            strap-anna    receiving, heard 2s ago\n";
        assert_eq!(table(&status, 60_000), expected);
    }
}
