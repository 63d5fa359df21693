//! The values of subscribed characteristics, from the bus's callback to the intake.
//!
//! A notification that finds no place is dropped and counted: the sensor says the next one soon. An indication or a
//! stored record is kept for its device's task, which waits for a place.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::reading::{Channel, Heard, Reading};
use crate::source::ble::BleDevice;
use crate::source::ble::place::{Place, path_of};
use crate::source::context::Uptime;
use crate::source::delivery::DeviceInlet;
use crate::source::health::{Count, DeviceHealth};

/// How many indications and stored records of one device may wait for a place.
pub(super) const KEPT: usize = 4_096;

/// Longer values than an attribute can have (Bluetooth Core, Vol 3 Part F, 3.2.9) are no values.
const LONGEST_VALUE: usize = 512;

/// All subscribed characteristics, by the path of their object.
pub(super) struct Flows {
    routes: Mutex<HashMap<String, Route>>,
    uptime: Uptime,
    overflowed: AtomicBool,
}

/// Where the values of one characteristic go.
#[derive(Clone)]
pub(super) struct Route {
    /// The device, its entry, health and way in.
    pub(super) flow: Arc<Flow>,
    /// The characteristic as profiles name it.
    pub(super) channel: Arc<str>,
    /// Set where no value may be dropped.
    pub(super) kept: Option<mpsc::Sender<Reading>>,
}

/// One device's stream of values.
pub(super) struct Flow {
    pub(super) device: Arc<str>,
    pub(super) entry: Arc<str>,
    pub(super) inlet: DeviceInlet,
    pub(super) health: Arc<DeviceHealth>,
    /// Values since the start.
    pub(super) values: AtomicU64,
    /// Rings at the first value of a subscription.
    pub(super) first: Notify,
    /// Whether the next value is the first of a subscription.
    pub(super) fresh: AtomicBool,
}

impl Flow {
    pub(super) fn new(settings: &BleDevice, inlet: DeviceInlet, health: Arc<DeviceHealth>) -> Self {
        Flow {
            device: settings.device.clone(),
            entry: settings.entry.clone(),
            inlet,
            health,
            values: AtomicU64::new(0),
            first: Notify::new(),
            fresh: AtomicBool::new(false),
        }
    }

    /// A reading of this device.
    pub(super) fn reading(&self, channel: Channel, bytes: Bytes, heard: Heard) -> Reading {
        Reading { device: self.device.clone(), entry: self.entry.clone(), channel, bytes, heard }
    }
}

impl Flows {
    pub(super) fn new(uptime: Uptime) -> Self {
        Flows { routes: Mutex::default(), uptime, overflowed: AtomicBool::new(false) }
    }

    /// The uptime.
    pub(super) fn now(&self) -> Heard {
        (self.uptime)()
    }

    /// From here on the values at this path go there.
    pub(super) fn open(&self, path: &str, route: Route) {
        lock(&self.routes).insert(path.to_owned(), route);
    }

    /// Nothing of this peripheral is heard any more.
    pub(super) fn close(&self, place: &Place) {
        let below = format!("{}/", path_of(place));
        lock(&self.routes).retain(|path, _| !path.starts_with(&below));
    }

    /// A value came.
    pub(super) fn value(&self, path: &str, value: &[u8]) {
        let route = lock(&self.routes).get(path).cloned();
        let Some(Route { flow, channel, kept }) = route else { return };
        let heard = (self.uptime)();
        flow.values.fetch_add(1, Relaxed);
        if flow.fresh.swap(false, Relaxed) {
            flow.first.notify_one();
        }
        if value.len() > LONGEST_VALUE {
            return flow.health.fault(Count::Oversized, 1, &channel);
        }
        flow.health.heard(heard);
        let reading = flow.reading(Channel::Gatt(channel.clone()), Bytes::copy_from_slice(value), heard);
        let refused = match &kept {
            Some(kept) => kept.try_send(reading).is_err(),
            None => flow.inlet.try_deliver(reading, None, None).is_err(),
        };
        if refused {
            flow.health.fault(Count::Flooded, 1, &format_args!("{channel} sends more than can be taken"));
        }
    }

    /// A change that must not be missed found no place.
    pub(super) fn overflowed(&self) {
        self.overflowed.store(true, Relaxed);
    }

    /// Whether that happened since the last time this was asked.
    pub(super) fn take_overflow(&self) -> bool {
        self.overflowed.swap(false, Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
