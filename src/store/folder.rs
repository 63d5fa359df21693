//! The store's folder: its lock, its format file, names of generations, the ballast, and what an open cleans up.
//!
//! ```text
//! lock                 held while the store is open
//! format               "biogate store 1", and of a sealed store its key's fingerprint
//! ballast              8 MiB that are given up when a full disk keeps the store from opening
//! gen-N/               generations; they count by their names
//! aside/  reports/     two more rows of generations
//! new-N/  trash-N/     a birth or a death that was not finished: removed by the next open
//! damaged/             generations that did not open, kept for a person to look at
//! opening-N            the open of generation N has begun; three in a row without an end mean that it hangs
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::seal::Key;
use super::{Error, FORMAT};

/// Free bytes below which nothing is written: sled must not meet a full disk in the middle of its log.
pub(super) const RESERVE_BYTES: u64 = 2 << 20;
const BALLAST_BYTES: u64 = 8 << 20;
const FORMAT_START: &str = "biogate store ";

/// Takes the folder's lock. It is held until the file is dropped, or the process ends.
pub(super) fn lock(dir: &Path) -> Result<File, Error> {
    let doing = "locking the store";
    fs::create_dir_all(dir).map_err(|error| Error::unavailable("making the store's folder", dir, error))?;
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| Error::unavailable(doing, &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(Error::unavailable(doing, &path, error)),
    }
}

/// Checks the format file against this program and the key, and writes it where it is missing or says less.
pub(super) fn check_format(dir: &Path, key: Option<&Key>) -> Result<(), Error> {
    let path = dir.join("format");
    let found = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::unavailable("reading the store's format", &path, error)),
    };
    let mut lines = found.lines();
    let version =
        lines.next().and_then(|line| line.strip_prefix(FORMAT_START)).and_then(|text| text.trim().parse().ok());
    if let Some(found) = version
        && found > FORMAT
    {
        return Err(Error::Newer { dir: dir.to_owned(), found, known: FORMAT });
    }
    let sealed = lines.next().and_then(|line| line.strip_prefix("sealed ")).map(str::trim);
    let fingerprint = key.map(Key::fingerprint);
    match (sealed, &fingerprint) {
        (Some(_), None) => return Err(Error::Sealed { what: "it is sealed, and no key_file is set" }),
        (Some(known), Some(ours)) if known != ours => {
            return Err(Error::Sealed { what: "it was sealed with another key than that of key_file" });
        }
        _ => {}
    }
    let mut wanted = format!("{FORMAT_START}{FORMAT}\n");
    if let Some(fingerprint) = fingerprint {
        wanted.push_str(&format!("sealed {fingerprint}\n"));
    }
    if found == wanted { Ok(()) } else { replace(dir, "format", wanted.as_bytes()) }
}

fn replace(dir: &Path, name: &str, content: &[u8]) -> Result<(), Error> {
    let (new, path) = (dir.join(format!("{name}.new")), dir.join(name));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        sync_dir(dir)
    };
    write().map_err(|error| Error::unavailable("writing the store's format", &path, error))
}

/// The numbers of the folders named `prefix-N`, ascending.
pub(super) fn numbered(dir: &Path, prefix: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|rest| rest.strip_prefix('-'));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The folder of a generation: `gen-N`, `new-N`, `trash-N`.
pub(super) fn named(dir: &Path, prefix: &str, number: u64) -> PathBuf {
    dir.join(format!("{prefix}-{number}"))
}

/// Removes births and deaths that were not finished.
pub(super) fn sweep(dir: &Path) -> io::Result<()> {
    for prefix in ["new", "trash"] {
        for number in numbered(dir, prefix)? {
            fs::remove_dir_all(named(dir, prefix, number))?;
        }
    }
    Ok(())
}

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes everything in `new-N` durable.
pub(super) fn sync_new(dir: &Path, number: u64) -> io::Result<()> {
    let new = named(dir, "new", number);
    for name in ["db", "conf"] {
        File::open(new.join(name))?.sync_all()?;
    }
    sync_dir(&new)
}

/// The end of a birth: everything in `new-N` durable, then its name.
pub(super) fn finish_birth(dir: &Path, number: u64) -> io::Result<()> {
    let new = named(dir, "new", number);
    sync_new(dir, number)?;
    reach("birth-before-rename");
    crash_point!("store.rename.before");
    fs::rename(&new, named(dir, "gen", number))?;
    reach("birth-after-rename");
    crash_point!("store.rename.after");
    sync_dir(dir)
}

/// A death: the name first, then the files.
pub(super) fn remove(dir: &Path, number: u64) -> io::Result<()> {
    let trash = named(dir, "trash", number);
    reach("death-before-rename");
    crash_point!("store.death.before");
    match fs::rename(named(dir, "gen", number), &trash) {
        // Damaged beyond saving, so it lies in `damaged/`.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    sync_dir(dir)?;
    reach("death-after-rename");
    crash_point!("store.death.renamed");
    fs::remove_dir_all(&trash)?;
    crash_point!("store.death.after");
    Ok(())
}

/// Moves a generation that does not open to `damaged/` and says where it lies now.
pub(super) fn set_aside(dir: &Path, number: u64) -> io::Result<PathBuf> {
    let damaged = dir.join("damaged");
    fs::create_dir_all(&damaged)?;
    let mut to = named(&damaged, "gen", number);
    for copy in 1.. {
        if !to.exists() {
            break;
        }
        to = damaged.join(format!("gen-{number}-{copy}"));
    }
    fs::rename(named(dir, "gen", number), &to)?;
    sync_dir(&damaged)?;
    sync_dir(dir)?;
    Ok(to)
}

/// Bytes that everything under `path` has on disk. What vanishes meanwhile counts nothing.
pub(super) fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.blocks() * 512;
    }
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| disk_bytes(&entry.path())).sum()
}

/// Bytes of the file system that this process may still use.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Lays down the ballast if there is room to spare for it.
pub(super) fn ensure_ballast(dir: &Path, min_free: u64) {
    let path = dir.join("ballast");
    let is_whole = fs::metadata(&path).is_ok_and(|meta| meta.len() == BALLAST_BYTES);
    let has_room = free_bytes(dir).is_ok_and(|free| free > min_free.saturating_add(4 * BALLAST_BYTES));
    if is_whole || !has_room {
        return;
    }
    let lay = || -> io::Result<()> {
        let file = File::create(&path)?;
        // Real blocks: a hole would give nothing back.
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BALLAST_BYTES)?;
        file.sync_all()
    };
    if let Err(error) = lay() {
        tracing::warn!(%error, "no ballast: a full disk will keep the store from opening");
        give_up_ballast(dir);
    }
}

/// Gives the ballast's room back. Says whether there was any.
pub(super) fn give_up_ballast(dir: &Path) -> bool {
    fs::remove_file(dir.join("ballast")).is_ok()
}

/// A named point at which the kill tests end the process, the n-th time it comes by: `POINT:N` in the environment of a
/// debug build. In a release build nothing is there.
#[inline]
#[allow(clippy::disallowed_methods, reason = "read in debug builds only, by the tests that kill this process")]
pub(super) fn reach(point: &str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::atomic::{AtomicU32, Ordering};
        static SEEN: AtomicU32 = AtomicU32::new(0);
        let Ok(wanted) = std::env::var("BIOGATE_TEST_KILL_AT") else { return };
        let (name, times) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        if name == point && SEEN.fetch_add(1, Ordering::Relaxed) + 1 == times.parse().unwrap_or(1) {
            std::process::abort();
        }
    }
    #[cfg(not(debug_assertions))]
    let _unused = point;
}
