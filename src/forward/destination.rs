//! The closed set of destinations.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::forward::file::{self, File};
use crate::forward::health::Health;
use crate::forward::refusal::Refusal;
#[cfg(feature = "clickhouse")]
use crate::forward::retry::LONGEST_WAIT;
use crate::forward::rows::{Batch, Prepared};
use crate::forward::{BatchLimit, Delivery};
use crate::report::{self, Report};

#[cfg(feature = "clickhouse")]
use crate::forward::clickhouse::{self, ClickHouse};
#[cfg(feature = "kafka")]
use crate::forward::kafka::{self, Kafka};

/// Records that are in a producer's queue are tried by it; this is only how often they are looked after.
#[cfg(feature = "kafka")]
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// One `[[destination]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name; the store keeps a cursor under it.
    pub name: String,
    /// What it is, with its own settings.
    pub kind: Kind,
}

/// What a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// NDJSON files in a folder.
    File(file::Settings),
    /// A table of a ClickHouse server.
    #[cfg(feature = "clickhouse")]
    ClickHouse(clickhouse::Settings),
    /// A topic of a Kafka cluster.
    #[cfg(feature = "kafka")]
    Kafka(kafka::Settings),
}

impl Kind {
    /// As the configuration writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::File(_) => "file",
            #[cfg(feature = "clickhouse")]
            Kind::ClickHouse(_) => "clickhouse",
            #[cfg(feature = "kafka")]
            Kind::Kafka(_) => "kafka",
        }
    }

    /// Finds out whether the destination would take events now, beside whatever it is used for.
    pub(crate) async fn probe(&self) -> Result<(), Refusal> {
        match self {
            Kind::File(settings) => file::probe(settings).await,
            #[cfg(feature = "clickhouse")]
            Kind::ClickHouse(settings) => {
                clickhouse::schema::verify(settings).await.map(|_| ()).map_err(|error| error.refusal())
            }
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) => kafka::survey(settings).await.map(|_| ()),
        }
    }

    /// The longest wait between two tries. Nobody is spared by asking the hub's own disk less often.
    pub(crate) fn longest_wait(&self) -> Duration {
        match self {
            Kind::File(_) => Duration::from_secs(2),
            #[cfg(feature = "clickhouse")]
            Kind::ClickHouse(_) => LONGEST_WAIT,
            #[cfg(feature = "kafka")]
            Kind::Kafka(_) => LOOK_AFTER,
        }
    }

    /// The certificates that it needs, and those that it trusts.
    pub fn certificates(&self) -> Vec<&Path> {
        match self {
            Kind::File(_) => Vec::new(),
            #[cfg(feature = "clickhouse")]
            Kind::ClickHouse(settings) => {
                [&settings.cert_file, &settings.ca_file].into_iter().flatten().map(PathBuf::as_path).collect()
            }
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) => {
                [&settings.cert_file, &settings.ca_file].into_iter().flatten().map(PathBuf::as_path).collect()
            }
        }
    }

    /// Renders a batch whose turn comes later. `false` when its basis is unknown. It blocks.
    pub(super) fn prepare(&self, batch: &mut Batch) -> bool {
        let prepared = match self {
            // It renders straight into its file.
            Kind::File(_) => Some(Prepared::Nothing),
            // And this as far as the producer's queue has room.
            #[cfg(feature = "kafka")]
            Kind::Kafka(_) => Some(Prepared::Nothing),
            #[cfg(feature = "clickhouse")]
            Kind::ClickHouse(_) => clickhouse::Whole::of(batch).map(Prepared::ClickHouse),
        };
        prepared.map(|prepared| batch.prepared = prepared).is_some()
    }

    /// Whether a batch may leave while the one before it is on its way.
    pub(super) fn overlaps(&self) -> bool {
        match self {
            Kind::File(_) => false,
            #[cfg(feature = "clickhouse")]
            Kind::ClickHouse(_) => false,
            // Two transactions at once there are not.
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) => !settings.exactly_once,
        }
    }

    pub(crate) fn batch(&self) -> BatchLimit {
        match self {
            Kind::File(settings) => settings.batch,
            #[cfg(feature = "clickhouse")]
            Kind::ClickHouse(settings) => settings.batch,
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) => settings.batch,
        }
    }
}

/// A destination that can be written to.
#[derive(Debug)]
pub enum Destination {
    /// NDJSON files in a folder.
    File(Box<File>),
    /// A table of a ClickHouse server.
    #[cfg(feature = "clickhouse")]
    ClickHouse(Box<ClickHouse>),
    /// A topic of a Kafka cluster.
    #[cfg(feature = "kafka")]
    Kafka(Box<Kafka>),
}

impl Destination {
    /// A destination that has not been touched yet. `Err` says what is wrong with its settings.
    pub fn new(settings: &Settings, health: &Health) -> Result<Destination, String> {
        match &settings.kind {
            Kind::File(file) => Ok(Destination::File(Box::new(File::new(file.clone(), health.clone())))),
            #[cfg(feature = "clickhouse")]
            Kind::ClickHouse(clickhouse) => match ClickHouse::new(clickhouse.clone()) {
                Ok(made) => Ok(Destination::ClickHouse(Box::new(made))),
                Err(wrong) => Err(format!("destination {}: {wrong}", settings.name)),
            },
            #[cfg(feature = "kafka")]
            Kind::Kafka(kafka) => {
                Ok(Destination::Kafka(Box::new(Kafka::new(&settings.name, kafka.clone(), health.clone()))))
            }
        }
    }

    /// Tries to deliver a batch. Under a failover a call may be dropped; [`Self::abandon`] follows it then.
    pub async fn deliver(&mut self, batch: Batch) -> Delivery {
        match self {
            Destination::File(file) => file.deliver(batch).await,
            #[cfg(feature = "clickhouse")]
            Destination::ClickHouse(clickhouse) => clickhouse.deliver(batch).await,
            #[cfg(feature = "kafka")]
            Destination::Kafka(kafka) => kafka.deliver(batch).await,
        }
    }

    /// Tries to deliver reports of one kind, in their order; returns how many it will never take for what they are.
    pub async fn report(&mut self, kind: report::Kind, reports: &[Report]) -> Result<u64, Refusal> {
        match self {
            Destination::File(file) => file.report(kind, reports).await.map(|()| 0),
            #[cfg(feature = "clickhouse")]
            Destination::ClickHouse(clickhouse) => clickhouse.report(kind, reports).await,
            #[cfg(feature = "kafka")]
            Destination::Kafka(kafka) => kafka.report(kind, reports).await.map(|()| 0),
        }
    }

    /// Lets go of the batch in hand, so that another destination can get its range. `true`: rows of it may have arrived,
    /// or may still arrive, beyond what its refusals said.
    pub async fn abandon(&mut self) -> bool {
        match self {
            // What a failed try wrote was taken back then.
            Destination::File(_) => false,
            #[cfg(feature = "clickhouse")]
            Destination::ClickHouse(clickhouse) => {
                clickhouse.abandon();
                false
            }
            #[cfg(feature = "kafka")]
            Destination::Kafka(kafka) => kafka.abandon().await,
        }
    }

    /// How long until it wants [`Self::tend`], while nothing is sent.
    pub fn tend_in(&self) -> Option<Duration> {
        match self {
            Destination::File(file) => file.due(),
            #[cfg(feature = "clickhouse")]
            Destination::ClickHouse(_) => None,
            #[cfg(feature = "kafka")]
            Destination::Kafka(_) => None,
        }
    }

    /// What time asks for while nothing is sent: closing a file that is old enough.
    pub async fn tend(&mut self) -> Result<(), Refusal> {
        match self {
            Destination::File(file) => file.rotate().await,
            #[cfg(feature = "clickhouse")]
            Destination::ClickHouse(_) => Ok(()),
            #[cfg(feature = "kafka")]
            Destination::Kafka(_) => Ok(()),
        }
    }
}
