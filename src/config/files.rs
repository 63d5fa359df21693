//! The main file and its drop-in folders: each parsed by itself, so that an error has its line, then merged by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Table, Value};
use uuid::Uuid;

use super::{Error, raw};
use crate::event::NAMESPACE;

/// All files merged, and where each named entry stands.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) file: raw::File,
    pub(super) places: Places,
    /// A hash of all files' texts.
    pub(super) fingerprint: String,
}

/// Where the entries stand, by section and name; the newest place of each.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<(Section, String), Place>);

/// A file and a line in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: PathBuf,
    line: usize,
    /// Of a device: whether the entry says how to reach it. One that does not only adds to another.
    names_a_sensor: bool,
}

/// The sections whose entries have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Device,
    Mqtt,
    Destination,
}

impl Section {
    const ALL: [Section; 3] = [Section::Device, Section::Mqtt, Section::Destination];

    pub(super) fn key(self) -> &'static str {
        match self {
            Section::Device => "device",
            Section::Mqtt => "mqtt",
            Section::Destination => "destination",
        }
    }
}

impl Places {
    /// An error about this entry.
    pub(super) fn error(&self, section: Section, name: &str, message: impl Into<String>) -> Error {
        let place = self.0.get(&(section, name.to_owned()));
        Error {
            file: place.map(|place| place.file.clone()).unwrap_or_default(),
            line: place.map(|place| place.line),
            message: format!("{} \"{name}\": {}", section.key(), message.into()),
        }
    }
}

/// Reads `main`, then `conf.d/*.toml`, then `devices.d/*.toml` beside it, each folder in the order of the file names.
pub(super) fn read(main: &Path) -> Result<Merged, Error> {
    let folder = main.parent().unwrap_or(Path::new("."));
    let mut paths = vec![main.to_path_buf()];
    for drop_ins in ["conf.d", "devices.d"] {
        paths.extend(toml_files(&folder.join(drop_ins))?);
    }
    let mut places = Places::default();
    let mut merged = Table::new();
    let mut texts = String::new();
    for path in paths {
        let text =
            std::fs::read_to_string(&path).map_err(|why| Error::of_file(&path, format!("cannot be read: {why}")))?;
        let table = checked(&path, &text)?;
        note_places(&path, &text, &mut places)?;
        merge_files(&mut merged, table);
        texts.push_str(&text);
        texts.push('\0');
    }
    let file = raw::File::deserialize(Value::Table(merged)).map_err(|why| Error::of_file(main, why.message()))?;
    let fingerprint = Uuid::new_v5(&NAMESPACE, texts.as_bytes()).simple().to_string();
    Ok(Merged { file, places, fingerprint })
}

fn toml_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(Error::of_file(folder, format!("cannot be read: {why}"))),
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

/// The file as a table, after its keys and types were found right.
fn checked(path: &Path, text: &str) -> Result<Table, Error> {
    let at = |why: toml::de::Error| Error {
        file: path.to_path_buf(),
        line: why.span().map(|span| line_of(text, span.start)),
        message: why.message().to_owned(),
    };
    toml::from_str::<raw::File>(text).map_err(at)?;
    text.parse::<Table>().map_err(at)
}

#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    device: Vec<Named>,
    #[serde(default)]
    mqtt: Vec<Named>,
    #[serde(default)]
    destination: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: Spanned<String>,
    ble: Option<String>,
    serial: Option<String>,
    mqtt: Option<String>,
}

/// Notes where each entry stands and refuses a second one that cannot be an addition to the first.
fn note_places(path: &Path, text: &str, places: &mut Places) -> Result<(), Error> {
    let names: Names = toml::from_str(text).map_err(|why| Error::of_file(path, why.message()))?;
    for (section, entries) in
        [(Section::Device, &names.device), (Section::Mqtt, &names.mqtt), (Section::Destination, &names.destination)]
    {
        for entry in entries {
            let key = (section, entry.name.get_ref().clone());
            let names_a_sensor = entry.ble.is_some() || entry.serial.is_some() || entry.mqtt.is_some();
            let place =
                Place { file: path.to_path_buf(), line: line_of(text, entry.name.span().start), names_a_sensor };
            let first = places.0.get(&key);
            let repeated = match section {
                Section::Device => names_a_sensor && first.is_some_and(|first| first.names_a_sensor),
                Section::Mqtt | Section::Destination => first.is_some_and(|first| first.file == path),
            };
            if let (true, Some(first)) = (repeated, first) {
                return Err(Error {
                    file: path.to_path_buf(),
                    line: Some(place.line),
                    message: format!(
                        "found a second {} named \"{}\" (the first is in {}:{}); write another name, or delete one of them",
                        section.key(),
                        key.1,
                        first.file.display(),
                        first.line
                    ),
                });
            }
            // Of a device the entry that reaches it is the better one to name.
            if section != Section::Device || names_a_sensor || first.is_none() {
                places.0.insert(key, place);
            }
        }
    }
    Ok(())
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// Lays `over` over `base`: sections key by key, named entries by name.
fn merge_files(base: &mut Table, over: Table) {
    for (key, value) in over {
        let named = Section::ALL.iter().any(|section| section.key() == key);
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => below.extend(above),
            (_, Value::Array(entries)) if named => {
                let list = base.entry(key).or_insert_with(|| Value::Array(Vec::new()));
                entries.into_iter().for_each(|entry| merge_entry(list, entry));
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn merge_entry(list: &mut Value, entry: Value) {
    let (Value::Array(list), Value::Table(entry)) = (list, entry) else { return };
    let same = list.iter_mut().filter_map(Value::as_table_mut).find(|known| known.get("name") == entry.get("name"));
    match same {
        Some(known) => known.extend(entry),
        None => list.push(Value::Table(entry)),
    }
}
