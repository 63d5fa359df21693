//! The catalog: device entries bound to profiles, and interpretation of one reading after the other.

use std::collections::HashMap;
use std::sync::Arc;

use crate::observation::Value;
use crate::reading::{Channel as Heard, Reading};

use super::decode::{FieldSpan, State, decode};
use super::emit::{Context, field};
use super::error::near;
use super::memory::DeviceMemory;
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
}

#[derive(Debug)]
struct Bound {
    profile: Arc<Profile>,
    component: Option<Arc<str>>,
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
            let bound = Bound { profile: profile.clone(), component: binding.component };
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
        let component = bound.component.as_ref();
        interpret_with(&bound.profile, component, &self.limits, reading, number, memory, explain)
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
    Explained { interpretation: Interpretation { faults: vec![fault], ..Interpretation::default() }, spans: Vec::new() }
}

/// Interprets a reading by this profile.
pub(super) fn interpret_with(
    profile: &Profile,
    component: Option<&Arc<str>>,
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
    let mut decoded = decode(channel, &reading.bytes, explain);
    let mut out = Interpretation::default();
    let usable = decoded.fault.as_ref().is_none_or(|fault| fault.kind == FaultKind::Stopped);
    if usable {
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
    Explained { interpretation: out, spans: decoded.spans }
}

fn known_or_null(value: Value) -> Value {
    match value {
        Value::Num(number) if !number.is_finite() => Value::Null,
        value => value,
    }
}
