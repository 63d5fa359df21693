//! A long queue into a real Kafka: the rows of one batch leave while those of the one before are on their way.

use std::path::Path;

use biogate::forward::kafka::Settings;
use biogate::forward::{BatchLimit, Gate, Kind};
use biogate::observation::Value;
use biogate::resolve::Unassigned;

use crate::rig::events::ward;
use crate::rig::kafka::{Isolation, Kafka, assert_once_in_order};
use crate::rig::kafka_relay::{Relay, Request};
use crate::rig::lane::Lane;

/// Rows of each batch, and of each commit.
const ROWS: u64 = 200;

fn start(dir: &Path, brokers: &str, topic: &str) -> Lane {
    let batch = BatchLimit { usual_rows: ROWS, most_rows: ROWS, bytes: 8 << 20 };
    let settings = Settings { batch, ..Settings::new(vec![brokers.to_owned()], topic) };
    Lane::start(dir, Kind::Kafka(settings), Gate::Open, Unassigned::Forward)
}

async fn fill(lane: &Lane, from: u64, until: u64) {
    for first in (from..until).step_by(ROWS as usize) {
        lane.commit(ward(first, ROWS)).await;
    }
}

fn rows_in_hand(lane: &Lane) -> u64 {
    lane.store.stat().destinations[0].in_hand.as_ref().map_or(0, |range| range.count())
}

#[tokio::test]
async fn two_batches_are_in_hand_at_most_and_each_event_arrives_once_over_a_stop() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic, relay) = (tempfile::tempdir().unwrap(), kafka.topic(3), Relay::to(&kafka.brokers));
    relay.cut();
    let lane = start(dir.path(), &relay.address, &topic);
    fill(&lane, 0, 20_000).await;
    relay.open();
    let mut most = 0;
    while lane.tally().delivered < 10_000 {
        most = most.max(rows_in_hand(&lane));
        tokio::task::yield_now().await;
    }
    assert_eq!(most, 2 * ROWS);
    lane.shut_down().await;
    let lane = start(dir.path(), &relay.address, &topic);
    assert!(lane.tally().waiting > 0, "it was drained before the stop");
    lane.until("all delivered", |tally| tally.delivered == 20_000 && tally.waiting == 0).await;
    assert_eq!(rows_in_hand(&lane), 0);
    lane.shut_down().await;
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 20_000);
}

#[tokio::test]
async fn lost_answers_and_a_line_that_fails_in_mid_drain_double_and_reorder_nothing() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic, relay) = (tempfile::tempdir().unwrap(), kafka.topic(2), Relay::to(&kafka.brokers));
    relay.cut();
    let lane = start(dir.path(), &relay.address, &topic);
    fill(&lane, 0, 20_000).await;
    relay.open();
    for (nth, quarter) in (1..4).zip([5_000, 10_000, 15_000]) {
        lane.until("a part of them", |tally| tally.delivered >= quarter).await;
        match nth {
            1 => relay.swallow(Request::Produce, 3),
            2 => relay.cut(),
            _ => relay.hold(),
        }
        fill(&lane, 20_000 + (nth - 1) * 2_000, 20_000 + nth * 2_000).await;
        lane.until("a row that waits", |tally| tally.waiting > 0).await;
        relay.open();
    }
    let tally = lane.until("all delivered", |tally| tally.delivered == 26_000 && tally.waiting == 0).await;
    assert_eq!((tally.rejected, tally.damaged, tally.resent), (0, 0, 0));
    lane.shut_down().await;
    assert!(relay.swallowed() > 0);
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 26_000);
}

#[tokio::test]
async fn rows_that_the_brokers_refuse_are_found_in_whichever_batch_they_are() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic_with(1, &[("max.message.bytes", "200000")]));
    let lane = start(dir.path(), &kafka.brokers, &topic);
    fill(&lane, 0, ROWS).await;
    lane.until("the first", |tally| tally.delivered == ROWS).await;
    // The limit falls after it was asked for, so that it is the brokers who refuse.
    kafka.alter_topic(&topic, "max.message.bytes", "30000");
    let mut random = fastrand::Rng::with_seed(3);
    let noise: String = (0..40_000).map(|_| random.alphanumeric()).collect();
    let mut observations = ward(ROWS, 20 * ROWS);
    let large = [150, 210, 215, 390, 400, 2_000];
    for nth in large {
        observations[nth].metadata.push(("note".into(), Value::Text(noise.as_str().into())));
    }
    let mut left = observations.into_iter().peekable();
    while left.peek().is_some() {
        lane.commit(left.by_ref().take(ROWS as usize).collect()).await;
    }
    let tally = lane.until("all settled", |tally| tally.waiting == 0).await;
    assert_eq!((tally.delivered, tally.rejected), (21 * ROWS - large.len() as u64, large.len() as u64));
    let aside = lane.store.aside(10).await.unwrap();
    assert!(aside.iter().all(|entry| entry.reason.contains("too large")), "{}", aside[0].reason);
    lane.shut_down().await;
    let records = kafka.read(&topic, Isolation::Uncommitted);
    let different: std::collections::HashSet<_> = records.iter().map(|record| &record.headers["event_id"]).collect();
    assert_eq!((records.len() as u64, different.len() as u64), (tally.delivered, tally.delivered));
}
