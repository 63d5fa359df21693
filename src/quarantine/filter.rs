//! Which entries a command means, and how an entry is shown.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Anchors;
use crate::event::event_id;
use crate::observation::Observation;
use crate::reading::{Heard, RunId};
use crate::store::{AsideEntry, AsideKind, observation_from_cbor};

/// The fewest hex digits that name an entry.
const FEWEST_DIGITS: usize = 4;

/// What a command says of the entries that it means; all of it must fit. The default means every entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Ids, or how they begin; none means any.
    pub ids: Vec<String>,
    /// The device's name.
    pub device: Option<String>,
    /// Why it was set aside.
    pub kind: Option<AsideKind>,
    /// The profile that it was read by, with or without its version.
    pub profile: Option<String>,
    /// Heard at or after this time, in Unix milliseconds.
    pub since_ms: Option<i64>,
}

impl Filter {
    /// What is parked of a device, or of every device.
    pub fn parked(device: Option<&str>) -> Filter {
        Filter { kind: Some(AsideKind::Parked), device: device.map(str::to_owned), ..Filter::default() }
    }

    /// Whether it means every entry.
    pub fn is_any(&self) -> bool {
        *self == Filter::default()
    }

    /// What is wrong with it, for the person who wrote it.
    pub fn objection(&self) -> Option<String> {
        let is_id =
            |id: &&String| (FEWEST_DIGITS..=16).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let wrong = self.ids.iter().find(|id| !is_id(id))?;
        Some(format!(
            "found the id \"{wrong}\"; an entry's id is hex digits as `biogate buffer quarantine list` shows it"
        ))
    }

    /// Whether it means this entry, which was heard at `time_ms`.
    pub(super) fn means(&self, id: u64, entry: &AsideEntry, time_ms: Option<i64>) -> bool {
        let is_profile = |wanted: &String| {
            *entry.profile == **wanted || entry.profile.split('/').next().is_some_and(|name| name == wanted)
        };
        (self.ids.is_empty() || self.ids.iter().any(|wanted| names(wanted, id)))
            && self.device.as_ref().is_none_or(|device| *entry.device == **device)
            && self.kind.is_none_or(|kind| entry.kind == kind)
            && self.profile.as_ref().is_none_or(is_profile)
            && self.since_ms.is_none_or(|since| time_ms.is_some_and(|time| time >= since))
    }
}

/// Whether `wanted` is how this id begins.
pub(super) fn names(wanted: &str, id: u64) -> bool {
    format!("{id:016x}").starts_with(&wanted.to_ascii_lowercase())
}

/// An id as people see it.
pub(super) fn short(id: u64) -> String {
    format!("{:08x}", id >> 32)
}

/// Unix milliseconds of `heard`, where its boot is known.
pub(super) fn time_of(anchors: &Anchors, heard: Heard) -> Option<i64> {
    anchors.known_ms(anchors.version(), heard).map(|(ms, _)| ms)
}

/// An entry as JSON, raw bytes as hex.
pub(super) fn shown(entry: &AsideEntry, anchors: &Anchors) -> Value {
    let mut shown = json!({
        "id": short(entry.id()),
        "kind": entry.kind,
        "reason": entry.reason,
        "device": entry.device,
        "entry": entry.entry,
        "channel": entry.channel,
        "profile": entry.profile,
        "run": entry.run,
        "reading": entry.reading,
        "heard": entry.heard,
        "time": time_of(anchors, entry.heard),
        "destination": entry.destination,
        "hex": entry.bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    });
    if entry.destination.is_some()
        && let Some(observation) = observation_from_cbor(&entry.bytes)
    {
        shown["event"] = shown_event(entry.run, &observation, anchors);
    }
    shown
}

/// An observation as far as it is known before it is sent.
pub(super) fn shown_event(run: RunId, observation: &Observation, anchors: &Anchors) -> Value {
    json!({
        "event_id": event_id(run, observation),
        "event_type": observation.event_type.name(),
        "component": observation.component,
        "value": observation.value,
        "unit": observation.event_type.unit(),
        "time": time_of(anchors, observation.heard),
    })
}
