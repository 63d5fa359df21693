//! Everything alive on one connection to the bus: adapters that come and go, who is heard, whose turn it is.
//!
//! One loop hears the bus, the devices and the adapters' workers, and never waits for a call itself. It lives through
//! restarts of bluetoothd; it ends when the bus closes the connection, and a new one begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use crate::source::ble::adapter::Adapter;
use crate::source::ble::bluez::{AdapterInfo, Bus, CallError};
use crate::source::ble::house::House;
use crate::source::ble::ladder::{Rung, Sign, Symptom};
use crate::source::ble::place::Place;
use crate::source::ble::signals::{Advert, Change, Signals};
use crate::source::ble::survey::NO_ADAPTER;
use crate::source::ble::talk::Radio;
use crate::source::ble::told::{Asked, Told};
use crate::source::ble::turns::Turn;
use crate::source::ble::worker::{Done, Order, Worker};
use crate::source::health::{Count, Kind};

/// How often adapters and broadcasters are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Peripherals that were not heard for so long are forgotten.
const UNHEARD: Duration = Duration::from_secs(120);

/// How many results of orders may wait.
const DONES: usize = 256;

/// bluetoothd is asked for again so often while it does not run; its coming is heard besides.
const NO_BLUETOOTHD: Duration = Duration::from_secs(15);

/// Why a session ended.
pub(super) enum Ended {
    Stopping,
    Lost(CallError),
}

/// What is alive on one connection.
pub(super) struct Session<'a> {
    house: &'a mut House,
    bus: Arc<Bus>,
    adapters: BTreeMap<Arc<str>, Adapter>,
    dones: mpsc::Sender<Done>,
    /// When to ask for bluetoothd again.
    ask_again: Option<Instant>,
}

/// Runs until the bus is lost or the sources stop.
pub(super) async fn run(house: &mut House) -> Ended {
    let opened = Bus::open(house.flows.clone()).await;
    let (bus, signals) = match opened {
        Ok(opened) => opened,
        Err(why) => return Ended::Lost(why),
    };
    let (dones, done) = mpsc::channel(DONES);
    let mut session =
        Session { house, bus: Arc::new(bus), adapters: BTreeMap::new(), dones, ask_again: Some(Instant::now()) };
    let ended = session.live(signals, done).await;
    session.radio_gone(None);
    ended
}

impl Session<'_> {
    async fn live(&mut self, mut signals: Signals, mut done: mpsc::Receiver<Done>) -> Ended {
        let mut stop = self.house.context.stop.clone();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ask_again = self.ask_again;
            tokio::select! {
                biased;
                () = stop.wait() => return Ended::Stopping,
                Some(change) = signals.changes.recv() => self.changed(change),
                Some(done) = done.recv() => self.done(done),
                Some((device, asked)) = self.house.asks.recv() => self.asked(device, asked),
                Some(advert) = signals.adverts.recv() => self.heard(advert),
                Ok(()) = self.house.news.changed() => self.house.follow(),
                () = async { match ask_again { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {
                    self.take_stock().await;
                }
                _ = look.tick() => self.look(),
            }
            if self.bus.is_lost() {
                return Ended::Lost(CallError::NoBus("it closed the connection".to_owned()));
            }
            if self.house.flows.take_overflow() {
                return Ended::Lost(CallError::NoBus("more changes came than can be taken".to_owned()));
            }
            self.follow_turns();
        }
    }

    /// Asks BlueZ what there is: at the start, when bluetoothd came back, and now and then while it does not run.
    async fn take_stock(&mut self) {
        match self.bus.known().await {
            Ok(known) => {
                self.ask_again = None;
                let (now, none) = (Instant::now(), known.adapters.is_empty());
                for adapter in known.adapters {
                    self.adapter_came(now, &adapter);
                }
                for (place, sighting, linked) in known.peripherals {
                    self.house.nearby().hear(now, &place.adapter, &place.address, sighting);
                    if linked {
                        self.call(now, &place);
                    }
                }
                if none {
                    self.house.health.set_trouble(NO_ADAPTER);
                } else if self.adapters.is_empty() {
                    let wanted = self.house.settings.adapters.join(", ");
                    self.house.health.set_trouble(&format!("none of the adapters {wanted} is there"));
                } else {
                    self.house.health.set_state("running");
                }
            }
            Err(why) => {
                self.house.health.set_trouble(&why.to_string());
                self.ask_again = Some(Instant::now() + NO_BLUETOOTHD);
            }
        }
    }

    fn adapter_came(&mut self, now: Instant, info: &AdapterInfo) {
        if !self.house.wants_adapter(info) || self.adapters.contains_key(&info.name) {
            return;
        }
        let name = info.name.clone();
        let worker = Worker::start(name.clone(), self.bus.clone(), self.house.sessions.clone(), self.dones.clone());
        let health = self.house.context.health.device(&format!("adapter {name}"));
        health.set_kind(Kind::Radio);
        health.set_state("found");
        let ladder = self.house.ladder(&name);
        let adapter = Adapter::new(name.clone(), self.house.settings.max_links, ladder, health, worker, now);
        self.adapters.insert(name, adapter);
    }

    fn adapter_went(&mut self, name: &Arc<str>) {
        if let Some(adapter) = self.adapters.remove(name) {
            adapter.health.count(Count::Disconnects, 1);
            adapter.health.set_state("gone; plug it in again");
            self.house.keep_ladder(name, adapter.ladder);
        }
        self.radio_gone(Some(name));
    }

    /// Every device on this adapter, or on any, is without a radio.
    fn radio_gone(&mut self, adapter: Option<&Arc<str>>) {
        if adapter.is_none() {
            for (name, adapter) in std::mem::take(&mut self.adapters) {
                self.house.keep_ladder(&name, adapter.ladder);
            }
        }
        let now = Instant::now();
        for number in 0..self.house.devices.len() {
            let place = self.house.devices.get(number).and_then(|device| device.place.as_ref());
            // One that waits or rests begins anew with a new bluetoothd, and not with another adapter.
            let concerned = match (place, adapter) {
                (Some(place), Some(name)) => place.adapter == *name,
                (Some(_) | None, None) => true,
                (None, Some(_)) => false,
            };
            if !concerned {
                continue;
            }
            // An adapter that stays, without power, has no links any more.
            self.of(number, |adapter| {
                adapter.turns.freed(now, number);
                adapter.turns.withdraw(now, number);
            });
            self.house.freed(now, number);
            if let Some(device) = self.house.devices.get(number) {
                device.tell(Told::RadioGone);
            }
        }
    }

    fn changed(&mut self, change: Change) {
        let now = Instant::now();
        match change {
            Change::Bluetoothd(true) => self.ask_again = Some(now),
            Change::Bluetoothd(false) => {
                warn!("bluetoothd has left the bus; all links are lost until it is back");
                self.house.health.count_named("bluetoothd_gone", 1);
                self.house.health.set_trouble("bluetoothd does not run; waiting for it");
                self.radio_gone(None);
                self.ask_again = Some(now + NO_BLUETOOTHD);
            }
            Change::AdapterCame(_) => self.ask_again = Some(now),
            Change::AdapterWent(name) => {
                self.adapter_went(&name);
                self.ask_again = Some(now + LOOK);
            }
            Change::Powered(name, true) => {
                if let Some(adapter) = self.adapters.get_mut(&name) {
                    adapter.follow_scan(now, true);
                }
            }
            Change::Powered(name, false) => {
                self.radio_gone(Some(&name));
                // Off and on again is one of our own cures.
                let adapter = self.adapters.get_mut(&name).filter(|adapter| !adapter.is_cycling());
                let rung = adapter.and_then(|adapter| adapter.sick(now, Symptom::NotPowered));
                self.climb(now, &name, rung);
            }
            Change::Linked(place, linked) => self.house.linked(now, &place, linked),
            Change::Forgotten(place) => self.house.nearby().forget(&place.adapter, &place.address),
        }
    }

    /// An advertisement: of whom, for whom.
    fn heard(&mut self, advert: Advert) {
        let now = Instant::now();
        let Advert { place, sighting } = advert;
        let Some(adapter) = self.adapters.get_mut(&place.adapter) else { return };
        adapter.heard(now);
        let elements = (sighting.service_data.clone(), sighting.manufacturer.clone());
        self.house.nearby().hear(now, &place.adapter, &place.address, sighting);
        let Some(number) = self.house.claim(now, &place) else { return };
        self.house.broadcast(number, &place, &elements.0, &elements.1);
        self.house.call(number, now);
    }

    /// A peripheral that BlueZ holds a link to was ours before a restart.
    fn call(&mut self, now: Instant, place: &Place) {
        if let Some(number) = self.house.claim(now, place) {
            self.house.call(number, now);
        }
    }

    fn asked(&mut self, number: usize, asked: Asked) {
        let now = Instant::now();
        match asked {
            Asked::Radio(kind) => {
                let place = self.house.best_place(number, &self.adapters);
                let Some(device) = self.house.devices.get_mut(number) else { return };
                match place.and_then(|place| Some((self.adapters.get_mut(&place.adapter)?, place))) {
                    Some((adapter, place)) => {
                        device.place = Some(place);
                        adapter.turns.ask(now, number, kind);
                    }
                    None => device.tell(Told::RadioGone),
                }
            }
            Asked::Free => {
                self.of(number, |adapter| {
                    adapter.turns.freed(now, number);
                    adapter.turns.withdraw(now, number);
                });
                self.house.freed(now, number);
            }
            Asked::Linked => self.of(number, |adapter| adapter.turns.connected(now, number)),
            Asked::Connected => {
                self.of(number, |adapter| {
                    adapter.turns.connected(now, number);
                    adapter.ladder.well(now, Sign::Link);
                });
                self.house.connected(number);
            }
            Asked::Failed { hung } => {
                // Of a link that lasted, and was lost, the turns learn when it is freed.
                self.of(number, |adapter| {
                    if adapter.turns.connecting() == Some(number) {
                        adapter.turns.failed(now, number);
                    }
                });
                self.failed(now, number, hung);
            }
            Asked::Flowing => self.of(number, |adapter| adapter.ladder.well(now, Sign::Value)),
            Asked::Forget => {
                let place = self.house.devices.get(number).and_then(|device| device.place.clone());
                self.of(number, |adapter| {
                    info!(
                        device = number,
                        "bluetoothd is made to forget it: its cache or a phantom link may be the cause"
                    );
                    adapter.health.count_named("devices_forgotten", 1);
                    adapter.forget(now, place.into_iter().collect());
                });
            }
        }
    }

    fn of(&mut self, number: usize, act: impl FnOnce(&mut Adapter)) {
        let place = self.house.devices.get(number).and_then(|device| device.place.as_ref());
        if let Some(adapter) = place.and_then(|place| self.adapters.get_mut(&place.adapter)) {
            act(adapter);
        }
    }

    /// One device's failures are its own; an adapter on which several fail and none streams is sick.
    fn failed(&mut self, now: Instant, number: usize, hung: bool) {
        let symptom = if hung { Symptom::CallHung } else { Symptom::LinksFail };
        let Some(place) = self.house.devices.get(number).and_then(|device| device.place.clone()) else { return };
        let alone = self.house.failing_on(&place.adapter, number, now) < 2;
        let Some(adapter) = self.adapters.get_mut(&place.adapter) else { return };
        if alone || adapter.turns.links() > 0 {
            return;
        }
        let rung = adapter.sick(now, symptom);
        self.climb(now, &place.adapter, rung);
    }

    fn climb(&mut self, now: Instant, name: &Arc<str>, rung: Option<Rung>) {
        match rung {
            Some(Rung::RemoveDevices) => {
                let places = self.house.unlinked_places(name);
                if let Some(adapter) = self.adapters.get_mut(name) {
                    adapter.forget(now, places);
                }
            }
            Some(Rung::PowerCycle) => self.radio_gone(Some(name)),
            // It would cut the links of the others too.
            Some(Rung::RestartBluetoothd) if self.adapters.values().any(|adapter| adapter.turns.links() > 0) => {
                info!(adapter = &**name, "bluetoothd is not restarted while other adapters have links");
            }
            Some(Rung::RestartBluetoothd) => {
                let bus = self.bus.clone();
                tokio::spawn(async move {
                    if let Err(why) = bus.restart_bluetoothd().await {
                        warn!("bluetoothd cannot be restarted: {why}");
                    }
                });
            }
            Some(Rung::GiveUp | Rung::RestartScan | Rung::NewSession) | None => {}
        }
    }

    fn done(&mut self, done: Done) {
        let now = Instant::now();
        let Some(adapter) = self.adapters.get_mut(&done.adapter) else { return };
        adapter.answered(now, &done.order, done.result.is_ok());
        let rung = match (&done.order, done.result) {
            (Order::QuietFor(number), Ok(central)) => {
                let Some(device) = self.house.devices.get_mut(*number) else { return };
                let here = device.place.clone().filter(|place| place.adapter == done.adapter);
                let Some(place) = here else { return adapter.turns.withdraw(now, *number) };
                device.tell(Told::Turn(Radio { bus: self.bus.clone(), central, place }));
                None
            }
            (Order::QuietFor(number), Err(why)) => {
                adapter.turns.failed(now, *number);
                if let Some(device) = self.house.devices.get_mut(*number) {
                    device.tell(Told::RadioGone);
                }
                adapter.failed(now, &done.order, &why)
            }
            (Order::Scan | Order::RestartScan | Order::Renew | Order::PowerCycle, Ok(_)) => {
                adapter.scanning(now);
                None
            }
            (Order::Quiet | Order::Forget(_), Ok(_)) => None,
            (order, Err(why)) => adapter.failed(now, order, &why),
        };
        self.climb(now, &done.adapter, rung);
    }

    fn look(&mut self) {
        let now = Instant::now();
        self.house.nearby().forget_unheard(now, UNHEARD);
        self.house.look_at_broadcasters(now);
        let dropped = self.bus.dropped.swap(0, Relaxed);
        self.house.health.fault(Count::Flooded, dropped, &"more advertisements than can be taken");
        let silent: Vec<(Arc<str>, Option<Rung>)> =
            self.adapters.values_mut().map(|adapter| (adapter.name.clone(), adapter.look(now))).collect();
        for (name, rung) in silent {
            self.climb(now, &name, rung);
        }
    }

    /// Gives turns, and pauses or resumes the scans.
    fn follow_turns(&mut self) {
        let now = Instant::now();
        let wanted = self.house.wants_scan(now);
        for adapter in self.adapters.values_mut() {
            while let Some(turn) = adapter.turns.next(now) {
                match turn {
                    Turn::Connect(number) => adapter.quiet_for(now, number),
                    Turn::Yield(number) => {
                        if let Some(device) = self.house.devices.get_mut(number) {
                            device.tell(Told::Yield);
                        }
                    }
                }
            }
            adapter.follow_scan(now, wanted);
        }
    }
}
