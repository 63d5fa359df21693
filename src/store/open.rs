//! Opening a store: whatever lies there, it starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::aside::Aside;
use super::chunk::Codec;
use super::folder;
use super::generation::Generation;
use super::ledger::{Destination, Known, Own};
use super::queue::Queue;
use super::record::{self, Kind};
use super::reports::Reports;
use super::row::{Folded, Opened, Row};
use super::seal::Key;
use super::view::Shared;
use super::{Error, Sequence, Settings};
use crate::reading::RunId;

impl Queue {
    /// Opens or makes the store.
    pub(super) fn open(
        settings: &Settings,
        run: RunId,
        destinations: &[String],
        shared: Arc<Shared>,
    ) -> Result<Queue, Error> {
        let lock = folder::lock(&settings.dir)?;
        let key = settings.key_file.as_deref().map(Key::read).transpose()?;
        if folder::check_format(&settings.dir, key.as_ref())
            .is_err_and(|error| matches!(error, Error::Unavailable { .. }))
        {
            folder::give_up_ballast(&settings.dir);
        }
        folder::check_format(&settings.dir, key.as_ref())?;
        let mut codec = Codec::new(key)?;
        let row = Row::new(&settings.dir, Kind::Queue);
        let numbers = row.prepare()?;
        let aside = Aside::new(Row::new(&settings.dir, Kind::Aside))?;

        let highest = numbers.last().copied().unwrap_or(0);
        let opened = newest_that_opens(&row, &numbers, &mut codec)?;
        let found =
            folder::numbered(&row.dir, "gen").map_err(|e| Error::unavailable("listing the store", &row.dir, e))?;
        let was_healed = opened.as_ref().is_some_and(|opened| opened.healed);
        let (generation, mut folded, before) = match opened {
            Some(Opened { generation, folded, before, .. }) => (Some(generation), folded, before),
            None => (None, Folded::default(), Vec::new()),
        };
        let open: BTreeMap<u64, Generation> =
            before.into_iter().map(|generation| (generation.number, generation)).collect();
        if let Some(generation) = &generation {
            know_newest(generation, &mut folded.own, was_healed, &mut codec);
        }
        if let Some(generation) = generation.as_ref().filter(|_| !was_healed) {
            remove_leftovers(&row, &found, generation.number, &folded.own);
        }
        know_others(&row, &found, generation.as_ref(), &open, &mut folded.own, &mut codec)?;
        let reports = Reports::open(Row::new(&settings.dir, Kind::Reports), &mut codec, &mut folded.own)?;
        settle_destinations(&mut folded.own, destinations);
        know_aside(&mut folded.own, &aside.numbers());
        let newest = match generation {
            Some(generation) => generation,
            None => {
                folded.own.set_generation(highest + 1, Some(Known::default()));
                row.birth(highest + 1, &mut codec, &folded.whole())?
            }
        };
        let Folded { own, view } = folded;
        *shared.write() = view;
        let older_bytes = bytes_of(&row, found.iter().copied().filter(|number| *number != newest.number));
        let damaged_bytes = folder::disk_bytes(&row.dir.join("damaged"));
        let opened_ms = own.totals.open_ms;
        folder::ensure_ballast(&settings.dir, settings.min_free);
        let queue = Queue {
            settings: settings.clone(),
            run,
            codec,
            row,
            own,
            shared,
            newest,
            open,
            older_bytes,
            damaged_bytes,
            waiters: Vec::new(),
            aside,
            reports,
            unhealthy: None,
            no_room: None,
            syncs: 0,
            opened: Instant::now(),
            opened_ms,
            ranged: Vec::new(),
            _lock: lock,
        };
        queue.begin()
    }

    /// Writes what the open found out, and ends the deaths that the last process did not come to.
    fn begin(mut self) -> Result<Queue, Error> {
        if self.own.is_dirty() {
            match self.write_changes() {
                Ok(()) => self.remove_left_aside(),
                // The next record that finds room takes the changes with it.
                Err(Error::Full { .. }) => {}
                Err(error) => {
                    self.forget();
                    return Err(error);
                }
            }
        } else {
            // A process that was killed between its write and its fdatasync leaves what is read here in the kernel only:
            // nobody may see it before it is on the disk.
            self.newest.sync()?;
            self.remove_drained();
            self.remove_left_aside();
        }
        self.publish();
        Ok(self)
    }
}

/// Bytes on disk of these generations.
fn bytes_of(row: &Row, numbers: impl Iterator<Item = u64>) -> BTreeMap<u64, u64> {
    numbers.map(|number| (number, folder::disk_bytes(&folder::named(&row.dir, "gen", number)))).collect()
}

/// The newest generation of which anything is left, with the state folded.
fn newest_that_opens(row: &Row, numbers: &[u64], codec: &mut Codec) -> Result<Option<Opened>, Error> {
    for number in numbers.iter().rev() {
        if let Some(opened) = row.open(*number, codec, true)? {
            return Ok(Some(opened));
        }
    }
    Ok(None)
}

/// What the index says of the newest generation, over what its records said while they were written.
fn know_newest(generation: &Generation, own: &mut Own, was_healed: bool, codec: &mut Codec) {
    let mut known = match own.generations.get(&generation.number) {
        Some(known) if !was_healed => known.clone(),
        _ => known_of(generation, codec, own.totals.open_ms),
    };
    (known.first, known.last) = generation.span().unwrap_or((0, 0));
    own.generations.insert(generation.number, known);
}

/// What reading all chunks of a generation says of it.
fn known_of(generation: &Generation, codec: &mut Codec, now_ms: u64) -> Known {
    let mut known = Known { records: generation.records, bytes: generation.bytes, ..Known::default() };
    for entry in &generation.index {
        let Ok(record) = generation.get(entry.record) else { continue };
        let Ok(chunk) = record::parse(&record).and_then(|record| codec.decode(record.chunk)) else { continue };
        let observations = &chunk.observations;
        if let (Some(first), Some(last)) = (observations.first(), observations.last()) {
            known.add(entry.first, entry.last(), (first.heard, last.heard), now_ms);
        }
        for observation in observations {
            known.add_boot(observation.heard.boot);
            observation.since.iter().for_each(|since| known.add_boot(since.boot));
        }
    }
    known
}

/// An older generation that the state knows no more was evicted or delivered, and counted, just before the process
/// ended.
fn remove_leftovers(row: &Row, found: &[u64], newest: u64, own: &Own) {
    for number in found.iter().copied().filter(|number| *number < newest && !own.generations.contains_key(number)) {
        tracing::info!(generation = number, "removing a generation that had left the store already");
        if let Err(error) = folder::remove(&row.dir, number) {
            tracing::warn!(generation = number, %error, "it stays for now");
        }
    }
}

/// Brings what the state knows of the older generations together with what lies on the disk.
fn know_others(
    row: &Row,
    found: &[u64],
    newest: Option<&Generation>,
    open: &BTreeMap<u64, Generation>,
    own: &mut Own,
    codec: &mut Codec,
) -> Result<(), Error> {
    let newest = newest.map_or(0, |newest| newest.number);
    for number in found.iter().copied().filter(|number| *number != newest) {
        if !folder::named(&row.dir, "gen", number).exists() {
            continue;
        }
        if own.generations.get(&number).is_none_or(|known| known.is_empty() && known.records == 0) {
            let known = match open.get(&number) {
                Some(generation) => known_of(generation, codec, own.totals.open_ms),
                None => match row.open(number, codec, false)? {
                    Some(opened) => known_of(&opened.generation, codec, own.totals.open_ms),
                    None => continue,
                },
            };
            own.set_generation(number, Some(known));
        }
    }
    let on_disk =
        folder::numbered(&row.dir, "gen").map_err(|e| Error::unavailable("listing the store", &row.dir, e))?;
    let gone: Vec<u64> = own.generations.keys().copied().filter(|number| !on_disk.contains(number)).collect();
    for number in gone {
        if let Some(known) = own.generations.get(&number).cloned() {
            // Delivered generations went after their cursors were durable: of those nothing is counted.
            own.set_generation(number, None);
            own.note_lost(&known, super::GapCause::Damaged);
        }
    }
    Ok(())
}

/// A generation set aside that is not on the disk was removed just before the process ended.
fn know_aside(own: &mut Own, found: &[u64]) {
    let gone: Vec<u64> = own.aside.keys().copied().filter(|number| !found.contains(number)).collect();
    gone.into_iter().for_each(|number| own.forget_aside(number));
    if own.totals.aside.kept.iter().any(|(number, _)| !found.contains(number)) {
        own.totals_mut().aside.kept.retain(|(number, _)| found.contains(number));
    }
}

/// Gives every configured destination its place, drops the others, and makes the ledger balance.
fn settle_destinations(own: &mut Own, configured: &[String]) {
    let removed: Vec<String> = own.destinations.keys().filter(|name| !configured.contains(name)).cloned().collect();
    for name in removed {
        if let Some(destination) = own.destinations.get(&name) {
            let tally = own.tally(destination);
            tracing::warn!(destination = name, ?tally, "no longer configured: its cursor and totals are dropped");
        }
        own.set_destination(&name, None);
    }
    let sums_of_others: Vec<_> = own.sums.keys().filter(|key| !configured.contains(&key.0)).cloned().collect();
    sums_of_others.iter().for_each(|key| own.remove_sums(key));
    cover_ranges(own);
    let next = next_sequence(own);
    if own.totals.next != next {
        own.totals_mut().next = next;
    }
    let damaged = own.balance();
    if damaged > 0 {
        tracing::error!(observations = damaged, "lost to a damaged disk");
    }
    let oldest = own.generations.values().filter(|known| !known.is_empty()).map(|known| known.first).min();
    for name in configured {
        if own.destinations.contains_key(name) {
            continue;
        }
        let mut destination = Destination { cursor: oldest.unwrap_or(next), ..Destination::default() };
        destination.reports = own.reports.newest();
        destination.tally.before = own.totals.intake.stored.saturating_sub(own.waiting(&destination));
        own.set_destination(name, Some(destination));
    }
}

/// A range in hand is settled whole, so its generation spans it even where its end is lost; a range whose generation is
/// gone is in hand no more, and counted as damaged with the rest.
fn cover_ranges(own: &mut Own) {
    let ranges = own.destinations.iter().filter_map(|(name, to)| Some((name.clone(), to.range.clone()?)));
    for (name, range) in ranges.collect::<Vec<_>>() {
        let holds = |known: &Known| !known.is_empty() && (known.first..=known.last).contains(&range.first);
        let holding = own.generations.iter().find(|(_, known)| holds(known));
        match holding.map(|(number, known)| (*number, known.clone())) {
            Some((_, known)) if known.last >= range.last => {}
            Some((number, known)) => own.set_generation(number, Some(Known { last: range.last, ..known })),
            None => {
                if let Some(destination) = own.destination_mut(&name) {
                    destination.range = None;
                }
            }
        }
    }
}

/// No sequence is given twice: the next one lies past all that was found, settled or cut.
fn next_sequence(own: &Own) -> Sequence {
    let found = own.generations.values().map(|known| known.last + 1);
    let settled = own.destinations.values().map(|to| to.range.as_ref().map_or(to.cursor, |range| range.last + 1));
    found.chain(settled).chain([own.totals.next, 1]).max().unwrap_or(1)
}
