//! What a generation's raw file holds, whatever sled makes of it: sled keeps values as they are, so whole records, and
//! chunks inside broken ones, are found by their magic and believed by their CRC.
//!
//! The file is read before sled opens it: sled ends its log at the first broken item and overwrites what lies behind.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::Sequence;
use super::chunk::{self, Header};
use super::record::{self, Kind};

/// What a record is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Empty for none.
    pub(super) chunk: Vec<u8>,
    pub(super) tail: Vec<u8>,
    /// Whether the tail is sealed; a chunk says that itself.
    pub(super) sealed: bool,
}

/// Where a whole record's chunk and tail lie.
#[derive(Debug)]
struct Spot {
    chunk: Range<usize>,
    tail: Range<usize>,
    sealed: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    file: Vec<u8>,
    /// Whole records by number.
    records: BTreeMap<u32, Spot>,
    /// Chunks outside whole records, by their first sequence.
    chunks: BTreeMap<Sequence, Range<usize>>,
}

impl Found {
    /// Whether the state at the generation's birth is among it.
    pub(super) fn has_birth(&self) -> bool {
        self.records.contains_key(&0)
    }

    /// One more than the highest number of a whole record.
    pub(super) fn end(&self) -> u32 {
        self.records.keys().next_back().map_or(0, |last| last + 1)
    }

    /// How many records are whole.
    pub(super) fn whole(&self) -> usize {
        self.records.len()
    }

    /// Whether a record before the last whole one is missing or broken. What is broken behind it may be a write that a
    /// power cut tore, which nobody was promised.
    pub(super) fn is_broken(&self) -> bool {
        self.records.len() as u64 != u64::from(self.end())
    }

    /// Copies the file for as long as sled has it. Where there is no room for that it is opened without: only a kill in
    /// the midst of the repair of a damaged one would need the copy. It is gone before the kernel has to write it.
    pub(super) fn keep(&self, path: &Path) {
        if let Err(error) = fs::write(path, &self.file) {
            drop(fs::remove_file(path));
            tracing::debug!(%error, "no copy of a generation while it is opened");
        }
    }

    /// Records and lone chunks in the order in which they were written.
    pub(super) fn parts(&self) -> Vec<Part> {
        let bytes = |range: &Range<usize>| self.file[range.clone()].to_vec();
        let alone = |range: &Range<usize>| Part { chunk: bytes(range), ..Part::default() };
        let mut lone = self.chunks.iter().peekable();
        let mut parts = Vec::new();
        for spot in self.records.values() {
            if let Ok(header) = Header::read(&self.file[spot.chunk.clone()]) {
                while let Some((_, range)) = lone.next_if(|(first, _)| **first < header.first) {
                    parts.push(alone(range));
                }
            }
            parts.push(Part { chunk: bytes(&spot.chunk), tail: bytes(&spot.tail), sealed: spot.sealed });
        }
        parts.extend(lone.map(|(_, range)| alone(range)));
        parts
    }
}

/// Scans a file. One that is missing holds nothing.
pub(super) fn scan(path: &Path, kind: Kind, generation: u64) -> io::Result<Found> {
    match fs::read(path) {
        Ok(file) => Ok(scan_bytes(file, kind, generation)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::default()),
        Err(error) => Err(error),
    }
}

fn scan_bytes(file: Vec<u8>, kind: Kind, generation: u64) -> Found {
    let mut found = Found::default();
    let place = |part: &[u8]| {
        // Both are slices of the same buffer.
        let start = part.as_ptr() as usize - file.as_ptr() as usize;
        start..start + part.len()
    };
    let mut at = 0;
    while let Some(next) = file[at..].iter().position(|byte| *byte == record::MAGIC[0]) {
        at += next;
        let rest = &file[at..];
        if let Ok(record) = record::parse(rest)
            && (record.place.kind, record.place.generation) == (kind, generation)
        {
            let spot = Spot { chunk: place(record.chunk), tail: place(record.tail), sealed: record.sealed };
            found.records.insert(record.place.record, spot);
            at += record::length(rest).unwrap_or(1);
        } else if rest.starts_with(&chunk::MAGIC)
            && let Ok(header) = Header::verify(rest)
        {
            found.chunks.insert(header.first, at..at + header.length());
            at += header.length();
        } else {
            at += 1;
        }
    }
    // An item that sled wrote twice may be whole in one place and broken in the other.
    for spot in found.records.values() {
        if let Ok(header) = Header::read(&file[spot.chunk.clone()]) {
            found.chunks.remove(&header.first);
        }
    }
    found.file = file;
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{Place, build};

    #[test]
    fn records_are_found_between_garbage_and_broken_ones_are_not_believed() {
        let record =
            |number, tail: &[u8]| build(Place { kind: Kind::Queue, generation: 7, record: number }, false, &[], tail);
        let mut broken = record(1, b"broken");
        broken[34] ^= 1;
        let file = [&[0xb1, 0, 0xb1][..], &record(0, b"first"), &broken, b"\xb1bgrecd", &record(2, b"third")].concat();
        let found = scan_bytes(file.clone(), Kind::Queue, 7);
        let tails: Vec<_> = found.parts().into_iter().map(|part| part.tail).collect();
        assert_eq!(tails, [b"first".to_vec(), b"third".to_vec()]);
        assert_eq!(found.end(), 3);
        assert_eq!(scan_bytes(file, Kind::Queue, 8).end(), 0, "records of another generation");
    }
}
