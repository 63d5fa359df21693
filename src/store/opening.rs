//! Taking up what an earlier process left, whatever state it is in.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tracing::{error, info, warn};

use super::generation::{Generation, OpenFailure};
use super::ledger::DestinationState;
use super::record::{self, Changes, GenerationMeta};
use super::seal::Seal;
use super::state::State;
use super::{Error, Gap, Settings, disk, salvage};

/// The format that this program writes.
const FORMAT: u32 = 1;

/// An open that takes longer hangs; the process ends, and the next one takes the generation for damaged.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);

/// So many opens of the same generation in a row must have hung before it is taken for damaged.
const HANGS: u32 = 3;

/// What an open found.
pub(super) struct Found {
    /// Held as long as the store is used.
    pub(super) lock: File,
    pub(super) seal: Option<Arc<Seal>>,
    pub(super) state: State,
    /// The newest generation, if there is any.
    pub(super) newest: Option<Generation>,
}

/// A refusal with what was tried.
pub(super) fn refused(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Refused { doing, path: path.clone(), error }
}

/// Locks the folder, sweeps it, and folds the newest generation.
pub(super) fn open(settings: &Settings) -> Result<Found, Error> {
    let dir = settings.dir.as_path();
    std::fs::create_dir_all(dir).map_err(refused("making the store's folder", dir))?;
    let lock = lock(dir)?;
    check_format(dir)?;
    let seal = settings.key_file.as_deref().map(Seal::from_file).transpose().map_err(Error::Key)?.map(Arc::new);
    disk::sweep(dir).map_err(refused("sweeping", dir))?;
    let numbers = disk::numbers(dir).map_err(refused("listing", dir))?;
    let mut state = State::default();
    let mut newest = None;
    if let Some((&last, older)) = numbers.split_last() {
        let generation = fold(dir, last, seal.as_ref(), &mut state)?;
        if !state_is_whole(&generation) {
            // The beginning of the newest is lost: what the one before it knew is better than nothing.
            state = State::default();
            if let Some(&previous) = older.last() {
                let before = fold(dir, previous, seal.as_ref(), &mut state)?;
                let meta = meta_of(&before, &state);
                drop(before);
                state.own.closed.retain(|known| known.number != previous);
                state.own.closed.extend(meta);
            }
            for number in 0..generation.next {
                if let Ok(Some(bytes)) = generation.record(number) {
                    apply(&bytes, seal.as_ref(), &mut state);
                }
            }
        }
        state.newest = meta_of(&generation, &state);
        forget_removed(dir, older, &mut state);
        newest = Some(generation);
    }
    let end = newest.as_ref().and_then(Generation::end).unwrap_or(0);
    let claimed = state.destinations.values().map(|destination| destination.cursor).max().unwrap_or(1);
    state.own.next = state.own.next.max(end).max(claimed).max(1);
    Ok(Found { lock, seal, state, newest })
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(refused("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Held(dir.to_owned())),
        Err(TryLockError::Error(why)) => Err(refused("locking", &path)(why)),
    }
}

fn check_format(dir: &Path) -> Result<(), Error> {
    let path = dir.join("format");
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(found) if found <= FORMAT => Ok(()),
            // An empty file is one that a cut left behind before its content came.
            _ if text.trim_matches(['\0', '\n', ' ']).is_empty() => write_format(&path),
            _ => Err(Error::Newer { dir: dir.to_owned(), found: text.trim().to_owned(), known: FORMAT }),
        },
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => write_format(&path),
        Err(why) => Err(refused("reading", &path)(why)),
    }
}

fn write_format(path: &Path) -> Result<(), Error> {
    let written = std::fs::write(path, format!("{FORMAT}\n")).and_then(|()| disk::sync(path));
    written.map_err(refused("writing", path))
}

/// Opens a generation and folds the records of complete commits into the state.
fn fold(dir: &Path, number: u64, seal: Option<&Arc<Seal>>, state: &mut State) -> Result<Generation, Error> {
    let mut undecoded = 0u64;
    let generation = open_generation(dir, number, &mut |bytes| {
        if !apply(bytes, seal, state) {
            undecoded += 1;
        }
    })?;
    // Every record's checksum was right, so what cannot be decoded is sealed with another key.
    if undecoded > 0 {
        let known = if seal.is_some() {
            "the key does not open it; give the key that it was written with"
        } else {
            "it is sealed, and no store.key_file is given"
        };
        return Err(Error::Key(format!("{}: {known}", dir.display())));
    }
    Ok(generation)
}

fn apply(bytes: &[u8], seal: Option<&Arc<Seal>>, state: &mut State) -> bool {
    match record::decode(bytes, seal) {
        Some(record) => {
            state.apply(record.changes);
            true
        }
        None => false,
    }
}

/// Opens a generation, rebuilds it when it is damaged, and never hangs for ever.
pub(super) fn open_generation(row: &Path, number: u64, each: &mut dyn FnMut(&[u8])) -> Result<Generation, Error> {
    let folder = disk::folder(row, number);
    let marker = row.join(format!("hung-{number}"));
    let hangs = std::fs::read_to_string(&marker).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0u32);
    let opened = match hangs >= HANGS {
        true => Err(OpenFailure::Damaged(format!("opening it hung {hangs} times"))),
        false => {
            let watch = watch_open(&marker, hangs);
            let opened = Generation::open(&folder, number, &mut *each);
            drop(watch);
            opened
        }
    };
    let generation = match opened {
        Ok(generation) => generation,
        Err(OpenFailure::Damaged(why)) => salvage::rebuild(row, number, &why, each)
            .map_err(|why| Error::Fatal { doing: "saving what is left of a damaged part", why: why.to_string() })?,
        Err(OpenFailure::Refused(why)) => return Err(refused("opening", &folder)(why)),
    };
    if marker.exists() {
        std::fs::remove_file(&marker).map_err(refused("removing", &marker))?;
    }
    Ok(generation)
}

/// Ends the process when the open takes too long, after it has left a note of it. Dropping the result calls it off.
fn watch_open(marker: &Path, hangs: u32) -> Sender<()> {
    let (done, watched) = channel();
    let marker: PathBuf = marker.to_owned();
    let spawned = std::thread::Builder::new().name("store-open".to_owned()).stack_size(64 << 10).spawn(move || {
        if watched.recv_timeout(OPEN_DEADLINE) == Err(RecvTimeoutError::Timeout) {
            error!("opening the store hangs; ending, so that the service manager starts it again");
            if let Err(why) = std::fs::write(&marker, (hangs + 1).to_string()) {
                error!("the hang could not be noted: {why}");
            }
            std::process::abort();
        }
    });
    if let Err(why) = spawned {
        warn!("the open is not watched: {why}");
    }
    done
}

/// Whether the generation still has the records that begin it.
fn state_is_whole(generation: &Generation) -> bool {
    generation.record(0).is_ok_and(|found| found.is_some())
}

/// How a generation will be remembered.
pub(super) fn meta_of(generation: &Generation, state: &State) -> Option<GenerationMeta> {
    let (first, last) = (generation.places.first()?, generation.places.last()?);
    let mut boots = Vec::new();
    for place in &generation.places {
        if !boots.contains(&place.boot) {
            boots.push(place.boot);
        }
    }
    Some(GenerationMeta {
        number: generation.number,
        first: first.first,
        end: last.first + last.count,
        bytes: generation.bytes,
        boots,
        oldest_ms: 0,
        newest_age_ms: state.own.age_ms,
    })
}

/// Squares the list of closed generations with the folders that are there: one that no record names has been delivered.
fn forget_removed(dir: &Path, present: &[u64], state: &mut State) {
    let known: Vec<u64> = state.own.closed.iter().map(|meta| meta.number).collect();
    for number in present.iter().filter(|number| !known.contains(number)) {
        info!(generation = number, "removing a part of the store that is delivered");
        if let Err(why) = disk::remove(&disk::folder(dir, *number)) {
            warn!(generation = number, "it stays for now: {why}");
        }
    }
    let lost: Vec<GenerationMeta> =
        state.own.closed.iter().filter(|meta| !present.contains(&meta.number)).cloned().collect();
    for meta in &lost {
        // Removed after its delivery, when the record that says so was lost; or taken away by somebody.
        let needed = meta.end.saturating_sub(meta.first.max(state.lowest_cursor()));
        if needed > 0 {
            error!(generation = meta.number, observations = needed, "a part of the store is missing");
        }
    }
    state.own.closed.retain(|meta| present.contains(&meta.number));
}

/// Gives every configured destination its state, drops the others, and counts as damaged what the balance has and no
/// file holds. `found` tells how many observations there are from a cursor on.
pub(super) fn settle_destinations(state: &mut State, names: &[String], found: impl Fn(&State, u64) -> u64) -> Changes {
    let mut changes = Changes::default();
    let gone: Vec<String> = state.destinations.keys().filter(|name| !names.contains(name)).cloned().collect();
    for name in gone {
        if let Some(gone) = state.destinations.remove(&name) {
            info!(destination = name, tally = ?gone.tally, "no longer configured; its account is closed");
            changes.2.insert(name, None);
        }
    }
    for name in names.iter().filter(|name| !state.destinations.contains_key(*name)).cloned().collect::<Vec<_>>() {
        let oldest = state.generations().map(|meta| meta.first).min().unwrap_or(state.own.next);
        let mut new = DestinationState { cursor: oldest, ..DestinationState::default() };
        new.tally.evicted = state.intake.stored.saturating_sub(found(state, oldest));
        state.destinations.insert(name.clone(), new.clone());
        changes.2.insert(name, Some(new));
    }
    for name in names {
        let Some(mut destination) = state.destinations.get(name).cloned() else { continue };
        let in_hand = destination.range.as_ref().map_or(0, |range| range.last + 1 - range.first);
        let after = destination.range.as_ref().map_or(destination.cursor, |range| range.last + 1);
        let there = in_hand + found(state, after);
        let balance = state.waiting(&destination.tally);
        match balance.checked_sub(there) {
            Some(0) => continue,
            Some(lost) => {
                error!(destination = name, observations = lost, "lost to damage of the store");
                destination.tally.damaged += lost;
                let (first, last) = (destination.cursor, state.own.next.saturating_sub(1));
                state.note_gap(Gap { first, last, count: lost, why: format!("damaged, for {name}") });
                changes.3 = Some(state.own.clone());
            }
            // More than the account says: its newest records were lost. What is found is delivered all the same.
            None => {
                warn!(destination = name, observations = there - balance, "found more than the account says");
                state.intake.stored += there - balance;
                state.intake.made += there - balance;
                changes.1 = Some(state.intake);
            }
        }
        state.destinations.insert(name.clone(), destination.clone());
        changes.2.insert(name.clone(), Some(destination));
    }
    changes
}
