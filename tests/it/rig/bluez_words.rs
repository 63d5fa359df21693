//! What a test says to the fake BlueZ: sensors in the room, and what goes wrong with them.
#![allow(dead_code, reason = "the rig's vocabulary is larger than what the tests of one moment use")]

use serde_json::{Value, json};

use super::bluez::Bluez;

/// How much it takes until an adapter that hears nothing hears again.
#[derive(Clone, Copy)]
pub(crate) enum SilentUntil {
    NextScan,
    PowerCycle,
    BluetoothdRestart,
}

/// The address of the n-th strap of `straps`.
pub(crate) fn strap_address(n: u8) -> String {
    format!("C4:F1:F2:F3:F4:{n:02X}")
}

/// Sensors.
impl Bluez {
    pub(crate) fn add_adapter(&self, name: &str, address: &str) {
        self.tell(json!({"do": "add_adapter", "name": name, "address": address}));
    }

    pub(crate) fn remove_adapter(&self, name: &str) {
        self.tell(json!({"do": "remove_adapter", "name": name}));
    }

    /// Heart-rate straps 1 to `count` near hci0, each at `hz` once somebody listens; gives their addresses.
    pub(crate) fn straps(&self, count: u8, hz: f64) -> Vec<String> {
        let addresses: Vec<String> = (1..=count).map(strap_address).collect();
        let device = |address: &String| json!({"kind": "strap", "address": address, "name": "HR", "hz": hz});
        self.devices(addresses.iter().map(device).collect());
        addresses
    }

    /// A cuff with `count` stored readings a minute apart, which it sends to every listener from the first on.
    pub(crate) fn cuff(&self, address: &str, count: u32, hz: f64) {
        let records = json!({"count": count, "hz": hz});
        self.devices(vec![json!({"kind": "cuff", "address": address, "name": "BP", "records": records})]);
    }

    /// A cuff whose link drops after `after` readings, `times` times.
    pub(crate) fn cuff_that_drops(&self, address: &str, count: u32, hz: f64, after: u32, times: u32) {
        let records = json!({"count": count, "hz": hz, "drop_after": after, "drops": times});
        self.devices(vec![json!({"kind": "cuff", "address": address, "name": "BP", "records": records})]);
    }

    /// A meter with a Record Access Control Point; its link drops as a cuff's does when `drop_after` says so.
    pub(crate) fn glucose_meter(&self, address: &str, count: u32, hz: f64, drop_after: Option<u32>) {
        let records = json!({"count": count, "hz": hz, "drop_after": drop_after});
        self.devices(vec![json!({"kind": "glucose", "address": address, "name": "GL", "records": records})]);
    }

    /// One service with two characteristics of one UUID: the first counts up from 20 degC, the second from 30.
    pub(crate) fn twin_thermometers(&self, address: &str, hz: f64) {
        let one =
            |start: u32| json!({"uuid": "2a6e", "flags": ["notify"], "notify_hz": hz, "pattern": {"start": start}});
        let services = json!([{"uuid": "181a", "characteristics": [one(2_000), one(3_000)]}]);
        self.devices(vec![json!({"address": address, "name": "twins", "services": services})]);
    }

    /// Devices as control.py describes them.
    pub(crate) fn devices(&self, devices: Vec<Value>) {
        self.tell(json!({"do": "add_devices", "devices": devices}));
    }

    /// So many random addresses, each heard once by hci0; the discovery must run.
    pub(crate) fn rotating_addresses(&self, count: u32, per_second: u32) {
        self.tell(json!({"do": "rotate", "adapter": "hci0", "count": count, "per_second": per_second}));
    }
}

/// Faults of devices.
impl Bluez {
    /// Any of `Peripheral.SWITCHES`.
    pub(crate) fn set(&self, address: &str, switch: &str, value: impl Into<Value>) {
        self.tell(json!({"do": "set_device", "address": address, switch: value.into()}));
    }

    /// The next `times` attempts fail with `le-connection-abort-by-local`.
    pub(crate) fn connect_fails(&self, address: &str, times: u32) {
        self.fails("Device1.Connect", address, times, "Failed", "le-connection-abort-by-local");
    }

    pub(crate) fn connect_hangs(&self, address: &str, times: u32) {
        self.hangs("Device1.Connect", address, times);
    }

    pub(crate) fn never_resolves(&self, address: &str) {
        self.set(address, "never_resolves", true);
    }

    /// BlueZ takes it for connected and resolved and nothing comes, until it is removed.
    pub(crate) fn becomes_phantom(&self, address: &str) {
        self.set(address, "phantom", true);
    }

    pub(crate) fn drop_link(&self, address: &str) {
        self.tell(json!({"do": "drop_link", "address": address}));
    }

    /// Notifications stop, the link stays.
    pub(crate) fn falls_silent(&self, address: &str) {
        self.set(address, "muted", true);
    }

    pub(crate) fn speaks_again(&self, address: &str) {
        self.set(address, "muted", false);
    }

    pub(crate) fn floods(&self, address: &str, per_second: u32) {
        self.set(address, "flood_hz", per_second);
    }

    /// It is carried out of range, which ends its link.
    pub(crate) fn leaves(&self, address: &str) {
        self.set(address, "absent", true);
    }

    pub(crate) fn comes_back(&self, address: &str) {
        self.set(address, "absent", false);
    }

    /// The next `times` calls of `Interface1.Method` fail where the path holds this address or adapter.
    pub(crate) fn fails(&self, method: &str, at: &str, times: u32, error: &str, message: &str) {
        self.tell(
            json!({"do": "fail", "method": method, "where": at, "times": times, "error": error, "message": message}),
        );
    }

    /// The same, unanswered.
    pub(crate) fn hangs(&self, method: &str, at: &str, times: u32) {
        self.tell(json!({"do": "fail", "method": method, "where": at, "times": times, "hang": true}));
    }

    pub(crate) fn clear_faults(&self) {
        self.tell(json!({"do": "clear_faults"}));
    }
}

/// Faults of adapters and of bluetoothd.
impl Bluez {
    pub(crate) fn adapter_falls_silent(&self, adapter: &str, until: SilentUntil) {
        let until = match until {
            SilentUntil::NextScan => "scan",
            SilentUntil::PowerCycle => "power",
            SilentUntil::BluetoothdRestart => "daemon",
        };
        self.tell(json!({"do": "set_adapter", "name": adapter, "silent": until}));
    }

    /// By rfkill: it is off and cannot be switched on.
    pub(crate) fn block_adapter(&self, adapter: &str) {
        self.tell(json!({"do": "set_adapter", "name": adapter, "blocked": "Blocked"}));
    }

    pub(crate) fn unblock_adapter(&self, adapter: &str) {
        self.tell(json!({"do": "set_adapter", "name": adapter, "blocked": ""}));
    }

    pub(crate) fn at_most_links(&self, adapter: &str, links: u32) {
        self.tell(json!({"do": "set_adapter", "name": adapter, "max_links": links}));
    }

    pub(crate) fn forgets_after_ms(&self, adapter: &str, ms: u32) {
        self.tell(json!({"do": "set_adapter", "name": adapter, "temporary_ms": ms}));
    }

    pub(crate) fn bluetoothd_vanishes(&self) {
        self.tell(json!({"do": "vanish"}));
    }

    pub(crate) fn bluetoothd_returns(&self) {
        self.tell(json!({"do": "return"}));
    }
}
