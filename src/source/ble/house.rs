//! What outlives sessions: the devices and their tasks, whose peripheral is whose, what is near, how each adapter fared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::reading::{Channel, Element};
use crate::source::ble::adapter::Adapter;
use crate::source::ble::allow::{Allow, Claim, Target, device_id};
use crate::source::ble::bluez::{AdapterInfo, Place};
use crate::source::ble::device::{self, Asked, Ends, TOLD, Told};
use crate::source::ble::flow::{Flow, Flows};
use crate::source::ble::ladder::Ladder;
use crate::source::ble::nearby::Nearby;
use crate::source::ble::worker::Sessions;
use crate::source::ble::{BleDevice, BleSettings};
use crate::source::context::Context;
use crate::source::health::{Count, DeviceHealth};

/// How many asks may wait for the session; each device has one or two.
const ASKS: usize = 256;

/// A device that is told often that it is heard learns nothing new.
const CALL_EVERY: Duration = Duration::from_secs(1);

/// A sensor that only advertises and was not heard for so long is silent, unless its entry says otherwise.
const BROADCASTER_SILENCE: Duration = Duration::from_secs(600);

/// Failures longer ago say nothing of the adapter now.
const LATELY: Duration = Duration::from_secs(120);

/// One device entry, or one sensor of a service where any may be heard.
pub(super) struct Known {
    pub(super) settings: BleDevice,
    told: mpsc::Sender<Told>,
    /// Where it has, or waits for, the radio.
    pub(super) place: Option<Place>,
    pub(super) linked: bool,
    /// The address that it was last claimed by.
    address: Option<Arc<str>>,
    called: Option<Instant>,
    failed: Option<Instant>,
    /// What its advertisements come through, where its profile decodes them.
    broadcasts: Option<Broadcasts>,
}

struct Broadcasts {
    flow: Flow,
    heard: Option<Instant>,
    silent: bool,
}

impl Known {
    /// Never waits. A device that takes nothing any more is stopping, or finds out by its own deadlines.
    pub(super) fn tell(&self, word: Told) {
        let _stopping = self.told.try_send(word).is_err();
    }
}

/// Everything that outlives a session.
pub(super) struct House {
    pub(super) settings: BleSettings,
    pub(super) context: Context,
    pub(super) health: Arc<DeviceHealth>,
    pub(super) flows: Arc<Flows>,
    pub(super) devices: Vec<Known>,
    pub(super) asks: mpsc::Receiver<(usize, Asked)>,
    pub(super) sessions: Arc<Sessions>,
    asking: mpsc::Sender<(usize, Asked)>,
    nearby: Arc<Mutex<Nearby>>,
    allow: Allow,
    ladders: BTreeMap<Arc<str>, Ladder>,
    pub(super) tasks: JoinSet<()>,
}

impl House {
    pub(super) fn new(settings: BleSettings, context: Context, nearby: Arc<Mutex<Nearby>>) -> Self {
        let (asking, asks) = mpsc::channel(ASKS);
        let targets = settings.devices.iter().chain(&settings.any).map(|device| device.target.clone());
        let mut house = House {
            health: context.health.device("bluetooth"),
            flows: Arc::new(Flows::new(context.uptime.clone())),
            devices: Vec::new(),
            asks,
            sessions: Arc::default(),
            asking,
            nearby,
            allow: Allow::new(targets.collect()),
            ladders: BTreeMap::new(),
            tasks: JoinSet::new(),
            context,
            settings,
        };
        for device in house.settings.devices.clone() {
            house.admit(device);
        }
        house
    }

    /// Takes in a device and starts its task.
    fn admit(&mut self, settings: BleDevice) -> usize {
        let number = self.devices.len();
        let (told, telling) = mpsc::channel(TOLD);
        let plan = &settings.plan;
        let broadcasts = plan.element.is_some().then(|| {
            let health = self.context.health.device(&settings.device);
            let flow = Flow::new(&settings, self.context.inlet.device(), health);
            Broadcasts { flow, heard: None, silent: false }
        });
        if plan.channels.is_empty() {
            if let Some(broadcasts) = &broadcasts {
                broadcasts.flow.health.set_state("not heard; is it switched on and near?");
            }
        } else {
            let ends = Ends { told: telling, asks: self.asking.clone(), flows: self.flows.clone() };
            self.tasks.spawn(device::run(number, settings.clone(), ends, self.context.clone()));
        }
        self.devices.push(Known {
            settings,
            told,
            place: None,
            linked: false,
            address: None,
            called: None,
            failed: None,
            broadcasts,
        });
        number
    }

    pub(super) fn nearby(&self) -> MutexGuard<'_, Nearby> {
        self.nearby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wants_adapter(&self, info: &AdapterInfo) -> bool {
        let named = |wanted: &String| **wanted == *info.name || wanted.eq_ignore_ascii_case(&info.address);
        self.settings.adapters.is_empty() || self.settings.adapters.iter().any(named)
    }

    /// How this adapter fared before, or a new ladder.
    pub(super) fn ladder(&mut self, adapter: &Arc<str>) -> Ladder {
        self.ladders.remove(adapter).unwrap_or_else(|| Ladder::new(self.settings.restart_bluetoothd))
    }

    pub(super) fn keep_ladder(&mut self, adapter: &Arc<str>, ladder: Ladder) {
        self.ladders.insert(adapter.clone(), ladder);
    }

    /// Whose this peripheral is; a sensor of a service that is heard for the first time gets a device of its own.
    pub(super) fn claim(&mut self, now: Instant, place: &Place) -> Option<usize> {
        let (name, services) = {
            let nearby = self.nearby();
            let (name, services) = nearby.heard_of(&place.adapter, &place.address).unwrap_or((None, &[]));
            (name.cloned(), services.to_vec())
        };
        match self.allow.claim(now, &place.address, name.as_deref(), &services) {
            Claim::Entry(number) if number < self.settings.devices.len() => {
                let linked = self.devices[number].linked || self.devices[number].place.is_some();
                if !linked {
                    self.devices[number].address = Some(place.address.clone());
                }
                (self.devices[number].address.as_ref() == Some(&place.address)).then_some(number)
            }
            Claim::Entry(service) => self.any(service - self.settings.devices.len(), place),
            Claim::Another(number) => {
                let device = self.devices.get(number)?;
                let health = self.context.health.device(&device.settings.device);
                health.fault(Count::Refused, 1, &format_args!("{} has a fitting name too; give it an entry", place.address));
                None
            }
            Claim::Full | Claim::NotListed => None,
        }
    }

    fn any(&mut self, service: usize, place: &Place) -> Option<usize> {
        let known = self.devices.iter().position(|device| device.address.as_ref() == Some(&place.address));
        if known.is_some() {
            return known;
        }
        let entry = self.settings.any.get(service)?.clone();
        let target = Target::Address(place.address.clone());
        let number = self.admit(BleDevice { device: device_id(&place.address).into(), target, ..entry });
        self.devices[number].address = Some(place.address.clone());
        Some(number)
    }

    /// Tells a device that it was heard.
    pub(super) fn call(&mut self, number: usize, now: Instant) {
        let Some(device) = self.devices.get_mut(number) else { return };
        let soon = device.called.is_some_and(|called| now.duration_since(called) < CALL_EVERY);
        if device.linked || soon || device.settings.plan.channels.is_empty() {
            return;
        }
        device.called = Some(now);
        device.tell(Told::Heard);
    }

    /// Delivers the element that the device's profile decodes.
    pub(super) fn broadcast(
        &mut self,
        number: usize,
        place: &Place,
        service_data: &[(Arc<str>, Bytes)],
        manufacturer: &[(u16, Bytes)],
    ) {
        let Some(device) = self.devices.get_mut(number) else { return };
        let (Some(broadcasts), Some(element)) = (&mut device.broadcasts, &device.settings.plan.element) else { return };
        let bytes = match element {
            Element::ServiceData(uuid) => service_data.iter().find(|(id, _)| id == uuid).map(|(_, bytes)| bytes),
            Element::Manufacturer(company) => manufacturer.iter().find(|(id, _)| id == company).map(|(_, bytes)| bytes),
        };
        let Some(bytes) = bytes else { return };
        let heard = (self.context.uptime)();
        let channel = Channel::Advertisement { address: place.address.clone(), element: element.clone() };
        let reading = broadcasts.flow.reading(channel, bytes.clone(), heard);
        broadcasts.flow.health.heard(heard);
        broadcasts.heard = Some(Instant::now());
        if broadcasts.flow.inlet.try_deliver(reading, None, None).is_err() {
            broadcasts.flow.health.fault(Count::Flooded, 1, &"advertises more than can be taken");
        }
        if device.settings.plan.channels.is_empty() {
            broadcasts.silent = false;
            broadcasts.flow.health.set_state("receiving");
        }
    }

    /// Finds sensors that only advertise and have fallen silent.
    pub(super) fn look_at_broadcasters(&mut self, now: Instant) {
        for device in self.devices.iter_mut().filter(|device| device.settings.plan.channels.is_empty()) {
            let Some(broadcasts) = &mut device.broadcasts else { continue };
            let silence = device.settings.silence.unwrap_or(BROADCASTER_SILENCE);
            let silent = broadcasts.heard.is_some_and(|heard| now.duration_since(heard) > silence);
            if silent && !broadcasts.silent {
                broadcasts.silent = true;
                broadcasts.flow.health.count(Count::Silences, 1);
                broadcasts.flow.health.set_state(&format!("not heard for {} s", silence.as_secs()));
            }
        }
    }

    /// The device whose radio is at this place.
    pub(super) fn device_at(&mut self, place: &Place) -> Option<&mut Known> {
        self.devices.iter_mut().find(|device| device.place.as_ref() == Some(place))
    }

    /// Where to reach a device: the adapter that hears it best and still has room, else the one that hears it.
    pub(super) fn best_place(&self, number: usize, adapters: &BTreeMap<Arc<str>, Adapter>) -> Option<Place> {
        let address = self.devices.get(number)?.address.clone()?;
        let nearby = self.nearby();
        let hears = |adapter: &&Adapter| nearby.heard_of(&adapter.name, &address).is_some();
        let best = nearby.best_adapter(&address).map(|(name, _)| name);
        let room = |adapter: &&Adapter| adapter.turns.links() + adapter.turns.waiting() < self.settings.max_links;
        let best = best.and_then(|name| adapters.get(&name));
        let adapter = best.filter(room).or_else(|| adapters.values().filter(hears).find(room)).or(best)?;
        Some(Place { adapter: adapter.name.clone(), address })
    }

    /// How many devices of this adapter failed lately, this one included.
    pub(super) fn failing_on(&mut self, adapter: &Arc<str>, number: usize, now: Instant) -> usize {
        if let Some(device) = self.devices.get_mut(number) {
            device.failed = Some(now);
        }
        let here = |device: &&Known| device.place.as_ref().is_some_and(|place| place.adapter == *adapter);
        let lately = |device: &&Known| device.failed.is_some_and(|failed| now.duration_since(failed) < LATELY);
        self.devices.iter().filter(here).filter(lately).count()
    }

    /// The places of devices without a link on this adapter.
    pub(super) fn unlinked_places(&self, adapter: &Arc<str>) -> Vec<Place> {
        let here = self.devices.iter().filter(|device| !device.linked).filter_map(|device| device.place.clone());
        here.filter(|place| place.adapter == *adapter).collect()
    }

    /// Whether anything is listened for: a sensor that advertises, or one without a link, or any sensor.
    pub(super) fn wants_scan(&self, _now: Instant) -> bool {
        !self.settings.any.is_empty()
            || self.devices.is_empty()
            || self.devices.iter().any(|device| device.broadcasts.is_some() || !device.linked)
    }
}
