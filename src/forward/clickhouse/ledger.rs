//! The table `schema_migrations`: which files of the schema were applied, and what they said then.

use serde::Deserialize;
use uuid::Uuid;

use crate::event::NAMESPACE;

use super::Settings;
use super::http::Http;
use super::migrations::{MIGRATIONS, Migration};
use super::schema::{Error, ask, rows};

/// What applying the schema's files found in the table of those applied before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Applied for the first time.
    pub new: Vec<String>,
    /// Said something else when they were applied before. What exists was not altered.
    pub changed: Vec<String>,
    /// Applied before by a program that has more files than this one.
    pub unknown: Vec<String>,
}

/// A file's newest row.
#[derive(Debug, Deserialize)]
pub(super) struct Applied {
    name: String,
    checksum: Uuid,
}

/// What was applied before. To be asked once the table is there.
pub(super) async fn read(http: &mut Http, settings: &Settings) -> Result<Vec<Applied>, Error> {
    let sql = "SELECT name, toString(argMax(checksum, applied_at)) AS checksum FROM schema_migrations GROUP BY name \
               ORDER BY name FORMAT JSONEachRow";
    let text = ask(http, settings, sql, &in_database(settings)).await?;
    rows(http, &text)
}

/// Writes down each file that is new or says something else than before.
pub(super) async fn write(http: &mut Http, settings: &Settings, before: &[Applied]) -> Result<Ledger, Error> {
    let ledger = compare(before);
    let is_told = |migration: &&Migration| ledger.new.iter().chain(&ledger.changed).any(|name| name == migration.name);
    for migration in MIGRATIONS.iter().filter(is_told) {
        let (name, checksum, version) = (migration.name, checksum(migration), env!("CARGO_PKG_VERSION"));
        let sql = format!(
            "INSERT INTO schema_migrations (name, checksum, agent_version) SETTINGS async_insert = 0, \
             distributed_foreground_insert = 1 VALUES ('{name}', '{checksum}', '{version}')"
        );
        ask(http, settings, &sql, &in_database(settings)).await?;
    }
    Ok(ledger)
}

fn compare(before: &[Applied]) -> Ledger {
    let mut ledger = Ledger::default();
    for migration in MIGRATIONS {
        match before.iter().find(|applied| applied.name == migration.name) {
            None => ledger.new.push(migration.name.to_owned()),
            Some(applied) if applied.checksum != checksum(migration) => ledger.changed.push(migration.name.to_owned()),
            Some(_) => {}
        }
    }
    let is_known = |applied: &&Applied| MIGRATIONS.iter().any(|migration| migration.name == applied.name);
    ledger.unknown.extend(before.iter().filter(|applied| !is_known(applied)).map(|applied| applied.name.clone()));
    ledger
}

/// UUIDv5 of a file's text.
fn checksum(migration: &Migration) -> Uuid {
    Uuid::new_v5(&NAMESPACE, migration.text.as_bytes())
}

fn in_database(settings: &Settings) -> [(&str, &str); 2] {
    [("database", settings.database.as_str()), ("wait_end_of_query", "1")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_new_changed_or_unknown() {
        let applied = |name: &str, checksum| Applied { name: name.to_owned(), checksum };
        let same = MIGRATIONS[0];
        let before = [
            applied(same.name, checksum(&same)),
            applied(MIGRATIONS[1].name, Uuid::nil()),
            applied("9999_later", Uuid::nil()),
        ];
        let ledger = compare(&before);
        assert_eq!(ledger.new.len(), MIGRATIONS.len() - 2);
        assert_eq!(
            (ledger.changed, ledger.unknown),
            (vec![MIGRATIONS[1].name.to_owned()], vec!["9999_later".to_owned()])
        );
    }
}
