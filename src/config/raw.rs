//! The files as they are written: unknown keys refused, every value typed, nothing checked against anything else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use uuid::Uuid;

use crate::clock::keeper::{Hold, Trust};
use crate::resolve::Unassigned;
use crate::store::WhenFull;

/// One file, or all of them merged.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// `[gateway]`
    #[serde(default)]
    pub gateway: Gateway,
    /// `[[device]]`
    #[serde(default)]
    pub device: Vec<Device>,
    /// `[[mqtt]]`
    #[serde(default)]
    pub mqtt: Vec<Mqtt>,
    /// `[ble]`
    #[serde(default)]
    pub ble: Ble,
    /// `[clock]`
    #[serde(default)]
    pub clock: Clock,
    /// `[limits]`: `heart_rate = [20, 300]`, `"temperature/body" = [25, 45]`
    #[serde(default)]
    pub limits: BTreeMap<String, [f64; 2]>,
    /// `[store]`
    #[serde(default)]
    pub store: Store,
    /// `[failover]`
    pub failover: Option<Failover>,
    /// `[[destination]]`
    #[serde(default)]
    pub destination: Vec<Destination>,
    /// `[local]`
    #[serde(default)]
    pub local: Local,
}

/// `[local]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// `ADDRESS:PORT`.
    pub listen: Option<String>,
    /// Further names that clients may call this hub by.
    pub hosts: Option<Vec<String>>,
    /// File that holds what a client has to show.
    pub token_file: Option<PathBuf>,
}

/// `[gateway]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// The hub's name in every event.
    pub id: Option<String>,
    /// The ward or home of devices that name no room of their own.
    pub location: Option<String>,
    /// IANA name.
    pub timezone: Option<String>,
    /// Where the store and the control socket live.
    pub data_dir: Option<PathBuf>,
    /// What becomes of observations of nobody.
    pub unassigned: Option<Unassigned>,
    /// Whether nothing is sent for now.
    pub offline: Option<bool>,
}

/// `[[device]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The device_id of its events.
    pub name: String,
    /// Id of its profile.
    pub profile: Option<String>,
    /// BLE address or `name:GLOB`.
    pub ble: Option<String>,
    /// Port: a path, or `usb:VID:PID[:SERIAL]`.
    pub serial: Option<String>,
    /// Topic template.
    pub mqtt: Option<String>,
    /// Which `[[mqtt]]` it listens to.
    pub broker: Option<String>,
    /// The person.
    pub user_id: Option<Uuid>,
    /// The room.
    pub location: Option<String>,
    /// Overrides the profile's component.
    pub component: Option<String>,
    /// File with the key of its encrypted frames, in hexadecimal.
    pub key_file: Option<PathBuf>,
    /// After so long without a byte a serial port is opened anew, and a Bluetooth link made anew.
    #[serde(default, deserialize_with = "duration")]
    pub silence: Option<Duration>,
}

/// `[[mqtt]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// The name that device entries use.
    pub name: String,
    /// `mqtt://HOST:PORT` or `mqtts://HOST:PORT`.
    pub url: Option<String>,
    /// User name.
    pub user: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Certificate authority of the broker.
    pub ca_file: Option<PathBuf>,
    /// The hub's own certificate, with `key_file`, where the broker asks for one.
    pub cert_file: Option<PathBuf>,
    /// The key of `cert_file`, PKCS #8 in PEM form.
    pub key_file: Option<PathBuf>,
    /// How many captured device names are taken.
    pub max_devices: Option<usize>,
}

/// `[ble]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ble {
    /// Names or addresses of the adapters to use; all unless said.
    pub adapters: Option<Vec<String>>,
    /// Whose sensors are read: those of the device entries, or any of `services`.
    pub accept: Option<Accept>,
    /// With `accept = "any"`: the services whose sensors are read.
    pub services: Option<Vec<String>>,
    /// Simultaneous links per adapter.
    pub max_links: Option<usize>,
    /// Whether bluetoothd may be restarted when nothing else helps; needs the polkit rule.
    pub restart_bluetoothd: Option<bool>,
}

/// Whose Bluetooth sensors are read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// Those of the device entries.
    #[default]
    Listed,
    /// Also every other one that advertises one of the services.
    Any,
}

/// `[clock]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// kernel, rtc or always.
    pub trust: Option<Trust>,
    /// A duration or `forever`.
    #[serde(default, deserialize_with = "hold")]
    pub max_hold: Option<Hold>,
}

/// `[store]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Limit of everything that waits.
    #[serde(default, deserialize_with = "bytes")]
    pub max_bytes: Option<u64>,
    /// Limit of what is set aside.
    #[serde(default, deserialize_with = "bytes")]
    pub aside_max_bytes: Option<u64>,
    /// Disk space to leave free.
    #[serde(default, deserialize_with = "bytes")]
    pub min_free: Option<u64>,
    /// Older observations are evicted.
    #[serde(default, deserialize_with = "duration")]
    pub max_age: Option<Duration>,
    /// How long a commit collects.
    #[serde(default, deserialize_with = "duration")]
    pub commit_interval: Option<Duration>,
    /// evict-oldest or pause-sources.
    pub when_full: Option<WhenFull>,
    /// File with the key that seals the store.
    pub key_file: Option<PathBuf>,
}

/// `[failover]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// Names of destinations, the preferred one first.
    pub order: Option<Vec<String>>,
    /// How long a batch that may have arrived waits before the next destination gets it.
    #[serde(default, deserialize_with = "duration")]
    pub in_doubt: Option<Duration>,
    /// How long a destination may refuse before the next one gets the batch.
    #[serde(default, deserialize_with = "duration")]
    pub after: Option<Duration>,
    /// How long an earlier destination has to be well before it takes over again.
    #[serde(default, deserialize_with = "duration")]
    pub back_after: Option<Duration>,
}

/// `[[destination]]`: the keys of every kind; which belong to which is checked afterwards.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Its name in status, ledger and logs.
    pub name: String,
    /// clickhouse, kafka or file.
    pub kind: Option<String>,
    /// ClickHouse: `http://HOST:8123` or `https://HOST:8443`.
    pub url: Option<String>,
    /// ClickHouse: database.
    pub database: Option<String>,
    /// Kafka: `host:port` of some brokers.
    pub brokers: Option<Vec<String>>,
    /// Kafka: where events go.
    pub topic: Option<String>,
    /// Kafka: zstd, lz4, gzip or none.
    pub compression: Option<String>,
    /// Kafka: each batch in a transaction with the cursor.
    pub exactly_once: Option<bool>,
    /// Kafka: the topic whose offsets are the cursors of `exactly_once`.
    pub cursor_topic: Option<String>,
    /// Kafka: the largest record, where the topic's limit may not be read.
    #[serde(default, deserialize_with = "bytes")]
    pub max_message_bytes: Option<u64>,
    /// Kafka: encrypted; also without `ca_file`, by the system's certificates.
    pub tls: Option<bool>,
    /// Kafka: plain, scram-sha-256 or scram-sha-512.
    pub sasl: Option<String>,
    /// ClickHouse, Kafka: user.
    pub user: Option<String>,
    /// ClickHouse, Kafka: file that holds the password.
    pub password_file: Option<PathBuf>,
    /// ClickHouse, Kafka: certificate authority.
    pub ca_file: Option<PathBuf>,
    /// ClickHouse, Kafka: the hub's own certificate, with `key_file`, where the server asks for one.
    pub cert_file: Option<PathBuf>,
    /// ClickHouse, Kafka: the key of `cert_file`, PKCS #8 in PEM form.
    pub key_file: Option<PathBuf>,
    /// File: folder.
    pub dir: Option<PathBuf>,
    /// File: when to begin a new one.
    pub rotate: Option<Rotate>,
}

/// `rotate = { bytes = "64 MiB", age = "1 h" }`
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// At this size.
    #[serde(default, deserialize_with = "bytes")]
    pub bytes: Option<u64>,
    /// At this age.
    #[serde(default, deserialize_with = "duration")]
    pub age: Option<Duration>,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map(Some).map_err(|why| {
        de::Error::custom(format!("found \"{text}\" ({why}); write a duration such as \"250 ms\" or \"10 min\""))
    })
}

fn hold<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Hold>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "forever" {
        return Ok(Some(Hold::Forever));
    }
    humantime::parse_duration(&text).map(|longest| Some(Hold::AtMost(longest))).map_err(|why| {
        de::Error::custom(format!("found \"{text}\" ({why}); write a duration such as \"10 min\", or \"forever\""))
    })
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<bytesize::ByteSize>().map(|size| Some(size.as_u64())).map_err(|why| {
        de::Error::custom(format!("found \"{text}\" ({why}); write a size such as \"64 MiB\" or \"2 GiB\""))
    })
}
