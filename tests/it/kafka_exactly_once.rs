//! `exactly_once` against a real Kafka: a reader of committed records sees each event once and in order, whatever happens.

use std::path::Path;
use std::time::{Duration, Instant};

use biogate::forward::Kind;
use biogate::forward::health::State;
use biogate::forward::kafka::Settings;
use biogate::observation::Value;

use crate::rig::events::ward;
use crate::rig::kafka::{Isolation, Kafka, assert_once_in_order};
use crate::rig::kafka_relay::{Relay, Request};
use crate::rig::lane::Lane;

/// A hub's name and topics that no other test has: a name is fenced by whoever uses it next.
struct Hub {
    name: String,
    topic: String,
    cursors: String,
}

impl Hub {
    fn new(kafka: &Kafka) -> Hub {
        Hub {
            name: format!("hub-{}", uuid::Uuid::new_v4().simple()),
            topic: kafka.topic_with(2, &[("max.message.bytes", "200000")]),
            cursors: kafka.topic(1),
        }
    }

    fn start(&self, dir: &Path, brokers: &str) -> Lane {
        let settings = Settings {
            exactly_once: true,
            cursor_topic: self.cursors.clone(),
            ..Settings::new(vec![brokers.to_owned()], &self.topic)
        };
        Lane::start_named(dir, Kind::Kafka(settings), &self.name)
    }
}

async fn delivered(lane: &Lane, count: u64) {
    lane.until(&format!("{count} delivered"), |tally| tally.delivered == count && tally.waiting == 0).await;
}

#[tokio::test]
async fn events_are_seen_once_and_in_order_over_restarts() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, hub) = (tempfile::tempdir().unwrap(), Hub::new(&kafka));
    for round in 0..3 {
        let lane = hub.start(dir.path(), &kafka.brokers);
        for part in 0..3 {
            lane.commit(ward(round * 900 + part * 300, 300)).await;
        }
        delivered(&lane, (round + 1) * 900).await;
        lane.shut_down().await;
    }
    assert_once_in_order(&kafka.read_at_least(&hub.topic, 2_700, Isolation::Committed), 2_700);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_looked_up_and_not_sent_again() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, hub, relay) = (tempfile::tempdir().unwrap(), Hub::new(&kafka), Relay::to(&kafka.brokers));
    let lane = hub.start(dir.path(), &relay.address);
    lane.commit(ward(0, 10)).await;
    delivered(&lane, 10).await;
    for round in 1..3 {
        relay.swallow(Request::EndTransaction, 1);
        lane.commit(ward(round * 500, 500)).await;
        delivered(&lane, 10 + round * 500).await;
        assert_eq!(u64::from(relay.swallowed()), round);
    }
    lane.shut_down().await;
    assert_once_in_order(&kafka.read_at_least(&hub.topic, 1_010, Isolation::Committed), 1_010);
}

#[tokio::test]
async fn lost_acknowledgements_and_a_line_that_is_cut_in_a_transaction_double_nothing() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, hub, relay) = (tempfile::tempdir().unwrap(), Hub::new(&kafka), Relay::to(&kafka.brokers));
    let lane = hub.start(dir.path(), &relay.address);
    lane.commit(ward(0, 10)).await;
    delivered(&lane, 10).await;
    relay.swallow(Request::Produce, 1);
    lane.commit(ward(10, 500)).await;
    delivered(&lane, 510).await;
    let before = relay.produced();
    lane.commit(ward(510, 2_000)).await;
    lane.until("records on their way", |_| relay.produced() > before).await;
    relay.cut();
    lane.until("a reason", |_| lane.health.snapshot().state == State::Retrying).await;
    relay.open();
    delivered(&lane, 2_510).await;
    lane.shut_down().await;
    assert_once_in_order(&kafka.read_at_least(&hub.topic, 2_510, Isolation::Committed), 2_510);
}

#[tokio::test]
async fn a_stop_in_an_outage_is_quick_and_the_next_process_sends_what_was_open() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, hub, relay) = (tempfile::tempdir().unwrap(), Hub::new(&kafka), Relay::to(&kafka.brokers));
    let lane = hub.start(dir.path(), &relay.address);
    lane.commit(ward(0, 10)).await;
    delivered(&lane, 10).await;
    let before = relay.produced();
    lane.commit(ward(10, 2_000)).await;
    lane.until("records on their way", |_| relay.produced() > before).await;
    relay.cut();
    let begun = Instant::now();
    lane.shut_down().await;
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    relay.open();
    let lane = hub.start(dir.path(), &relay.address);
    delivered(&lane, 2_010).await;
    lane.shut_down().await;
    assert_once_in_order(&kafka.read_at_least(&hub.topic, 2_010, Isolation::Committed), 2_010);
}

#[tokio::test]
async fn a_row_that_the_brokers_refuse_is_set_aside_and_its_transaction_hidden() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, hub) = (tempfile::tempdir().unwrap(), Hub::new(&kafka));
    let lane = hub.start(dir.path(), &kafka.brokers);
    lane.commit(ward(0, 10)).await;
    delivered(&lane, 10).await;
    // The limit falls after the hub has asked for it, so that it is the brokers who refuse.
    kafka.alter_topic(&hub.topic, "max.message.bytes", "20000");
    let mut observations = ward(10, 100);
    let mut random = fastrand::Rng::with_seed(3);
    let noise: String = (0..40_000).map(|_| random.alphanumeric()).collect();
    observations[40].metadata.push(("note".into(), Value::Text(noise.as_str().into())));
    lane.commit(observations).await;
    let tally = lane.until("all settled", |tally| tally.waiting == 0 && tally.delivered > 10).await;
    assert_eq!((tally.delivered, tally.rejected), (109, 1));
    let aside = lane.store.aside(10).await.unwrap();
    assert!(aside[0].reason.contains("too large"), "{}", aside[0].reason);
    lane.shut_down().await;
    assert_once_in_order(&kafka.read_at_least(&hub.topic, 109, Isolation::Committed), 109);
}

#[tokio::test]
async fn the_older_of_two_hubs_of_one_name_is_fenced_and_says_so() {
    let Some(kafka) = Kafka::shared() else { return };
    let (first, second, hub) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Hub::new(&kafka));
    let older = hub.start(first.path(), &kafka.brokers);
    older.commit(ward(0, 10)).await;
    delivered(&older, 10).await;
    let newer = hub.start(second.path(), &kafka.brokers);
    newer.commit(ward(1_000, 10)).await;
    delivered(&newer, 10).await;
    older.commit(ward(10, 10)).await;
    let says =
        |_: &_| older.health.snapshot().reason.is_some_and(|reason| reason.contains("another program took over"));
    older.until("its words", says).await;
    // It takes the name back, and then nothing of it was lost.
    delivered(&older, 20).await;
    older.shut_down().await;
    newer.shut_down().await;
    let records = kafka.read_at_least(&hub.topic, 30, Isolation::Committed);
    let ids: std::collections::HashSet<_> = records.iter().map(|record| &record.headers["event_id"]).collect();
    assert_eq!((records.len(), ids.len()), (30, 30));
}

#[tokio::test]
async fn a_new_store_under_an_old_name_skips_nothing() {
    let Some(kafka) = Kafka::shared() else { return };
    let hub = Hub::new(&kafka);
    // The same sequences twice, as with a new card: other events stand behind them.
    for round in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let lane = hub.start(dir.path(), &kafka.brokers);
        lane.commit(ward(round * 400, 400)).await;
        delivered(&lane, 400).await;
        lane.shut_down().await;
    }
    assert_once_in_order(&kafka.read_at_least(&hub.topic, 800, Isolation::Committed), 800);
}
