//! One small append-only sled database. Nothing is removed inside it; it goes as a whole.
//!
//! sled is held to what it does well: appending short values and reading them back. Record `n` lies in tree `n / 8`,
//! never a ninth in one: sled rewrites a tree's leaf as it grows, and a leaf over 128 KiB leaves its log for a file in
//! `blobs/` that nobody makes durable. sled's flush hands the pages to the kernel and no further; durable is our own
//! fdatasync of its `db` file. After any error the database is never dropped (a drop after a failed write can hang):
//! whoever holds it forgets it and ends the process.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::Sequence;
use super::chunk;
use super::disk;
use super::record;
use crate::reading::BootId;

/// Records in one tree.
const BLOCK: u64 = 8;

/// A generation takes no more records: each tree of sled costs some hundred bytes of memory.
pub(super) const MAX_RECORDS: u64 = 2_048;

/// sled reads whole segments; what it may keep of them.
const CACHE: u64 = 1 << 20;

/// Why a database cannot be opened.
#[derive(Debug)]
pub(super) enum OpenFailure {
    /// It is damaged: what can be read of it is saved elsewhere.
    Damaged(String),
    /// The disk or the system refuses: nothing is wrong with the data.
    Refused(io::Error),
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) record: u64,
    pub(super) first: Sequence,
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) boot: BootId,
}

/// An open generation.
pub(super) struct Generation {
    pub(super) number: u64,
    folder: PathBuf,
    db: sled::Db,
    log: File,
    tree: Option<(u64, sled::Tree)>,
    /// The number of the next record.
    pub(super) next: u64,
    /// Bytes of all records.
    pub(super) bytes: u64,
    /// Its chunks in order, of complete commits only.
    pub(super) places: Vec<Place>,
    /// Chunks of the commit whose last record has not come yet.
    unfinished: Vec<(u64, Place)>,
}

impl Generation {
    /// Opens the database in `folder` and finds its chunks. `each` sees every record's bytes in order.
    pub(super) fn open(folder: &Path, number: u64, mut each: impl FnMut(&[u8])) -> Result<Generation, OpenFailure> {
        match Self::try_open(folder, number, &mut each) {
            // A snapshot that a cut left half written makes an open fail whose log is whole.
            Err(OpenFailure::Damaged(_)) if set_snapshots_aside(folder) => Self::try_open(folder, number, &mut each),
            outcome => outcome,
        }
    }

    fn try_open(folder: &Path, number: u64, each: &mut dyn FnMut(&[u8])) -> Result<Generation, OpenFailure> {
        remove_unfinished_snapshots(folder).map_err(OpenFailure::Refused)?;
        if !folder.join("db").exists() {
            // sled would make an empty one and call it sound.
            return Err(OpenFailure::Damaged("its file db is missing".to_owned()));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = config(folder).open().map_err(refused_or_damaged)?;
            let log = File::open(folder.join("db")).map_err(OpenFailure::Refused)?;
            let mut generation = Generation {
                number,
                folder: folder.to_owned(),
                db,
                log,
                tree: None,
                next: 0,
                bytes: 0,
                places: Vec::new(),
                unfinished: Vec::new(),
            };
            match generation.find_records(each) {
                Ok(()) => Ok(generation),
                Err(why) => {
                    std::mem::forget(generation);
                    Err(why)
                }
            }
        }));
        opened.unwrap_or_else(|_| Err(OpenFailure::Damaged("opening it panicked".to_owned())))
    }

    fn find_records(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), OpenFailure> {
        let mut blocks: Vec<u64> =
            self.db.tree_names().iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok()).collect();
        blocks.sort_unstable();
        for block in blocks {
            let tree = self.db.open_tree(block.to_string()).map_err(refused_or_damaged)?;
            for found in tree.iter() {
                let (key, value) = found.map_err(refused_or_damaged)?;
                let number = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes).unwrap_or(u64::MAX);
                if record::chunk_of(&value).is_none_or(|(of_record, ..)| of_record != number) {
                    return Err(OpenFailure::Damaged(format!("record {number} is damaged")));
                }
                self.note(number, &value);
                each(&value);
            }
        }
        // A commit whose last record never came was not acknowledged: its observations come again from their sources.
        self.unfinished.clear();
        Ok(())
    }

    /// Begins a generation in the folder `NAME-N` with these first records, makes it durable, and then gives it its
    /// name, after `make_way` has cleared that.
    pub(super) fn birth(
        row: &Path,
        name: &str,
        number: u64,
        records: &[Vec<u8>],
        make_way: impl FnOnce() -> io::Result<()>,
    ) -> Result<Generation, sled::Error> {
        let newborn = row.join(format!("{name}-{number}"));
        let folder = disk::folder(row, number);
        if newborn.exists() {
            std::fs::remove_dir_all(&newborn)?;
        }
        let db = config(&newborn).open()?;
        let log = File::open(newborn.join("db"))?;
        let mut generation = Generation {
            number,
            folder: folder.clone(),
            db,
            log,
            tree: None,
            next: 0,
            bytes: 0,
            places: Vec::new(),
            unfinished: Vec::new(),
        };
        let made = generation.fill(records).and_then(|()| {
            for file in ["db", "conf"] {
                disk::sync(&newborn.join(file))?;
            }
            disk::sync(&newborn)?;
            make_way()?;
            disk::rename(&newborn, &folder)?;
            Ok(())
        });
        match made {
            Ok(()) => Ok(generation),
            Err(why) => {
                std::mem::forget(generation);
                Err(why)
            }
        }
    }

    fn fill(&mut self, records: &[Vec<u8>]) -> Result<(), sled::Error> {
        for bytes in records {
            // A salvaged generation has holes where records were lost: each keeps its own number.
            let number = record::chunk_of(bytes).map_or(self.next, |(number, ..)| number);
            self.insert(number, bytes)?;
        }
        self.db.flush()?;
        Ok(())
    }

    /// Writes a record under the next number. It counts after [`Self::make_durable`].
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), sled::Error> {
        self.insert(self.next, bytes)
    }

    fn insert(&mut self, number: u64, bytes: &[u8]) -> Result<(), sled::Error> {
        let block = number / BLOCK;
        let tree = match &self.tree {
            Some((open, tree)) if *open == block => tree,
            _ => &self.tree.insert((block, self.db.open_tree(block.to_string())?)).1,
        };
        tree.insert(number.to_be_bytes(), bytes)?;
        self.note(number, bytes);
        Ok(())
    }

    /// Puts everything written so far on the disk.
    pub(super) fn make_durable(&mut self) -> Result<(), sled::Error> {
        self.db.flush()?;
        self.log.sync_data()?;
        Ok(())
    }

    /// The bytes of a record.
    pub(super) fn record(&self, number: u64) -> Result<Option<sled::IVec>, sled::Error> {
        self.db.open_tree((number / BLOCK).to_string())?.get(number.to_be_bytes())
    }

    /// Takes a record into the account of places and bytes.
    fn note(&mut self, number: u64, bytes: &[u8]) {
        self.next = number + 1;
        self.bytes += bytes.len() as u64;
        let Some((_, commit, last, chunk)) = record::chunk_of(bytes) else { return };
        self.unfinished.retain(|(of, _)| *of == commit);
        if let Ok(header) = chunk::Header::checked(chunk) {
            let place = Place {
                record: number,
                first: header.first,
                count: u64::from(header.count),
                bytes: header.length as u64,
                boot: header.boot,
            };
            self.unfinished.push((commit, place));
        }
        if last {
            self.places.extend(self.unfinished.drain(..).map(|(_, place)| place));
        }
    }

    /// Observations from `from` on.
    pub(super) fn count_from(&self, from: Sequence) -> u64 {
        self.places.iter().map(|place| (place.first + place.count).saturating_sub(from.max(place.first))).sum()
    }

    /// The sequence after the last.
    pub(super) fn end(&self) -> Option<Sequence> {
        self.places.last().map(|place| place.first + place.count)
    }

    /// Whether sled has moved a value out of its log.
    pub(super) fn has_blobs(&self) -> bool {
        std::fs::read_dir(self.folder.join("blobs")).is_ok_and(|mut files| files.next().is_some())
    }
}

fn config(folder: &Path) -> sled::Config {
    sled::Config::new().path(folder).cache_capacity(CACHE).flush_every_ms(None).use_compression(false)
}

/// Only corruption is damage; whatever the system refuses may pass.
fn refused_or_damaged(why: sled::Error) -> OpenFailure {
    match why {
        sled::Error::Io(why) if !matches!(why.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
            OpenFailure::Refused(why)
        }
        damage => OpenFailure::Damaged(damage.to_string()),
    }
}

fn snapshots(folder: &Path, chosen: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with("snap.") && chosen(name)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove_unfinished_snapshots(folder: &Path) -> io::Result<()> {
    snapshots(folder, |name| name.ends_with(".generating"))?.iter().try_for_each(std::fs::remove_file)
}

fn set_snapshots_aside(folder: &Path) -> bool {
    let found = snapshots(folder, |_| true).unwrap_or_default();
    let moved = found.iter().filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        std::fs::rename(path, path.with_file_name(format!("aside-{name}"))).is_ok()
    });
    moved.count() > 0
}
