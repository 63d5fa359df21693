//! What is set aside, read page by page, and entries removed one by one: which are removed is state (`removed`), and a
//! generation of which nothing is left is deleted whole.

use super::folder;
use super::generation::Generation;
use super::queue::Queue;
use super::record;
use super::{AsideEntry, AsideFrom, AsidePage, AsidePlace, Error};

/// Entries of so many bytes make a page.
const PAGE_BYTES: usize = 1 << 20;

impl Queue {
    /// The next entries that are not removed, oldest first.
    pub(super) fn read_aside(&mut self, from: AsideFrom) -> Result<AsidePage, Error> {
        self.open_newest_aside()?;
        let end = self
            .aside
            .newest
            .as_ref()
            .map_or(AsideFrom::default(), |newest| AsideFrom { generation: newest.number, record: newest.records });
        let mut page = AsidePage { end, ..AsidePage::default() };
        let numbers = self.aside.numbers();
        let Some(number) = numbers.iter().copied().find(|number| *number >= from.generation) else { return Ok(page) };
        let mut record = if number == from.generation { from.record } else { 0 };
        let records = self.records_aside(number)?;
        let mut bytes = 0;
        while record < records && bytes < PAGE_BYTES {
            for (place, entry) in self.left_in(number, record) {
                bytes += entry.bytes.len() + entry.reason.len() + 256;
                page.entries.push((place, entry));
            }
            record += 1;
        }
        page.next = if record < records {
            Some(AsideFrom { generation: number, record })
        } else {
            self.aside.reading = None;
            let later = numbers.into_iter().find(|later| *later > number);
            later.map(|generation| AsideFrom { generation, record: 0 })
        };
        Ok(page)
    }

    /// Opens the newest generation set aside, if there is one.
    pub(super) fn open_newest_aside(&mut self) -> Result<(), Error> {
        while self.aside.newest.is_none()
            && let Some(number) = self.aside.bytes.keys().next_back().copied()
        {
            // It may be the one that is being read: a database opens once.
            self.aside.reading = None;
            self.aside.newest = self.open_aside(number)?;
            self.aside.bytes.remove(&number);
        }
        Ok(())
    }

    fn open_aside(&mut self, number: u64) -> Result<Option<Generation>, Error> {
        let opened = self.aside.row.open(number, &mut self.codec, false)?;
        if opened.as_ref().is_none_or(|opened| opened.healed) {
            // What is left has new record numbers: what was removed may be seen again, and what was not is not hidden.
            self.own.forget_aside(number);
        }
        if opened.is_none() {
            self.own.totals_mut().aside.kept.retain(|(of, _)| *of != number);
        }
        Ok(opened.map(|opened| opened.generation))
    }

    /// How many records a generation has; it is open afterwards.
    fn records_aside(&mut self, number: u64) -> Result<u32, Error> {
        if let Some(newest) = self.aside.newest.as_ref().filter(|newest| newest.number == number) {
            return Ok(newest.records);
        }
        if self.aside.reading.as_ref().is_none_or(|reading| reading.number != number) {
            self.aside.reading = None;
            self.aside.reading = self.open_aside(number)?;
            if self.aside.reading.is_none() {
                self.aside.bytes.remove(&number);
            }
        }
        Ok(self.aside.reading.as_ref().map_or(0, |reading| reading.records))
    }

    /// The entries of one record that are not removed. The generation is open.
    fn left_in(&mut self, number: u64, record: u32) -> Vec<(AsidePlace, AsideEntry)> {
        let known = self.own.aside.get(&number);
        if known.is_some_and(|known| known.is_whole(record)) {
            return Vec::new();
        }
        let open = self.aside.newest.iter().chain(&self.aside.reading).find(|open| open.number == number);
        let value = open.and_then(|generation| generation.get(record).ok());
        let Some(value) = value else { return Vec::new() };
        let Ok(parsed) = record::parse(&value) else { return Vec::new() };
        if parsed.tail.is_empty() {
            return Vec::new();
        }
        let plain = self.codec.unwrap(parsed.tail, parsed.sealed);
        let Ok(Ok(entries)) = plain.map(|plain| serde_cbor::from_slice::<Vec<AsideEntry>>(&plain)) else {
            tracing::error!(generation = number, record, "entries set aside cannot be read");
            return Vec::new();
        };
        let of = u16::try_from(entries.len()).unwrap_or(u16::MAX);
        let places = (0..of).map(|position| AsidePlace { generation: number, record, position, of });
        let left = |place: &AsidePlace| !known.is_some_and(|known| known.is_removed(record, place.position));
        places.zip(entries).filter(|(place, _)| left(place)).collect()
    }

    /// Notes that entries came back; durable with the record that brings their observations.
    pub(super) fn note_replayed(&mut self, places: &[AsidePlace]) {
        let removed = self.remove_aside(places);
        if removed > 0 {
            self.own.totals_mut().aside.replayed += removed;
        }
    }

    /// Removes entries for good; says how many there were.
    pub(super) fn drop_aside(&mut self, places: &[AsidePlace]) -> Result<u64, Error> {
        let removed = self.remove_aside(places);
        if removed > 0 {
            self.own.totals_mut().aside.dropped += removed;
            self.free_reserve()?;
            self.write_changes()?;
            self.remove_empty_aside(places)?;
            self.publish();
        }
        Ok(removed)
    }

    fn remove_aside(&mut self, places: &[AsidePlace]) -> u64 {
        let mut removed = 0;
        for place in places {
            let number = place.generation;
            // Evicted meanwhile.
            if !self.aside.numbers().contains(&number) || !self.own.aside_mut(number).remove(*place) {
                continue;
            }
            removed += 1;
            let totals = &mut self.own.totals_mut().aside;
            totals.last = totals.last.max(number);
            if let Some((_, entries)) = totals.kept.iter_mut().find(|(of, _)| *of == number) {
                *entries = entries.saturating_sub(1);
            }
        }
        removed
    }

    /// Deletes the generations of these places of which nothing is left. That is durable: this runs after an fdatasync.
    pub(super) fn remove_empty_aside(&mut self, places: &[AsidePlace]) -> Result<(), Error> {
        let mut numbers: Vec<u64> = places.iter().map(|place| place.generation).collect();
        numbers.dedup();
        self.remove_emptied(numbers)
    }

    /// Deletes what the last process emptied and did not come to delete. An error is told by whoever needs it next.
    pub(super) fn remove_left_aside(&mut self) {
        let is_kept = |number: &u64| self.own.totals.aside.kept.iter().any(|(of, kept)| of == number && *kept > 0);
        let emptied: Vec<u64> = self.aside.numbers().into_iter().filter(|number| !is_kept(number)).collect();
        if !emptied.is_empty()
            && let Err(error) = self.remove_emptied(emptied)
        {
            tracing::warn!(%error, "what was set aside and came back stays for now");
        }
    }

    fn remove_emptied(&mut self, numbers: Vec<u64>) -> Result<(), Error> {
        for number in numbers {
            let kept = self.own.totals.aside.kept.iter().find(|(of, _)| *of == number).map_or(0, |(_, kept)| *kept);
            if kept > 0 || !self.aside.numbers().contains(&number) {
                continue;
            }
            // A process that was killed may have left entries that were never counted.
            self.open_newest_aside()?;
            let records = self.records_aside(number)?;
            let left: u64 = (0..records).map(|record| self.left_in(number, record).len() as u64).sum();
            self.aside.reading = None;
            let kept = &mut self.own.totals_mut().aside.kept;
            kept.retain(|(of, _)| *of != number);
            if left > 0 {
                kept.push((number, left));
                kept.sort_unstable();
                continue;
            }
            self.aside.release(number);
            match folder::remove(&self.aside.row.dir, number) {
                Ok(()) => self.own.forget_aside(number),
                Err(error) => {
                    tracing::error!(generation = number, %error, "entries that came back cannot be removed");
                    self.unhealthy = Some(format!("entries that came back cannot be removed: {error}"));
                }
            }
        }
        self.publish();
        Ok(())
    }
}
