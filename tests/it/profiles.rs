//! The profile language: shipped profiles and their examples, errors that say what to write, and any bytes.

mod bluetooth;
mod decode_command;
mod encrypted;
mod errors;
mod meaning;
mod records;
mod shipped;

use std::sync::Arc;

use biogate::interpret::decrypt::Key;
use biogate::interpret::{Catalog, DeviceMemory, EntryBinding, Interpretation, Limits, Profile, ProfileSet};
use biogate::reading::{BootId, Channel, Element, Heard, Reading};
use bytes::Bytes;
use uuid::Uuid;

/// One device entry with one profile, and the memory of its device.
struct Device {
    catalog: Catalog,
    memory: DeviceMemory,
    number: u64,
}

impl Device {
    fn shipped(id: &str) -> Device {
        Device::bound(&ProfileSet::builtin().unwrap(), id, None)
    }

    fn of(text: &str) -> Device {
        let mut set = ProfileSet::empty();
        let id = set.add("test.toml", text).unwrap_or_else(|error| panic!("{error}"));
        Device::bound(&set, &id, None)
    }

    fn bound(set: &ProfileSet, id: &str, component: Option<&str>) -> Device {
        Device::keyed(set, id, component, None)
    }

    /// As `bound`, with the key of the device's encrypted frames.
    fn keyed(set: &ProfileSet, id: &str, component: Option<&str>, key: Option<&str>) -> Device {
        let component = component.map(Arc::from);
        let key = key.map(|key| Key::parse(key).unwrap());
        let binding = EntryBinding { entry: "entry".into(), profile: id.to_owned(), component, key };
        let catalog = Catalog::new(set, vec![binding], Limits::default()).unwrap();
        Device { catalog, memory: DeviceMemory::default(), number: 0 }
    }

    fn profile(&self) -> &Profile {
        self.catalog.profile("entry").unwrap()
    }

    /// Hears these bytes at this uptime.
    fn hears(&mut self, channel: &str, bytes: &[u8], ms: u64) -> Interpretation {
        self.number += 1;
        let reading = reading(self.profile(), channel, bytes, ms);
        self.catalog.interpret(&reading, self.number, &mut self.memory)
    }

    /// What the program does at a restart.
    fn restarts(&mut self) {
        self.memory = DeviceMemory::from_state(&self.memory.to_state());
    }
}

fn reading(profile: &Profile, channel: &str, bytes: &[u8], ms: u64) -> Reading {
    let channel = match channel {
        "frame" => Channel::Frame,
        "message" => Channel::Message { topic: "ward/bed-1".into() },
        "advertisement" => {
            let element = profile.matches().element.clone().unwrap_or(Element::Manufacturer(1));
            Channel::Advertisement { address: "A0:9E:1A:00:11:22".into(), element }
        }
        characteristic => Channel::Gatt(characteristic.into()),
    };
    let heard = Heard { boot: BootId(Uuid::from_u128(3)), ms };
    Reading { device: "device".into(), entry: "entry".into(), channel, bytes: Bytes::copy_from_slice(bytes), heard }
}

fn values(said: &Interpretation) -> Vec<f64> {
    said.observations.iter().map(|observation| observation.value).collect()
}
