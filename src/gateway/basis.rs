//! What rows depend on, from the configuration and the history that the store keeps; each change is a new version.

use std::sync::Arc;

use tracing::warn;
use uuid::Uuid;

use crate::config::{Config, Wearer};
use crate::reading::Heard;
use crate::resolve::{Assignment, Basis};
use crate::store::{StateChange, Store};

/// State keys of the versions begin so, then the number: `basis/3`.
const BASIS_STATE: &str = "basis/";

/// State key of the hub's name, where the configuration gives none.
const GATEWAY_ID: &str = "gateway/id";

/// State key of the board that the store was made on: a cloned card wakes up on another.
const BOARD: &str = "gateway/board";

/// How many assignments of one device are kept; older ones belong to rows that are long delivered.
const HISTORY_PER_DEVICE: usize = 64;

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
pub(super) fn change(number: u64, basis: Option<&Basis>) -> anyhow::Result<StateChange> {
    let value = basis.map(serde_cbor::to_vec).transpose()?;
    Ok(StateChange { key: format!("{BASIS_STATE}{number}"), value })
}

/// What the configuration says now, on top of the history of who wore what.
pub(super) fn of(config: &Config, gateway_id: Arc<str>, before: Option<&Basis>, now: Heard) -> Basis {
    let history = before.map(|basis| basis.assignments.clone()).unwrap_or_default();
    Basis {
        gateway_id,
        timezone: config.gateway.timezone.clone(),
        location: config.gateway.location.clone(),
        unassigned: config.gateway.unassigned,
        assignments: followed(history, &config.wearers, now),
    }
}

/// The history, with what the entries say now where that is new. A sensor that was never known before is its person's
/// since always: the hub cannot have heard it earlier. A captured name may have spoken without a person.
fn followed(mut history: Vec<Assignment>, wearers: &[Wearer], now: Heard) -> Vec<Assignment> {
    for wearer in wearers {
        let last = history.iter().rev().find(|known| known.device == wearer.device);
        let news = last.is_none_or(|known| known.user_id != wearer.user_id || known.location != wearer.location);
        if news {
            let from = (last.is_some() || wearer.captured).then_some(now);
            let Wearer { device, user_id, location, .. } = wearer.clone();
            history.push(Assignment { device, user_id, location, from });
        }
    }
    for wearer in wearers {
        let of_device = |known: &Assignment| known.device == wearer.device;
        let surplus = history.iter().filter(|known| of_device(known)).count().saturating_sub(HISTORY_PER_DEVICE);
        for _ in 0..surplus {
            if let Some(oldest) = history.iter().position(of_device) {
                history.remove(oldest);
            }
        }
    }
    history
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
        Wearer { device: "strap".into(), user_id: Some(Uuid::from_u128(user)), location: None, captured: false }
    }

    #[test]
    fn the_first_person_is_since_always_and_the_next_from_now() {
        let now = Heard { boot: BootId(Uuid::from_u128(9)), ms: 5 };
        let first = followed(Vec::new(), &[wearer(1)], now);
        assert_eq!(first[0].from, None);
        assert_eq!(followed(first.clone(), &[wearer(1)], now), first, "nothing new");
        let second = followed(first, &[wearer(2)], now);
        assert_eq!((second.len(), second[1].from), (2, Some(now)));
    }

    #[test]
    fn a_history_is_bounded() {
        let now = Heard { boot: BootId::WALL, ms: 5 };
        let history = (0..200).fold(Vec::new(), |history, user| followed(history, &[wearer(user)], now));
        assert_eq!(history.len(), HISTORY_PER_DEVICE);
        assert_eq!(history.last().and_then(|newest| newest.user_id), Some(Uuid::from_u128(199)));
    }
}
