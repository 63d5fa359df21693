//! The order of work for one value: must, missing, names, scale and offset.

use crate::observation::Value;

use super::decode::State;
use super::notation::Scalar;
use super::read::Raw;
use super::step::{Must, NameTable, Work};
use super::unit::tidy;

/// Whether a value is the one that a profile names.
pub(super) fn equals(wanted: &Scalar, value: &Value) -> bool {
    match (wanted, value) {
        (Scalar::Text(wanted), Value::Text(text)) => **wanted == **text,
        (Scalar::Bool(wanted), Value::Bool(bit)) => wanted == bit,
        (Scalar::Int(wanted), Value::Int(number)) => wanted == number,
        (Scalar::Int(wanted), Value::Bool(bit)) => *wanted == i64::from(*bit),
        (Scalar::Int(_) | Scalar::Num(_), Value::Int(_) | Value::Num(_)) => {
            let number = match value {
                Value::Int(number) => *number as f64,
                Value::Num(number) => *number,
                _ => return false,
            };
            wanted.number().is_some_and(|wanted| wanted == number)
        }
        _ => false,
    }
}

pub(super) fn names_missing(work: &Work, text: &str) -> bool {
    work.missing.iter().any(|missing| matches!(missing, Scalar::Text(missing) if missing == text))
}

/// must, missing, names, scale and offset, in this order.
pub(super) fn finish(work: &Work, raw: Raw) -> Result<(State, Value), String> {
    let value = match raw {
        Raw::Missing if work.must.is_empty() => return Ok((State::Missing, Value::Null)),
        Raw::Missing => Value::Null,
        Raw::Int(number) => Value::Int(number),
        Raw::Num(number) => Value::Num(number),
        Raw::Bool(bit) => Value::Bool(bit),
        Raw::Text(text) | Raw::Time(_, text) => Value::Text(text),
    };
    if !work.must.is_empty() && !work.must.iter().any(|must| must.holds(&value)) {
        let wanted: Vec<String> = work.must.iter().map(Must::shown).collect();
        return Err(format!("it is {}, it must be {}", shown(&value), wanted.join(" or ")));
    }
    if work.missing.iter().any(|missing| equals(missing, &value)) {
        return Ok((State::Missing, Value::Null));
    }
    let value = match (&work.names, value) {
        (Some(names), value) => names.name(&value).unwrap_or(value),
        (None, Value::Int(number)) if work.scale.is_some() || work.offset != 0.0 => arithmetic(work, number as f64),
        (None, Value::Num(number)) => arithmetic(work, number),
        (None, value) => value,
    };
    Ok((if value == Value::Null { State::Missing } else { State::Known }, value))
}

fn arithmetic(work: &Work, number: f64) -> Value {
    let scaled = work.scale.map_or(number, |scale| number * scale.num / scale.den);
    let sum = if work.offset == 0.0 { scaled } else { tidy(scaled + work.offset) };
    if sum.is_finite() { Value::Num(sum) } else { Value::Null }
}

impl Must {
    fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Must::Be(wanted), value) => equals(wanted, value),
            (Must::Lie(low, high), Value::Int(number)) => (*low..=*high).contains(&(*number as f64)),
            (Must::Lie(low, high), Value::Num(number)) => (*low..=*high).contains(number),
            (Must::Lie(..), _) => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Must::Be(wanted) => wanted.shown(),
            Must::Lie(low, high) => format!("{low} to {high}"),
        }
    }
}

impl NameTable {
    /// The name of a value; a value without a name stays what it is.
    fn name(&self, value: &Value) -> Option<Value> {
        let number = match value {
            Value::Int(number) => Some(*number),
            Value::Bool(bit) => Some(i64::from(*bit)),
            _ => None,
        };
        match self {
            NameTable::List(names) => names.get(usize::try_from(number?).ok()?).cloned(),
            NameTable::Numbers(names) => {
                let at = names.binary_search_by_key(&number?, |(number, _)| *number).ok()?;
                names.get(at).map(|(_, name)| name.clone())
            }
            NameTable::Texts(names) => {
                let Value::Text(text) = value else { return None };
                names.iter().find(|(key, _)| **key == **text).map(|(_, name)| name.clone())
            }
        }
    }
}

/// A value as people write it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "missing".to_owned(),
        Value::Bool(bit) => bit.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Num(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::List(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")),
    }
}
