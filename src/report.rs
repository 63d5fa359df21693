//! VALUE: what a hub says beside the events: how it is, what is missing, what it sent, why seconds are empty, who wore
//! what since when.
//!
//! A report is one row of a table of its own. Repeating it does no harm: each table keeps the newest version of a row's
//! key, so reports go out at least once and carry no identity beyond that key.

use serde::{Deserialize, Serialize};

/// Which table a report is a row of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The heartbeat: how the hub is.
    Status,
    /// Observations that will never come, and why.
    Gap,
    /// How many events of a device and an hour a destination has, and the XOR of their ids.
    Reconciliation,
    /// What each second of a device's hour was: measured, or why not.
    Coverage,
    /// Who wore a device, from when to when; rows that are delivered already are corrected by it.
    Assignment,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Status, Kind::Gap, Kind::Reconciliation, Kind::Coverage, Kind::Assignment];

    /// The Kafka topic, and the beginning of a file's name.
    pub fn topic(self) -> &'static str {
        match self {
            Kind::Status => "gateway-status",
            Kind::Gap => "gateway-gaps",
            Kind::Reconciliation => "reconciliation",
            Kind::Coverage => "coverage",
            Kind::Assignment => "device-assignments",
        }
    }

    /// The columns that are times, wherever in the row: integers in milliseconds.
    pub fn times(self) -> &'static [&'static str] {
        match self {
            Kind::Status => &["at", "oldest_waiting", "certificate_end", "last_seen"],
            Kind::Gap => &["from_time", "to_time"],
            Kind::Reconciliation | Kind::Coverage => &["hour"],
            Kind::Assignment => &["valid_from", "valid_until", "said_at"],
        }
    }

    /// The ClickHouse table.
    pub fn table(self) -> &'static str {
        match self {
            Kind::Status => "gateway_status",
            Kind::Gap => "gateway_gaps",
            Kind::Reconciliation => "reconciliation",
            Kind::Coverage => "coverage",
            Kind::Assignment => "device_assignments",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its table.
    pub kind: Kind,
    /// The Kafka key: reports of one key keep their order.
    pub key: String,
    /// One JSON object without line feeds; its keys are the table's columns, times integers in milliseconds.
    pub row: String,
}
