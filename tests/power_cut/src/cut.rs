//! A cut: the disk as it may have been had the power gone at one position of the log.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use crate::disk::Entry;
use crate::record::Recording;
use crate::told::Said;

/// The unit in which the disk keeps or drops what was not flushed.
const BLOCK: usize = 4_096;

/// Where a cut lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// While a writer opened.
    Opening,
    /// In the round in which a generation was born or died.
    Birth,
    /// At the very entry at which something was acknowledged.
    Acknowledged,
    /// Anywhere.
    Anywhere,
}

/// The power goes when the log has `position` entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) position: usize,
    pub(crate) place: Place,
    /// The chance of a block that was written and not flushed to be on the disk.
    pub(crate) keep: f64,
    seed: u64,
}

/// Draws cuts, in the order of their positions: half in births and deaths, a quarter at
/// acknowledgements, an eighth while a writer opens.
pub(crate) fn draw(recording: &Recording, count: usize, random: &mut fastrand::Rng) -> Vec<Cut> {
    let (mut births, mut acknowledged, mut before) = (Vec::new(), Vec::new(), 0);
    for (at, said) in &recording.said {
        match said {
            Said::Committed { birth: true, .. } | Said::Went { death: true } => births.push((before, *at)),
            _ => {}
        }
        if let Said::Committed { .. } = said {
            acknowledged.push((*at, *at));
        }
        before = *at;
    }
    let anywhere = vec![(0, recording.log.len())];
    let mut cuts: Vec<Cut> = (0..count)
        .map(|number| {
            let (place, spans) = match number % 8 {
                7 => (Place::Opening, &recording.openings),
                0 | 2 | 4 | 6 if !births.is_empty() => (Place::Birth, &births),
                0 | 1 | 5 if !acknowledged.is_empty() => (Place::Acknowledged, &acknowledged),
                _ => (Place::Anywhere, &anywhere),
            };
            let (from, to) = spans[random.usize(..spans.len())];
            let mut position = random.usize(from..=to);
            // Flushes are dense: just before one the disk holds most that may be dropped.
            if place != Place::Acknowledged && random.bool() {
                let rest = &recording.log[position..];
                position += rest.iter().position(|entry| matches!(entry, Entry::Flush)).unwrap_or(rest.len());
            }
            let keep = [0.0, 1.0, 0.5, random.f64()][random.usize(..4)];
            Cut { position, place, keep, seed: random.u64(..) }
        })
        .collect();
    cuts.sort_by_key(|cut| cut.position);
    cuts
}

/// Builds the disks of cuts whose positions ascend.
pub(crate) struct Rebuild<'a> {
    log: &'a [Entry],
    /// What lies safely on the disk at `flushed`.
    durable: Vec<u8>,
    flushed: usize,
}

impl<'a> Rebuild<'a> {
    pub(crate) fn new(recording: &'a Recording) -> Self {
        Rebuild { log: &recording.log, durable: recording.base.clone(), flushed: 0 }
    }

    /// Writes the disk of this cut to `image`: all before the last flush, and of what came after it each block by
    /// chance. Says how many blocks were kept and dropped.
    pub(crate) fn write(&mut self, cut: &Cut, image: &Path) -> std::io::Result<(usize, usize)> {
        let before = &self.log[self.flushed..cut.position];
        let last_flush = before.iter().rposition(|entry| matches!(entry, Entry::Flush)).map_or(0, |at| at + 1);
        let (safe, open) = before.split_at(last_flush);
        for entry in safe {
            if let Entry::Write { offset, data } = entry {
                self.durable[*offset..*offset + data.len()].copy_from_slice(data);
            }
        }
        self.flushed += last_flush;

        let mut random = fastrand::Rng::with_seed(cut.seed);
        let mut disk = self.durable.clone();
        let (mut kept, mut dropped) = (0, 0);
        for entry in open {
            let Entry::Write { offset, data } = entry else { continue };
            let (mut at, mut rest) = (*offset, &data[..]);
            while !rest.is_empty() {
                let (block, after) = rest.split_at(rest.len().min(BLOCK - at % BLOCK));
                if random.f64() < cut.keep {
                    disk[at..at + block.len()].copy_from_slice(block);
                    kept += 1;
                } else {
                    dropped += 1;
                }
                (at, rest) = (at + block.len(), after);
            }
        }

        let mut file = std::fs::File::create(image)?;
        file.set_len(disk.len() as u64)?;
        for (number, block) in disk.chunks(BLOCK).enumerate() {
            if block != &[0; BLOCK][..block.len()] {
                file.seek(SeekFrom::Start((number * BLOCK) as u64))?;
                file.write_all(block)?;
            }
        }
        Ok((kept, dropped))
    }
}
