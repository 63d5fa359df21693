//! What `biogate check` asks of a Kafka cluster.

use super::{Finding, Verdict};
use crate::forward::kafka::{Settings, survey};

/// Whether the brokers let the hub in, and the topics are there and fit.
pub(super) async fn findings(what: String, settings: &Settings) -> Vec<Finding> {
    let found = match survey(settings).await {
        Ok(found) => found,
        Err(refusal) => return vec![Finding::of(what, Verdict::Fail, refusal.reason)],
    };
    let topic = &settings.topic;
    let limit = match found.max_message_bytes {
        Some(bytes) => format!("records up to {bytes} bytes"),
        None => format!("its limit may not be read, {} bytes are assumed", settings.max_message_bytes),
    };
    let said = format!("{} brokers, topic {topic} with {} partitions, {limit}", found.brokers, found.partitions);
    let mut findings = vec![Finding::of(what.clone(), Verdict::Ok, said)];
    if found.timestamp_type.as_deref() == Some("CreateTime") {
        findings.push(Finding::of(
            what.clone(),
            Verdict::Warn,
            format!(
                "topic {topic} keeps records by the time that the hub's clock shows, and a hub without a clock of its own may show a wrong one; kafka-configs.sh --alter --topic {topic} --add-config message.timestamp.type=LogAppendTime"
            ),
        ));
    }
    match found.cursor_partitions {
        None => {}
        Some(1) => findings.push(Finding::of(
            what,
            Verdict::Ok,
            format!("exactly once: the cursor is an offset of topic {}", settings.cursor_topic),
        )),
        Some(more) => findings.push(Finding::of(
            what,
            Verdict::Warn,
            format!("topic {} has {more} partitions; the first alone holds the cursors", settings.cursor_topic),
        )),
    }
    findings
}
