//! Files -> `Config`: what the operator wrote, checked, with each room's own settings filled in.
//!
//! Typed text first (`raw`), checked values next. Errors name the file, the line, what was found and what to write.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::keeper;
use crate::interpret::Limits;
use crate::interpret::decrypt::Key;
use crate::resolve::Unassigned;
use crate::{forward, store};

use files::Merged;
pub use local::Local;

mod checks;
mod files;
#[cfg(feature = "kafka")]
mod kafka;
pub mod local;
pub mod raw;

/// Where the gateway looks unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/biogate/biogate.toml";

/// Where the installed service listens for the commands.
pub const DEFAULT_SOCKET: &str = "/run/biogate/control.sock";

const DEFAULT_COMMIT_INTERVAL: Duration = Duration::from_secs(4);

/// A configuration that can be run.
#[derive(Debug)]
pub struct Config {
    /// The main file.
    pub file: PathBuf,
    /// The hub itself.
    pub gateway: Gateway,
    /// Entries that name a sensor.
    pub devices: Vec<Device>,
    /// Who wears what, from all entries, in their order.
    pub wearers: Vec<Wearer>,
    /// MQTT brokers.
    pub brokers: Vec<Broker>,
    /// The `[ble]` section.
    pub ble: Ble,
    /// The `[clock]` section.
    pub clock: keeper::Settings,
    /// Plausible ranges that differ from the built-in ones.
    pub limits: Limits,
    /// The `[store]` section.
    pub store: store::Settings,
    /// How long the intake collects before it commits.
    pub commit_interval: Duration,
    /// Where events go.
    pub destinations: Vec<forward::Settings>,
    /// The `[local]` section, where it says to listen.
    pub local: Option<Local>,
    /// A hash of all files' texts.
    pub fingerprint: String,
    /// The `[failover]` section: which of them get each event only once.
    pub failover: Option<forward::failover::Settings>,
    /// Where each named entry stands, for errors that are found later.
    places: files::Places,
}

/// `[gateway]`
#[derive(Debug)]
pub struct Gateway {
    /// The hub's name; made at first start where it is not given.
    pub id: Option<String>,
    /// Its ward or home.
    pub location: Option<Arc<str>>,
    /// IANA name, known to this machine.
    pub timezone: String,
    /// Where the store and (for a user's own gateway) the control socket live.
    pub data_dir: PathBuf,
    /// What becomes of observations of nobody.
    pub unassigned: Unassigned,
    /// Nothing is sent for now: events wait in the store.
    pub offline: bool,
}

/// A device entry that names a sensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// The entry's name.
    pub name: Arc<str>,
    /// Its profile's id.
    pub profile: String,
    /// How it is reached.
    pub link: Link,
    /// Overrides the component of the profile.
    pub component: Option<Arc<str>>,
    /// The key of its encrypted frames, out of `key_file`.
    pub key: Option<Key>,
}

/// How a device is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum Link {
    /// A path, or `usb:VID:PID[:SERIAL]`; opened anew after so long without a byte.
    Serial {
        /// As written.
        port: String,
        /// `None`: the source's own default.
        silence: Option<Duration>,
    },
    /// An address, or `name:GLOB`; linked anew after so long without a value.
    Ble {
        /// As written.
        target: String,
        /// `None`: learned from the device's own rhythm.
        silence: Option<Duration>,
    },
    /// A topic template on one of the brokers.
    Mqtt {
        /// As written, with its captures.
        template: String,
        /// The broker's name.
        broker: Arc<str>,
    },
}

/// What an entry says about the person who wears a device, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wearer {
    /// The device_id.
    pub device: Arc<str>,
    /// The person.
    pub user_id: Option<Uuid>,
    /// The room.
    pub location: Option<Arc<str>>,
    /// Whether the entry names no sensor, but what a topic captures: such a device may have spoken before.
    pub captured: bool,
}

/// `[ble]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ble {
    /// Names or addresses of the adapters to use; empty for all.
    pub adapters: Vec<String>,
    /// Services of which any sensor is read.
    pub services: Vec<Arc<str>>,
    /// Simultaneous links per adapter.
    pub max_links: usize,
    /// Whether bluetoothd may be restarted when nothing else helps.
    pub restart_bluetoothd: bool,
}

/// `[[mqtt]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Broker {
    /// The name that device entries use.
    pub name: Arc<str>,
    /// `mqtt://` or `mqtts://`.
    pub url: String,
    /// User name.
    pub user: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Certificate authority of the broker.
    pub ca_file: Option<PathBuf>,
    /// The hub's own certificate, with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The key of `cert_file`.
    pub key_file: Option<PathBuf>,
    /// How many captured device names are taken.
    pub max_devices: usize,
}

/// What is wrong with the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// In which file.
    pub file: PathBuf,
    /// In which line, where it is known.
    pub line: Option<usize>,
    /// What was found and what to write.
    pub message: String,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

impl Error {
    fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Error { file: file.to_path_buf(), line: None, message: message.into() }
    }
}

/// Whether a device entry may have this name.
pub fn is_name(text: &str) -> bool {
    checks::is_name(text)
}

impl Config {
    /// Reads the file and its drop-in folders.
    pub fn load(file: &Path) -> Result<Config, Error> {
        let Merged { file: raw, places, fingerprint } = files::read(file)?;
        let main = |message: String| Error::of_file(file, message);
        let gateway = checks::gateway(raw.gateway).map_err(main)?;
        let limits = checks::limits(raw.limits).map_err(main)?;
        let brokers =
            raw.mqtt.into_iter().map(|entry| checks::broker(entry, &places)).collect::<Result<Vec<_>, _>>()?;
        let (devices, wearers) = checks::devices(raw.device, &brokers, &places)?;
        let destinations = raw
            .destination
            .into_iter()
            .map(|entry| checks::destination(entry, &places))
            .collect::<Result<Vec<_>, _>>()?;
        if destinations.is_empty() {
            return Err(main(
                "no destination; write a [[destination]] with name, kind = \"clickhouse\", \"kafka\" or \"file\""
                    .into(),
            ));
        }
        #[cfg(feature = "kafka")]
        kafka::cursors_apart(&destinations).map_err(main)?;
        let failover = checks::failover(raw.failover, &destinations).map_err(main)?;
        Ok(Config {
            file: file.to_path_buf(),
            commit_interval: raw.store.commit_interval.unwrap_or(DEFAULT_COMMIT_INTERVAL),
            store: checks::store_settings(raw.store, &gateway.data_dir).map_err(main)?,
            gateway,
            devices,
            wearers,
            brokers,
            ble: checks::ble(raw.ble).map_err(main)?,
            clock: checks::clock(raw.clock),
            limits,
            destinations,
            local: local::local(raw.local).map_err(main)?,
            fingerprint,
            failover,
            places,
        })
    }

    /// Whether this destination shares the cursor of the failover.
    pub fn is_in_order(&self, name: &str) -> bool {
        self.failover.as_ref().is_some_and(|failover| failover.order.iter().any(|one| one == name))
    }

    /// The names under which the store keeps cursors: each destination's own, and one for those of the failover.
    pub fn cursors(&self) -> Vec<String> {
        let own = self.destinations.iter().map(|to| to.name.clone()).filter(|name| !self.is_in_order(name));
        own.chain(self.failover.is_some().then(|| forward::failover::CURSOR.to_owned())).collect()
    }

    /// An error about a device entry, with its place.
    pub fn device_error(&self, name: &str, message: impl Into<String>) -> Error {
        self.places.error(files::Section::Device, name, message)
    }

    /// Where a running gateway listens for the commands: of the installed service in its runtime folder, of any other
    /// in its own folder.
    pub fn control_socket(&self) -> PathBuf {
        match self.gateway.data_dir == Path::new(checks::DEFAULT_DATA_DIR) {
            true => PathBuf::from(DEFAULT_SOCKET),
            false => self.gateway.data_dir.join("control.sock"),
        }
    }
}
