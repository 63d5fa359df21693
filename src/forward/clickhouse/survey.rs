//! What a server and a table say of themselves, as far as it decides whether each event counts once in the raw table.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::Settings;
use super::http::Http;
use super::insert::INSERT_SETTINGS;
use super::schema::{self, Error, Fitting};

/// Beside the settings of [`INSERT_SETTINGS`], each of which an insert gives.
const ALSO_ASKED: [&str; 3] = ["readonly", "insert_deduplication_token", "deduplicate_insert"];

/// A parameter of the HTTP interface and no setting.
const NO_SETTING: &str = "wait_end_of_query";

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The server's version.
    pub version: String,
    /// The table's engine.
    pub engine: String,
    /// The table's engine with its settings, as the server writes it.
    pub engine_full: String,
    /// Settings of our user, those that an insert needs, by name: value, and whether the user may not change it.
    pub settings: BTreeMap<String, (String, bool)>,
    /// The server's own defaults of a table's deduplication windows, by name.
    pub windows: BTreeMap<String, u64>,
}

/// How much one thing that was found matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// As it should be.
    Fine(String),
    /// Events arrive, and the guarantee does not hold as it could.
    Weak(String),
    /// Inserts fail.
    Broken(String),
}

/// How long a server remembers an insert by its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// So many of the table's newest inserts.
    pub inserts: u64,
    /// And no longer than this, where the table is replicated.
    pub at_most: Option<Duration>,
}

#[derive(Deserialize)]
struct Setting {
    name: String,
    value: String,
    readonly: u8,
}

#[derive(Deserialize)]
struct Window {
    name: String,
    value: String,
}

/// Asks the server, after the table was found to fit.
pub async fn survey(settings: &Settings) -> Result<Survey, Error> {
    let mut http = Http::new(settings.clone()).map_err(Error::Unreachable)?;
    let Fitting { server_version, engine, engine_full, .. } = schema::verify_with(&mut http, settings).await?;
    let names: Vec<String> = needed().chain(ALSO_ASKED).map(|name| format!("'{name}'")).collect();
    let sql = format!(
        "SELECT name, value, readonly FROM system.settings WHERE name IN ({}) FORMAT JSONEachRow",
        names.join(", ")
    );
    let text = schema::ask(&mut http, settings, &sql, &[]).await?;
    let found: Vec<Setting> = schema::rows(&http, &text)?;
    let sql = "SELECT name, value FROM system.merge_tree_settings WHERE name LIKE '%replicated_deduplication_window%' \
               FORMAT JSONEachRow";
    // A user may be kept from this table; what the table itself says is known all the same.
    let windows: Vec<Window> = match schema::ask(&mut http, settings, sql, &[]).await {
        Ok(text) => schema::rows(&http, &text)?,
        Err(Error::Access(_) | Error::Statement { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(Survey {
        version: server_version,
        engine,
        engine_full,
        settings: found.into_iter().map(|one| (one.name, (one.value, one.readonly != 0))).collect(),
        windows: windows.into_iter().filter_map(|one| Some((one.name, one.value.parse().ok()?))).collect(),
    })
}

/// The settings that every insert gives.
fn needed() -> impl Iterator<Item = &'static str> {
    INSERT_SETTINGS.iter().map(|(name, _)| *name).filter(|name| *name != NO_SETTING)
}

impl Survey {
    /// What the table remembers of inserts. `None`: nothing that is known.
    pub fn memory(&self) -> Option<Memory> {
        if !self.engine.ends_with("MergeTree") {
            return None;
        }
        let value = |name: &str| self.table_setting(name).or_else(|| self.windows.get(name).copied());
        if self.is_replicated() {
            let at_most = value("replicated_deduplication_window_seconds").map(Duration::from_secs);
            return Some(Memory { inserts: value("replicated_deduplication_window")?, at_most });
        }
        Some(Memory { inserts: value("non_replicated_deduplication_window").unwrap_or(0), at_most: None })
    }

    /// Whether other servers hold the table too.
    pub fn is_replicated(&self) -> bool {
        self.engine.starts_with("Replicated") || self.engine.starts_with("Shared")
    }

    /// `name = 10000` of the table's own settings.
    fn table_setting(&self, name: &str) -> Option<u64> {
        let (_, after) = self.engine_full.split_once(&format!(" {name} = "))?;
        after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// How long an outage may last before a repeated batch can count twice in the raw table, where `hubs` write into it
    /// with one insert each in `interval`.
    pub fn outage(&self, hubs: u64, interval: Duration) -> Option<Duration> {
        let Memory { inserts, at_most } = self.memory()?;
        let by_count = interval.mul_f64(inserts as f64 / hubs.max(1) as f64);
        Some(at_most.map_or(by_count, |at_most| by_count.min(at_most)))
    }

    /// Everything that makes inserts fail or the guarantee weaker.
    pub fn faults(&self) -> Vec<Advice> {
        let mut found = Vec::new();
        let value = |name: &str| self.settings.get(name).map(|(value, _)| value.as_str());
        let missing: Vec<&str> =
            needed().chain(["insert_deduplication_token"]).filter(|name| value(name).is_none()).collect();
        if !missing.is_empty() {
            let (version, names) = (&self.version, missing.join(", "));
            found.push(Advice::Broken(format!(
                "ClickHouse {version} is too old: it does not know {names}, which each insert gives; 25.3 and newer do"
            )));
        }
        if value("readonly").is_some_and(|readonly| readonly != "0") {
            found.push(Advice::Broken(
                "the user's profile has readonly, so it may not insert; give it a profile with readonly = 0".to_owned(),
            ));
        }
        let differs = |(name, ours): &&(&str, &str)| value(name).is_some_and(|theirs| !same(theirs, ours));
        let fixed = |name: &str| self.settings.get(name).is_some_and(|(_, fixed)| *fixed);
        for (name, ours) in INSERT_SETTINGS.iter().filter(differs).filter(|(name, _)| fixed(name)) {
            let theirs = value(name).unwrap_or_default();
            found.push(Advice::Broken(format!(
                "the user's profile fixes {name} at {theirs}, and each insert says {ours}; lift that constraint"
            )));
        }
        if value("deduplicate_insert") == Some("disable") {
            found.push(Advice::Weak(
                "the user's profile says deduplicate_insert = 'disable': the server drops no repeated batch; take it out"
                    .to_owned(),
            ));
        }
        found.extend(self.engine_fault());
        found
    }

    fn engine_fault(&self) -> Option<Advice> {
        let engine = &self.engine;
        let said = match engine.as_str() {
            "Distributed" => "the table is Distributed: what it remembers of inserts lies with the tables behind it, \
                              which this does not see, and a repeated batch may be cut otherwise; name a table of one \
                              shard, or read through FINAL only"
                .to_owned(),
            _ if !engine.ends_with("MergeTree") => {
                format!("the table is {engine}, which remembers no inserts: a repeated batch stays there twice")
            }
            _ if !engine.contains("Replacing") => format!(
                "the table is {engine} and not ReplacingMergeTree: what is repeated after the server has forgotten it \
                 stays there twice, also through FINAL; make the table with `biogate schema apply`"
            ),
            _ => return None,
        };
        Some(Advice::Weak(said))
    }
}

/// Whether two settings mean the same, however they are written.
fn same(one: &str, other: &str) -> bool {
    let plain = |text: &str| match text {
        "true" => "1".to_owned(),
        "false" => "0".to_owned(),
        text => text.to_owned(),
    };
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Survey {
        let settings = INSERT_SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), ((*value).to_owned(), false)));
        let mut settings: BTreeMap<_, _> = settings.collect();
        settings.insert("readonly".to_owned(), ("0".to_owned(), false));
        settings.insert("insert_deduplication_token".to_owned(), (String::new(), false));
        Survey {
            version: "26.9.2.1".to_owned(),
            engine: "ReplacingMergeTree".to_owned(),
            engine_full: "ReplacingMergeTree(version) ORDER BY x SETTINGS index_granularity = 8192, \
                          non_replicated_deduplication_window = 10000"
                .to_owned(),
            settings,
            windows: BTreeMap::from([
                ("non_replicated_deduplication_window".to_owned(), 0),
                ("replicated_deduplication_window".to_owned(), 1_000),
                ("replicated_deduplication_window_seconds".to_owned(), 3_600),
            ]),
        }
    }

    fn of(engine: &str) -> Survey {
        Survey { engine: engine.to_owned(), engine_full: format!("{engine} ORDER BY x"), ..sound() }
    }

    fn broken(survey: &Survey, words: &str) {
        let faults = survey.faults();
        assert!(matches!(&faults[..], [Advice::Broken(said)] if said.contains(words)), "{faults:?}");
    }

    fn weak(survey: &Survey, words: &str) {
        let faults = survey.faults();
        assert!(matches!(&faults[..], [Advice::Weak(said)] if said.contains(words)), "{faults:?}");
    }

    #[test]
    fn an_outage_may_last_as_long_as_the_inserts_of_all_hubs_fit_into_the_window() {
        let (interval, second) = (Duration::from_secs(4), Duration::from_secs(1));
        assert_eq!(sound().outage(1, interval), Some(40_000 * second));
        assert_eq!(sound().outage(100, interval), Some(400 * second));
        assert_eq!(of("ReplacingMergeTree").outage(1, interval), Some(Duration::ZERO), "a plain one remembers nothing");
        let replicated = of("ReplicatedReplacingMergeTree");
        assert_eq!(replicated.outage(1, interval), Some(3_600 * second), "at most so long, however few the inserts");
        assert_eq!(replicated.outage(10, interval), Some(400 * second));
        let own = "ReplicatedReplacingMergeTree('/p', 'r', version) ORDER BY x SETTINGS \
                   replicated_deduplication_window = 50, replicated_deduplication_window_seconds = 60";
        let own = Survey { engine_full: own.to_owned(), ..replicated };
        assert_eq!(own.memory(), Some(Memory { inserts: 50, at_most: Some(60 * second) }));
        assert_eq!(of("Distributed").outage(1, interval), None);
        assert_eq!(of("Buffer").outage(1, interval), None);
    }

    #[test]
    fn what_breaks_inserts_or_the_guarantee_is_named() {
        assert_eq!(sound().faults(), []);
        weak(&of("MergeTree"), "not ReplacingMergeTree");
        weak(&of("Distributed"), "Distributed");
        weak(&of("Null"), "remembers no inserts");
        assert_eq!(of("SharedReplacingMergeTree").faults(), []);
        let mut old = sound();
        old.settings.remove("insert_deduplication_token");
        old.settings.remove("input_format_binary_read_json_as_string");
        broken(&old, "too old: it does not know input_format_binary_read_json_as_string, insert_deduplication_token");
        let set = |name: &str, value: &str, fixed: bool| {
            let mut survey = sound();
            survey.settings.insert(name.to_owned(), (value.to_owned(), fixed));
            survey
        };
        broken(&set("readonly", "1", false), "readonly");
        broken(&set("async_insert", "1", true), "fixes async_insert at 1, and each insert says 0");
        assert_eq!(set("async_insert", "1", false).faults(), [], "each insert says otherwise");
        assert_eq!(set("async_insert", "false", true).faults(), []);
        weak(&set("deduplicate_insert", "disable", false), "drops no repeated batch");
    }
}
