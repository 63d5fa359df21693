//! MQTT brokers: one task and one connection each, for any number of devices. The only home of rumqttc.
//!
//! A message is acknowledged after the intake's receipt, never before; the session stays with the broker, so that what
//! was not acknowledged comes again. Nothing ever waits inside `poll`: messages go to the intake from a bounded hold
//! ([`devices`]), and acknowledgements follow in order ([`acks`]).
//!
//! A message that the broker marks as retained is a repeat of a value that was already heard, or older than the
//! subscription: it is acknowledged and counted, not delivered. A message on a topic of no entry (a persistent session
//! keeps the subscriptions of earlier configurations) is acknowledged and counted as refused.
//!
//! A packet over [`MAX_PACKET`] would come back at every connect. By MQTT 5 the broker is told and drops it; by 3.1.1
//! packets up to [`MAX_PACKET_V4`] are read, acknowledged, counted and dropped. A broker that sends a longer one three
//! times in a row has its session discarded: said in the log, counted, and the only way to hear its other messages.

mod acks;
mod connection;
mod devices;
mod link;
pub mod options;
pub mod publisher;
pub mod topic;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crc::{CRC_64_XZ, Crc};
use tracing::error;

use crate::source::backoff::Backoff;
use crate::source::context::Context;
use crate::source::health::{Count, Kind};
use crate::source::mqtt::connection::{Connection, Ended};
use crate::source::mqtt::link::{Fault, Version};
use crate::source::mqtt::topic::TopicTemplate;

/// How many messages the broker may have in flight by MQTT 5.
pub const RECEIVE_MAXIMUM: usize = 1_000;

/// The longest packet that is delivered.
pub const MAX_PACKET: usize = 1024 * 1024;

/// The longest packet that is read by MQTT 3.1.1, where a broker cannot be told a limit.
pub const MAX_PACKET_V4: usize = 16 * 1024 * 1024;

/// Captured names of a broker where the settings say nothing.
pub const MAX_DEVICES: usize = 1_000;

/// How long a broker keeps the session of a hub that is gone, where the settings say nothing.
pub const SESSION_EXPIRY: Duration = Duration::from_secs(30 * 86_400);

/// How long receipts are still waited for at a stop.
pub const LINGER: Duration = Duration::from_secs(8);

/// A connection that lasted so long was a good one.
const LASTED: Duration = Duration::from_secs(5);

/// So many packets over the limit in a row end the session.
const TOO_OFTEN: u32 = 3;

/// One broker and the entries that hear it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttBroker {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`.
    pub url: String,
    /// The fixed client id, see [`client_id`].
    pub client_id: String,
    /// How many captured names are admitted.
    pub max_devices: usize,
    /// User name.
    pub user: Option<String>,
    /// A file with the user's password, read at each connect.
    pub password_file: Option<PathBuf>,
    /// Certificates of authorities to trust beside the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The hub's own certificate with its chain, in PEM.
    pub cert_file: Option<PathBuf>,
    /// The key of it, PKCS#8 in PEM.
    pub key_file: Option<PathBuf>,
    /// How long the broker keeps the session of a hub that is gone.
    pub session_expiry: Duration,
    /// How long receipts are still waited for at a stop.
    pub linger: Duration,
    /// The entries that hear it.
    pub devices: Vec<MqttDevice>,
}

/// One device entry of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttDevice {
    /// The entry's name; also the device's where the topic captures none.
    pub entry: Arc<str>,
    /// Its topic.
    pub topic: TopicTemplate,
}

impl MqttBroker {
    /// A broker with the usual bounds, no user and no certificates.
    pub fn new(name: &str, url: &str, gateway: &str, devices: Vec<MqttDevice>) -> Self {
        MqttBroker {
            name: name.into(),
            url: url.to_owned(),
            client_id: client_id(gateway, name),
            max_devices: MAX_DEVICES,
            user: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            session_expiry: SESSION_EXPIRY,
            linger: LINGER,
            devices,
        }
    }
}

/// The client id of a gateway at a broker: fixed, because the session hangs on it.
pub fn client_id(gateway: &str, broker: &str) -> String {
    format!("biogate-{gateway}-{broker}")
}

/// The hash by which a repeated PUBLISH is recognised: CRC-64/XZ over the topic's length (four bytes, low first), the
/// topic and the payload. It is kept in the store, so it never changes.
pub fn payload_hash(topic: &str, payload: &[u8]) -> u64 {
    const HASH: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);
    let mut digest = HASH.digest();
    digest.update(&(topic.len() as u32).to_le_bytes());
    digest.update(topic.as_bytes());
    digest.update(payload);
    digest.finalize()
}

/// Hears one broker until the sources stop; connects again for ever.
pub async fn run(broker: MqttBroker, context: Context) {
    let health = context.health.broker(&broker.name);
    health.set_kind(Kind::Broker);
    let mut stop = context.stop.clone();
    let mut connection = Connection::new(broker.clone(), context);
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let (mut version, mut closed_early, mut oversized) = (Version::V5, 0u32, 0u32);
    loop {
        let discard = oversized >= TOO_OFTEN;
        let (fault, lasted) = match connection.run(version, discard).await {
            Ended::Stopped => break,
            Ended::Discarded => {
                error!(broker = %broker.name, "the session was discarded: the broker kept sending a packet too large");
                oversized = 0;
                continue;
            }
            Ended::Fault { fault, connected_for } => (fault, connected_for),
        };
        health.set_trouble(&format!("disconnected: {fault}"));
        let answered = lasted.is_some();
        health.count(Count::Disconnects, u64::from(answered));
        if lasted.is_some_and(|lasted| lasted >= LASTED) {
            backoff.reset();
        }
        match fault {
            Fault::Oversized(bytes) => {
                oversized += 1;
                health.fault(Count::Oversized, 1, &format_args!("{bytes} bytes"));
            }
            Fault::Version(_) if !answered => version = version.other(),
            // Some old brokers hang up at a version that they do not know.
            Fault::Closed if !answered => {
                closed_early += 1;
                version = if closed_early.is_multiple_of(2) { version.other() } else { version };
            }
            Fault::Version(_) | Fault::Closed | Fault::Other(_) => oversized = 0,
        }
        if stop.wait_at_most(backoff.next_wait(fastrand::f64())).await {
            break;
        }
    }
    health.set_state("stopped");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_message_never_changes() {
        assert_eq!(payload_hash("a", b"b"), payload_hash("a", b"b"));
        assert_ne!(payload_hash("ab", b""), payload_hash("a", b"b"));
        assert_eq!(payload_hash("", b""), Crc::<u64>::new(&CRC_64_XZ).checksum(&[0; 4]));
    }
}
