//! One part file: made, taken up again, written, closed. Blocking.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use super::resume::{Resume, resume, whole_lines};

/// What a file is called while it is written.
const OPEN: &str = ".ndjson.part";
/// What it is called once it is closed.
const CLOSED: &str = ".ndjson";
/// How much of a file is looked at in one step when its last line is searched.
const STEP: u64 = 64 * 1024;
/// Files made within one second; more than that is not a rotation but a loop.
const MOST_PER_SECOND: u32 = 1_000;

/// A file that is being written. `synced` bytes of it belong to batches that were delivered.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    synced: u64,
    len: u64,
    since: Instant,
    /// Left by an earlier process: its last line may be torn.
    maybe_torn: bool,
}

impl Part {
    /// Makes a new file, and its name durable.
    pub(super) fn create(dir: &Path, prefix: &str) -> io::Result<Part> {
        let second = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        for n in 0..MOST_PER_SECOND {
            let base = format!("{prefix}{second}-{n}");
            if dir.join(format!("{base}{CLOSED}")).try_exists()? {
                continue;
            }
            let path = dir.join(format!("{base}{OPEN}"));
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => {
                    sync_dir(dir)?;
                    return Ok(Part { file, path, synced: 0, len: 0, since: Instant::now(), maybe_torn: false });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{MOST_PER_SECOND} files were begun in one second")))
    }

    /// Takes up the part file that an earlier process left, if any. Of several the newest name stays open, the others
    /// are closed after their last whole line.
    pub(super) fn take_up(dir: &Path, prefix: &str) -> io::Result<Option<Part>> {
        let mut left = names(dir, prefix, OPEN)?;
        left.sort();
        let newest = left.pop();
        for path in left {
            let mut part = Part::open(path)?;
            part.cut_torn_line()?;
            part.close()?;
        }
        let Some(path) = newest else { return Ok(None) };
        Part::open(path).map(Some)
    }

    fn open(path: PathBuf) -> io::Result<Part> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let meta = file.metadata()?;
        // Its age goes on over a restart, as far as the wall clock can tell.
        let age = meta.created().ok().and_then(|made| SystemTime::now().duration_since(made).ok()).unwrap_or_default();
        let since = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        Ok(Part { file, path, synced: meta.len(), len: meta.len(), since, maybe_torn: true })
    }

    /// Cuts off what does not end in a line feed: a crash in the middle of a write.
    pub(super) fn cut_torn_line(&mut self) -> io::Result<()> {
        if !self.maybe_torn {
            return Ok(());
        }
        let mut end = self.len;
        while end > 0 {
            let start = end.saturating_sub(STEP);
            let lines = whole_lines(&read_at(&mut self.file, start, end)?) as u64;
            if lines > 0 {
                end = start + lines;
                break;
            }
            end = start;
        }
        self.truncate(end)
    }

    /// Finds how much of a batch of an earlier process is there, cuts off the rest and returns the bytes that are.
    pub(super) fn resume(&mut self, batch: &[u8]) -> io::Result<usize> {
        let start = self.len.saturating_sub(batch.len() as u64 + STEP);
        let tail = read_at(&mut self.file, start, self.len)?;
        let Resume { keep, written } = resume(&tail, start == 0, batch);
        if keep == 0 && start > 0 {
            // A last line longer than all that was looked at.
            self.maybe_torn = true;
            self.cut_torn_line()?;
        } else {
            self.truncate(start + keep as u64)?;
        }
        Ok(written)
    }

    /// Whether the name still leads to this file: a folder that was moved away took the file along.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        let (there, ours) = (fs::metadata(&self.path), self.file.metadata()?);
        match there {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Appends bytes. Counted only when all of them were taken.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        crash_point!("file.append.before");
        self.file.write_all(bytes)?;
        crash_point!("file.append.after");
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Makes what was appended durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        crash_point!("file.sync.after");
        self.synced = self.len;
        Ok(())
    }

    /// Takes back what a failed batch wrote.
    pub(super) fn roll_back(&mut self) -> io::Result<()> {
        self.truncate(self.synced)
    }

    /// Whether it is full or old enough to be closed, now.
    pub(super) fn is_due(&self, bytes: u64, age: std::time::Duration) -> bool {
        self.len > 0 && (self.len >= bytes || self.since.elapsed() >= age)
    }

    /// How long until it is old enough; `None` while it is empty.
    pub(super) fn due_in(&self, age: std::time::Duration) -> Option<std::time::Duration> {
        (self.len > 0).then(|| age.saturating_sub(self.since.elapsed()))
    }

    /// Gives it its final name. The name is durable when this returns.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let Some(dir) = self.path.parent() else { return Ok(()) };
        crash_point!("file.rename.before");
        fs::rename(&self.path, closed_name(&self.path))?;
        crash_point!("file.rename.after");
        sync_dir(dir)
    }

    fn truncate(&mut self, to: u64) -> io::Result<()> {
        self.file.set_len(to)?;
        self.file.seek(SeekFrom::Start(to))?;
        self.len = to;
        self.synced = self.synced.min(to);
        self.maybe_torn = false;
        Ok(())
    }
}

/// Whether the closed file that was written last ends with exactly these bytes: the batch was delivered and its file
/// closed, and only the cursor's move was lost.
pub(super) fn newest_closed_ends_with(dir: &Path, prefix: &str, batch: &[u8]) -> io::Result<bool> {
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for path in names(dir, prefix, CLOSED)? {
        let written = fs::metadata(&path)?.modified()?;
        if newest.as_ref().is_none_or(|(than, _)| written >= *than) {
            newest = Some((written, path));
        }
    }
    let Some((_, path)) = newest else { return Ok(false) };
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let Some(start) = len.checked_sub(batch.len() as u64) else { return Ok(false) };
    Ok(read_at(&mut file, start, len)? == batch)
}

/// Makes the entries of a folder durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn closed_name(path: &Path) -> PathBuf {
    path.with_extension("")
}

fn names(dir: &Path, prefix: &str, ending: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(ending)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn read_at(file: &mut File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity((end - start) as usize);
    file.seek(SeekFrom::Start(start))?;
    file.take(end - start).read_to_end(&mut bytes)?;
    Ok(bytes)
}
