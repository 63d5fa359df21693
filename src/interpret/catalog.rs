//! The catalog: device entries bound to profiles, and interpretation of one reading after the other.

use std::collections::HashMap;
use std::sync::Arc;

use crate::observation::Value;
use crate::reading::{Channel as Heard, Reading};

use super::decode::{Decoded, FieldSpan, Secrets, State, decode};
use super::decrypt::Key;
use super::emit::{Context, field};
use super::error::near;
use super::memory::{DeviceMemory, Follows};
use super::plausible::Limits;
use super::profile::{Profile, ProfileSet};
use super::{Fault, FaultKind, Interpretation};

/// Profiles by id, device entries by name, and the limits of plausibility: everything that interpretation needs.
#[derive(Debug)]
pub struct Catalog {
    entries: HashMap<Arc<str>, Bound>,
    limits: Limits,
}

/// What a device entry says of interpretation.
#[derive(Debug, Clone)]
pub struct EntryBinding {
    /// The entry's name.
    pub entry: Arc<str>,
    /// Its profile's id.
    pub profile: String,
    /// Overrides the component of the profile's emits (for a thermometer worn on the skin, say).
    pub component: Option<Arc<str>>,
    /// The device's key, where its frames are encrypted.
    pub key: Option<Key>,
}

#[derive(Debug)]
struct Bound {
    profile: Arc<Profile>,
    component: Option<Arc<str>>,
    key: Option<Key>,
}

/// What a device entry adds to its profile.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry<'a> {
    /// Overrides the component of the profile's emits.
    pub(super) component: Option<&'a Arc<str>>,
    /// The device's key.
    pub(super) key: Option<&'a Key>,
}

/// A device entry that names no known profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("device \"{entry}\" has the profile \"{profile}\", which does not exist; {hint}")]
pub struct UnknownProfile {
    /// The device entry.
    pub entry: String,
    /// What it names.
    pub profile: String,
    /// Near names, or how to list all.
    pub hint: String,
}

/// An interpretation, and where each field stood in the frame.
#[derive(Debug, Default)]
pub struct Explained {
    /// With `fields`, `missing` and `withheld`.
    pub interpretation: Interpretation,
    /// In the order of reading.
    pub spans: Vec<FieldSpan>,
    /// The frame that the spans mean, where it is not the reading's bytes: decrypted.
    pub plain: Option<Vec<u8>>,
}

impl Catalog {
    /// Binds device entries to profiles.
    pub fn new(profiles: &ProfileSet, bindings: Vec<EntryBinding>, limits: Limits) -> Result<Catalog, UnknownProfile> {
        let mut entries = HashMap::new();
        for binding in bindings {
            let Some(profile) = profiles.get(&binding.profile) else {
                let hint = UnknownProfile::hint(&binding.profile, profiles);
                return Err(UnknownProfile { entry: binding.entry.to_string(), profile: binding.profile, hint });
            };
            let bound = Bound { profile: profile.clone(), component: binding.component, key: binding.key };
            entries.insert(binding.entry, bound);
        }
        Ok(Catalog { entries, limits })
    }

    /// Profile id and version ("contec-cms50/1") of an entry.
    pub fn profile_of(&self, entry: &str) -> Option<Arc<str>> {
        self.profile(entry).map(|profile| profile.key().clone())
    }

    /// The profile of an entry.
    pub fn profile(&self, entry: &str) -> Option<&Profile> {
        self.entries.get(entry).map(|bound| &*bound.profile)
    }

    /// What a reading means. `number` is the reading's number in its run. Builds observations and faults only;
    /// [`explain`](Catalog::explain) also tells the fields.
    pub fn interpret(&self, reading: &Reading, number: u64, memory: &mut DeviceMemory) -> Interpretation {
        self.run(reading, number, memory, false).interpretation
    }

    /// As [`interpret`](Catalog::interpret), with every field, what is missing and withheld, and where it stood.
    pub fn explain(&self, reading: &Reading, number: u64, memory: &mut DeviceMemory) -> Explained {
        self.run(reading, number, memory, true)
    }

    fn run(&self, reading: &Reading, number: u64, memory: &mut DeviceMemory, explain: bool) -> Explained {
        let Some(bound) = self.entries.get(&reading.entry) else {
            return refused("entry", format!("no device entry is called \"{}\"", reading.entry));
        };
        let entry = Entry { component: bound.component.as_ref(), key: bound.key.as_ref() };
        interpret_with(&bound.profile, entry, &self.limits, reading, number, memory, explain)
    }
}

impl UnknownProfile {
    /// The ids that are near a wrong one, or how to list all.
    pub fn hint(id: &str, profiles: &ProfileSet) -> String {
        let near = near(id, profiles.iter().map(|profile| &**profile.id()));
        if near.is_empty() {
            return "`biogate profiles list` shows all".to_owned();
        }
        format!("did you mean {}?", near.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(" or "))
    }
}

fn refused(field: &str, message: String) -> Explained {
    let fault = Fault { kind: FaultKind::Refused, field: field.to_owned(), message };
    Explained {
        interpretation: Interpretation { faults: vec![fault], ..Interpretation::default() },
        ..Explained::default()
    }
}

/// Interprets a reading by this profile.
pub(super) fn interpret_with(
    profile: &Profile,
    entry: Entry<'_>,
    limits: &Limits,
    reading: &Reading,
    number: u64,
    memory: &mut DeviceMemory,
    explain: bool,
) -> Explained {
    // A device advertises many elements; only the profile's own is meant for it.
    if let (Heard::Advertisement { element, .. }, Some(wanted)) = (&reading.channel, &profile.matches.element)
        && element != wanted
    {
        return Explained::default();
    }
    let Some(channel) = profile.channel(reading.channel.name()) else {
        let message = format!("the profile {} has no channel \"{}\"", profile.key, reading.channel.name());
        return refused("channel", message);
    };
    memory.enter(&profile.key);
    let address = match &reading.channel {
        Heard::Advertisement { address, .. } => Some(&**address),
        Heard::Gatt(_) | Heard::Frame | Heard::Message { .. } => None,
    };
    let mut decoded = decode(channel, &reading.bytes, Secrets { key: entry.key, address }, explain);
    let mut out = Interpretation::default();
    if let Some(counter) = decoded.counter.filter(|_| decoded.fault.is_none() || stopped(&decoded)) {
        match memory.follow(counter) {
            Follows::Newer => out.memory_changed = true,
            Follows::Same => out.duplicate = true,
            Follows::Fell { last } => decoded.fault = Some(Box::new(replayed(counter, last))),
        }
    }
    let usable = decoded.fault.is_none() || stopped(&decoded);
    if usable && !out.duplicate {
        let component = entry.component;
        let context = Context { profile, channel, reading, number, component, limits, explain };
        context.all(&decoded, memory, &mut out);
    }
    out.faults.extend(decoded.fault.take().map(|fault| *fault));
    for (observation, why) in &out.implausible {
        let field = observation.event_type.name().to_owned();
        out.faults.push(Fault { kind: FaultKind::Implausible, field, message: why.clone() });
    }
    if explain {
        for (id, name) in channel.slots.iter().enumerate() {
            if decoded.slots[id].state == State::Missing {
                out.missing.push(name.clone());
            }
            if let Some(value) = field(id as u16, &decoded) {
                out.fields.push((name.clone(), known_or_null(value)));
            }
        }
    }
    Explained { interpretation: out, spans: decoded.spans, plain: decoded.plain }
}

/// Reading stopped half-way, and what came before counts.
fn stopped(decoded: &Decoded) -> bool {
    decoded.fault.as_ref().is_some_and(|fault| fault.kind == FaultKind::Stopped)
}

fn replayed(counter: u32, last: u32) -> Fault {
    let message =
        format!("its counter is {counter} and was {last} before: an old frame is sent again, perhaps by somebody else");
    Fault { kind: FaultKind::Refused, field: "replay".to_owned(), message }
}

fn known_or_null(value: Value) -> Value {
    match value {
        Value::Num(number) if !number.is_finite() => Value::Null,
        value => value,
    }
}
