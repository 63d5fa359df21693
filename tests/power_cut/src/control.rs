//! The controls: writers so small that one sees what they sync. With their sync they lose nothing; without it they must
//! lose, or the harness does not drop what was not synced and proves nothing about the store.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::ensure;

use crate::told::{Outcome, Said, Told, tell};

const LINES: &str = "lines";
const NAMES: &str = "names";

/// Appends lines to one file and acknowledges each.
pub(crate) fn append(dir: &Path, synced: bool) -> anyhow::Result<()> {
    let mut file = File::create(dir.join(LINES))?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    for number in 1.. {
        writeln!(file, "line {number}")?;
        if synced {
            file.sync_data()?;
        }
        tell(Said::Committed { last: number, aside: 0, birth: false })?;
    }
    Ok(())
}

/// How many acknowledged lines are missing.
pub(crate) fn check_appended(dir: &Path, told: Told) -> anyhow::Result<Outcome> {
    let bytes = fs::read(dir.join(LINES)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let there = text.lines().zip(1..).take_while(|(line, number)| *line == format!("line {number}")).count() as u64;
    let there = there.min(told.last);
    Ok(Outcome { lost: told.last - there, there })
}

/// Renames files, each synced before, and acknowledges each name; what may be missing is the sync of the folder.
pub(crate) fn rename(dir: &Path, synced: bool) -> anyhow::Result<()> {
    let names = dir.join(NAMES);
    fs::create_dir(&names)?;
    let folder = File::open(&names)?;
    folder.sync_all()?;
    File::open(dir)?.sync_all()?;
    for number in 1.. {
        let new = names.join("new");
        let mut file = File::create(&new)?;
        write!(file, "name {number}")?;
        file.sync_all()?;
        fs::rename(&new, names.join(number.to_string()))?;
        if synced {
            folder.sync_all()?;
        }
        tell(Said::Committed { last: number, aside: 0, birth: false })?;
    }
    Ok(())
}

/// How many acknowledged names are missing.
pub(crate) fn check_renamed(dir: &Path, told: Told) -> anyhow::Result<Outcome> {
    let names = dir.join(NAMES);
    let mut lost = 0;
    for number in 1..=told.last {
        match fs::read_to_string(names.join(number.to_string())) {
            Ok(text) => ensure!(text == format!("name {number}"), "the file {number} holds {text:?}"),
            Err(_) => lost += 1,
        }
    }
    Ok(Outcome { lost, there: told.last - lost })
}
