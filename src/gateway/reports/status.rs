//! The heartbeat's row, and what counts as a change of health.

use std::sync::Arc;

use serde::Serialize;

use super::Facts;
use super::certificates;
use crate::clock::system;
use crate::forward::Gate;
use crate::local::board::Board;
use crate::reading::BootId;
use crate::report::{Kind, Report};

/// What a change of is told at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Health {
    store: bool,
    clock: bool,
    destinations: Vec<bool>,
    /// Each source and whether it receives.
    sources: Vec<(Arc<str>, bool)>,
}

impl Health {
    pub(super) fn of(board: &Board) -> Health {
        let sources = board.sources.snapshot();
        Health {
            store: board.store.stat().unhealthy.is_none(),
            clock: board.timeline.borrow().anchors.is_synced(board.boot),
            destinations: board.destinations.iter().map(|to| to.snapshot().is_healthy()).collect(),
            sources: sources.into_iter().map(|source| (source.name, source.state == "receiving")).collect(),
        }
    }
}

/// One row of `gateway_status`.
#[derive(Debug, Serialize)]
struct Row<'a> {
    gateway_id: &'a str,
    at: i64,
    agent_version: &'static str,
    config_hash: &'a str,
    profiles_hash: &'a str,
    clock: &'static str,
    backlog_events: u64,
    oldest_waiting: Option<i64>,
    disk_free_bytes: u64,
    certificate_end: Option<i64>,
    devices: Vec<Device>,
}

#[derive(Debug, Serialize)]
struct Device {
    name: Arc<str>,
    last_seen: Option<i64>,
    battery_percent: Option<u8>,
    signal_dbm: Option<i16>,
    worn: Option<bool>,
    accepted: u64,
    refused: u64,
}

/// The heartbeat as it is now. `None` before the hub has a name.
pub(super) fn heartbeat(board: &Board, facts: &Facts) -> Option<Report> {
    let timeline = board.timeline.borrow().clone();
    let gateway = timeline.bases.last_key_value()?.1.gateway_id.clone();
    let anchors = &timeline.anchors;
    let wall = |heard| anchors.known_ms(anchors.version(), heard).map(|(ms, _)| ms);
    let stat = board.store.stat();
    let signals = signals(board, facts);
    let devices = board.taps.seen.snapshot().into_iter().map(|(name, device)| Device {
        last_seen: wall(device.last),
        battery_percent: device.battery.filter(|percent| *percent <= 100),
        signal_dbm: signals.iter().find(|(of, _)| *of == name).map(|(_, dbm)| *dbm),
        worn: device.worn,
        accepted: device.accepted,
        refused: device.refused,
        name,
    });
    let is_known = anchors.is_synced(board.boot) && *board.gate.borrow() == Gate::Open;
    let row = Row {
        gateway_id: &gateway,
        at: if board.boot == BootId::WALL { system::wall_ms() } else { wall(system::heard_now(board.boot))? },
        agent_version: env!("CARGO_PKG_VERSION"),
        config_hash: &facts.config_hash,
        profiles_hash: &facts.profiles_hash,
        clock: if is_known { "synced" } else { "estimated" },
        backlog_events: stat.destinations.iter().map(|to| to.waiting).max().unwrap_or(0),
        oldest_waiting: stat.oldest_waiting.and_then(wall),
        disk_free_bytes: stat.free_bytes,
        certificate_end: certificates::first_end_ms(&facts.certificates),
        devices: devices.collect(),
    };
    let row = serde_json::to_string(&row).ok()?;
    Some(Report { kind: Kind::Status, key: gateway.to_string(), row })
}

/// The signal of each device that is entered by its address and was heard lately.
#[cfg(feature = "ble")]
fn signals(board: &Board, facts: &Facts) -> Vec<(Arc<str>, i16)> {
    let nearby = super::lock(&board.nearby);
    let near = nearby.snapshot(tokio::time::Instant::now());
    let strength = |near: &crate::source::ble::nearby::Near| {
        Some((facts.addresses.get(&*near.address)?.clone(), near.rssi.filter(|_| near.seconds <= 60)?))
    };
    near.iter().filter_map(strength).collect()
}

#[cfg(not(feature = "ble"))]
fn signals(_board: &Board, _facts: &Facts) -> Vec<(Arc<str>, i16)> {
    Vec::new()
}
