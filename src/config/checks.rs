//! From the typed text to values that can be run: every rule that needs more than one key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::files::{Places, Section};
use super::{Ble, Broker, Device, Error, Gateway, Link, Wearer, raw};
use crate::clock::keeper;
use crate::forward::{self, clickhouse, failover};
use crate::interpret::Limits;
use crate::interpret::decrypt::Key;
use crate::observation::EventType;
use crate::store;

/// Where the gateway keeps what it must not lose, unless told otherwise.
pub(super) const DEFAULT_DATA_DIR: &str = "/var/lib/biogate";

const DEFAULT_MAX_DEVICES: usize = 1_000;

/// A generation of the store; its folded state stays below an eighth of it.
const GENERATION_BYTES: u64 = 4 * MIB;

/// A smaller limit would close a file after almost every batch.
const MIN_ROTATE_BYTES: u64 = 64 << 10;

/// What a destination may be.
const KINDS: &str = "\"clickhouse\", \"kafka\" or \"file\"";

const MIB: u64 = 1 << 20;

pub(super) fn gateway(raw: raw::Gateway) -> Result<Gateway, String> {
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
        offline: raw.offline.unwrap_or(false),
    })
}

/// Links per adapter, unless said otherwise. A Raspberry Pi's own radio keeps about seven.
const DEFAULT_MAX_LINKS: usize = 5;

/// No controller keeps more.
const MOST_LINKS: usize = 32;

pub(super) fn ble(raw: raw::Ble) -> Result<Ble, String> {
    let max_links = raw.max_links.unwrap_or(DEFAULT_MAX_LINKS);
    if !(1..=MOST_LINKS).contains(&max_links) {
        return Err(format!("ble.max_links: found {max_links}; write 1 to {MOST_LINKS}"));
    }
    let services = raw.services.unwrap_or_default();
    let services = match raw.accept.unwrap_or_default() {
        raw::Accept::Any if services.is_empty() => {
            return Err("ble.accept: found \"any\" without services; write services = [\"180d\"]".into());
        }
        raw::Accept::Listed if !services.is_empty() => {
            return Err("ble.services: found services with accept = \"listed\"; write accept = \"any\"".into());
        }
        raw::Accept::Any | raw::Accept::Listed => services,
    };
    Ok(Ble {
        adapters: raw.adapters.unwrap_or_default(),
        services: services.into_iter().map(|service| service.to_ascii_lowercase().into()).collect(),
        max_links,
        restart_bluetoothd: raw.restart_bluetoothd.unwrap_or(false),
    })
}

pub(super) fn clock(raw: raw::Clock) -> keeper::Settings {
    let default = keeper::Settings::default();
    keeper::Settings { trust: raw.trust.unwrap_or(default.trust), max_hold: raw.max_hold.unwrap_or(default.max_hold) }
}

pub(super) fn store_settings(raw: raw::Store, data_dir: &Path) -> Result<store::Settings, String> {
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
        generation_bytes: GENERATION_BYTES,
    })
}

pub(super) fn limits(raw: BTreeMap<String, [f64; 2]>) -> Result<Limits, String> {
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
    Ok(Limits(raw.into_iter().map(one).collect::<Result<_, _>>()?))
}

pub(super) fn broker(raw: raw::Mqtt, places: &Places) -> Result<Broker, Error> {
    let error = |message: String| places.error(Section::Mqtt, &raw.name, message);
    let url = raw.url.clone().ok_or_else(|| error("no url; write url = \"mqtt://HOST:1883\"".into()))?;
    if !url.starts_with("mqtt://") && !url.starts_with("mqtts://") {
        return Err(error(format!("found url = \"{url}\"; write mqtt://HOST:1883 or mqtts://HOST:8883")));
    }
    let files = [&raw.password_file, &raw.ca_file, &raw.cert_file, &raw.key_file];
    peer_files_readable(files).map_err(error)?;
    Ok(Broker {
        name: raw.name.into(),
        url,
        user: raw.user,
        password_file: raw.password_file,
        ca_file: raw.ca_file,
        cert_file: raw.cert_file,
        key_file: raw.key_file,
        max_devices: raw.max_devices.unwrap_or(DEFAULT_MAX_DEVICES),
    })
}

pub(super) fn devices(
    raw: Vec<raw::Device>,
    brokers: &[Broker],
    places: &Places,
) -> Result<(Vec<Device>, Vec<Wearer>), Error> {
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
            let key = entry.key_file.as_deref().map(device_key).transpose().map_err(error)?;
            devices.push(Device { name, profile, link, component: entry.component.clone().map(Into::into), key });
        }
    }
    Ok((devices, wearers))
}

fn link(entry: &raw::Device, brokers: &[Broker]) -> Result<Option<Link>, String> {
    match (&entry.ble, &entry.serial, &entry.mqtt) {
        (None, None, None) => Ok(None),
        (Some(target), None, None) => Ok(Some(Link::Ble { target: target.clone(), silence: entry.silence })),
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

pub(super) fn destination(raw: raw::Destination, places: &Places) -> Result<forward::Settings, Error> {
    let error = |message: String| places.error(Section::Destination, &raw.name, message);
    let needed = |key: &str, value: &Option<String>| {
        value.clone().ok_or_else(|| error(format!("no {key}; write {key} = \"...\"")))
    };
    let kind = match raw.kind.as_deref() {
        Some("clickhouse") => {
            let files = [&raw.password_file, &raw.ca_file, &raw.cert_file, &raw.key_file];
            peer_files_readable(files).map_err(error)?;
            let database = raw.database.clone().unwrap_or_else(|| "biometrics".into());
            let settings = clickhouse::Settings {
                user: raw.user.clone(),
                password_file: raw.password_file.clone(),
                ca_file: raw.ca_file.clone(),
                cert_file: raw.cert_file.clone(),
                key_file: raw.key_file.clone(),
                ..clickhouse::Settings::new(needed("url", &raw.url)?, database)
            };
            settings.check_url().map_err(error)?;
            forward::Kind::ClickHouse(settings)
        }
        Some("file") => {
            let rotate = raw.rotate.clone().unwrap_or_default();
            let dir =
                raw.dir.clone().ok_or_else(|| error("no dir; write dir = \"/var/lib/biogate/archive\"".into()))?;
            let usual = forward::file::Settings::new(dir);
            forward::Kind::File(forward::file::Settings {
                rotate_bytes: rotate.bytes.map_or(usual.rotate_bytes, |bytes| bytes.max(MIN_ROTATE_BYTES)),
                rotate_age: rotate.age.unwrap_or(usual.rotate_age),
                ..usual
            })
        }
        #[cfg(feature = "kafka")]
        Some("kafka") => {
            let files = [&raw.password_file, &raw.ca_file, &raw.cert_file, &raw.key_file];
            peer_files_readable(files).map_err(error)?;
            forward::Kind::Kafka(super::kafka::settings(&raw).map_err(error)?)
        }
        #[cfg(not(feature = "kafka"))]
        Some("kafka") => return Err(error("found kind = \"kafka\"; this program was built without it".into())),
        Some(other) => return Err(error(format!("found kind = \"{other}\"; write {KINDS}"))),
        None => return Err(error(format!("no kind; write kind = {KINDS}"))),
    };
    Ok(forward::Settings { name: raw.name, kind })
}

pub(super) fn failover(
    raw: Option<raw::Failover>,
    destinations: &[forward::Settings],
) -> Result<Option<failover::Settings>, String> {
    let Some(raw) = raw else { return Ok(None) };
    let names: Vec<&str> = destinations.iter().map(|to| to.name.as_str()).collect();
    let known = names.join(", ");
    let order = raw.order.unwrap_or_default();
    if order.len() < 2 {
        let found = order.len();
        return Err(format!(
            "failover.order: found {found} names; write at least two destinations, the preferred one first, of {known}"
        ));
    }
    for (place, name) in order.iter().enumerate() {
        if !names.contains(&name.as_str()) {
            return Err(format!(
                "failover.order: found \"{name}\"; there is no such [[destination]]; write one of {known}"
            ));
        }
        if order[..place].contains(name) {
            return Err(format!("failover.order: found \"{name}\" twice; write each destination once"));
        }
    }
    #[cfg(feature = "kafka")]
    for to in destinations.iter().filter(|to| order.contains(&to.name)) {
        if matches!(&to.kind, forward::Kind::Kafka(kafka) if kafka.exactly_once) {
            let name = &to.name;
            return Err(format!(
                "failover.order: found \"{name}\", whose exactly_once keeps a cursor of its own in Kafka; write \
                 exactly_once = false for it, or take it out of the order"
            ));
        }
    }
    if names.contains(&failover::CURSOR) {
        let taken = failover::CURSOR;
        return Err(format!(
            "failover: found a [[destination]] named \"{taken}\"; write another name, the ledger has the failover under it"
        ));
    }
    let usual = failover::Settings::new(order);
    let settings = failover::Settings {
        in_doubt: raw.in_doubt.unwrap_or(usual.in_doubt),
        after: raw.after.unwrap_or(usual.after),
        back_after: raw.back_after.unwrap_or(usual.back_after),
        ..usual
    };
    if settings.in_doubt < settings.after {
        let (doubt, after) =
            (humantime::format_duration(settings.in_doubt), humantime::format_duration(settings.after));
        return Err(format!(
            "failover.in_doubt: found \"{doubt}\", less than failover.after (\"{after}\"); write the time for an answer \
             that may still come, as \"1 h\""
        ));
    }
    Ok(Some(settings))
}

/// 1 to 64 of `[A-Za-z0-9._-]`: what an MQTT capture takes, and safe in a path and in a metric's label.
pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The files that a broker and a warehouse may need alike: password, authority, own certificate and its key.
fn peer_files_readable(files: [&Option<PathBuf>; 4]) -> Result<(), String> {
    let keys = ["password_file", "ca_file", "cert_file", "key_file"];
    let named = keys.into_iter().zip(files).filter_map(|(key, file)| Some((key, file.as_ref()?)));
    named.into_iter().try_for_each(|(key, file)| readable(key, file))
}

/// The key of a device's encrypted frames. What the file holds is never said.
fn device_key(file: &Path) -> Result<Key, String> {
    readable("key_file", file)?;
    let wrong = |why: String| format!("key_file: found \"{}\" with {why}", file.display());
    let content = std::fs::read(file).map_err(|why| wrong(why.to_string()))?;
    let text = std::str::from_utf8(&content).map_err(|_| {
        wrong(format!(
            "{} bytes that are no text; write 32 hexadecimal digits (24 for MiBeacon 2 and 3)",
            content.len()
        ))
    })?;
    Key::parse(text).map_err(wrong)
}

/// Secrets are files: an unreadable one is found now and not at three in the morning.
pub(super) fn readable(key: &str, file: &Path) -> Result<(), String> {
    std::fs::File::open(file).map(drop).map_err(|why| {
        format!(
            "{key}: found \"{}\", which cannot be read ({why}); write a file that this user may read",
            file.display()
        )
    })
}
