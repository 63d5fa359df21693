//! What each destination was sent: per device and hour of the events' own time how many, and the XOR of their ids.
//!
//! One state key holds an hour of those devices whose names share a hash, so that a settlement rewrites little and no
//! value outgrows a record. Each says up to which sequence it counts: where a record of many keys must be cut in two, and
//! a crash falls between them, the repeated settlement finds what is counted already.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::Own;
use super::queue::Queue;
use super::{HourSum, SaidSum, Sequence};

/// Hours of a device that are kept once they are said.
const HOURS_PER_DEVICE: usize = 72;
/// Sums of a destination; of more the oldest hours go unsaid.
const MAX_SUMS: usize = 100_000;
/// Parts that the devices of an hour are divided into.
const SHARDS: u32 = 16;
/// Sums that are said at once.
const AT_ONCE: usize = 2_000;
/// A past hour that changes all the time is said this long after its first change.
const LATEST_MS: u64 = 600_000;
/// About what one sum takes in the state.
const SUM_BYTES: u64 = 56;

/// Destination, hour since 1970, part.
pub(super) type SumKey = (String, u32, u8);

/// The sums of one part of an hour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Shard {
    /// The last sequence that is counted.
    through: Sequence,
    sums: Vec<Sum>,
    /// `open_ms` of the last change, and of the first that was not said. Not stored: after a start all is quiet.
    #[serde(skip)]
    changed_ms: Option<u64>,
    #[serde(skip)]
    unsaid_ms: Option<u64>,
}

/// Device, count, the XOR's two halves, version, and the version that was said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sum(Arc<str>, u64, u64, u64, u64, u64);

impl Sum {
    fn add(&mut self, more: &HourSum) {
        self.1 += more.count;
        self.2 ^= (more.xor >> 64) as u64;
        self.3 ^= more.xor as u64;
        self.4 += 1;
    }

    fn is_said(&self) -> bool {
        self.5 >= self.4
    }

    fn said(&self, hour: u32) -> SaidSum {
        let xor = u128::from(self.2) << 64 | u128::from(self.3);
        SaidSum { sum: HourSum { device: self.0.clone(), hour, count: self.1, xor }, version: self.4 }
    }
}

fn shard_of(device: &str) -> u8 {
    (crc32fast::hash(device.as_bytes()) % SHARDS) as u8
}

impl Own {
    /// Counts what a range brought to a destination.
    pub(super) fn add_sums(&mut self, name: &str, last: Sequence, sums: &[HourSum], now_ms: u64) {
        let mut touched: Vec<SumKey> = Vec::new();
        let mut are_new = false;
        for more in sums.iter().filter(|more| more.count > 0) {
            let key = (name.to_owned(), more.hour, shard_of(&more.device));
            let is_known = self.sums.get(&key).is_some_and(|shard| shard.sums.iter().any(|sum| sum.0 == more.device));
            if !is_known && self.is_too_old(&key, &more.device) {
                continue;
            }
            let shard = self.sum_mut(&key);
            if shard.through >= last && !touched.contains(&key) {
                continue;
            }
            match shard.sums.iter_mut().find(|sum| sum.0 == more.device) {
                Some(sum) => sum.add(more),
                None => {
                    let mut sum = Sum(more.device.clone(), 0, 0, 0, 0, 0);
                    sum.add(more);
                    shard.sums.push(sum);
                    are_new = true;
                }
            }
            shard.through = last;
            shard.changed_ms = Some(now_ms);
            shard.unsaid_ms.get_or_insert(now_ms);
            if touched.last() != Some(&key) && !touched.contains(&key) {
                touched.push(key);
            }
        }
        if are_new {
            self.bound_sums(name);
        }
    }

    /// Whether so many later hours of the device are kept that this one's other events may be forgotten.
    fn is_too_old(&self, key: &SumKey, device: &str) -> bool {
        let hours = self.hours_of(&key.0, key.2, device);
        hours.len() >= HOURS_PER_DEVICE && hours.first().is_some_and(|oldest| key.1 < *oldest)
    }

    /// The hours of a device, oldest first.
    fn hours_of(&self, name: &str, shard: u8, device: &str) -> Vec<u32> {
        let of_part = self.sums_of(name).filter(|((_, _, part), _)| *part == shard);
        let of_device = of_part.filter(|(_, shard)| shard.sums.iter().any(|sum| &*sum.0 == device));
        of_device.map(|((_, hour, _), _)| *hour).collect()
    }

    fn sums_of(&self, name: &str) -> impl Iterator<Item = (&SumKey, &Shard)> {
        self.sums.range((name.to_owned(), 0, 0)..=(name.to_owned(), u32::MAX, u8::MAX))
    }

    fn bound_sums(&mut self, name: &str) {
        let mut count: usize = self.sums_of(name).map(|(_, shard)| shard.sums.len()).sum();
        while count > MAX_SUMS {
            let Some(key) = self.sums_of(name).next().map(|(key, _)| key.clone()) else { return };
            let gone = self.sums.get(&key).map_or(0, |shard| shard.sums.len());
            tracing::warn!(destination = name, hour = key.1, "too many sums to reconcile: the oldest hour goes unsaid");
            self.remove_sums(&key);
            count -= gone;
        }
    }

    /// Notes what was said, and forgets said hours beyond the newest of their device.
    fn sums_said(&mut self, name: &str, said: &[SaidSum]) {
        for SaidSum { sum: HourSum { device, hour, .. }, version } in said {
            let part = shard_of(device);
            let key = (name.to_owned(), *hour, part);
            if !self.sums.contains_key(&key) {
                continue;
            }
            let shard = self.sum_mut(&key);
            if let Some(sum) = shard.sums.iter_mut().find(|sum| sum.0 == *device) {
                sum.5 = sum.5.max(*version);
            }
            if shard.sums.iter().all(Sum::is_said) {
                shard.unsaid_ms = None;
            }
            let hours = self.hours_of(name, part, device);
            for old in &hours[..hours.len().saturating_sub(HOURS_PER_DEVICE)] {
                let key = (name.to_owned(), *old, part);
                let shard = self.sum_mut(&key);
                shard.sums.retain(|sum| sum.0 != *device || !sum.is_said());
                if shard.sums.is_empty() {
                    self.remove_sums(&key);
                }
            }
        }
    }

    /// About what the sums take in the state.
    pub(super) fn sums_bytes(&self) -> u64 {
        self.sums.values().map(|shard| 64 + shard.sums.len() as u64 * SUM_BYTES).sum()
    }
}

impl Queue {
    /// Sums that changed since they were said and are quiet for so long.
    pub(super) fn sums_due(&self, name: &str, quiet_ms: u64) -> Vec<SaidSum> {
        let now_ms = self.now_ms();
        let newest = self.own.sums.keys().filter(|key| key.0 == name).map(|key| key.1).max().unwrap_or(0);
        let mut due = Vec::new();
        for ((of, hour, _), shard) in &self.own.sums {
            let is_quiet = shard.changed_ms.is_none_or(|at| now_ms.saturating_sub(at) >= quiet_ms);
            let is_late =
                *hour < newest && shard.unsaid_ms.is_some_and(|since| now_ms.saturating_sub(since) >= LATEST_MS);
            if of == name && (is_quiet || is_late) {
                due.extend(shard.sums.iter().filter(|sum| !sum.is_said()).map(|sum| sum.said(*hour)));
            }
            if due.len() >= AT_ONCE {
                break;
            }
        }
        due.truncate(AT_ONCE);
        due
    }

    /// These were said.
    pub(super) fn sums_said(&mut self, name: &str, said: &[SaidSum]) {
        self.own.sums_said(name, said);
    }
}
