//! MQTT with a real mosquitto: what is not durable is not acknowledged, what is not acknowledged comes again.

use std::collections::BTreeMap;
use std::time::Duration;

use biogate::reading::Channel;
use biogate::source::delivery::Delivery;
use biogate::source::health::Count;
use biogate::source::mqtt::{self, MqttBroker, MqttDevice};
use rumqttc::v5::mqttbytes::QoS;
use tokio::task::JoinHandle;

use crate::rig::mosquitto::{Mosquitto, Note, note};
use crate::rig::source::Rig;
use crate::rig::until;

const BROKER: &str = "broker ward";

fn settings(broker: &Mosquitto, topic: &str) -> MqttBroker {
    let device = MqttDevice { entry: "beds".into(), topic: topic.parse().unwrap() };
    MqttBroker::new("ward", &broker.url(), "hub-1", vec![device])
}

/// A source that is connected and subscribed.
async fn connected(settings: MqttBroker) -> (Rig, JoinHandle<()>) {
    let (context, rig) = Rig::new();
    let source = tokio::spawn(mqtt::run(settings, context));
    until("the source is connected", || rig.state(BROKER).starts_with("connected")).await;
    (rig, source)
}

/// Stops a source as a kill would: no goodbye, no acknowledgement.
async fn kill(source: JoinHandle<()>) {
    source.abort();
    source.await.ok();
}

fn give(delivery: Delivery) {
    delivery.receipt.expect("a receipt").give();
}

fn packet(delivery: &Delivery) -> (u16, bool, u64) {
    let publish = delivery.publish.as_ref().expect("a publish");
    (publish.packet_id, publish.redelivered, publish.payload_hash)
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.reading.bytes).unwrap()
}

/// The next message that is no repeat: one whose acknowledgement was lost with the connection may come before it.
async fn new_text(rig: &mut Rig) -> String {
    loop {
        let delivery = rig.next().await;
        let (text, repeated) = (text(&delivery).to_owned(), packet(&delivery).1);
        give(delivery);
        if !repeated {
            return text;
        }
    }
}

#[tokio::test]
async fn a_topic_names_the_device_that_it_captures() {
    let Some(broker) = Mosquitto::start() else { return };
    let (mut rig, _source) = connected(settings(&broker, "clinic/{device}/vitals")).await;
    broker.publish(vec![note("clinic/bed 9/vitals", "x"), note("clinic/bed-9/vitals", "72")]).await;
    let delivery = rig.next().await;
    assert_eq!((&*delivery.reading.device, &*delivery.reading.entry), ("bed-9", "beds"));
    assert_eq!(delivery.reading.channel, Channel::Message { topic: "clinic/bed-9/vitals".into() });
    assert_eq!(text(&delivery), "72");
    assert_eq!(delivery.publish.unwrap().window, mqtt::RECEIVE_MAXIMUM);
    assert_eq!(rig.count(BROKER, Count::Refused), 1);
}

#[tokio::test]
async fn what_has_no_receipt_comes_again_after_a_kill_with_its_packet_id() {
    let Some(broker) = Mosquitto::start() else { return };
    let settings = settings(&broker, "clinic/{device}/vitals");
    let (mut rig, source) = connected(settings.clone()).await;
    broker.publish(vec![note("clinic/a/vitals", "1"), note("clinic/a/vitals", "2")]).await;
    let (first, second) = (rig.next().await, rig.next().await);
    let (before, unacknowledged) = (packet(&first), packet(&second));
    assert!(!before.1 && !unacknowledged.1);
    give(first);
    kill(source).await;

    let (mut rig, _source) = connected(settings).await;
    let mut again = rig.next().await;
    if text(&again) == "1" {
        // Its acknowledgement was still on its way.
        assert_eq!(packet(&again), (before.0, true, before.2));
        give(std::mem::replace(&mut again, rig.next().await));
    }
    assert_eq!((text(&again), packet(&again)), ("2", (unacknowledged.0, true, unacknowledged.2)));
    rig.nothing_comes().await;
}

#[tokio::test]
async fn a_repeat_within_the_process_takes_up_its_receipt() {
    let Some(mut broker) = Mosquitto::start() else { return };
    let (mut rig, _source) = connected(settings(&broker, "clinic/{device}/vitals")).await;
    broker.publish(vec![note("clinic/a/vitals", "1")]).await;
    let first = rig.next().await;
    broker.stop();
    until("the source has noticed", || rig.state(BROKER).starts_with("disconnected")).await;
    broker.launch();
    until("the session is resumed", || rig.state(BROKER).ends_with("session resumed")).await;
    rig.nothing_comes().await;
    give(first);
    broker.publish(vec![note("clinic/a/vitals", "2")]).await;
    assert_eq!(rig.next_text().await, "2");
}

#[tokio::test]
async fn messages_go_on_after_the_broker_was_restarted() {
    let Some(mut broker) = Mosquitto::start() else { return };
    let (mut rig, _source) = connected(settings(&broker, "clinic/{device}/vitals")).await;
    for turn in 0..2u64 {
        broker.publish(vec![note("clinic/a/vitals", turn.to_string())]).await;
        assert_eq!(new_text(&mut rig).await, turn.to_string());
        broker.stop();
        broker.launch();
        until("the source is back", || {
            rig.count(BROKER, Count::Disconnects) == turn + 1 && rig.state(BROKER).starts_with("connected")
        })
        .await;
    }
    broker.publish(vec![note("clinic/a/vitals", "end")]).await;
    assert_eq!(new_text(&mut rig).await, "end");
}

#[tokio::test]
async fn a_session_that_the_broker_lost_is_subscribed_anew() {
    let Some(mut broker) = Mosquitto::start() else { return };
    let (mut rig, _source) = connected(settings(&broker, "clinic/{device}/vitals")).await;
    broker.publish(vec![note("clinic/a/vitals", "1")]).await;
    let in_doubt = rig.next().await;
    broker.forget();
    until("a new session", || rig.count(BROKER, Count::Disconnects) == 1 && rig.state(BROKER).ends_with("new session"))
        .await;
    give(in_doubt);
    broker.publish(vec![note("clinic/a/vitals", "2"), note("clinic/a/vitals", "3")]).await;
    assert_eq!(rig.next_text().await, "2");
    assert_eq!(rig.next_text().await, "3");
}

#[tokio::test]
async fn forty_devices_come_through_one_connection_without_a_drop() {
    let Some(broker) = Mosquitto::start() else { return };
    let (mut rig, _source) = connected(settings(&broker, "clinic/{device}/vitals")).await;
    const DEVICES: usize = 40;
    const ROUNDS: usize = 100;
    let publish = async {
        for round in 0..ROUNDS {
            let notes = (0..DEVICES).map(|n| note(&format!("clinic/bed-{n}/vitals"), round.to_string()));
            broker.publish(notes.collect()).await;
        }
    };
    let take = async {
        // As the intake does it: receipts are given together, at half of the window.
        let (mut seen, mut held) = (BTreeMap::<String, usize>::new(), Vec::new());
        for n in 1..=DEVICES * ROUNDS {
            let delivery = rig.next().await;
            let round = seen.entry(delivery.reading.device.to_string()).or_default();
            assert_eq!(text(&delivery), round.to_string());
            *round += 1;
            held.push(delivery.receipt.expect("a receipt"));
            if held.len() == 500 || n == DEVICES * ROUNDS {
                held.drain(..).for_each(biogate::source::delivery::Receipt::give);
            }
        }
        seen
    };
    let ((), seen) = tokio::join!(publish, take);
    assert_eq!(seen.len(), DEVICES);
    assert!(rig.health.snapshot().iter().all(|device| device.flooded + device.dropped == 0));
}

#[tokio::test]
async fn a_flooding_device_is_counted_and_the_others_are_unharmed() {
    let Some(broker) = Mosquitto::start() else { return };
    let (mut rig, _source) = connected(settings(&broker, "clinic/{device}/vitals")).await;
    // The intake takes nothing, so the flood is held; then the others speak.
    broker.publish((0..700).map(|n| note("clinic/loud/vitals", n.to_string())).collect()).await;
    until("the flood is dropped", || rig.count("loud", Count::Flooded) > 0).await;
    broker.publish((0..20).map(|n| note("clinic/quiet/vitals", n.to_string())).collect()).await;
    let mut quiet = 0;
    while quiet < 20 {
        let delivery = rig.next().await;
        if &*delivery.reading.device == "quiet" {
            assert_eq!(text(&delivery), quiet.to_string());
            quiet += 1;
        }
        give(delivery);
    }
    assert_eq!(rig.count("quiet", Count::Flooded), 0);
    assert_eq!(rig.count("loud", Count::Flooded), 700 - 32);
}

#[tokio::test]
async fn a_packet_over_the_limit_costs_nothing_but_itself() {
    let Some(broker) = Mosquitto::start() else { return };
    let (mut rig, _source) = connected(settings(&broker, "clinic/{device}/vitals")).await;
    let large = note("clinic/a/vitals", vec![b'x'; mqtt::MAX_PACKET + 1]);
    let nearly = note("clinic/a/vitals", vec![b'y'; mqtt::MAX_PACKET - 100]);
    broker.publish(vec![large, nearly, note("clinic/a/vitals", "1")]).await;
    assert_eq!(rig.next_text().await.len(), mqtt::MAX_PACKET - 100);
    assert_eq!(rig.next_text().await, "1");
    assert_eq!(rig.count(BROKER, Count::Disconnects), 0);
}

#[tokio::test]
async fn a_message_at_qos_0_has_no_receipt() {
    let Some(broker) = Mosquitto::start() else { return };
    let (mut rig, _source) = connected(settings(&broker, "clinic/{device}/vitals")).await;
    broker.publish(vec![Note { qos: QoS::AtMostOnce, ..note("clinic/a/vitals", "0") }]).await;
    let delivery = rig.next().await;
    assert_eq!(text(&delivery), "0");
    assert!(delivery.receipt.is_none() && delivery.publish.is_none());
}

#[tokio::test]
async fn names_beyond_max_devices_are_refused() {
    let Some(broker) = Mosquitto::start() else { return };
    let (mut rig, _source) =
        connected(MqttBroker { max_devices: 2, ..settings(&broker, "clinic/{device}/vitals") }).await;
    broker.publish((0..5).map(|n| note(&format!("clinic/bed-{n}/vitals"), "1")).collect()).await;
    broker.publish(vec![note("clinic/bed-0/vitals", "2")]).await;
    assert_eq!(&*rig.next().await.reading.device, "bed-0");
    assert_eq!(&*rig.next().await.reading.device, "bed-1");
    assert_eq!(rig.next_text().await, "2");
    assert_eq!(rig.count(BROKER, Count::Refused), 3);
}

#[tokio::test]
async fn retained_messages_are_old_news() {
    let Some(broker) = Mosquitto::start() else { return };
    broker.publish(vec![Note { retain: true, ..note("clinic/a/vitals", "old") }]).await;
    let (mut rig, _source) = connected(settings(&broker, "clinic/{device}/vitals")).await;
    until("the retained message is counted", || rig.count(BROKER, Count::Retained) == 1).await;
    broker.publish(vec![Note { retain: true, ..note("clinic/a/vitals", "new") }]).await;
    assert_eq!(rig.next_text().await, "new", "sent while subscribed, it is news");
}

#[tokio::test]
async fn receipts_given_while_the_gateway_stops_are_still_acknowledged() {
    let Some(broker) = Mosquitto::start() else { return };
    let settings = settings(&broker, "clinic/{device}/vitals");
    let (mut rig, source) = connected(settings.clone()).await;
    broker.publish(vec![note("clinic/a/vitals", "1"), note("clinic/a/vitals", "2")]).await;
    let (first, second) = (rig.next().await, rig.next().await);
    rig.stop.send(true).unwrap();
    // The source lets go of the channel first, so that the intake sees its end and commits.
    assert!(rig.deliveries.recv().await.is_none());
    give(first);
    give(second);
    tokio::time::timeout(Duration::from_secs(5), source).await.expect("stopped before its deadline").unwrap();
    let (mut rig, _source) = connected(settings).await;
    rig.nothing_comes().await;
}

#[tokio::test]
async fn a_message_that_could_not_be_stored_comes_again() {
    let Some(broker) = Mosquitto::start() else { return };
    let (mut rig, _source) = connected(settings(&broker, "clinic/{device}/vitals")).await;
    broker.publish(vec![note("clinic/a/vitals", "1")]).await;
    drop(rig.next().await);
    let again = rig.next().await;
    assert_eq!((text(&again), packet(&again).1), ("1", true));
}

#[tokio::test]
async fn a_broker_without_mqtt_5_is_spoken_to_in_3_1_1() {
    let Some(broker) = Mosquitto::start() else { return };
    let front = crate::rig::mosquitto::old_broker(broker.port).await;
    let url = format!("mqtt://127.0.0.1:{front}");
    let (mut rig, _source) = connected(MqttBroker { url, ..settings(&broker, "clinic/{device}/vitals") }).await;
    assert!(rig.state(BROKER).contains("3.1.1"), "{}", rig.state(BROKER));
    let large = note("clinic/a/vitals", vec![b'x'; mqtt::MAX_PACKET + 1]);
    broker.publish(vec![large, note("clinic/a/vitals", "1")]).await;
    let delivery = rig.next().await;
    assert_eq!((text(&delivery), delivery.publish.as_ref().unwrap().window), ("1", 20));
    assert_eq!(rig.count(BROKER, Count::Oversized), 1);
}

#[tokio::test]
async fn a_packet_that_cannot_even_be_read_does_not_block_the_rest_for_ever() {
    let Some(broker) = Mosquitto::start() else { return };
    let front = crate::rig::mosquitto::old_broker(broker.port).await;
    let url = format!("mqtt://127.0.0.1:{front}");
    let (mut rig, _source) = connected(MqttBroker { url, ..settings(&broker, "clinic/{device}/vitals") }).await;
    broker.publish(vec![note("clinic/a/vitals", vec![b'x'; mqtt::MAX_PACKET_V4 + 1])]).await;
    until("it is met three times", || rig.count(BROKER, Count::Oversized) == 3).await;
    until("the session is new", || rig.state(BROKER).ends_with("new session")).await;
    broker.publish(vec![note("clinic/a/vitals", "1")]).await;
    assert_eq!(rig.next_text().await, "1");
}

#[tokio::test]
async fn a_secured_broker_wants_certificates_and_the_password() {
    let Some(broker) = Mosquitto::start_secured() else { return };
    let file = |name: &str| Some(broker.folder.path().join(name));
    let open = settings(&broker, "clinic/{device}/vitals");
    let url = format!("mqtts://localhost:{}", broker.port);
    std::fs::write(broker.folder.path().join("password"), "wrong\n").unwrap();
    let secured = MqttBroker {
        url,
        user: Some("hub".to_owned()),
        password_file: file("password"),
        cert_file: file("hub.pem"),
        key_file: file("hub.key"),
        ..open
    };
    let (context, rig) = Rig::new();
    let _unsure = tokio::spawn(mqtt::run(secured.clone(), context));
    until("an unknown authority is refused", || rig.state(BROKER).contains("certificate verify failed")).await;

    let (context, rig) = Rig::new();
    let trusting = MqttBroker { ca_file: file("ca.pem"), ..secured };
    let _source = tokio::spawn(mqtt::run(trusting, context));
    until("the wrong password is refused", || rig.state(BROKER).contains("NotAuthorized")).await;
    std::fs::write(broker.folder.path().join("password"), "secret\n").unwrap();
    until("the password is read again", || rig.state(BROKER).starts_with("connected by MQTT 5")).await;
}
