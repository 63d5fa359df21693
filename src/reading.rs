//! What a device said: its raw bytes, where they came in, and when they were heard.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One message of one device, as it came in: a GATT value, a serial frame, an advertisement or an MQTT payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The `device_id` of the events that come of it.
    pub device: Arc<str>,
    /// The configuration entry that admitted it. It differs from `device` where a topic captures the name.
    pub entry: Arc<str>,
    /// Where on the device the bytes come from.
    pub channel: Channel,
    /// The payload, without any framing of the transport.
    pub bytes: Bytes,
    /// When the hub heard it.
    pub heard: Heard,
}

/// Where on a device bytes come from; a profile's `[[channel]]` is found by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channel {
    /// A GATT characteristic: a 16-bit UUID as four lower-case hex digits, or a 128-bit one with hyphens.
    Gatt(Arc<str>),
    /// One frame of a serial line, after framing.
    Frame,
    /// One element of a BLE advertisement.
    Advertisement {
        /// The sender's address, as `A0:9E:1A:00:11:22`.
        address: Arc<str>,
        /// Which element of the advertisement.
        element: Element,
    },
    /// The payload of one MQTT message.
    Message {
        /// The topic it was published to.
        topic: Arc<str>,
    },
}

/// An element of a BLE advertisement, payload without its identifier (as BlueZ gives it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Element {
    /// Service data of this UUID (four hex digits, or 128 bits with hyphens).
    ServiceData(Arc<str>),
    /// Manufacturer data of this company identifier.
    Manufacturer(u16),
}

impl Channel {
    /// The name by which a profile's `[[channel]]` claims it: `2a37`, `frame`, `advertisement` or `message`.
    pub fn name(&self) -> &str {
        match self {
            Channel::Gatt(characteristic) => characteristic,
            Channel::Frame => "frame",
            Channel::Advertisement { .. } => "advertisement",
            Channel::Message { .. } => "message",
        }
    }
}

/// One boot of one hub: the kernel's `/proc/sys/kernel/random/boot_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootId(pub Uuid);

impl BootId {
    /// The boot whose uptime *is* Unix time: replayed frames carry the wall time at which they were recorded.
    pub const WALL: BootId = BootId(Uuid::nil());
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::WALL { f.write_str("wall") } else { self.0.fmt(f) }
    }
}

/// When the hub heard something: CLOCK_BOOTTIME, which no step of the wall clock moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The boot that the uptime belongs to.
    pub boot: BootId,
    /// Milliseconds of CLOCK_BOOTTIME in that boot; Unix milliseconds for [`BootId::WALL`].
    pub ms: u64,
}

/// One start of the process: drawn at random, kept in every chunk, and the base of the event ids made in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunId(pub Uuid);

impl RunId {
    /// A new random run.
    pub fn random() -> Self {
        RunId(Uuid::new_v4())
    }
}
