//! The other direction, for virtual patients only: publishes to a broker at QoS 1, as a bedside monitor would.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

use crate::source::backoff::Backoff;
use crate::source::context::Stop;
use crate::source::mqtt::options::{Address, BadSettings, CONNECT_DEADLINE, OUTGOING};

/// Messages that may wait for the broker; what comes while they do is lost, as on a device without a memory.
const WAITING: usize = 1_024;

/// How long the last messages and the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Where messages are put. Never waits.
#[derive(Debug, Clone)]
pub struct Publisher {
    messages: mpsc::Sender<(String, String)>,
}

impl Publisher {
    /// Publishes a message, or loses it while too many wait.
    pub fn publish(&self, topic: String, payload: String) {
        let _lost_while_the_broker_is_away = self.messages.try_send((topic, payload)).is_err();
    }
}

/// A publisher and the task that carries its messages until the stop.
pub fn publisher(
    url: &str,
    client_id: &str,
    stop: Stop,
) -> Result<(Publisher, impl Future<Output = ()> + Send + 'static), BadSettings> {
    let address = Address::parse(url)?;
    let mut options = MqttOptions::new(client_id, &address.host, address.port);
    options.set_outgoing_inflight_upper_limit(OUTGOING);
    options.set_connection_timeout(CONNECT_DEADLINE.as_secs());
    if address.tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Native));
    }
    let (messages, waiting) = mpsc::channel(WAITING);
    Ok((Publisher { messages }, carry(options, waiting, stop)))
}

async fn carry(options: MqttOptions, mut waiting: mpsc::Receiver<(String, String)>, mut stop: Stop) {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, WAITING);
    while !stop.is_set() {
        let event = {
            let mut poll = std::pin::pin!(events.poll());
            loop {
                tokio::select! {
                    event = &mut poll => break Some(event),
                    Some((topic, payload)) = waiting.recv() => {
                        let _full_while_away = client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_err();
                    }
                    () = stop.wait() => break None,
                }
            }
        };
        match event {
            Some(Ok(Event::Incoming(Incoming::ConnAck(_)))) => backoff.reset(),
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                warn!("cannot publish: {error}");
                if stop.wait_at_most(backoff.next_wait(fastrand::f64())).await {
                    return;
                }
            }
        }
    }
    if client.try_disconnect().is_ok() {
        let _broker_may_be_slow = timeout(GOODBYE, async { while events.poll().await.is_ok() {} }).await.is_err();
    }
}
