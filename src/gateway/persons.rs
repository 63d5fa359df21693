//! Who wears what, changed by command: checked, made a new version of the basis, and told to the warehouse.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use serde_json::json;
use uuid::Uuid;

use super::{basis, timekeeping};
use crate::clock::Anchors;
use crate::clock::keeper::Trust;
use crate::clock::system;
use crate::config::{Config, Link};
use crate::event::ClockQuality;
use crate::interpret::error::near;
use crate::local::persons::{Answer, Change, Done, When, worn};
use crate::reading::{BootId, Heard};
use crate::report::{Kind, Report};
use crate::resolve::history::{self, Assignment, By, Says, wall};
use crate::resolve::{Basis, Timeline};
use crate::store::{self, Commit, StateChange, Store};

/// State key of the highest revision that was handed on as a report.
const TOLD: &str = "assignments/told";

/// No statement is about a time before this: 2001-09-10, in Unix milliseconds. Below it a warehouse takes milliseconds
/// for seconds.
const EARLIEST_MS: i64 = 1_000_080_000_000;

/// State keys of devices that were heard begin so.
const DEVICE_STATE: &str = "device/";

/// What a change is checked against.
pub(super) struct Known<'a> {
    pub(super) config: &'a Config,
    pub(super) timeline: &'a Timeline,
    /// Devices that were heard, listed or not.
    pub(super) heard: BTreeSet<Arc<str>>,
    /// This moment.
    pub(super) now: Heard,
}

impl Known<'_> {
    /// The change as a statement, or why it cannot be one.
    pub(super) fn statement(&self, change: &Change) -> Result<Assignment, String> {
        let Change { device, user_id, .. } = change;
        self.check_device(device, change.anyway)?;
        let from = self.moment(change.from)?;
        let until = change.until.map(|until| self.moment(until)).transpose()?;
        let (from_ms, until_ms) = (self.unix_ms(from), until.map(|until| self.unix_ms(until)));
        if from_ms < EARLIEST_MS {
            return Err("the time lies before September 2001; write a later one".to_owned());
        }
        if until_ms.is_some_and(|until_ms| until_ms <= from_ms) {
            return Err("--until is not after --from; write a later --until".to_owned());
        }
        Ok(Assignment {
            device: device.clone(),
            user_id: *user_id,
            location: None,
            from: Some(from),
            until,
            says: Says::Person,
            by: By::Command,
            version: 0,
            revision: 0,
            said: Some(self.now),
            estimated: false,
        })
    }

    /// What holds after the statement.
    pub(super) fn done(&self, said: &Assignment, after: &Timeline) -> Option<Done> {
        let from = self.unix_ms(said.from?);
        Some(Done {
            from,
            until: said.until.map(|until| self.unix_ms(until)),
            estimated: [said.from, said.until].into_iter().flatten().any(|moment| !self.is_certain(moment)),
            past: from < self.unix_ms(self.now),
            worn: worn(after, Some(&said.device)).pop()?,
        })
    }

    fn check_device(&self, device: &str, anyway: bool) -> Result<(), String> {
        let config = self.config;
        let wearer = config.wearers.iter().find(|wearer| *wearer.device == *device);
        if wearer.is_some_and(|wearer| wearer.user_id.is_some()) {
            let why = "this entry has a user_id; change it there and reload (systemctl reload biogate), or take it out and assign";
            return Err(config.device_error(device, why).to_string());
        }
        let entry = config.devices.iter().find(|entry| *entry.name == *device);
        if let Some(Link::Mqtt { template, .. }) = entry.map(|entry| &entry.link)
            && template.contains("{device}")
        {
            let why = "this entry takes the names of its devices from the topic; write one of those names";
            return Err(config.device_error(device, why).to_string());
        }
        let basis = self.timeline.bases.last_key_value().map(|(_, basis)| basis);
        let said = basis.into_iter().flat_map(|basis| &basis.assignments).map(|said| &said.device);
        let names: BTreeSet<&str> = said
            .chain(&self.heard)
            .chain(config.wearers.iter().map(|wearer| &wearer.device))
            .map(|name| &**name)
            .filter(|name| crate::config::is_name(name))
            .collect();
        if names.contains(device) || (anyway && crate::config::is_name(device)) {
            return Ok(());
        }
        if !crate::config::is_name(device) {
            return Err(format!("found the device \"{device}\"; write 1 to 64 of the characters A-Z a-z 0-9 . _ -"));
        }
        let near = near(device, names.into_iter());
        let hint = match near.is_empty() {
            true => "`biogate status` shows all that were heard".to_owned(),
            false => {
                let quoted: Vec<String> = near.iter().map(|name| format!("\"{name}\"")).collect();
                format!("did you mean {}?", quoted.join(" or "))
            }
        };
        Err(format!(
            "no device \"{device}\" is configured, and none was heard; {hint} (with --anyway it is assigned all the same)"
        ))
    }

    fn moment(&self, when: When) -> Result<Heard, String> {
        match when {
            When::Now => Ok(self.now),
            When::At(unix_ms) => Ok(wall(unix_ms)),
            // Uptime is exact also while nobody knows the time of day.
            When::Ago(ms) if ms <= self.now.ms => Ok(Heard { ms: self.now.ms - ms, ..self.now }),
            When::Ago(ms) if self.is_certain(self.now) => Ok(wall(self.unix_ms(self.now).saturating_sub_unsigned(ms))),
            When::Ago(_) => {
                Err("the hub does not know the time yet, and it did not run then; write date and time".to_owned())
            }
        }
    }

    fn unix_ms(&self, heard: Heard) -> i64 {
        self.timeline.anchors.unix_ms(self.timeline.anchors.version(), heard).0
    }

    fn is_certain(&self, heard: Heard) -> bool {
        let anchors = &self.timeline.anchors;
        anchors.unix_ms(anchors.version(), heard).1 == ClockQuality::Synced
    }
}

/// Devices of which the store remembers something.
pub(super) fn remembered(store: &Store) -> BTreeSet<Arc<str>> {
    store.state(DEVICE_STATE).into_iter().map(|(key, _)| key[DEVICE_STATE.len()..].into()).collect()
}

/// Changes who wears what in a store that no gateway holds.
pub async fn assign_closed(config: &Config, store: &Store, change: &Change) -> anyhow::Result<Answer> {
    let before = timekeeping::stored(store);
    let sample = system::sample();
    let knows_the_time = sample.synchronised || config.clock.trust != Trust::Kernel;
    let all_written = [Some(change.from), change.until].into_iter().flatten().all(|when| matches!(when, When::At(_)));
    if !knows_the_time && !all_written {
        let why = "this machine does not know the time yet; write date and time with --from, or start biogate first";
        return Ok(Answer::Refused(why.to_owned()));
    }
    // No anchor of this boot may be stored, so the moment is taken from the clock at once.
    let known = Known { config, timeline: &before, heard: remembered(store), now: wall(sample.wall_ms) };
    let said = match known.statement(change) {
        Ok(said) => said,
        Err(why) => return Ok(Answer::Refused(why)),
    };
    let (gateway_id, mut changes) = basis::gateway_id(config, store);
    let news = basis::News { config, gateway_id, anchors: &before.anchors, now: known.now, told: told(store) };
    let next = news.over(before.bases.last_key_value().map(|(_, basis)| basis), Some(said.clone()));
    let cursors = config.cursors();
    let in_hand = in_hand(store, cursors.iter().map(String::as_str));
    let (after, of_basis) = basis::next_version(&before, next, &in_hand)?;
    changes.extend(of_basis);
    store.commit(Commit { state: changes, ..Commit::default() }).await.context("storing who wears what")?;
    tell(store, &after).await?;
    known.done(&said, &after).map(Answer::Done).context("what was said is not in the history")
}

/// The versions that the ranges in hand of these destinations name.
pub(super) fn in_hand<'a>(store: &Store, destinations: impl Iterator<Item = &'a str>) -> Vec<u64> {
    destinations.filter_map(|name| Some(store.in_hand(name)?.basis)).collect()
}

/// After the clock told something new: moments of this boot's uptime become Unix times, in a version of their own.
/// `None` where nothing changes.
pub(super) async fn settle(
    store: &Store,
    before: &Timeline,
    boot: BootId,
    destinations: &[String],
) -> anyhow::Result<Option<Timeline>> {
    let Some((_, basis)) = before.bases.last_key_value() else { return Ok(None) };
    let mut next = basis.clone();
    history::settle(&mut next.assignments, &before.anchors, boot);
    if next == *basis {
        return Ok(None);
    }
    history::number(&mut next.assignments, told(store));
    let in_hand = in_hand(store, destinations.iter().map(String::as_str));
    let (after, state) = basis::next_version(before, next, &in_hand)?;
    store.commit(Commit { state, ..Commit::default() }).await.context("storing since when who wears what")?;
    Ok(Some(after))
}

/// The highest revision that was handed on.
pub(super) fn told(store: &Store) -> u64 {
    let found = store.state(TOLD).into_iter().find(|(key, _)| key == TOLD);
    found.and_then(|(_, bytes)| String::from_utf8(bytes).ok()?.parse().ok()).unwrap_or(0)
}

/// Hands every statement on that is new or better known since the last time. After a crash in between they go once
/// more: a row of the same version and revision is the same row.
pub(super) async fn tell(store: &Store, timeline: &Timeline) -> anyhow::Result<()> {
    let Some((_, basis)) = timeline.bases.last_key_value() else { return Ok(()) };
    let told = told(store);
    let newest = basis.assignments.iter().map(|said| said.revision).fold(told, u64::max);
    if newest == told {
        return Ok(());
    }
    match store.report(reports(basis, &timeline.anchors, told)).await {
        Ok(()) => {}
        // They are tried again with every look at the clock.
        Err(store::Error::Full { .. }) => return Ok(()),
        Err(why) => return Err(why).context("storing the assignment records"),
    }
    let change = StateChange { key: TOLD.to_owned(), value: Some(newest.to_string().into_bytes()) };
    store.commit(Commit { state: vec![change], ..Commit::default() }).await.context("storing which records are out")?;
    Ok(())
}

/// The statements with a revision above `told` as rows of `device_assignments`.
fn reports(basis: &Basis, anchors: &Anchors, told: u64) -> Vec<Report> {
    let unix_ms = |heard: Heard| anchors.unix_ms(anchors.version(), heard).0;
    let row = |said: &Assignment| {
        let certain = |moment: &Heard| moment.boot == BootId::WALL;
        let estimated = said.estimated || ![said.from, said.until].iter().flatten().all(certain);
        json!({
            "gateway_id": basis.gateway_id,
            "device_id": said.device,
            "version": said.version,
            "valid_from": said.from.map(unix_ms),
            "valid_until": said.until.map(unix_ms),
            "user_id": said.user_id.unwrap_or(Uuid::nil()),
            "location": said.location.as_ref().or(basis.location.as_ref()).filter(|_| said.says_place()),
            "says": said.says.name(),
            "said_by": said.by.name(),
            "said_at": said.said.map(unix_ms),
            "clock": if estimated { "estimated" } else { "synced" },
            "revision": said.revision,
        })
    };
    let news = basis.assignments.iter().filter(|said| said.revision > told);
    news.map(|said| Report { kind: Kind::Assignment, key: said.device.to_string(), row: row(said).to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Anchor;

    const BOOT: BootId = BootId(Uuid::from_u128(1));

    /// A minute of uptime ten minutes into a boot whose clock the anchors tell, or not.
    fn moment(synced: bool, when: When) -> Result<Heard, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("biogate.toml");
        let text = "[[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = \"/nowhere\"\n";
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap();
        let mut anchors = Anchors::new(0);
        anchors.append(Anchor { boot: BOOT, from_ms: 0, offset_ms: 1_700_000_000_000, synced });
        let timeline = Timeline { anchors, ..Timeline::default() };
        let now = Heard { boot: BOOT, ms: 600_000 };
        Known { config: &config, timeline: &timeline, heard: BTreeSet::new(), now }.moment(when)
    }

    #[test]
    fn uptime_is_exact_before_the_clock_is_known_and_what_was_before_the_boot_is_not() {
        let heard = |ms| Ok(Heard { boot: BOOT, ms });
        for synced in [false, true] {
            assert_eq!(moment(synced, When::Now), heard(600_000));
            assert_eq!(moment(synced, When::Ago(600_000)), heard(0));
            assert_eq!(moment(synced, When::At(5)), Ok(wall(5)));
        }
        assert_eq!(moment(true, When::Ago(3_600_000)), Ok(wall(1_699_997_000_000)));
        assert!(moment(false, When::Ago(3_600_000)).unwrap_err().contains("write date and time"));
    }
}
