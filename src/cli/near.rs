//! What the profiles make of a peripheral that is near: which of them claim it, and what it says just now.

use std::sync::Arc;

use anyhow::Context;

use crate::interpret::notation::parse_hex;
use crate::interpret::profile::Match;
use crate::interpret::{Catalog, DeviceMemory, EntryBinding, Limits, Profile, ProfileSet};
use crate::reading::{BootId, Channel, Element, Heard, Reading};
use crate::source::ble::nearby::Near;

/// A profile that claims a peripheral.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(super) struct Claim {
    /// The profile's id.
    pub(super) profile: Arc<str>,
    /// What it advertises just now, through that profile: `21.2 Cel`. One that must be asked says nothing yet.
    pub(super) value: Option<String>,
}

/// All profiles, each bound to a throw-away entry of its own id.
#[derive(Debug)]
pub(super) struct Claims {
    profiles: ProfileSet,
    catalog: Catalog,
}

impl Claims {
    /// Prepares these profiles.
    pub(super) fn new(profiles: ProfileSet) -> anyhow::Result<Self> {
        let bound = profiles.iter().map(|profile| EntryBinding {
            entry: profile.id().clone(),
            profile: profile.id().to_string(),
            component: None,
            key: None,
        });
        let catalog = Catalog::new(&profiles, bound.collect(), Limits::default()).context("binding the profiles")?;
        Ok(Claims { profiles, catalog })
    }

    /// The profiles.
    pub(super) fn profiles(&self) -> &ProfileSet {
        &self.profiles
    }

    /// Every profile that claims it, the most specific first.
    pub(super) fn of(&self, near: &Near) -> Vec<Claim> {
        let mut found: Vec<(u8, &Arc<Profile>)> =
            self.profiles.iter().filter_map(|profile| Some((fit(profile.matches(), near)?, profile))).collect();
        // Of equals the one that makes events: nearly everything also has the battery service.
        found.sort_by_key(|(fit, profile)| (std::cmp::Reverse(*fit), profile.events().is_empty()));
        let claim = |profile: &Arc<Profile>| Claim { profile: profile.id().clone(), value: self.value(profile, near) };
        found.into_iter().map(|(_, profile)| claim(profile)).collect()
    }

    /// What the profile reads in what the peripheral advertises.
    fn value(&self, profile: &Profile, near: &Near) -> Option<String> {
        let element = profile.matches().element.clone()?;
        let payload = payload_of(near, &element)?;
        let reading = Reading {
            device: profile.id().clone(),
            entry: profile.id().clone(),
            channel: Channel::Advertisement { address: near.address.clone(), element },
            bytes: payload.into(),
            heard: Heard { boot: BootId::WALL, ms: 0 },
        };
        let said = self.catalog.explain(&reading, 0, &mut DeviceMemory::default()).interpretation;
        let events = said.observations.iter().map(|it| format!("{} {}", shown(it.value), it.event_type.unit()));
        let mut parts: Vec<String> = events.collect();
        // Events come first; a device that only says how full its battery is says something too.
        if parts.is_empty() {
            parts.extend(said.faults.first().map(|fault| fault.kind.name().replace('_', " ")));
        }
        if parts.is_empty() {
            let battery = said.fields.iter().find(|(name, _)| **name == *"battery");
            parts.extend(battery.map(|(_, value)| format!("battery {} %", serde_json::json!(value))));
        }
        Some(parts.join(", ")).filter(|text| !text.is_empty())
    }
}

/// How well a profile fits a peripheral: a name says more than an element, an element more than a service. `None` where
/// one thing that it asks for is not there.
fn fit(wanted: &Match, near: &Near) -> Option<u8> {
    let mut fit = 0;
    if let Some(name) = &wanted.name {
        let told = near.name.as_deref()?;
        fit += if fits(name, told) { 4 } else { return None };
    }
    if let Some(element) = &wanted.element {
        payload_of(near, element)?;
        fit += 2;
    }
    if let Some(service) = &wanted.ble_service {
        fit += if near.services.contains(service) { 1 } else { return None };
    }
    (fit > 0).then_some(fit)
}

fn payload_of(near: &Near, element: &Element) -> Option<Vec<u8>> {
    let payload = match element {
        Element::ServiceData(uuid) => near.service_data.iter().find(|payload| payload.id == *uuid)?,
        Element::Manufacturer(company) => {
            let company = format!("{company:04x}");
            near.manufacturer.iter().find(|payload| *payload.id == *company)?
        }
    };
    parse_hex(&payload.hex).ok()
}

/// `*` stands for any text, everything else for itself.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.split_once(part) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(last)
}

/// A value as people read it: at most three places.
fn shown(value: f64) -> String {
    format!("{}", (value * 1_000.0).round() / 1_000.0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::source::ble::nearby::Payload;

    pub(in crate::cli) fn near(name: &str, services: &[&str], service_data: &[(&str, &str)]) -> Near {
        Near {
            address: "A0:9E:1A:00:11:22".into(),
            adapter: "hci0".into(),
            name: Some(name.into()).filter(|_| !name.is_empty()),
            rssi: Some(-60),
            rising: false,
            this_one: false,
            seconds: 0,
            connected: false,
            paired: false,
            services: services.iter().map(|service| (*service).into()).collect(),
            service_data: service_data
                .iter()
                .map(|(id, hex)| Payload { id: (*id).into(), hex: (*hex).to_owned() })
                .collect(),
            manufacturer: Vec::new(),
        }
    }

    fn claims() -> Claims {
        Claims::new(ProfileSet::builtin().unwrap()).unwrap()
    }

    #[test]
    fn what_it_advertises_is_read_by_the_profile_that_claims_it() {
        let claim = |hex: &str| claims().of(&near("", &[], &[("fcd2", hex)])).remove(0);
        assert_eq!(&*claim("400161024808").profile, "bthome-v2");
        assert_eq!(claim("400161024808").value.as_deref(), Some("21.2 Cel"));
        assert_eq!(claim("4002480802560e").value.as_deref(), Some("21.2 Cel, 36.7 Cel"));
        assert_eq!(claim("400161").value.as_deref(), Some("battery 97 %"));
        assert_eq!(claim("6001").value.as_deref(), Some("refused"));
    }

    #[test]
    fn a_service_claims_and_the_most_specific_profile_stands_first() {
        let mut set = ProfileSet::builtin().unwrap();
        let text =
            crate::interpret::builtin::FILES.iter().find(|(name, _)| *name == "bluetooth-heart-rate.toml").unwrap().1;
        let named = text
            .replace("bluetooth-heart-rate", "polar-h10")
            .replace("ble_service = \"180d\"", "ble_service = \"180d\", name = \"Polar H10*\"");
        set.add("polar-h10.toml", &named).unwrap();
        let claims = Claims::new(set).unwrap();
        let ids = |near: &Near| claims.of(near).into_iter().map(|claim| claim.profile.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(&near("Polar H10 1122", &["180d"], &[])), ["polar-h10", "bluetooth-heart-rate"]);
        assert_eq!(ids(&near("Other", &["180f", "180d"], &[])), ["bluetooth-heart-rate", "bluetooth-battery"]);
        assert_eq!(ids(&near("Polar H10 1122", &[], &[])), <[&str; 0]>::default());
        assert_eq!(ids(&near("", &["1234"], &[("1234", "00")])), <[&str; 0]>::default());
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in
            [("*", ""), ("a*", "abc"), ("*c", "abc"), ("a*b*c", "a--b--c"), ("a**", "a"), ("abc", "abc")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*", "ba"), ("a*bc", "ab"), ("abc", "abcd"), ("a*b*b", "ab"), ("", "a")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
