//! A range's chunks on their way out: packed until their turn comes.

use std::fmt;
use std::vec;

use super::chunk::{Decoder, Header};
use super::damage::Damaged;
use super::rows::Reading;
use super::{Chunk, Sequence};

/// Observations of one part. So few that what is allocated for them is taken from and given back to the thread's own
/// cache of the allocator: the shared one is what the threads of a drain wait for.
const PART: u64 = 16;

/// The chunks of a range in their order, each unpacked when its turn comes and handed out in parts, so that a long range
/// costs little memory and the store's thread no time. One that is damaged is left out and said in the log: what the
/// range counts and did not come is damaged.
pub struct Chunks {
    records: vec::IntoIter<(Sequence, sled::IVec)>,
    decoder: Decoder,
    /// The body of the chunk whose turn it is.
    raw: Vec<u8>,
    open: Option<(Header, Reading)>,
}

impl Chunks {
    /// Of these whole records, each with its first sequence.
    pub(super) fn new(records: Vec<(Sequence, sled::IVec)>, decoder: Decoder) -> Chunks {
        Chunks { records: records.into_iter(), decoder, raw: Vec::new(), open: None }
    }

    /// The next part of the chunk whose turn it is. `None` after its last.
    fn part(&mut self) -> Option<Result<Chunk, Damaged>> {
        let (header, mut reading) = self.open.take()?;
        // What stands behind the observations tells whom they are for: such a chunk is one part.
        let most = if reading.has_destination() { header.count } else { PART };
        let first = header.first + header.count - reading.left();
        let observations = match reading.next(&self.raw, most) {
            Ok(observations) => observations,
            Err(damaged) => return Some(Err(damaged)),
        };
        let only_for = if reading.left() > 0 {
            self.open = Some((header, reading));
            None
        } else {
            match reading.end(&self.raw) {
                Ok(only_for) => only_for,
                Err(damaged) => return Some(Err(damaged)),
            }
        };
        Some(Ok(Chunk { run: header.run, first, only_for, observations }))
    }
}

impl Iterator for Chunks {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        loop {
            match self.part() {
                Some(Ok(chunk)) => return Some(chunk),
                Some(Err(damaged)) => tracing::error!(%damaged, "a part of a chunk cannot be read"),
                None => {}
            }
            let (first, record) = self.records.next()?;
            let unpacked = super::record::parse(&record);
            match unpacked.and_then(|record| self.decoder.unpack(record.chunk, &mut self.raw)) {
                Ok(open) => self.open = Some(open),
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
