//! What a broker's settings mean to the client: address, TLS, credentials, protocol version.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rumqttc::tokio_native_tls::native_tls::{Certificate, Identity, Protocol, TlsConnector};
use rumqttc::{MqttOptions, TlsConfiguration, Transport, v5};

use crate::source::mqtt::{MAX_PACKET, MAX_PACKET_V4, MqttBroker, RECEIVE_MAXIMUM};

/// A connect, its TLS handshake and its answer take at most this long.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Packets in flight the other way. The client keeps a place for each: the default of 65,535 would cost 8 MB.
pub(super) const OUTGOING: u16 = 128;

/// A secret or certificate file is at most this long.
const MAX_FILE: u64 = 256 * 1024;

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
}

/// Why a broker's settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadSettings {
    /// The URL is not one of ours.
    #[error("`{0}` is no broker URL; write mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")]
    Url(String),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A certificate or key is of no use.
    #[error("TLS: {0}")]
    Tls(#[from] rumqttc::tokio_native_tls::native_tls::Error),
    /// A certificate without its key, or a key without its certificate.
    #[error("a client certificate needs cert_file and key_file")]
    HalfAnIdentity,
}

impl Address {
    /// Reads `mqtt://HOST[:PORT]` (port 1883) or `mqtts://HOST[:PORT]` (port 8883).
    pub fn parse(url: &str) -> Result<Address, BadSettings> {
        let bad = || BadSettings::Url(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(bad()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The last colon parts the port, unless it stands inside the brackets of an IPv6 address.
        let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
            Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
            None => (rest, if tls { 8883 } else { 1883 }),
        };
        if host.is_empty() || host.contains(['/', '@', '?', ' ']) {
            return Err(bad());
        }
        Ok(Address { host: host.to_owned(), port, tls })
    }
}

/// The options of a connection by MQTT 5.
pub(super) fn v5(broker: &MqttBroker, clean_start: bool) -> Result<v5::MqttOptions, BadSettings> {
    let address = Address::parse(&broker.url)?;
    let mut options = v5::MqttOptions::new(&broker.client_id, &address.host, address.port);
    options.set_keep_alive(KEEP_ALIVE);
    options.set_connection_timeout(CONNECT_DEADLINE.as_secs());
    options.set_clean_start(clean_start);
    options.set_manual_acks(true);
    options.set_receive_maximum(Some(RECEIVE_MAXIMUM as u16));
    options.set_outgoing_inflight_upper_limit(OUTGOING);
    // The broker drops what is longer; else it would come back at every connect.
    options.set_max_packet_size(Some(MAX_PACKET as u32));
    options.set_session_expiry_interval(Some(broker.session_expiry.as_secs().min(u64::from(u32::MAX - 1)) as u32));
    if address.tls {
        options.set_transport(tls(broker)?);
    }
    if let Some((user, password)) = credentials(broker)? {
        options.set_credentials(user, password);
    }
    Ok(options)
}

/// The options of a connection by MQTT 3.1.1.
pub(super) fn v4(broker: &MqttBroker, clean_session: bool) -> Result<MqttOptions, BadSettings> {
    let address = Address::parse(&broker.url)?;
    let mut options = MqttOptions::new(&broker.client_id, &address.host, address.port);
    options.set_keep_alive(KEEP_ALIVE);
    options.set_clean_session(clean_session);
    options.set_manual_acks(true);
    options.set_inflight(OUTGOING);
    options.set_max_packet_size(MAX_PACKET_V4, MAX_PACKET);
    if address.tls {
        options.set_transport(tls(broker)?);
    }
    if let Some((user, password)) = credentials(broker)? {
        options.set_credentials(user, password);
    }
    Ok(options)
}

/// User and password; the file is read at each connect, so that a new password needs no restart.
fn credentials(broker: &MqttBroker) -> Result<Option<(String, String)>, BadSettings> {
    let Some(user) = &broker.user else { return Ok(None) };
    let password = match &broker.password_file {
        Some(file) => String::from_utf8_lossy(&read(file)?).trim_end_matches(['\r', '\n']).to_owned(),
        None => String::new(),
    };
    Ok(Some((user.clone(), password)))
}

fn tls(broker: &MqttBroker) -> Result<Transport, BadSettings> {
    let mut connector = TlsConnector::builder();
    connector.min_protocol_version(Some(Protocol::Tlsv12));
    if let Some(ca) = &broker.ca_file {
        for certificate in certificates(&read(ca)?) {
            connector.add_root_certificate(Certificate::from_pem(certificate)?);
        }
    }
    match (&broker.cert_file, &broker.key_file) {
        (Some(certificate), Some(key)) => {
            connector.identity(Identity::from_pkcs8(&read(certificate)?, &read(key)?)?);
        }
        (None, None) => {}
        (Some(_), None) | (None, Some(_)) => return Err(BadSettings::HalfAnIdentity),
    }
    Ok(Transport::tls_with_config(TlsConfiguration::NativeConnector(connector.build()?)))
}

/// The certificates of a PEM file one by one: the library reads only the first of a text.
fn certificates(pem: &[u8]) -> Vec<&[u8]> {
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let mut rest = pem;
    let mut all = Vec::new();
    while let Some(at) = rest.windows(END.len()).position(|window| window == END) {
        let (certificate, after) = rest.split_at(at + END.len());
        all.push(certificate);
        rest = after;
    }
    // A file without one is refused with the library's own words.
    if all.is_empty() { vec![pem] } else { all }
}

fn read(file: &Path) -> Result<Vec<u8>, BadSettings> {
    let failed = |error| BadSettings::File { file: file.to_owned(), error };
    let mut bytes = Vec::new();
    std::fs::File::open(file).map_err(failed)?.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let at = |host: &str, port, tls| Address { host: host.to_owned(), port, tls };
        assert_eq!(Address::parse("mqtt://broker.local").unwrap(), at("broker.local", 1883, false));
        assert_eq!(Address::parse("mqtts://broker.local").unwrap(), at("broker.local", 8883, true));
        assert_eq!(Address::parse("mqtt://[::1]:7/").unwrap(), at("[::1]", 7, false));
        assert_eq!(Address::parse("mqtt://[::1]").unwrap(), at("[::1]", 1883, false));
        for bad in ["broker", "http://x", "mqtt://", "mqtt://x:y", "mqtt://u:p@x"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
