//! What `simulate-fleet` says on its way and at its end.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::anyhow;
use serde::Serialize;

use crate::fleet::{Outcome, PREFIX, Progress};
use crate::forward::Kind;
use crate::forward::clickhouse::census::{self, Parts, Rows};

#[cfg(feature = "kafka")]
use crate::forward::kafka::census as topic;

/// Reading a topic back may take so long.
#[cfg(feature = "kafka")]
const READ_BACK: Duration = Duration::from_secs(120);

/// A look at the parts on the way may not hold up the next report.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

/// The far end, as it is looked at from outside.
pub(super) struct FarEnd {
    kind: Kind,
}

/// What has to be known of it before the first event.
#[derive(Default)]
pub(super) struct Begin {
    /// The next offset of each partition.
    #[cfg(feature = "kafka")]
    offsets: Vec<i64>,
}

/// What was found there.
#[derive(Debug, Default, Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    clickhouse: Option<Table>,
    #[cfg(feature = "kafka")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka: Option<Topic>,
    /// It could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

#[derive(Debug, Serialize)]
struct Table {
    table: String,
    #[serde(flatten)]
    rows: Rows,
    /// Rows that a merge will remove, and FINAL does not count.
    duplicates: u64,
    parts: Option<Parts>,
    /// The most parts of a partition that were seen on the way.
    most_parts: Option<u64>,
}

#[cfg(feature = "kafka")]
#[derive(Debug, Serialize)]
struct Topic {
    topic: String,
    records: u64,
    repeats: u64,
    partitions: Vec<topic::Partition>,
}

/// The whole of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    outcome: Outcome,
    connections: usize,
    #[serde(flatten)]
    found: Found,
    /// Events that were acknowledged and are not there.
    lost: u64,
}

impl FarEnd {
    pub(super) fn of(kind: Kind) -> FarEnd {
        FarEnd { kind }
    }

    pub(super) fn name(&self) -> String {
        match &self.kind {
            Kind::ClickHouse(settings) => format!("table {}.{}", settings.database, settings.table),
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) => format!("topic {}", settings.topic),
            Kind::File(_) => "the folder".to_owned(),
        }
    }

    /// Whether events of real hubs are there. A topic whose name says that it is a fleet's is not asked.
    pub(super) async fn has_real_events(&self) -> anyhow::Result<bool> {
        match &self.kind {
            Kind::ClickHouse(settings) => {
                crate::forward::clickhouse::schema::verify(settings).await?;
                Ok(census::has_others(settings, PREFIX).await?)
            }
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) if settings.topic.contains("fleet") => Ok(false),
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) => topic::is_empty(settings).await.map(|is| !is).map_err(|why| anyhow!(why.reason)),
            Kind::File(_) => Ok(false),
        }
    }

    pub(super) async fn begin(&self) -> anyhow::Result<Begin> {
        match &self.kind {
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) => {
                Ok(Begin { offsets: topic::ends(settings).await.map_err(|why| anyhow!(why.reason))? })
            }
            Kind::ClickHouse(_) | Kind::File(_) => Ok(Begin::default()),
        }
    }

    /// The table's parts, where they may be read.
    pub(super) async fn parts(&self) -> Option<Parts> {
        match &self.kind {
            Kind::ClickHouse(settings) => {
                tokio::time::timeout(LOOK_PATIENCE, census::parts(settings)).await.ok().and_then(Result::ok)
            }
            #[cfg(feature = "kafka")]
            Kind::Kafka(_) => None,
            Kind::File(_) => None,
        }
    }

    async fn found(&self, fleet: &str, most_parts: Option<u64>, begin: Begin) -> Found {
        match &self.kind {
            Kind::ClickHouse(settings) => match census::rows_of(settings, fleet).await {
                Ok(rows) => {
                    let table = format!("{}.{}", settings.database, settings.table);
                    let duplicates = rows.rows.saturating_sub(rows.events);
                    let table = Table { table, rows, duplicates, parts: self.parts().await, most_parts };
                    Found { clickhouse: Some(table), ..Found::default() }
                }
                Err(why) => Found { unknown: Some(why.to_string()), ..Found::default() },
            },
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) => {
                match topic::records_of(settings, begin.offsets, fleet.to_owned(), READ_BACK).await {
                    Ok(partitions) => {
                        let records = partitions.iter().map(|partition| partition.records).sum();
                        let repeats = partitions.iter().map(|partition| partition.repeats).sum();
                        let topic = Topic { topic: settings.topic.clone(), records, repeats, partitions };
                        Found { kafka: Some(topic), ..Found::default() }
                    }
                    Err(why) => Found { unknown: Some(why.reason), ..Found::default() },
                }
            }
            Kind::File(_) => Found::default(),
        }
    }
}

impl Found {
    /// Distinct events; `None` where nobody knows.
    fn events(&self) -> Option<u64> {
        let of_table = self.clickhouse.as_ref().map(|table| table.rows.events);
        #[cfg(feature = "kafka")]
        let of_table = of_table.or(self.kafka.as_ref().map(|topic| topic.records - topic.repeats));
        of_table
    }
}

impl Report {
    pub(super) async fn new(
        outcome: Outcome,
        connections: usize,
        most_parts: Option<u64>,
        far: &FarEnd,
        begin: Begin,
    ) -> Report {
        let found = far.found(&outcome.fleet, most_parts, begin).await;
        let lost = found.events().map_or(0, |events| outcome.acknowledged.saturating_sub(events));
        Report { outcome, connections, found, lost }
    }

    /// The far end kept up, took every event, and has what it acknowledged.
    pub(super) fn is_well(&self) -> bool {
        self.outcome.bounded && self.outcome.rejected == 0 && self.lost == 0 && self.found.unknown.is_none()
    }
}

/// One line on the way.
pub(super) fn progress(progress: &Progress, parts: Option<Parts>, json: bool) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        progress: &'a Progress,
        parts: Option<Parts>,
    }
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &Line { progress, parts })?;
        return writeln!(out);
    }
    let Progress { elapsed_s, offered, acknowledged, events_per_s, lag_s, retries, latency } = progress;
    write!(
        out,
        "{elapsed_s:.0} s: {events_per_s:.0} events/s, {acknowledged} of {offered} acknowledged, lag {lag_s:.1} s, \
         {retries} retries, batch p50 {:.0} p95 {:.0} p99 {:.0} ms",
        latency.p50_ms, latency.p95_ms, latency.p99_ms
    )?;
    match parts {
        Some(Parts { parts, partitions, .. }) => writeln!(out, ", {parts} parts in {partitions} partitions"),
        None => writeln!(out),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { lag, latency, .. } = &self.outcome;
        let Outcome { fleet, hubs, hz, seconds, offered, acknowledged, rejected, waiting, .. } = &self.outcome;
        writeln!(f, "{fleet}: {hubs} hubs at {hz} events/s over {} connections, {seconds:.1} s", self.connections)?;
        writeln!(
            f,
            "events: {offered} measured, {acknowledged} acknowledged ({:.0}/s), {rejected} rejected, {waiting} waiting, \
             {} lost",
            self.outcome.events_per_s, self.lost
        )?;
        writeln!(
            f,
            "lag: mean {:.1} s, worst {:.1} s, at the last event {:.1} s; all acknowledged after {:.1} s more",
            lag.mean_s, lag.worst_s, lag.last_s, lag.drain_s
        )?;
        writeln!(
            f,
            "batches: {} of {:.1} events; p50 {:.1} p95 {:.1} p99 {:.1} longest {:.1} ms; {} retries",
            self.outcome.batches,
            self.outcome.events_per_batch,
            latency.p50_ms,
            latency.p95_ms,
            latency.p99_ms,
            latency.longest_ms,
            self.outcome.retries
        )?;
        writeln!(f, "this process itself: {:.2} cores", self.outcome.own_cores)?;
        for trouble in &self.outcome.troubles {
            writeln!(f, "  {} times {}: {}", trouble.tries, trouble.kind, trouble.reason)?;
        }
        self.found.fmt(f, fleet)?;
        match &self.outcome.why {
            None => writeln!(f, "the lag is bounded"),
            Some(why) => writeln!(f, "the lag is NOT bounded: {why}"),
        }
    }
}

impl Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>, fleet: &str) -> fmt::Result {
        if let Some(Table { table, rows, duplicates, parts, most_parts }) = &self.clickhouse {
            write!(f, "{table}: {} rows of {} events, {duplicates} duplicates", rows.rows, rows.events)?;
            if let Some(Parts { parts, partitions, bytes, .. }) = parts {
                write!(f, "; {parts} active parts in {partitions} partitions, {bytes} bytes")?;
            }
            if let Some(most) = most_parts {
                write!(f, "; at most {most} parts of a partition seen")?;
            }
            writeln!(f, "\n  to remove them: DELETE FROM {table} WHERE startsWith(gateway_id, '{fleet}')")?;
        }
        #[cfg(feature = "kafka")]
        if let Some(Topic { topic, records, repeats, partitions }) = &self.kafka {
            writeln!(f, "topic {topic}: {records} records, {repeats} repeats")?;
            for topic::Partition { partition, records, repeats } in partitions {
                writeln!(f, "  partition {partition}: {records} records, {repeats} repeats")?;
            }
        }
        match &self.unknown {
            Some(why) => writeln!(f, "what arrived is not known: {why}"),
            None => Ok(()),
        }
    }
}
