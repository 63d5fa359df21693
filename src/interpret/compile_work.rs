//! What a row does with its value, checked; and when two rows of one name can never both be read.

use crate::observation::Value;

use super::error::Wrong;
use super::file::FieldRow;
use super::kind::Kind;
use super::notation::{Condition, Names, Scalar, Scalars};
use super::step::{Must, NameTable, Work};

/// Names stand in metadata, JSON and conditions: small letters, digits and `_`.
pub(super) fn check_name(name: &str) -> Result<(), Wrong> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !starts || !name.chars().all(plain) {
        return Err(Wrong::new(format!("name = {name:?}"), "small letters, digits and _, a letter first"));
    }
    let is_byte = name.strip_prefix('b').is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    if is_byte || name == "to_end" {
        return Err(Wrong::new(format!("name = {name:?}"), "another name: b0, b1 ... are the frame's bytes"));
    }
    Ok(())
}

pub(super) fn work(name: &str, row: &FieldRow, kind: Option<Kind>) -> Result<Work, Wrong> {
    let number = kind.is_none_or(Kind::is_number);
    let arithmetic = row.scale.is_some() || row.offset.is_some() || row.unit.is_some();
    if arithmetic && (!number || row.values.is_some()) {
        return Err(Wrong::new(
            format!("scale, offset or unit in \"{name}\""),
            "only a number without values has them",
        ));
    }
    if row.offset.is_some_and(|offset| !offset.is_finite()) {
        return Err(Wrong::new(format!("offset in \"{name}\""), "a finite number"));
    }
    let one_bit = kind.is_none()
        && row.bits.as_ref().is_some_and(|bits| match bits.all() {
            [piece] => !piece.contains('-'),
            _ => false,
        });
    let all = |scalars: Option<&Scalars>| scalars.map_or_else(Vec::new, |s| s.all().to_vec());
    Ok(Work {
        plain: row.must.is_none()
            && row.missing.is_none()
            && row.values.is_none()
            && row.scale.is_none()
            && row.offset.is_none(),
        must: all(row.must.as_ref()).into_iter().map(must).collect(),
        missing: all(row.missing.as_ref()),
        names: row.values.as_ref().map(table),
        scale: row.scale,
        offset: row.offset.unwrap_or(0.0),
        flag: one_bit && !arithmetic && row.values.is_none(),
    })
}

/// `"0..100"` is a range, anything else the value itself.
fn must(scalar: Scalar) -> Must {
    let range = match &scalar {
        Scalar::Text(text) => {
            text.split_once("..").and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)))
        }
        Scalar::Int(_) | Scalar::Num(_) | Scalar::Bool(_) => None,
    };
    range.map_or(Must::Be(scalar), |(low, high)| Must::Lie(low, high))
}

fn table(names: &Names) -> NameTable {
    let text = |name: &String| Value::Text(name.as_str().into());
    match names {
        Names::List(names) => NameTable::List(names.iter().map(text).collect()),
        Names::Table(table) if table.keys().all(|key| parse_number(key).is_some()) => {
            let mut numbers: Vec<_> =
                table.iter().filter_map(|(key, name)| Some((parse_number(key)?, text(name)))).collect();
            numbers.sort_by_key(|(number, _)| *number);
            NameTable::Numbers(numbers)
        }
        Names::Table(table) => NameTable::Texts(table.iter().map(|(key, name)| (key.clone(), text(name))).collect()),
    }
}

fn parse_number(key: &str) -> Option<i64> {
    key.strip_prefix("0x").map_or_else(|| key.parse().ok(), |hex| i64::from_str_radix(hex, 16).ok())
}

/// Whether two rows with these conditions can never both be read.
pub(super) fn exclude(
    a_if: Option<&Condition>,
    a_unless: Option<&Condition>,
    b_if: Option<&Condition>,
    b_unless: Option<&Condition>,
) -> bool {
    let implied = |only_if: Option<&Condition>, unless: Option<&Condition>| match (only_if, unless) {
        (Some(only_if), Some(unless)) => implies(only_if, unless),
        _ => false,
    };
    let differ = match (a_if, b_if) {
        (Some(Condition::All(a)), Some(Condition::All(b))) => {
            a.iter().any(|(name, value)| b.get(name).is_some_and(|other| other != value))
        }
        _ => false,
    };
    implied(a_if, b_unless) || implied(b_if, a_unless) || differ
}

/// Whether the second condition holds whenever the first does.
fn implies(first: &Condition, second: &Condition) -> bool {
    let flags = |condition: &Condition| match condition {
        Condition::Flag(flag) => Some(vec![flag.clone()]),
        Condition::Any(flags) => Some(flags.clone()),
        Condition::All(_) => None,
    };
    match (flags(first), flags(second)) {
        (Some(first), Some(second)) => first.iter().all(|flag| second.contains(flag)),
        _ => match (first, second) {
            (Condition::All(first), Condition::All(second)) => {
                second.iter().all(|(name, value)| first.get(name) == Some(value))
            }
            _ => false,
        },
    }
}
