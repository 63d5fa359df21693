//! Reports into their tables: JSONEachRow, so that a row is the same text here, in a file and in Kafka.

use bytes::Bytes;
use serde_json::Value;
use tracing::warn;
use uuid::Uuid;

use crate::event::NAMESPACE;
use crate::forward::refusal::{Refusal, Trouble};
use crate::report::{Kind, Report};

use super::insert::{ClickHouse, INSERT_SETTINGS, unanswered};
use super::quoted;
use super::verdict::{Verdict, Who, judge};

/// What reading the rows needs beside what every insert needs: a column that the table lacks is said, never dropped in
/// silence; lists of objects go into tuples by their names.
const READ_SETTINGS: &[(&str, &str)] = &[
    ("date_time_input_format", "best_effort"),
    ("input_format_skip_unknown_fields", "0"),
    ("input_format_null_as_default", "0"),
    ("input_format_json_named_tuples_as_objects", "1"),
    ("input_format_json_defaults_for_missing_elements_in_named_tuple", "0"),
];

/// How the text of a refusal begins that blames the table and not the row.
const UNKNOWN_FIELD: &str = "Unknown field found";

impl ClickHouse {
    /// Sends reports of one kind. Returns how many the table will never take.
    pub async fn report(&mut self, kind: Kind, reports: &[Report]) -> Result<u64, Refusal> {
        let mut dropped = 0;
        let mut pieces = vec![reports];
        while let Some(piece) = pieces.pop() {
            match self.insert_reports(kind, piece).await? {
                Verdict::Delivered => {}
                Verdict::Again(refusal) | Verdict::Heavy(refusal) => return Err(refusal),
                Verdict::Data(reason) if reason.contains(UNKNOWN_FIELD) => {
                    let (database, table) = (&self.settings.database, kind.table());
                    let reason = format!("table {database}.{table} lacks a column; see deploy/clickhouse: {reason}");
                    return Err(Refusal::new(Trouble::Schema, reason));
                }
                Verdict::Data(_) | Verdict::TooLarge(_) | Verdict::Partitions if piece.len() > 1 => {
                    let (first, second) = piece.split_at(piece.len() / 2);
                    pieces.extend([second, first]);
                }
                Verdict::Data(reason) | Verdict::TooLarge(reason) => {
                    dropped += piece.len() as u64;
                    warn!(table = kind.table(), "the table refuses a row for good: {reason}");
                }
                Verdict::Partitions => {
                    let reason = format!("table {} takes not even one row: too many partitions", kind.table());
                    return Err(Refusal::new(Trouble::Peer, reason));
                }
            }
        }
        Ok(dropped)
    }

    async fn insert_reports(&mut self, kind: Kind, reports: &[Report]) -> Result<Verdict, Refusal> {
        let rows: Vec<String> = reports.iter().map(|report| in_seconds(kind, &report.row)).collect();
        let body = Bytes::from(rows.join("\n"));
        let table = format!("{}.{}", quoted(&self.settings.database), quoted(kind.table()));
        let statement = format!("INSERT INTO {table} FORMAT JSONEachRow");
        let token = Uuid::new_v5(&NAMESPACE, &body).simple().to_string();
        let mut params = vec![("query", statement.as_str()), ("insert_deduplication_token", token.as_str())];
        params.extend_from_slice(INSERT_SETTINGS);
        params.extend_from_slice(READ_SETTINGS);
        let answer = self.http.post(&params, body, false).await.map_err(unanswered)?;
        let (server, user) = (self.http.endpoint().to_string(), self.user());
        let who = Who { server: &server, user: &user, database: &self.settings.database, table: kind.table() };
        Ok(judge(&answer, &who))
    }
}

/// The row with its times as ClickHouse reads them: it takes an integer for seconds, whatever the column's precision.
fn in_seconds(kind: Kind, row: &str) -> String {
    // What is no JSON is the server's to refuse, in its own words.
    let Ok(mut value) = serde_json::from_str::<Value>(row) else { return row.to_owned() };
    write_times(kind.times(), &mut value);
    value.to_string()
}

fn write_times(names: &[&str], value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_i64().filter(|_| names.contains(&name.as_str())) {
                    Some(ms) => *field = Value::String(format!("{}.{:03}", ms.div_euclid(1_000), ms.rem_euclid(1_000))),
                    None => write_times(names, field),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| write_times(names, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_seconds_wherever_they_stand_and_nothing_else_does() {
        let row = r#"{"at":1790000000123,"devices":[{"last_seen":1790000000000,"accepted":5}],"backlog_events":7,"oldest_waiting":null}"#;
        let expected = r#"{"at":"1790000000.123","backlog_events":7,"devices":[{"accepted":5,"last_seen":"1790000000.000"}],"oldest_waiting":null}"#;
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(parse(&in_seconds(Kind::Status, row)), parse(expected));
    }
}
