//! The ways in: each source sends what it hears on one bounded channel and is told when it became durable.
//!
//! One task per serial device and per broker. A fault stays with the device or broker it belongs to: its task says so
//! in [`health`], waits its [`backoff`] and tries again for ever; only a stop ends it.

pub mod backoff;
#[cfg(feature = "ble")]
pub mod ble;
pub mod context;
pub mod delivery;
pub mod framing;
pub mod health;
#[cfg(feature = "mqtt")]
pub mod mqtt;
pub mod recorded;
pub mod replay;
#[cfg(feature = "serial")]
pub mod serial;
pub mod supervise;
pub mod virtual_patient;
