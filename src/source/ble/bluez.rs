//! BlueZ's own D-Bus interface, for what btleplug lacks on Linux: one stream of signals for everything (btleplug asks
//! BlueZ twice about each advertisement and needs a match rule per device), adapters that come and go, bluetoothd that
//! restarts, power, RemoveDevice, and a restart of the service. Every call has a deadline.
//!
//! One connection, four match rules. Signals are taken apart in the connection's own callback: values of characteristics
//! go straight to their [`Flows`], advertisements to a bounded channel (what does not fit is counted), and what must not
//! be missed to another; if that one ever overflows the session is over and begins anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use dbus::Path;
use dbus::arg::{PropMap, RefArg, Variant, prop_cast};
use dbus::message::{MatchRule, Message};
use dbus::nonblock::{MsgMatch, Proxy, SyncConnection};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::source::ble::flow::Flows;
use crate::source::ble::nearby::Sighting;

pub(super) const BLUEZ: &str = "org.bluez";
const ROOT: &str = "/org/bluez";
const ADAPTER: &str = "org.bluez.Adapter1";
const DEVICE: &str = "org.bluez.Device1";
const CHARACTERISTIC: &str = "org.bluez.GattCharacteristic1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const OBJECTS: &str = "org.freedesktop.DBus.ObjectManager";

/// Any call but a connect is answered within this, or hangs.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// How many changes may wait for the session; it takes each within microseconds.
const CHANGES: usize = 1_024;

/// How many advertisements may wait; a busy street sends some hundred a second.
const ADVERTS: usize = 512;

/// A peripheral as an adapter sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// The adapter, as `hci0`.
    pub(super) adapter: Arc<str>,
    /// The peripheral's address, as `A0:9E:1A:00:11:22`.
    pub(super) address: Arc<str>,
}

/// What must not be missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// An adapter is there, powered or not.
    AdapterCame(Arc<str>),
    /// An adapter was unplugged, or bluetoothd left it.
    AdapterWent(Arc<str>),
    /// Somebody switched an adapter on or off.
    Powered(Arc<str>, bool),
    /// A link came up or went down.
    Linked(Place, bool),
    /// BlueZ forgot a peripheral.
    Forgotten(Place),
    /// bluetoothd left the bus (false) or came to it.
    Bluetoothd(bool),
}

/// What was heard of one peripheral.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advert {
    pub(super) place: Place,
    pub(super) sighting: Sighting,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// No system bus, or it closed the connection.
    #[error("there is no D-Bus system bus ({0}); install dbus and start it: systemctl start dbus")]
    NoBus(String),
    /// Nobody owns org.bluez.
    #[error("bluetoothd does not run; install bluez and start it: systemctl enable --now bluetooth")]
    NoBluetoothd,
    /// The bus's policy refuses.
    #[error(
        "this user may not talk to bluetoothd; install biogate's D-Bus policy (biogate-bluetooth.conf in /etc/dbus-1/system.d) or add the user to the group bluetooth"
    )]
    Denied,
    /// No answer within the deadline.
    #[error("bluetoothd does not answer {0}")]
    Hung(&'static str),
    /// BlueZ refused, in its own words.
    #[error("{0}")]
    Refused(String),
}

impl CallError {
    pub(super) fn of(what: &'static str, error: &dbus::Error) -> Self {
        match error.name().unwrap_or_default() {
            "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => {
                CallError::NoBluetoothd
            }
            "org.freedesktop.DBus.Error.AccessDenied" => CallError::Denied,
            "org.freedesktop.DBus.Error.NoReply"
            | "org.freedesktop.DBus.Error.Timeout"
            | "org.freedesktop.DBus.Error.TimedOut" => CallError::Hung(what),
            "org.freedesktop.DBus.Error.Disconnected" => CallError::NoBus("it closed the connection".to_owned()),
            name => {
                let short = name.rsplit('.').next().unwrap_or(name);
                match error.message().unwrap_or_default() {
                    "" => CallError::Refused(short.to_owned()),
                    message => CallError::Refused(format!("{short}: {message}")),
                }
            }
        }
    }
}

/// An adapter as BlueZ shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AdapterInfo {
    /// Its name, as `hci0`.
    pub(super) name: Arc<str>,
    /// Its own address.
    pub(super) address: String,
    /// Whether it is on.
    pub(super) powered: bool,
}

/// What BlueZ knew before the first signal.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) adapters: Vec<AdapterInfo>,
    pub(super) peripherals: Vec<(Place, Sighting, bool)>,
}

/// One connection to the system bus.
pub(super) struct Bus {
    connection: Arc<SyncConnection>,
    watching: JoinHandle<()>,
    lost: Arc<AtomicBool>,
    _rules: Vec<MsgMatch>,
    /// Advertisements that found no place.
    pub(super) dropped: Arc<AtomicU64>,
}

/// Where the signals of a bus come out.
pub(super) struct Signals {
    pub(super) changes: mpsc::Receiver<Change>,
    pub(super) adverts: mpsc::Receiver<Advert>,
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Bus {
    /// Connects and listens. Signals are heard from here on; what BlueZ knew before is asked with [`Bus::known`].
    pub(super) async fn open(flows: Arc<Flows>) -> Result<(Bus, Signals), CallError> {
        let opened = tokio::task::spawn_blocking(dbus_tokio::connection::new_system_sync);
        let opened = tokio::time::timeout(DEADLINE, opened).await.map_err(|_| CallError::Hung("the connection"))?;
        let (resource, connection) = opened
            .map_err(|why| CallError::NoBus(why.to_string()))?
            .map_err(|why| CallError::NoBus(why.message().unwrap_or("no answer").to_owned()))?;
        let lost = Arc::new(AtomicBool::new(false));
        let (changes, changed) = mpsc::channel(CHANGES);
        let (adverts, heard) = mpsc::channel(ADVERTS);
        let watching = tokio::spawn({
            let lost = lost.clone();
            async move {
                let why = resource.await;
                lost.store(true, Relaxed);
                tracing::debug!("the system bus closed the connection: {why}");
            }
        });
        let dropped = Arc::new(AtomicU64::new(0));
        let taker = Taker { flows, changes, adverts, dropped: dropped.clone() };
        let mut rules = Vec::new();
        for rule in [
            MatchRule::new_signal(PROPERTIES, "PropertiesChanged").with_sender(BLUEZ).with_namespaced_path(ROOT),
            MatchRule::new_signal(OBJECTS, "InterfacesAdded").with_sender(BLUEZ),
            MatchRule::new_signal(OBJECTS, "InterfacesRemoved").with_sender(BLUEZ),
            MatchRule::new_signal("org.freedesktop.DBus", "NameOwnerChanged").with_sender("org.freedesktop.DBus"),
        ] {
            let taker = taker.clone();
            let rule = connection.add_match(rule).await.map_err(|why| CallError::of("AddMatch", &why))?;
            rules.push(rule.msg_cb(move |message| taker.take(&message)));
        }
        Ok((Bus { connection, watching, lost, _rules: rules, dropped }, Signals { changes: changed, adverts: heard }))
    }

    /// Whether the bus closed the connection.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    /// A proxy of one of BlueZ's objects, with the usual deadline.
    pub(super) fn at<'a>(&self, path: impl Into<Path<'a>>) -> Proxy<'a, Arc<SyncConnection>> {
        Proxy::new(BLUEZ, path, DEADLINE, self.connection.clone())
    }

    /// Every object of BlueZ: path, interfaces, properties.
    pub(super) async fn objects(&self) -> Result<HashMap<Path<'static>, HashMap<String, PropMap>>, CallError> {
        let (objects,) = self
            .at("/")
            .method_call(OBJECTS, "GetManagedObjects", ())
            .await
            .map_err(|why| CallError::of("GetManagedObjects", &why))?;
        Ok(objects)
    }

    /// Adapters and peripherals that BlueZ knows now.
    pub(super) async fn known(&self) -> Result<Known, CallError> {
        let mut known = Known::default();
        for (path, interfaces) in self.objects().await? {
            if let (Some(name), Some(properties)) = (adapter_of(&path), interfaces.get(ADAPTER)) {
                known.adapters.push(AdapterInfo {
                    name,
                    address: prop_cast::<String>(properties, "Address").cloned().unwrap_or_default(),
                    powered: prop_cast(properties, "Powered").copied().unwrap_or(false),
                });
            }
            if let (Some(place), Some(properties)) = (place_of(&path), interfaces.get(DEVICE)) {
                let linked = prop_cast(properties, "Connected").copied().unwrap_or(false);
                known.peripherals.push((place, sighting_of(properties), linked));
            }
        }
        known.adapters.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(known)
    }

    /// Switches an adapter on or off.
    pub(super) async fn set_powered(&self, adapter: &str, on: bool) -> Result<(), CallError> {
        let arguments = (ADAPTER, "Powered", Variant(on));
        let () = self
            .at(format!("{ROOT}/{adapter}"))
            .method_call(PROPERTIES, "Set", arguments)
            .await
            .map_err(|why| CallError::of("Set Powered", &why))?;
        Ok(())
    }

    /// Whether the peripheral is bonded: RemoveDevice would lose the bond.
    pub(super) async fn is_paired(&self, place: &Place) -> Result<bool, CallError> {
        let (paired,): (Variant<bool>,) = self
            .at(path_of(place))
            .method_call(PROPERTIES, "Get", (DEVICE, "Paired"))
            .await
            .map_err(|why| CallError::of("Get Paired", &why))?;
        Ok(paired.0)
    }

    /// Whether the services of a linked peripheral are known.
    pub(super) async fn is_resolved(&self, place: &Place) -> Result<bool, CallError> {
        let (resolved,): (Variant<bool>,) = self
            .at(path_of(place))
            .method_call(PROPERTIES, "Get", (DEVICE, "ServicesResolved"))
            .await
            .map_err(|why| CallError::of("Get ServicesResolved", &why))?;
        Ok(resolved.0)
    }

    /// Makes BlueZ forget a peripheral, its cached services and a link that only BlueZ believes in.
    pub(super) async fn remove(&self, place: &Place) -> Result<(), CallError> {
        let () = self
            .at(format!("{ROOT}/{}", place.adapter))
            .method_call(ADAPTER, "RemoveDevice", (path_of(place),))
            .await
            .map_err(|why| CallError::of("RemoveDevice", &why))?;
        Ok(())
    }

    /// Ends a link, or the attempt at one.
    pub(super) async fn disconnect(&self, place: &Place) -> Result<(), CallError> {
        let () = self
            .at(path_of(place))
            .method_call(DEVICE, "Disconnect", ())
            .await
            .map_err(|why| CallError::of("Disconnect", &why))?;
        Ok(())
    }

    /// Asks the service manager to restart bluetoothd; needs a polkit rule.
    pub(super) async fn restart_bluetoothd(&self) -> Result<(), CallError> {
        let systemd =
            Proxy::new("org.freedesktop.systemd1", "/org/freedesktop/systemd1", DEADLINE, self.connection.clone());
        let (_job,): (Path<'static>,) = systemd
            .method_call("org.freedesktop.systemd1.Manager", "RestartUnit", ("bluetooth.service", "replace"))
            .await
            .map_err(|why| CallError::of("RestartUnit", &why))?;
        Ok(())
    }
}

/// Takes signals apart, in the connection's own callback.
#[derive(Clone)]
struct Taker {
    flows: Arc<Flows>,
    changes: mpsc::Sender<Change>,
    adverts: mpsc::Sender<Advert>,
    dropped: Arc<AtomicU64>,
}

impl Taker {
    /// True: go on listening.
    fn take(&self, message: &Message) -> bool {
        match message.member().as_deref() {
            Some("PropertiesChanged") => self.properties(message),
            Some("InterfacesAdded") => self.added(message),
            Some("InterfacesRemoved") => self.removed(message),
            Some("NameOwnerChanged") => {
                if let Ok((name, _, new)) = message.read3::<&str, &str, &str>()
                    && name == BLUEZ
                {
                    self.change(Change::Bluetoothd(!new.is_empty()));
                }
            }
            _ => {}
        }
        true
    }

    fn properties(&self, message: &Message) {
        let Some(path) = message.path() else { return };
        let mut arguments = message.iter_init();
        let (Ok(interface), Ok(changed)) = (arguments.read::<&str>(), arguments.read::<PropMap>()) else { return };
        match interface {
            CHARACTERISTIC => {
                if let Some(value) = prop_cast::<Vec<u8>>(&changed, "Value") {
                    self.flows.value(&path, value);
                }
            }
            DEVICE => {
                let Some(place) = place_of(&path) else { return };
                if let Some(linked) = prop_cast::<bool>(&changed, "Connected") {
                    self.change(Change::Linked(place.clone(), *linked));
                }
                let sighting = sighting_of(&changed);
                if sighting != Sighting::default() {
                    self.advert(Advert { place, sighting });
                }
            }
            ADAPTER => {
                if let (Some(adapter), Some(on)) = (adapter_of(&path), prop_cast::<bool>(&changed, "Powered")) {
                    self.change(Change::Powered(adapter, *on));
                }
            }
            _ => {}
        }
    }

    fn added(&self, message: &Message) {
        let Ok((path, interfaces)) = message.read2::<Path<'_>, HashMap<String, PropMap>>() else { return };
        if let (Some(place), Some(properties)) = (place_of(&path), interfaces.get(DEVICE)) {
            self.advert(Advert { place, sighting: sighting_of(properties) });
        } else if let (Some(adapter), true) = (adapter_of(&path), interfaces.contains_key(ADAPTER)) {
            self.change(Change::AdapterCame(adapter));
        }
    }

    fn removed(&self, message: &Message) {
        let Ok((path, interfaces)) = message.read2::<Path<'_>, Vec<String>>() else { return };
        let has = |interface: &str| interfaces.iter().any(|name| name == interface);
        if let (Some(place), true) = (place_of(&path), has(DEVICE)) {
            self.change(Change::Forgotten(place));
        } else if let (Some(adapter), true) = (adapter_of(&path), has(ADAPTER)) {
            self.change(Change::AdapterWent(adapter));
        }
    }

    fn change(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            self.flows.overflowed();
        }
    }

    fn advert(&self, advert: Advert) {
        if self.adverts.try_send(advert).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// `hci0` of `/org/bluez/hci0`.
fn adapter_of(path: &str) -> Option<Arc<str>> {
    let name = path.strip_prefix("/org/bluez/")?;
    (!name.is_empty() && !name.contains('/')).then(|| name.into())
}

/// The peripheral of `/org/bluez/hci0/dev_A0_9E_1A_00_11_22`; nothing for what lies below it.
fn place_of(path: &str) -> Option<Place> {
    let (adapter, device) = path.strip_prefix("/org/bluez/")?.split_once("/dev_")?;
    (device.len() == 17 && !adapter.contains('/') && device.bytes().all(|b| b == b'_' || b.is_ascii_hexdigit()))
        .then(|| Place { adapter: adapter.into(), address: device.replace('_', ":").into() })
}

/// The object of a peripheral.
pub(super) fn path_of(place: &Place) -> Path<'static> {
    // An address has hexadecimal digits and colons only, an adapter's name came from a path: this is always one.
    Path::from(format!("{ROOT}/{}/dev_{}", place.adapter, place.address.replace(':', "_")))
}

/// As profiles write it: four hexadecimal digits for what the Bluetooth SIG assigned, else 128 bits with hyphens.
pub(super) fn short(uuid: &str) -> Arc<str> {
    const BASE: &str = "-0000-1000-8000-00805f9b34fb";
    let full = Uuid::parse_str(uuid).map_or_else(|_| uuid.to_ascii_lowercase(), |uuid| uuid.to_string());
    match full.strip_suffix(BASE).and_then(|head| head.strip_prefix("0000")) {
        Some(assigned) => assigned.into(),
        None => full.into(),
    }
}

fn sighting_of(properties: &PropMap) -> Sighting {
    let services = prop_cast::<Vec<String>>(properties, "UUIDs");
    Sighting {
        name: prop_cast::<String>(properties, "Name").cloned(),
        rssi: prop_cast(properties, "RSSI").copied(),
        services: services.into_iter().flatten().map(|uuid| short(uuid)).collect(),
        service_data: pairs(properties, "ServiceData")
            .filter_map(|(key, value)| Some((short(key.as_str()?), value)))
            .collect(),
        manufacturer: pairs(properties, "ManufacturerData")
            .filter_map(|(key, value)| Some((u16::try_from(key.as_u64()?).ok()?, value)))
            .collect(),
        connected: prop_cast(properties, "Connected").copied(),
        paired: prop_cast(properties, "Paired").copied(),
    }
}

/// The entries of a dictionary whose values are byte arrays in variants.
fn pairs<'a>(properties: &'a PropMap, key: &str) -> impl Iterator<Item = (&'a dyn RefArg, Bytes)> {
    let dictionary = properties.get(key).and_then(|value| value.0.as_iter());
    let mut rest = dictionary.into_iter().flatten();
    std::iter::from_fn(move || {
        let (key, value) = (rest.next()?, rest.next()?);
        Some((key, bytes_of(value).unwrap_or_default()))
    })
}

fn bytes_of(value: &dyn RefArg) -> Option<Bytes> {
    let inner = value.as_iter().and_then(|mut inside| inside.next()).filter(|inside| inside.as_u64().is_none());
    let array = inner.unwrap_or(value);
    Some(array.as_iter()?.filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect())
}
