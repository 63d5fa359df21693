//! Fields to observations: withheld, missing, too soon, converted, counted, judged.

use std::sync::Arc;

use crate::event::device_identity;
use crate::observation::{DeviceTime, Observation, Value};
use crate::reading::{Channel as Heard, Reading};

use super::Interpretation;
use super::counter::increment;
use super::decode::{Decoded, Slot, State, holds, is_set};
use super::memory::DeviceMemory;
use super::plausible::Limits;
use super::profile::Profile;
use super::step::{Channel, Emit, From, SlotId, Test, TimeBase, UnitOf};
use super::work::equals;

/// What every observation of one reading shares.
pub(super) struct Context<'a> {
    pub(super) profile: &'a Profile,
    pub(super) channel: &'a Channel,
    pub(super) reading: &'a Reading,
    pub(super) number: u64,
    /// The device entry's own component.
    pub(super) component: Option<&'a Arc<str>>,
    pub(super) limits: &'a Limits,
    pub(super) explain: bool,
}

impl Context<'_> {
    /// All events of a good frame. The caller has ruled out refused frames.
    pub(super) fn all(&self, decoded: &Decoded, memory: &mut DeviceMemory, out: &mut Interpretation) {
        if let Some(now) = self.channel.now.and_then(|now| device_time(now, decoded)) {
            memory.told_time(now, self.reading.heard);
        }
        if self.is_twin(decoded, memory) {
            out.duplicate = true;
            return;
        }
        for (slot, at) in &self.channel.remembered {
            let slot = &decoded.slots[usize::from(*slot)];
            if slot.state == State::Known {
                memory.remember(*at, slot.value.clone());
            }
        }
        let identity = self.identity(decoded, memory, out);
        if out.duplicate {
            return;
        }
        let mut index = 0;
        for emit in &self.channel.emits {
            self.emit(emit, decoded, identity.as_ref(), &mut index, memory, out);
        }
    }

    fn emit(
        &self,
        emit: &Emit,
        decoded: &Decoded,
        identity: Option<&(u64, Vec<u8>)>,
        index: &mut u16,
        memory: &mut DeviceMemory,
        out: &mut Interpretation,
    ) {
        if let Some((test, names)) = &emit.withhold
            && holds(&decoded.slots, test)
        {
            out.withholds = true;
            if self.explain {
                withheld_by(test, names, &decoded.slots, &mut out.withheld);
            }
            return;
        }
        let heard = self.reading.heard;
        if emit.every.is_some_and(|every| memory.too_soon(&emit.key, heard, every)) {
            return;
        }
        let component = self.component.filter(|_| self.is_alone(emit)).unwrap_or(&emit.component);
        for (raw, unit) in values(emit, decoded) {
            let mut value = unit.conversion.apply(raw);
            let mut since = None;
            if let Some(wraps_at) = emit.counter {
                let before = memory.count(&emit.key, value, heard);
                out.memory_changed = true;
                let Some((total, when)) = before else { continue };
                value = increment(total, value, wraps_at);
                since = Some(when);
            }
            let raw_unit = unit.foreign.then_some((raw, &unit.unit));
            let observation = Observation {
                reading: self.number,
                index: *index,
                device: self.reading.device.clone(),
                profile: self.profile.key.clone(),
                event_type: emit.event,
                component: component.clone(),
                value,
                heard,
                device_time: emit
                    .time
                    .and_then(|time| device_time(time, decoded))
                    .map(|time| memory.counted(time, heard)),
                since,
                identity: identity
                    .map(|(resets, raw)| device_identity(self.address(), *resets, raw, emit.event, component, *index)),
                metadata: metadata(emit, decoded, memory, raw_unit),
            };
            *index = index.saturating_add(1);
            if emit.counter.is_some() && memory.is_covered(&emit.key) {
                continue;
            }
            match self.limits.objection(emit.event, component, value) {
                Some(why) => out.implausible.push((observation, why)),
                None => {
                    if emit.every.is_some() {
                        memory.emitted(&emit.key, heard);
                    }
                    out.observations.push(observation);
                }
            }
        }
    }

    /// An entry's component replaces the emit's, unless components are what tells its emits of one type apart.
    fn is_alone(&self, emit: &Emit) -> bool {
        self.channel.emits.iter().filter(|other| other.event == emit.event).count() == 1
    }

    fn is_twin(&self, decoded: &Decoded, memory: &mut DeviceMemory) -> bool {
        let slots = self.channel.same_if.iter().map(|slot| &decoded.slots[usize::from(*slot)]);
        if slots.clone().all(|slot| slot.state == State::Absent) {
            return false;
        }
        let mut key = self.reading.channel.name().as_bytes().to_vec();
        for slot in slots {
            key.push(0);
            key.extend(self.raw_bytes(slot, decoded));
        }
        memory.is_twin(key, self.reading.heard, self.profile.same_within)
    }

    /// Reset count and raw bytes of the fields that make the reading unique for ever, if all are there and the clock may be
    /// believed. A stored record that came before is a duplicate whatever the clock: all its bytes are the same. As records
    /// come in any order, a fall among them is no reset.
    fn identity(
        &self,
        decoded: &Decoded,
        memory: &mut DeviceMemory,
        out: &mut Interpretation,
    ) -> Option<(u64, Vec<u8>)> {
        let fields = &self.channel.identity;
        let slots = || fields.iter().map(|slot| &decoded.slots[usize::from(*slot)]);
        if fields.is_empty() || !slots().all(|slot| slot.state == State::Known) {
            return None;
        }
        if self.channel.stored {
            out.duplicate = memory.is_known_record(self.reading.channel.name(), &self.reading.bytes);
            out.memory_changed |= !out.duplicate;
        }
        if self.profile.identity_needs_clock && !memory.clock_checked() {
            return None;
        }
        let raw = || slots().flat_map(|slot| self.raw_bytes(slot, decoded)).collect();
        if self.channel.stored {
            return Some((memory.resets(), raw()));
        }
        let (resets, changed) = memory.resets_after(slots().map(|slot| slot.raw).collect());
        out.memory_changed |= changed;
        Some((resets, raw()))
    }

    /// The bytes of a field as the device sent them; of a text or JSON its value.
    fn raw_bytes(&self, slot: &Slot, decoded: &Decoded) -> Vec<u8> {
        let (start, end) = (slot.at.0 as usize, slot.at.1 as usize);
        let frame = decoded.plain.as_deref().unwrap_or(&self.reading.bytes);
        match frame.get(start..end) {
            Some(bytes) if !bytes.is_empty() => bytes.to_vec(),
            _ => super::work::shown(&slot.value).into_bytes(),
        }
    }

    fn address(&self) -> &str {
        match &self.reading.channel {
            Heard::Advertisement { address, .. } => address,
            Heard::Gatt(_) | Heard::Frame | Heard::Message { .. } => &self.reading.device,
        }
    }
}

/// The names that withheld an event: of a list those that are set, of a table all.
fn withheld_by(test: &Test, names: &[Arc<str>], slots: &[Slot], withheld: &mut Vec<Arc<str>>) {
    let because = |at: usize| match test {
        Test::Any(flags) => flags.get(at).is_some_and(|flag| is_set(&slots[usize::from(*flag)])),
        Test::All(pairs) => {
            pairs.get(at).is_some_and(|(slot, wanted)| equals(wanted, &slots[usize::from(*slot)].value))
        }
    };
    for (_, name) in names.iter().enumerate().filter(|(at, _)| because(*at)) {
        if !withheld.contains(name) {
            withheld.push(name.clone());
        }
    }
}

/// Every value of a field in this frame, with the unit of the row that it came of.
fn values<'a>(emit: &'a Emit, decoded: &'a Decoded) -> impl Iterator<Item = (f64, &'a UnitOf)> {
    let more = decoded.more.iter().filter(|(slot, _)| *slot == emit.value).map(|(_, slot)| slot);
    std::iter::once(&decoded.slots[usize::from(emit.value)])
        .chain(more)
        .filter(|slot| slot.state == State::Known)
        .flat_map(|slot| {
            let unit = emit.units.iter().find(|(row, _)| *row == slot.row).map(|(_, unit)| unit);
            let list = match &slot.value {
                Value::List(values) => values.as_slice(),
                value => std::slice::from_ref(value),
            };
            list.iter().filter_map(move |value| Some((number(value)?, unit?)))
        })
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Num(number) => Some(*number).filter(|number| number.is_finite()),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) => None,
    }
}

fn device_time((slot, base): (SlotId, TimeBase), decoded: &Decoded) -> Option<DeviceTime> {
    let slot = &decoded.slots[usize::from(slot)];
    if slot.state != State::Known {
        return None;
    }
    match base {
        TimeBase::UtcMs => Some(DeviceTime::Utc(slot.raw)),
        TimeBase::UtcS => slot.raw.checked_mul(1_000).map(DeviceTime::Utc),
        TimeBase::LocalMs => Some(DeviceTime::Local(slot.raw)),
    }
}

fn metadata(
    emit: &Emit,
    decoded: &Decoded,
    memory: &DeviceMemory,
    raw: Option<(f64, &Arc<str>)>,
) -> Vec<(Arc<str>, Value)> {
    let mut metadata = Vec::with_capacity(emit.metadata.len() + if raw.is_some() { 2 } else { 0 });
    for (name, from) in &emit.metadata {
        let value = match from {
            From::Slot(slot) => field(*slot, decoded),
            From::Context(at) => memory.recall(*at).cloned(),
        };
        if let Some(value) = value {
            metadata.push((name.clone(), value));
        }
    }
    if let Some((value, unit)) = raw {
        metadata.push(("raw_unit".into(), Value::Text(unit.clone())));
        metadata.push(("raw_value".into(), Value::Num(value)));
    }
    metadata
}

/// A field as people and metadata see it: a list where it came more than once, nothing where it is absent.
pub(super) fn field(id: SlotId, decoded: &Decoded) -> Option<Value> {
    let slot = &decoded.slots[usize::from(id)];
    if slot.state == State::Absent {
        return None;
    }
    let mut more = decoded.more.iter().filter(|(other, _)| *other == id).map(|(_, slot)| slot.value.clone()).peekable();
    if more.peek().is_none() {
        return Some(slot.value.clone());
    }
    Some(Value::List(std::iter::once(slot.value.clone()).chain(more).collect()))
}
