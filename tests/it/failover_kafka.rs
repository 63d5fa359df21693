//! A failover whose first destination is a Kafka topic: what its producer had in hand is dropped with it.

use std::path::Path;
use std::time::Duration;

use biogate::forward::failover::{CURSOR, Settings};
use biogate::forward::health::State;
use biogate::forward::{Kind, file, kafka};

use crate::rig::events::ward;
use crate::rig::kafka::{Isolation, Kafka, assert_once_in_order};
use crate::rig::kafka_relay::Relay;
use crate::rig::ways::Ways;

fn start(dir: &Path, relay: &Relay, topic: &str, in_doubt: Duration) -> Ways {
    let bus = Kind::Kafka(kafka::Settings::new(vec![relay.address.clone()], topic));
    let archive = Kind::File(file::Settings::new(dir.join("archive")));
    let times = Settings {
        in_doubt,
        after: Duration::from_millis(300),
        back_after: Duration::from_secs(1),
        ..Settings::new(Vec::new())
    };
    Ways::failover(dir, &[("bus", bus), ("archive", archive)], &times)
}

fn filed(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("archive")).unwrap();
    let events = files.map(Result::unwrap).filter(|file| file.file_name().to_string_lossy().starts_with("events-"));
    events.map(|file| std::fs::read_to_string(file.path()).unwrap().lines().count()).sum()
}

#[tokio::test]
async fn a_broker_that_was_never_reached_is_given_up_soon_and_comes_back() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic, relay) = (tempfile::tempdir().unwrap(), kafka.topic(2), Relay::to(&kafka.brokers));
    relay.cut();
    let ways = start(dir.path(), &relay, &topic, Duration::from_secs(3_600));
    ways.commit(ward(0, 300)).await;
    ways.until("delivered by the next", |ways| ways.tally(CURSOR).delivered == 300).await;
    assert_eq!(ways.tally(CURSOR).in_doubt_resent, 0, "nothing was queued");
    relay.open();
    let mut sent = 300;
    while ways.health("bus").active != Some(true) {
        ways.commit(ward(sent, 10)).await;
        sent += 10;
        ways.until("delivered", |ways| ways.tally(CURSOR).delivered == sent).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(sent < 5_000, "the bus never takes over: {:?}", ways.health("bus"));
    }
    assert_eq!(ways.tally(CURSOR).in_doubt_resent, 0);
    ways.shut_down().await;
    let records = kafka.read(&topic, Isolation::Uncommitted);
    assert_once_in_order(&records, sent as usize - filed(dir.path()));
}

#[tokio::test]
async fn what_lay_in_the_producer_is_dropped_with_it_and_counts_as_in_doubt() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic, relay) = (tempfile::tempdir().unwrap(), kafka.topic(2), Relay::to(&kafka.brokers));
    let ways = start(dir.path(), &relay, &topic, Duration::from_secs(6));
    ways.commit(ward(0, 300)).await;
    ways.until("delivered by the bus", |ways| ways.tally(CURSOR).delivered == 300).await;
    relay.cut();
    let began = std::time::Instant::now();
    ways.commit(ward(300, 300)).await;
    ways.until("trouble", |ways| ways.health("bus").state == State::Retrying).await;
    ways.until("delivered by the next", |ways| ways.tally(CURSOR).delivered == 600).await;
    assert!(began.elapsed() >= Duration::from_secs(6), "given up after {:?}", began.elapsed());
    assert_eq!((ways.tally(CURSOR).in_doubt_resent, filed(dir.path())), (300, 300));
    relay.open();
    tokio::time::sleep(Duration::from_secs(2)).await;
    ways.shut_down().await;
    // What was given up never arrives late.
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 300);
}
