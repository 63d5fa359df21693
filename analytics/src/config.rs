//! Files -> `Config`: the main file, then `conf.d/*.toml` beside it; a later file wins key by key.
//!
//! Unknown keys are refused with file, line and key. Secrets are never in these files, only the paths of their own.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::{api, dashboards, warehouse};

/// Where the commands look unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/biogate/analytics.toml";

/// What the operator wrote.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[warehouse]`: how the API reads, by a user that may only read.
    pub warehouse: warehouse::Settings,
    /// `[api]`: where it listens, and what it lets in.
    #[serde(default)]
    pub api: api::Settings,
    /// `[admin]`: how `erase` and `repseudonymise` write, by a user of their own. The API never reads it.
    pub admin: Option<warehouse::Settings>,
    /// `[metabase]`: where `dashboards apply` makes the dashboards. The API never reads it.
    pub metabase: Option<dashboards::Settings>,
}

/// What is wrong with the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// In which file.
    pub file: PathBuf,
    /// In which line, where it is known.
    pub line: Option<usize>,
    /// What was found and what to write.
    pub message: String,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

impl Error {
    fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Error { file: file.to_path_buf(), line: None, message: message.into() }
    }
}

impl Config {
    /// Reads the file and its drop-in folder.
    pub fn load(file: &Path) -> Result<Config, Error> {
        let mut paths = vec![file.to_path_buf()];
        paths.extend(drop_ins(&file.parent().unwrap_or(Path::new(".")).join("conf.d"))?);
        let mut merged = Table::new();
        for path in &paths {
            let text =
                std::fs::read_to_string(path).map_err(|why| Error::of_file(path, format!("cannot be read: {why}")))?;
            lay_over(&mut merged, checked(path, &text)?);
        }
        Config::deserialize(Value::Table(merged)).map_err(|why| Error::of_file(file, why.message()))
    }
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, Error> {
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

/// The file as a table. Its unknown keys and wrong types are named with their line; what it leaves out, another may say.
fn checked(path: &Path, text: &str) -> Result<Table, Error> {
    let at = |why: toml::de::Error| Error {
        file: path.to_path_buf(),
        line: why.span().map(|span| line_of(text, span.start)),
        message: why.message().to_owned(),
    };
    let table = text.parse::<Table>().map_err(at)?;
    match toml::from_str::<Config>(text) {
        Err(why) if !why.message().starts_with("missing field") => Err(at(why)),
        _ => Ok(table),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

fn lay_over(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => below.extend(above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}
