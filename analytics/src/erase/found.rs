//! What there was of a person before anything was done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What there was of the person, as kept in `erasures.found`. It names no person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    /// Rows of each table when the order was begun.
    pub tables: BTreeMap<String, u64>,
    /// Rows that came while it was carried out.
    #[serde(default)]
    pub later: BTreeMap<String, u64>,
    /// The hubs' sensors that the person wore.
    pub devices: Vec<Device>,
}

/// A sensor that the person wore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Device {
    /// The hub.
    pub gateway_id: String,
    /// Its name there.
    pub device_id: String,
    /// Rows of the person that came from it.
    pub events: u64,
    /// 1: by the hub's newest statement it is still the person's.
    pub is_worn: u8,
}
