//! One connection after the other to one broker: what comes in, what is held, what is acknowledged.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::reading::{Heard, Reading};
use crate::source::context::{Context, Stop, Uptime};
use crate::source::delivery::Publish;
use crate::source::health::{Count, DeviceHealth};
use crate::source::mqtt::acks::{Acks, State};
use crate::source::mqtt::devices::{Admitted, Devices, Held};
use crate::source::mqtt::link::{self, Fault, Incoming, Message, Reader, Version, Writer};
use crate::source::mqtt::options::CONNECT_DEADLINE;
use crate::source::mqtt::topic::{Fit, Topics};
use crate::source::mqtt::{MAX_PACKET, MqttBroker, payload_hash};

/// How often a place is looked for while something is held.
const LOOK: Duration = Duration::from_millis(2);

/// How long the last acknowledgements and the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The client's read buffer; a payload as long as it wastes at most half.
const READ_BUFFER: usize = 64 * 1024;

/// How much of a topic a log line shows.
const SHOWN: usize = 80;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The sources stop.
    Stopped,
    /// It was made only to discard the session, and that is done.
    Discarded,
    /// It failed; `connected_for` is `None` when the broker never accepted it.
    Fault { fault: Fault, connected_for: Option<Duration> },
}

/// What outlives the connections to a broker.
pub(super) struct Connection {
    broker: MqttBroker,
    topics: Topics,
    devices: Devices,
    acks: Acks,
    health: Arc<DeviceHealth>,
    uptime: Uptime,
    stop: Stop,
}

/// How far this connection is.
struct Phase {
    version: Version,
    discard: bool,
    connected_at: Option<Instant>,
    /// SUBACKs still to come, and subscriptions refused so far.
    subscribing: usize,
    refused: usize,
    /// When the broker must have accepted, and then have answered the subscriptions.
    answer_by: Option<Instant>,
    /// Once the sources stop: until when receipts are waited for.
    linger_until: Option<Instant>,
}

impl Connection {
    pub(super) fn new(broker: MqttBroker, context: Context) -> Self {
        let health = context.health.broker(&broker.name);
        let mut topics = Topics::default();
        for device in &broker.devices {
            topics.add(device.topic.clone(), device.entry.clone());
        }
        let devices = Devices::new(context.inlet, context.health, broker.name.clone(), broker.max_devices);
        let acks = Acks::default();
        Connection { broker, topics, devices, acks, health, uptime: context.uptime, stop: context.stop }
    }

    /// Connects and hears until something ends it.
    pub(super) async fn run(&mut self, version: Version, discard: bool) -> Ended {
        let mut phase = Phase {
            version,
            discard,
            connected_at: None,
            subscribing: 0,
            refused: 0,
            answer_by: Some(Instant::now() + CONNECT_DEADLINE),
            linger_until: None,
        };
        let (writer, mut reader) = match link::new(&self.broker, version, discard) {
            Ok(link) => link,
            Err(error) => return Ended::Fault { fault: Fault::Other(error.to_string()), connected_for: None },
        };
        let ended = loop {
            match self.next(&mut reader, &writer, &mut phase).await {
                Ok(Some(incoming)) => {
                    if let Err(ended) = self.take(incoming, &writer, &mut phase) {
                        break ended;
                    }
                }
                Ok(None) => break Ended::Stopped,
                Err(fault) => break phase.fault(fault),
            }
        };
        self.devices.set_in_reach(false);
        let says_goodbye = phase.connected_at.is_some() || matches!(ended, Ended::Discarded);
        if says_goodbye && matches!(ended, Ended::Stopped | Ended::Discarded) && writer.disconnect() {
            let _broker_may_be_slow = timeout(GOODBYE, async { while reader.poll().await.is_ok() {} }).await.is_err();
        }
        self.acks.disconnected();
        ended
    }

    /// The next thing that comes in; meanwhile messages go to the intake, and acknowledgements out. `None` at the stop.
    async fn next(
        &mut self,
        reader: &mut Reader,
        writer: &Writer,
        phase: &mut Phase,
    ) -> Result<Option<Incoming>, Fault> {
        // One poll, kept until it is ready: dropped half-way it could lose what it has read.
        let mut poll = pin!(reader.poll());
        loop {
            let late = phase.answer_by.unwrap_or_else(Instant::now);
            let linger = phase.linger_until.unwrap_or_else(Instant::now);
            tokio::select! {
                incoming = &mut poll => return incoming.map(Some),
                () = self.stop.wait(), if phase.linger_until.is_none() => self.begin_stop(phase),
                () = self.acks.receipt(), if self.acks.waits() => {}
                () = sleep(LOOK), if self.devices.holds() && phase.connected_at.is_some() => {}
                () = sleep_until(late), if phase.answer_by.is_some() => {
                    return Err(Fault::Other("the broker does not answer".to_owned()));
                }
                () = sleep_until(linger), if phase.linger_until.is_some() => return Ok(None),
            }
            self.work(writer, phase)?;
            if phase.linger_until.is_some() && self.acks.len() == 0 {
                return Ok(None);
            }
        }
    }

    /// Nothing more is taken; what the intake has may still become durable and be acknowledged.
    fn begin_stop(&mut self, phase: &mut Phase) {
        self.devices.close();
        self.acks.abandon_undelivered();
        let linger = if phase.connected_at.is_some() { self.broker.linger } else { Duration::ZERO };
        phase.linger_until = Some(Instant::now() + linger);
        self.health.set_state("stopping");
    }

    /// Moves what can move. Never waits.
    fn work(&mut self, writer: &Writer, phase: &Phase) -> Result<(), Fault> {
        if phase.connected_at.is_none() {
            return Ok(());
        }
        self.devices.deliver(&mut self.acks, phase.version.window());
        self.devices.drop_floods(Instant::now(), &mut self.acks);
        while self.acks.settle(|packet_id| writer.ack(packet_id)).is_err() {
            if phase.linger_until.is_none() {
                // The broker sends an unacknowledged message again only on a new connection.
                return Err(Fault::Other("a reading could not be stored; its message shall come again".to_owned()));
            }
            self.acks.abandon_undelivered();
        }
        Ok(())
    }

    fn take(&mut self, incoming: Incoming, writer: &Writer, phase: &mut Phase) -> Result<(), Ended> {
        match incoming {
            Incoming::Connected { .. } if phase.discard => return Err(Ended::Discarded),
            Incoming::Connected { session_present } => {
                phase.connected_at = Some(Instant::now());
                if !session_present {
                    self.acks.session_lost();
                }
                self.devices.reconnected(session_present);
                self.devices.set_in_reach(true);
                let asked = writer.subscribe(&self.topics.filters());
                phase.subscribing =
                    asked.ok_or_else(|| phase.fault(Fault::Other("cannot ask for the topics".to_owned())))?;
                phase.answer_by = (phase.subscribing > 0).then(|| Instant::now() + CONNECT_DEADLINE);
                let session = if session_present { "session resumed" } else { "new session" };
                self.health.set_state(&format!("connected by {}, {session}", phase.version.name()));
            }
            Incoming::Subscribed { refused } => {
                phase.refused += refused;
                phase.subscribing = phase.subscribing.saturating_sub(1);
                if phase.subscribing == 0 {
                    phase.answer_by = None;
                }
                if phase.refused > 0 {
                    self.health.set_trouble(&format!("connected; the broker refuses {} topics", phase.refused));
                }
            }
            // After the word to stop a message is neither taken nor acknowledged: it comes again.
            Incoming::Message(message) if phase.linger_until.is_none() => self.message(message, phase),
            Incoming::Message(_) | Incoming::Other => {}
        }
        self.work(writer, phase).map_err(|fault| phase.fault(fault))
    }

    fn message(&mut self, message: Message, phase: &Phase) {
        let heard = (self.uptime)();
        self.health.heard(heard);
        let id = message.packet_id;
        let hash = if id == 0 { 0 } else { payload_hash(&message.topic, &message.payload) };
        if id != 0 && message.dup && self.acks.came_again(id, hash) {
            return;
        }
        let Some((place, reading)) = self.reading(&message, heard) else {
            if id != 0 {
                self.acks.came(id, hash, State::Done);
            }
            return;
        };
        let publish = (id != 0).then(|| {
            let publish = Publish {
                broker: self.broker.name.clone(),
                packet_id: id,
                redelivered: message.dup,
                payload_hash: hash,
                window: phase.version.window(),
            };
            (self.acks.came(id, hash, State::Held), publish)
        });
        self.devices.hold(place, Held { reading, publish });
    }

    /// The message as a reading of the device at a place; `None`, and counted, when it is not to be delivered.
    fn reading(&mut self, message: &Message, heard: Heard) -> Option<(usize, Reading)> {
        let topic = message.topic.as_str();
        if message.retain {
            self.health.count(Count::Retained, 1);
            return None;
        }
        if message.payload.len() > MAX_PACKET {
            self.health.fault(Count::Oversized, 1, &shown(topic));
            return None;
        }
        let found = self.topics.find(topic);
        let (entry, name, captured) = match &found {
            Some((entry, Fit::Entry)) => (Arc::clone(entry), &***entry, false),
            Some((entry, Fit::Device(name))) => (Arc::clone(entry), *name, true),
            Some((_, Fit::BadName(_) | Fit::No)) | None => {
                self.health.fault(Count::Refused, 1, &shown(topic));
                return None;
            }
        };
        let Some(Admitted { place, name, channel }) = self.devices.admit(name, captured, topic) else {
            self.health.fault(Count::Refused, 1, &format_args!("{}: more than max_devices names", shown(topic)));
            return None;
        };
        Some((place, Reading { device: name, entry, channel, bytes: own(&message.payload), heard }))
    }
}

/// The payload by itself: as the client gives it, a few bytes keep its whole read buffer of up to 64 KiB alive.
fn own(payload: &Bytes) -> Bytes {
    if payload.len() < READ_BUFFER { Bytes::copy_from_slice(payload) } else { payload.clone() }
}

/// As much of a topic as a log line shows.
fn shown(topic: &str) -> &str {
    topic.char_indices().nth(SHOWN).map_or(topic, |(end, _)| &topic[..end])
}

impl Phase {
    fn fault(&self, fault: Fault) -> Ended {
        Ended::Fault { fault, connected_for: self.connected_at.map(|at| at.elapsed()) }
    }
}
