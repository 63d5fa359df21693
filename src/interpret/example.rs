//! The examples beside a profile: they run when it loads, and it is refused if one does not hold.

use std::sync::Arc;

use bytes::Bytes;

use crate::observation::Value;
use crate::reading::{BootId, Channel as Heard, Element, Heard as Moment, Reading};

use super::bluetooth;
use super::catalog::{Entry, Explained, interpret_with};
use super::decrypt::{self, Key};
use super::error::Wrong;
use super::file::{ExampleRow, ProfileFile};
use super::frame::readings_of;
use super::memory::DeviceMemory;
use super::notation::{Expected, parse_hex};
use super::plausible::Limits;
use super::profile::Profile;
use super::work::{equals, shown};
use super::{Fault, FaultKind, Interpretation};

/// Frames of one example are heard this far apart: no twins, and every `every` but the longest has passed.
const APART_MS: u64 = 10_000;

pub(super) fn run_all(profile: &Profile, file: &ProfileFile) -> Result<(), Wrong> {
    for channel in &file.channel {
        let name = bluetooth::channel(&channel.get_ref().name).unwrap_or_default();
        for (at, row) in channel.get_ref().examples.iter().enumerate() {
            run(profile, &name, row.get_ref()).map_err(|wrong| {
                let found = format!("example {} of {name}: {}", at + 1, wrong.found);
                Wrong::new(found, wrong.expected).at(row.span())
            })?;
        }
    }
    Ok(())
}

/// The frames of an example, or of the command line.
fn frames(row: &ExampleRow) -> Result<Vec<Bytes>, Wrong> {
    match (&row.hex, &row.text) {
        (Some(hex), None) => {
            let bytes = hex.all().iter().map(|hex| parse_hex(hex).map(Bytes::from));
            bytes.collect::<Result<_, _>>().map_err(|why| Wrong::new(why, "bytes in hexadecimal, as \"06 71 01\""))
        }
        (None, Some(text)) => Ok(text.all().iter().map(|text| Bytes::from(text.clone())).collect()),
        _ => Err(Wrong::new("none or both of hex and text", "write one of them")),
    }
}

fn run(profile: &Profile, channel: &str, row: &ExampleRow) -> Result<(), Wrong> {
    let key = row.key.as_deref().map(Key::parse).transpose();
    let key = key.map_err(|why| Wrong::new("key", why))?;
    let address = row.mac.as_deref().unwrap_or("00:00:00:00:00:00");
    if decrypt::mac(address).is_none() {
        return Err(Wrong::new(format!("mac = {address:?}"), "six bytes, as \"A0:9E:1A:00:11:22\""));
    }
    let entry = Entry { component: None, key: key.as_ref() };
    let (events, last) = interpret(profile, channel, entry, address, frames(row)?);
    let fault = last.faults.iter().find(|fault| fault.kind != FaultKind::Implausible);
    let expected_fault = match (&row.refuse, &row.stopped) {
        (Some(field), None) => Some((field, "refuse")),
        (None, Some(field)) => Some((field, "stopped")),
        (None, None) => None,
        (Some(_), Some(_)) => return Err(Wrong::new("refuse and stopped", "write one of them")),
    };
    compare_fault(fault, expected_fault)?;
    // Frames before the refused one may make events; then the row says which.
    if row.refuse.is_some() && row.events.is_none() && !events.is_empty() {
        return Err(Wrong::new(format!("events {}", list(&events)), "no event of a refused frame"));
    }
    if let Some(expected) = &row.events {
        compare_events(&events, expected)?;
    }
    for (name, expected) in &row.fields {
        let found = last.fields.iter().find(|(known, _)| **known == **name).map(|(_, value)| value);
        if !found.is_some_and(|value| matches(expected, value)) {
            let found = found.map_or_else(|| "not read".to_owned(), shown);
            return Err(Wrong::new(format!("{name} is {found}"), format!("expected {}", shown_expected(expected))));
        }
    }
    compare_names("missing", &last.missing, row.missing.as_ref())?;
    compare_names("withheld", &last.withheld, row.withheld.as_ref())
}

/// One event as the examples write it.
type Found = (&'static str, f64);

/// Interprets the frames in order with a fresh memory: the events of all, and what the last one said.
fn interpret(
    profile: &Profile,
    channel: &str,
    entry: Entry<'_>,
    address: &str,
    frames: Vec<Bytes>,
) -> (Vec<Found>, Interpretation) {
    let mut memory = DeviceMemory::default();
    let mut events = Vec::new();
    let mut last = Interpretation::default();
    let framing = profile.frame.as_ref().filter(|_| channel == "frame");
    for (at, bytes) in readings_of(framing, frames).into_iter().enumerate() {
        last = match bytes {
            Ok(bytes) => {
                let reading = reading(profile, channel, address, bytes, at as u64 * APART_MS);
                let Explained { interpretation, .. } =
                    interpret_with(profile, entry, &Limits::default(), &reading, at as u64, &mut memory, true);
                interpretation
            }
            Err(fault) => Interpretation { faults: vec![fault.into()], ..Interpretation::default() },
        };
        // The hub's limits are not the profile's: an implausible value is understood all the same.
        let mut found: Vec<_> =
            last.observations.iter().chain(last.implausible.iter().map(|(observation, _)| observation)).collect();
        found.sort_by_key(|observation| observation.index);
        events.extend(found.iter().map(|observation| (observation.event_type.name(), observation.value)));
    }
    (events, last)
}

/// A reading of this channel, as a source would bring it.
fn reading(profile: &Profile, channel: &str, address: &str, bytes: Bytes, ms: u64) -> Reading {
    let channel = match channel {
        "frame" => Heard::Frame,
        "message" => Heard::Message { topic: "example".into() },
        "advertisement" => {
            let element = profile.matches.element.clone().unwrap_or_else(|| Element::ServiceData("".into()));
            Heard::Advertisement { address: address.into(), element }
        }
        characteristic => Heard::Gatt(characteristic.into()),
    };
    let heard = Moment { boot: BootId::WALL, ms };
    Reading { device: "example".into(), entry: "example".into(), channel, bytes, heard }
}

fn compare_fault(found: Option<&Fault>, expected: Option<(&String, &str)>) -> Result<(), Wrong> {
    let shown = |fault: &Fault| match fault.kind {
        FaultKind::Stopped => format!("stopped = {:?} ({})", fault.field, fault.message),
        _ => format!("refuse = {:?} ({})", fault.field, fault.message),
    };
    let word = |fault: &Fault| if fault.kind == FaultKind::Stopped { "stopped" } else { "refuse" };
    match (found, expected) {
        (None, None) => Ok(()),
        (Some(fault), Some((field, kind))) if *field == fault.field && kind == word(fault) => Ok(()),
        (Some(fault), Some((field, kind))) => Err(Wrong::new(shown(fault), format!("expected {kind} = {field:?}"))),
        (Some(fault), None) => Err(Wrong::new(shown(fault), "expected a good frame")),
        (None, Some((field, kind))) => Err(Wrong::new("a good frame", format!("expected {kind} = {field:?}"))),
    }
}

fn compare_events(found: &[Found], expected: &[std::collections::BTreeMap<String, f64>]) -> Result<(), Wrong> {
    let wanted: Vec<(&str, f64)> = expected.iter().flatten().map(|(name, value)| (name.as_str(), *value)).collect();
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs().max(1.0);
    let same = found.len() == wanted.len()
        && found.iter().zip(&wanted).all(|(found, wanted)| found.0 == wanted.0 && near(found.1, wanted.1));
    if same {
        Ok(())
    } else {
        Err(Wrong::new(format!("events {}", list(found)), format!("expected {}", list(&wanted))))
    }
}

fn list(events: &[(&str, f64)]) -> String {
    let shown: Vec<String> = events.iter().map(|(name, value)| format!("{{ {name} = {value} }}")).collect();
    format!("[{}]", shown.join(", "))
}

fn compare_names(what: &str, found: &[Arc<str>], expected: Option<&Vec<String>>) -> Result<(), Wrong> {
    let Some(expected) = expected else { return Ok(()) };
    let mut found: Vec<&str> = found.iter().map(|name| &**name).collect();
    let mut wanted: Vec<&str> = expected.iter().map(String::as_str).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    if found == wanted { Ok(()) } else { Err(Wrong::new(format!("{what} {found:?}"), format!("expected {wanted:?}"))) }
}

fn matches(expected: &Expected, value: &Value) -> bool {
    match (expected, value) {
        (Expected::One(wanted), value) => equals(wanted, value),
        (Expected::List(wanted), Value::List(values)) => {
            wanted.len() == values.len() && wanted.iter().zip(values).all(|(wanted, value)| equals(wanted, value))
        }
        (Expected::List(_), _) => false,
    }
}

fn shown_expected(expected: &Expected) -> String {
    match expected {
        Expected::One(one) => one.shown(),
        Expected::List(all) => format!("[{}]", all.iter().map(|one| one.shown()).collect::<Vec<_>>().join(", ")),
    }
}
