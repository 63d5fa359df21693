//! The characteristics of one linked peripheral, by handle: a device may have several of one UUID, of which btleplug
//! keeps the first. Listed with one call; read, written and subscribed with a deadline each.

use std::sync::Arc;

use dbus::arg::{PropMap, Variant, prop_cast};

use crate::source::ble::bluez::{Bus, CallError};
use crate::source::ble::place::{CHARACTERISTIC, Place, path_of, short};

/// More characteristics than this are not looked at; the largest devices have some sixty.
const MOST: usize = 256;

/// One characteristic of a linked peripheral.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Characteristic {
    /// The path of its object, which ends with its handle.
    pub(super) path: String,
    /// Its UUID, as profiles write it.
    pub(super) uuid: Arc<str>,
    flags: Vec<String>,
}

impl Characteristic {
    /// Whether it indicates and does not notify.
    pub(super) fn indicates(&self) -> bool {
        self.has("indicate") && !self.has("notify")
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }
}

/// What a linked peripheral has.
pub(super) struct Gatt {
    bus: Arc<Bus>,
    /// In the order of their handles.
    pub(super) characteristics: Vec<Characteristic>,
}

impl Gatt {
    /// Lists what BlueZ has resolved.
    pub(super) async fn list(bus: Arc<Bus>, place: &Place) -> Result<Gatt, CallError> {
        let below = format!("{}/", path_of(place));
        let objects = bus.objects().await?;
        let mut characteristics: Vec<Characteristic> = objects
            .into_iter()
            .filter(|(path, _)| path.starts_with(&below))
            .filter_map(|(path, mut interfaces)| {
                let properties = interfaces.remove(CHARACTERISTIC)?;
                Some(Characteristic {
                    path: path.to_string(),
                    uuid: short(prop_cast::<String>(&properties, "UUID")?),
                    flags: prop_cast::<Vec<String>>(&properties, "Flags").cloned().unwrap_or_default(),
                })
            })
            .collect();
        characteristics.sort_by(|a, b| a.path.cmp(&b.path));
        characteristics.truncate(MOST);
        Ok(Gatt { bus, characteristics })
    }

    /// Those of this UUID, in the order of their handles.
    pub(super) fn of<'a>(&'a self, uuid: &'a str) -> impl Iterator<Item = &'a Characteristic> {
        self.characteristics.iter().filter(move |characteristic| *characteristic.uuid == *uuid)
    }

    /// Its value now.
    pub(super) async fn read(&self, characteristic: &Characteristic) -> Result<Vec<u8>, CallError> {
        let (value,) = self
            .bus
            .at(characteristic.path.as_str())
            .method_call(CHARACTERISTIC, "ReadValue", (PropMap::new(),))
            .await
            .map_err(|why| CallError::of("ReadValue", &why))?;
        Ok(value)
    }

    /// Writes, with the response where the characteristic gives one.
    pub(super) async fn write(&self, characteristic: &Characteristic, value: &[u8]) -> Result<(), CallError> {
        let kind = if characteristic.has("write") { "request" } else { "command" };
        let options =
            PropMap::from([("type".to_owned(), Variant(Box::new(kind.to_owned()) as Box<dyn dbus::arg::RefArg>))]);
        let () = self
            .bus
            .at(characteristic.path.as_str())
            .method_call(CHARACTERISTIC, "WriteValue", (value, options))
            .await
            .map_err(|why| CallError::of("WriteValue", &why))?;
        Ok(())
    }

    /// Asks for notifications or indications.
    pub(super) async fn subscribe(&self, characteristic: &Characteristic) -> Result<(), CallError> {
        let () = self
            .bus
            .at(characteristic.path.as_str())
            .method_call(CHARACTERISTIC, "StartNotify", ())
            .await
            .map_err(|why| CallError::of("StartNotify", &why))?;
        Ok(())
    }
}
