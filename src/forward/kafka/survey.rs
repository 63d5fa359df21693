//! What the brokers say of the topics before anything is sent to them.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::Producer as _;
use tokio::runtime::Handle;

use crate::forward::health::Health;
use crate::forward::refusal::{Refusal, Trouble};

use super::Settings;
use super::client::{self, Producer};
use super::context::Shared;
use super::words::{self, Who};

/// How long the brokers may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Brokers of the cluster.
    pub brokers: usize,
    /// Partitions of the topic.
    pub partitions: usize,
    /// Partitions of the cursor topic, where it is used.
    pub cursor_partitions: Option<usize>,
    /// The topic's `max.message.bytes`; `None` where the user may not read it.
    pub max_message_bytes: Option<u32>,
    /// The topic's `message.timestamp.type`.
    pub timestamp_type: Option<String>,
}

impl Found {
    pub(super) fn of(brokers: usize, partitions: usize) -> Found {
        Found { brokers, partitions, cursor_partitions: None, max_message_bytes: None, timestamp_type: None }
    }
}

/// Connects as the destination would, asks, and leaves.
pub async fn survey(settings: &Settings) -> Result<Found, Refusal> {
    let settings = settings.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let who = Who::of(&settings);
        let shared = Arc::new(Shared::new(who, Health::new("check", "kafka")));
        let producer = client::producer(&settings, settings.max_message_bytes, None, shared.clone())?;
        let mut found = topics(&producer, &shared, &settings)?;
        limits(&settings, &mut found);
        Ok(found)
    });
    asked.await.unwrap_or_else(|why| Err(Refusal::new(Trouble::Internal, format!("asking the brokers failed: {why}"))))
}

/// Asks for the topics; blocks.
pub(super) fn topics(producer: &Producer, shared: &Shared, settings: &Settings) -> Result<Found, Refusal> {
    let (brokers, partitions) = topic(producer, shared, shared.who())?;
    let cursor_partitions = match settings.exactly_once {
        true => Some(cursors(producer, shared, &settings.cursor_topic)?),
        false => None,
    };
    Ok(Found { cursor_partitions, ..Found::of(brokers, partitions) })
}

/// Partitions of the cursor topic; blocks.
fn cursors(producer: &Producer, shared: &Shared, topic: &str) -> Result<usize, Refusal> {
    let who = shared.who().about(topic);
    let found = self::topic(producer, shared, &who);
    found.map(|(_, partitions)| partitions).map_err(|refusal| match refusal.trouble {
        Trouble::Schema => Refusal::new(
            Trouble::Schema,
            format!(
                "topic {topic}, whose offsets are the cursors of exactly_once, does not exist on {}; create it: kafka-topics.sh --create --topic {topic} --partitions 1 --replication-factor 3",
                who.brokers
            ),
        ),
        _ => refusal,
    })
}

/// Brokers and partitions, once every partition can be written to; blocks.
pub(super) fn topic(producer: &Producer, shared: &Shared, who: &Who) -> Result<(usize, usize), Refusal> {
    let metadata = producer.client().fetch_metadata(Some(&who.topic), PATIENCE).map_err(|error| {
        // The call itself only knows that it took too long.
        shared.word().unwrap_or_else(|| of_error(&error, who))
    })?;
    let found = metadata.topics().iter().find(|topic| topic.name() == who.topic);
    let partitions = found.map(|topic| writable(topic, who)).transpose()?.unwrap_or(0);
    if partitions == 0 {
        return Err(words::of_code(RDKafkaErrorCode::UnknownTopic, "", who));
    }
    Ok((metadata.brokers().len(), partitions))
}

fn writable(topic: &MetadataTopic, who: &Who) -> Result<usize, Refusal> {
    if let Some(error) = topic.error() {
        return Err(words::of_code(error.into(), "", who));
    }
    match topic.partitions().iter().find(|partition| partition.leader() < 0) {
        Some(_leaderless) => Err(words::of_code(RDKafkaErrorCode::LeaderNotAvailable, "", who)),
        None => Ok(topic.partitions().len()),
    }
}

/// Asks for the topic's own limits; blocks. Who may not read them learns nothing, and that is no failure.
pub(super) fn limits(settings: &Settings, found: &mut Found) {
    let Ok(config) = client::config(settings) else { return };
    let Ok(admin) = config.create_with_context::<_, AdminClient<_>>(DefaultClientContext) else { return };
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let topic = ResourceSpecifier::Topic(&settings.topic);
    let asked = admin.describe_configs([&topic], &options);
    let Ok(answers) = Handle::current().block_on(asked) else { return };
    let Some(Ok(topic)) = answers.into_iter().next() else { return };
    let value = |name: &str| topic.get(name).and_then(|entry| entry.value.clone());
    found.max_message_bytes = value("max.message.bytes").and_then(|bytes| bytes.parse().ok());
    found.timestamp_type = value("message.timestamp.type");
}

/// What librdkafka said of the connection, or what the brokers say when they are asked; blocks.
pub(super) fn why_silent(producer: &Producer, shared: &Shared, who: &Who) -> Refusal {
    if let Some(word) = shared.word() {
        return word;
    }
    match topic(producer, shared, who) {
        Err(refusal) => refusal,
        Ok(_) => {
            let reason = format!(
                "{} answers, but acknowledges no record of topic {}: are enough of its replicas in step?",
                who.brokers, who.topic
            );
            Refusal::new(Trouble::Timeout, reason)
        }
    }
}

/// A failed call in words.
pub(super) fn of_error(error: &KafkaError, who: &Who) -> Refusal {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
    words::of_code(code, &error.to_string(), who)
}
