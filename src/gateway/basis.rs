//! What rows depend on, from the configuration and the history that the store keeps; each change is a new version.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::warn;
use uuid::Uuid;

use crate::clock::Anchors;
use crate::config::{Config, Wearer};
use crate::reading::Heard;
use crate::resolve::history::{self, Assignment, By, Says, Worn};
use crate::resolve::{Basis, Timeline};
use crate::store::{StateChange, Store};

/// State keys of the versions begin so, then the number: `basis/3`.
const BASIS_STATE: &str = "basis/";

/// State key of the hub's name, where the configuration gives none.
const GATEWAY_ID: &str = "gateway/id";

/// State key of the board that the store was made on: a cloned card wakes up on another.
const BOARD: &str = "gateway/board";

/// Every version that the store still has, oldest first.
pub(super) fn known(store: &Store) -> Vec<(u64, Basis)> {
    let version = |(key, bytes): (String, Vec<u8>)| {
        let number = key[BASIS_STATE.len()..].parse().ok()?;
        Some((number, serde_cbor::from_slice(&bytes).ok()?))
    };
    let mut versions: Vec<(u64, Basis)> = store.state(BASIS_STATE).into_iter().filter_map(version).collect();
    versions.sort_by_key(|(number, _)| *number);
    versions
}

/// The state change that keeps a version, or forgets it.
fn change(number: u64, basis: Option<&Basis>) -> anyhow::Result<StateChange> {
    let value = basis.map(serde_cbor::to_vec).transpose()?;
    Ok(StateChange { key: format!("{BASIS_STATE}{number}"), value })
}

/// What a new version of the basis is made of.
pub(super) struct News<'a> {
    /// What the files say.
    pub(super) config: &'a Config,
    /// The hub's name.
    pub(super) gateway_id: Arc<str>,
    /// The clock as it is known.
    pub(super) anchors: &'a Anchors,
    /// This moment.
    pub(super) now: Heard,
    /// Numbers of statements are above this one.
    pub(super) told: u64,
}

impl News<'_> {
    /// What the configuration says now, and what a command says, on top of the history of who wore what.
    pub(super) fn over(&self, before: Option<&Basis>, command: Option<Assignment>) -> Basis {
        let unix_ms = |heard| self.anchors.unix_ms(self.anchors.version(), heard).0;
        let mut assignments = before.map(|basis| basis.assignments.clone()).unwrap_or_default();
        assignments.extend(entries_news(&assignments, &self.config.wearers, unix_ms, self.now));
        assignments.extend(command);
        history::settle(&mut assignments, self.anchors, self.now.boot);
        history::number(&mut assignments, self.told.max(unix_ms(self.now).max(0) as u64));
        history::bound(&mut assignments, unix_ms);
        let gateway = &self.config.gateway;
        Basis {
            gateway_id: self.gateway_id.clone(),
            timezone: gateway.timezone.clone(),
            location: gateway.location.clone(),
            unassigned: gateway.unassigned,
            assignments,
        }
    }
}

/// The timeline with this basis as its newest version, and what must be stored for it. Versions that neither a range in
/// hand names nor one that is just being cut may name are forgotten.
pub(super) fn next_version(
    before: &Timeline,
    next: Basis,
    in_hand: &[u64],
) -> anyhow::Result<(Timeline, Vec<StateChange>)> {
    let newest = before.bases.last_key_value();
    let mut after = Timeline::clone(before);
    let mut changes = Vec::new();
    if newest.map(|(_, basis)| basis) != Some(&next) {
        let number = newest.map_or(1, |(number, _)| number + 1);
        changes.push(change(number, Some(&next))?);
        after.bases.insert(number, next);
    }
    let newest = after.bases.keys().next_back().copied();
    for number in before.bases.keys().copied() {
        // The newest but one may be named by a range that is being cut at this moment; it goes with the next change.
        let needed = Some(number) == newest || Some(number + 1) == newest || in_hand.contains(&number);
        if !needed {
            changes.push(change(number, None)?);
            after.bases.remove(&number);
        }
    }
    Ok((after, changes))
}

/// What the entries say that is new. A sensor that was never known before is its person's since always: the hub cannot
/// have heard it earlier. A captured name may have spoken without a person. An entry without a `user_id` says nothing
/// about the person, unless it had one before: that person's time ends.
fn entries_news(
    history: &[Assignment],
    wearers: &[Wearer],
    unix_ms: impl Fn(Heard) -> i64,
    now: Heard,
) -> Vec<Assignment> {
    let worn = Worn::new(history, unix_ms);
    let statement = |device: &Arc<str>, user_id, location, from, says| Assignment {
        device: device.clone(),
        user_id,
        location,
        from,
        until: None,
        says,
        by: By::Entry,
        version: 0,
        revision: 0,
        said: Some(now),
        estimated: false,
    };
    let mut news = Vec::new();
    for Wearer { device, user_id, location, captured } in wearers {
        if !history.iter().any(|said| said.device == *device) {
            let from = captured.then_some(now);
            news.push(statement(device, *user_id, location.clone(), from, Says::Both));
            continue;
        }
        let (of_device, last_said) = (worn.of(device), entry_person(history, device));
        let person = match user_id {
            Some(_) => last_said != *user_id || of_device.person(i64::MAX - 1) != *user_id,
            None => last_said.is_some(),
        };
        let place = of_device.place(i64::MAX - 1) != location.as_ref();
        let says = match (person, place) {
            (true, true) => Says::Both,
            (true, false) => Says::Person,
            (false, true) => Says::Place,
            (false, false) => continue,
        };
        news.push(statement(device, *user_id, location.clone(), Some(now), says));
    }
    let devices: BTreeSet<&Arc<str>> = history.iter().map(|said| &said.device).collect();
    let gone = devices.into_iter().filter(|device| !wearers.iter().any(|wearer| wearer.device == **device));
    let of_nobody = gone.filter(|device| entry_person(history, device).is_some());
    news.extend(of_nobody.map(|device| statement(device, None, None, Some(now), Says::Person)));
    news
}

/// Whom an entry named last.
fn entry_person(history: &[Assignment], device: &str) -> Option<Uuid> {
    let of_entry = |said: &&Assignment| *said.device == *device && said.by == By::Entry && said.says_person();
    history.iter().rev().find(of_entry)?.user_id
}

/// The hub's name and what must be stored so that it stays the same.
pub(super) fn gateway_id(config: &Config, store: &Store) -> (Arc<str>, Vec<StateChange>) {
    let text = |key: &str| {
        let found = store.state(key).into_iter().find(|(found, _)| found == key);
        found.and_then(|(_, value)| String::from_utf8(value).ok())
    };
    let keep = |key: &str, value: &str| StateChange { key: key.to_owned(), value: Some(value.as_bytes().to_vec()) };
    let board = board_serial();
    let mut changes = Vec::new();
    match text(BOARD) {
        Some(before) if before != board => {
            warn!(
                "this card was made on another board ({before}, now {board}): if it is a clone, give this hub its own gateway.id"
            );
            changes.push(keep(BOARD, &board));
        }
        Some(_) => {}
        None => changes.push(keep(BOARD, &board)),
    }
    if let Some(id) = &config.gateway.id {
        return (id.as_str().into(), changes);
    }
    let id = text(GATEWAY_ID).unwrap_or_else(|| {
        let random = Uuid::new_v4().simple().to_string();
        let end = board.get(board.len().saturating_sub(8)..).unwrap_or_default();
        let id = format!("hub-{end}-{}", &random[..6]);
        changes.push(keep(GATEWAY_ID, &id));
        id
    });
    (id.into(), changes)
}

/// The board's serial number, where it has one.
fn board_serial() -> String {
    let found = ["/proc/device-tree/serial-number", "/sys/class/dmi/id/board_serial", "/etc/machine-id"]
        .into_iter()
        .find_map(|path| std::fs::read_to_string(path).ok().map(|text| text.trim_matches(['\0', '\n', ' ']).to_owned()))
        .unwrap_or_default();
    found.chars().filter(char::is_ascii_alphanumeric).take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::BootId;

    fn wearer(user: u128) -> Wearer {
        let user_id = Some(Uuid::from_u128(user)).filter(|_| user > 0);
        Wearer { device: "strap".into(), user_id, location: None, captured: false }
    }

    fn at(ms: u64) -> Heard {
        Heard { boot: BootId::WALL, ms }
    }

    fn followed(history: &mut Vec<Assignment>, wearers: &[Wearer], ms: u64) -> usize {
        let news = entries_news(history, wearers, |heard| heard.ms as i64, at(ms));
        let count = news.len();
        history.extend(news);
        count
    }

    fn person(history: &[Assignment], at_ms: i64) -> u128 {
        let worn = Worn::new(history, |heard| heard.ms as i64);
        worn.of("strap").person(at_ms).map_or(0, |user| user.as_u128())
    }

    #[test]
    fn the_first_person_is_since_always_and_the_next_from_now() {
        let mut history = Vec::new();
        assert_eq!(followed(&mut history, &[wearer(1)], 5), 1);
        assert_eq!(history[0].from, None);
        assert_eq!(followed(&mut history, &[wearer(1)], 6), 0, "nothing new");
        assert_eq!(followed(&mut history, &[wearer(2)], 7), 1);
        assert_eq!((person(&history, -9), person(&history, 6), person(&history, 7)), (1, 1, 2));
    }

    #[test]
    fn an_entry_without_a_person_says_nothing_unless_it_had_one() {
        let mut history = Vec::new();
        followed(&mut history, &[wearer(0)], 5);
        let by_command = Assignment { user_id: Some(Uuid::from_u128(3)), by: By::Command, ..history[0].clone() };
        history.push(Assignment { from: Some(at(10)), says: Says::Person, ..by_command });
        assert_eq!(followed(&mut history, &[wearer(0)], 11), 0, "the command's word stays");
        assert_eq!(person(&history, 11), 3);
        let elsewhere = Wearer { location: Some("room 2".into()), ..wearer(0) };
        assert_eq!(followed(&mut history, std::slice::from_ref(&elsewhere), 12), 1);
        assert_eq!((history[2].says, person(&history, 12)), (Says::Place, 3), "the room moves, the person stays");
        let with_person = Wearer { location: Some("room 2".into()), ..wearer(4) };
        assert_eq!(followed(&mut history, &[with_person], 13), 1);
        assert_eq!(followed(&mut history, &[elsewhere], 14), 1);
        assert_eq!((person(&history, 13), person(&history, 14)), (4, 0), "whom the entry named it can take back");
    }

    #[test]
    fn a_person_s_time_ends_with_the_entry_that_names_it() {
        let mut history = Vec::new();
        followed(&mut history, &[wearer(1)], 5);
        assert_eq!(followed(&mut history, &[], 6), 1);
        assert_eq!((person(&history, 5), person(&history, 6)), (1, 0));
        assert_eq!(followed(&mut history, &[], 7), 0);
    }
}
