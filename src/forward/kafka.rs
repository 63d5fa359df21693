//! The Kafka destination: one record an event, JSON of contract v1, keyed by device, acknowledged by all replicas.
//!
//! Plain mode: an idempotent producer whose queue holds what is in hand and nothing more: a batch and, while a long queue
//! drains, the one behind it. The records stay in it through any outage, so that while the process lives nothing is sent
//! twice; the cursor moves past a batch when its every record is acknowledged or refused for good. `exactly_once`: each
//! batch is a transaction that carries the cursor with it.

pub mod census;
mod client;
mod context;
mod cursor;
mod exact;
mod fences;
mod hand;
mod open;
mod plain;
mod record;
mod survey;
mod transaction;
mod words;

use std::path::PathBuf;
use std::sync::Arc;

use crate::forward::health::Health;
use crate::forward::refusal::Refusal;
use crate::forward::rows::Batch;
use crate::forward::{BatchLimit, Delivery};
use crate::report::{Kind, Report};

use exact::Exact;
use plain::Plain;

pub use survey::{Found, survey};

/// Rows of a batch to begin with; twice as many while a long queue drains. Without `exactly_once` two such batches may be in
/// hand. With it a batch is a transaction, which has to be through within its timeout, and which is never cut anew, however
/// slow the connection becomes.
const USUAL_ROWS: u64 = 10_000;

/// The usual topic of events.
pub const DEFAULT_TOPIC: &str = "biometric-events";

/// The usual topic that the cursors of `exactly_once` are offsets of.
pub const DEFAULT_CURSOR_TOPIC: &str = "biogate-cursors";

/// Where the topic is, who writes to it and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` of some brokers of the cluster.
    pub brokers: Vec<String>,
    /// Where events go.
    pub topic: String,
    /// How batches are compressed.
    pub compression: Compression,
    /// Each batch in a transaction together with the cursor.
    pub exactly_once: bool,
    /// One partition, never written to: the cursors of `exactly_once` are its committed offsets.
    pub cursor_topic: String,
    /// The most bytes of a record, where the topic's own limit may not be read.
    pub max_message_bytes: u32,
    /// Encrypted and with the brokers' certificates checked.
    pub tls: bool,
    /// Trusted instead of the system's certificates.
    pub ca_file: Option<PathBuf>,
    /// The hub's own certificate, with `key_file`, where the brokers ask for one.
    pub cert_file: Option<PathBuf>,
    /// The key of `cert_file` in PEM form.
    pub key_file: Option<PathBuf>,
    /// How the user is proved.
    pub sasl: Option<Sasl>,
    /// With `sasl`.
    pub user: Option<String>,
    /// With `sasl`; read at each connection that is made anew.
    pub password_file: Option<PathBuf>,
    /// The size of a batch.
    pub batch: BatchLimit,
}

impl Settings {
    /// The usual settings for these brokers: zstd, without TLS and SASL.
    pub fn new(brokers: Vec<String>, topic: impl Into<String>) -> Self {
        let usual_rows = crate::crash::tuned("kafka.batch_rows", USUAL_ROWS);
        Settings {
            brokers,
            topic: topic.into(),
            compression: Compression::Zstd,
            exactly_once: false,
            cursor_topic: DEFAULT_CURSOR_TOPIC.to_owned(),
            // The brokers' own default.
            max_message_bytes: 1_048_588,
            tls: false,
            ca_file: None,
            cert_file: None,
            key_file: None,
            sasl: None,
            user: None,
            password_file: None,
            batch: BatchLimit { usual_rows, most_rows: 2 * usual_rows, bytes: 8 << 20 },
        }
    }
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// The smallest, and the usual.
    Zstd,
    /// The quickest.
    Lz4,
    /// Where consumers know nothing newer.
    Gzip,
    /// Not at all.
    None,
}

/// How a user is proved to the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sasl {
    /// The password itself; only under TLS.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

/// The destination.
#[derive(Debug)]
pub struct Kafka {
    /// Takes the events without `exactly_once`, and reports in any case: they need no transaction.
    plain: Plain,
    exact: Option<Exact>,
}

impl Kafka {
    /// A destination that has not been spoken to.
    pub fn new(name: &str, settings: Settings, health: Health) -> Kafka {
        let settings = Arc::new(settings);
        let exact = settings.exactly_once.then(|| Exact::new(name, settings.clone(), health.clone()));
        Kafka { plain: Plain::new(settings, health), exact }
    }

    /// Sends what of the batch is not sent yet and waits for the acknowledgements. A batch that comes back is waited
    /// for further; its records never left the producer.
    pub async fn deliver(&mut self, batch: Batch) -> Delivery {
        match &mut self.exact {
            Some(exact) => exact.deliver(batch).await,
            None => self.plain.deliver(batch).await,
        }
    }

    /// Lets go of the batch in hand and drops what of it is in the producer. `true`: records of it may have arrived.
    pub async fn abandon(&mut self) -> bool {
        // One with a cursor of its own stands in no order (the configuration refuses it); what it has in hand is unknown.
        self.plain.abandon().await || self.exact.is_some()
    }

    /// Sends reports to the topic of their kind. They go at least once.
    pub async fn report(&mut self, kind: Kind, reports: &[Report]) -> Result<(), Refusal> {
        self.plain.report(kind, reports).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_transaction_is_through_in_time_at_a_megabit_per_second() {
        // An event took 38 to 42.2 bytes in zstd (docs/decisions/2026-11-26-kafka-drain.md); the reports may take 8.5 s.
        let settings = Settings::new(vec!["a:9092".into()], "events");
        let bits_per_second = settings.batch.most_rows as f64 * 42.2 * 8.0 / 8.5;
        assert!(bits_per_second < 1e6, "{bits_per_second}");
    }
}
