//! `[[destination]]` with kind = "kafka".

use super::raw;
use crate::forward::kafka::{Compression, DEFAULT_TOPIC, Sasl, Settings};
use crate::forward::{self, Kind};

/// A smaller limit would refuse ordinary events.
const LEAST_MESSAGE: u64 = 4 << 10;
/// librdkafka takes no larger one.
const MOST_MESSAGE: u64 = 1_000_000_000;

/// The settings of a destination, its files already known to be readable.
pub(super) fn settings(raw: &raw::Destination) -> Result<Settings, String> {
    let brokers = raw.brokers.clone().unwrap_or_default();
    if brokers.is_empty() {
        return Err("no brokers; write brokers = [\"kafka-1.example:9092\"]".into());
    }
    brokers.iter().try_for_each(|broker| is_address(broker))?;
    let topic = topic("topic", raw.topic.as_deref().unwrap_or(DEFAULT_TOPIC))?;
    let usual = Settings::new(brokers, topic);
    let cursor_topic = self::topic("cursor_topic", raw.cursor_topic.as_deref().unwrap_or(&usual.cursor_topic))?;
    if cursor_topic == usual.topic {
        return Err(format!("found cursor_topic = \"{cursor_topic}\", where events go; write another topic"));
    }
    let max_message_bytes = raw.max_message_bytes.unwrap_or(usual.max_message_bytes.into());
    if !(LEAST_MESSAGE..=MOST_MESSAGE).contains(&max_message_bytes) {
        return Err(format!("found max_message_bytes of {max_message_bytes} bytes; write \"4 KiB\" to \"900 MiB\""));
    }
    let sasl = raw.sasl.as_deref().map(sasl).transpose()?;
    let named = raw.ca_file.is_some() || raw.cert_file.is_some();
    let tls = raw.tls.unwrap_or(named);
    check_access(raw, sasl, tls, named)?;
    Ok(Settings {
        compression: raw.compression.as_deref().map_or(Ok(usual.compression), compression)?,
        exactly_once: raw.exactly_once.unwrap_or(false),
        cursor_topic,
        max_message_bytes: u32::try_from(max_message_bytes).unwrap_or(usual.max_message_bytes),
        tls,
        ca_file: raw.ca_file.clone(),
        cert_file: raw.cert_file.clone(),
        key_file: raw.key_file.clone(),
        sasl,
        user: raw.user.clone(),
        password_file: raw.password_file.clone(),
        ..usual
    })
}

/// Two destinations whose cursors are offsets of the same partition would take each other's for their own.
pub(super) fn cursors_apart(destinations: &[forward::Settings]) -> Result<(), String> {
    let exact = destinations.iter().filter_map(|destination| match &destination.kind {
        Kind::Kafka(settings) if settings.exactly_once => Some((&destination.name, settings)),
        _ => None,
    });
    let exact: Vec<_> = exact.collect();
    for (nth, (name, settings)) in exact.iter().enumerate() {
        let twin = exact[..nth].iter().find(|(_, other)| other.cursor_topic == settings.cursor_topic);
        if let Some((other, _)) = twin {
            return Err(format!(
                "destinations {other} and {name} are both exactly_once and share cursor_topic = \"{}\"; write another for one of them",
                settings.cursor_topic
            ));
        }
    }
    Ok(())
}

fn check_access(raw: &raw::Destination, sasl: Option<Sasl>, tls: bool, named: bool) -> Result<(), String> {
    if named && !tls {
        return Err("found tls = false with ca_file or cert_file; leave tls out".into());
    }
    match (&raw.cert_file, &raw.key_file) {
        (Some(_), None) => return Err("found cert_file without key_file; write both".into()),
        (None, Some(_)) => return Err("found key_file without cert_file; write both".into()),
        (Some(_), Some(_)) | (None, None) => {}
    }
    match (sasl, &raw.user, &raw.password_file) {
        (None, None, None) | (Some(_), Some(_), Some(_)) => {}
        (None, _, _) => return Err("found user or password_file without sasl; write sasl = \"scram-sha-512\"".into()),
        (Some(_), None, _) => return Err("found sasl without user; write user and password_file".into()),
        (Some(_), Some(_), None) => return Err("found sasl without password_file; write the file that holds it".into()),
    }
    match (sasl, tls) {
        (Some(Sasl::Plain), false) => Err(
            "found sasl = \"plain\" without TLS, which would send the password readable; write ca_file (or tls = true), or sasl = \"scram-sha-512\""
                .into(),
        ),
        _ => Ok(()),
    }
}

fn is_address(broker: &str) -> Result<(), String> {
    let port =
        broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    match port.is_some() && !broker.contains([',', '/', '@', ' ']) {
        true => Ok(()),
        false => Err(format!("found broker \"{broker}\"; write host:port, such as \"kafka-1.example:9092\"")),
    }
}

/// Kafka's own rule.
fn topic(key: &str, name: &str) -> Result<String, String> {
    let fits = (1..=249).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && name != "."
        && name != "..";
    match fits {
        true => Ok(name.to_owned()),
        false => Err(format!("found {key} = \"{name}\"; write 1 to 249 of the characters A-Z a-z 0-9 . _ -")),
    }
}

fn compression(name: &str) -> Result<Compression, String> {
    Ok(match name {
        "zstd" => Compression::Zstd,
        "lz4" => Compression::Lz4,
        "gzip" => Compression::Gzip,
        "none" => Compression::None,
        other => {
            return Err(format!("found compression = \"{other}\"; write \"zstd\", \"lz4\", \"gzip\" or \"none\""));
        }
    })
}

fn sasl(name: &str) -> Result<Sasl, String> {
    Ok(match name {
        "plain" => Sasl::Plain,
        "scram-sha-256" => Sasl::ScramSha256,
        "scram-sha-512" => Sasl::ScramSha512,
        other => {
            return Err(format!("found sasl = \"{other}\"; write \"scram-sha-512\", \"scram-sha-256\" or \"plain\""));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Settings, String> {
        settings(&toml::from_str(&format!("name = \"bus\"\nkind = \"kafka\"\n{text}")).unwrap())
    }

    #[test]
    fn what_is_left_out_has_a_usual_value() {
        let settings = parsed("brokers = [\"k:9092\"]").unwrap();
        assert_eq!(settings, Settings::new(vec!["k:9092".into()], "biometric-events"));
        let settings = parsed("brokers = [\"[::1]:9093\"]\nca_file = \"/ca\"\nexactly_once = true").unwrap();
        assert!(settings.tls && settings.exactly_once);
        assert_eq!(settings.cursor_topic, "biogate-cursors");
    }

    #[test]
    fn each_mistake_says_what_to_write() {
        for (text, words) in [
            ("", "no brokers"),
            ("brokers = [\"k\"]", "write host:port"),
            ("brokers = [\"kafka://k:9092\"]", "write host:port"),
            ("brokers = [\"k:9092\"]\ntopic = \"a b\"", "found topic"),
            ("brokers = [\"k:9092\"]\ncompression = \"snappy\"", "write \"zstd\""),
            ("brokers = [\"k:9092\"]\nsasl = \"kerberos\"", "write \"scram-sha-512\""),
            ("brokers = [\"k:9092\"]\nsasl = \"scram-sha-512\"", "without user"),
            ("brokers = [\"k:9092\"]\nuser = \"u\"", "without sasl"),
            ("brokers = [\"k:9092\"]\nsasl = \"plain\"\nuser = \"u\"\npassword_file = \"p\"", "readable"),
            ("brokers = [\"k:9092\"]\ncert_file = \"c\"", "without key_file"),
            ("brokers = [\"k:9092\"]\nca_file = \"c\"\ntls = false", "leave tls out"),
            ("brokers = [\"k:9092\"]\nmax_message_bytes = \"1 KiB\"", "4 KiB"),
            ("brokers = [\"k:9092\"]\ncursor_topic = \"biometric-events\"", "another topic"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn two_cursors_do_not_share_a_partition() {
        let exact = |name: &str, cursor_topic: &str| forward::Settings {
            name: name.into(),
            kind: Kind::Kafka(Settings {
                exactly_once: true,
                cursor_topic: cursor_topic.into(),
                ..Settings::new(vec!["k:9092".into()], "events")
            }),
        };
        assert!(cursors_apart(&[exact("a", "one"), exact("b", "two")]).is_ok());
        assert!(cursors_apart(&[exact("a", "one"), exact("b", "one")]).unwrap_err().contains("a and b"));
    }
}
