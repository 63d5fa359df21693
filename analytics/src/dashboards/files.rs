//! The files: which dashboards there are, what their cards show, and what can be asked.
//!
//! Each `*.json` of the folder is a dashboard, but `parameters.json`. A card names its statement, relative to the folder.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::statement::{self, Kind, Statement};

const PARAMETERS: &str = "parameters.json";

/// All that the folder says, checked.
#[derive(Debug)]
pub struct Files {
    /// In the order of their files' names.
    pub dashboards: Vec<Dashboard>,
    /// In the order in which they stand on a dashboard.
    pub parameters: Vec<Parameter>,
}

/// A dashboard.
#[derive(Debug)]
pub struct Dashboard {
    /// The file's name without its ending; stays when the title changes.
    pub key: String,
    /// Its title.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// In the order in which they are laid out.
    pub cards: Vec<Card>,
}

/// A card.
#[derive(Debug)]
pub struct Card {
    /// `DASHBOARD/CARD`; stays when the title changes.
    pub key: String,
    /// What the file says of it.
    pub face: Face,
    /// What it asks.
    pub statement: Statement,
}

/// How a card looks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Face {
    key: Option<String>,
    /// Its title.
    pub title: String,
    sql: PathBuf,
    /// The chart.
    pub display: Display,
    /// The column along the bottom.
    pub x: Option<String>,
    /// The column whose values are one line each.
    pub series: Option<String>,
    /// The columns along the side.
    #[serde(default)]
    pub y: Vec<String>,
    /// Bars on top of each other.
    #[serde(default)]
    pub stacked: bool,
    /// In columns of the grid, which has 24.
    #[serde(default = "whole")]
    pub width: u8,
    /// In rows of the grid.
    pub height: u8,
}

fn whole() -> u8 {
    GRID
}

/// How many columns a dashboard has.
pub const GRID: u8 = 24;

/// A chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Display {
    /// Rows.
    Table,
    /// Lines.
    Line,
    /// Bars.
    Bar,
}

/// What can be asked of cards.
#[derive(Debug)]
pub struct Parameter {
    /// As in the statements.
    pub name: String,
    /// As people see it.
    pub label: String,
    /// What is asked until somebody asks something else. Without one, the card waits for an answer.
    pub default: Option<Value>,
    /// What there is to choose from.
    pub list: Option<List>,
}

/// A card that nobody looks at: its values are a parameter's choice.
#[derive(Debug)]
pub struct List {
    /// `list/PARAMETER`
    pub key: String,
    /// Its title.
    pub title: String,
    /// The column that holds the values.
    pub column: String,
    /// What gives them.
    pub statement: Statement,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DashboardFile {
    name: String,
    description: String,
    // Which of them Grafana shows, too.
    #[expect(dead_code, reason = "the operators' dashboard of Grafana is made of the same files")]
    operators: bool,
    cards: Vec<Face>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParametersFile {
    parameters: Vec<ParameterEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParameterEntry {
    name: String,
    label: String,
    default: Option<Value>,
    list: Option<ListEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListEntry {
    title: String,
    sql: PathBuf,
    column: String,
}

/// What is wrong with a file.
#[derive(Debug)]
pub struct Error {
    file: PathBuf,
    message: String,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.message)
    }
}

fn wrong<T>(file: &Path, message: impl fmt::Display) -> Result<T, Error> {
    Err(Error { file: file.to_path_buf(), message: message.to_string() })
}

impl Files {
    /// Reads and checks a folder.
    pub fn read(folder: &Path) -> Result<Files, Error> {
        let mut files = Files { dashboards: Vec::new(), parameters: parameters(folder)? };
        for path in dashboard_files(folder)? {
            files.dashboards.push(dashboard(folder, &path)?);
        }
        if files.dashboards.is_empty() {
            return wrong(folder, "holds no dashboard: name the folder that deploy/dashboards/ was copied to");
        }
        files.check(&folder.join(PARAMETERS))?;
        Ok(files)
    }

    /// Parameters are known, and used as what they are.
    fn check(&self, file: &Path) -> Result<(), Error> {
        for card in self.dashboards.iter().flat_map(|dashboard| &dashboard.cards) {
            for (name, kind) in &card.statement.parameters {
                let Some(parameter) = self.parameters.iter().find(|parameter| parameter.name == *name) else {
                    return wrong(file, format!("has no entry for {{{name}}}, which the card {} asks for", card.key));
                };
                let fits = match (&parameter.default, kind) {
                    (None, _) => true,
                    (Some(default), Kind::Number) => default.is_u64(),
                    (Some(default), Kind::Text) => default.as_str().is_some_and(|text| !text.is_empty()),
                };
                if !fits {
                    return wrong(file, format!("the default of {name} does not fit the card {}", card.key));
                }
            }
        }
        Ok(())
    }
}

fn dashboard_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) => return wrong(folder, format!("cannot be read: {why}; name the dashboards' folder by --files")),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json") && !path.ends_with(PARAMETERS));
    paths.sort();
    Ok(paths)
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).or_else(|why| wrong(path, why)),
        Err(why) => wrong(path, format!("cannot be read: {why}")),
    }
}

fn sql(folder: &Path, path: &Path) -> Result<Statement, Error> {
    let path = folder.join(path);
    match std::fs::read_to_string(&path) {
        Ok(text) => statement::read(&text).or_else(|why| wrong(&path, why)),
        Err(why) => wrong(&path, format!("cannot be read: {why}")),
    }
}

fn parameters(folder: &Path) -> Result<Vec<Parameter>, Error> {
    let path = folder.join(PARAMETERS);
    let file: ParametersFile = json(&path)?;
    let mut parameters: Vec<Parameter> = Vec::new();
    for entry in file.parameters {
        if parameters.iter().any(|known| known.name == entry.name) {
            return wrong(&path, format!("{} stands there twice", entry.name));
        }
        let list = match entry.list {
            None => None,
            Some(list) => {
                let statement = sql(folder, &list.sql)?;
                if let Some((name, _)) = statement.parameters.first() {
                    return wrong(&folder.join(&list.sql), format!("a list cannot ask for {{{name}}}"));
                }
                Some(List { key: format!("list/{}", entry.name), title: list.title, column: list.column, statement })
            }
        };
        parameters.push(Parameter { name: entry.name, label: entry.label, default: entry.default, list });
    }
    Ok(parameters)
}

fn dashboard(folder: &Path, path: &Path) -> Result<Dashboard, Error> {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file: DashboardFile = json(path)?;
    let key = stem(path);
    let mut seen = BTreeSet::new();
    let mut cards = Vec::new();
    for face in file.cards {
        let card = format!("{key}/{}", face.key.clone().unwrap_or_else(|| stem(&face.sql)));
        if !seen.insert(card.clone()) {
            return wrong(path, format!("two cards are {card}: give one of them another \"key\""));
        }
        if face.width == 0 || face.width > GRID || face.height == 0 {
            return wrong(path, format!("{card}: write a width of 1 to {GRID} and a height of at least 1"));
        }
        if face.display != Display::Table && (face.x.is_none() || face.y.is_empty()) {
            return wrong(path, format!("{card}: a chart needs the columns \"x\" and \"y\""));
        }
        cards.push(Card { statement: sql(folder, &face.sql)?, key: card, face });
    }
    Ok(Dashboard { key, name: file.name, description: file.description, cards })
}
