//! `biogate tap`: the running gateway's events as they pass. Whose they are and what was measured stays masked unless
//! it is asked for.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use tokio::signal::ctrl_c;

use crate::config::Config;
use crate::local::client::Lines;

/// Arguments of `tap`.
#[derive(Debug, Args)]
pub(super) struct TapArgs {
    /// Shows the values, and the metadata in the JSON lines
    #[arg(long)]
    values: bool,
    /// Shows the ids of persons
    #[arg(long)]
    persons: bool,
    /// Only this device
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Ends after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Prints each event as one JSON line
    #[arg(long)]
    json: bool,
}

/// Prints events until Ctrl-C, the count, or the gateway stops.
pub(super) async fn run(arguments: TapArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let socket = Config::load(file)?.control_socket();
    let flag = |on: bool| u8::from(on);
    let path = format!("/tap?values={}&persons={}", flag(arguments.values), flag(arguments.persons));
    let Some(mut lines) = Lines::open(&socket, &path).await? else {
        bail!("no gateway listens at {}; start `biogate run` first", socket.display());
    };
    let mut output = std::io::stdout();
    let mut shown = 0;
    while arguments.count.is_none_or(|count| shown < count) {
        let line = tokio::select! {
            line = lines.next() => line?,
            _ = ctrl_c() => None,
        };
        let Some(line) = line else { break };
        let event: Value = serde_json::from_slice(&line)?;
        if arguments.device.as_deref().is_some_and(|device| event["device_id"] != device) {
            continue;
        }
        match arguments.json {
            true => writeln!(output, "{event}")?,
            false => writeln!(output, "{}", short(&event))?,
        }
        output.flush()?;
        shown += u64::from(event["lost"].is_null());
    }
    Ok(ExitCode::SUCCESS)
}

/// An event in one line: when, which device, what, for whom.
fn short(event: &Value) -> String {
    if let Some(lost) = event["lost"].as_u64() {
        return format!("({lost} events passed too fast to be shown)");
    }
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    if event["parked"] == true {
        return format!("{}  set aside: nobody is assigned", text("device_id"));
    }
    let at = event["timestamp"].as_i64().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let at = at.map_or_else(|| "?".to_owned(), |at| format!("{at:.3}"));
    let what = match text("component") {
        none if none.is_empty() => text("event_type"),
        component => format!("{}/{component}", text("event_type")),
    };
    let value = match &event["value"] {
        Value::String(masked) => masked.clone(),
        value => format!("{value} {}", text("unit")),
    };
    let person = match text("user_id") {
        masked if masked == "masked" => String::new(),
        person => format!("  {person}"),
    };
    format!("{at}  {}  {what}  {value}  {}{person}", text("device_id"), text("clock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_short_line() {
        let mut event = json!({ "timestamp": 1_793_491_200_500_i64, "device_id": "strap", "event_type": "blood_pressure",
            "component": "systolic", "value": "masked", "unit": "mm[Hg]", "clock": "synced", "user_id": "masked" });
        assert_eq!(short(&event), "2026-11-01T00:00:00.500Z  strap  blood_pressure/systolic  masked  synced");
        event["value"] = json!(121.5);
        event["user_id"] = json!("6f1c7a52");
        assert!(short(&event).ends_with("systolic  121.5 mm[Hg]  synced  6f1c7a52"), "{}", short(&event));
        assert_eq!(short(&json!({ "lost": 7 })), "(7 events passed too fast to be shown)");
    }
}
