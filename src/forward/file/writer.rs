//! Writes batches into part files and turns them over. Blocking; runs on its own thread.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::forward::json;
use crate::forward::refusal::{Refusal, Trouble};
use crate::forward::rows::Batch;

use super::Settings;
use super::part::{Part, newest_closed_ends_with};

/// Rendered lines are handed to the file in pieces of about this size, so a batch never lies in memory as a whole.
const FLUSH_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Writer {
    settings: Settings,
    part: Option<Part>,
    /// Reused for every batch.
    lines: Vec<u8>,
    /// The folder was there once: from then on it is waited for and not made again, since an empty folder in the place
    /// of a disk that is not mounted would fill the wrong disk.
    dir_made: bool,
    /// Part files of earlier processes were looked for.
    taken_up: bool,
}

impl Writer {
    pub(super) fn new(settings: Settings) -> Self {
        Writer { settings, part: None, lines: Vec::new(), dir_made: false, taken_up: false }
    }

    /// How long until the file in hand is old enough to be closed.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.part.as_ref()?.due_in(self.settings.rotate_age)
    }

    /// Closes the file in hand if it is full or old.
    pub(super) fn rotate_if_due(&mut self) -> Result<(), Refusal> {
        self.try_rotate().map_err(|error| self.refusal("close the file", &error))
    }

    /// Writes and syncs a batch, whole or (for all that later readers see) not at all.
    pub(super) fn write(&mut self, batch: &mut Batch) -> Result<(), Refusal> {
        self.prepare().map_err(|error| self.refusal("open a file", &error).not_arrived())?;
        self.lines.clear();
        let written = if batch.resumed { self.write_missing(batch) } else { self.write_all(batch) };
        match written {
            Ok(Some(bytes)) => {
                batch.tally.bytes = bytes;
                Ok(())
            }
            Ok(None) => {
                let reason = format!("basis {} of the batch is not known any more", batch.range.basis);
                Err(Refusal::new(Trouble::Internal, reason).not_arrived())
            }
            Err(error) => {
                // If even this fails the file is left to a later take-up, which compares it with the batch.
                let stays = self.part.as_mut().is_some_and(|part| part.roll_back().is_err());
                if stays {
                    self.part = None;
                    self.taken_up = false;
                }
                let refusal = self.refusal("write", &error);
                Err(if stays { refusal } else { refusal.not_arrived() })
            }
        }
    }

    fn prepare(&mut self) -> io::Result<()> {
        if !self.dir_made {
            std::fs::create_dir_all(&self.settings.dir)?;
            self.dir_made = true;
        }
        if let Some(part) = &mut self.part
            && !part.is_in_place()?
        {
            // Somebody moved or removed it. What was delivered went along; nothing of a failed batch shall.
            if !self.settings.dir.try_exists()? {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            part.roll_back()?;
            self.part = None;
        }
        self.try_rotate()?;
        if self.part.is_none() && !self.taken_up {
            self.part = Part::take_up(&self.settings.dir)?;
            self.taken_up = true;
        }
        Ok(())
    }

    fn try_rotate(&mut self) -> io::Result<()> {
        if let Some(part) = &mut self.part
            && part.is_due(self.settings.rotate_bytes, self.settings.rotate_age)
        {
            part.close()?;
            self.part = None;
        }
        Ok(())
    }

    /// Renders straight into the file. `None` when the rows cannot be rendered.
    fn write_all(&mut self, batch: &mut Batch) -> io::Result<Option<u64>> {
        let lines = &mut self.lines;
        let part = match &mut self.part {
            Some(part) => {
                part.cut_torn_line()?;
                part
            }
            None => self.part.insert(Part::create(&self.settings.dir)?),
        };
        let (mut rows, mut bytes, mut failed) = (0, 0, None);
        let rendered = batch.fill(|_, event| {
            json::line(lines, event);
            rows += 1;
            if lines.len() < FLUSH_BYTES {
                return ControlFlow::Continue(());
            }
            bytes += lines.len() as u64;
            failed = part.append(lines).err();
            lines.clear();
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if !rendered {
            return Ok(None);
        }
        bytes += lines.len() as u64;
        part.append(lines)?;
        part.sync()?;
        batch.tally.delivered = rows;
        Ok(Some(bytes))
    }

    /// Renders all of it and writes what an earlier try or process had not: the way of retries and of the first batch
    /// after a start.
    fn write_missing(&mut self, batch: &mut Batch) -> io::Result<Option<u64>> {
        let mut lines = Vec::new();
        let mut rows = 0;
        let rendered = batch.fill(|_, event| {
            json::line(&mut lines, event);
            rows += 1;
            ControlFlow::Continue(())
        });
        if !rendered {
            return Ok(None);
        }
        let there = match &mut self.part {
            Some(part) => part.resume(&lines)?,
            None => 0,
        };
        let missing = &lines[there..];
        let closed = there == 0 && !lines.is_empty() && newest_closed_ends_with(&self.settings.dir, &lines)?;
        if !closed {
            let part = match &mut self.part {
                Some(part) => part,
                None => self.part.insert(Part::create(&self.settings.dir)?),
            };
            part.append(missing)?;
            part.sync()?;
        }
        batch.tally.delivered = rows;
        Ok(Some(if closed { 0 } else { missing.len() as u64 }))
    }

    fn refusal(&self, doing: &str, error: &io::Error) -> Refusal {
        let dir = self.settings.dir.display();
        let why = match error.kind() {
            io::ErrorKind::NotFound => format!("the folder {dir} is missing; make it or mount its disk"),
            io::ErrorKind::StorageFull => format!("the disk under {dir} is full; free some space"),
            io::ErrorKind::PermissionDenied => format!("no permission to write in {dir}; its owner must allow it"),
            io::ErrorKind::ReadOnlyFilesystem => format!("the file system under {dir} is read-only"),
            _ => format!("cannot {doing} in {dir}: {error}"),
        };
        Refusal::new(Trouble::Disk, why)
    }
}
