//! What outlives sessions: the devices and their tasks, whose peripheral is whose, what is near, how each adapter fared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

use crate::reading::{Channel, Element};
use crate::source::ble::adapter::Adapter;
use crate::source::ble::allow::{self, Allow, Claim, Seen, Target, device_id};
use crate::source::ble::bluez::AdapterInfo;
use crate::source::ble::device::{self, Ends};
use crate::source::ble::flow::{Flow, Flows};
use crate::source::ble::ladder::Ladder;
use crate::source::ble::nearby::Nearby;
use crate::source::ble::place::Place;
use crate::source::ble::told::{Asked, TOLD, Told};
use crate::source::ble::worker::Sessions;
use crate::source::ble::{BleDevice, BleSettings};
use crate::source::context::Context;
use crate::source::health::{Count, DeviceHealth, Kind};

/// How many asks may wait for the session; each device has one or two.
const ASKS: usize = 256;

/// A device that is told often that it is heard learns nothing new.
const CALL_EVERY: Duration = Duration::from_secs(1);

/// A sensor that only advertises and was not heard for so long is silent, unless its entry says otherwise.
const BROADCASTER_SILENCE: Duration = Duration::from_secs(600);

/// Sensors of services in the life of a process, those included whose address was another one before.
const MOST_OF_SERVICES: usize = 256;

/// Failures longer ago say nothing of the adapter now.
const LATELY: Duration = Duration::from_secs(120);

/// Services are known to the allow list by numbers that no device has.
const SERVICES: usize = usize::MAX / 2;

/// One device entry, or one sensor of a service where any may be heard.
pub(super) struct Known {
    pub(super) settings: BleDevice,
    /// Gone when its entry is: then its task ends the link and itself.
    told: Option<mpsc::Sender<Told>>,
    /// It is one of a service's sensors and has no entry of its own.
    of_service: bool,
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
        let _stopping = self.told.as_ref().is_none_or(|told| told.try_send(word).is_err());
    }

    fn is_gone(&self) -> bool {
        self.told.is_none()
    }
}

/// Everything that outlives a session.
pub(super) struct House {
    pub(super) settings: BleSettings,
    /// Where new settings come from.
    pub(super) news: watch::Receiver<BleSettings>,
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
    pub(super) fn new(mut news: watch::Receiver<BleSettings>, context: Context, nearby: Arc<Mutex<Nearby>>) -> Self {
        let (asking, asks) = mpsc::channel(ASKS);
        let settings = news.borrow_and_update().clone();
        let health = context.health.device("bluetooth");
        health.set_kind(Kind::Radio);
        let mut house = House {
            health,
            flows: Arc::new(Flows::new(context.uptime.clone())),
            devices: Vec::new(),
            asks,
            sessions: Arc::default(),
            asking,
            nearby,
            allow: Allow::new(&[]),
            ladders: BTreeMap::new(),
            tasks: JoinSet::new(),
            context,
            settings,
            news,
        };
        house.follow();
        house
    }

    /// Takes the newest settings: devices whose entries are as before go on, the others end or begin.
    pub(super) fn follow(&mut self) {
        self.settings = self.news.borrow_and_update().clone();
        let wanted = self.settings.devices.clone();
        let services: BTreeSet<Arc<str>> = self.settings.any.iter().map(|any| any.entry.clone()).collect();
        for device in self.devices.iter_mut().filter(|device| !device.is_gone()) {
            let stays = match device.of_service {
                true => services.contains(&device.settings.entry),
                false => wanted.contains(&device.settings),
            };
            if !stays {
                device.told = None;
                device.broadcasts = None;
            }
        }
        for settings in wanted {
            if !self.devices.iter().any(|device| !device.is_gone() && device.settings == settings) {
                self.admit(settings, false);
            }
        }
        self.allow_again();
    }

    /// The allow list anew, with what the devices are bound to.
    fn allow_again(&mut self) {
        let listed = self.devices.iter().enumerate().filter(|(_, device)| !device.is_gone() && !device.of_service);
        let listed = listed.map(|(number, device)| (number, device.settings.target.clone()));
        let services = self.settings.any.iter().enumerate().map(|(at, any)| (SERVICES + at, any.target.clone()));
        self.allow = Allow::new(&listed.chain(services).collect::<Vec<_>>());
        let now = Instant::now();
        let bound: Vec<Place> = self.devices.iter().filter_map(|device| device.place.clone()).collect();
        for place in bound {
            self.claim(now, &place);
            self.allow.linked(&place.address);
        }
    }

    /// Takes in a device and starts its task.
    fn admit(&mut self, settings: BleDevice, of_service: bool) -> usize {
        let number = self.devices.len();
        let (told, telling) = mpsc::channel(TOLD);
        let plan = &settings.plan;
        let broadcasts = plan.element.is_some().then(|| {
            let health = self.context.health.device(&settings.device);
            health.set_kind(Kind::Bluetooth);
            let flow = Flow::new(&settings, self.context.inlet.device(), health);
            Broadcasts { flow, heard: None, silent: false }
        });
        if plan.channels.is_empty() {
            if let Some(broadcasts) = &broadcasts {
                broadcasts.flow.health.set_in_reach(false);
                broadcasts.flow.health.set_trouble("not heard; is it switched on and near?");
            }
        } else {
            let ends = Ends { told: telling, asks: self.asking.clone(), flows: self.flows.clone() };
            self.tasks.spawn(device::run(number, settings.clone(), ends, self.context.clone()));
        }
        self.devices.push(Known {
            settings,
            told: Some(told),
            of_service,
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
        is_named(&self.settings.adapters, &info.name, &info.address)
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
        let seen = Seen { address: &place.address, name: name.as_deref(), services: &services };
        match self.allow.claim(now, seen) {
            Claim::Device(number) => {
                let device = self.devices.get_mut(number)?;
                if device.place.is_none() {
                    device.address = Some(place.address.clone());
                }
                (device.address.as_ref() == Some(&place.address)).then_some(number)
            }
            Claim::OfService(number) => self.any(number - SERVICES, place),
            Claim::Another(number, told) => {
                let health = self.context.health.device(&self.devices.get(number)?.settings.device);
                health.count(Count::Refused, 1);
                if told == allow::Told::Now {
                    warn!(source = &**health.name(), "{} has a fitting name too; give it an entry", place.address);
                }
                None
            }
            Claim::TooMany(_, told) => {
                self.health.count(Count::Refused, 1);
                if told == allow::Told::Now {
                    warn!("{} is one sensor too many of its service; give it an entry", place.address);
                }
                None
            }
            Claim::NotListed => None,
        }
    }

    fn any(&mut self, service: usize, place: &Place) -> Option<usize> {
        let is_it = |device: &Known| !device.is_gone() && device.address.as_ref() == Some(&place.address);
        let known = self.devices.iter().position(is_it);
        if known.is_some() {
            return known;
        }
        if self.devices.iter().filter(|device| device.of_service).count() >= MOST_OF_SERVICES {
            self.health.count(Count::Refused, 1);
            return None;
        }
        let entry = self.settings.any.get(service)?.clone();
        let target = Target::Address(place.address.clone());
        let number = self.admit(BleDevice { device: device_id(&place.address).into(), target, ..entry }, true);
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
            broadcasts.flow.health.set_in_reach(true);
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
                broadcasts.flow.health.set_in_reach(false);
                broadcasts.flow.health.count(Count::Silences, 1);
                broadcasts.flow.health.set_trouble(&format!("not heard for {} s", silence.as_secs()));
            }
        }
    }

    /// A link came up or went down: a linked sensor does not advertise and stays whose it is.
    pub(super) fn linked(&mut self, now: Instant, place: &Place, linked: bool) {
        let Some(device) = self.devices.iter_mut().find(|device| device.place.as_ref() == Some(place)) else { return };
        device.linked = linked;
        device.tell(if linked { Told::Linked } else { Told::Dropped });
        match linked {
            true => self.allow.linked(&place.address),
            false => self.allow.freed(now, &place.address),
        }
    }

    /// The device has the radio no longer.
    pub(super) fn freed(&mut self, now: Instant, number: usize) {
        let Some(device) = self.devices.get_mut(number) else { return };
        device.linked = false;
        if let Some(place) = device.place.take() {
            self.allow.freed(now, &place.address);
        }
    }

    /// The device's link is made, also where BlueZ had it from before.
    pub(super) fn connected(&mut self, number: usize) {
        let Some(device) = self.devices.get_mut(number) else { return };
        device.linked = true;
        if let Some(place) = &device.place {
            self.allow.linked(&place.address);
        }
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
    pub(super) fn wants_scan(&self, now: Instant) -> bool {
        self.nearby().is_asked_for(now)
            || !self.settings.any.is_empty()
            || self.devices.iter().any(|device| !device.is_gone() && (device.broadcasts.is_some() || !device.linked))
    }
}

/// Whether an adapter is among those that are wanted, by name or address; all are where none is named.
pub(super) fn is_named(wanted: &[String], name: &str, address: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| wanted == name || wanted.eq_ignore_ascii_case(address))
}
