//! Sends a batch's blocks piece by piece, and remembers across retries which pieces are through.

use std::sync::Arc;

use bytes::Bytes;

use crate::forward::Delivery;
use crate::forward::refusal::{Refusal, Trouble};
use crate::forward::rows::{Batch, Prepared, Rejected};

use super::block::{Block, Piece};
use super::http::{Fault, Http};
use super::row::COLUMNS;
use super::verdict::{Verdict, Who, judge};
use super::{Settings, quoted, schema};

/// From this many rows on, encoding and compressing leave the async thread.
const LARGE: u64 = 1_000;

/// After so many refusals for want of memory a piece is halved.
const HEAVY_TRIES: u32 = 2;

/// What exactness needs, each given with every insert: servers and user profiles differ in their defaults.
///
/// One block per insert (the block sizes), written when the answer comes (no async insert), under our token, also into
/// dependent views; no row skipped in silence (allow_errors), and the metadata's text read as JSON.
pub(super) const INSERT_SETTINGS: &[(&str, &str)] = &[
    ("async_insert", "0"),
    ("wait_for_async_insert", "1"),
    ("wait_end_of_query", "1"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("max_insert_block_size", "1048449"),
    ("min_insert_block_size_rows", "1048449"),
    ("min_insert_block_size_bytes", "268402944"),
    ("throw_on_max_partitions_per_insert_block", "1"),
    ("input_format_allow_errors_num", "0"),
    ("input_format_allow_errors_ratio", "0"),
    ("input_format_binary_read_json_as_string", "1"),
];

/// The destination.
#[derive(Debug)]
pub struct ClickHouse {
    pub(super) settings: Settings,
    pub(super) http: Http,
    statement: String,
    /// What is left of the block in hand; it belongs to the batch that comes back with the next try.
    left: Option<(Arc<Block>, Vec<Piece>)>,
}

impl ClickHouse {
    /// A destination that has not been spoken to. `Err` says what is wrong with the URL.
    pub fn new(settings: Settings) -> Result<ClickHouse, String> {
        let http = Http::new(settings.clone())?;
        let table = format!("{}.{}", quoted(&settings.database), quoted(&settings.table));
        let statement = format!("INSERT INTO {table} ({COLUMNS}) FORMAT RowBinary");
        Ok(ClickHouse { settings, http, statement, left: None })
    }

    /// Sends what of the batch is not through yet. A batch that comes back goes on where it stopped, with the same
    /// rows under the same tokens.
    pub async fn deliver(&mut self, mut batch: Batch) -> Delivery {
        loop {
            let prepared = std::mem::take(&mut batch.prepared);
            let mut body = None;
            let (block, mut pieces) = match (self.left.take(), prepared) {
                (Some(left), _) => left,
                (None, Prepared::ClickHouse(ahead)) => {
                    let Some(whole) = ahead.block.whole() else { continue };
                    body = Some(ahead.body);
                    (Arc::new(ahead.block), vec![whole])
                }
                (None, _) => {
                    let rows = batch.range.last.saturating_sub(batch.range.first);
                    let (returned, block) = off_thread(rows, move || {
                        let block = Block::take(&mut batch);
                        (batch, block)
                    })
                    .await;
                    batch = returned;
                    let Some(block) = block else { return Delivery::Again(unknown_basis(&batch)) };
                    let Some(whole) = block.whole() else { return Delivery::Done(batch) };
                    // What a process before this one sent of them was cut the same way, under the same tokens.
                    (Arc::new(block), vec![whole])
                }
            };
            while let Some(piece) = pieces.pop() {
                match self.send(&block, &piece, body.take(), &mut batch).await {
                    Ok(more) => pieces.extend(more.into_iter().rev()),
                    Err(refusal) => {
                        pieces.push(piece.refused(&refusal));
                        self.left = Some((block, pieces));
                        return Delivery::Later(batch, refusal);
                    }
                }
            }
        }
    }

    /// Lets go of the batch in hand: another destination gets its range.
    pub fn abandon(&mut self) {
        self.left = None;
        self.http.close();
    }

    /// Sends one piece and enters what became of it; returns the pieces to send instead where it must be divided.
    /// `ready` is the piece's body where that was made before.
    async fn send(
        &mut self,
        block: &Arc<Block>,
        piece: &Piece,
        ready: Option<Bytes>,
        batch: &mut Batch,
    ) -> Result<Vec<Piece>, Refusal> {
        let verdict = self.insert(block, piece, ready, batch).await?;
        let whole = |reason: String| Refusal::new(Trouble::Peer, reason).not_arrived();
        match verdict {
            Verdict::Delivered => {
                batch.tally.delivered += piece.len();
                Ok(Vec::new())
            }
            Verdict::Again(refusal) => Err(refusal),
            // Waiting may help against the memory of others, and only fewer rows against our own.
            Verdict::Heavy(refusal) => match piece.halves() {
                Some(halves) if piece.heavy >= HEAVY_TRIES => Ok(self.divided(piece, halves.into(), batch)),
                Some(_) | None => Err(refusal),
            },
            Verdict::Partitions => match (block.by_month(piece), piece.halves()) {
                (Some(months), _) => Ok(self.divided(piece, months, batch)),
                // Another partition key than ours.
                (None, Some(halves)) => Ok(self.divided(piece, halves.into(), batch)),
                (None, None) => Err(whole("the table takes not even one row: too many partitions".to_owned())),
            },
            Verdict::TooLarge(reason) => match piece.halves() {
                Some(halves) => Ok(self.divided(piece, halves.into(), batch)),
                None => Ok(reject(block, piece, reason, batch)),
            },
            Verdict::Data(reason) => {
                // Before any row is given up: does the table fit at all? Else every row would be blamed for it.
                self.verify_table().await?;
                match piece.halves() {
                    Some(halves) => Ok(self.divided(piece, halves.into(), batch)),
                    None => Ok(reject(block, piece, reason, batch)),
                }
            }
        }
    }

    /// New pieces have new tokens. Where the old one's outcome was ever unknown its rows count as sent again: had the
    /// table changed meanwhile, the event ids remove the copies.
    fn divided(&self, piece: &Piece, pieces: Vec<Piece>, batch: &mut Batch) -> Vec<Piece> {
        if piece.in_doubt {
            batch.tally.resent += piece.len();
        }
        pieces
    }

    async fn insert(
        &mut self,
        block: &Arc<Block>,
        piece: &Piece,
        ready: Option<Bytes>,
        batch: &mut Batch,
    ) -> Result<Verdict, Refusal> {
        let body = match ready {
            Some(body) => Ok(body),
            None => {
                let (block, piece) = (block.clone(), piece.clone());
                off_thread(piece.len(), move || block.body(&piece)).await
            }
        };
        let body =
            body.map_err(|error| Refusal::new(Trouble::Internal, format!("cannot compress: {error}")).not_arrived())?;
        batch.tally.bytes += body.len() as u64;
        let token = block.token(piece);
        let answer = self.post(&[("insert_deduplication_token", &token)], body).await?;
        let (server, user) = (self.http.endpoint().to_string(), self.user());
        let Settings { database, table, .. } = &self.settings;
        Ok(judge(&answer, &Who { server: &server, user: &user, database, table }))
    }

    async fn post(&mut self, more: &[(&str, &str)], body: Bytes) -> Result<super::http::Answer, Refusal> {
        let mut params = vec![("query", self.statement.as_str())];
        params.extend_from_slice(INSERT_SETTINGS);
        params.extend_from_slice(more);
        self.http.post(&params, body, true).await.map_err(unanswered)
    }

    async fn verify_table(&mut self) -> Result<(), Refusal> {
        match schema::verify_with(&mut self.http, &self.settings).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.refusal()),
        }
    }

    pub(super) fn user(&self) -> String {
        match &self.settings.user {
            Some(user) => format!("user {user}"),
            None => "the default user".to_owned(),
        }
    }
}

/// What a missing answer means, and whether the request may have been carried out all the same.
pub(super) fn unanswered(fault: Fault) -> Refusal {
    match fault {
        Fault::NotSent { access, reason } => {
            let trouble = if access { Trouble::Access } else { Trouble::Unreachable };
            Refusal::new(trouble, reason).not_arrived()
        }
        Fault::Unknown { timed_out, reason } => {
            let trouble = if timed_out { Trouble::Timeout } else { Trouble::Unreachable };
            Refusal::new(trouble, reason)
        }
    }
}

fn unknown_basis(batch: &Batch) -> Refusal {
    let reason = format!("basis {} of the batch is not known any more", batch.range.basis);
    Refusal::new(Trouble::Internal, reason).not_arrived()
}

fn reject(block: &Block, piece: &Piece, reason: String, batch: &mut Batch) -> Vec<Piece> {
    if let Some(sequence) = block.only_sequence(piece) {
        batch.tally.rejected.push(Rejected { sequence, reason });
    }
    Vec::new()
}

/// Runs `work` on a blocking thread where it is large.
async fn off_thread<T: Send + 'static>(rows: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    if rows < LARGE {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            // It goes on here as if the work had been done here.
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
