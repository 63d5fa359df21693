//! Settings -> what librdkafka is told, and the producer itself.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::producer::ThreadedProducer;

use crate::forward::refusal::{Refusal, Trouble};

use super::context::{Shared, Told};
use super::{Compression, Sasl, Settings};

/// Records that librdkafka may hold: of the batch in hand, as many as keep its connections busy. The others wait packed.
pub(super) const MOST_RECORDS: u64 = 10_000;
/// Their bytes. A full queue is waited for.
const MOST_KBYTES: u64 = 16 * 1024;
/// One request to a broker holds at most this much of a partition; larger ones win nothing.
const MOST_BATCH: u32 = 1_000_000;

/// How long a transaction may be open.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A producer whose own thread serves the reports.
pub(super) type Producer = ThreadedProducer<Told>;

/// What every client of the brokers is told, a pair each. `password` is what `password_file` holds.
pub(super) fn connection(settings: &Settings, password: Option<String>) -> Vec<(&'static str, String)> {
    let protocol = match (settings.tls, settings.sasl) {
        (false, None) => "plaintext",
        (true, None) => "ssl",
        (false, Some(_)) => "sasl_plaintext",
        (true, Some(_)) => "sasl_ssl",
    };
    let mut pairs = vec![
        ("bootstrap.servers", settings.brokers.join(",")),
        ("client.id", "biogate".to_owned()),
        ("security.protocol", protocol.to_owned()),
        // A broker that went away without a word is noticed within this.
        ("socket.timeout.ms", "30000".to_owned()),
        ("socket.keepalive.enable", "true".to_owned()),
        ("reconnect.backoff.ms", "200".to_owned()),
        ("reconnect.backoff.max.ms", "5000".to_owned()),
    ];
    let shown = |path: &Path| path.display().to_string();
    let files = [
        ("ssl.ca.location", &settings.ca_file),
        ("ssl.certificate.location", &settings.cert_file),
        ("ssl.key.location", &settings.key_file),
    ];
    pairs.extend(files.into_iter().filter_map(|(key, file)| Some((key, shown(file.as_deref()?)))));
    if let Some(sasl) = settings.sasl {
        pairs.push(("sasl.mechanisms", sasl.name().to_owned()));
        pairs.push(("sasl.username", settings.user.clone().unwrap_or_default()));
        pairs.push(("sasl.password", password.unwrap_or_default()));
    }
    pairs
}

/// What a producer is told beside its connection. `limit`: bytes of the largest record that the topic takes.
pub(super) fn producing(settings: &Settings, limit: u32) -> Vec<(&'static str, String)> {
    vec![
        ("enable.idempotence", "true".to_owned()),
        ("acks", "all".to_owned()),
        // For ever: a record that left the store's care for the producer's is never given up by a clock.
        ("message.timeout.ms", "0".to_owned()),
        ("message.max.bytes", limit.max(1_000).to_string()),
        // The broker measures the whole request's share of a partition by the same limit.
        ("batch.size", limit.min(MOST_BATCH).to_string()),
        ("batch.num.messages", "10000".to_owned()),
        ("linger.ms", "5".to_owned()),
        ("compression.level", settings.compression.level().to_owned()),
        ("queue.buffering.max.messages", MOST_RECORDS.to_string()),
        ("queue.buffering.max.kbytes", MOST_KBYTES.to_string()),
        ("compression.codec", settings.compression.name().to_owned()),
        ("statistics.interval.ms", "10000".to_owned()),
        // Murmur2 of the key, as the Java clients have it: a device's records stay in one partition beside theirs.
        ("partitioner", "murmur2_random".to_owned()),
    ]
}

/// What a transactional producer is told in place of that.
pub(super) fn transacting(id: &str) -> Vec<(&'static str, String)> {
    vec![
        ("transactional.id", id.to_owned()),
        // A dead hub holds up those who read committed records for so long.
        ("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string()),
        // What is later than its transaction is of no use to it.
        ("message.timeout.ms", (TRANSACTION_TIMEOUT.as_millis() - 1_000).to_string()),
        ("socket.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string()),
    ]
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Compression::Zstd => "zstd",
            Compression::Lz4 => "lz4",
            Compression::Gzip => "gzip",
            Compression::None => "none",
        }
    }

    /// librdkafka's -1 is the codec's own. zstd's is 3, which costs more time and, of events, gives more bytes than 1
    /// (docs/decisions/2026-11-26-kafka-drain.md).
    fn level(self) -> &'static str {
        match self {
            Compression::Zstd => "1",
            Compression::Lz4 | Compression::Gzip | Compression::None => "-1",
        }
    }
}

impl Sasl {
    pub(super) fn name(self) -> &'static str {
        match self {
            Sasl::Plain => "PLAIN",
            Sasl::ScramSha256 => "SCRAM-SHA-256",
            Sasl::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The connection's part, with the password out of its file. Never kept and never shown.
pub(super) fn config(settings: &Settings) -> Result<ClientConfig, Refusal> {
    let password = settings.password_file.as_deref().map(password).transpose()?;
    let mut config = ClientConfig::new();
    for (key, value) in connection(settings, password) {
        config.set(key, value);
    }
    // What it logs says nothing that its error callback does not.
    config.set_log_level(RDKafkaLogLevel::Critical);
    Ok(config)
}

/// A producer that knows its brokers' addresses; nothing has been asked of them yet. With an id it is transactional.
pub(super) fn producer(
    settings: &Settings,
    limit: u32,
    transactional_id: Option<&str>,
    shared: Arc<Shared>,
) -> Result<Producer, Refusal> {
    let mut config = config(settings)?;
    let transacting = transactional_id.map(transacting).unwrap_or_default();
    for (key, value) in producing(settings, limit).into_iter().chain(transacting) {
        config.set(key, value);
    }
    config.create_with_context(Told(shared)).map_err(|error| not_made(&error))
}

/// Why librdkafka takes the settings or the files not.
pub(super) fn not_made(error: &rdkafka::error::KafkaError) -> Refusal {
    Refusal::new(Trouble::Access, format!("the settings or files of the Kafka client cannot be used: {error}"))
}

fn password(path: &Path) -> Result<String, Refusal> {
    let wrong = |why: String| Refusal::new(Trouble::Access, format!("password_file {} {why}", path.display()));
    let bytes = fs::read(path).map_err(|why| wrong(format!("cannot be read: {why}")))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("holds no text".to_owned()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Changes when the content of a certificate, key or password file does. A file that cannot be read counts as empty.
pub(super) fn fingerprint(settings: &Settings) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in [&settings.password_file, &settings.ca_file, &settings.cert_file, &settings.key_file] {
        file.as_ref().and_then(|file| fs::read(file).ok()).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, String)], key: &str) -> Option<String> {
        pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone())
    }

    #[test]
    fn the_protocol_follows_from_tls_and_sasl() {
        let mut settings = Settings::new(vec!["a:9092".into(), "b:9092".into()], "events");
        let pairs = connection(&settings, None);
        assert_eq!(of(&pairs, "security.protocol").as_deref(), Some("plaintext"));
        assert_eq!(of(&pairs, "bootstrap.servers").as_deref(), Some("a:9092,b:9092"));
        assert_eq!(of(&pairs, "sasl.password"), None);
        settings.tls = true;
        settings.ca_file = Some("/etc/ca.pem".into());
        settings.sasl = Some(Sasl::ScramSha512);
        settings.user = Some("hub".into());
        let pairs = connection(&settings, Some("secret".into()));
        for (key, value) in [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "/etc/ca.pem"),
            ("sasl.mechanisms", "SCRAM-SHA-512"),
            ("sasl.username", "hub"),
            ("sasl.password", "secret"),
        ] {
            assert_eq!(of(&pairs, key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(of(&pairs, "ssl.key.location"), None);
    }

    #[test]
    fn librdkafka_takes_every_setting() {
        for compression in [Compression::Zstd, Compression::Lz4, Compression::Gzip, Compression::None] {
            let settings = Settings { compression, ..Settings::new(vec!["127.0.0.1:1".into()], "events") };
            for limit in [10, 5_000, 1_048_588, 900_000_000] {
                let mut config = config(&settings).unwrap();
                let pairs = producing(&settings, limit).into_iter().chain(transacting("biogate-hub-bus"));
                for (key, value) in pairs {
                    config.set(key, value);
                }
                config.create_native_config().unwrap();
            }
        }
    }

    #[test]
    fn a_password_ends_at_its_line_and_shows_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "geheim \n").unwrap();
        let mut settings = Settings::new(vec!["a:9092".into()], "events");
        settings.sasl = Some(Sasl::Plain);
        settings.password_file = Some(file.clone());
        let config = config(&settings).unwrap();
        assert_eq!(config.get("sasl.password"), Some("geheim "));
        assert!(!format!("{config:?} {settings:?}").contains("geheim"));
        let before = fingerprint(&settings);
        fs::write(&file, "neu\n").unwrap();
        assert_ne!(fingerprint(&settings), before);
        fs::remove_file(&file).unwrap();
        assert!(super::config(&settings).unwrap_err().reason.contains("cannot be read"));
    }
}
