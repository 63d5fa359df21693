//! TLS, certificates, passwords and rights towards a real Kafka: what is right is let in, and what is wrong is said in the
//! words of who has to mend it, while the events wait.

use std::path::Path;

use biogate::forward::Gate;
use biogate::forward::Kind;
use biogate::forward::health::State;
use biogate::forward::kafka::{Compression, Sasl, Settings};
use biogate::resolve::Unassigned;

use crate::rig::events::ward;
use crate::rig::kafka::{Isolation, Kafka, assert_once_in_order};
use crate::rig::lane::Lane;

/// TLS to these brokers.
fn tls(kafka: &Kafka, brokers: &str, topic: &str) -> Settings {
    let mut settings = Settings::new(vec![brokers.to_owned()], topic);
    settings.tls = true;
    settings.ca_file = Some(kafka.tls("ca.pem"));
    settings
}

/// TLS with the certificate of `name`.
fn certificate(kafka: &Kafka, topic: &str, name: &str) -> Settings {
    let mut settings = tls(kafka, kafka.ssl(), topic);
    settings.cert_file = Some(kafka.tls(&format!("{name}.pem")));
    settings.key_file = Some(kafka.tls(&format!("{name}.key")));
    settings
}

/// TLS and SCRAM-SHA-512 with the password in a file of `dir`.
fn password(kafka: &Kafka, topic: &str, user: &str, dir: &Path, password: &str) -> Settings {
    let mut settings = tls(kafka, kafka.sasl_ssl(), topic);
    let file = dir.join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    (settings.sasl, settings.user) = (Some(Sasl::ScramSha512), Some(user.to_owned()));
    settings.password_file = Some(file);
    settings
}

/// A loop with ten events for the topic.
async fn lane(dir: &Path, settings: Settings) -> Lane {
    let lane = Lane::start(dir, Kind::Kafka(settings), Gate::Open, Unassigned::Forward);
    lane.commit(ward(0, 10)).await;
    lane
}

async fn delivers(lane: Lane, kafka: &Kafka, topic: &str) {
    lane.until("all delivered", |tally| tally.delivered == 10).await;
    lane.shut_down().await;
    assert_once_in_order(&kafka.read(topic, Isolation::Uncommitted), 10);
}

/// Why it waits, once it says so in these words.
async fn waits_because(lane: &Lane, words: &[&str]) {
    let says = |_: &_| {
        let now = lane.health.snapshot();
        now.state == State::Retrying && words.iter().all(|word| now.reason.as_deref().unwrap_or("").contains(word))
    };
    let tally = lane.until(&format!("{words:?} as the reason"), says).await;
    assert_eq!((tally.delivered, tally.rejected, tally.waiting), (0, 0, 10), "what may pass loses nothing");
}

#[tokio::test]
async fn a_client_certificate_is_let_in() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(1));
    delivers(lane(dir.path(), certificate(&kafka, &topic, "client")).await, &kafka, &topic).await;
}

#[tokio::test]
async fn a_wrong_authority_is_named_as_the_reason() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(1));
    let mut settings = certificate(&kafka, &topic, "client");
    settings.ca_file = Some(kafka.tls("stranger-ca.pem"));
    let lane = lane(dir.path(), settings).await;
    waits_because(&lane, &["ca_file does not vouch for", kafka.ssl()]).await;
    lane.shut_down().await;
}

#[tokio::test]
async fn a_strangers_certificate_and_none_at_all_are_refused_in_words() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(1));
    let stranger = lane(dir.path(), certificate(&kafka, &topic, "stranger")).await;
    let other = tempfile::tempdir().unwrap();
    let none = lane(other.path(), tls(&kafka, kafka.ssl(), &topic)).await;
    waits_because(&stranger, &["cert_file"]).await;
    waits_because(&none, &["cert_file"]).await;
    stranger.shut_down().await;
    none.shut_down().await;
}

#[tokio::test]
async fn a_wrong_password_is_named_and_the_right_one_in_its_place_goes_on_without_a_restart() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(1));
    let lane = lane(dir.path(), password(&kafka, &topic, "gateway", dir.path(), "wr0ng-secret")).await;
    waits_because(&lane, &["wrong password", "user gateway"]).await;
    assert!(!lane.health.snapshot().reason.unwrap().contains("wr0ng-secret"));
    std::fs::write(dir.path().join("password"), format!("{}\n", kafka.password())).unwrap();
    delivers(lane, &kafka, &topic).await;
}

#[tokio::test]
async fn sasl_plain_over_tls_lets_the_right_password_in_and_names_a_wrong_one() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(1));
    let mut settings = password(&kafka, &topic, "gateway", dir.path(), "wr0ng-secret");
    settings.sasl = Some(Sasl::Plain);
    let lane = lane(dir.path(), settings).await;
    waits_because(&lane, &["wrong password", "user gateway"]).await;
    std::fs::write(dir.path().join("password"), format!("{}\n", kafka.password())).unwrap();
    delivers(lane, &kafka, &topic).await;
}

#[tokio::test]
async fn every_way_to_log_in_carries_transactions_too() {
    let Some(kafka) = Kafka::shared() else { return };
    let cursors = kafka.topic(1);
    let ways = ["plain", "scram", "certificate"];
    for way in ways {
        let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(1));
        let mut settings = match way {
            "certificate" => certificate(&kafka, &topic, "client"),
            _ => password(&kafka, &topic, "gateway", dir.path(), kafka.password()),
        };
        if way == "plain" {
            settings.sasl = Some(Sasl::Plain);
        }
        (settings.exactly_once, settings.cursor_topic) = (true, cursors.clone());
        let lane = lane(dir.path(), settings).await;
        lane.until(way, |tally| tally.delivered == 10).await;
        lane.shut_down().await;
        assert_once_in_order(&kafka.read(&topic, Isolation::Committed), 10);
    }
}

#[tokio::test]
async fn a_port_without_tls_and_tls_where_none_is_expected_are_said_in_words() {
    let Some(kafka) = Kafka::shared() else { return };
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic(1));
    let too_much = lane(dir.path(), tls(&kafka, &kafka.brokers, &topic)).await;
    let other = tempfile::tempdir().unwrap();
    let too_little = lane(other.path(), Settings::new(vec![kafka.ssl().to_owned()], &topic)).await;
    waits_because(&too_much, &["TLS", "port"]).await;
    waits_because(&too_little, &["TLS"]).await;
    too_much.shut_down().await;
    too_little.shut_down().await;
}

#[tokio::test]
async fn a_missing_right_is_named_and_a_granted_one_lets_the_waiting_events_through() {
    let Some(kafka) = Kafka::shared() else { return };
    // The right to write says nothing of the right to read the topic's limit: the broker itself refuses what is too large.
    let (dir, topic) = (tempfile::tempdir().unwrap(), kafka.topic_with(1, &[("max.message.bytes", "4000")]));
    let mut settings = password(&kafka, &topic, "outsider", dir.path(), kafka.password());
    settings.compression = Compression::None;
    let lane = lane(dir.path(), settings).await;
    waits_because(&lane, &["outsider", &topic, "may not"]).await;
    kafka.grant(&topic);
    lane.until("all delivered", |tally| tally.delivered == 10).await;
    let mut observations = ward(10, 10);
    let large = biogate::observation::Value::Text("x".repeat(9_000).as_str().into());
    observations[4].metadata.push(("note".into(), large));
    lane.commit(observations).await;
    let tally = lane.until("all settled", |tally| tally.waiting == 0).await;
    assert_eq!((tally.delivered, tally.rejected), (19, 1));
    assert!(lane.store.aside(10).await.unwrap()[0].reason.contains("too large"));
    lane.shut_down().await;
    assert_once_in_order(&kafka.read(&topic, Isolation::Uncommitted), 19);
}
