//! What a damaged generation's raw file still holds: sled keeps values as they are, so whole records, and chunks inside
//! broken ones, are found by their magic and believed by their CRC.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::Sequence;
use super::chunk::{self, Header};
use super::record::{self, Kind};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whole records by number: chunk and tail.
    records: BTreeMap<u32, (Vec<u8>, Vec<u8>)>,
    /// Chunks outside whole records, by their first sequence.
    chunks: BTreeMap<Sequence, Vec<u8>>,
    /// Whether the records' tails are sealed.
    pub(super) sealed: bool,
}

impl Found {
    /// Whether the state at the generation's birth is among it.
    pub(super) fn has_birth(&self) -> bool {
        self.records.contains_key(&0)
    }

    /// Chunks and tails in the order in which they were written.
    pub(super) fn parts(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut lone = self.chunks.iter().peekable();
        let mut parts = Vec::new();
        for (chunk, tail) in self.records.values() {
            if let Ok(header) = Header::read(chunk) {
                while let Some((_, bytes)) = lone.next_if(|(first, _)| **first < header.first) {
                    parts.push((bytes.clone(), Vec::new()));
                }
            }
            parts.push((chunk.clone(), tail.clone()));
        }
        parts.extend(lone.map(|(_, bytes)| (bytes.clone(), Vec::new())));
        parts
    }
}

/// Scans a file. One that is missing holds nothing.
pub(super) fn scan(path: &Path, kind: Kind, generation: u64) -> io::Result<Found> {
    match fs::read(path) {
        Ok(bytes) => Ok(scan_bytes(&bytes, kind, generation)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::default()),
        Err(error) => Err(error),
    }
}

fn scan_bytes(bytes: &[u8], kind: Kind, generation: u64) -> Found {
    let mut found = Found::default();
    let mut lone = BTreeMap::new();
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|byte| *byte == record::MAGIC[0]) {
        at += next;
        let rest = &bytes[at..];
        if let Ok(record) = record::parse(rest)
            && (record.place.kind, record.place.generation) == (kind, generation)
        {
            found.sealed |= record.sealed;
            found.records.insert(record.place.record, (record.chunk.to_vec(), record.tail.to_vec()));
            at += record::length(rest).unwrap_or(1);
        } else if rest.starts_with(&chunk::MAGIC)
            && let Ok(header) = Header::verify(rest)
        {
            lone.insert(header.first, rest[..header.length()].to_vec());
            at += header.length();
        } else {
            at += 1;
        }
    }
    // A record that was written twice may be whole in one place and broken in the other.
    for (chunk, _) in found.records.values() {
        if let Ok(header) = Header::read(chunk) {
            lone.remove(&header.first);
        }
    }
    found.chunks = lone;
    found
}
