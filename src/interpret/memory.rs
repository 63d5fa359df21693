//! What is remembered of one device between its readings.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_cbor::Value as Cbor;
use uuid::Uuid;

use crate::observation::{DeviceTime, Value};
use crate::reading::{BootId, Heard};

use super::device_clock::DeviceClock;
use super::records::Records;

/// How many readings are remembered to recognise twins; a bound, a device sends few of them within seconds.
const TWINS: usize = 8;

/// The version of the bytes that [`DeviceMemory::to_state`] makes for most devices.
const STATE_VERSION: u8 = 1;

/// The version that also has what only some devices need.
const STATE_WITH_EXTRAS: u8 = 2;

/// A counter below this may follow a larger one: the sensor has restarted.
const RESTARTED_BELOW: u32 = 100;

/// What interpretation remembers of one device. Only what must outlive a restart (counter totals, reset counts, the counter
/// of encrypted frames, stored records, whether the clock was checked) is in `to_state`; twins, `every` and context are not.
#[derive(Debug, Default)]
pub struct DeviceMemory {
    /// The profile that context, twins and `every` belong to.
    profile: Option<Arc<str>>,
    context: Vec<Option<Value>>,
    twins: VecDeque<(Vec<u8>, Heard)>,
    emitted: Vec<(Arc<str>, Heard)>,
    counters: Vec<Counter>,
    /// How often the device's sequence or clock was seen to fall back.
    resets: u64,
    /// The newest sequence or clock.
    order: Vec<i64>,
    clock_checked: bool,
    /// The newest counter of an encrypted frame.
    sealed: Option<u32>,
    /// Stored records that came before.
    records: Records,
    /// Counters whose increments are counted elsewhere: they give no event and stay as they are.
    covered: Vec<Arc<str>>,
    /// What the device told of its clock. It tells it anew at each link, so it need not outlive a restart.
    device_clock: DeviceClock,
}

/// How the counter of an encrypted frame follows the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// It rose, or the sensor has restarted.
    Newer,
    /// The same frame, heard again.
    Same,
    /// An old frame.
    Fell {
        /// The newest counter.
        last: u32,
    },
}

#[derive(Debug, Clone, PartialEq)]
struct Counter {
    key: Arc<str>,
    total: f64,
    heard: Heard,
}

/// `(version, [(key, total, boot, ms)], resets, order)` as CBOR arrays.
type State = (u8, Vec<(Arc<str>, f64, Cbor, u64)>, u64, Vec<i64>);

/// As [`State`], with what only some devices need.
type StateWithExtras = (u8, Vec<(Arc<str>, f64, Cbor, u64)>, u64, Vec<i64>, Extras);

/// `(counter of encrypted frames, clock checked, hashes of stored records)`
type Extras = (Option<u32>, bool, Vec<u64>);

impl DeviceMemory {
    /// The part that must outlive a restart, as CBOR.
    pub fn to_state(&self) -> Vec<u8> {
        let boot = |boot: BootId| Cbor::Bytes(boot.0.as_bytes().to_vec());
        let counters = self.counters.iter().map(|c| (c.key.clone(), c.total, boot(c.heard.boot), c.heard.ms));
        let (counters, order) = (counters.collect(), self.order.clone());
        let extras = (self.sealed, self.clock_checked, self.records.hashes());
        // Plain values into a Vec: nothing here can fail.
        if extras == Extras::default() {
            let state: State = (STATE_VERSION, counters, self.resets, order);
            return serde_cbor::to_vec(&state).unwrap_or_default();
        }
        let state: StateWithExtras = (STATE_WITH_EXTRAS, counters, self.resets, order, extras);
        serde_cbor::to_vec(&state).unwrap_or_default()
    }

    /// Unreadable state is an empty memory.
    pub fn from_state(bytes: &[u8]) -> DeviceMemory {
        let plain = || serde_cbor::from_slice::<State>(bytes).ok().filter(|state| state.0 == STATE_VERSION);
        let extended = || {
            let state = serde_cbor::from_slice::<StateWithExtras>(bytes).ok()?;
            (state.0 == STATE_WITH_EXTRAS).then_some(state)
        };
        let plain = plain().map(|(_, counters, resets, order)| (counters, resets, order, Extras::default()));
        let known =
            plain.or_else(|| extended().map(|(_, counters, resets, order, extras)| (counters, resets, order, extras)));
        let Some((counters, resets, order, (sealed, clock_checked, records))) = known else {
            return DeviceMemory::default();
        };
        let counters = counters.into_iter().filter_map(|(key, total, boot, ms)| {
            let Cbor::Bytes(boot) = boot else { return None };
            let heard = Heard { boot: BootId(Uuid::from_slice(&boot).ok()?), ms };
            total.is_finite().then_some(Counter { key, total, heard })
        });
        DeviceMemory {
            counters: counters.collect(),
            resets,
            order,
            sealed,
            clock_checked,
            records: Records::of(records),
            ..DeviceMemory::default()
        }
    }

    /// What reading old frames of a device again begins with: what an earlier such reading left, and of the live memory
    /// what is known of its clock and its stored records. The live memory is never touched by it: an old frame must not
    /// wind back a counter or a clock.
    pub fn of_the_past(live: Option<&[u8]>, earlier: Option<&[u8]>) -> DeviceMemory {
        let live = live.map(DeviceMemory::from_state).unwrap_or_default();
        let mut past = earlier.map(DeviceMemory::from_state).unwrap_or_default();
        past.clock_checked |= live.clock_checked;
        live.records.hashes().into_iter().for_each(|hash| past.records.know(hash));
        past
    }

    /// The same for a reading that was understood: nothing of it is known already but the state of the device's clock.
    pub fn of_the_moment(live: Option<&[u8]>) -> DeviceMemory {
        let clock_checked = live.is_some_and(|live| DeviceMemory::from_state(live).clock_checked);
        DeviceMemory { clock_checked, ..DeviceMemory::default() }
    }

    /// Before one old reading is read again: the device's sequence or clock had fallen back at least so often.
    pub fn raise_resets(&mut self, resets: u64) {
        self.resets = self.resets.max(resets);
    }

    /// The running totals: key, total, when it was heard.
    pub fn counters(&self) -> Vec<(Arc<str>, f64, Heard)> {
        self.counters.iter().map(|counter| (counter.key.clone(), counter.total, counter.heard)).collect()
    }

    /// Before one old reading is read again: these totals are as they were then.
    pub fn set_counters(&mut self, totals: &[(Arc<str>, f64, Heard)]) {
        self.covered.clear();
        self.counters = totals
            .iter()
            .map(|(key, total, heard)| Counter { key: key.clone(), total: *total, heard: *heard })
            .collect();
    }

    /// Before one old reading is read again: what it adds to these counters is counted by another reading already.
    pub fn cover_counters(&mut self, covered: Vec<Arc<str>>, heard: Heard) {
        for key in &covered {
            if !self.counters.iter().any(|counter| counter.key == *key) {
                // The total is never read; that there is one keeps the numbers of the reading's other events.
                self.counters.push(Counter { key: key.clone(), total: 0.0, heard });
            }
        }
        self.covered = covered;
    }

    /// Whether a counter's increment is counted elsewhere.
    pub(super) fn is_covered(&self, key: &str) -> bool {
        self.covered.iter().any(|covered| **covered == *key)
    }

    /// Says that the hub has set or checked the device's clock: from then on an identity by the device's time counts.
    /// `false` takes nothing back. Returns whether the persistent part changed.
    pub fn set_clock_checked(&mut self, checked: bool) -> bool {
        let changed = checked && !self.clock_checked;
        self.clock_checked |= checked;
        changed
    }

    pub(super) fn clock_checked(&self) -> bool {
        self.clock_checked
    }

    /// How an encrypted frame's counter follows the newest one; the newer one takes its place.
    pub(super) fn follow(&mut self, counter: u32) -> Follows {
        match self.sealed {
            Some(last) if counter == last => return Follows::Same,
            Some(last) if counter < last && counter >= RESTARTED_BELOW => return Follows::Fell { last },
            Some(_) | None => {}
        }
        self.sealed = Some(counter);
        Follows::Newer
    }

    /// Forgets what belongs to another profile.
    pub(super) fn enter(&mut self, profile: &Arc<str>) {
        if self.profile.as_ref().is_some_and(|known| Arc::ptr_eq(known, profile) || known == profile) {
            return;
        }
        self.profile = Some(profile.clone());
        self.context.clear();
        self.twins.clear();
        self.emitted.clear();
    }

    pub(super) fn remember(&mut self, at: u16, value: Value) {
        let at = usize::from(at);
        if self.context.len() <= at {
            self.context.resize(at + 1, None);
        }
        self.context[at] = Some(value);
    }

    pub(super) fn recall(&self, at: u16) -> Option<&Value> {
        self.context.get(usize::from(at)).and_then(Option::as_ref)
    }

    /// Whether a reading with this key was heard within `span`; if not, this one is remembered.
    pub(super) fn is_twin(&mut self, key: Vec<u8>, heard: Heard, span: Duration) -> bool {
        self.twins.retain(|(_, before)| within(*before, heard, span));
        if self.twins.iter().any(|(other, _)| *other == key) {
            return true;
        }
        if self.twins.len() >= TWINS {
            self.twins.pop_front();
        }
        self.twins.push_back((key, heard));
        false
    }

    /// Whether the last event of this emit lies less than `every` back.
    pub(super) fn too_soon(&self, key: &str, heard: Heard, every: Duration) -> bool {
        let last = self.emitted.iter().find(|(other, _)| **other == *key);
        last.is_some_and(|(_, before)| within(*before, heard, every) && before.ms.abs_diff(heard.ms) < ms(every))
    }

    pub(super) fn emitted(&mut self, key: &Arc<str>, heard: Heard) {
        match self.emitted.iter_mut().find(|(other, _)| other == key) {
            Some((_, last)) => *last = heard,
            None => self.emitted.push((key.clone(), heard)),
        }
    }

    /// The total before and when it was heard; the new one takes its place.
    pub(super) fn count(&mut self, key: &Arc<str>, total: f64, heard: Heard) -> Option<(f64, Heard)> {
        let Some(counter) = self.counters.iter_mut().find(|counter| counter.key == *key) else {
            self.counters.push(Counter { key: key.clone(), total, heard });
            return None;
        };
        let before = (counter.total, counter.heard);
        if self.covered.contains(key) {
            return Some(before);
        }
        (counter.total, counter.heard) = (total, heard);
        Some(before)
    }

    /// Whether a stored record came before; if not, it is remembered.
    pub(super) fn is_known_record(&mut self, channel: &str, bytes: &[u8]) -> bool {
        self.records.is_known(channel, bytes)
    }

    /// The device told what its clock shows.
    pub(super) fn told_time(&mut self, time: DeviceTime, heard: Heard) {
        self.device_clock.told(time.shown_ms(), heard);
    }

    /// A record's time, counted from when the device told what its clock shows, where it did.
    pub(super) fn counted(&self, time: DeviceTime, heard: Heard) -> DeviceTime {
        let utc = matches!(time, DeviceTime::Utc(_));
        self.device_clock.count(utc, time.shown_ms(), heard).map_or(time, DeviceTime::Counted)
    }

    /// How often the device's sequence or clock was seen to fall back.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// The reset count after this sequence or time, and whether the memory changed.
    pub(super) fn resets_after(&mut self, order: Vec<i64>) -> (u64, bool) {
        if order < self.order {
            self.resets += 1;
        }
        let changed = order != self.order;
        self.order = order;
        (self.resets, changed)
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Uptimes of two boots say nothing about each other.
fn within(before: Heard, now: Heard, span: Duration) -> bool {
    before.boot == now.boot && before.ms.abs_diff(now.ms) <= ms(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Heard {
        Heard { boot: BootId(Uuid::from_u128(9)), ms }
    }

    #[test]
    fn totals_and_resets_outlive_a_restart_and_the_rest_does_not() {
        let mut memory = DeviceMemory::default();
        let key: Arc<str> = "frame.steps.steps.".into();
        assert_eq!(memory.count(&key, 1_042.0, at(5)), None);
        assert_eq!(memory.resets_after(vec![7]), (0, true));
        assert_eq!(memory.resets_after(vec![3]), (1, true));
        memory.remember(2, Value::Int(1));
        let mut again = DeviceMemory::from_state(&memory.to_state());
        assert_eq!(again.count(&key, 1_050.0, at(9)), Some((1_042.0, at(5))));
        assert_eq!(again.resets_after(vec![3]), (1, false));
        assert_eq!(again.recall(2), None);
        assert!(memory.to_state().len() < 64, "{} bytes", memory.to_state().len());
    }

    #[test]
    fn counters_of_encrypted_frames_rise_and_outlive_a_restart() {
        let mut memory = DeviceMemory::default();
        let before = memory.to_state();
        assert_eq!(memory.follow(4_000), Follows::Newer);
        assert_eq!(memory.follow(4_000), Follows::Same);
        assert_eq!(memory.follow(3_999), Follows::Fell { last: 4_000 });
        let mut again = DeviceMemory::from_state(&memory.to_state());
        assert_eq!(again.follow(3_999), Follows::Fell { last: 4_000 });
        assert_eq!(again.follow(99), Follows::Newer);
        assert_eq!(again.follow(100), Follows::Newer);
        assert_eq!(before, b"\x84\x01\x80\x00\x80", "a device without such frames keeps the state it had");
        assert_eq!(DeviceMemory::from_state(&before).follow(7), Follows::Newer);
    }

    #[test]
    fn unreadable_state_is_an_empty_memory() {
        for bytes in [&b""[..], b"\xff\xff", b"\x84\x02\x80\x00\x80"] {
            assert_eq!(DeviceMemory::from_state(bytes).resets_after(vec![]), (0, false));
        }
    }

    #[test]
    fn twins_are_near_in_time_and_of_one_boot() {
        let mut memory = DeviceMemory::default();
        let span = Duration::from_secs(4);
        assert!(!memory.is_twin(vec![1], at(0), span));
        assert!(memory.is_twin(vec![1], at(4_000), span));
        assert!(!memory.is_twin(vec![2], at(4_000), span));
        assert!(!memory.is_twin(vec![1], at(4_001), span));
        assert!(!memory.is_twin(vec![1], Heard { boot: BootId::WALL, ms: 4_001 }, span));
    }
}
