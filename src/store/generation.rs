//! One generation: a small append-only sled database whose records lie in blocks of eight.
//!
//! Record n lies in tree n / 8 under key n % 8. sled rewrites a leaf whole at its tenth link, and a log item over
//! 131,052 bytes leaves the log for a file in `blobs/` that nobody syncs; with never a ninth record in one tree neither
//! happens. Nothing is removed inside a generation, so sled never reuses a segment before our fdatasync.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::chunk::Header;
use super::damage::{Damaged, NO_KEY, WRONG_KEY};
use super::record::MAX_RECORD_BYTES;
use super::{Error, Sequence};

/// Records in one tree.
const BLOCK: u32 = 8;
/// After so many records a generation is full whatever its size: each block's tree makes sled's list of trees longer,
/// and that list is written anew for each of them.
pub(super) const MAX_RECORDS: u32 = 4_096;
/// What sled may keep of pages that can be dropped. What was appended it keeps anyway.
const CACHE_BYTES: u64 = 1 << 20;

/// One chunk in a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first: Sequence,
    pub(super) count: u64,
    pub(super) record: u32,
    /// Bytes of the body's CBOR.
    pub(super) raw: u64,
}

impl Entry {
    pub(super) fn of(header: &Header, record: u32) -> Entry {
        Entry { first: header.first, count: header.count, record, raw: header.raw as u64 }
    }

    pub(super) fn last(&self) -> Sequence {
        self.first + self.count - 1
    }
}

/// Why a generation did not open.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// What lies there is not what was written.
    Damage(String),
    /// The machine does not let us: full, no permission, an IO error, too many files. Nothing is concluded from it.
    Refused(std::io::Error),
    /// Its records are whole, and the key does not open them.
    Sealed(&'static str),
}

impl std::fmt::Display for NotOpened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotOpened::Damage(what) => f.write_str(what),
            NotOpened::Refused(error) => error.fmt(f),
            NotOpened::Sealed(what) => f.write_str(what),
        }
    }
}

/// An open generation.
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) dir: PathBuf,
    db: sled::Db,
    /// The same file as sled's own descriptor: sled's flush ends in `sync_file_range`, which makes nothing durable.
    file: File,
    block: Option<(u32, sled::Tree)>,
    /// How many records it has: the next one's number.
    pub(super) records: u32,
    /// Bytes of the records.
    pub(super) bytes: u64,
    /// Its chunks in order; only those past their fdatasync.
    pub(super) index: Vec<Entry>,
    unsynced: Vec<Entry>,
}

impl Generation {
    /// Opens, or makes, the database in `dir`. A panic inside sled is damage.
    pub(super) fn open(dir: &Path, number: u64) -> Result<Generation, NotOpened> {
        let open = || sled::Config::new().path(dir).flush_every_ms(None).use_compression(false);
        let db = catch_unwind(AssertUnwindSafe(|| open().cache_capacity(CACHE_BYTES).open()))
            .map_err(|panic| NotOpened::Damage(format!("sled panicked: {}", said(&panic))))?
            .map_err(judge)?;
        let file = File::open(dir.join("db")).map_err(NotOpened::Refused)?;
        Ok(Generation {
            number,
            dir: dir.to_owned(),
            db,
            file,
            block: None,
            records: 0,
            bytes: 0,
            index: Vec::new(),
            unsynced: Vec::new(),
        })
    }

    /// Hands every record to `see`, in order, and counts them. `see` answers with the record's chunk.
    pub(super) fn scan(
        &mut self,
        mut see: impl FnMut(u32, &[u8]) -> Result<Option<Header>, Damaged>,
    ) -> Result<(), NotOpened> {
        let mut blocks: Vec<u32> = self.db.tree_names().iter().filter_map(|name| block_number(name)).collect();
        blocks.sort_unstable();
        for number in blocks {
            let tree = self.db.open_tree(number.to_be_bytes()).map_err(judge)?;
            let items = catch_unwind(AssertUnwindSafe(|| tree.iter().collect::<Result<Vec<_>, _>>()));
            let items = items.map_err(|panic| NotOpened::Damage(format!("sled panicked: {}", said(&panic))))?;
            for (key, value) in items.map_err(judge)? {
                let place = key.first().map_or(0, |place| u32::from(*place));
                let record = number * BLOCK + place;
                if record != self.records {
                    return Err(NotOpened::Damage(format!("record {} is missing", self.records)));
                }
                let header = see(record, &value).map_err(|damaged| match damaged {
                    NO_KEY | WRONG_KEY => NotOpened::Sealed(damaged.0),
                    damaged => NotOpened::Damage(format!("record {record}: {damaged}")),
                })?;
                self.records = record + 1;
                self.bytes += value.len() as u64;
                self.index.extend(header.map(|header| Entry::of(&header, record)));
            }
        }
        Ok(())
    }

    /// Writes one record into sled; [`Generation::sync`] makes it durable. After an error the database must be
    /// forgotten, never dropped.
    pub(super) fn put(&mut self, record: &[u8], chunk: Option<&Header>) -> Result<(), Error> {
        if record.len() > MAX_RECORD_BYTES {
            return Err(Error::fatal("appending a record", format!("it has {} bytes", record.len())));
        }
        let number = self.records / BLOCK;
        let tree = match &self.block {
            Some((open, tree)) if *open == number => tree,
            _ => {
                let tree = self.db.open_tree(number.to_be_bytes()).map_err(|e| Error::fatal("adding a block", e))?;
                &self.block.insert((number, tree)).1
            }
        };
        let key = [(self.records % BLOCK) as u8];
        crash_point!("store.append.before");
        tree.insert(key, record).map_err(|error| Error::fatal("appending a record", error))?;
        crash_point!("store.append.after");
        self.unsynced.extend(chunk.map(|header| Entry::of(header, self.records)));
        self.records += 1;
        self.bytes += record.len() as u64;
        Ok(())
    }

    /// Makes everything put so far durable. A failure is never retried: what the kernel dropped stays dropped.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        crash_point!("store.flush.before");
        self.db.flush().map_err(|error| Error::fatal("flushing the log", error))?;
        crash_point!("store.flush.after");
        crash_point!("store.fdatasync.before");
        self.file.sync_data().map_err(|error| Error::fatal("syncing the store", error))?;
        crash_point!("store.fdatasync.after");
        self.index.append(&mut self.unsynced);
        Ok(())
    }

    /// The record of this number.
    pub(super) fn get(&self, record: u32) -> Result<sled::IVec, Damaged> {
        let read = || {
            let tree = self.db.open_tree((record / BLOCK).to_be_bytes())?;
            tree.get([(record % BLOCK) as u8])
        };
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(Some(value))) => Ok(value),
            _ => Err(Damaged("the database does not give the record")),
        }
    }

    /// The first and last sequence of its chunks.
    pub(super) fn span(&self) -> Option<(Sequence, Sequence)> {
        Some((self.index.first()?.first, self.index.last()?.last()))
    }

    /// Bytes that the folder has on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.file.metadata().map_or(self.bytes, |meta| meta.blocks() * 512)
    }

    /// Whether sled put anything outside its log.
    pub(super) fn has_blobs(&self) -> bool {
        fs::read_dir(self.dir.join("blobs")).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Leaves the database as it stands without running sled's destructors, which hang after some errors.
    pub(super) fn forget(self) {
        std::mem::forget(self.block);
        std::mem::forget(self.db);
    }
}

fn block_number(name: &[u8]) -> Option<u32> {
    <[u8; 4]>::try_from(name).ok().map(u32::from_be_bytes)
}

/// Whether an error of sled means damage, or only that the machine does not let us.
fn judge(error: sled::Error) -> NotOpened {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error {
        sled::Error::Io(error) if !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) => {
            NotOpened::Refused(error)
        }
        error => NotOpened::Damage(error.to_string()),
    }
}

/// What a panic said.
pub(super) fn said(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}
