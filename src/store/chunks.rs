//! A range's chunks on their way out: packed until their turn comes.

use std::fmt;
use std::vec;

use super::chunk::Decoder;
use super::{Chunk, Sequence};

/// The chunks of a range in their order, each unpacked when it is asked for, so that a long range costs little memory and
/// the store's thread no time. One that is damaged is left out and said in the log: what the range counts and did not
/// come is damaged.
pub struct Chunks {
    records: vec::IntoIter<(Sequence, sled::IVec)>,
    decoder: Decoder,
}

impl Chunks {
    /// Of these whole records, each with its first sequence.
    pub(super) fn new(records: Vec<(Sequence, sled::IVec)>, decoder: Decoder) -> Chunks {
        Chunks { records: records.into_iter(), decoder }
    }
}

impl Iterator for Chunks {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        loop {
            let (first, record) = self.records.next()?;
            match super::record::parse(&record).and_then(|record| self.decoder.decode(record.chunk)) {
                Ok(chunk) => return Some(chunk),
                Err(damaged) => tracing::error!(sequence = first, %damaged, "a chunk cannot be read"),
            }
        }
    }
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").field("left", &self.records.len()).finish_non_exhaustive()
    }
}
