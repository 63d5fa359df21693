//! What is around this hub: Bluetooth peripherals through the running gateway (or by ourselves where none runs), and
//! serial ports. Asked by `scan` and `add`.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::near::{Claim, Claims};
use crate::config::{Config, Device, Link};
use crate::local::client;
use crate::source::ble::allow::{self, Allow, Seen};
use crate::source::ble::nearby::{Near, Nearby};
use crate::source::ble::survey;
use crate::source::context::Stop;
use crate::source::serial::port_name::PortName;
use crate::source::serial::ports::{self, Port};

/// A peripheral, who claims it, and the device entry that has it already.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Peripheral {
    #[serde(flatten)]
    pub(super) near: Near,
    pub(super) claims: Vec<Claim>,
    pub(super) entry: Option<Arc<str>>,
}

/// A serial port, and the device entry that has it already.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SerialPort {
    #[serde(flatten)]
    pub(super) port: Port,
    pub(super) entry: Option<Arc<str>>,
}

/// Who listens for us.
pub(super) enum Ears {
    /// The running gateway.
    Gateway { socket: std::path::PathBuf },
    /// Ourselves.
    Own { nearby: Arc<Mutex<Nearby>>, stop: watch::Sender<bool>, survey: Option<JoinHandle<Result<(), String>>> },
}

impl Ears {
    /// The gateway's where it hears anything, else our own on these adapters; two may listen on one.
    pub(super) async fn open(socket: &Path, adapters: Vec<String>) -> anyhow::Result<Self> {
        let heard: Option<Vec<Near>> = client::get(socket, "/near").await?;
        if heard.is_some_and(|heard| !heard.is_empty()) {
            return Ok(Ears::Gateway { socket: socket.to_path_buf() });
        }
        let nearby: Arc<Mutex<Nearby>> = Arc::default();
        let (stop, stopping) = watch::channel(false);
        let filled = nearby.clone();
        let survey = tokio::spawn(async move { survey::run(&adapters, filled, Stop::new(stopping)).await });
        Ok(Ears::Own { nearby, stop, survey: Some(survey) })
    }

    /// What is near now, the strongest first.
    pub(super) async fn near(&self) -> anyhow::Result<Vec<Near>> {
        match self {
            Ears::Gateway { socket } => {
                client::get(socket, "/near").await?.context("the gateway stopped while it was asked; scan again")
            }
            Ears::Own { nearby, .. } => {
                Ok(nearby.lock().unwrap_or_else(PoisonError::into_inner).snapshot(Instant::now()))
            }
        }
    }

    /// Whether nothing more will be heard.
    pub(super) fn are_deaf(&self) -> bool {
        matches!(self, Ears::Own { survey: Some(survey), .. } if survey.is_finished())
    }

    /// Stops listening; says why nothing could be heard, where that was so.
    pub(super) async fn close(self) -> Option<String> {
        let Ears::Own { stop, survey: Some(survey), .. } = self else { return None };
        stop.send_replace(true);
        match survey.await {
            Ok(ended) => ended.err(),
            Err(why) => Some(format!("the scan failed: {why}")),
        }
    }
}

/// Each peripheral with the profiles that claim it and the entry that has it.
pub(super) fn peripherals(near: Vec<Near>, claims: &Claims, devices: &[Device]) -> Vec<Peripheral> {
    let one = |near: Near| {
        let entry = devices.iter().find(|device| has_peripheral(&device.link, &near));
        Peripheral { claims: claims.of(&near), entry: entry.map(|device| device.name.clone()), near }
    };
    near.into_iter().map(one).collect()
}

/// This machine's serial ports.
pub(super) fn serial_ports(devices: &[Device]) -> anyhow::Result<Vec<SerialPort>> {
    let (sys, dev) = (Path::new("/sys"), Path::new("/dev"));
    let used: Vec<_> =
        devices.iter().filter_map(|device| Some((device.name.clone(), path_of(&device.link, sys, dev)?))).collect();
    let ports = ports::list(sys, dev).context("listing the serial ports")?;
    let one = |port: Port| {
        let entry = used.iter().find(|(_, path)| *path == port.now).map(|(name, _)| name.clone());
        SerialPort { port, entry }
    };
    Ok(ports.into_iter().map(one).collect())
}

/// The configuration, where there is one: a hub is also scanned before its files are written.
pub(super) fn config_if_any(file: &Path) -> anyhow::Result<Option<Config>> {
    match Config::load(file) {
        Err(_) if !file.exists() => Ok(None),
        loaded => Ok(Some(loaded?)),
    }
}

fn has_peripheral(link: &Link, near: &Near) -> bool {
    let Link::Ble { target, .. } = link else { return false };
    let Ok(target) = target.parse() else { return false };
    let seen = Seen { address: &near.address, name: near.name.as_deref(), services: &near.services };
    matches!(Allow::new(&[(0, target)]).claim(Instant::now(), seen), allow::Claim::Device(_))
}

/// Where the port of an entry is now, links followed.
fn path_of(link: &Link, sys: &Path, dev: &Path) -> Option<std::path::PathBuf> {
    let Link::Serial { port, .. } = link else { return None };
    let name: PortName = port.parse().ok()?;
    let path = name.resolve(sys, dev).ok()?;
    Some(path.canonicalize().unwrap_or(path))
}
