//! The table `biometric_events` and those of the reports: their statements, making them, and finding out whether the
//! events' table fits contract v1.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;

use crate::forward::refusal::{Refusal, Trouble};

use super::cluster;
use super::document::{self, Copied};
use super::http::{Fault, Http};
use super::ledger::{self, Ledger};
use super::migrations::{self, MIGRATIONS, Migration};
use super::verdict::{code_in, shorten};
use super::{DEFAULT_TABLE, Settings, quoted};

/// Why the table cannot be used, or could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not reached, or no answer.
    #[error("{0}")]
    Unreachable(String),
    /// Wrong user, password, certificate or rights.
    #[error("{0}")]
    Access(String),
    /// The server refused a statement.
    #[error("{server} refuses the statement: {text}")]
    Statement {
        /// Its URL.
        server: String,
        /// Its words.
        text: String,
    },
    /// A table of the platform document cannot step aside.
    #[error(
        "table {table} on {server} is the platform document's and cannot step aside: {aside} is there already; \
         rename or drop one of them"
    )]
    Aside {
        /// Its URL.
        server: String,
        /// The document's table.
        table: String,
        /// The name that is taken.
        aside: String,
    },
    /// A table that a cluster's schema has to replace.
    #[error(
        "table {table} on {server} is of one server alone ({engine}), not of the cluster; rename it, apply again, and \
         copy its rows with INSERT INTO .. SELECT"
    )]
    NotDistributed {
        /// Its URL.
        server: String,
        /// Database and table.
        table: String,
        /// Its engine.
        engine: String,
    },
    /// No such table.
    #[error("table {table} does not exist on {server}; `biogate schema apply` makes it")]
    Missing {
        /// Its URL.
        server: String,
        /// Database and table.
        table: String,
    },
    /// The table is there, and events cannot be written to it.
    #[error("table {table} on {server} does not fit: {}", Misfit::list(.misfits))]
    Misfits {
        /// Its URL.
        server: String,
        /// Database and table.
        table: String,
        /// Column by column.
        misfits: Vec<Misfit>,
    },
}

impl Error {
    /// As a try that fails for it: looking at the table leaves no row there.
    pub(crate) fn refusal(&self) -> Refusal {
        let trouble = match self {
            Error::Unreachable(_) => Trouble::Unreachable,
            Error::Access(_) => Trouble::Access,
            Error::Statement { .. } => Trouble::Peer,
            Error::Missing { .. } | Error::Misfits { .. } | Error::Aside { .. } | Error::NotDistributed { .. } => {
                Trouble::Schema
            }
        };
        Refusal::new(trouble, self.to_string()).not_arrived()
    }
}

/// A column that is missing or of another kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The column.
    pub column: &'static str,
    /// Its type on the server; `None` where it is missing.
    pub found: Option<String>,
    /// What contract v1 says.
    pub expected: &'static str,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Misfit { column, found, expected } = self;
        match found {
            Some(found) => write!(f, "column {column} is {found}, expected {expected}"),
            None => write!(f, "column {column} is missing, expected {expected}"),
        }
    }
}

impl Misfit {
    fn list(misfits: &[Misfit]) -> String {
        misfits.iter().map(Misfit::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// What was found out about a table that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitting {
    /// The server's version.
    pub server_version: String,
    /// The table's engine, as `ReplacingMergeTree`.
    pub engine: String,
    /// The engine with its keys and settings, as the server writes it.
    pub engine_full: String,
    /// How many inserts the server remembers by their tokens. `None`: it says nothing, so none on a plain MergeTree.
    pub deduplication_window: Option<u64>,
}

/// The statements that make the landing zone in the database in use, each runnable as it stands, in their order.
pub fn statements(table: &str) -> Vec<String> {
    migrations::statements(table)
}

/// The same as one text, with the names of the files that they come from.
pub fn script() -> String {
    let file = |migration: &Migration| {
        let statements: String =
            migration.statements(DEFAULT_TABLE).iter().map(|statement| format!("{statement};\n\n")).collect();
        format!("-- {}\n\n{statements}", migration.name)
    };
    MIGRATIONS.iter().map(file).collect()
}

/// The same for the cluster of this name, whose hosts keep the tables in `database`. Not run here: there is no Keeper.
pub fn cluster_script(cluster: &str, database: &str) -> String {
    let head = cluster_database(cluster, database);
    let statements = cluster::statements(cluster, database);
    std::iter::once(&head).chain(&statements).map(|statement| format!("{statement};\n\n")).collect()
}

fn cluster_database(cluster: &str, database: &str) -> String {
    format!("CREATE DATABASE IF NOT EXISTS {} ON CLUSTER '{cluster}'", quoted(database))
}

/// What applying the schema did and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The table of events.
    pub fitting: Fitting,
    /// What was copied from the platform document's tables.
    pub copied: Vec<Copied>,
    /// The files of the schema.
    pub ledger: Ledger,
}

/// Makes database, tables and views where they are missing, then verifies the events' table. A table of ours that exists is
/// never changed; those of the platform document step aside, and their rows are copied (`document`).
pub async fn apply(settings: &Settings) -> Result<Fitting, Error> {
    Ok(apply_and_tell(settings, None).await?.fitting)
}

/// The same, for the cluster of this name where one is given; says what was done.
pub async fn apply_and_tell(settings: &Settings, cluster: Option<&str>) -> Result<Applied, Error> {
    let mut http = Http::new(settings.clone()).map_err(Error::Unreachable)?;
    let (make, statements) = match cluster {
        Some(name) => (cluster_database(name, &settings.database), cluster::statements(name, &settings.database)),
        None => (format!("CREATE DATABASE IF NOT EXISTS {}", quoted(&settings.database)), statements(&settings.table)),
    };
    ask(&mut http, settings, &make, &[]).await?;
    let database = [("database", settings.database.as_str())];
    // Those of the document are of one server: on a cluster nobody guesses which host's rows are meant.
    let may_copy = settings.table == DEFAULT_TABLE && cluster.is_none();
    if may_copy {
        document::step_aside(&mut http, settings).await?;
    }
    if cluster.is_some() {
        distributed_or_missing(&mut http, settings).await?;
    }
    for statement in &statements {
        ask(&mut http, settings, statement, &database).await?;
    }
    let copied = if may_copy { document::copy(&mut http, settings).await? } else { Vec::new() };
    let before = ledger::read(&mut http, settings).await?;
    let ledger = ledger::write(&mut http, settings, &before).await?;
    Ok(Applied { fitting: verify_with(&mut http, settings).await?, copied, ledger })
}

/// Refuses a table of events that a single server's schema made.
async fn distributed_or_missing(http: &mut Http, settings: &Settings) -> Result<(), Error> {
    let params = [("param_d", settings.database.as_str()), ("param_t", settings.table.as_str())];
    let sql = "SELECT engine FROM system.tables WHERE database = {d:String} AND name = {t:String} FORMAT TSVRaw";
    let engine = ask(http, settings, sql, &params).await?.trim().to_owned();
    if engine.is_empty() || engine == "Distributed" {
        return Ok(());
    }
    let table = format!("{}.{}", settings.database, settings.table);
    Err(Error::NotDistributed { server: http.endpoint().to_string(), table, engine })
}

/// Finds out whether events can be written to the table.
pub async fn verify(settings: &Settings) -> Result<Fitting, Error> {
    let mut http = Http::new(settings.clone()).map_err(Error::Unreachable)?;
    verify_with(&mut http, settings).await
}

#[derive(Deserialize)]
struct Column {
    name: String,
    r#type: String,
}

#[derive(Deserialize)]
struct Table {
    engine: String,
    engine_full: String,
    version: String,
}

pub(super) async fn verify_with(http: &mut Http, settings: &Settings) -> Result<Fitting, Error> {
    let params =
        [("param_d", settings.database.as_str()), ("param_t", settings.table.as_str()), ("wait_end_of_query", "1")];
    let columns = "SELECT name, type FROM system.columns WHERE database = {d:String} AND table = {t:String} \
                   FORMAT JSONEachRow";
    let text = ask(http, settings, columns, &params).await?;
    let columns: Vec<Column> = rows(http, &text)?;
    let (server, table) = (http.endpoint().to_string(), format!("{}.{}", settings.database, settings.table));
    if columns.is_empty() {
        return Err(Error::Missing { server, table });
    }
    let misfits =
        misfits(|name| columns.iter().find(|column| column.name == name).map(|column| column.r#type.as_str()));
    if !misfits.is_empty() {
        return Err(Error::Misfits { server, table, misfits });
    }
    let tables = "SELECT engine, engine_full, version() AS version FROM system.tables \
                  WHERE database = {d:String} AND name = {t:String} FORMAT JSONEachRow";
    let text = ask(http, settings, tables, &params).await?;
    let mut found: Vec<Table> = rows(http, &text)?;
    let Some(Table { engine, engine_full, version }) = found.pop() else {
        return Err(Error::Missing { server, table });
    };
    let deduplication_window = window(&engine_full);
    Ok(Fitting { server_version: version, engine, engine_full, deduplication_window })
}

/// `..deduplication_window = 10000` of a table's settings.
fn window(engine_full: &str) -> Option<u64> {
    let (_, after) = engine_full.split_once("deduplication_window = ")?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

pub(super) fn rows<T: for<'a> Deserialize<'a>>(http: &Http, text: &str) -> Result<Vec<T>, Error> {
    let parse = |line| serde_json::from_str(line);
    text.lines().map(parse).collect::<Result<_, _>>().map_err(|_| {
        Error::Unreachable(format!("{} answers, but is no ClickHouse: {}", http.endpoint(), shorten(text)))
    })
}

pub(super) async fn ask(
    http: &mut Http,
    settings: &Settings,
    sql: &str,
    params: &[(&str, &str)],
) -> Result<String, Error> {
    let answer = http.post(params, Bytes::from(sql.to_owned()), false).await.map_err(|fault| match fault {
        Fault::NotSent { access: true, reason } => Error::Access(reason),
        Fault::NotSent { access: false, reason } | Fault::Unknown { reason, .. } => Error::Unreachable(reason),
    })?;
    let server = http.endpoint().to_string();
    match (answer.status.is_success(), answer.exception.or_else(|| code_in(&answer.body))) {
        (true, None) => Ok(answer.body),
        (_, Some(192..=195 | 497 | 516)) => {
            let user = settings.user.as_deref().unwrap_or("default");
            let text = shorten(&answer.body);
            Err(Error::Access(format!("{server} refuses user {user}; check user, password_file and grants: {text}")))
        }
        (_, Some(_)) => Err(Error::Statement { server, text: shorten(&answer.body) }),
        (false, None) => {
            let (status, text) = (answer.status, shorten(&answer.body));
            Err(Error::Unreachable(format!("{server} answers {status}: {text}")))
        }
    }
}

/// The columns of contract v1 and what their types must be able to hold.
const COLUMNS: &[(&str, &str)] = &[
    ("event_id", "UUID"),
    ("user_id", "UUID"),
    (
        "event_type",
        "Enum8('heart_rate' = 1, 'blood_pressure' = 2, 'temperature' = 3, 'steps' = 4, 'sleep' = 5, 'workout' = 6, \
         'spo2' = 7, 'weight' = 8, 'respiration_rate' = 9, 'glucose' = 10)",
    ),
    ("component", "String"),
    ("value", "Float64"),
    ("unit", "String"),
    ("timestamp", "DateTime64(3)"),
    ("period_start", "Nullable(DateTime64(3))"),
    ("tz_offset_min", "Int16"),
    ("device_id", "String"),
    ("gateway_id", "String"),
    ("location", "Nullable(String)"),
    ("clock", "Enum8('synced' = 1, 'estimated' = 2, 'device' = 3)"),
    ("metadata", "JSON"),
    ("version", "UInt32"),
    ("deleted", "UInt8"),
];

/// Every column that does not fit. A type fits when its RowBinary form is ours: with or without LowCardinality, with
/// any time zone, any JSON parameters or a String in place of JSON, and enums that hold ours and maybe more.
fn misfits<'a>(type_of: impl Fn(&str) -> Option<&'a str>) -> Vec<Misfit> {
    let check = |&(column, expected): &(&'static str, &'static str)| {
        let found = type_of(column);
        let fits = found.is_some_and(|found| fits(found, expected));
        (!fits).then(|| Misfit { column, found: found.map(str::to_owned), expected })
    };
    COLUMNS.iter().filter_map(check).collect()
}

fn fits(found: &str, expected: &str) -> bool {
    let found = inside(found, "LowCardinality").unwrap_or(found);
    if let Some(expected) = inside(expected, "Nullable") {
        return inside(found, "Nullable").is_some_and(|found| fits(found, expected));
    }
    match expected {
        "JSON" => found == "JSON" || found == "String" || inside(found, "JSON").is_some(),
        "DateTime64(3)" => found == expected || found.starts_with("DateTime64(3, "),
        _ if expected.starts_with("Enum8") => {
            let values = |text| inside(text, "Enum8").map(|list| list.split(", '").map(enum_value).collect::<Vec<_>>());
            match (values(found), values(expected)) {
                (Some(found), Some(ours)) => ours.iter().all(|value| value.is_some() && found.contains(value)),
                (_, _) => false,
            }
        }
        _ => found == expected,
    }
}

/// `Name(inner)` -> `inner`.
fn inside<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

/// `'name' = 1`, with or without the first quote.
fn enum_value(text: &str) -> Option<(String, i32)> {
    let (name, number) = text.rsplit_once('=')?;
    Some((name.trim().trim_matches('\'').to_owned(), number.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_table_has_the_columns_of_the_contract() {
        let statements = statements("other");
        let head = "CREATE TABLE IF NOT EXISTS `other` (";
        let table = statements.iter().find(|statement| statement.starts_with(head)).unwrap();
        for &(column, _) in COLUMNS {
            assert!(table.contains(&format!("\n    {column} ")), "{column}");
        }
    }

    #[test]
    fn every_kind_of_report_has_a_table() {
        let statements = statements("other");
        for kind in crate::report::Kind::ALL {
            let head = format!("CREATE TABLE IF NOT EXISTS {} (", kind.table());
            assert!(statements.iter().any(|statement| statement.starts_with(&head)), "{head}");
        }
        let view = statements.iter().find(|statement| statement.contains("VIEW IF NOT EXISTS reconciliation_gaps"));
        assert!(view.unwrap().contains("FROM `other` FINAL"));
    }

    #[test]
    fn types_with_the_same_bytes_fit_and_others_are_named() {
        for (found, expected, verdict) in [
            ("LowCardinality(String)", "String", true),
            ("LowCardinality(Nullable(String))", "Nullable(String)", true),
            ("String", "Nullable(String)", false),
            ("Nullable(String)", "String", false),
            ("DateTime64(3, 'Europe/Berlin')", "DateTime64(3)", true),
            ("DateTime", "DateTime64(3)", false),
            ("DateTime64(6, 'UTC')", "DateTime64(3)", false),
            ("JSON(max_dynamic_paths=64)", "JSON", true),
            ("Float32", "Float64", false),
            ("Enum8('device' = 3, 'estimated' = 2, 'synced' = 1, 'more' = 4)", COLUMNS[12].1, true),
            ("Enum8('synced' = 1, 'estimated' = 2)", COLUMNS[12].1, false),
            ("Enum8('synced' = 1, 'estimated' = 3, 'device' = 2)", COLUMNS[12].1, false),
            ("Enum16('synced' = 1, 'estimated' = 2, 'device' = 3)", COLUMNS[12].1, false),
        ] {
            assert_eq!(fits(found, expected), verdict, "{found} for {expected}");
        }
        let misfits = misfits(|name| (name == "value").then_some("Float32"));
        assert_eq!(misfits.len(), COLUMNS.len());
        assert!(Misfit::list(&misfits).contains("column value is Float32, expected Float64"));
        assert_eq!(window("... SETTINGS non_replicated_deduplication_window = 10000, x = 1"), Some(10_000));
    }
}
