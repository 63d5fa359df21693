//! `biogate profiles new --from CAPTURE`: a recording becomes the stub of a profile, which a person then edits.
//!
//! A characteristic that a shipped profile decodes takes that profile's rows over. Any other channel gets a row for each
//! byte, and a remark which of them change. The recorded frames are its examples, so it proves itself from the start.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;

use super::capture::{self, Channels, is_same};
use super::shipped_channel;
use crate::interpret::{Catalog, DeviceMemory, EntryBinding, FaultKind, Limits, Profile, ProfileSet};
use crate::reading::{BootId, Channel, Element, Heard, Reading};

/// Examples that are written for one channel.
const EXAMPLES: usize = 4;

/// Arguments of `profiles new`.
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// A recording, as `biogate record` writes it
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Which device of it; needed where there are several
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// The id of the new profile; the device's name where it is not given
    #[arg(long)]
    id: Option<String>,
    /// Writes to this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl NewArgs {
    /// Writes the stub.
    #[allow(clippy::print_stdout, reason = "the stub is what this command prints")]
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let file = std::fs::File::open(&self.from).with_context(|| format!("reading {}", self.from.display()))?;
        let text = self.stub(std::io::BufReader::new(file))?;
        match &self.output {
            None => print!("{text}"),
            Some(path) => write_new(path, &text)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn stub(&self, lines: impl BufRead) -> anyhow::Result<String> {
        let (device, channels) = capture::read(lines, self.device.as_deref())?;
        let id = self.id.clone().unwrap_or_else(|| id_of(&device));
        let stub = Stub::of(&id, &device, channels)?;
        let text = stub.text(true)?;
        Profile::parse("the stub", &text).context("the stub that was made is not a profile")?;
        Ok(text)
    }
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let made =
        std::fs::File::create_new(path).and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    made.with_context(|| format!("creating {}", path.display()))
}

fn id_of(device: &str) -> String {
    let plain = device.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let id = plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    if id.is_empty() { "new-profile".to_owned() } else { id }
}

/// A profile in the making.
struct Stub {
    head: String,
    id: String,
    parts: Vec<Part>,
}

/// One channel in the making.
struct Part {
    /// Everything but its examples, from `[[channel]]` on.
    body: String,
    channel: Option<(Channel, Vec<Bytes>)>,
    /// Rows that the shipped profile proves it with.
    shipped: Vec<String>,
}

impl Stub {
    fn of(id: &str, device: &str, channels: Channels) -> anyhow::Result<Self> {
        let first = channels.first().context("the recording has no frames")?.0.clone();
        let (matched, kept): (String, Channels) = match first {
            Channel::Frame => {
                let frames = &channels[0].1;
                (
                    format!(
                        "match   = {{ serial = true }}\nlink    = {{ baud = 9600 }}  # say the device's own\n{}",
                        framing(frames)
                    ),
                    channels,
                )
            }
            Channel::Message { .. } => ("match   = { mqtt = true }\n".into(), channels),
            Channel::Advertisement { ref element, .. } => {
                // A profile claims one element; the others of the recording need profiles of their own.
                let claim = match element {
                    Element::ServiceData(uuid) => format!("ble_service_data = \"{uuid}\""),
                    Element::Manufacturer(company) => format!("ble_manufacturer = \"{company:04x}\""),
                };
                let kept = channels.into_iter().filter(|(channel, _)| is_same(channel, &first)).collect();
                (format!("match   = {{ {claim} }}\n"), kept)
            }
            Channel::Gatt(_) => {
                let gatt: Channels = channels.into_iter().filter(|(it, _)| matches!(it, Channel::Gatt(_))).collect();
                let service = gatt.iter().find_map(|(channel, _)| shipped_channel::of(channel)?.service());
                let claim = service.map_or_else(
                    || "match   = { name = \"*\" }  # say the advertised name or the service, as { ble_service = \"180d\" }\n".into(),
                    |service| format!("match   = {{ ble_service = \"{service}\" }}\n"),
                );
                (claim, gatt)
            }
        };
        let title = toml::Value::String(device.to_owned());
        let source = "source  = \"a recording; say where the layout is from\"";
        let head = format!("schema  = 1\nid      = \"{id}\"\nversion = 1\ntitle   = {title}\n{source}\n{matched}");
        let mut parts: Vec<Part> = Vec::new();
        let mut context: Vec<Part> = Vec::new();
        for (channel, frames) in kept {
            match shipped_channel::of(&channel) {
                Some(known) => {
                    context.extend(known.context().iter().map(|other| {
                        let (body, shipped) = other.whole();
                        Part { body, channel: None, shipped }
                    }));
                    let (body, examples) = known.split();
                    parts.push(Part { body, channel: Some((channel, frames)), shipped: examples });
                }
                None => parts.push(unknown(channel, frames)),
            }
        }
        // What its emits name must be there, although this recording has no frame of it.
        for part in context {
            if parts.iter().all(|known| known.name_line() != part.name_line()) {
                parts.push(part);
            }
        }
        Ok(Stub { head, id: id.to_owned(), parts })
    }

    /// The file; with what the recorded frames give as examples, or yet without.
    fn text(&self, with_examples: bool) -> anyhow::Result<String> {
        let mut text = self.head.clone();
        let bare = if with_examples { Some(self.bare()?) } else { None };
        for part in &self.parts {
            let _a_string_takes_all = write!(text, "\n{}", part.body);
            let Some(catalog) = &bare else { continue };
            let mut rows = part.recorded(catalog);
            rows.extend(part.shipped.iter().cloned());
            let _a_string_takes_all = writeln!(text, "examples = [\n{}]", rows.concat());
        }
        Ok(text)
    }

    /// The stub without examples, to see what it makes of the frames.
    fn bare(&self) -> anyhow::Result<Catalog> {
        let mut profiles = ProfileSet::empty();
        profiles.add("the stub", &self.text(false)?).context("the stub that was made is not a profile")?;
        let binding = EntryBinding { entry: "stub".into(), profile: self.id.clone(), component: None, key: None };
        Ok(Catalog::new(&profiles, vec![binding], Limits::default())?)
    }
}

impl Part {
    /// A profile has one channel of a name; several shipped ones may bring the same context.
    fn name_line(&self) -> Option<&str> {
        self.body.lines().find(|line| line.starts_with("name "))
    }

    /// Recorded frames with what came of them: the most common length first, each different.
    fn recorded(&self, catalog: &Catalog) -> Vec<String> {
        let Some((channel, frames)) = &self.channel else { return Vec::new() };
        let mut chosen: Vec<&Bytes> = Vec::new();
        let common = common_length(frames);
        // A stream that is cut by length gives no other.
        let fixed = (*channel == Channel::Frame && !is_text(frames)).then_some(common);
        for frame in frames.iter().filter(|frame| frame.len() == common).chain(frames.iter()) {
            if chosen.len() < EXAMPLES && !chosen.contains(&frame) {
                chosen.push(frame);
            }
        }
        let mut rows: Vec<String> = chosen.iter().map(|frame| example(channel, frame, fixed, catalog)).collect();
        // A frame cut short proves that a wrong one is refused.
        if let (true, Some(whole)) = (self.shipped.is_empty(), chosen.first().filter(|frame| frame.len() > 1)) {
            rows.push(example(channel, &whole.slice(..whole.len() - 1), fixed, catalog));
        }
        rows
    }
}

/// One row: the frame, and what the profile makes of it.
fn example(channel: &Channel, frame: &Bytes, fixed: Option<usize>, catalog: &Catalog) -> String {
    let entry: Arc<str> = "stub".into();
    let heard = Heard { boot: BootId::WALL, ms: 0 };
    let reading = Reading { device: entry.clone(), entry, channel: channel.clone(), bytes: frame.clone(), heard };
    let said = catalog.explain(&reading, 0, &mut DeviceMemory::default()).interpretation;
    let hex = frame.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let names = |names: &[Arc<str>]| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    if let Some(row) =
        fixed.filter(|length| *length != frame.len()).map(|_| format!("  {{ hex = \"{hex}\", refuse = \"sync\" }},\n"))
    {
        return row;
    }
    let fault = said.faults.iter().find(|fault| fault.kind != FaultKind::Implausible);
    let mut row = format!("  {{ hex = \"{hex}\"");
    match fault {
        Some(fault) if fault.kind == FaultKind::Stopped => row += &format!(", stopped = \"{}\"", fault.field),
        Some(fault) => return format!("{row}, refuse = \"{}\" }},\n", fault.field),
        None => {}
    }
    let all = said.observations.iter().chain(said.implausible.iter().map(|(observation, _)| observation));
    let events: Vec<String> = all.map(|it| format!("{{ {} = {:?} }}", it.event_type.name(), it.value)).collect();
    row += &format!(", events = [{}]", events.join(", "));
    for (key, found) in [("missing", &said.missing), ("withheld", &said.withheld)] {
        if !found.is_empty() {
            row += &format!(", {key} = [{}]", names(found));
        }
    }
    row + " },\n"
}

/// A channel that nobody knows: a row for each byte of its usual length, or for each key of its JSON.
fn unknown(channel: Channel, frames: Vec<Bytes>) -> Part {
    let name = channel.name();
    let mut body = format!("[[channel]]\nname = \"{name}\"\n");
    if matches!(channel, Channel::Gatt(_)) {
        body += "get  = \"notify\"  # or indicate, read_once, poll\n";
    }
    let keys = frames.first().and_then(|frame| keys_of(frame));
    match (&channel, keys) {
        (Channel::Message { .. }, Some(keys)) => body += &json_rows(&keys),
        _ => body += &byte_rows(&frames),
    }
    body += "emit = [\n  # { event = \"heart_rate\", value = \"FIELD\" },  # and give that field its unit\n]\n";
    Part { body, channel: Some((channel, frames)), shipped: Vec::new() }
}

fn byte_rows(frames: &[Bytes]) -> String {
    let length = common_length(frames);
    let alike: Vec<&Bytes> = frames.iter().filter(|frame| frame.len() == length).collect();
    let mut text = format!("# {} of {} frames have {length} bytes\nfields = [\n", alike.len(), frames.len());
    for at in 0..length {
        let values = || alike.iter().map(|frame| frame[at]);
        let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
        let told = match low == high {
            true => format!("always {low} (0x{low:02x})"),
            false => format!("changes, {low} to {high} (0x{low:02x} to 0x{high:02x})"),
        };
        let _a_string_takes_all = writeln!(text, "  {{ name = \"byte{at}\", type = \"u8\" }},  # {told}");
    }
    text + "]\n"
}

fn json_rows(keys: &[(String, &'static str)]) -> String {
    let mut text = "format = \"json\"\nfields = [\n".to_owned();
    for (key, kind) in keys {
        let name = id_of(key).replace('-', "_");
        let at = toml::Value::String(format!("/{}", key.replace('~', "~0").replace('/', "~1")));
        let _a_string_takes_all =
            writeln!(text, "  {{ name = \"{name}\", type = \"{kind}\", at = {at}, optional = true }},");
    }
    text + "]\n"
}

/// The keys of a JSON object that hold one value, and how each is written.
fn keys_of(frame: &[u8]) -> Option<Vec<(String, &'static str)>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(frame).ok()?;
    let kind = |value: &serde_json::Value| match value {
        serde_json::Value::Number(_) => Some("number"),
        serde_json::Value::Bool(_) => Some("bool"),
        serde_json::Value::String(_) => Some("utf8"),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => None,
    };
    Some(object.into_iter().filter_map(|(key, value)| Some((key, kind(&value)?))).collect())
}

/// How a stream might be cut: by lines where it is text, else by its usual length.
fn framing(frames: &[Bytes]) -> String {
    match is_text(frames) {
        true => "frame   = { line = \"\\n\" }\n".into(),
        false => format!("frame   = {{ fixed = {}, timeout = \"500 ms\" }}\n", common_length(frames)),
    }
}

fn is_text(frames: &[Bytes]) -> bool {
    frames.iter().all(|frame| frame.iter().all(|byte| (0x20..0x7f).contains(byte)))
}

fn common_length(frames: &[Bytes]) -> usize {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    frames.iter().for_each(|frame| *counts.entry(frame.len()).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(0, |(length, _)| length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpret::builtin;

    fn stub(lines: &[(&str, &str)]) -> String {
        let line = |(channel, hex): &(&str, &str)| {
            let element = if *channel == "advertisement" { r#","address":"A","service_data":"fcd2""# } else { "" };
            format!("{{\"t\":1,\"device\":\"Strap Anna\",\"channel\":\"{channel}\"{element},\"hex\":\"{hex}\"}}\n")
        };
        let text: String = lines.iter().map(line).collect();
        let arguments = NewArgs { from: "x".into(), device: None, id: None, output: None };
        arguments.stub(text.as_bytes()).unwrap()
    }

    fn tried(text: &str) -> (Profile, usize) {
        let profile = Profile::parse("stub.toml", text).unwrap_or_else(|why| panic!("{why}\n{text}"));
        let examples = profile.examples().map(|(_, good, refused)| good + refused).sum();
        (profile, examples)
    }

    #[test]
    fn a_strap_takes_over_what_is_known_and_its_frames_prove_it() {
        let text = stub(&[
            ("2a37", "1048 0004".replace(' ', "").as_str()),
            ("2a37", "0449"),
            ("2a37", "104b0003"),
            ("2a19", "61"),
            ("fb005c81-02e7-f387-1cad-8acd2d8df0c8", "01ff"),
            ("fb005c81-02e7-f387-1cad-8acd2d8df0c8", "02ff"),
        ]);
        let (profile, examples) = tried(&text);
        assert_eq!((&**profile.id(), profile.matches().ble_service.as_deref()), ("strap-anna", Some("180d")));
        let names: Vec<&str> = profile.channels().map(|channel| &**channel.name).collect();
        assert_eq!(names[..4], ["2a37", "2a19", "fb005c81-02e7-f387-1cad-8acd2d8df0c8", "2a38"]);
        assert_eq!(profile.events(), ["heart_rate"]);
        assert!(examples > 10, "{text}");
        assert!(text.contains("{ hex = \"10 48 00 04\", events = [{ heart_rate = 72.0 }] }"), "{text}");
        assert!(text.contains("{ hex = \"04 49\", events = [], withheld = [\"contact\"] }"), "{text}");
        assert!(text.contains("byte0\", type = \"u8\" },  # changes, 1 to 2") && text.contains("always 255"), "{text}");
    }

    #[test]
    fn every_shipped_characteristic_and_element_can_be_taken_over() {
        for (_, file) in builtin::FILES {
            let shipped = Profile::parse("shipped", file).unwrap();
            for name in shipped.channels().map(|it| it.name).filter(|name| !matches!(&***name, "frame" | "message")) {
                if shipped.matches().ble_service.is_some()
                    || shipped.matches().element == Some(Element::ServiceData("fcd2".into()))
                {
                    let (profile, _) = tried(&stub(&[(name, "0001020304050607")]));
                    assert!(profile.channels().any(|known| known.name == name), "{name}");
                }
            }
        }
    }

    #[test]
    fn frames_lines_and_messages_of_unknown_devices_become_stubs_too() {
        tried(&stub(&[("frame", "a50a613d004d"), ("frame", "a50a623d004e"), ("frame", "a5")]));
        tried(&stub(&[("frame", "48523a3732"), ("frame", "48523a3733")]));
        let json = r#"{"Heart Rate":72,"on":true,"who/what":"x","more":{"a":1}}"#;
        let hex: String = json.bytes().map(|byte| format!("{byte:02x}")).collect();
        let text = stub(&[("clinic/bed-9/vitals", &hex)]);
        tried(&text);
        assert!(text.contains("name = \"heart_rate\", type = \"number\", at = \"/Heart Rate\""), "{text}");
    }
}
