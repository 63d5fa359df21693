//! A profile, compiled and proven by its own examples; and the set of profiles by id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::event::NAMESPACE;
use crate::reading::Element;

use super::error::{ProfileError, Wrong};
use super::file::{GetName, ProfileFile};
use super::link::{FrameSpec, LinkSpec};
use super::step::{Act, Channel};
use super::{builtin, compile, example};

/// A device profile, ready to interpret.
#[derive(Debug, Clone)]
pub struct Profile {
    pub(super) id: Arc<str>,
    pub(super) version: u32,
    pub(super) key: Arc<str>,
    pub(super) title: String,
    pub(super) source: String,
    pub(super) matches: Match,
    pub(super) link: LinkSpec,
    pub(super) frame: Option<FrameSpec>,
    pub(super) same_within: Duration,
    pub(super) identity_needs_clock: bool,
    /// Names of the fields that are remembered for a device.
    pub(super) context: Vec<Arc<str>>,
    pub(super) channels: Vec<Channel>,
}

/// What claims a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// A GATT service.
    pub ble_service: Option<Arc<str>>,
    /// An element of advertisements.
    pub element: Option<Element>,
    /// The advertised name, `*` for any text.
    pub name: Option<Arc<str>>,
    /// A serial device.
    pub serial: bool,
    /// An MQTT publisher.
    pub mqtt: bool,
}

/// How the bytes of a channel are got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Get {
    /// A characteristic that notifies.
    Notify,
    /// A characteristic that indicates.
    Indicate,
    /// A characteristic that is read once after each connect.
    ReadOnce,
    /// A characteristic that is read again and again.
    Poll,
    /// Frames, advertisements and messages come by themselves.
    Comes,
}

/// A channel as sources see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelSpec<'a> {
    /// A characteristic (`2a37`; `2a6e#2` is the second one of its UUID), `frame`, `advertisement` or `message`.
    pub name: &'a Arc<str>,
    /// How its bytes are got.
    pub get: Get,
    /// The time between two reads of what is polled.
    pub every: Duration,
    /// Whether events come of it, and not only context.
    pub emits: bool,
}

impl Profile {
    /// Reads, compiles and tries a profile: its examples must hold.
    pub fn parse(file_name: &str, text: &str) -> Result<Profile, ProfileError> {
        let wrong = |wrong: Wrong| wrong.in_file(file_name, text);
        let file: ProfileFile = toml::from_str(text).map_err(|error| wrong(error.into()))?;
        let profile = compile::profile(&file).map_err(wrong)?;
        example::run_all(&profile, &file).map_err(wrong)?;
        Ok(profile)
    }

    /// The profile's name.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The version of its file.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Id and version, as `bluetooth-heart-rate/1`.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// What the device is.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Where the layout is from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What claims a reading.
    pub fn matches(&self) -> &Match {
        &self.matches
    }

    /// How the device is opened and kept talking.
    pub fn link(&self) -> &LinkSpec {
        &self.link
    }

    /// How its stream of bytes is cut into frames; `None` where it is no stream.
    pub fn frame(&self) -> Option<&FrameSpec> {
        self.frame.as_ref()
    }

    /// Whether it reads encrypted frames, so that a device entry may have a key.
    pub fn decrypts(&self) -> bool {
        let steps = self.channels.iter().flat_map(|channel| &channel.steps);
        steps.into_iter().any(|step| matches!(step.act, Act::Decrypt(_)))
    }

    /// Its channels and how their bytes are got.
    pub fn channels(&self) -> impl Iterator<Item = ChannelSpec<'_>> {
        self.channels.iter().map(|channel| {
            let get = match channel.get {
                Some(GetName::Notify) => Get::Notify,
                Some(GetName::Indicate) => Get::Indicate,
                Some(GetName::ReadOnce) => Get::ReadOnce,
                Some(GetName::Poll) => Get::Poll,
                None => Get::Comes,
            };
            ChannelSpec { name: &channel.name, get, every: channel.every, emits: !channel.emits.is_empty() }
        })
    }

    /// The event types that its channels make, each once, in the order of the file.
    pub fn events(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for emit in self.channels.iter().flat_map(|channel| &channel.emits) {
            if !names.contains(&emit.event.name()) {
                names.push(emit.event.name());
            }
        }
        names
    }

    /// Of each channel the number of good and of refused examples.
    pub fn examples(&self) -> impl Iterator<Item = (&Arc<str>, usize, usize)> {
        self.channels.iter().map(|channel| (&channel.name, channel.good_examples, channel.refused_examples))
    }

    pub(super) fn channel(&self, name: &str) -> Option<&Channel> {
        let find = |name: &str| self.channels.iter().find(|channel| &*channel.name == name);
        // A further characteristic of the same UUID is read as the first where no channel claims it.
        find(name).or_else(|| find(name.split_once('#')?.0))
    }
}

/// Profiles by id; a later one of the same id overrides.
#[derive(Debug, Clone, Default)]
pub struct ProfileSet {
    profiles: BTreeMap<Arc<str>, Arc<Profile>>,
    /// A hash of each one's text.
    texts: BTreeMap<Arc<str>, Uuid>,
}

impl ProfileSet {
    /// No profiles.
    pub fn empty() -> ProfileSet {
        ProfileSet::default()
    }

    /// The shipped profiles.
    pub fn builtin() -> Result<ProfileSet, ProfileError> {
        let mut set = ProfileSet::empty();
        for (name, text) in builtin::FILES {
            set.add(name, text)?;
        }
        Ok(set)
    }

    /// Reads one file and lays it over what is there; returns its id.
    pub fn add(&mut self, file_name: &str, text: &str) -> Result<Arc<str>, ProfileError> {
        let profile = Profile::parse(file_name, text)?;
        let id = self.insert(profile);
        self.texts.insert(id.clone(), Uuid::new_v5(&NAMESPACE, text.as_bytes()));
        Ok(id)
    }

    /// A hash of all profiles' texts: two hubs with the same read every frame alike.
    pub fn fingerprint(&self) -> String {
        let texts: Vec<u8> = self.texts.values().flat_map(|text| *text.as_bytes()).collect();
        Uuid::new_v5(&NAMESPACE, &texts).simple().to_string()
    }

    /// Lays a profile over what is there; returns its id.
    pub fn insert(&mut self, profile: Profile) -> Arc<str> {
        let id = profile.id.clone();
        self.profiles.insert(id.clone(), Arc::new(profile));
        id
    }

    /// The profile of this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Profile>> {
        self.profiles.get(id)
    }

    /// All profiles by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.profiles.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_profiles_load_and_their_examples_hold() {
        for (name, text) in builtin::FILES {
            if let Err(error) = Profile::parse(name, text) {
                panic!("{error}");
            }
        }
    }
}
