//! What a batch brings to its destination, per device and hour, and the rows that say so.
//!
//! With both sides' counts and XORs one query in the warehouse names every hub, device and hour that lacks rows.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use crate::event::Event;
use crate::report::{Kind, Report};
use crate::store::{HourSum, SaidSum};

/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;

/// Places that are looked into before the table: rows of a few devices take turns.
const RECENT: usize = 64;

/// The sums of a batch's rows so far.
#[derive(Debug, Default)]
pub struct Sums {
    sums: Vec<HourSum>,
    places: HashMap<(Arc<str>, u32), usize>,
    /// By the address of the device's name. An address may come again for another name, so the name is compared.
    recent: Vec<usize>,
}

impl Sums {
    /// A row is rendered, to be delivered.
    pub fn add(&mut self, event: &Event) {
        let sum = self.of(event);
        sum.count += 1;
        sum.xor ^= event.event_id.as_u128();
    }

    /// The destination will never take it after all.
    pub fn take_back(&mut self, event: &Event) {
        let sum = self.of(event);
        sum.count = sum.count.saturating_sub(1);
        sum.xor ^= event.event_id.as_u128();
    }

    /// All of them.
    pub fn into_sums(self) -> Vec<HourSum> {
        self.sums
    }

    fn of(&mut self, event: &Event) -> &mut HourSum {
        let hour = u32::try_from(event.timestamp.div_euclid(HOUR_MS)).unwrap_or(0);
        let slot = (event.device_id.as_ptr() as usize >> 4) % RECENT;
        self.recent.resize(RECENT, usize::MAX);
        let recent = self.recent[slot];
        if self.sums.get(recent).is_some_and(|sum| sum.hour == hour && sum.device == event.device_id) {
            return &mut self.sums[recent];
        }
        let place = *self.places.entry((event.device_id.clone(), hour)).or_insert_with(|| {
            self.sums.push(HourSum { device: event.device_id.clone(), hour, count: 0, xor: 0 });
            self.sums.len() - 1
        });
        self.recent[slot] = place;
        &mut self.sums[place]
    }
}

/// Rows of the table `reconciliation`.
pub fn rows(gateway_id: &str, sums: &[SaidSum]) -> Vec<Report> {
    let row = |SaidSum { sum, version }: &SaidSum| {
        let row = json!({
            "gateway_id": gateway_id,
            "device_id": sum.device,
            "hour": i64::from(sum.hour) * HOUR_MS,
            "count": sum.count,
            // 128 bits are too many for a number of JSON.
            "ids_xor": sum.xor.to_string(),
            "version": version,
        });
        Report { kind: Kind::Reconciliation, key: sum.device.to_string(), row: row.to_string() }
    };
    sums.iter().map(row).collect()
}
