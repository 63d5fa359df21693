//! One row of `emit` to its compiled form; units that cannot become the type's own are refused here.

use std::sync::Arc;

use crate::observation::EventType;

use super::compile_row::Scope;
use super::error::{Wrong, near};
use super::file::{EmitRow, ZoneName};
use super::kind::Kind;
use super::step::{Emit, From, RowId, SlotId, Test, TimeBase, UnitOf};
use super::unit::{accepted, conversion};

pub(super) fn emit(row: &EmitRow, channel: &str, scope: &Scope, context: &[Arc<str>]) -> Result<Emit, Wrong> {
    let event = EventType::from_name(&row.event).ok_or_else(|| {
        let names = EventType::ALL.map(EventType::name);
        let hint = near(&row.event, names.into_iter()).first().map_or_else(String::new, |n| format!("write \"{n}\"? "));
        Wrong::new(format!("unknown event \"{}\"", row.event), format!("{hint}Events are {}", names.join(", ")))
    })?;
    let value = scope.earlier(&row.value)?;
    let component = row.component.as_deref().unwrap_or("");
    let wraps_at = row.counter.as_ref().map(|counter| counter.wraps_at.map(|total| total as f64));
    if wraps_at.flatten().is_some_and(|total| total < 8.0) {
        return Err(Wrong::new("wraps_at below 8", "the total after the largest one, as 65536 for 16 bits"));
    }
    Ok(Emit {
        event,
        value,
        component: component.into(),
        time: row.time.as_deref().map(|name| time("time", name, scope)).transpose()?,
        metadata: row.metadata.iter().map(|name| source(name, scope, context)).collect::<Result<_, _>>()?,
        withhold: match &row.withhold_if {
            None => None,
            Some(condition) => {
                let test = scope.test(condition)?;
                let slots: Vec<SlotId> = match &test {
                    Test::Any(slots) => slots.clone(),
                    Test::All(pairs) => pairs.iter().map(|(slot, _)| *slot).collect(),
                };
                let names = slots.iter().map(|slot| scope.slots[usize::from(*slot)].clone()).collect();
                Some((test, names))
            }
        },
        every: row.every.map(|span| span.0),
        counter: wraps_at,
        key: format!("{channel}.{}.{}.{component}", row.value, row.event).into(),
        units: units(event, value, &row.value, scope)?,
    })
}

/// For each row that the value may come of: how it becomes the type's unit.
fn units(event: EventType, value: SlotId, name: &str, scope: &Scope) -> Result<Vec<(RowId, UnitOf)>, Wrong> {
    let mut units = Vec::new();
    for (id, row) in scope.rows.iter().enumerate().filter(|(_, row)| row.slot == value) {
        if !row.is_number {
            return Err(Wrong::new(format!("value = \"{name}\""), "the value of an event is a number"));
        }
        let Some(unit) = &row.unit else {
            let expected = format!("write the unit of \"{name}\"; {} takes {}", event.name(), accepted(event));
            return Err(Wrong::new(format!("\"{name}\" without unit"), expected));
        };
        let Some(conversion) = conversion(unit, event) else {
            let expected = format!("{} takes {}", event.name(), accepted(event));
            return Err(Wrong::new(format!("\"{name}\" in {unit}"), expected));
        };
        let foreign = &**unit != event.unit();
        units.push((id as RowId, UnitOf { unit: unit.clone(), conversion, foreign }));
    }
    Ok(units)
}

/// The field that `key` names, which tells a time.
pub(super) fn time(key: &str, name: &str, scope: &Scope) -> Result<(SlotId, TimeBase), Wrong> {
    let slot = scope.earlier(name)?;
    let mut bases = scope.rows.iter().filter(|row| row.slot == slot).map(|row| match row.kind {
        Some(Kind::UnixMs(_)) => Some(TimeBase::UtcMs),
        Some(Kind::UnixS(_)) => Some(TimeBase::UtcS),
        Some(Kind::DateTime(ZoneName::Hub)) => Some(TimeBase::LocalMs),
        Some(Kind::DateTime(ZoneName::Utc)) => Some(TimeBase::UtcMs),
        _ => None,
    });
    let first = bases.next().flatten();
    match first {
        Some(base) if bases.all(|other| other == first) => Ok((slot, base)),
        _ => Err(Wrong::new(format!("{key} = \"{name}\""), "a field of type date_time, unix_ms or unix_s")),
    }
}

fn source(name: &String, scope: &Scope, context: &[Arc<str>]) -> Result<(Arc<str>, From), Wrong> {
    if let Some(slot) = scope.slot(name) {
        return Ok((scope.slots[usize::from(slot)].clone(), From::Slot(slot)));
    }
    if let Some(at) = context.iter().position(|known| **known == **name) {
        return Ok((context[at].clone(), From::Context(at as u16)));
    }
    let names = scope.slots.iter().chain(context).map(|slot| &**slot);
    let hint = near(name, names).first().map_or_else(
        || "name a field of this channel, or of one that makes no events".to_owned(),
        |near| format!("write \"{near}\"?"),
    );
    Err(Wrong::new(format!("metadata names the field \"{name}\""), hint))
}
