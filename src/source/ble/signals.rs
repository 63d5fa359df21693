//! BlueZ's signals, taken apart in the connection's own callback: values of characteristics go straight to their
//! [`Flows`], advertisements to a bounded channel (what does not fit is counted), and what must not be missed to another;
//! if that one ever overflows the session is over and begins anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use dbus::Path;
use dbus::arg::{PropMap, RefArg, prop_cast};
use dbus::message::Message;
use tokio::sync::mpsc;

use crate::source::ble::flow::Flows;
use crate::source::ble::nearby::Sighting;
use crate::source::ble::place::{ADAPTER, BLUEZ, CHARACTERISTIC, DEVICE, Place, adapter_of, place_of, short};

/// How many changes may wait for the session; it takes each within microseconds.
const CHANGES: usize = 1_024;

/// How many advertisements may wait; a busy street sends some hundred a second.
const ADVERTS: usize = 512;

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

/// Where the signals of a bus come out.
pub(super) struct Signals {
    pub(super) changes: mpsc::Receiver<Change>,
    pub(super) adverts: mpsc::Receiver<Advert>,
}

/// Takes signals apart, in the connection's own callback.
#[derive(Clone)]
pub(super) struct Taker {
    flows: Arc<Flows>,
    changes: mpsc::Sender<Change>,
    adverts: mpsc::Sender<Advert>,
    dropped: Arc<AtomicU64>,
}

impl Taker {
    /// One that counts in `dropped` the advertisements that found no place, and where its signals come out.
    pub(super) fn new(flows: Arc<Flows>, dropped: Arc<AtomicU64>) -> (Self, Signals) {
        let (changes, changed) = mpsc::channel(CHANGES);
        let (adverts, heard) = mpsc::channel(ADVERTS);
        (Taker { flows, changes, adverts, dropped }, Signals { changes: changed, adverts: heard })
    }

    /// True: go on listening.
    pub(super) fn take(&self, message: &Message) -> bool {
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

/// What an object's properties tell of a peripheral.
pub(super) fn sighting_of(properties: &PropMap) -> Sighting {
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
