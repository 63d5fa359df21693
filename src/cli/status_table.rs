//! The status document as a technician reads it: one line for the hub, one for each part that can be well or not.

use std::time::Duration;

use serde_json::Value;

/// The document as lines.
pub(super) fn of(status: &Value) -> String {
    let mut lines = head(status);
    lines.push(String::new());
    lines.extend(aligned("DESTINATION STATE WAITING OLDEST DELIVERED REASON", destinations(status)));
    lines.push(String::new());
    lines.extend(aligned("SOURCE KIND HEARD FRAMES MEASURED STATE", devices(status)));
    lines.push(String::new());
    lines.push(ledger(&status["ledger"]["intake"]));
    lines.join("\n") + "\n"
}

fn head(status: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{} runs {} for {}",
        text(&status["gateway"]),
        text(&status["version"]),
        span(&status["uptime_s"]),
    )];
    let reasons = status["ready"]["reasons"].as_array().cloned().unwrap_or_default();
    lines.push(match (reasons.is_empty(), status["ready"]["offline"] == true) {
        (true, false) => "ready       data move".to_owned(),
        (true, true) => "ready       offline by setting: events wait in the store".to_owned(),
        (false, _) => format!("NOT READY   {}", reasons.iter().map(text).collect::<Vec<_>>().join("\n            ")),
    });
    let synchronised = match status["clock"]["synchronised"] == true {
        true => "synchronised",
        false => "not synchronised",
    };
    let clock = match text(&status["clock"]["state"]) {
        known if known == "known" => synchronised.to_owned(),
        waits => format!("{waits} ({synchronised})"),
    };
    lines.push(format!("clock       {clock}"));
    let store = &status["store"];
    let well = store["unhealthy"].as_str().map_or("well".to_owned(), |why| format!("NOT WELL: {why}"));
    lines.push(format!(
        "store       {well}; {} on disk, {} free{}{}",
        size(&store["disk_bytes"]),
        size(&store["free_bytes"]),
        if store["sealed"] == true { ", sealed" } else { "" },
        match count(&store["evicted"]) {
            0 => String::new(),
            evicted => format!(", {evicted} events evicted"),
        },
    ));
    lines.push(format!("quarantine  {} readings, {}", count(&store["aside_entries"]), size(&store["aside_bytes"])));
    lines.extend(reports(status));
    if let Some(address) = status["local"]["address"].as_str() {
        lines.push(format!("answers     http://{address}"));
    } else if let Some(trouble) = status["local"]["trouble"].as_str() {
        lines.push(format!("answers     NOT: {trouble}"));
    }
    lines
}

/// What waits beside the events, and why, where something does.
fn reports(status: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let healths = list(&status["destinations"]);
    let line = |stored: &Value| {
        let waiting: u64 = stored["reports_waiting"].as_object()?.values().map(count).sum();
        let health = healths.iter().find(|health| health["name"] == stored["name"]);
        let reason = health.and_then(|health| Some(format!(": {}", health["reports_reason"].as_str()?)));
        let line = format!("reports     {waiting} wait for {}{}", text(&stored["name"]), reason.unwrap_or_default());
        (waiting > 0).then_some(line)
    };
    let gaps = Some(count(&status["store"]["gaps"])).filter(|gaps| *gaps > 0);
    let gaps = gaps.map(|gaps| format!("gaps        {gaps} not reported yet"));
    list(&status["store"]["destinations"]).iter().filter_map(line).chain(gaps).collect()
}

fn destinations(status: &Value) -> Vec<Vec<String>> {
    let empty = Vec::new();
    let tallies = status["ledger"]["destinations"].as_array().unwrap_or(&empty);
    let row = |destination: &Value| {
        let tally = tallies.iter().find(|pair| pair[0] == destination["name"]).map_or(&Value::Null, |pair| &pair[1]);
        vec![
            text(&destination["name"]),
            text(&destination["state"]).replace('_', " "),
            count(&destination["waiting"]).to_string(),
            age(&destination["oldest_waiting_s"]),
            count(&tally["delivered"]).to_string(),
            destination["reason"].as_str().unwrap_or_default().to_owned(),
        ]
    };
    let member = |member: &Value| {
        let blank = String::new;
        let words = |key: &str| member[key].as_str().map(str::to_owned);
        let why: Vec<String> = words("failover").into_iter().chain(words("reason")).collect();
        let state = if member["active"] == true { "active" } else { "standby" };
        vec![format!("  {}", text(&member["name"])), state.to_owned(), blank(), blank(), blank(), why.join("; now: ")]
    };
    let mut rows = Vec::new();
    for destination in status["destinations"].as_array().unwrap_or(&empty) {
        rows.push(row(destination));
        rows.extend(destination["order"].as_array().unwrap_or(&empty).iter().map(member));
    }
    rows
}

fn devices(status: &Value) -> Vec<Vec<String>> {
    let row = |device: &Value| {
        let loud = if device["trouble"] == true { "! " } else { "" };
        vec![
            text(&device["name"]),
            text(&device["kind"]),
            age(&device["heard_ago_s"]),
            count(&device["frames"]).to_string(),
            measured(&device["last_day_s"]),
            format!("{loud}{}{}", text(&device["state"]), counts(device)),
        ]
    };
    status["devices"].as_array().map(|devices| devices.iter().map(row).collect()).unwrap_or_default()
}

/// The share of the last 24 hours, or of the part of them that is accounted for, that gave values.
fn measured(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_object() else { return "-".to_owned() };
    let all: u64 = seconds.values().filter_map(Value::as_u64).sum();
    format!("{} %", seconds.get("measured").map_or(0, count) * 100 / all.max(1))
}

/// What is not zero, but for the frames, which have a column of their own.
fn counts(device: &Value) -> String {
    let all = device.as_object().into_iter().flatten().chain(device["named"].as_object().into_iter().flatten());
    let told = all.filter(|(name, count)| {
        !["frames", "heard_ago_s"].contains(&name.as_str()) && count.as_u64().is_some_and(|count| count > 0)
    });
    let told: Vec<String> = told.map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

fn ledger(intake: &Value) -> String {
    let shown = ["accepted", "decoded", "without_event", "refused", "duplicate", "stored", "implausible"];
    let shown: Vec<String> = shown.iter().map(|name| format!("{name}={}", count(&intake[*name]))).collect();
    format!("ledger {}", shown.join(" "))
}

/// Columns as wide as their widest cell; the last one as it comes.
fn aligned(head: &str, rows: Vec<Vec<String>>) -> Vec<String> {
    let head: Vec<String> = head.split(' ').map(str::to_owned).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    [&head].into_iter().chain(&rows).map(line).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("?").to_owned()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn size(value: &Value) -> String {
    bytesize::ByteSize(count(value)).to_string()
}

fn span(value: &Value) -> String {
    humantime::format_duration(Duration::from_secs(count(value))).to_string()
}

/// How long ago, to the two largest units: nobody reads the seconds of a day.
fn age(value: &Value) -> String {
    match value.as_u64() {
        None => "-".to_owned(),
        Some(_) => span(value).split(' ').take(2).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_technician_sees_what_waits_what_is_silent_and_why() {
        let status = json!({
            "gateway": "hub-1", "version": "0.1.0", "uptime_s": 3_700,
            "ready": { "ready": false, "offline": false, "reasons": ["destination warehouse: refused"] },
            "clock": { "state": "waiting for the clock, at most 10 min", "synchronised": false },
            "store": { "unhealthy": null, "disk_bytes": 1_048_576, "free_bytes": 2_097_152, "aside_entries": 3,
                "aside_bytes": 1_024, "evicted": 0, "sealed": true, "gaps": 2, "destinations": [
                    { "name": "archive", "reports_waiting": {} },
                    { "name": "warehouse", "reports_waiting": { "status": 3, "gap": 1 } } ] },
            "local": { "address": "127.0.0.1:8787", "trouble": null },
            "ledger": {
                "intake": { "accepted": 9, "decoded": 8, "refused": 1, "stored": 8 },
                "destinations": [["archive", { "delivered": 7, "waiting": 1 }], ["warehouse", { "delivered": 0 }]],
            },
            "destinations": [
                { "name": "archive", "state": "idle", "waiting": 1, "oldest_waiting_s": 2, "reason": null },
                { "name": "warehouse", "state": "retrying", "waiting": 8, "oldest_waiting_s": 93_784, "reason": "refused",
                    "reports_reason": "no such table" },
            ],
            "devices": [
                { "name": "adapter hci0", "kind": "radio", "state": "listening", "trouble": false, "heard_ago_s": null,
                    "frames": 0, "named": { "scan_restarts": 1 } },
                { "name": "strap-anna", "kind": "bluetooth", "state": "not heard", "trouble": true, "heard_ago_s": 65,
                    "frames": 9, "failures": 2, "last_day_s": { "measured": 1_800, "not_worn": 600 } },
            ],
        });
        let expected = "\
hub-1 runs 0.1.0 for 1h 1m 40s
NOT READY   destination warehouse: refused
clock       waiting for the clock, at most 10 min (not synchronised)
store       well; 1.0 MiB on disk, 2.0 MiB free, sealed
quarantine  3 readings, 1.0 KiB
reports     4 wait for warehouse: no such table
gaps        2 not reported yet
answers     http://127.0.0.1:8787

DESTINATION  STATE     WAITING  OLDEST  DELIVERED  REASON
archive      idle      1        2s      7
warehouse    retrying  8        1day 2h  0          refused

SOURCE        KIND       HEARD  FRAMES  MEASURED  STATE
adapter hci0  radio      -      0       -         listening (scan restarts 1)
strap-anna    bluetooth  1m 5s  9       75 %      ! not heard (failures 2)

ledger accepted=9 decoded=8 without_event=0 refused=1 duplicate=0 stored=8 implausible=0
";
        assert_eq!(
            of(&status),
            expected
                .replace("OLDEST  DELIVERED", "OLDEST   DELIVERED")
                .replace("1        2s      7", "1        2s       7")
        );
    }
}
