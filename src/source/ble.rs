//! Bluetooth Low Energy: sensors that stream, sensors that are asked, sensors that only advertise, and the radio that
//! must hear them for years. The only home of btleplug and of D-Bus.
//!
//! Who decides and who does are apart. Pure parts are told the time and say what to do: [`allow`] (whose sensor is this),
//! [`link`] (the life of one device), [`turns`] (who may hold the radio), [`ladder`] (what to try when an adapter goes
//! silent), [`records`] (stored measurements). Thin drivers do it on the bus: [`session`] (everything alive between two
//! rebuilds), [`device`] (one link), [`bluez`] and [`gatt`] (the calls, each with a deadline).
//!
//! Health is data flowing, not "connected": BlueZ goes silent without an error.

pub mod allow;
pub mod ladder;
pub mod nearby;
pub mod pairing;
pub mod records;
pub mod session;
pub mod turns;

use std::sync::Arc;
use std::time::Duration;

use crate::interpret::link::LinkSpec;
use crate::interpret::profile::Get;
use crate::reading::Element;

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
    /// Of a polled one: how often.
    pub every: Option<Duration>,
}
