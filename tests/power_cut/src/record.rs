//! A recording: a writer on the logging disk for some seconds, and what it said at which position of the log.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::Kind;
use crate::disk::{self, Disk, Entry};
use crate::mounts::{Mount, make_ext4};
use crate::told::{Said, Told};

const DISK_BYTES: u64 = 96 << 20;
/// The log lies in memory.
const MAX_LOGGED_BYTES: usize = 1 << 30;

/// A disk's life.
#[derive(Debug)]
pub(crate) struct Recording {
    /// The disk after mkfs.
    pub(crate) base: Vec<u8>,
    pub(crate) log: Vec<Entry>,
    /// What was said, and the number of entries that the log had then.
    pub(crate) said: Vec<(usize, Said)>,
    /// Where each writer began, and where it had opened and said its first.
    pub(crate) openings: Vec<(usize, usize)>,
}

impl Recording {
    /// All that was said when the log had `position` entries.
    pub(crate) fn told(&self, position: usize) -> Told {
        let mut told = Told::default();
        self.said.iter().take_while(|(at, _)| *at <= position).for_each(|(_, said)| told.hear(*said));
        told
    }
}

/// A process that ends with its guard.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Waits for its end, at most so long.
    pub(crate) fn end_within(&mut self, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            crate::pause(Duration::from_millis(2));
        }
        Ok(None)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // By then it has usually ended, which is no error worth a word.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Records `kind` for so long.
pub(crate) fn record(kind: Kind, scratch: &Path, seed: u64, time: Duration) -> anyhow::Result<Recording> {
    let image = scratch.join("base");
    make_ext4(&image, DISK_BYTES)?;
    let base = std::fs::read(&image)?;
    std::fs::remove_file(&image)?;

    let disk = Disk::new(base.clone());
    let fuse = scratch.join("fuse");
    std::fs::create_dir_all(&fuse)?;
    let session = fuser::spawn_mount(disk.clone(), &fuse, &fuser::Config::default()).context("mounting by FUSE")?;
    let mount = Mount::ext4(&fuse.join(disk::NAME), &scratch.join("live"))?;

    let mut random = fastrand::Rng::with_seed(seed);
    let start = Instant::now();
    let (mut said, mut openings) = (Vec::new(), Vec::new());
    while start.elapsed() < time && disk.logged_bytes() < MAX_LOGGED_BYTES {
        // A store must also hold what a process that was killed left in the kernel's memory.
        let life = if kind == Kind::Store { Duration::from_millis(random.u64(200..1_200)) } else { time };
        let life = life.min(time.saturating_sub(start.elapsed()));
        let rest = Duration::from_micros(random.u64(..5_000));
        let opened = disk.position();
        let before = said.len();
        live(kind, scratch, seed, (life, rest), &mut |line| said.push((disk.position(), line)))?;
        openings.push((opened, said.get(before).map_or(opened, |(at, _)| *at)));
    }
    let end = disk.position();
    mount.unmount()?;
    session.umount_and_join().context("unmounting FUSE")?;
    let mut log = disk.take_log();
    log.truncate(end);
    Ok(Recording { base, log, said, openings })
}

/// One writer, killed `rest` after its `life`, wherever it is then.
fn live(
    kind: Kind,
    scratch: &Path,
    seed: u64,
    (life, rest): (Duration, Duration),
    hear: &mut dyn FnMut(Said),
) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["writer", "--kind", kind.name(), "--seed", &seed.to_string(), "--dir"]).arg(scratch.join("live"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut writer = Running(command.spawn().context("starting the writer")?);
    let mut answers = writer.0.stdin.take().context("no way to the writer")?;
    let mut lines = BufReader::new(writer.0.stdout.take().context("no way from the writer")?).lines();
    let start = Instant::now();
    for line in lines.by_ref() {
        hear(Said::read(&line?)?);
        // A failure here is the writer's end, which the next line shows.
        drop(answers.write_all(b"on\n"));
        if start.elapsed() >= life {
            crate::pause(rest);
            break;
        }
    }
    if let Some(status) = writer.0.try_wait()? {
        bail!("the writer ended by itself: {status}");
    }
    // Before its pipe, so that it is killed and does not fail.
    drop(writer);
    Ok(())
}
