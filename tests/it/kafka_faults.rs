//! The Kafka destination while brokers and lines fail: nothing is lost, and nothing doubled while the process lives.

use std::path::Path;
use std::time::Duration;

use biogate::forward::Gate;
use biogate::forward::Kind;
use biogate::forward::health::State;
use biogate::forward::kafka::Settings;
use biogate::resolve::Unassigned;

use crate::rig::events::ward;
use crate::rig::kafka::{Isolation, Kafka, assert_once_in_order};
use crate::rig::kafka_relay::{Relay, Request};
use crate::rig::lane::Lane;
use crate::rig::until;

fn start(dir: &Path, brokers: &str, topic: &str) -> Lane {
    let brokers = brokers.split(',').map(str::to_owned).collect();
    Lane::start(dir, Kind::Kafka(Settings::new(brokers, topic)), Gate::Open, Unassigned::Forward)
}

async fn delivered(lane: &Lane, count: u64) {
    lane.until(&format!("{count} delivered"), |tally| tally.delivered == count && tally.waiting == 0).await;
}

async fn waits(lane: &Lane, words: &str) {
    let says = |_: &_| {
        let now = lane.health.snapshot();
        now.state == State::Retrying && now.reason.is_some_and(|reason| reason.contains(words))
    };
    lane.until(&format!("{words:?} as the reason"), says).await;
}

#[tokio::test]
async fn a_broker_that_is_away_at_the_start_and_again_later_loses_and_doubles_nothing() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic, relay) = (tempfile::tempdir().unwrap(), kafka.topic(2), Relay::to(&kafka.brokers));
    relay.cut();
    let lane = start(dir.path(), &relay.address, &topic);
    lane.commit(ward(0, 300)).await;
    waits(&lane, "reached").await;
    relay.open();
    delivered(&lane, 300).await;
    relay.cut();
    for part in 1..4 {
        lane.commit(ward(part * 300, 300)).await;
    }
    waits(&lane, "reached").await;
    relay.open();
    delivered(&lane, 1_200).await;
    let tally = lane.tally();
    assert_eq!((tally.rejected, tally.damaged, tally.resent), (0, 0, 0));
    lane.shut_down().await;
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 1_200);
}

#[tokio::test]
async fn lost_acknowledgements_double_nothing() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic, relay) = (tempfile::tempdir().unwrap(), kafka.topic(1), Relay::to(&kafka.brokers));
    let lane = start(dir.path(), &relay.address, &topic);
    lane.commit(ward(0, 10)).await;
    delivered(&lane, 10).await;
    for round in 1..4 {
        relay.swallow(Request::Produce, 1);
        lane.commit(ward(round * 500, 500)).await;
        delivered(&lane, 10 + round * 500).await;
    }
    assert_eq!(relay.swallowed(), 3);
    lane.shut_down().await;
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 1_510);
}

#[tokio::test]
async fn a_line_that_holds_its_breath_is_waited_out() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic, relay) = (tempfile::tempdir().unwrap(), kafka.topic(1), Relay::to(&kafka.brokers));
    let lane = start(dir.path(), &relay.address, &topic);
    lane.commit(ward(0, 10)).await;
    delivered(&lane, 10).await;
    relay.hold();
    lane.commit(ward(10, 500)).await;
    lane.until("a reason", |_| lane.health.snapshot().state == State::Retrying).await;
    relay.open();
    delivered(&lane, 510).await;
    lane.shut_down().await;
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 510);
}

#[tokio::test]
async fn a_broker_that_is_killed_or_stopped_in_mid_stream_is_waited_out() {
    let Some(kafka) = Kafka::own(&[]) else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(2));
    let lane = start(dir.path(), &kafka.brokers, &topic);
    let mut sent = 0;
    // Some batches are on their way at each fault.
    for fault in ["kill", "stop"] {
        for _ in 0..5 {
            lane.commit(ward(sent, 1_000)).await;
            sent += 1_000;
        }
        lane.until("the first of them", |tally| tally.delivered > sent - 5_000).await;
        match fault {
            "kill" => kafka.kill(1),
            _ => kafka.pause(),
        }
        lane.commit(ward(sent, 1_000)).await;
        sent += 1_000;
        lane.until("a reason", |_| lane.health.snapshot().state == State::Retrying).await;
        match fault {
            "kill" => kafka.start(),
            _ => kafka.resume(),
        }
        delivered(&lane, sent).await;
    }
    assert_eq!(lane.tally().resent, 0);
    lane.shut_down().await;
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 12_000);
}

#[tokio::test]
async fn a_killed_leader_of_three_brokers_costs_seconds_and_nothing_else() {
    let Some(kafka) = Kafka::own(&["--nodes", "3"]) else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(1));
    let lane = start(dir.path(), &kafka.brokers, &topic);
    lane.commit(ward(0, 1_000)).await;
    delivered(&lane, 1_000).await;
    let leader = kafka.leader(&topic);
    for part in 1..6 {
        lane.commit(ward(part * 1_000, 1_000)).await;
        if part == 2 {
            kafka.kill(leader);
        }
    }
    delivered(&lane, 6_000).await;
    until("another leader", || kafka.leader(&topic) != leader).await;
    lane.shut_down().await;
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 6_000);
}

#[tokio::test]
async fn a_stop_during_an_outage_is_quick_and_the_next_process_delivers() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic, relay) = (tempfile::tempdir().unwrap(), kafka.topic(1), Relay::to(&kafka.brokers));
    let lane = start(dir.path(), &relay.address, &topic);
    lane.commit(ward(0, 100)).await;
    delivered(&lane, 100).await;
    relay.cut();
    lane.commit(ward(100, 100)).await;
    lane.until("a reason", |_| lane.health.snapshot().state == State::Retrying).await;
    let begun = std::time::Instant::now();
    lane.shut_down().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    relay.open();
    let lane = start(dir.path(), &relay.address, &topic);
    delivered(&lane, 200).await;
    lane.shut_down().await;
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 200);
}
