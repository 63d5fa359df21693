//! PURE The data dictionary: docs/data.md, made of the schema's comments and the types of event.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::observation::EventType;

use super::DEFAULT_TABLE;
use super::declared::{Declared, Kind, items, on_one_line};
use super::migrations::{self, MIGRATIONS};

/// A type with its component, its LOINC code where there is one for a number, what the code is called, and an example.
const TYPES: &[(EventType, &str, Option<&str>, &str, &str)] = &[
    (EventType::HeartRate, "", Some("8867-4"), "Heart rate", "72"),
    (EventType::HeartRate, "pulse", Some("8867-4"), "Heart rate, from an oximeter or a cuff", "71"),
    (EventType::BloodPressure, "systolic", Some("8480-6"), "Systolic blood pressure", "121"),
    (EventType::BloodPressure, "diastolic", Some("8462-4"), "Diastolic blood pressure", "79"),
    (EventType::BloodPressure, "mean", Some("8478-0"), "Mean blood pressure", "93"),
    (EventType::Temperature, "body", Some("8310-5"), "Body temperature", "36.8"),
    (
        EventType::Temperature,
        "skin",
        None,
        "Temperature of the skin; LOINC's code for it is a finding in words",
        "33.4",
    ),
    (EventType::Temperature, "ambient", Some("60832-3"), "Room temperature", "21.5"),
    (EventType::Steps, "", Some("55423-8"), "Number of steps, in the period that ends at timestamp", "38"),
    (EventType::Sleep, "", Some("93832-4"), "Sleep duration, of the period", "27000"),
    (EventType::Workout, "", Some("55411-3"), "Exercise duration, of the period", "1800"),
    (EventType::Spo2, "", Some("59408-5"), "Oxygen saturation by pulse oximetry", "97"),
    (EventType::Weight, "", Some("29463-7"), "Body weight", "71.4"),
    (EventType::RespirationRate, "", Some("9279-1"), "Respiratory rate", "14"),
    (EventType::Glucose, "", Some("2339-0"), "Glucose, mass per volume of blood", "99"),
];

/// Columns of views that no table has under that name, and what they are.
const OF_VIEWS: &[(&str, &str)] = &[
    ("local_time", "timestamp as wall time of the person, typed as UTC"),
    ("rr_intervals", "seconds between heartbeats, out of metadata; empty where there are none"),
    ("count", "how many events"),
    ("sum_value", "their sum"),
    ("min_value", "the smallest value"),
    ("max_value", "the greatest value"),
    ("avg_value", "the mean value"),
    ("session_start", "time of the first view of the session"),
    ("session_end", "time of the last one"),
    ("page_views", "how many views"),
    ("unique_pages", "how many different pages"),
    ("total_duration", "seconds of all views together"),
    ("silent_seconds", "seconds since the last heartbeat"),
    ("clock_behind_seconds", "by how much the hub's clock is behind the server's"),
    ("sent", "events that the hub says it has delivered"),
    ("stored", "of these, the rows that are here"),
    ("lacking", "sent less stored; below zero: more than were sent"),
    ("lacking_id", "with exactly one row lacking, its id"),
    ("lost", "events that will never come"),
    ("refused", "readings in the hub's quarantine"),
    ("is_judged", "0 while rows may still be on their way"),
    ("why", "in words"),
    ("complete_up_to", "all that the hub heard up to here is in the table; NULL: not known"),
    ("last_heartbeat", "when the last heartbeat came"),
    ("rows_lacking", "rows that are missing in all hours"),
    ("heard", "up to when the hub has delivered what it heard"),
    ("measured_share", "measured / 3600"),
    ("reason", "in words, what most seconds without a value were"),
];

const HEAD: &str = "# The data dictionary\n\n\
For analysts: every table and view of the landing zone, column by column. Made by `biogate schema print --dictionary`;\n\
change the comments in `deploy/clickhouse/migrations/` and write it anew.\n\n\
Ask the views `events`, `hourly_metrics`, `session_metrics`, `hub_hours`, `hub_complete` and `device_hours`. All times are UTC.\n\n\
## Types of event\n\n\
`unit` is a UCUM code and the same for every event of a type. LOINC codes are not stored; they are what the type maps to.\n\n\
| event_type | component | unit (UCUM) | LOINC | meaning | example |\n| --- | --- | --- | --- | --- | --- |\n";

/// The text of docs/data.md.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for (kind, component, loinc, meaning, example) in TYPES {
        let component = if component.is_empty() { "" } else { &format!("`{component}`") };
        let (name, unit, loinc) = (kind.name(), kind.unit(), loinc.unwrap_or("-"));
        line(&mut text, &[&format!("`{name}`"), component, &format!("`{unit}`"), loinc, meaning, example]);
    }
    let comments = comments();
    let made: Vec<Declared> =
        migrations::statements(DEFAULT_TABLE).iter().filter_map(|statement| Declared::read(statement)).collect();
    let about = about();
    text.push_str("\n## Views\n");
    for view in made.iter().filter(|declared| declared.kind == Kind::View) {
        heading(&mut text, &view.name, &about);
        text.push_str("| column | meaning |\n| --- | --- |\n");
        for column in columns_of(view, &made) {
            line(&mut text, &[&format!("`{column}`"), &meaning(&column, view, &comments)]);
        }
    }
    text.push_str("\n## Tables\n");
    for table in made.iter().filter(|declared| declared.kind == Kind::Table) {
        heading(&mut text, &table.name, &about);
        text.push_str("| column | type | meaning | example |\n| --- | --- | --- | --- |\n");
        for column in &table.columns {
            let comment = comments.get(&(table.name.clone(), column.name.clone())).map_or("", String::as_str);
            let (meaning, example) = comment.split_once(" Example: ").unwrap_or((comment, ""));
            line(
                &mut text,
                &[&format!("`{}`", column.name), &format!("`{}`", column.kind), meaning, &format!("`{example}`")],
            );
        }
    }
    text
}

fn heading(text: &mut String, name: &str, about: &BTreeMap<String, String>) {
    let about = about.get(name).map_or("", String::as_str);
    // Writing into a String cannot fail.
    write!(text, "\n### {name}\n\n{about}\n\n").ok();
}

fn line(text: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(text, "| {} |", cells.join(" | ")).ok();
}

/// The columns' comments by table and column.
fn comments() -> BTreeMap<(String, String), String> {
    let mut comments = BTreeMap::new();
    for statement in migrations::statements(DEFAULT_TABLE) {
        let text = on_one_line(&statement);
        let Some((table, rest)) = text.strip_prefix("ALTER TABLE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        for part in rest.split("COMMENT COLUMN IF EXISTS ").skip(1) {
            let Some((column, comment)) = part.split_once(' ') else { continue };
            let comment = comment.trim_end_matches([',', ' ']).trim_matches('\'').replace("\\'", "'");
            comments.insert((table.to_owned(), column.to_owned()), comment);
        }
    }
    comments
}

/// What the comment before each statement says of the table or view.
fn about() -> BTreeMap<String, String> {
    let mut about = BTreeMap::new();
    for migration in MIGRATIONS {
        let mut comment: Vec<&str> = Vec::new();
        for line in migration.text.lines() {
            match line.strip_prefix("--") {
                Some(words) => comment.push(words.trim()),
                None if line.starts_with("CREATE ") => {
                    let name = line.split("IF NOT EXISTS ").nth(1).and_then(|rest| rest.split([' ', '(']).next());
                    about.insert(name.unwrap_or_default().to_owned(), comment.join("\n").replace(".  ", ". "));
                    comment.clear();
                }
                // An empty line: what was said is about the file.
                None => comment.clear(),
            }
        }
    }
    let events = "One row per event and version: what gateways write. A plain count holds repeats and corrected rows; ask the view\n\
                  `events`, or FINAL.";
    about.insert(DEFAULT_TABLE.to_owned(), events.to_owned());
    about
}

/// The names of a view's columns, in their order.
pub(super) fn columns_of(view: &Declared, made: &[Declared]) -> Vec<String> {
    let select = view.select.strip_prefix("SELECT ").unwrap_or(&view.select);
    let list = top_level(select, " FROM ").map_or(select, |at| &select[..at]);
    let mut columns = Vec::new();
    for item in items(list) {
        if item == "*" {
            let of = select.split(" FROM ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            let table = made.iter().find(|declared| declared.name == of);
            let stored =
                table.into_iter().flat_map(|table| &table.columns).filter(|c| !c.rest.starts_with("MATERIALIZED"));
            columns.extend(stored.map(|column| column.name.clone()));
            continue;
        }
        let named = item.rsplit_once(" AS ").map_or(item, |(_, name)| name);
        columns.push(named.rsplit('.').next().unwrap_or(named).to_owned());
    }
    columns
}

/// Where these words stand in no parentheses.
fn top_level(text: &str, words: &str) -> Option<usize> {
    text.match_indices(words).map(|(at, _)| at).find(|at| {
        let before = &text[..*at];
        before.matches('(').count() == before.matches(')').count()
    })
}

/// What a view's column is: what the view makes of it, else what the table that it comes from says.
fn meaning(column: &str, view: &Declared, comments: &BTreeMap<(String, String), String>) -> String {
    let is_asked =
        |table: &str| view.select.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == table);
    let is_made = OF_VIEWS.iter().find(|(name, _)| *name == column);
    let from = comments.iter().filter(|((_, name), _)| name == column);
    let from = from.clone().find(|((table, _), _)| is_asked(table)).or_else(|| from.clone().next());
    match (is_made, from) {
        (Some((_, words)), _) => (*words).to_owned(),
        (None, Some((_, comment))) => comment.split(" Example: ").next().unwrap_or_default().to_owned(),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_column_and_view_is_described() {
        for kind in EventType::ALL {
            assert!(TYPES.iter().any(|(named, ..)| *named == kind), "{kind:?}");
        }
        let text = markdown();
        for line in text.lines().filter(|line| line.starts_with('|')) {
            assert!(!line.contains("| `` |") && !line.ends_with("|  |"), "{line}");
        }
        let comments = comments();
        for declared in migrations::statements(DEFAULT_TABLE).iter().filter_map(|statement| Declared::read(statement)) {
            for column in &declared.columns {
                let comment = comments.get(&(declared.name.clone(), column.name.clone()));
                assert!(
                    comment.is_some_and(|comment| comment.contains(" Example: ")),
                    "{} {}",
                    declared.name,
                    column.name
                );
            }
        }
        assert!(text.contains("\n### device_hours\n\nWhat the 3,600 seconds"), "{text}");
    }

    #[test]
    fn docs_data_md_is_what_the_schema_says() {
        let file = include_str!("../../../docs/data.md");
        assert!(file == markdown(), "write it anew: biogate schema print --dictionary > docs/data.md");
    }
}
