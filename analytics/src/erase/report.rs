//! What an order found, took away and left.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use super::elsewhere::Place;
use super::found::Found;
use super::order::Kind;

/// What an order did. The person is not in it; who gave the order knows whom it was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was done.
    pub kind: Kind,
    /// The order's number in `erasures`; zeros of one that was only looked at.
    pub erasure: Uuid,
    /// Nothing is left in the database.
    pub is_done: bool,
    /// How often rows were taken: more than once where some came meanwhile.
    pub rounds: u16,
    /// Table by table.
    pub tables: Vec<TableReport>,
    /// Other texts that still name the person.
    pub mentions: Vec<Mention>,
    /// Where else the person may be, and what to do there.
    pub elsewhere: Vec<Place>,
    #[serde(skip)]
    found: Found,
}

/// Rows of the person in a table, deleted and outdated ones too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// How many there were.
    pub before: u64,
    /// How many came while it was done.
    pub later: u64,
    /// How many were taken away or given to the other pseudonym.
    pub taken: u64,
    /// How many are there now, as counted afterwards.
    pub left: u64,
}

/// A text that names the person in a row that is not the person's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mention {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// In how many rows.
    pub rows: u64,
    /// What can be done about it.
    pub how: String,
}

impl Report {
    pub(super) fn new(kind: Kind, erasure: Uuid, found: Found) -> Report {
        let (tables, mentions, elsewhere) = (Vec::new(), Vec::new(), Vec::new());
        Report { kind, erasure, is_done: false, rounds: 0, tables, mentions, elsewhere, found }
    }

    /// Fills in what is there now.
    pub(super) fn settle(&mut self, left: &BTreeMap<String, u64>) {
        let of = |counts: &BTreeMap<String, u64>, name: &String| counts.get(name).copied().unwrap_or(0);
        self.tables = left
            .iter()
            .map(|(table, left)| {
                let (before, later) = (of(&self.found.tables, table), of(&self.found.later, table));
                let taken = (before + later).saturating_sub(*left);
                TableReport { table: table.clone(), before, later, taken, left: *left }
            })
            .collect();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plan = self.erasure.is_nil();
        if is_plan {
            writeln!(f, "{}: nothing was changed", self.kind.name())?;
        } else {
            let done = if self.is_done { "done, nothing is left in the database" } else { "NOT done" };
            writeln!(f, "{} {}: {done}; rounds: {}", self.kind.name(), self.erasure, self.rounds)?;
        }
        writeln!(f, "{:<28} {:>12} {:>12} {:>12} {:>12}", "table", "before", "came later", "taken", "left")?;
        for row in &self.tables {
            let TableReport { table, before, later, taken, left } = row;
            writeln!(f, "{table:<28} {before:>12} {later:>12} {taken:>12} {left:>12}")?;
        }
        for Mention { table, column, rows, how } in &self.mentions {
            writeln!(f, "{table}.{column}: {rows} rows of others name the person ({how})")?;
        }
        for Place { place, holds, command } in &self.elsewhere {
            writeln!(f, "\n{place}: {holds}")?;
            for line in command.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}
