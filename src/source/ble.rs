//! Bluetooth Low Energy: sensors that stream, sensors that are asked, sensors that only advertise, and the radio that
//! must hear them for years. The only home of btleplug and of D-Bus.
//!
//! Who decides and who does are apart. Pure parts are told the time and say what to do: [`allow`] (whose sensor is this),
//! `link` (the life of one device), [`turns`] (who may hold the radio), [`ladder`] (what to try when an adapter goes
//! silent), [`records`] (stored measurements). Thin drivers do it on the bus: `session` (everything alive on one
//! connection) with an `adapter` and its `worker` for each radio, `device` for each sensor with what it says
//! (`talk`, `fetch`) and what is heard of it (`flow`). `house` is what outlives sessions. `bluez`, `signals`
//! and `gatt` are the calls to bluetoothd, each with a deadline, and what it tells.
//!
//! Health is data flowing, not "connected": BlueZ goes silent without an error.

mod adapter;
pub mod allow;
mod bluez;
mod device;
mod fetch;
mod flow;
mod gatt;
mod house;
pub mod ladder;
mod link;
pub mod nearby;
pub mod pairing;
mod place;
pub mod records;
mod session;
mod signals;
pub mod survey;
mod talk;
mod told;
pub mod turns;
mod worker;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::interpret::link::LinkSpec;
use crate::interpret::profile::Get;
use crate::reading::Element;
use crate::source::backoff::Backoff;
use crate::source::ble::house::House;
use crate::source::ble::nearby::Nearby;
use crate::source::ble::session::Ended;
use crate::source::context::Context;

/// Links per adapter, unless the settings say otherwise. A Raspberry Pi's own radio keeps about seven.
pub const MAX_LINKS: usize = 5;

/// The radio and who is heard by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BleSettings {
    /// Names (`hci0`) or addresses of the adapters to use; empty for all.
    pub adapters: Vec<String>,
    /// Simultaneous links per adapter.
    pub max_links: usize,
    /// Whether bluetoothd may be restarted when nothing else helps.
    pub restart_bluetoothd: bool,
    /// The sensors that are listed.
    pub devices: Vec<BleDevice>,
    /// Profiles for every sensor of a service, where not only listed ones are heard.
    pub any: Vec<BleDevice>,
}

impl BleSettings {
    /// Whether only the devices differ.
    pub fn differs_in_devices_only(&self, other: &BleSettings) -> bool {
        let radio = |settings: &BleSettings| BleSettings { devices: Vec::new(), any: Vec::new(), ..settings.clone() };
        radio(self) == radio(other)
    }
}

/// One device entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BleDevice {
    /// The `device_id` of its readings; of an entry for any sensor of a service, the beginning of it.
    pub device: Arc<str>,
    /// The entry that names it.
    pub entry: Arc<str>,
    /// Which peripheral it is.
    pub target: allow::Target,
    /// What its profile asks of it.
    pub plan: Arc<Plan>,
    /// How long without a value is silence; learned from its own rhythm where not said.
    pub silence: Option<Duration>,
}

/// What a profile asks of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The advertised element that it decodes.
    pub element: Option<Element>,
    /// The characteristics that it decodes: name, how got, and how often where it is polled.
    pub channels: Vec<Wanted>,
    /// Writes, clock and stored records.
    pub link: LinkSpec,
}

/// One characteristic that a profile decodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its UUID as profiles write it, with `#n` for a further one of the same UUID.
    pub name: Arc<str>,
    /// How its value is got.
    pub get: Get,
    /// Of a polled one: how often it is read.
    pub every: Duration,
    /// Whether events come of it: a battery's notifications are no sign of life of a scale's.
    pub emits: bool,
}

/// Hears all devices until the sources stop, and follows their entries; a change of anything else takes a new start. What
/// is near is kept in `nearby` for who asks.
pub async fn run(settings: watch::Receiver<BleSettings>, nearby: Arc<Mutex<Nearby>>, context: Context) {
    let mut stop = context.stop.clone();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    let mut house = House::new(settings, context, nearby);
    while let Ended::Lost(why) = session::run(&mut house).await {
        house.health.count(crate::source::health::Count::Disconnects, 1);
        house.health.set_trouble(&why.to_string());
        if stop.wait_at_most(backoff.next_wait(fastrand::f64())).await {
            break;
        }
    }
    while house.tasks.join_next().await.is_some() {}
    house.health.set_state("stopped");
}
