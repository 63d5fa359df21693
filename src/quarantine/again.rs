//! PURE: reads a reading again that was set aside, as if its profile and limits had been from the start what they are now.
//!
//! The device's live memory is not touched. Refused readings share a memory of their own for each device, in the order
//! in which they were heard. What a refused reading added to a running total that was live by then came as part of the
//! next good reading's increment, so it gives no event here; a total that was not live yet is counted among the refused.

use std::collections::HashMap;
use std::sync::Arc;

use super::filter::time_of;
use crate::clock::Anchors;
use crate::intake::{carried_bytes, refused_for};
use crate::interpret::{Catalog, DeviceMemory, Interpretation};
use crate::observation::Observation;
use crate::reading::Reading;
use crate::store::{AsideEntry, AsideKind};

/// What comes of an entry.
#[derive(Debug, PartialEq)]
pub enum Again {
    /// It is understood now.
    Read {
        /// What it means; may be nothing where all of it is implausible.
        observations: Vec<Observation>,
        /// What is outside the limits now: new entries in place of the old one.
        implausible: Vec<AsideEntry>,
    },
    /// It is understood and carries nothing to store.
    WithoutEvent,
    /// It repeats another reading.
    Known,
    /// It stays, and why.
    Still(String),
}

/// Looks up the stored memories of a device: the live one, and what an earlier reading again left.
pub type Stored<'a> = dyn Fn(&str) -> (Option<Vec<u8>>, Option<Vec<u8>>) + Send + Sync + 'a;

/// Reads entries again, oldest first.
pub struct Rereader<'a> {
    catalog: &'a Catalog,
    anchors: &'a Anchors,
    stored: &'a Stored<'a>,
    memories: HashMap<Arc<str>, DeviceMemory>,
    /// Devices whose memory changed since [`Rereader::take_changed`].
    changed: Vec<Arc<str>>,
}

impl<'a> Rereader<'a> {
    /// With the profiles, limits and clock anchors of now.
    pub fn new(catalog: &'a Catalog, anchors: &'a Anchors, stored: &'a Stored<'a>) -> Self {
        Rereader { catalog, anchors, stored, memories: HashMap::new(), changed: Vec::new() }
    }

    /// What comes of a reading that was refused or implausible.
    pub fn read(&mut self, entry: &AsideEntry) -> Again {
        if entry.reason.starts_with("replay: ") {
            // The device's counter told that somebody sent an old frame once more: reading it again must not let it in.
            return Again::Still("an old frame that was sent once more stays out".to_owned());
        }
        match (entry.kind, entry.which) {
            (AsideKind::Implausible, Some((index, event_type))) => {
                let mut memory = DeviceMemory::of_the_moment((self.stored)(&entry.device).0.as_deref());
                memory.set_counters(&entry.counters);
                memory.raise_resets(entry.resets);
                let interpretation = self.catalog.interpret(&reading(entry), entry.reading, &mut memory);
                one_of(interpretation, index, event_type)
            }
            (AsideKind::Implausible, None) => {
                Again::Still("it does not say which value of its reading it is".to_owned())
            }
            _ => self.read_refused(entry),
        }
    }

    fn read_refused(&mut self, entry: &AsideEntry) -> Again {
        let memory = self.memories.entry(entry.device.clone()).or_insert_with(|| {
            let (live, earlier) = (self.stored)(&entry.device);
            DeviceMemory::of_the_past(live.as_deref(), earlier.as_deref())
        });
        memory.raise_resets(entry.resets);
        let now = time_of(self.anchors, entry.heard);
        let is_later = |heard| time_of(self.anchors, heard) > now;
        let live = entry.counters.iter().map(|(key, ..)| key.clone());
        let later = memory.counters().into_iter().filter(|(_, _, heard)| is_later(*heard)).map(|(key, ..)| key);
        let covered = live.chain(later).collect();
        memory.cover_counters(covered, entry.heard);
        let interpretation = self.catalog.interpret(&reading(entry), entry.reading, memory);
        if interpretation.memory_changed && !self.changed.contains(&entry.device) {
            self.changed.push(entry.device.clone());
        }
        judged(interpretation, entry)
    }

    /// The memories that changed since the last call, as they are stored.
    pub fn take_changed(&mut self) -> Vec<(Arc<str>, Vec<u8>)> {
        let changed = std::mem::take(&mut self.changed);
        let state = |device: Arc<str>| Some((device.clone(), self.memories.get(&device)?.to_state()));
        changed.into_iter().filter_map(state).collect()
    }

    /// How many devices are remembered.
    pub fn devices(&self) -> usize {
        self.memories.len()
    }

    /// Forgets all memories; what was stored of them is looked up again.
    pub fn forget(&mut self) {
        self.memories.clear();
    }
}

fn reading(entry: &AsideEntry) -> Reading {
    Reading {
        device: entry.device.clone(),
        entry: entry.entry.clone(),
        channel: entry.channel.clone(),
        bytes: entry.bytes.clone().into(),
        heard: entry.heard,
    }
}

/// What the intake would have made of it.
fn judged(interpretation: Interpretation, entry: &AsideEntry) -> Again {
    let carried = interpretation.observations.iter().map(carried_bytes).sum();
    if interpretation.duplicate {
        Again::Known
    } else if let Some(reason) = refused_for(&interpretation, carried) {
        Again::Still(reason)
    } else if interpretation.observations.is_empty() && interpretation.implausible.is_empty() {
        Again::WithoutEvent
    } else {
        let aside = |(observation, reason): (Observation, String)| AsideEntry {
            kind: AsideKind::Implausible,
            reason,
            profile: observation.profile.clone(),
            which: Some((observation.index, observation.event_type)),
            ..entry.clone()
        };
        let implausible = interpretation.implausible.into_iter().map(aside).collect();
        Again::Read { observations: interpretation.observations, implausible }
    }
}

/// The one observation of a reading that was set aside; the others of it are stored already.
fn one_of(interpretation: Interpretation, index: u16, event_type: crate::observation::EventType) -> Again {
    if let Some(reason) = refused_for(&interpretation, 0) {
        return Again::Still(reason);
    }
    let is_it = |found: &Observation| found.index == index && found.event_type == event_type;
    if let Some((_, reason)) = interpretation.implausible.iter().find(|(found, _)| is_it(found)) {
        return Again::Still(reason.clone());
    }
    let of_type = |found: &Observation| found.event_type == event_type;
    let elsewhere = interpretation.observations.iter().chain(interpretation.implausible.iter().map(|(found, _)| found));
    let elsewhere = elsewhere.filter(|found| of_type(found)).count() > 0;
    match interpretation.observations.into_iter().find(is_it) {
        Some(observation) => Again::Read { observations: vec![observation], implausible: Vec::new() },
        // Under another number its id could be that of a stored event of the same reading.
        None if elsewhere => Again::Still(format!(
            "the profile numbers the {} of this reading otherwise than when it was stored in part",
            event_type.name()
        )),
        None => Again::WithoutEvent,
    }
}
