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

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    file: Vec<u8>,
    /// Whole records by number: where their chunk and tail lie.
    records: BTreeMap<u32, (Range<usize>, Range<usize>)>,
    /// Chunks outside whole records, by their first sequence.
    chunks: BTreeMap<Sequence, Range<usize>>,
    /// Whether the records' tails are sealed.
    pub(super) sealed: bool,
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

    /// Chunks and tails in the order in which they were written.
    pub(super) fn parts(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let bytes = |range: &Range<usize>| self.file[range.clone()].to_vec();
        let mut lone = self.chunks.iter().peekable();
        let mut parts = Vec::new();
        for (chunk, tail) in self.records.values() {
            if let Ok(header) = Header::read(&self.file[chunk.clone()]) {
                while let Some((_, range)) = lone.next_if(|(first, _)| **first < header.first) {
                    parts.push((bytes(range), Vec::new()));
                }
            }
            parts.push((bytes(chunk), bytes(tail)));
        }
        parts.extend(lone.map(|(_, range)| (bytes(range), Vec::new())));
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
            found.sealed |= record.sealed;
            found.records.insert(record.place.record, (place(record.chunk), place(record.tail)));
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
    for (chunk, _) in found.records.values() {
        if let Ok(header) = Header::read(&file[chunk.clone()]) {
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
        let tails: Vec<_> = found.parts().into_iter().map(|(_, tail)| tail).collect();
        assert_eq!(tails, [b"first".to_vec(), b"third".to_vec()]);
        assert_eq!(found.end(), 3);
        assert_eq!(scan_bytes(file, Kind::Queue, 8).end(), 0, "records of another generation");
    }
}
