//! The rig itself: a relay that lost nothing would let every test of a fault pass.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::rig::kafka::{Isolation, Kafka};
use crate::rig::kafka_relay::{Relay, Request};

fn produce(config: &mut ClientConfig, topic: &str, number: u32) -> Result<(), String> {
    let producer: BaseProducer = config.set("message.timeout.ms", "10000").create().unwrap();
    let value = number.to_string();
    producer.send(BaseRecord::to(topic).key("a").payload(&value)).map_err(|(error, _)| error.to_string())?;
    producer.flush(Duration::from_secs(12)).map_err(|error| error.to_string())
}

#[test]
fn a_lost_answer_doubles_a_record_without_idempotence_and_not_with_it() {
    let Some(kafka) = Kafka::shared() else { return };
    let relay = Relay::to(&kafka.brokers);
    for (idempotence, expected) in [("false", 2), ("true", 1)] {
        let topic = kafka.topic(1);
        let before = relay.swallowed();
        relay.swallow(Request::Produce, 1);
        let mut config = kafka.client();
        config.set("bootstrap.servers", &relay.address).set("enable.idempotence", idempotence);
        produce(&mut config, &topic, 7).unwrap();
        assert_eq!(relay.swallowed(), before + 1);
        let records = kafka.read(&topic, Isolation::Uncommitted);
        assert_eq!(records.len(), expected, "{records:?}");
    }
}
