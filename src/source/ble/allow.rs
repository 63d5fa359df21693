//! PURE Whose sensor a peripheral is: by address, by name, or by service where any sensor may be heard.
//!
//! An address beats a name, and a name beats a service. An entry with a name is one device: the first address that fits
//! is bound to it, and another one is a stranger until the bound one was not heard for [`REBIND_AFTER`]; then the entry
//! follows, since privacy addresses change. A service takes any number of sensors up to [`MOST_OF_SERVICES`], each a
//! device of its own. What peripherals say of themselves is hostile until a listed entry claims it.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// An entry with a name follows to another address when its own was not heard for so long.
pub const REBIND_AFTER: Duration = Duration::from_secs(120);

/// Sensors claimed by their service at a time; each costs a link, a task and an id.
pub const MOST_OF_SERVICES: usize = 64;

/// A sensor of a service gives its place to another when it was not heard for so long.
const FORGET_AFTER: Duration = Duration::from_secs(86_400);

/// A Bluetooth name has no more bytes (Core Specification, Vol 3, Part C, 12.1); a longer one fits nothing.
const LONGEST_NAME: usize = 248;

/// What the rest of a short UUID is in 128 bits.
const BASE_UUID: &str = "-0000-1000-8000-00805f9b34fb";

/// Which peripheral an entry means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one with this address, as `A0:9E:1A:00:11:22`.
    Address(Arc<str>),
    /// One whose advertised name fits, `*` for any text.
    Name(Arc<str>),
    /// Every one that advertises this service (four hexadecimal digits, or 128 bits with hyphens).
    Service(Arc<str>),
}

/// Why a text names no peripheral.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither of the two forms.
    #[error("found {0:?}; write an address like \"A0:9E:1A:00:11:22\" or a name like \"name:Polar H10*\"")]
    Unknown(String),
    /// A name that fits every sensor.
    #[error(
        "found {0:?}, which would take strangers' sensors; write the beginning of the name, like \"name:Polar H10*\""
    )]
    AnyName(String),
    /// A name that no sensor has.
    #[error("found {0:?}; a name has at most 248 bytes and no control characters")]
    Unnameable(String),
}

/// What is known of a peripheral.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its address, now.
    pub address: &'a str,
    /// The name that it advertised.
    pub name: Option<&'a str>,
    /// The services that it advertised, in four hexadecimal digits or 128 bits with hyphens.
    pub services: &'a [Arc<str>],
}

/// Who claims a peripheral; numbers are those that [`Allow::new`] was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is the device of this entry.
    Device(usize),
    /// It is one of the devices of this entry for any sensor of a service; see [`device_id`].
    OfService(usize),
    /// It fits an entry with a name, whose device is another one that is here.
    Another(usize, Told),
    /// It fits an entry for any sensor of a service, and there are too many.
    TooMany(usize, Told),
    /// Nobody listed it.
    NotListed,
}

/// Whether a refusal is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The first of its kind: worth a line in the log.
    Now,
    /// Said already.
    Before,
}

/// How many advertisements were refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// With [`Claim::Another`].
    pub another: u64,
    /// With [`Claim::TooMany`].
    pub too_many: u64,
}

/// The entries, and which peripherals they claimed.
#[derive(Debug)]
pub struct Allow {
    entries: Vec<Entry>,
    /// Sensors of services by their address in upper case; at most [`MOST_OF_SERVICES`].
    of_services: BTreeMap<String, OfService>,
    refused: Refused,
}

#[derive(Debug)]
struct Entry {
    index: usize,
    target: Target,
    /// Of an entry with a name: its device.
    bound: Option<(String, Presence)>,
    told: Told,
}

#[derive(Debug)]
struct OfService {
    index: usize,
    presence: Presence,
}

/// Whether a peripheral is here.
#[derive(Debug, Clone, Copy)]
enum Presence {
    Heard(Instant),
    /// A linked sensor does not advertise.
    Linked,
}

/// The `device_id` of a sensor that is known by its service only: `ble-A09E1A001122`.
pub fn device_id(address: &str) -> String {
    let digits = address.chars().filter(char::is_ascii_hexdigit).take(12);
    format!("ble-{}", digits.collect::<String>().to_ascii_uppercase())
}

impl FromStr for Target {
    type Err = TargetError;

    /// Reads the `ble` of a device entry. Services are written elsewhere.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        // An error is shown to people: no screenful.
        let found = || text.chars().take(60).collect::<String>();
        if let Some(name) = text.strip_prefix("name:") {
            if name.len() > LONGEST_NAME || name.contains(char::is_control) {
                return Err(TargetError::Unnameable(found()));
            }
            if name.trim_matches(|c: char| c == '*' || c.is_whitespace()).is_empty() {
                return Err(TargetError::AnyName(found()));
            }
            return Ok(Target::Name(name.into()));
        }
        let pairs: Vec<&str> = text.split(':').collect();
        let pair = |pair: &&str| pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
        if pairs.len() == 6 && pairs.iter().all(pair) {
            return Ok(Target::Address(text.to_ascii_uppercase().into()));
        }
        Err(TargetError::Unknown(found()))
    }
}

impl Allow {
    /// Of the entries, each with the number by which the caller knows it. Of two that fit, the earlier one counts.
    pub fn new(listed: &[(usize, Target)]) -> Self {
        let entry = |(index, target): &(usize, Target)| Entry {
            index: *index,
            target: target.clone(),
            bound: None,
            told: Told::Now,
        };
        let entries = listed.iter().map(entry).collect();
        Allow { entries, of_services: BTreeMap::new(), refused: Refused::default() }
    }

    /// A peripheral was heard: whose is it?
    pub fn claim(&mut self, now: Instant, seen: Seen<'_>) -> Claim {
        let is = |entry: &&Entry| matches!(&entry.target, Target::Address(a) if a.eq_ignore_ascii_case(seen.address));
        if let Some(entry) = self.entries.iter().find(is) {
            return Claim::Device(entry.index);
        }
        if let Some(claim) = self.claim_by_name(now, seen) {
            return claim;
        }
        self.claim_by_service(now, seen)
    }

    /// The peripheral is linked, and stays whose it is without being heard.
    pub fn linked(&mut self, address: &str) {
        self.set_presence(address, Presence::Linked);
    }

    /// The link is gone; the peripheral was there until now.
    pub fn freed(&mut self, now: Instant, address: &str) {
        self.set_presence(address, Presence::Heard(now));
    }

    /// How many advertisements were refused until now.
    pub fn refused(&self) -> Refused {
        self.refused
    }

    fn claim_by_name(&mut self, now: Instant, seen: Seen<'_>) -> Option<Claim> {
        // The name comes with some advertisements only, so a bound address needs none.
        let bound = |entry: &&mut Entry| {
            let to_it = entry.bound.as_ref().is_some_and(|(address, _)| address.eq_ignore_ascii_case(seen.address));
            to_it && seen.name.is_none_or(|name| entry.fits(name))
        };
        if let Some(entry) = self.entries.iter_mut().find(bound) {
            if let Some((_, presence)) = &mut entry.bound {
                presence.heard(now);
            }
            return Some(Claim::Device(entry.index));
        }
        let name = seen.name?;
        // An entry without a device comes before one whose device may come back.
        let fitting = self.entries.iter_mut().filter(|entry| entry.fits(name));
        let entry = fitting.min_by_key(|entry| match &entry.bound {
            None => 0,
            Some((_, presence)) if presence.is_gone(now, REBIND_AFTER) => 1,
            Some(_) => 2,
        })?;
        if entry.bound.as_ref().is_some_and(|(_, presence)| !presence.is_gone(now, REBIND_AFTER)) {
            self.refused.another = self.refused.another.saturating_add(1);
            return Some(Claim::Another(entry.index, std::mem::replace(&mut entry.told, Told::Before)));
        }
        entry.bound = Some((seen.address.to_ascii_uppercase(), Presence::Heard(now)));
        entry.told = Told::Now;
        let index = entry.index;
        self.of_services.remove(&seen.address.to_ascii_uppercase());
        Some(Claim::Device(index))
    }

    fn claim_by_service(&mut self, now: Instant, seen: Seen<'_>) -> Claim {
        let address = seen.address.to_ascii_uppercase();
        if let Some(known) = self.of_services.get_mut(&address) {
            known.presence.heard(now);
            return Claim::OfService(known.index);
        }
        let offers = |entry: &&mut Entry| match &entry.target {
            Target::Service(service) => seen.services.iter().any(|offered| same_service(offered, service)),
            Target::Address(_) | Target::Name(_) => false,
        };
        let Some(entry) = self.entries.iter_mut().find(offers) else { return Claim::NotListed };
        if self.of_services.len() >= MOST_OF_SERVICES {
            self.of_services.retain(|_, known| !known.presence.is_gone(now, FORGET_AFTER));
        }
        if self.of_services.len() >= MOST_OF_SERVICES {
            self.refused.too_many = self.refused.too_many.saturating_add(1);
            return Claim::TooMany(entry.index, std::mem::replace(&mut entry.told, Told::Before));
        }
        self.of_services.insert(address, OfService { index: entry.index, presence: Presence::Heard(now) });
        Claim::OfService(entry.index)
    }

    fn set_presence(&mut self, address: &str, new: Presence) {
        for (bound, presence) in self.entries.iter_mut().filter_map(|entry| entry.bound.as_mut()) {
            if bound.eq_ignore_ascii_case(address) {
                *presence = new;
            }
        }
        if let Some(known) = self.of_services.get_mut(&address.to_ascii_uppercase()) {
            known.presence = new;
        }
    }
}

impl Entry {
    fn fits(&self, name: &str) -> bool {
        matches!(&self.target, Target::Name(pattern) if name.len() <= LONGEST_NAME && glob(pattern, name))
    }
}

impl Presence {
    fn heard(&mut self, now: Instant) {
        if let Presence::Heard(at) = self {
            *at = now;
        }
    }

    fn is_gone(self, now: Instant, after: Duration) -> bool {
        matches!(self, Presence::Heard(at) if at + after <= now)
    }
}

/// Whether the name fits, `*` standing for any text. Only the last `*` is ever tried again, so that the work is at most
/// length times length.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            last_star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((star, taken)) = last_star {
            last_star = Some((star, taken + 1));
            p = star + 1;
            n = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether two texts mean one service: `180d` is short for 128 bits.
fn same_service(one: &str, other: &str) -> bool {
    short(one).eq_ignore_ascii_case(short(other))
}

fn short(uuid: &str) -> &str {
    let is_short = uuid.is_ascii() && uuid.len() == 36 && uuid.starts_with("0000");
    if is_short && uuid[8..].eq_ignore_ascii_case(BASE_UUID) { &uuid[4..8] } else { uuid }
}

#[cfg(test)]
mod tests;
