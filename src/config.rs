//! Files -> `Config`: what the operator wrote, checked, with each room's own settings filled in.
//!
//! Typed text first (`raw`), checked values next. Errors name the file, the line, what was found and what to write.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use uuid::Uuid;

use crate::clock::keeper;
use crate::observation::EventType;
use crate::resolve::Unassigned;
use crate::store;

use files::{Merged, Places, Section};

mod files;
pub mod raw;

/// Where the gateway looks unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/biogate/biogate.toml";

const DEFAULT_DATA_DIR: &str = "/var/lib/biogate";
const DEFAULT_COMMIT_INTERVAL: Duration = Duration::from_secs(4);
const DEFAULT_MAX_DEVICES: usize = 1_000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

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
    /// The `[clock]` section.
    pub clock: keeper::Settings,
    /// Plausible ranges that differ from the built-in ones.
    pub limits: BTreeMap<(EventType, Option<String>), (f64, f64)>,
    /// The `[store]` section.
    pub store: store::Settings,
    /// How long the intake collects before it commits.
    pub commit_interval: Duration,
    /// Where events go.
    pub destinations: Vec<Destination>,
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
    /// How many captured device names are taken.
    pub max_devices: usize,
}

/// `[[destination]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Its name in status, ledger and logs.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of destination.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A ClickHouse server, over HTTP.
    ClickHouse {
        /// `http://` or `https://`.
        url: String,
        /// Database that holds `biometric_events`.
        database: String,
        /// User.
        user: String,
        /// File that holds the password.
        password_file: Option<PathBuf>,
        /// Certificate authority.
        ca_file: Option<PathBuf>,
    },
    /// NDJSON files in a folder.
    File {
        /// The folder.
        dir: PathBuf,
        /// A file is closed at this size.
        rotate_bytes: u64,
        /// A file is closed at this age.
        rotate_age: Duration,
    },
}

/// What is wrong with the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// In which file.
    pub file: PathBuf,
    /// In which line, where it is known; 0 is not.
    pub line: Option<usize>,
    /// What was found and what to write.
    pub message: String,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) if line > 0 => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            _ => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

impl Error {
    fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Error { file: file.to_path_buf(), line: None, message: message.into() }
    }
}

impl Config {
    /// Reads the file and its drop-in folders.
    pub fn load(file: &Path) -> Result<Config, Error> {
        let Merged { file: raw, places } = files::read(file)?;
        let main = |message: String| Error::of_file(file, message);
        let gateway = gateway(raw.gateway).map_err(main)?;
        let limits = limits(raw.limits).map_err(main)?;
        let brokers = raw.mqtt.into_iter().map(|entry| broker(entry, &places)).collect::<Result<Vec<_>, _>>()?;
        let (devices, wearers) = devices(raw.device, &brokers, &places)?;
        let destinations =
            raw.destination.into_iter().map(|entry| destination(entry, &places)).collect::<Result<Vec<_>, _>>()?;
        if destinations.is_empty() {
            return Err(main(
                "no destination; write a [[destination]] with name, kind = \"clickhouse\" or \"file\"".into(),
            ));
        }
        Ok(Config {
            file: file.to_path_buf(),
            commit_interval: raw.store.commit_interval.unwrap_or(DEFAULT_COMMIT_INTERVAL),
            store: store_settings(raw.store, &gateway.data_dir).map_err(main)?,
            gateway,
            devices,
            wearers,
            brokers,
            clock: clock(raw.clock),
            limits,
            destinations,
        })
    }

    /// Where a running gateway listens for the commands (DESIGN 10).
    pub fn control_socket(&self) -> PathBuf {
        match rustix::process::geteuid().is_root() && self.gateway.data_dir == Path::new(DEFAULT_DATA_DIR) {
            true => PathBuf::from("/run/biogate/control.sock"),
            false => self.gateway.data_dir.join("control.sock"),
        }
    }
}

fn gateway(raw: raw::Gateway) -> Result<Gateway, String> {
    let timezone = raw.timezone.unwrap_or_else(|| "UTC".to_owned());
    TimeZone::get(&timezone).map_err(|why| {
        format!("gateway.timezone: found \"{timezone}\" ({why}); write an IANA name such as \"Europe/Berlin\"")
    })?;
    if let Some(id) = raw.id.as_deref().filter(|id| !is_name(id)) {
        return Err(format!("gateway.id: found \"{id}\"; write 1 to 64 of the characters A-Z a-z 0-9 . _ -"));
    }
    Ok(Gateway {
        id: raw.id,
        location: raw.location.map(Into::into),
        timezone,
        data_dir: raw.data_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)),
        unassigned: raw.unassigned.unwrap_or_default(),
    })
}

fn clock(raw: raw::Clock) -> keeper::Settings {
    let default = keeper::Settings::default();
    keeper::Settings { trust: raw.trust.unwrap_or(default.trust), max_hold: raw.max_hold.unwrap_or(default.max_hold) }
}

fn store_settings(raw: raw::Store, data_dir: &Path) -> Result<store::Settings, String> {
    let max_bytes = raw.max_bytes.unwrap_or(2 << 30);
    if max_bytes < 16 * MIB {
        return Err(format!("store.max_bytes: found {max_bytes} bytes; write at least \"16 MiB\""));
    }
    if let Some(key_file) = &raw.key_file {
        readable("store.key_file", key_file)?;
    }
    Ok(store::Settings {
        dir: data_dir.join("store"),
        max_bytes,
        aside_max_bytes: raw.aside_max_bytes.unwrap_or(64 * MIB),
        min_free: raw.min_free.unwrap_or(256 * MIB),
        max_age: raw.max_age.unwrap_or(Duration::from_secs(90 * 86_400)),
        when_full: raw.when_full.unwrap_or(store::WhenFull::EvictOldest),
        key_file: raw.key_file,
        generation_bytes: 4 * MIB,
    })
}

fn limits(raw: BTreeMap<String, [f64; 2]>) -> Result<BTreeMap<(EventType, Option<String>), (f64, f64)>, String> {
    let one = |(key, [low, high]): (String, [f64; 2])| {
        let (type_name, component) = match key.split_once('/') {
            Some((type_name, component)) => (type_name, Some(component.to_owned())),
            None => (key.as_str(), None),
        };
        let event_type = EventType::from_name(type_name).ok_or_else(|| {
            let known: Vec<&str> = EventType::ALL.iter().map(|kind| kind.name()).collect();
            format!(
                "limits: found \"{key}\"; write one of {} (with \"/component\" after it if need be)",
                known.join(", ")
            )
        })?;
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(format!("limits.\"{key}\": found [{low}, {high}]; write the lower end first, as [20, 300]"));
        }
        Ok(((event_type, component), (low, high)))
    };
    raw.into_iter().map(one).collect()
}

fn broker(raw: raw::Mqtt, places: &Places) -> Result<Broker, Error> {
    let error = |message: String| places.error(Section::Mqtt, &raw.name, message);
    let url = raw.url.clone().ok_or_else(|| error("no url; write url = \"mqtt://HOST:1883\"".into()))?;
    if !url.starts_with("mqtt://") && !url.starts_with("mqtts://") {
        return Err(error(format!("found url = \"{url}\"; write mqtt://HOST:1883 or mqtts://HOST:8883")));
    }
    for (key, file) in [("password_file", &raw.password_file), ("ca_file", &raw.ca_file)] {
        file.as_ref().map_or(Ok(()), |file| readable(key, file)).map_err(error)?;
    }
    Ok(Broker {
        name: raw.name.into(),
        url,
        user: raw.user,
        password_file: raw.password_file,
        ca_file: raw.ca_file,
        max_devices: raw.max_devices.unwrap_or(DEFAULT_MAX_DEVICES),
    })
}

fn devices(raw: Vec<raw::Device>, brokers: &[Broker], places: &Places) -> Result<(Vec<Device>, Vec<Wearer>), Error> {
    let (mut devices, mut wearers) = (Vec::new(), Vec::new());
    for entry in raw {
        let error = |message: String| places.error(Section::Device, &entry.name, message);
        if !is_name(&entry.name) {
            return Err(error("write a name of 1 to 64 of the characters A-Z a-z 0-9 . _ -".into()));
        }
        let name: Arc<str> = entry.name.as_str().into();
        let link = link(&entry, brokers).map_err(error)?;
        if link.is_none() && entry.user_id.is_none() && entry.location.is_none() {
            return Err(error(
                "names no sensor; write one of ble, serial, mqtt (or user_id and location for a captured name)".into(),
            ));
        }
        wearers.push(Wearer {
            device: name.clone(),
            user_id: entry.user_id,
            location: entry.location.clone().map(Into::into),
            captured: link.is_none(),
        });
        if let Some(link) = link {
            let profile = entry
                .profile
                .clone()
                .ok_or_else(|| error("no profile; write profile = \"ID\" (see `biogate profiles list`)".into()))?;
            devices.push(Device { name, profile, link, component: entry.component.clone().map(Into::into) });
        }
    }
    Ok((devices, wearers))
}

fn link(entry: &raw::Device, brokers: &[Broker]) -> Result<Option<Link>, String> {
    match (&entry.ble, &entry.serial, &entry.mqtt) {
        (None, None, None) => Ok(None),
        (Some(_), None, None) => Err("found ble; this version reads serial and mqtt devices only".into()),
        (None, Some(port), None) => Ok(Some(Link::Serial { port: port.clone(), silence: entry.silence })),
        (None, None, Some(template)) => {
            let broker = match (&entry.broker, brokers) {
                (Some(name), _) => brokers
                    .iter()
                    .find(|broker| *broker.name == **name)
                    .ok_or_else(|| format!("found broker = \"{name}\"; there is no [[mqtt]] of that name"))?,
                (None, [only]) => only,
                (None, []) => {
                    return Err("found mqtt, but there is no [[mqtt]] broker; write one with name and url".into());
                }
                (None, _) => return Err("no broker, and there are several; write broker = \"NAME\"".into()),
            };
            Ok(Some(Link::Mqtt { template: template.clone(), broker: broker.name.clone() }))
        }
        _ => Err("found more than one of ble, serial, mqtt; write exactly one".into()),
    }
}

fn destination(raw: raw::Destination, places: &Places) -> Result<Destination, Error> {
    let error = |message: String| places.error(Section::Destination, &raw.name, message);
    let needed = |key: &str, value: &Option<String>| {
        value.clone().ok_or_else(|| error(format!("no {key}; write {key} = \"...\"")))
    };
    let kind = match raw.kind.as_deref() {
        Some("clickhouse") => {
            for (key, file) in [("password_file", &raw.password_file), ("ca_file", &raw.ca_file)] {
                file.as_ref().map_or(Ok(()), |file| readable(key, file)).map_err(error)?;
            }
            let url = needed("url", &raw.url)?;
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(error(format!("found url = \"{url}\"; write https://HOST:8443 or http://HOST:8123")));
            }
            Kind::ClickHouse {
                url,
                database: raw.database.clone().unwrap_or_else(|| "biometrics".into()),
                user: raw.user.clone().unwrap_or_else(|| "default".into()),
                password_file: raw.password_file.clone(),
                ca_file: raw.ca_file.clone(),
            }
        }
        Some("file") => {
            let rotate = raw.rotate.clone().unwrap_or_default();
            Kind::File {
                dir: raw.dir.clone().ok_or_else(|| error("no dir; write dir = \"/var/lib/biogate/archive\"".into()))?,
                rotate_bytes: rotate.bytes.unwrap_or(64 * MIB).max(64 * KIB),
                rotate_age: rotate.age.unwrap_or(Duration::from_secs(3_600)),
            }
        }
        Some("kafka") => return Err(error("found kind = \"kafka\"; this version has clickhouse and file".into())),
        Some(other) => return Err(error(format!("found kind = \"{other}\"; write \"clickhouse\" or \"file\""))),
        None => return Err(error("no kind; write kind = \"clickhouse\" or \"file\"".into())),
    };
    Ok(Destination { name: raw.name, kind })
}

/// 1 to 64 of `[A-Za-z0-9._-]`: what an MQTT capture takes, and safe in a path and in a metric's label.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Secrets are files: an unreadable one is found now and not at three in the morning.
fn readable(key: &str, file: &Path) -> Result<(), String> {
    std::fs::File::open(file).map(drop).map_err(|why| {
        format!(
            "{key}: found \"{}\", which cannot be read ({why}); write a file that this user may read",
            file.display()
        )
    })
}
