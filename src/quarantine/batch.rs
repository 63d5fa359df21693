//! What a replay brings back, commit by commit: a commit has one run and one destination or all.

use super::again::{Again, Rereader};
use super::filter::shown_event;
use super::scan::Scanned;
use super::{MOST_TOLD, Outcome, REPLAY_STATE, Told, short};
use crate::intake::{MAX_COLLECTED_BYTES, MAX_OBSERVATIONS, carried_bytes};
use crate::observation::Observation;
use crate::resolve::{Resolved, Resolver, Timeline};
use crate::store::{
    AsideEntry, AsideKind, AsidePlace, Commit, Error, IntakeTally, StateChange, Store, observation_from_cbor,
};

/// Entries that one commit removes; what is known of them is a value of the store in the same record.
const MOST_ENTRIES: usize = 4_096;

/// Bytes of entries that one commit sets aside anew.
const MAX_ASIDE_BYTES: usize = 384 << 10;

/// So many devices are remembered at once.
const MOST_DEVICES: usize = 8_192;

/// Whether an entry came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Back,
    Stays,
}

/// A replay under way.
pub(super) struct Replaying<'a> {
    store: &'a Store,
    reread: Rereader<'a>,
    timeline: &'a Timeline,
    resolver: Option<Resolver<'a>>,
    configured: &'a [String],
    dry_run: bool,
    commit: Commit,
    /// Bytes of the commit's observations before compression, and of what it sets aside anew.
    bytes: usize,
    aside_bytes: usize,
    outcome: Outcome,
}

impl<'a> Replaying<'a> {
    pub(super) fn new(
        store: &'a Store,
        reread: Rereader<'a>,
        timeline: &'a Timeline,
        configured: &'a [String],
        dry_run: bool,
    ) -> Self {
        let anchors = &timeline.anchors;
        let basis = timeline.bases.last_key_value().map(|(_, basis)| basis);
        Replaying {
            store,
            reread,
            timeline,
            resolver: basis.map(|basis| Resolver::new(anchors, anchors.version(), basis)),
            configured,
            dry_run,
            commit: Commit::default(),
            bytes: 0,
            aside_bytes: 0,
            outcome: Outcome { dry_run, ..Outcome::default() },
        }
    }

    /// The same entry once more, of which the first came back.
    pub(super) fn remove_twin(&mut self, place: AsidePlace) {
        self.commit.replayed.push(place);
    }

    /// Reads one entry again. Its memory goes with the commit that its observations go with, so a commit that cannot
    /// take it ends before it is read.
    pub(super) async fn take(&mut self, scanned: &Scanned, time: Option<i64>) -> Result<Came, Error> {
        let entry = &scanned.entry;
        let only_for = entry.destination.as_deref();
        let is_of_this = self.commit.run == Some(entry.run) && self.commit.only_for.as_deref() == only_for;
        let is_full = self.commit.observations.len() >= MAX_OBSERVATIONS
            || self.commit.replayed.len() >= MOST_ENTRIES
            || self.bytes >= MAX_COLLECTED_BYTES
            || self.aside_bytes >= MAX_ASIDE_BYTES;
        if !is_of_this || is_full {
            self.flush().await?;
            self.commit.run = Some(entry.run);
            self.commit.only_for = only_for.map(Into::into);
        }
        let again = match time {
            None => Again::Still("the clock of the boot that it was heard in is not known any more".to_owned()),
            Some(_) => self.read(entry),
        };
        Ok(self.enter(scanned, time, again))
    }

    fn read(&mut self, entry: &AsideEntry) -> Again {
        if entry.reason.ends_with("too many to keep)") {
            return Again::Still(entry.reason.clone());
        }
        match entry.kind {
            AsideKind::Refused | AsideKind::Implausible => self.reread.read(entry),
            AsideKind::Rejected | AsideKind::Parked => self.send_again(entry),
        }
    }

    fn send_again(&self, entry: &AsideEntry) -> Again {
        let destination = entry.destination.as_deref().unwrap_or_default();
        if !self.configured.iter().any(|name| name == destination) {
            return Again::Still(format!("the destination \"{destination}\" is not configured any more"));
        }
        let Some(observation) = observation_from_cbor(&entry.bytes) else {
            return Again::Still("its bytes are no observation".to_owned());
        };
        let resolved = self.resolver.as_ref().map(|resolver| resolver.resolve(entry.run, observation.clone()));
        match resolved {
            Some(Resolved::Event(_)) => Again::Read { observations: vec![observation], implausible: Vec::new() },
            Some(Resolved::Parked(_)) | None => Again::Still("nobody is assigned to the device".to_owned()),
        }
    }

    /// Puts what came of an entry into the commit and counts it: a reading is accepted once more, beside the balance.
    fn enter(&mut self, scanned: &Scanned, time: Option<i64>, again: Again) -> Came {
        let mut told = Told {
            id: short(scanned.id),
            kind: scanned.entry.kind,
            device: scanned.entry.device.clone(),
            time,
            still: None,
            said: None,
            events: Vec::new(),
        };
        let mut tally = IntakeTally { accepted: 1, replayed: 1, ..IntakeTally::default() };
        let mut came = Came::Back;
        let tells = self.outcome.entries.len() < MOST_TOLD;
        match again {
            Again::Still(reason) => {
                told.still = Some(reason);
                came = Came::Stays;
            }
            Again::WithoutEvent => {
                tally.without_event = 1;
                told.said = Some("without event".to_owned());
            }
            Again::Known => {
                tally.duplicate = 1;
                told.said = Some("known already".to_owned());
            }
            Again::Read { observations, implausible } => {
                tally.decoded = 1;
                tally.implausible = implausible.len() as u64;
                tally.stored = observations.len() as u64;
                tally.made = tally.implausible + tally.stored;
                if observations.is_empty() {
                    told.said = Some("implausible".to_owned());
                }
                if tells {
                    let event = |found: &Observation| shown_event(scanned.entry.run, found, &self.timeline.anchors);
                    told.events = observations.iter().map(event).collect();
                }
                self.bytes += observations.iter().map(carried_bytes).sum::<usize>();
                self.aside_bytes += implausible.iter().map(|entry| entry.bytes.len()).sum::<usize>();
                self.commit.observations.extend(observations);
                self.commit.aside.extend(implausible);
            }
        }
        match came {
            Came::Stays => self.outcome.still += 1,
            Came::Back => {
                self.outcome.replayed += 1;
                self.outcome.events += tally.stored;
                self.commit.intake.add(&tally);
                self.commit.replayed.push(scanned.place);
            }
        }
        if tells {
            self.outcome.entries.push(told);
        }
        came
    }

    /// Makes durable what was collected: observations, memories and the removal of their entries in one record.
    async fn flush(&mut self) -> Result<(), Error> {
        let mut commit = std::mem::take(&mut self.commit);
        (self.bytes, self.aside_bytes) = (0, 0);
        if !self.dry_run {
            let state = |(device, bytes)| StateChange { key: format!("{REPLAY_STATE}{device}"), value: Some(bytes) };
            commit.state = self.reread.take_changed().into_iter().map(state).collect();
            if !commit.replayed.is_empty() || !commit.state.is_empty() {
                self.store.commit(commit).await?;
            }
            if self.reread.devices() >= MOST_DEVICES {
                self.reread.forget();
            }
        }
        Ok(())
    }

    /// The last commit, and what came of everything.
    pub(super) async fn finish(mut self) -> Result<Outcome, Error> {
        self.flush().await?;
        Ok(self.outcome)
    }
}
