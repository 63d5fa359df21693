//! One transaction: begun, filled, and committed or aborted; never left as it is. All of it blocks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;

use crate::forward::refusal::Refusal;

use super::client::{MOST_RECORDS, TRANSACTION_TIMEOUT};
use super::context::Enough;
use super::open::Open;
use super::record::{Lane, Line, NotTaken, Row};
use super::{survey, words};

/// All reports must be in by then; what is left of the timeout is for the commit.
const REPORTS_PATIENCE: Duration = Duration::from_millis(TRANSACTION_TIMEOUT.as_millis() as u64 - 1_500);
/// How long a commit is tried before its outcome counts as unknown.
const COMMIT_PATIENCE: Duration = Duration::from_secs(15);
/// The same of an abort. Without it the producer is given up, which has the same effect.
const ABORT_PATIENCE: Duration = Duration::from_secs(3);
/// The longest single call: in between it is seen whether anybody still waits for it.
const CALL: Duration = Duration::from_secs(1);
/// Between looks at a queue that is all but empty.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// Why a transaction came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is aborted; the same batch may go once more.
    Again(Refusal),
    /// It is aborted; at least one of these rows is refused for what it is.
    Refused(Vec<Row>),
    /// It may have been committed, or its end is not known: a new producer finds out.
    Unknown(Refusal),
    /// The id is another's, or the transaction was ended for its age. `open`: how long it was.
    Fenced { open: Duration },
}

/// Records that came back, and why.
type Failed = Vec<(RDKafkaErrorCode, Row)>;

/// An open transaction.
pub(super) struct Transaction<'a> {
    open: &'a Open,
    stop: &'a AtomicBool,
    begun: Instant,
}

impl<'a> Transaction<'a> {
    pub(super) fn begin(open: &'a Open, stop: &'a AtomicBool) -> Result<Transaction<'a>, Failure> {
        let transaction = Transaction { open, stop, begun: Instant::now() };
        // What an aborted one before left over.
        open.shared.events.wait(Enough::Left(0), Instant::now() + CALL);
        open.shared.events.take(Lane::default());
        open.producer.begin_transaction().map_err(|error| transaction.failed(error))?;
        Ok(transaction)
    }

    /// Queues a line; waits while the queue is full.
    pub(super) fn send(&self, topic: &str, line: Line<'_>) -> Result<(), NotTaken> {
        self.taken(topic, line.send(Lane::default(), topic, &self.open.producer, &self.open.shared.events))
    }

    /// The same of a row.
    fn send_row(&self, topic: &str, row: Row) -> Result<(), NotTaken> {
        self.taken(topic, row.send(topic, &self.open.producer, &self.open.shared.events))
    }

    fn taken(&self, topic: &str, mut sent: Result<(), (Row, NotTaken)>) -> Result<(), NotTaken> {
        let events = &self.open.shared.events;
        loop {
            match sent {
                Ok(()) => return Ok(()),
                Err((row, NotTaken::Full))
                    if events.wait(Enough::Left(MOST_RECORDS as usize / 2), self.reports_by()) =>
                {
                    sent = row.send(topic, &self.open.producer, events);
                }
                Err((_, why)) => return Err(why),
            }
        }
    }

    /// The cursor goes with the records.
    pub(super) fn offsets(&self, offsets: &TopicPartitionList, group: &ConsumerGroupMetadata) -> Result<(), Failure> {
        let producer = &self.open.producer;
        let send = |left| producer.send_offsets_to_transaction(offsets, group, left);
        again(REPORTS_PATIENCE.saturating_sub(self.begun.elapsed()), self.stop, send)
            .map_err(|error| self.failed(error))
    }

    /// Ends it so that nothing of it is ever seen.
    pub(super) fn abort(&self) -> Result<(), Failure> {
        let producer = &self.open.producer;
        match again(ABORT_PATIENCE, self.stop, |left| producer.abort_transaction(left)) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// A call failed; returns what that means after the abort.
    pub(super) fn failed(&self, error: KafkaError) -> Failure {
        if is_fatal(&error) {
            return self.lost(&error);
        }
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        self.undone(Vec::new(), code, not_done(&error, self.open))
    }

    /// A row was not taken into the queue: after one that failed no other is.
    pub(super) fn stopped(&self, why: NotTaken) -> Failure {
        let code = match why {
            NotTaken::Full => RDKafkaErrorCode::MessageTimedOut,
            NotTaken::Refused(code) => code,
        };
        self.undone(Vec::new(), code, self.words(code))
    }

    /// Records that failed; `None` of none.
    fn came_back(&self, failed: Failed) -> Option<Failure> {
        let (code, _) = failed.first()?;
        let code = *code;
        Some(self.undone(failed, code, self.words(code)))
    }

    /// Aborts, and sees whether it was the fault of a record.
    fn undone(&self, mut failed: Failed, code: RDKafkaErrorCode, refusal: Refusal) -> Failure {
        if let Some((code, text)) = self.open.producer.client().fatal_error() {
            return self.dead(code, &text);
        }
        if let Err(failure) = self.abort() {
            return failure;
        }
        // The abort brings back what had no report yet.
        failed.extend(self.open.shared.events.take(Lane::default()).failed);
        let named = failed.iter().any(|(code, _)| words::of_record(*code));
        let suspect = |(code_of_row, row): (RDKafkaErrorCode, Row)| match named {
            true => words::of_record(code_of_row).then_some(row),
            // The transaction broke off because of a record before that one's own report came.
            false => words::of_record(code).then_some(row),
        };
        let suspects: Vec<Row> = failed.into_iter().filter_map(suspect).collect();
        if suspects.is_empty() { Failure::Again(refusal) } else { Failure::Refused(suspects) }
    }

    fn words(&self, code: RDKafkaErrorCode) -> Refusal {
        let shared = &self.open.shared;
        shared.word().unwrap_or_else(|| words::of_code(code, "", shared.who()))
    }

    /// Sends rows to see whether they are taken, and takes all back. `None`: all are.
    pub(super) fn probe(self, topic: &str, rows: &[Row]) -> Result<Option<RDKafkaErrorCode>, Failure> {
        for row in rows.iter() {
            self.send_row(topic, row.again()).map_err(|why| self.stopped(why))?;
        }
        if !self.reported() {
            return Err(self.silent());
        }
        let failed = self.open.shared.events.take(Lane::default()).failed;
        let refused = failed.iter().map(|(code, _)| *code).find(|code| words::of_record(*code));
        match (refused, self.came_back(failed)) {
            (Some(code), Some(Failure::Refused(_))) => Ok(Some(code)),
            (_, Some(failure)) => Err(failure),
            (_, None) => self.abort().map(|()| None),
        }
    }

    fn reports_by(&self) -> Instant {
        self.begun + REPORTS_PATIENCE
    }

    /// Waits for every record's report.
    fn reported(&self) -> bool {
        let events = &self.open.shared.events;
        while !self.stop.load(Ordering::Relaxed) && Instant::now() < self.reports_by() {
            if events.wait(Enough::Left(0), self.reports_by().min(Instant::now() + CALL)) {
                return true;
            }
        }
        false
    }

    fn silent(&self) -> Failure {
        let refusal = survey::why_silent(&self.open.producer, &self.open.shared, self.open.shared.who());
        match self.abort() {
            Ok(()) => Failure::Again(refusal),
            Err(failure) => failure,
        }
    }

    /// The producer cannot go on.
    fn lost(&self, error: &KafkaError) -> Failure {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        // "Fatal" says nothing; what made it so does.
        match self.open.producer.client().fatal_error() {
            Some((code, text)) => self.dead(code, &text),
            None => self.dead(code, &error.to_string()),
        }
    }

    fn dead(&self, code: RDKafkaErrorCode, text: &str) -> Failure {
        use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
        match code {
            Fenced | ProducerFenced | InvalidProducerEpoch => Failure::Fenced { open: self.begun.elapsed() },
            code => {
                let shared = &self.open.shared;
                Failure::Unknown(shared.word().unwrap_or_else(|| words::of_code(code, text, shared.who())))
            }
        }
    }
}

/// Waits for every record's report and commits. Returns how many records there are, and the bytes of their values.
pub(super) fn commit(transaction: Transaction<'_>) -> Result<(u64, u64), Failure> {
    let Open { producer, shared, .. } = transaction.open;
    if !transaction.reported() {
        return Err(transaction.silent());
    }
    let outcome = shared.events.take(Lane::default());
    if let Some(failure) = transaction.came_back(outcome.failed) {
        return Err(failure);
    }
    // rdkafka's commit begins with a flush that looks every 100 ms. The reports are in, so the last of them leave the
    // queue at once.
    while producer.in_flight_count() > 0 && Instant::now() < transaction.reports_by() {
        #[expect(clippy::disallowed_methods, reason = "on a blocking thread, and for a moment")]
        std::thread::sleep(LOOK_AGAIN);
    }
    crash_point!("kafka.commit.before");
    let committed = again(COMMIT_PATIENCE, transaction.stop, |left| producer.commit_transaction(left));
    crash_point!("kafka.commit.after");
    match committed {
        Ok(()) => Ok((outcome.delivered, outcome.bytes)),
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
            Err(transaction.failed(KafkaError::Transaction(error)))
        }
        Err(error) => Err(transaction.lost(&error)),
    }
}

/// Makes a call until it is through, as long as it only asks to be made again.
pub(super) fn again(
    patience: Duration,
    stop: &AtomicBool,
    mut call: impl FnMut(Duration) -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match call(left.min(CALL)) {
            Err(error) if may_repeat(&error) && Instant::now() < until && !stop.load(Ordering::Relaxed) => {}
            done => return done,
        }
    }
}

fn may_repeat(error: &KafkaError) -> bool {
    match error {
        // rdkafka's commit flushes first.
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => true,
        KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort() && !error.is_fatal(),
        _ => false,
    }
}

fn is_fatal(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_fatal())
}

/// What librdkafka said of the connection, or what the failed call says.
pub(super) fn not_done(error: &KafkaError, open: &Open) -> Refusal {
    open.shared.word().unwrap_or_else(|| survey::of_error(error, open.shared.who()))
}
