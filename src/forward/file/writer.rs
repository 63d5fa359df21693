//! Writes batches into part files and turns them over. Blocking; runs on its own thread.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::forward::json;
use crate::forward::refusal::{Refusal, Trouble};
use crate::forward::rows::Batch;
use crate::report::{Kind, Report};

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
    /// How the files' names begin: `events-`, `gateway-status-`.
    prefix: String,
    /// The files of the reports.
    beside: Vec<(Kind, Writer)>,
}

impl Writer {
    pub(super) fn new(settings: Settings) -> Self {
        Writer::named(settings, "events-".to_owned())
    }

    fn named(settings: Settings, prefix: String) -> Self {
        let (part, lines, beside) = (None, Vec::new(), Vec::new());
        Writer { settings, part, lines, dir_made: false, taken_up: false, prefix, beside }
    }

    /// How long until the file in hand is old enough to be closed.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let own = self.part.as_ref().and_then(|part| part.due_in(self.settings.rotate_age));
        self.beside.iter().filter_map(|(_, writer)| writer.due_in()).chain(own).min()
    }

    /// Closes the files in hand that are full or old.
    pub(super) fn rotate_if_due(&mut self) -> Result<(), Refusal> {
        let all =
            std::iter::once(self.try_rotate()).chain(self.beside.iter_mut().map(|(_, writer)| writer.try_rotate()));
        let failed = all.filter_map(Result::err).next();
        failed.map_or(Ok(()), |error| Err(self.refusal("close the file", &error)))
    }

    /// Writes and syncs reports of one kind into the files of their topic. After a crash they may stand there twice.
    pub(super) fn report(&mut self, kind: Kind, reports: &[Report]) -> Result<(), Refusal> {
        let found = self.beside.iter().position(|(of, _)| *of == kind);
        let place = found.unwrap_or_else(|| {
            self.beside.push((kind, Writer::named(self.settings.clone(), format!("{}-", kind.topic()))));
            self.beside.len() - 1
        });
        let writer = &mut self.beside[place].1;
        writer.dir_made |= self.dir_made;
        writer.lines.clear();
        for report in reports {
            writer.lines.extend_from_slice(report.row.as_bytes());
            writer.lines.push(b'\n');
        }
        writer.prepare().map_err(|error| writer.refusal("open a file", &error))?;
        writer.append_lines().map_err(|error| {
            writer.give_up();
            writer.refusal("write", &error)
        })
    }

    fn append_lines(&mut self) -> io::Result<()> {
        let part = match &mut self.part {
            Some(part) => {
                part.cut_torn_line()?;
                part
            }
            None => self.part.insert(Part::create(&self.settings.dir, &self.prefix)?),
        };
        part.append(&self.lines)?;
        part.sync()
    }

    /// Takes back what a failed write left; `false` when that failed too.
    fn give_up(&mut self) -> bool {
        // If even this fails the file is left to a later take-up, which compares it with the batch.
        let stays = self.part.as_mut().is_some_and(|part| part.roll_back().is_err());
        if stays {
            self.part = None;
            self.taken_up = false;
        }
        !stays
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
                let taken_back = self.give_up();
                let refusal = self.refusal("write", &error);
                Err(if taken_back { refusal.not_arrived() } else { refusal })
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
            self.part = Part::take_up(&self.settings.dir, &self.prefix)?;
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
            None => self.part.insert(Part::create(&self.settings.dir, &self.prefix)?),
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
        let closed =
            there == 0 && !lines.is_empty() && newest_closed_ends_with(&self.settings.dir, &self.prefix, &lines)?;
        if !closed {
            let part = match &mut self.part {
                Some(part) => part,
                None => self.part.insert(Part::create(&self.settings.dir, &self.prefix)?),
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
