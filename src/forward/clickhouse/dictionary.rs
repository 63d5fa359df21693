//! PURE The data dictionary: docs/data.md, made of the columns' comments and of the types of event.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::observation::EventType;

use super::DEFAULT_TABLE;
use super::declared::{self, Column, Kind};
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

const HEAD: &str = "# The data dictionary\n\n\
For analysts: every table and view of the landing zone, column by column. Made by `biogate schema print --dictionary`;\n\
change the comments in `deploy/clickhouse/migrations/` and write it anew. ClickHouse has them too: `DESCRIBE TABLE events`.\n\n\
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
    let made = declared::all(&migrations::statements(DEFAULT_TABLE));
    let about = about();
    text.push_str("\n## Views\n");
    for view in made.iter().filter(|declared| declared.kind == Kind::View) {
        heading(&mut text, &view.name, &about);
        text.push_str("| column | meaning | example |\n| --- | --- | --- |\n");
        for column in &view.columns {
            let (meaning, example) = meaning_and_example(column);
            line(&mut text, &[&format!("`{}`", column.name), meaning, &format!("`{example}`")]);
        }
    }
    text.push_str("\n## Tables\n");
    for table in made.iter().filter(|declared| declared.kind == Kind::Table) {
        heading(&mut text, &table.name, &about);
        text.push_str("| column | type | meaning | example |\n| --- | --- | --- | --- |\n");
        for column in &table.columns {
            let (name, kind, (meaning, example)) = (&column.name, &column.kind, meaning_and_example(column));
            line(&mut text, &[&format!("`{name}`"), &format!("`{kind}`"), meaning, &format!("`{example}`")]);
        }
    }
    text
}

fn meaning_and_example(column: &Column) -> (&str, &str) {
    column.comment.split_once(" Example: ").unwrap_or((&column.comment, ""))
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

/// What the comment before each statement says of the table or view.
fn about() -> BTreeMap<String, String> {
    let mut about = BTreeMap::new();
    for migration in MIGRATIONS {
        let mut comment: Vec<&str> = Vec::new();
        for line in migration.text.lines() {
            match line.strip_prefix("--") {
                Some(words) => comment.push(words.trim()),
                None if line.starts_with("CREATE ") => {
                    let name = line.split_once(" EXISTS ").or_else(|| line.split_once(" VIEW ")).map(|(_, rest)| rest);
                    let name = name.and_then(|rest| rest.split([' ', '(']).next());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_column_and_view_is_described() {
        for kind in EventType::ALL {
            assert!(TYPES.iter().any(|(named, ..)| *named == kind), "{kind:?}");
        }
        for declared in declared::all(&migrations::statements(DEFAULT_TABLE)) {
            let about = about().remove(&declared.name).unwrap_or_default();
            assert!(!about.is_empty(), "write above {} what it is", declared.name);
            assert!(declared.kind != Kind::View || !declared.columns.is_empty(), "comment {}'s columns", declared.name);
            for column in &declared.columns {
                let (meaning, example) = meaning_and_example(column);
                let (table, column) = (&declared.name, &column.name);
                assert!(
                    !meaning.is_empty() && !example.is_empty(),
                    "ALTER TABLE {table} COMMENT COLUMN IF EXISTS {column} 'What it is. Example: x'"
                );
            }
        }
        let text = markdown();
        assert!(text.contains("\n### device_hours\n\nWhat the 3,600 seconds"), "{text}");
    }

    #[test]
    fn docs_data_md_is_what_the_schema_says() {
        let file = include_str!("../../../docs/data.md");
        assert!(file == markdown(), "write it anew: biogate schema print --dictionary > docs/data.md");
    }
}
