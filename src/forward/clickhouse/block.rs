//! The rows of one insert, encoded, and the pieces that it is sent in. Pure.

use std::ops::ControlFlow;

use bytes::Bytes;
use uuid::Uuid;

use crate::event::NAMESPACE;
use crate::forward::refusal::{Refusal, Trouble};
use crate::forward::rows::{Batch, Rejected};
use crate::store::Sequence;

use super::row;

/// One insert is one block on the server: what exceeds its own limits would be cut there, and each cut would want a
/// token of its own.
const MOST_ROWS: usize = 20_000;
const MOST_BYTES: usize = 4 << 20;

/// Fast, and a fifth of the bytes; a hub's uplink is slower than its processor.
const ZSTD_LEVEL: i32 = 1;

/// Encoded rows, at most one insert's worth.
#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    sequence: Sequence,
    id: Uuid,
    /// Months since year 0, by UTC as in the table's partition key.
    month: i32,
    end: usize,
}

/// Some rows of a block, in their order: the content of one insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    rows: Vec<u32>,
    /// The outcome of an earlier try is unknown. The token answers for that as long as the piece stays whole.
    pub(super) in_doubt: bool,
    /// How often it was refused for want of memory.
    pub(super) heavy: u32,
}

/// A block that was encoded and compressed before its turn.
#[derive(Debug)]
pub(in crate::forward) struct Whole {
    pub(super) block: Block,
    pub(super) body: Bytes,
}

impl Whole {
    /// The batch's first block. `None` when the batch's basis is unknown, or when it cannot be compressed: the try itself
    /// says why.
    pub(in crate::forward) fn of(batch: &mut Batch) -> Option<Whole> {
        let block = Block::take(batch)?;
        let body = block.whole().map_or(Ok(Bytes::new()), |whole| block.body(&whole)).ok()?;
        Some(Whole { block, body })
    }
}

impl Block {
    /// Takes the batch's next rows, as many as one insert holds. Rows that the table cannot hold are rejected at once.
    /// `None` when the batch's basis is unknown.
    pub(super) fn take(batch: &mut Batch) -> Option<Block> {
        let mut block = Block::default();
        let mut rejected = Vec::new();
        let filled = batch.fill(|sequence, event| {
            let start = block.bytes.len();
            match row::encode(&mut block.bytes, event) {
                Ok(()) => {
                    let end = block.bytes.len();
                    block.rows.push(Row { sequence, id: event.event_id, month: month(event.timestamp), end });
                }
                Err(reason) => {
                    block.bytes.truncate(start);
                    rejected.push(Rejected { sequence, reason });
                }
            }
            if block.rows.len() >= MOST_ROWS || block.bytes.len() >= MOST_BYTES {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        batch.tally.rejected.append(&mut rejected);
        filled.then_some(block)
    }

    /// All rows as one piece; `None` of an empty block.
    pub(super) fn whole(&self) -> Option<Piece> {
        (!self.rows.is_empty()).then(|| Piece::new((0..self.rows.len() as u32).collect()))
    }

    /// The piece's rows, compressed.
    pub(super) fn body(&self, piece: &Piece) -> std::io::Result<Bytes> {
        let plain = if piece.rows.len() == self.rows.len() {
            return zstd::bulk::compress(&self.bytes, ZSTD_LEVEL).map(Bytes::from);
        } else {
            piece.rows.iter().flat_map(|&row| self.row_bytes(row)).copied().collect::<Vec<u8>>()
        };
        zstd::bulk::compress(&plain, ZSTD_LEVEL).map(Bytes::from)
    }

    /// A hash of the event ids in their order. Never of sequence numbers: a new card under an old name counts from 1
    /// again, and its rows would be taken for repeats.
    pub(super) fn token(&self, piece: &Piece) -> String {
        let ids: Vec<u8> = piece.rows.iter().flat_map(|&row| *self.rows[row as usize].id.as_bytes()).collect();
        Uuid::new_v5(&NAMESPACE, &ids).simple().to_string()
    }

    /// The one row of a piece.
    pub(super) fn only_sequence(&self, piece: &Piece) -> Option<Sequence> {
        match piece.rows[..] {
            [row] => Some(self.rows[row as usize].sequence),
            _ => None,
        }
    }

    /// The piece month by month; `None` when it lies in one.
    pub(super) fn by_month(&self, piece: &Piece) -> Option<Vec<Piece>> {
        let mut months: Vec<(i32, Vec<u32>)> = Vec::new();
        for &row in &piece.rows {
            let month = self.rows[row as usize].month;
            match months.iter_mut().find(|(of, _)| *of == month) {
                Some((_, rows)) => rows.push(row),
                None => months.push((month, vec![row])),
            }
        }
        let pieces = |(_, rows)| Piece::new(rows);
        (months.len() > 1).then(|| months.into_iter().map(pieces).collect())
    }

    fn row_bytes(&self, row: u32) -> &[u8] {
        let row = row as usize;
        let start = row.checked_sub(1).map_or(0, |before| self.rows[before].end);
        &self.bytes[start..self.rows[row].end]
    }
}

impl Piece {
    fn new(rows: Vec<u32>) -> Piece {
        Piece { rows, in_doubt: false, heavy: 0 }
    }

    /// After a try that failed.
    pub(super) fn refused(self, refusal: &Refusal) -> Piece {
        let heavy = self.heavy + u32::from(refusal.trouble == Trouble::Heavy);
        Piece { in_doubt: self.in_doubt || refusal.in_doubt, heavy, ..self }
    }

    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Two pieces; `None` of a single row.
    pub(super) fn halves(&self) -> Option<[Piece; 2]> {
        let (first, second) = self.rows.split_at(self.rows.len() / 2);
        let piece = |rows: &[u32]| Piece::new(rows.to_vec());
        (!first.is_empty()).then(|| [piece(first), piece(second)])
    }
}

fn month(unix_ms: i64) -> i32 {
    jiff::Timestamp::from_millisecond(unix_ms).map_or(0, |instant| {
        let date = jiff::tz::TimeZone::UTC.to_datetime(instant).date();
        i32::from(date.year()) * 12 + i32::from(date.month())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(months: &[i32]) -> Block {
        let mut block = Block::default();
        for (nth, &month) in months.iter().enumerate() {
            block.bytes.extend_from_slice(&[nth as u8; 3]);
            let (sequence, id, end) = (nth as u64 + 10, Uuid::from_u128(nth as u128), block.bytes.len());
            block.rows.push(Row { sequence, id, month, end });
        }
        block
    }

    #[test]
    fn halves_end_at_single_rows_and_lose_none() {
        let block = block(&[1; 7]);
        let (mut work, mut alone) = (vec![block.whole().unwrap()], Vec::new());
        while let Some(piece) = work.pop() {
            match piece.halves() {
                Some([first, second]) => work.extend([second, first]),
                None => alone.push(block.only_sequence(&piece).unwrap()),
            }
        }
        assert_eq!(alone, [10, 11, 12, 13, 14, 15, 16]);
    }

    #[test]
    fn months_keep_their_order_and_their_bytes() {
        let block = block(&[5, 6, 5]);
        let pieces = block.by_month(&block.whole().unwrap()).unwrap();
        assert_eq!(pieces.iter().map(Piece::len).collect::<Vec<_>>(), [2, 1]);
        let plain = zstd::bulk::decompress(&block.body(&pieces[0]).unwrap(), 100).unwrap();
        assert_eq!(plain, [0, 0, 0, 2, 2, 2]);
        assert!(block.by_month(&pieces[0]).is_none());
        assert_ne!(block.token(&pieces[0]), block.token(&pieces[1]));
        assert_eq!(month(0), 1970 * 12 + 1);
    }
}
