//! The ClickHouse destination: RowBinary over HTTP, each insert one block with a token, so that a retry is dropped by
//! the server and an event counts once.
//!
//! Why not the official client crate: `docs/decisions/2026-11-24-clickhouse-client.md`.

mod block;
pub mod census;
mod cluster;
mod declared;
pub mod dictionary;
pub mod difference;
pub mod document;
mod http;
mod insert;
pub mod ledger;
mod migrations;
mod report;
mod row;
pub mod schema;
pub mod survey;
mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use crate::event::Event;
use crate::forward::BatchLimit;

pub(super) use block::Whole;
pub use insert::ClickHouse;

/// Where the table is, who writes to it, and how long anything may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `https://host:8443`, without user and password.
    pub url: String,
    /// The database of the table.
    pub database: String,
    /// Usually `biometric_events`.
    pub table: String,
    /// `None` is the server's `default`, without a password.
    pub user: Option<String>,
    /// Holds the user's password; read for every request, so a change needs no restart.
    pub password_file: Option<PathBuf>,
    /// Trusted instead of the system's certificates.
    pub ca_file: Option<PathBuf>,
    /// The hub's own certificate, with `key_file`, where the server asks for one.
    pub cert_file: Option<PathBuf>,
    /// The key of `cert_file`, PKCS #8 in PEM form.
    pub key_file: Option<PathBuf>,
    /// Name, connection and TLS together.
    pub connect_timeout: Duration,
    /// From the first byte sent to the whole answer.
    pub request_timeout: Duration,
    /// The size of a batch.
    pub batch: BatchLimit,
}

/// The usual table.
pub const DEFAULT_TABLE: &str = "biometric_events";

impl Settings {
    /// The usual table, times and sizes for this URL and database.
    pub fn new(url: impl Into<String>, database: impl Into<String>) -> Self {
        Settings {
            url: url.into(),
            database: database.into(),
            table: DEFAULT_TABLE.to_owned(),
            user: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            batch: BatchLimit { usual_rows: 8_192, most_rows: 20_000, bytes: 4 << 20 },
        }
    }

    /// Finds out whether the URL can be used, without asking the server.
    pub fn check_url(&self) -> Result<(), String> {
        http::Endpoint::parse(&self.url).map(|_| ())
    }
}

/// An event's bytes as they are sent, for the test that pins the contract.
pub fn row_binary(event: &Event) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    row::encode(&mut bytes, event)?;
    Ok(bytes)
}

/// A name in backquotes.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}
