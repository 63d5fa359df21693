//! `biogate decode`: what a frame says by a profile, without a gateway around it.
// Printing is what this command is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json, json};

use crate::interpret::bluetooth;
use crate::interpret::catalog::{Explained, UnknownProfile};
use crate::interpret::decrypt::{Key, is_address};
use crate::interpret::frame::readings_of;
use crate::interpret::notation::parse_hex;
use crate::interpret::{
    Catalog, DeviceMemory, EntryBinding, Fault, FaultKind, Interpretation, Limits, Profile, ProfileSet,
};
use crate::observation::{Counted, DeviceTime, Observation};
use crate::reading::{BootId, Channel, Element, Heard, Reading};

use super::explain::{self, Frame};
use super::profile_folders::{self, ProfileFolders};

/// Frames are taken as heard this far apart, so that repeats are no twins and every event shows.
const APART_MS: u64 = 10_000;

/// Decode frames by a profile and print what they say
#[derive(Debug, clap::Args)]
pub struct DecodeArgs {
    /// A profile's id, or a profile file
    #[arg(long, value_name = "ID|FILE")]
    pub profile: String,
    /// A GATT characteristic (2a37), frame, advertisement or message
    #[arg(long, value_name = "CHANNEL")]
    pub channel: String,
    /// A frame in hexadecimal; several are taken in order
    #[arg(
        long,
        value_name = "HEX",
        required_unless_present = "text",
        conflicts_with = "text",
        allow_hyphen_values = true
    )]
    pub hex: Vec<String>,
    /// A frame as text; several are taken in order
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub text: Vec<String>,
    /// The advertisement's element: service data of this UUID
    #[arg(long, value_name = "UUID", conflicts_with = "manufacturer")]
    pub service_data: Option<String>,
    /// The advertisement's element: manufacturer data of this company id (four hexadecimal digits)
    #[arg(long, value_name = "ID")]
    pub manufacturer: Option<String>,
    /// The device entry's component, as skin for a thermometer worn on it
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,
    /// File with the key of encrypted frames: 32 hexadecimal digits, 24 for MiBeacon 2 and 3
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The advertisement's sender, as A0:9E:1A:00:11:22; encrypted frames need it
    #[arg(long, value_name = "ADDRESS")]
    pub mac: Option<String>,
    /// The hub's time zone, for devices whose clock shows the time of the place
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub timezone: String,
    /// Where profiles are looked for
    #[command(flatten)]
    pub folders: ProfileFolders,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Draw the bytes with each field under its own
    #[arg(long)]
    pub explain: bool,
}

impl DecodeArgs {
    /// 0: understood; 1: refused; 2: wrong usage.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (frames, zone) = match self.decode() {
            Ok(decoded) => decoded,
            Err(error) => {
                eprintln!("biogate decode: {error:#}");
                return Ok(ExitCode::from(2));
            }
        };
        let drawing: String = frames.iter().filter(|_| self.explain).map(explain::draw).collect();
        let profile = frames.first().map_or("", |frame| &frame.profile);
        if self.json {
            eprint!("{drawing}");
            println!("{}", object(profile, &frames, &zone));
        } else {
            print!("{drawing}");
            print(&frames, &zone, self.explain);
        }
        Ok(if any_refused(&frames) { ExitCode::from(1) } else { ExitCode::SUCCESS })
    }

    /// The object of `--json`, and whether a frame was refused.
    pub fn answer(&self) -> anyhow::Result<(Json, bool)> {
        let (frames, zone) = self.decode()?;
        let profile = frames.first().map_or("", |frame| &frame.profile);
        Ok((object(profile, &frames, &zone), any_refused(&frames)))
    }

    fn decode(&self) -> anyhow::Result<(Vec<Frame>, TimeZone)> {
        let zone = TimeZone::get(&self.timezone)
            .with_context(|| format!("--timezone {}: no such zone, write one as Europe/Berlin", self.timezone))?;
        let (set, id) = self.profile()?;
        let profile = set.get(&id).context("the profile is gone")?.clone();
        let channel = self.channel(&profile)?;
        let frames = self.frames()?;
        let component = self.component.as_deref().map(Arc::from);
        let entry: Arc<str> = "decode".into();
        let key = self.key_file.as_deref().map(read_key).transpose()?;
        let binding = EntryBinding { entry: entry.clone(), profile: id.to_string(), component, key };
        let catalog = Catalog::new(&set, vec![binding], Limits::default())?;
        let framing = profile.frame().filter(|_| channel == Channel::Frame);
        let mut memory = DeviceMemory::default();
        let mut decoded = Vec::new();
        for (number, bytes) in readings_of(framing, frames).into_iter().enumerate() {
            let number = number as u64;
            let (bytes, mut said) = match bytes {
                Ok(bytes) => {
                    let heard = Heard { boot: BootId::WALL, ms: number * APART_MS };
                    let (device, channel) = (entry.clone(), channel.clone());
                    let reading = Reading { device, entry: entry.clone(), channel, bytes: bytes.clone(), heard };
                    (bytes, catalog.explain(&reading, number, &mut memory))
                }
                Err(fault) => {
                    let interpretation = Interpretation { faults: vec![fault.into()], ..Interpretation::default() };
                    (Bytes::new(), Explained { interpretation, ..Explained::default() })
                }
            };
            let bytes = said.plain.take().map_or(bytes, Bytes::from);
            decoded.push(Frame { profile: id.clone(), bytes, said });
        }
        Ok((decoded, zone))
    }

    /// A file where one is named, else a profile of the folders.
    fn profile(&self) -> anyhow::Result<(ProfileSet, Arc<str>)> {
        let path = Path::new(&self.profile);
        if self.profile.contains('/') || self.profile.ends_with(".toml") || path.is_file() {
            let mut set = ProfileSet::empty();
            let id = set.add(&self.profile, &profile_folders::read(path)?)?;
            return Ok((set, id));
        }
        let set = self.folders.load()?.set;
        let found = set.get(&self.profile).map(|profile| profile.id().clone());
        match found {
            Some(id) => Ok((set, id)),
            None => {
                let hint = UnknownProfile::hint(&self.profile, &set);
                bail!("--profile {}: there is no such profile; {hint}", self.profile)
            }
        }
    }

    fn channel(&self, profile: &Profile) -> anyhow::Result<Channel> {
        let name = bluetooth::channel(&self.channel).unwrap_or_else(|| self.channel.clone());
        let names: Vec<&str> = profile.channels().map(|channel| &**channel.name).collect();
        if !names.contains(&name.as_str()) {
            bail!("--channel {}: the profile {} has {}", self.channel, profile.id(), names.join(", "));
        }
        let element = match (&self.service_data, &self.manufacturer) {
            (Some(uuid), _) => Some(Element::ServiceData(
                bluetooth::uuid(uuid).with_context(|| format!("--service-data {uuid}: write a UUID"))?.into(),
            )),
            (None, Some(id)) => {
                let digits = id.trim_start_matches("0x");
                let id = u16::from_str_radix(digits, 16)
                    .map_err(|_| anyhow!("--manufacturer {id}: write four hexadecimal digits, as 0157"))?;
                Some(Element::Manufacturer(id))
            }
            (None, None) => None,
        };
        let wanted = profile.matches().element.as_ref();
        Ok(match name.as_str() {
            "advertisement" => {
                if let (Some(given), Some(wanted)) = (&element, wanted)
                    && given != wanted
                {
                    bail!("the profile {} claims {wanted:?}, not {given:?}", profile.id());
                }
                let element = element
                    .or_else(|| wanted.cloned())
                    .context("say which element: --service-data UUID or --manufacturer ID")?;
                let address = self.mac.as_deref().unwrap_or("00:00:00:00:00:00");
                if !is_address(address) {
                    bail!("--mac {address}: write six bytes, as A0:9E:1A:00:11:22");
                }
                Channel::Advertisement { address: address.into(), element }
            }
            "frame" => Channel::Frame,
            "message" => Channel::Message { topic: "decode".into() },
            characteristic => Channel::Gatt(characteristic.into()),
        })
    }

    fn frames(&self) -> anyhow::Result<Vec<Bytes>> {
        let hex = self.hex.iter().map(|hex| parse_hex(hex).map(Bytes::from).map_err(|why| anyhow!("--hex: {why}")));
        let text = self.text.iter().map(|text| Ok(Bytes::from(text.clone())));
        hex.chain(text).collect()
    }
}

/// The error names the file and never what it holds.
fn read_key(file: &Path) -> anyhow::Result<Key> {
    let text = std::fs::read_to_string(file).with_context(|| format!("--key-file {}", file.display()))?;
    Key::parse(&text).map_err(|why| anyhow!("--key-file {}: found {why}", file.display()))
}

fn any_refused(frames: &[Frame]) -> bool {
    let is_refusal = |fault: &Fault| matches!(fault.kind, FaultKind::Refused | FaultKind::NoKey);
    frames.iter().flat_map(|frame| &frame.said.interpretation.faults).any(is_refusal)
}

/// The object of `--json`: events and faults of all frames, fields of the last.
fn object(profile: &str, frames: &[Frame], zone: &TimeZone) -> Json {
    let said = || frames.iter().map(|frame| &frame.said.interpretation);
    let last = said().last();
    let names = |names: Option<&Vec<Arc<str>>>| names.map_or_else(|| json!([]), |names| json!(names));
    let fields: Map<String, Json> = last
        .map(|last| last.fields.iter().map(|(name, value)| (name.to_string(), json!(value))).collect())
        .unwrap_or_default();
    json!({
        "profile": profile,
        "fields": fields,
        "events": said().flat_map(|said| &said.observations).map(|event| event_object(event, zone)).collect::<Vec<_>>(),
        "missing": names(last.map(|last| &last.missing)),
        "withheld": names(last.map(|last| &last.withheld)),
        "faults": said().flat_map(|said| &said.faults).map(|fault| json!({
            "kind": fault.kind.name(), "field": fault.field, "message": fault.message,
        })).collect::<Vec<_>>(),
    })
}

fn event_object(event: &Observation, zone: &TimeZone) -> Json {
    let metadata: Map<String, Json> =
        event.metadata.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
    json!({
        "event_type": event.event_type.name(),
        "component": event.component,
        "value": event.value,
        "unit": event.event_type.unit(),
        "measured_at": event.device_time.and_then(|time| measured_at(time, zone)),
        "metadata": metadata,
    })
}

/// RFC 3339 in UTC.
fn measured_at(time: DeviceTime, zone: &TimeZone) -> Option<String> {
    let moment = match time.shown() {
        DeviceTime::Utc(ms) => Timestamp::from_millisecond(ms).ok()?,
        DeviceTime::Local(ms) | DeviceTime::Counted(Counted { ms, .. }) => {
            let wall = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(ms).ok()?);
            zone.to_timestamp(wall).ok()?
        }
    };
    Some(moment.to_string())
}

/// For people.
fn print(frames: &[Frame], zone: &TimeZone, explained: bool) {
    for said in frames.iter().map(|frame| &frame.said.interpretation) {
        if !explained {
            for (name, value) in &said.fields {
                println!("field     {name} = {}", json!(value));
            }
        }
        for event in &said.observations {
            let component = if event.component.is_empty() { String::new() } else { format!(" ({})", event.component) };
            let when = event.device_time.and_then(|time| measured_at(time, zone));
            let when = when.map_or_else(String::new, |when| format!(" measured at {when}"));
            println!(
                "event     {}{component} {} {}{when}",
                event.event_type.name(),
                event.value,
                event.event_type.unit()
            );
        }
        for name in &said.missing {
            println!("missing   {name}");
        }
        for name in &said.withheld {
            println!("withheld  by {name}");
        }
        for fault in &said.faults {
            println!("{:<9} {}: {}", fault.kind.name(), fault.field, fault.message);
        }
    }
}
