//! Reports into their tables: JSONEachRow, so that a row is the same text here, in a file and in Kafka.

use bytes::Bytes;
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
        let rows: Vec<&str> = reports.iter().map(|report| report.row.as_str()).collect();
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
