//! Looking at everything that is kept, for `biogate buffer verify` and `export`.

use super::generation::Generation;
use super::queue::Queue;
use super::record;
use super::{Chunk, Error, Sequence, Verified};

impl Queue {
    /// Reads every record of every generation.
    pub(super) fn verify(&mut self) -> Result<Verified, Error> {
        let mut verified = Verified::default();
        for number in self.numbers() {
            verified.generations += 1;
            let records = self.generation(number)?.map(|generation| generation.records);
            if records.is_none() {
                verified.faults.push(format!("nothing is left of generation {number}"));
            }
            let records = records.unwrap_or(0);
            for record in 0..records {
                let Some(generation) = self.generation(number)? else { break };
                let value = generation.get(record);
                let parsed = value.as_deref().map_err(|damaged| *damaged).and_then(record::parse);
                let checked = parsed.and_then(|parsed| {
                    parsed.changes(&mut self.codec)?;
                    if parsed.chunk.is_empty() { Ok(None) } else { self.codec.decode(parsed.chunk).map(Some) }
                });
                match checked {
                    Ok(chunk) => {
                        verified.records += 1;
                        verified.chunks += u64::from(chunk.is_some());
                        verified.observations += chunk.map_or(0, |chunk| chunk.observations.len() as u64);
                    }
                    Err(damaged) => {
                        verified.faults.push(format!("generation {number}, record {record}: {damaged}"));
                    }
                }
            }
            self.close_unneeded();
        }
        Ok(verified)
    }

    /// Chunks with sequences after `after`, oldest first.
    pub(super) fn export(&mut self, after: Sequence, limit: usize) -> Result<Vec<Chunk>, Error> {
        let mut chunks = Vec::new();
        for number in self.numbers() {
            if self.own.generations.get(&number).is_none_or(|known| known.waiting_at(after + 1) == 0) {
                continue;
            }
            let Some(generation) = self.generation(number)? else { continue };
            let entries = generation.index.iter().filter(|entry| entry.last() > after);
            let records: Vec<_> =
                entries.take(limit - chunks.len()).map(|entry| read(generation, entry.record)).collect();
            for record in records.into_iter().flatten() {
                chunks.extend(record::parse(&record).and_then(|record| self.codec.decode(record.chunk)).ok());
            }
            self.close_unneeded();
            if chunks.len() >= limit {
                break;
            }
        }
        Ok(chunks)
    }

    fn numbers(&self) -> Vec<u64> {
        self.own.generations.keys().copied().collect()
    }
}

fn read(generation: &Generation, record: u32) -> Option<sled::IVec> {
    generation.get(record).ok()
}
