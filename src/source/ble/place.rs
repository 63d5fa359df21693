//! PURE Where things are in BlueZ's tree of objects, and what they are called.

use std::sync::Arc;

use dbus::Path;

use crate::interpret::bluetooth;

/// bluetoothd's name on the bus.
pub(super) const BLUEZ: &str = "org.bluez";

/// The object above all adapters.
pub(super) const ROOT: &str = "/org/bluez";

pub(super) const ADAPTER: &str = "org.bluez.Adapter1";
pub(super) const DEVICE: &str = "org.bluez.Device1";
pub(super) const CHARACTERISTIC: &str = "org.bluez.GattCharacteristic1";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
pub(super) const OBJECTS: &str = "org.freedesktop.DBus.ObjectManager";

/// A peripheral as an adapter sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// The adapter, as `hci0`.
    pub(super) adapter: Arc<str>,
    /// The peripheral's address, as `A0:9E:1A:00:11:22`.
    pub(super) address: Arc<str>,
}

/// `hci0` of `/org/bluez/hci0`.
pub(super) fn adapter_of(path: &str) -> Option<Arc<str>> {
    let name = path.strip_prefix("/org/bluez/")?;
    (!name.is_empty() && !name.contains('/')).then(|| name.into())
}

/// The peripheral of `/org/bluez/hci0/dev_A0_9E_1A_00_11_22`; nothing for what lies below it.
pub(super) fn place_of(path: &str) -> Option<Place> {
    let (adapter, device) = path.strip_prefix("/org/bluez/")?.split_once("/dev_")?;
    (device.len() == 17 && !adapter.contains('/') && device.bytes().all(|b| b == b'_' || b.is_ascii_hexdigit()))
        .then(|| Place { adapter: adapter.into(), address: device.replace('_', ":").into() })
}

/// The object of a peripheral.
pub(super) fn path_of(place: &Place) -> Path<'static> {
    // An address has hexadecimal digits and colons only, an adapter's name came from a path: this is always one.
    Path::from(format!("{ROOT}/{}/dev_{}", place.adapter, place.address.replace(':', "_")))
}

/// As profiles write it; what is no UUID is kept as it is, and no profile names it.
pub(super) fn short(uuid: &str) -> Arc<str> {
    bluetooth::uuid(uuid).map_or_else(|| uuid.into(), Into::into)
}
