//! The cursor of `exactly_once`: an offset that is committed with the records, and a text that says of which rows.
//!
//! The offset is the next sequence. That alone proves nothing: a new card under an old name counts from 1 again, and its
//! rows would be taken for those that were sent. So the text holds a hash of the event ids in their order, as the insert
//! token of ClickHouse does, and a range counts as sent when both fit. No older range is ever asked for: one that is in
//! hand is durable with its bounds before its first try, and the next is cut only when it is settled.
//! The text also names the rows that the brokers refused, so that a range that was committed but not settled before the
//! process died has the same outcome afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::event::NAMESPACE;
use crate::forward::refusal::{Refusal, Trouble};

use super::words::Who;
use super::{Settings, client, survey};

/// The form of the text.
const FORM: &str = "1";
/// The brokers keep at most 4,096 bytes; refused rows that do not fit are taken for delivered after a death between the
/// commit and the settlement. They are in nobody's way there.
const MOST_TEXT: usize = 4_000;
/// How long the brokers may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was committed last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The sequence after the last.
    pub(super) next: u64,
    /// Of the event ids that were sent.
    pub(super) token: String,
    /// The refused rows, counted from the range's first observation.
    pub(super) refused: BTreeSet<usize>,
}

/// Adds up the ids of a batch.
#[derive(Debug, Default)]
pub(super) struct Ids(Vec<u8>);

impl Ids {
    pub(super) fn add(&mut self, id: Uuid) {
        self.0.extend_from_slice(id.as_bytes());
    }

    pub(super) fn token(&self) -> String {
        Uuid::new_v5(&NAMESPACE, &self.0).simple().to_string()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Cursor {
    /// As the brokers keep it beside the offset.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{FORM} {} ", self.token);
        for nth in &self.refused {
            let more = format!("{nth},");
            if text.len() + more.len() > MOST_TEXT {
                break;
            }
            text.push_str(&more);
        }
        text
    }

    /// `None` of what another program wrote.
    pub(super) fn parse(next: u64, text: &str) -> Option<Cursor> {
        let mut parts = text.splitn(3, ' ');
        if parts.next() != Some(FORM) {
            return None;
        }
        let token = parts.next()?.to_owned();
        let refused = parts.next()?.split(',').filter(|nth| !nth.is_empty());
        Some(Cursor { next, token, refused: refused.map(|nth| nth.parse().ok()).collect::<Option<_>>()? })
    }

    /// For the transaction.
    pub(super) fn offsets(&self, topic: &str) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        let mut partition = list.add_partition(topic, 0);
        partition.set_offset(Offset::Offset(i64::try_from(self.next).unwrap_or(i64::MAX)))?;
        partition.set_metadata(self.text());
        Ok(list)
    }
}

/// Reads what the group has committed; blocks. Only after `init_transactions`, which ends what an earlier process left
/// open: read before, it would wait for that transaction's timeout.
pub(super) fn read(
    settings: &Settings,
    group: &str,
    who: &Who,
) -> Result<(Option<Cursor>, ConsumerGroupMetadata), Refusal> {
    let mut config = client::config(settings)?;
    config.set("group.id", group).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
    // It lives for this one question: a second client's threads are not kept.
    let consumer: BaseConsumer = config.create().map_err(|error| client::not_made(&error))?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&settings.cursor_topic, 0);
    let who = who.about(&settings.cursor_topic);
    let found = consumer.committed_offsets(asked, PATIENCE).map_err(|error| survey::of_error(&error, &who))?;
    let found = found.find_partition(&settings.cursor_topic, 0);
    if let Some(Err(error)) = found.as_ref().map(|partition| partition.error()) {
        return Err(survey::of_error(&error, &who));
    }
    let cursor = found.and_then(|partition| match partition.offset() {
        Offset::Offset(next) => Cursor::parse(u64::try_from(next).ok()?, partition.metadata()),
        _ => None,
    });
    let group = consumer
        .group_metadata()
        .ok_or_else(|| Refusal::new(Trouble::Internal, "librdkafka gives no group metadata".to_owned()))?;
    Ok((cursor, group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_written() {
        let mut ids = Ids::default();
        ids.add(Uuid::from_u128(7));
        for refused in [BTreeSet::new(), BTreeSet::from([0, 17, 9_999])] {
            let cursor = Cursor { next: 101, token: ids.token(), refused };
            assert_eq!(Cursor::parse(101, &cursor.text()), Some(cursor));
        }
        for foreign in ["", "run 7", "2 abc ", "1 abc", "1 abc x,"] {
            assert_eq!(Cursor::parse(1, foreign), None, "{foreign}");
        }
    }

    #[test]
    fn its_text_fits_however_many_are_refused() {
        let cursor = Cursor { next: 1, token: "t".into(), refused: (0..20_000).collect() };
        let text = cursor.text();
        assert!(text.len() <= MOST_TEXT, "{}", text.len());
        assert!(Cursor::parse(1, &text).unwrap().refused.len() > 500);
    }

    #[test]
    fn other_rows_under_the_same_numbers_have_another_token() {
        let token = |ids: &[u128]| {
            let mut sum = Ids::default();
            ids.iter().for_each(|id| sum.add(Uuid::from_u128(*id)));
            sum.token()
        };
        assert_ne!(token(&[1, 2]), token(&[2, 1]));
        assert_ne!(token(&[1, 2]), token(&[1, 3]));
    }
}
