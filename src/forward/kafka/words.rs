//! librdkafka's and the brokers' codes -> what is wrong and what to do, in the words of who has to mend it. Pure.

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::forward::refusal::{Refusal, Trouble};

use super::{Sasl, Settings};

/// So much of a library's text is kept.
const MOST_TEXT: usize = 200;

/// Names for the texts.
#[derive(Debug, Clone)]
pub(super) struct Who {
    /// The brokers of the settings.
    pub(super) brokers: String,
    pub(super) topic: String,
    user: Option<String>,
    sasl: Option<Sasl>,
    tls: bool,
    own_certificate: bool,
}

impl Who {
    pub(super) fn of(settings: &Settings) -> Who {
        Who {
            brokers: settings.brokers.join(", "),
            topic: settings.topic.clone(),
            user: settings.user.clone(),
            sasl: settings.sasl,
            tls: settings.tls,
            own_certificate: settings.cert_file.is_some(),
        }
    }

    /// The same with another topic.
    pub(super) fn about(&self, topic: &str) -> Who {
        Who { topic: topic.to_owned(), ..self.clone() }
    }

    fn user(&self) -> String {
        match &self.user {
            Some(user) => format!("user {user}"),
            None if self.own_certificate => "the hub's certificate".to_owned(),
            None => "the hub".to_owned(),
        }
    }

    fn principal(&self) -> &str {
        self.user.as_deref().unwrap_or("NAME")
    }
}

/// What librdkafka said of a connection; `None` of what is no trouble.
pub(super) fn of_connection(code: Code, text: &str, who: &Who) -> Option<Refusal> {
    let (broker, detail) = parted(text);
    let broker = broker.unwrap_or(&who.brokers);
    Some(match code {
        Code::Resolve => refusal(
            Trouble::Unreachable,
            format!("{broker} cannot be found: its name is not known; check brokers and the hub's DNS"),
        ),
        Code::Authentication | Code::SaslAuthenticationFailed => of_authentication(broker, detail, who),
        Code::SSL => of_tls(broker, detail, who),
        Code::BrokerTransportFailure => of_transport(broker, detail, who),
        // All that librdkafka says when it meets a TLS listener without TLS.
        Code::AllBrokersDown if !who.tls => refusal(
            Trouble::Unreachable,
            format!("none of the brokers {} can be reached without TLS; if they want it, write ca_file", who.brokers),
        ),
        Code::AllBrokersDown => {
            refusal(Trouble::Unreachable, format!("none of the brokers {} can be reached", who.brokers))
        }
        Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => {
            refusal(Trouble::Timeout, format!("{broker} does not answer in time: {}", shorten(detail)))
        }
        // It comes with the outcome of the records or of a call, and is judged there.
        Code::Fatal | Code::Fenced | Code::ProducerFenced => return None,
        other => of_code(other, detail, who),
    })
}

fn of_authentication(broker: &str, detail: &str, who: &Who) -> Refusal {
    let mechanism = who.sasl.map_or("SASL", Sasl::name);
    let detail_lower = detail.to_ascii_lowercase();
    let reason = if detail_lower.contains("unsupported sasl mechanism") || detail_lower.contains("mechanism handshake")
    {
        format!("{broker} does not offer {mechanism}; write another sasl ({})", shorten(detail))
    } else {
        format!(
            "{broker} refuses {}: wrong password, or no such user with {mechanism}; check user and password_file",
            who.user()
        )
    };
    refusal(Trouble::Access, reason)
}

fn of_tls(broker: &str, detail: &str, who: &Who) -> Refusal {
    let lower = detail.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let reason = if has(&["certificate verify failed", "could not be verified", "self-signed", "self signed"]) {
        format!(
            "{broker} shows a certificate that ca_file does not vouch for, or that is for another name; check ca_file and the host in brokers"
        )
    } else if has(&[
        "unknown ca",
        "bad certificate",
        "certificate required",
        "certificate unknown",
        "handshake failure",
        "certificate expired",
    ]) {
        match who.own_certificate {
            true => {
                format!("{broker} refuses the hub's certificate; check cert_file and key_file ({})", shorten(detail))
            }
            false => format!("{broker} asks for a certificate of the hub; write cert_file and key_file"),
        }
    } else if has(&[
        "plaintext broker listener",
        "wrong version number",
        "packet length too long",
        "http request",
        "unexpected eof",
    ]) {
        format!("{broker} speaks no TLS there; check the port in brokers")
    } else {
        format!("no encrypted connection to {broker}: {}", shorten(detail))
    };
    refusal(Trouble::Access, reason)
}

fn of_transport(broker: &str, detail: &str, who: &Who) -> Refusal {
    let lower = detail.to_ascii_lowercase();
    // A broker that refuses the hub's certificate says so after its own handshake, and librdkafka takes that, and a
    // connection that is closed in the handshake, for a fault of the line.
    if who.tls && lower.contains("ssl") {
        return of_tls(broker, detail, who);
    }
    if lower.contains("security.protocol") || lower.contains("apiversion") {
        let reason = match (who.tls, who.own_certificate) {
            (false, _) => format!(
                "{broker} closes the connection at once: it may want TLS; write ca_file, or check the port in brokers"
            ),
            (true, false) => {
                format!("{broker} closes the connection at once: it may want cert_file and key_file, or sasl")
            }
            (true, true) => format!(
                "{broker} closes the connection at once: it may refuse the hub's certificate, or want sasl; check cert_file and key_file"
            ),
        };
        return refusal(Trouble::Access, reason);
    }
    refusal(Trouble::Unreachable, format!("{broker} cannot be reached: {}", shorten(detail)))
}

/// What a broker, a record's report or a call answered.
pub(super) fn of_code(code: Code, detail: &str, who: &Who) -> Refusal {
    let Who { brokers, topic, .. } = who;
    let (user, principal) = (who.user(), who.principal());
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopicId => refusal(
            Trouble::Schema,
            format!(
                "topic {topic} does not exist on {brokers}; create it: kafka-topics.sh --create --topic {topic} --partitions 6 --replication-factor 3"
            ),
        ),
        Code::TopicAuthorizationFailed => refusal(
            Trouble::Access,
            format!(
                "{user} may not write to topic {topic}; allow it: kafka-acls.sh --add --allow-principal User:{principal} --operation Write --topic {topic}"
            ),
        ),
        Code::ClusterAuthorizationFailed => refusal(
            Trouble::Access,
            format!(
                "{user} may not write idempotently; allow it: kafka-acls.sh --add --allow-principal User:{principal} --operation IdempotentWrite --cluster"
            ),
        ),
        Code::TransactionalIdAuthorizationFailed => refusal(
            Trouble::Access,
            format!(
                "{user} may not use transactions; allow it: kafka-acls.sh --add --allow-principal User:{principal} --operation Write --operation Describe --transactional-id biogate- --resource-pattern-type prefixed"
            ),
        ),
        Code::GroupAuthorizationFailed => refusal(
            Trouble::Access,
            format!(
                "{user} may not keep its cursor; allow it: kafka-acls.sh --add --allow-principal User:{principal} --operation Read --group biogate- --resource-pattern-type prefixed"
            ),
        ),
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend | Code::ISRInsufficient => refusal(
            Trouble::Peer,
            format!("too few replicas of topic {topic} are in step (min.insync.replicas); start the missing brokers"),
        ),
        Code::LeaderNotAvailable | Code::NotLeaderForPartition => {
            refusal(Trouble::Peer, format!("a partition of topic {topic} has no leader; start the missing brokers"))
        }
        Code::InvalidTimestamp => refusal(
            Trouble::Peer,
            format!(
                "topic {topic} refuses the time of the records: is the hub's clock right? (message.timestamp.after.max.ms)"
            ),
        ),
        Code::ThrottlingQuotaExceeded | Code::QueueFull => {
            refusal(Trouble::Overload, format!("{brokers} has too much to do ({code:?})"))
        }
        Code::PurgeQueue | Code::PurgeInflight | Code::State => {
            refusal(Trouble::Peer, format!("{brokers} broke off a transaction for topic {topic}"))
        }
        Code::KafkaStorageError => refusal(Trouble::Peer, format!("a disk of {brokers} fails")),
        Code::OperationTimedOut | Code::RequestTimedOut | Code::MessageTimedOut => {
            refusal(Trouble::Timeout, format!("{brokers} does not acknowledge in time"))
        }
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::BrokerNotAvailable | Code::NetworkException => {
            refusal(Trouble::Unreachable, format!("none of the brokers {brokers} can be reached"))
        }
        other => refusal(
            Trouble::Peer,
            format!("{brokers} answers {other:?} for topic {topic} {}", shorten(detail)).trim_end().to_owned(),
        ),
    }
}

/// Whether a record is refused for what it is: unchanged, it is refused again.
pub(super) fn of_record(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize | Code::InvalidRecord
    )
}

/// Why such a record is given up.
pub(super) fn given_up(code: Code, bytes: usize, who: &Who) -> String {
    match code {
        Code::InvalidRecord => format!("topic {} refuses the record (InvalidRecord)", who.topic),
        _ => format!("topic {} refuses a record of {bytes} bytes as too large (max.message.bytes)", who.topic),
    }
}

fn refusal(trouble: Trouble, reason: String) -> Refusal {
    Refusal::new(trouble, reason)
}

/// `ssl://host:9093/bootstrap: what is wrong (after 3ms in state CONNECT)` -> `host:9093`, `what is wrong`.
fn parted(text: &str) -> (Option<&str>, &str) {
    let text = text.find(" (after ").map_or(text, |end| &text[..end]);
    let Some((name, detail)) = text.split_once(": ") else { return (None, text) };
    let address = name.split_once("://").map_or(name, |(_, address)| address);
    let address = address.split('/').next().unwrap_or(address);
    if address.contains(':') && !address.contains(' ') { (Some(address), detail) } else { (None, text) }
}

/// The first line, bounded.
fn shorten(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(MOST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> Who {
        let mut settings = Settings::new(vec!["k1:9093".into(), "k2:9093".into()], "events");
        settings.tls = true;
        settings.user = Some("hub".into());
        settings.sasl = Some(Sasl::ScramSha512);
        Who::of(&settings)
    }

    #[test]
    fn librdkafkas_own_texts_become_words() {
        let cases = [
            (
                Code::Authentication,
                "sasl_ssl://127.0.0.1:9094/bootstrap: SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512 (after 305ms in state AUTH_REQ)",
                Trouble::Access,
                "127.0.0.1:9094 refuses user hub: wrong password",
            ),
            (
                Code::SSL,
                "ssl://127.0.0.1:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified (after 5ms in state SSL_HANDSHAKE)",
                Trouble::Access,
                "ca_file does not vouch for",
            ),
            (
                Code::BrokerTransportFailure,
                "127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT, 3 identical error(s) suppressed)",
                Trouble::Unreachable,
                "127.0.0.1:9092 cannot be reached: Connect to ipv4#127.0.0.1:9092 failed: Connection refused",
            ),
            (
                Code::Resolve,
                "nohost:9092/bootstrap: Failed to resolve 'nohost:9092': Name or service not known (after 1ms in state CONNECT)",
                Trouble::Unreachable,
                "nohost:9092 cannot be found",
            ),
            (
                Code::BrokerTransportFailure,
                "ssl://127.0.0.1:9093/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker listener? (after 2ms in state SSL_HANDSHAKE)",
                Trouble::Access,
                "127.0.0.1:9093 speaks no TLS there; check the port",
            ),
            (
                Code::BrokerTransportFailure,
                "ssl://127.0.0.1:9093/bootstrap: Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42 (after 4ms in state APIVERSION_QUERY)",
                Trouble::Access,
                "127.0.0.1:9093 asks for a certificate of the hub; write cert_file",
            ),
            (Code::AllBrokersDown, "1/1 brokers are down", Trouble::Unreachable, "k1:9093, k2:9093"),
        ];
        for (code, text, trouble, words) in cases {
            let refusal = of_connection(code, text, &who()).unwrap();
            assert_eq!(refusal.trouble, trouble, "{text}");
            assert!(refusal.reason.contains(words), "{}", refusal.reason);
            assert!(!refusal.reason.contains("in state"), "{}", refusal.reason);
        }
    }

    #[test]
    fn what_may_pass_says_what_to_do() {
        for (code, trouble, words) in [
            (Code::UnknownTopic, Trouble::Schema, "--create --topic events"),
            (Code::TopicAuthorizationFailed, Trouble::Access, "User:hub --operation Write --topic events"),
            (Code::NotEnoughReplicas, Trouble::Peer, "min.insync.replicas"),
            (Code::InvalidTimestamp, Trouble::Peer, "clock"),
            (Code::ThrottlingQuotaExceeded, Trouble::Overload, "too much"),
            (Code::PolicyViolation, Trouble::Peer, "PolicyViolation"),
        ] {
            assert!(!of_record(code), "{code:?}");
            let refusal = of_code(code, "", &who());
            assert_eq!(refusal.trouble, trouble, "{code:?}");
            assert!(refusal.reason.contains(words), "{}", refusal.reason);
        }
        assert!(of_record(Code::MessageSizeTooLarge) && of_record(Code::InvalidRecord));
    }
}
