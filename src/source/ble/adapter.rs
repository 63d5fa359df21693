//! One adapter as the session keeps it: who has its links, whether it scans, and how it is healed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::source::ble::bluez::CallError;
use crate::source::ble::ladder::{Ladder, Rung, Sign, Symptom, silence_after};
use crate::source::ble::place::Place;
use crate::source::ble::turns::Turns;
use crate::source::ble::worker::{Order, Worker};
use crate::source::health::DeviceHealth;

/// A scan that was refused for a reason that only a person mends is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// One adapter that is there.
pub(super) struct Adapter {
    pub(super) name: Arc<str>,
    pub(super) turns: Turns,
    pub(super) ladder: Ladder,
    pub(super) health: Arc<DeviceHealth>,
    worker: Worker,
    scan: Scan,
    /// It was said that nothing is listened for.
    rests: bool,
    /// When it last heard anything, or began to listen.
    heard: Instant,
    /// It is being switched off and on.
    cycling: bool,
}

/// Whether it hears advertisements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scan {
    Off,
    /// Ordered and not done.
    Starting,
    On,
    /// Refused; not before then again.
    Refused(Instant),
}

impl Adapter {
    pub(super) fn new(
        name: Arc<str>,
        max_links: usize,
        ladder: Ladder,
        health: Arc<DeviceHealth>,
        worker: Worker,
        now: Instant,
    ) -> Self {
        Adapter {
            name,
            turns: Turns::new(max_links),
            ladder,
            health,
            worker,
            scan: Scan::Off,
            rests: false,
            heard: now,
            cycling: false,
        }
    }

    /// Scans while somebody wants it and nobody connects.
    pub(super) fn follow_scan(&mut self, now: Instant, wanted: bool) {
        let wanted = wanted && self.turns.connecting().is_none();
        match self.scan {
            Scan::Off if wanted => self.start_scan(now),
            Scan::Refused(until) if wanted && now >= until => self.start_scan(now),
            Scan::On | Scan::Starting if !wanted && self.turns.connecting().is_none() => {
                self.scan = Scan::Off;
                self.order(now, Order::Quiet);
            }
            Scan::Off if !self.rests && self.turns.connecting().is_none() => {
                self.rests = true;
                self.health.set_state("every sensor has its link; nothing else is listened for");
            }
            Scan::Off | Scan::On | Scan::Starting | Scan::Refused(_) => {}
        }
    }

    fn start_scan(&mut self, now: Instant) {
        self.scan = Scan::Starting;
        self.rests = false;
        self.heard = now;
        self.order(now, Order::Scan);
    }

    /// The scan pauses; the device connects when that is done.
    pub(super) fn quiet_for(&mut self, now: Instant, device: usize) {
        self.scan = Scan::Off;
        self.rests = false;
        self.order(now, Order::QuietFor(device));
    }

    /// The worker takes it, or hangs.
    pub(super) fn order(&mut self, now: Instant, order: Order) {
        if !self.worker.order(order) {
            self.sick(now, Symptom::CallHung);
        }
    }

    /// An advertisement was heard.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.ladder.well(now, Sign::Advertisement);
    }

    /// Whether it is off because we switched it off.
    pub(super) fn is_cycling(&self) -> bool {
        self.cycling
    }

    /// The worker is done with an order, well or not.
    pub(super) fn answered(&mut self, now: Instant, order: &Order, well: bool) {
        if *order == Order::PowerCycle {
            self.cycling = false;
        }
        if well {
            self.ladder.well(now, Sign::Answer);
        }
    }

    /// An order that makes it scan is done.
    pub(super) fn scanning(&mut self, now: Instant) {
        if self.turns.connecting().is_none() {
            self.scan = Scan::On;
            self.heard = now;
            self.health.set_state("listening");
        }
    }

    /// An order failed. What only a person mends is said and tried again; the rest climbs the ladder.
    pub(super) fn failed(&mut self, now: Instant, order: &Order, why: &CallError) -> Option<Rung> {
        self.scan = Scan::Refused(now + TRY_AGAIN);
        let words = why.to_string();
        if words.contains("Blocked") || words.contains("rfkill") {
            self.health.set_trouble(&format!("{} is blocked by rfkill; run: rfkill unblock bluetooth", self.name));
            return None;
        }
        if words.contains("AccessDenied") || *why == CallError::Denied {
            self.health.set_trouble(&CallError::Denied.to_string());
            return None;
        }
        let symptom = match why {
            CallError::NoBus(_) | CallError::NoBluetoothd | CallError::Denied => {
                self.health.set_trouble(&words);
                return None;
            }
            CallError::Hung(_) => Symptom::CallHung,
            CallError::Refused(_) => Symptom::ScanRefused,
        };
        // The ladder's own words stay the state: they say what is done, or what a person can do.
        let rung = self.sick(now, symptom);
        if rung.is_some() {
            warn!(adapter = &*self.name, "{order:?} failed: {words}");
        }
        rung
    }

    /// Whether it has been silent for too long while it listens, and what is to be done.
    pub(super) fn look(&mut self, now: Instant) -> Option<Rung> {
        let silent = self.scan == Scan::On && now.duration_since(self.heard) >= silence_after();
        if silent { self.sick(now, Symptom::SilentAir) } else { None }
    }

    /// Climbs the ladder: says what was seen and what is done, and does what the worker can do.
    pub(super) fn sick(&mut self, now: Instant, symptom: Symptom) -> Option<Rung> {
        let rung = self.ladder.sick(now, symptom, self.turns.links())?;
        let words = rung.words(&self.name, symptom, self.ladder.lasted(now));
        warn!(adapter = &*self.name, "{words}");
        self.health.set_trouble(&words);
        self.health.count_named(counter(rung), 1);
        self.heard = now;
        let order = match rung {
            Rung::RestartScan => Order::RestartScan,
            Rung::NewSession => Order::Renew,
            Rung::PowerCycle => Order::PowerCycle,
            // Of these the session knows more.
            Rung::RemoveDevices | Rung::RestartBluetoothd | Rung::GiveUp => return Some(rung),
        };
        self.scan = Scan::Starting;
        self.cycling = order == Order::PowerCycle;
        // A worker that hangs takes no orders; the next rung is nearer then.
        let _hung = self.worker.order(order);
        Some(rung)
    }

    /// Makes BlueZ forget these.
    pub(super) fn forget(&mut self, now: Instant, places: Vec<Place>) {
        if !places.is_empty() {
            self.order(now, Order::Forget(places));
        }
    }
}

/// The name under which a rung is counted.
fn counter(rung: Rung) -> &'static str {
    match rung {
        Rung::RestartScan => "scan_restarts",
        Rung::NewSession => "sessions_renewed",
        Rung::RemoveDevices => "devices_removed",
        Rung::PowerCycle => "power_cycles",
        Rung::RestartBluetoothd => "bluetoothd_restarts",
        Rung::GiveUp => "given_up",
    }
}
