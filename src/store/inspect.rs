//! Looking at everything that is kept, for `biogate buffer verify` and `export`.

use super::generation::Generation;
use super::queue::Queue;
use super::record;
use super::reports::read_record;
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
        self.verify_reports(&mut verified)?;
        Ok(verified)
    }

    /// The same of the rows beside the events.
    fn verify_reports(&mut self, verified: &mut Verified) -> Result<(), Error> {
        for kept in self.own.reports.kept.clone() {
            let number = kept.generation;
            verified.generations += 1;
            let Some(open) = self.reports.reading(number, &mut self.codec, &kept.first)? else {
                verified.faults.push(format!("nothing is left of generation {number} of the reports"));
                continue;
            };
            for nth in 0..open.generation.records {
                // The first record of a generation may say nothing.
                let is_empty = |value: sled::IVec| record::parse(&value).is_ok_and(|parsed| parsed.tail.is_empty());
                match read_record(&open.generation, nth, &mut self.codec) {
                    Some((_, reports)) => {
                        verified.records += 1;
                        verified.reports += reports.len() as u64;
                    }
                    None if open.generation.get(nth).is_ok_and(is_empty) => verified.records += 1,
                    None => {
                        let fault = format!("generation {number} of the reports, record {nth}: it cannot be read");
                        verified.faults.push(fault);
                    }
                }
            }
        }
        self.reports.close();
        Ok(())
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
