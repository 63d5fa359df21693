//! What of the wanted schema a database lacks, or has otherwise. Only asks; changes nothing.
//!
//! A table or column that is there beside the wanted ones is no difference.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::declared::{self, Column, Declared, Kind, squeezed};
use super::http::Http;
use super::schema::{Error, ask, rows};
use super::{Settings, cluster, migrations};

/// Something that is missing or different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The table or view.
    pub table: String,
    /// What of it, as `column value`, `engine`, `setting merge_with_ttl_timeout`; empty where all of it is missing.
    pub part: String,
    /// What the database has; `None` where it is missing.
    pub found: Option<String>,
    /// What the schema says.
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { table, part, found, expected } = self;
        match (found, part.is_empty()) {
            (None, true) => write!(f, "{table} is missing, expected {expected}"),
            (None, false) => write!(f, "{table}: {part} is missing, expected {expected}"),
            (Some(found), _) => write!(f, "{table}: {part} is {found}, expected {expected}"),
        }
    }
}

/// A table as the server describes it.
#[derive(Debug, Clone, Deserialize)]
struct Found {
    name: String,
    engine: String,
    engine_full: String,
    partition_key: String,
    sorting_key: String,
    as_select: String,
}

#[derive(Debug, Deserialize)]
struct FoundColumn {
    table: String,
    name: String,
    r#type: String,
    default_kind: String,
    default_expression: String,
    comment: String,
}

/// Compares the database with the schema, in its form for the cluster of this name where one is given.
pub async fn find(settings: &Settings, cluster: Option<&str>) -> Result<Vec<Difference>, Error> {
    let mut http = Http::new(settings.clone()).map_err(Error::Unreachable)?;
    let statements = match cluster {
        Some(name) => cluster::statements(name, &settings.database),
        None => migrations::statements(&settings.table),
    };
    let wanted = declared::all(&statements);
    let params = [("param_d", settings.database.as_str()), ("wait_end_of_query", "1")];
    let tables = "SELECT name, engine, engine_full, partition_key, sorting_key, as_select FROM system.tables \
                  WHERE database = {d:String} FORMAT JSONEachRow";
    let text = ask(&mut http, settings, tables, &params).await?;
    let tables: Vec<Found> = rows(&http, &text)?;
    let columns = "SELECT table, name, type, default_kind, default_expression, comment FROM system.columns \
                   WHERE database = {d:String} FORMAT JSONEachRow";
    let text = ask(&mut http, settings, columns, &params).await?;
    let columns: Vec<FoundColumn> = rows(&http, &text)?;
    let mut differences = Vec::new();
    for declared in &wanted {
        let name = declared.name.as_str();
        let Some(found) = tables.iter().find(|table| table.name == name) else {
            differences.push(missing(declared));
            continue;
        };
        if declared.kind != Kind::Table && found.engine == declared.engine_name() {
            let select = formatted(&mut http, settings, &declared.select).await?;
            if let Some(difference) = of_select(name, &settings.database, &found.as_select, &select) {
                // Its columns are those of another question.
                differences.push(difference);
                continue;
            }
        }
        let columns: BTreeMap<&str, &FoundColumn> =
            columns.iter().filter(|column| column.table == name).map(|column| (column.name.as_str(), column)).collect();
        differences.extend(of_table(declared, found, &columns));
    }
    Ok(differences)
}

fn missing(declared: &Declared) -> Difference {
    let expected = declared.engine_name().to_owned();
    Difference { table: declared.name.clone(), part: String::new(), found: None, expected }
}

fn of_table(declared: &Declared, found: &Found, columns: &BTreeMap<&str, &FoundColumn>) -> Vec<Difference> {
    let difference = |part: &str, found: Option<&str>, expected: &str| Difference {
        table: declared.name.clone(),
        part: part.to_owned(),
        found: found.map(str::to_owned),
        expected: expected.to_owned(),
    };
    if found.engine != declared.engine_name() {
        return vec![difference("engine", Some(&found.engine), declared.engine_name())];
    }
    let mut all = Vec::new();
    for Column { name, kind, rest, comment } in &declared.columns {
        let Some(column) = columns.get(name.as_str()) else {
            all.push(difference(&format!("column {name}"), None, kind));
            continue;
        };
        if column.comment != *comment {
            all.push(difference(&format!("comment of column {name}"), Some(&column.comment), comment));
        }
        let is = format!("{} {}", column.default_kind, column.default_expression);
        let wanted = without_codec(rest);
        if kind.is_empty() {
            // The types of a view's columns follow from its select.
        } else if squeezed(&column.r#type) != squeezed(kind) {
            all.push(difference(&format!("column {name}"), Some(&column.r#type), kind));
        } else if squeezed(&is) != squeezed(wanted) {
            all.push(difference(&format!("default of column {name}"), Some(is.trim()), wanted));
        }
    }
    if declared.kind != Kind::Table {
        return all;
    }
    let full = squeezed(&found.engine_full);
    let call = declared.engine_call();
    // Where the table lies in Keeper is the server's own affair.
    if !call.starts_with("Replicated") && !is_called(&full, &squeezed(call)) {
        all.push(difference("engine", Some(&found.engine_full), call));
    }
    for (clause, part, is) in [
        (" PARTITION BY ", "partition key", found.partition_key.as_str()),
        (" ORDER BY ", "sort key", found.sorting_key.as_str()),
        (" TTL ", "TTL", Declared::clause_in(&found.engine_full, " TTL ").unwrap_or_default()),
    ] {
        let wanted = declared.clause(clause).unwrap_or_default();
        if bare(is) != bare(wanted) {
            all.push(difference(part, Some(is), wanted));
        }
    }
    let is = Declared::settings_in(&found.engine_full);
    for setting in declared.settings() {
        if !is.contains(&setting) {
            let (name, value) = setting.split_once('=').unwrap_or((&setting, ""));
            let found = is.iter().find_map(|is| is.strip_prefix(name)?.strip_prefix('='));
            all.push(difference(&format!("setting {name}"), found, value));
        }
    }
    all
}

/// `ReplacingMergeTree(version)` of `ReplacingMergeTree(version)PARTITIONBY...`, and not of one with more parameters.
fn is_called(full: &str, call: &str) -> bool {
    full.strip_prefix(call).is_some_and(|rest| !rest.starts_with('('))
}

/// `DEFAULT x` of `DEFAULT x CODEC(y)`: how a column is packed changes no row.
fn without_codec(rest: &str) -> &str {
    rest.find("CODEC(").map_or(rest, |at| rest[..at].trim_end())
}

/// A key or TTL in the spelling that both sides come down to.
fn bare(expression: &str) -> String {
    let mut text = expression.trim().trim_end_matches(" DELETE").to_owned();
    for (unit, function) in [("YEAR", "Year"), ("MONTH", "Month"), ("DAY", "Day"), ("HOUR", "Hour")] {
        while let Some(at) = text.find("INTERVAL ") {
            let rest = &text[at + "INTERVAL ".len()..];
            let Some((number, after)) = rest.split_once(' ').filter(|(_, after)| after.starts_with(unit)) else {
                break;
            };
            text = format!("{}toInterval{function}({number}){}", &text[..at], &after[unit.len()..]);
        }
    }
    let text = squeezed(&text);
    match text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => inner.to_owned(),
        None => text,
    }
}

/// A select in the server's own spelling.
async fn formatted(http: &mut Http, settings: &Settings, select: &str) -> Result<String, Error> {
    let quoted = select.replace('\\', "\\\\").replace('\'', "\\'");
    let sql = format!("SELECT formatQuerySingleLine('{quoted}') FORMAT TSVRaw");
    ask(http, settings, &sql, &[("wait_end_of_query", "1")]).await
}

fn of_select(view: &str, database: &str, found: &str, wanted: &str) -> Option<Difference> {
    let own = found.replace(&format!("`{database}`."), "").replace(&format!("{database}."), "");
    let (is, wanted_text) = (squeezed(&own), squeezed(wanted));
    if is == wanted_text {
        return None;
    }
    // Both whole would be pages: from where they part.
    let at = is.chars().zip(wanted_text.chars()).take_while(|(a, b)| a == b).count();
    let from = |text: &str| {
        let part: String = text.chars().skip(at.saturating_sub(10)).take(50).collect();
        format!("\"..{part}..\"")
    };
    let (part, found, expected) = ("select".to_owned(), Some(from(&is)), from(&wanted_text));
    Some(Difference { table: view.to_owned(), part, found, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_the_same_are_no_difference() {
        assert_eq!(bare("toDateTime(t) + INTERVAL 1 YEAR DELETE"), bare("toDateTime(t) + toIntervalYear(1)"));
        assert_eq!(bare("(a, b)"), bare("a, b"));
        assert_ne!(bare("t + INTERVAL 1 YEAR"), bare("t + toIntervalYear(2)"));
        assert_eq!(without_codec("DEFAULT 1 CODEC(ZSTD(1))"), "DEFAULT 1");
        assert!(
            is_called("MergeTreeORDERBYa", "MergeTree") && !is_called("ReplacingMergeTree(v,d)", "ReplacingMergeTree")
        );
        let same = of_select("v", "d", "SELECT `a` FROM d.t", "SELECT a FROM t");
        assert_eq!(same, None);
        let other = of_select("v", "d", "SELECT a FROM d.t", "SELECT b FROM t").unwrap();
        assert!(other.to_string().starts_with("v: select is \"..SELECTa"), "{other}");
    }
}
