//! PURE The landing zone's schema as it is written in `deploy/clickhouse/migrations/`, statement by statement.
//!
//! The files are applied in the order of their numbers, all of them each time: every statement may run again and then
//! changes nothing. A file that was released is not changed any more; what comes later is a file of its own.

use super::{DEFAULT_TABLE, quoted};

/// A file of the folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    /// Its name without the ending.
    pub(super) name: &'static str,
    /// What it says.
    pub(super) text: &'static str,
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        &[$(Migration {
            name: $name,
            text: include_str!(concat!("../../../deploy/clickhouse/migrations/", $name, ".sql")),
        }),*]
    };
}

/// In the order in which they are applied.
pub(super) const MIGRATIONS: &[Migration] = migrations![
    "0001_landing_zone",
    "0002_schema_migrations",
    "0005_erasure",
    "0010_completeness",
    "0020_comments",
    "0021_comments_of_views",
];

impl Migration {
    /// Its statements without their semicolons, for a database whose events lie in `table`.
    pub(super) fn statements(&self, table: &str) -> Vec<String> {
        let statements = split(self.text);
        if table == DEFAULT_TABLE {
            return statements;
        }
        let table = quoted(table);
        statements.iter().map(|statement| statement.replace(DEFAULT_TABLE, &table)).collect()
    }
}

/// The statements of all files in their order.
pub(super) fn statements(table: &str) -> Vec<String> {
    MIGRATIONS.iter().flat_map(|migration| migration.statements(table)).collect()
}

/// The statements of a file: each ends with a semicolon at the end of a line that is no comment. What stands before a
/// statement's first line belongs to the reader of the file and is left out.
fn split(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    for line in text.lines() {
        let code = line.split_once("--").map_or(line, |(code, _)| code).trim_end();
        if statement.is_empty() && code.trim().is_empty() {
            continue;
        }
        if let Some(last) = code.strip_suffix(';') {
            statement.push_str(last);
            statements.push(std::mem::take(&mut statement));
        } else {
            statement.push_str(line);
            statement.push('\n');
        }
    }
    let rest = statement.trim_end();
    if !rest.is_empty() {
        statements.push(rest.to_owned());
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_in_a_comment_ends_no_statement() {
        let text = "-- head;\nCREATE a ( -- one;\n  x\n);\n\n-- two\nSELECT 1; -- done\nSELECT 2";
        assert_eq!(split(text), ["CREATE a ( -- one;\n  x\n)", "SELECT 1", "SELECT 2"]);
    }

    #[test]
    fn every_file_of_the_folder_is_applied_in_the_order_of_its_number() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/clickhouse/migrations")).unwrap();
        let mut files: Vec<_> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        let names: Vec<_> = MIGRATIONS.iter().map(|migration| format!("{}.sql", migration.name)).collect();
        assert_eq!(names, files);
    }

    #[test]
    fn every_statement_may_run_again_and_names_the_table_of_events_as_it_is() {
        for statement in MIGRATIONS.iter().flat_map(|migration| migration.statements("other")) {
            let again = ["IF NOT EXISTS", "IF EXISTS", "OR REPLACE"].iter().any(|word| statement.contains(word));
            assert!(again, "{statement}");
            assert!(!statement.contains(DEFAULT_TABLE), "{statement}");
        }
    }
}
