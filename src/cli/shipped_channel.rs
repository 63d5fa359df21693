//! A channel of a shipped profile as text, to be taken over into another profile.

use crate::interpret::{Profile, builtin};
use crate::reading::{Channel, Element};

/// One `[[channel]]` of a shipped profile.
pub(super) struct ShippedChannel {
    file: &'static str,
    /// From `[[channel]]` to the next one.
    text: &'static str,
}

/// The shipped channel that reads this one. Frames and messages are of no standard, so no shipped one is meant.
pub(super) fn of(channel: &Channel) -> Option<ShippedChannel> {
    let is_meant = |file: &str| match channel {
        Channel::Gatt(_) => true,
        Channel::Advertisement { element: Element::ServiceData(uuid), .. } => {
            file.contains(&format!("ble_service_data = \"{uuid}\""))
        }
        Channel::Advertisement { element: Element::Manufacturer(company), .. } => {
            file.contains(&format!("ble_manufacturer = \"{company:04x}\""))
        }
        Channel::Frame | Channel::Message { .. } => false,
    };
    let files = builtin::FILES.iter().map(|(_, file)| *file).filter(|file| is_meant(file));
    files.flat_map(channels).find(|found| found.name() == Some(channel.name()))
}

fn channels(file: &'static str) -> impl Iterator<Item = ShippedChannel> {
    let starts: Vec<usize> = file.match_indices("\n[[channel]]").map(|(at, _)| at + 1).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([file.len()]).collect();
    starts.into_iter().zip(ends).map(move |(start, end)| ShippedChannel { file, text: file[start..end].trim_end() })
}

impl ShippedChannel {
    /// Its name.
    pub(super) fn name(&self) -> Option<&'static str> {
        let line = self.text.lines().find(|line| line.starts_with("name "))?;
        line.split('"').nth(1)
    }

    /// The service that claims its profile.
    pub(super) fn service(&self) -> Option<String> {
        let profile = Profile::parse("a shipped profile", self.file).ok()?;
        profile.matches().ble_service.as_ref().map(ToString::to_string)
    }

    /// All but its examples, and those of them that must be refused.
    pub(super) fn split(&self) -> (String, Vec<String>) {
        let (body, examples) = self.text.split_once("examples = [\n").unwrap_or((self.text, ""));
        let refused = examples.lines().filter(|row| row.contains("refuse = ")).map(|row| format!("{row}\n"));
        (body.to_owned(), refused.collect())
    }

    /// All but its examples, and all of these.
    pub(super) fn whole(&self) -> (String, Vec<String>) {
        let (body, examples) = self.text.split_once("examples = [\n").unwrap_or((self.text, ""));
        (body.to_owned(), examples.lines().filter(|row| *row != "]").map(|row| format!("{row}\n")).collect())
    }

    /// The other channels of its profile that make no event: its emits may name what they remember.
    pub(super) fn context(&self) -> Vec<ShippedChannel> {
        let is_context = |other: &ShippedChannel| other.name() != self.name() && !other.text.contains("\nemit = [");
        channels(self.file).filter(is_context).collect()
    }
}
