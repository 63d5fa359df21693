//! The Kafka destination against a real broker: what arrives, in which form, and what becomes of a refused row.

use biogate::forward::Gate;
use biogate::forward::Kind;
use biogate::forward::health::State;
use biogate::forward::kafka::{Compression, Settings};
use biogate::observation::Value;
use biogate::resolve::Unassigned;
use biogate::store::AsideKind;

use crate::rig::events::ward;
use crate::rig::kafka::{Isolation, Kafka, assert_once_in_order};
use crate::rig::lane::Lane;

/// The columns of the table, in their order.
const COLUMNS: [&str; 16] = [
    "event_id",
    "user_id",
    "event_type",
    "component",
    "value",
    "unit",
    "timestamp",
    "period_start",
    "tz_offset_min",
    "device_id",
    "gateway_id",
    "location",
    "clock",
    "metadata",
    "version",
    "deleted",
];

fn start(dir: &std::path::Path, settings: Settings) -> Lane {
    Lane::start(dir, Kind::Kafka(settings), Gate::Open, Unassigned::Forward)
}

#[tokio::test]
async fn rows_arrive_once_and_in_order_of_each_device_as_the_contract_says() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(3));
    let lane = start(dir.path(), Settings::new(vec![kafka.brokers.clone()], &topic));
    for part in 0..4 {
        lane.commit(ward(part * 500, 500)).await;
    }
    lane.until("all delivered", |tally| tally.delivered == 2_000 && tally.waiting == 0).await;
    lane.shut_down().await;
    let records = kafka.read(&topic, Isolation::Uncommitted);
    assert_once_in_order(&records, 2_000);
    for record in &records {
        let row = record.value.as_object().unwrap();
        assert_eq!(row.len(), COLUMNS.len(), "{row:?}");
        assert!(COLUMNS.iter().all(|column| row.contains_key(*column)), "{row:?}");
        assert_eq!(record.key, row["device_id"].as_str().unwrap());
        let headers = ["event_id", "schema", "gateway"].map(|name| record.headers[name].as_str());
        assert_eq!(headers, [row["event_id"].as_str().unwrap(), "1", "hub-0042"]);
        assert_eq!(record.headers.len(), 3);
    }
    let row = &records.iter().find(|record| record.key == "strap-1").unwrap().value;
    assert_eq!((&row["event_type"], &row["value"], &row["unit"]), (&"heart_rate".into(), &61.0.into(), &"/min".into()));
    assert_eq!(row["metadata"]["contact"], "detected");
    assert!(row["period_start"].is_null());
}

#[tokio::test]
async fn a_new_process_goes_on_where_the_last_one_stopped() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(1));
    for round in 0..3 {
        let lane = start(dir.path(), Settings::new(vec![kafka.brokers.clone()], &topic));
        lane.commit(ward(round * 100, 100)).await;
        lane.until("all delivered", |tally| tally.delivered == (round + 1) * 100).await;
        lane.shut_down().await;
    }
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 300);
}

#[tokio::test]
async fn every_compression_is_read_back() {
    let Some(kafka) = Kafka::shared() else { return };
    for compression in [Compression::Zstd, Compression::Lz4, Compression::Gzip, Compression::None] {
        let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(1));
        let settings = Settings { compression, ..Settings::new(vec![kafka.brokers.clone()], &topic) };
        let lane = start(dir.path(), settings);
        lane.commit(ward(0, 200)).await;
        lane.until("all delivered", |tally| tally.delivered == 200).await;
        lane.shut_down().await;
        assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 200);
    }
}

/// A text that no codec makes smaller.
fn noise(bytes: usize) -> Value {
    let mut random = fastrand::Rng::with_seed(5);
    Value::Text((0..bytes).map(|_| random.alphanumeric()).collect::<String>().as_str().into())
}

#[tokio::test]
async fn a_record_over_the_topics_limit_is_set_aside_with_the_reason_and_the_rest_goes_on() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic_with(2, &[("max.message.bytes", "4000")]));
    let lane = start(dir.path(), Settings::new(vec![kafka.brokers.clone()], &topic));
    let mut observations = ward(0, 300);
    for large in [0, 150, 299] {
        observations[large].metadata.push(("note".into(), noise(8_000)));
    }
    lane.commit(observations).await;
    let tally = lane.until("all settled", |tally| tally.waiting == 0 && tally.delivered > 0).await;
    assert_eq!((tally.delivered, tally.rejected), (297, 3));
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 297);
    let aside = lane.store.aside(10).await.unwrap();
    assert_eq!(aside.iter().filter(|entry| entry.kind == AsideKind::Rejected).count(), 3);
    assert!(aside.iter().all(|entry| entry.reason.contains("too large")), "{}", aside[0].reason);
    lane.shut_down().await;
}

#[tokio::test]
async fn an_unknown_topic_is_retried_with_the_reason_until_somebody_makes_it() {
    let Some(kafka) = Kafka::shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let topic = format!("late-{}", uuid::Uuid::new_v4().simple());
    let lane = start(dir.path(), Settings::new(vec![kafka.brokers.clone()], &topic));
    lane.commit(ward(0, 50)).await;
    lane.until("a failed try", |_| lane.health.snapshot().state == State::Retrying).await;
    let reason = lane.health.snapshot().reason.unwrap();
    assert!(reason.contains(&topic) && reason.contains("does not exist"), "{reason}");
    kafka.make_topic(&topic, 1, &[]);
    lane.until("all delivered", |tally| tally.delivered == 50).await;
    lane.until("no reason any more", |_| lane.health.snapshot().reason.is_none()).await;
    lane.shut_down().await;
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 50);
}
