//! One connection to a broker, by MQTT 5 or 3.1.1: the same few things come in, the same two go out.
//!
//! A link lives for one connection and is never reconnected: the client would hand out messages of the old connection
//! after it has made the new one, and their acknowledgements could hit other messages in a session that the broker lost.

use std::fmt;
use std::io;

use bytes::Bytes;
use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::v5::mqttbytes::Error as CodecError5;
use rumqttc::v5::mqttbytes::v5 as packets5;
use rumqttc::{SubscribeFilter, v5};

use crate::source::mqtt::options::{self, BadSettings};
use crate::source::mqtt::{MqttBroker, RECEIVE_MAXIMUM};

/// Acknowledgements and subscriptions that may wait to be written.
const REQUESTS: usize = RECEIVE_MAXIMUM + 256;

/// Filters in one SUBSCRIBE.
const FILTERS_AT_ONCE: usize = 64;

/// How many messages a broker keeps in flight by MQTT 3.1.1, where the client cannot say: mosquitto's default.
const WINDOW_V4: usize = 20;

/// The protocol version of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V5,
    V4,
}

/// What comes in.
#[derive(Debug)]
pub(super) enum Incoming {
    Connected {
        session_present: bool,
    },
    Subscribed {
        refused: usize,
    },
    Message(Message),
    /// Pings and what the client says of its own doing.
    Other,
}

/// One PUBLISH.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    /// 0 at QoS 0, which nobody acknowledges.
    pub(super) packet_id: u16,
    pub(super) dup: bool,
    pub(super) retain: bool,
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Fault {
    /// The broker does not speak this version.
    Version(String),
    /// A packet over the limit, which a broker that keeps to the protocol would not have sent.
    Oversized(usize),
    /// The broker hung up.
    Closed,
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Version(why) => write!(f, "the protocol version is refused: {why}"),
            Fault::Oversized(bytes) => write!(f, "the broker sent a packet of {bytes} bytes"),
            Fault::Closed => f.write_str("the broker closed the connection"),
            Fault::Other(why) => f.write_str(why),
        }
    }
}

/// The side that writes. Never waits.
pub(super) enum Writer {
    V5(v5::AsyncClient),
    V4(rumqttc::AsyncClient),
}

/// The side that reads, and that must be polled for anything to be written.
pub(super) enum Reader {
    V5(Box<v5::EventLoop>),
    V4(Box<rumqttc::EventLoop>),
}

/// Prepares a connection; the first poll makes it.
pub(super) fn new(broker: &MqttBroker, version: Version, clean: bool) -> Result<(Writer, Reader), BadSettings> {
    Ok(match version {
        Version::V5 => {
            let (client, events) = v5::AsyncClient::new(options::v5(broker, clean)?, REQUESTS);
            (Writer::V5(client), Reader::V5(Box::new(events)))
        }
        Version::V4 => {
            let (client, mut events) = rumqttc::AsyncClient::new(options::v4(broker, clean)?, REQUESTS);
            events.network_options.set_connection_timeout(options::CONNECT_DEADLINE.as_secs());
            (Writer::V4(client), Reader::V4(Box::new(events)))
        }
    })
}

impl Version {
    pub(super) fn other(self) -> Version {
        match self {
            Version::V5 => Version::V4,
            Version::V4 => Version::V5,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Version::V5 => "MQTT 5",
            Version::V4 => "MQTT 3.1.1",
        }
    }

    /// How many messages the broker may have in flight.
    pub(super) fn window(self) -> usize {
        match self {
            Version::V5 => RECEIVE_MAXIMUM,
            Version::V4 => WINDOW_V4,
        }
    }
}

impl Writer {
    /// Asks for these filters at QoS 1; returns how many SUBACKs will answer, or `None` when it cannot be written.
    pub(super) fn subscribe(&self, filters: &[String]) -> Option<usize> {
        for filters in filters.chunks(FILTERS_AT_ONCE) {
            match self {
                Writer::V5(client) => client.try_subscribe_many(filters.iter().map(|path| filter_v5(path))).ok()?,
                Writer::V4(client) => {
                    let filter = |path: &String| SubscribeFilter::new(path.clone(), rumqttc::QoS::AtLeastOnce);
                    client.try_subscribe_many(filters.iter().map(filter)).ok()?;
                }
            }
        }
        Some(filters.len().div_ceil(FILTERS_AT_ONCE))
    }

    /// Acknowledges a message; false when it cannot be written now.
    pub(super) fn ack(&self, packet_id: u16) -> bool {
        crash_point!("mqtt.ack.before");
        let written = match self {
            Writer::V5(client) => {
                let (qos, pkid) = (v5::mqttbytes::QoS::AtLeastOnce, packet_id);
                client.try_ack(&packets5::Publish { qos, pkid, ..Default::default() }).is_ok()
            }
            Writer::V4(client) => {
                let mut publish = rumqttc::Publish::new("", rumqttc::QoS::AtLeastOnce, Vec::new());
                publish.pkid = packet_id;
                client.try_ack(&publish).is_ok()
            }
        };
        crash_point!("mqtt.ack.after");
        written
    }

    /// Says goodbye; the session stays with the broker. False when it cannot be written.
    pub(super) fn disconnect(&self) -> bool {
        match self {
            Writer::V5(client) => client.try_disconnect().is_ok(),
            Writer::V4(client) => client.try_disconnect().is_ok(),
        }
    }
}

fn filter_v5(path: &str) -> packets5::Filter {
    let mut filter = packets5::Filter::new(path, v5::mqttbytes::QoS::AtLeastOnce);
    // The subscription is repeated at each connect; retained messages need not be.
    filter.retain_forward_rule = packets5::RetainForwardRule::OnNewSubscribe;
    filter
}

impl Reader {
    /// The next thing that comes in. Must not be dropped before it is ready while the connection shall go on.
    pub(super) async fn poll(&mut self) -> Result<Incoming, Fault> {
        match self {
            Reader::V5(events) => match events.poll().await {
                Ok(v5::Event::Incoming(packet)) => Ok(incoming_v5(packet)),
                Ok(v5::Event::Outgoing(_)) => Ok(Incoming::Other),
                Err(error) => Err(fault_v5(error)),
            },
            Reader::V4(events) => match events.poll().await {
                Ok(rumqttc::Event::Incoming(packet)) => Ok(incoming_v4(packet)),
                Ok(rumqttc::Event::Outgoing(_)) => Ok(Incoming::Other),
                Err(error) => Err(fault_v4(error)),
            },
        }
    }
}

fn incoming_v5(packet: v5::Incoming) -> Incoming {
    match packet {
        v5::Incoming::ConnAck(connack) => Incoming::Connected { session_present: connack.session_present },
        v5::Incoming::SubAck(suback) => {
            let failure =
                |code: &&packets5::SubscribeReasonCode| !matches!(code, packets5::SubscribeReasonCode::Success(_));
            Incoming::Subscribed { refused: suback.return_codes.iter().filter(failure).count() }
        }
        v5::Incoming::Publish(publish) => Incoming::Message(Message {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
            packet_id: publish.pkid,
            dup: publish.dup,
            retain: publish.retain,
        }),
        _ => Incoming::Other,
    }
}

fn incoming_v4(packet: rumqttc::Incoming) -> Incoming {
    match packet {
        rumqttc::Incoming::ConnAck(connack) => Incoming::Connected { session_present: connack.session_present },
        rumqttc::Incoming::SubAck(suback) => {
            let failure = |code: &&rumqttc::SubscribeReasonCode| **code == rumqttc::SubscribeReasonCode::Failure;
            Incoming::Subscribed { refused: suback.return_codes.iter().filter(failure).count() }
        }
        rumqttc::Incoming::Publish(publish) => Incoming::Message(Message {
            topic: publish.topic,
            payload: publish.payload,
            packet_id: publish.pkid,
            dup: publish.dup,
            retain: publish.retain,
        }),
        _ => Incoming::Other,
    }
}

fn fault_v5(error: v5::ConnectionError) -> Fault {
    use v5::ConnectionError::{ConnectionRefused, MqttState};
    use v5::StateError::Deserialization;
    match &error {
        MqttState(Deserialization(CodecError5::PayloadSizeLimitExceeded { pkt_size, .. })) => {
            Fault::Oversized(*pkt_size)
        }
        MqttState(v5::StateError::ConnectionAborted) => Fault::Closed,
        MqttState(Deserialization(CodecError5::Io(error)) | v5::StateError::Io(error)) => fault_io(error),
        // A broker of before MQTT 5 answers with a CONNACK of its own form.
        MqttState(Deserialization(_)) => Fault::Version(error.to_string()),
        ConnectionRefused(
            packets5::ConnectReturnCode::UnsupportedProtocolVersion
            | packets5::ConnectReturnCode::RefusedProtocolVersion,
        ) => Fault::Version(error.to_string()),
        _ => Fault::Other(error.to_string()),
    }
}

/// A reset is a broker that hung up with something unread, as old ones do at a version that they do not know.
fn fault_io(error: &io::Error) -> Fault {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Fault::Closed,
        _ => Fault::Other(error.to_string()),
    }
}

fn fault_v4(error: rumqttc::ConnectionError) -> Fault {
    use rumqttc::ConnectionError::{ConnectionRefused, MqttState};
    match &error {
        MqttState(rumqttc::StateError::Deserialization(CodecError::PayloadSizeLimitExceeded(bytes))) => {
            Fault::Oversized(*bytes)
        }
        MqttState(rumqttc::StateError::ConnectionAborted) => Fault::Closed,
        MqttState(rumqttc::StateError::Deserialization(CodecError::Io(error)) | rumqttc::StateError::Io(error)) => {
            fault_io(error)
        }
        ConnectionRefused(rumqttc::ConnectReturnCode::RefusedProtocolVersion) => Fault::Version(error.to_string()),
        _ => Fault::Other(error.to_string()),
    }
}
