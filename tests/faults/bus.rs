//! Kafka in a campaign: a topic, the way to it, its faults, and what readers find.

use serde_json::Value;

use crate::judge::FarEnd;
use crate::plan::Bus;
use crate::rig::kafka::{Isolation, Kafka};
use crate::rig::kafka_relay::{Relay, Request};

/// The brokers, and this campaign's topics.
pub(crate) struct Broker<'a> {
    kafka: &'a Kafka,
    /// In front of a single broker; of several each is reached directly.
    relay: Option<Relay>,
    topic: String,
    cursors: String,
    exactly_once: bool,
}

impl<'a> Broker<'a> {
    pub(crate) fn new(kafka: &'a Kafka, exactly_once: bool) -> Broker<'a> {
        let topic = kafka.topic(3);
        let cursors = format!("cursors-{topic}");
        kafka.make_topic(&cursors, 1, &[]);
        let relay = (!kafka.brokers.contains(',')).then(|| Relay::to(&kafka.brokers));
        Broker { kafka, relay, topic, cursors, exactly_once }
    }

    /// The destination's part of the configuration.
    pub(crate) fn configuration(&self) -> String {
        let brokers = self.relay.as_ref().map_or(&self.kafka.brokers, |relay| &relay.address);
        let brokers: Vec<&str> = brokers.split(',').collect();
        let (topic, cursors, exactly_once) = (&self.topic, &self.cursors, self.exactly_once);
        format!(
            "[[destination]]\nname = \"bus\"\nkind = \"kafka\"\nbrokers = {brokers:?}\ntopic = {topic:?}\n\
             cursor_topic = {cursors:?}\nexactly_once = {exactly_once}\n"
        )
    }

    /// Before the run: what lasts until its end, or until so many answers are lost.
    pub(crate) fn before(&self, fault: Bus) {
        match (fault, &self.relay) {
            (Bus::LosesAnswers(n), Some(relay)) => relay.swallow(Request::Produce, n),
            (Bus::LosesEnds(n), Some(relay)) => relay.swallow(Request::EndTransaction, n),
            (Bus::Holds, Some(relay)) => relay.hold(),
            (Bus::Cut, Some(relay)) => relay.cut(),
            (Bus::Paused, Some(_)) => self.kafka.pause(),
            // In mid-run; and the ways to several brokers are not ours.
            (Bus::Killed, _) | (_, None) => {}
        }
    }

    /// SIGKILL of the broker that leads, and a start of it: of several another one leads meanwhile.
    pub(crate) fn restart(&self) {
        self.kafka.kill(self.kafka.leader(&self.topic));
        self.kafka.start();
    }

    /// All is well again.
    pub(crate) fn after(&self) {
        if let Some(relay) = &self.relay {
            relay.open();
            self.kafka.resume();
        }
    }

    /// What readers find: with transactions all that a read_committed one is shown; else the first of each event_id.
    pub(crate) fn far_end(&self, by_event_id: bool) -> FarEnd {
        let isolation = if self.exactly_once { Isolation::Committed } else { Isolation::Uncommitted };
        let mut far = FarEnd::empty("bus", by_event_id || !self.exactly_once);
        self.kafka.read(&self.topic, isolation).iter().for_each(|record| far.take(&record.value));
        far
    }
}

/// Whether more came again than the batch that each start of the gateway found in hand, by what its log says of them.
pub(crate) fn repeats_too_much(far: &FarEnd, log: &str) -> Option<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let (mut starts, mut taken_up, mut events) = (0u64, 0u64, 0u64);
    for line in lines {
        match line["message"].as_str() {
            Some("running") => starts += 1,
            Some("batch in hand") if line["destination"] == far.name && line["resumed"] == true => {
                taken_up += 1;
                events += line["last"].as_u64().unwrap_or(0) + 1 - line["first"].as_u64().unwrap_or(0);
            }
            _ => {}
        }
    }
    (far.repeated > events || taken_up > starts).then(|| {
        let (name, repeated) = (far.name, far.repeated);
        format!("{name}: {repeated} again, and {starts} starts took up {taken_up} batches of {events} events in all")
    })
}
