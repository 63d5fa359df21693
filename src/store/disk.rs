//! Folders that count by their names: made durable before they appear, gone from sight before they are removed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Makes a file's or folder's own content durable.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Renames and makes the rename durable; both names are in one folder.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync(to.parent().unwrap_or(Path::new(".")))
}

/// Removes a folder so that a power cut leaves it whole, or named as trash.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let trash = folder.with_file_name(format!("trash-{name}"));
    rename(folder, &trash)?;
    fs::remove_dir_all(&trash)
}

/// How the copy of a damaged generation is called until it takes its place.
pub(super) const REPAIRED: &str = "repaired";

/// Removes what an earlier process left half made or half removed, and finishes its repairs.
pub(super) fn sweep(row: &Path) -> io::Result<()> {
    for entry in fs::read_dir(row)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let repaired = name.strip_prefix(REPAIRED).and_then(|rest| rest.strip_prefix('-')?.parse().ok());
        match repaired.map(|number| folder(row, number)) {
            // The damaged folder had left already, so the copy is whole.
            Some(place) if !place.exists() => rename(&entry.path(), &place)?,
            Some(_) => fs::remove_dir_all(entry.path())?,
            None if name.starts_with("new-") || name.starts_with("trash-") => fs::remove_dir_all(entry.path())?,
            None => {}
        }
    }
    Ok(())
}

/// Numbers of the generations in a row, oldest first.
pub(super) fn numbers(row: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(row)? {
        let name = entry?.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_prefix("gen-")?.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The folder of a generation.
pub(super) fn folder(row: &Path, number: u64) -> PathBuf {
    row.join(format!("gen-{number}"))
}

/// Bytes of all files below a folder. What vanishes meanwhile counts nothing.
pub(super) fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Free bytes of the file system that holds a folder, for a process without root's reserve.
pub(super) fn free(folder: &Path) -> io::Result<u64> {
    let room = rustix::fs::statvfs(folder)?;
    Ok(room.f_bavail * room.f_frsize)
}
