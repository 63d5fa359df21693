//! What a simulated fleet left in the topic: read back, partition by partition.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;
use uuid::Uuid;

use crate::forward::refusal::{Refusal, Trouble};

use super::words::Who;
use super::{Settings, client, survey};

/// How long the brokers may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ids that are remembered to find repeats: 16 bytes each and what a set adds.
const MOST_IDS: usize = 10_000_000;

/// The records of a run in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Its number.
    pub partition: i32,
    /// Records.
    pub records: u64,
    /// Of these, whose event id was there before.
    pub repeats: u64,
}

/// The next offset of each partition.
pub async fn ends(settings: &Settings) -> Result<Vec<i64>, Refusal> {
    let settings = settings.clone();
    blocking(move || {
        let consumer = consumer(&settings)?;
        marks(&consumer, &settings).map(|marks| marks.into_iter().map(|(_, high)| high).collect())
    })
    .await
}

/// Whether the topic holds any record.
pub async fn is_empty(settings: &Settings) -> Result<bool, Refusal> {
    let settings = settings.clone();
    blocking(move || Ok(marks(&consumer(&settings)?, &settings)?.iter().all(|(low, high)| low == high))).await
}

/// Counts the records from these offsets on whose gateway's name begins with `prefix`; within `patience`.
pub async fn records_of(
    settings: &Settings,
    from: Vec<i64>,
    prefix: String,
    patience: Duration,
) -> Result<Vec<Partition>, Refusal> {
    let settings = settings.clone();
    blocking(move || read(&settings, &from, &prefix, Instant::now() + patience)).await
}

fn read(settings: &Settings, from: &[i64], prefix: &str, until: Instant) -> Result<Vec<Partition>, Refusal> {
    let wrong = |why: String| Refusal::new(Trouble::Peer, format!("reading topic {} back: {why}", settings.topic));
    let consumer = consumer(settings)?;
    let ends = marks(&consumer, settings)?;
    let mut wanted = TopicPartitionList::new();
    let mut left = HashSet::new();
    for (partition, (begin, (_, end))) in (0..).zip(from.iter().zip(&ends)) {
        if begin < end {
            wanted
                .add_partition_offset(&settings.topic, partition, Offset::Offset(*begin))
                .map_err(|why| wrong(why.to_string()))?;
            left.insert(partition);
        }
    }
    consumer.assign(&wanted).map_err(|why| wrong(why.to_string()))?;
    let mut found: Vec<Partition> =
        (0..).zip(&ends).map(|(partition, _)| Partition { partition, records: 0, repeats: 0 }).collect();
    let mut seen = HashSet::new();
    while !left.is_empty() {
        if Instant::now() >= until {
            return Err(wrong(format!("{} partitions were not read to their end in time", left.len())));
        }
        let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
        let message = message.map_err(|why| wrong(why.to_string()))?;
        let Ok(nth) = usize::try_from(message.partition()) else { continue };
        let Some(count) = found.get_mut(nth) else { continue };
        if header(&message, "gateway").is_some_and(|gateway| gateway.starts_with(prefix.as_bytes())) {
            let id = header(&message, "event_id").and_then(|id| Uuid::try_parse_ascii(id).ok());
            count.records += 1;
            let is_new = id.is_some_and(|id| seen.insert(id));
            count.repeats += u64::from(!is_new);
            if seen.len() > MOST_IDS {
                return Err(wrong(format!("more than {MOST_IDS} event ids are not compared")));
            }
        }
        if message.offset() + 1 >= ends[nth].1 {
            left.remove(&message.partition());
        }
    }
    Ok(found)
}

fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a [u8]> {
    message.headers()?.iter().find(|header| header.key == name)?.value
}

fn consumer(settings: &Settings) -> Result<BaseConsumer, Refusal> {
    let mut config = client::config(settings)?;
    // A group that is never joined: partitions are assigned by hand and no offset is committed.
    config.set("group.id", "biogate-simulate-fleet").set("enable.auto.commit", "false");
    config.create().map_err(|error| client::not_made(&error))
}

/// The lowest and the next offset of each partition.
fn marks(consumer: &BaseConsumer, settings: &Settings) -> Result<Vec<(i64, i64)>, Refusal> {
    let who = Who::of(settings);
    let of_error = |error: rdkafka::error::KafkaError| survey::of_error(&error, &who);
    let metadata = consumer.fetch_metadata(Some(&settings.topic), PATIENCE).map_err(of_error)?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == settings.topic);
    let count = topic.filter(|topic| topic.error().is_none()).map_or(0, |topic| topic.partitions().len());
    if count == 0 {
        return Err(super::words::of_code(rdkafka::error::RDKafkaErrorCode::UnknownTopic, "", &who));
    }
    (0..).take(count).map(|nth| consumer.fetch_watermarks(&settings.topic, nth, PATIENCE).map_err(of_error)).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|why| Err(Refusal::new(Trouble::Internal, format!("asking the brokers failed: {why}"))))
}
