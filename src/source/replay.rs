//! Recorded frames as if they were heard again: at real speed, at a factor of it, or as fast as they are taken.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::reading::{BootId, Channel, Heard, Reading};
use crate::source::context::Context;
use crate::source::delivery::DeviceInlet;
use crate::source::health::DeviceHealth;
use crate::source::recorded::{BadLine, MAX_LINE, RecordedFrame};

/// How fast a recording is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As many times faster than it was recorded; 1 is real speed.
    Factor(f64),
    /// As fast as the readings are taken.
    Full,
}

/// What is replayed.
#[derive(Debug, Clone)]
pub struct ReplaySettings {
    /// The recording.
    pub file: PathBuf,
    /// How fast.
    pub speed: Speed,
    /// The entry that admits each device's frames, by device name.
    pub entries: HashMap<Arc<str>, Arc<str>>,
}

/// What a replay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Frames that went to the intake.
    pub frames: u64,
    /// Frames of devices that no entry names.
    pub without_entry: u64,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// The recording.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line is no recorded frame.
    #[error("{}:{line}: {error}", file.display())]
    Line {
        /// The recording.
        file: PathBuf,
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with it.
        error: BadLine,
    },
    /// The gateway stops.
    #[error("the gateway is stopping")]
    Stopped,
}

/// Lines between two looks at the word to stop and two chances for other tasks.
const LINES_PER_TURN: u64 = 256;

/// What is remembered of each device, so that a frame costs no look-up elsewhere.
struct Device {
    name: Arc<str>,
    entry: Arc<str>,
    inlet: DeviceInlet,
    health: Arc<DeviceHealth>,
    /// The channel of its last frame, kept with its text: devices mostly repeat it.
    last: Option<(Box<str>, Channel)>,
}

/// Replays the whole file; returns when the last frame is taken. Memory does not grow with the file.
pub async fn run(settings: ReplaySettings, mut context: Context) -> Result<Replayed, ReplayError> {
    let file = settings.file.as_path();
    let read_error = |error| ReplayError::Read { file: file.to_owned(), error };
    let mut lines = io::BufReader::with_capacity(256 * 1024, std::fs::File::open(file).map_err(read_error)?);
    let mut devices: HashMap<Arc<str>, Device> = HashMap::new();
    let mut done = Replayed::default();
    let mut pace = Pace::new(settings.speed);
    let (mut line, mut number) = (Vec::with_capacity(512), 0);
    while read_line(&mut lines, &mut line).map_err(read_error)? {
        number += 1;
        if number % LINES_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
        if context.stop.is_set() {
            return Err(ReplayError::Stopped);
        }
        if line.is_empty() {
            continue;
        }
        let bad = |error| bad_line(file, number, error);
        let frame = RecordedFrame::parse(&line).map_err(bad)?;
        let Some(device) = device_of(&mut devices, &frame, &settings, &context) else {
            done.without_entry += 1;
            continue;
        };
        let reading = device.reading(&frame).map_err(bad)?;
        if pace.wait(frame.t, &mut context).await {
            return Err(ReplayError::Stopped);
        }
        device.health.heard(reading.heard);
        device.inlet.deliver(reading, None, None).await.map_err(|_| ReplayError::Stopped)?;
        done.frames += 1;
    }
    Ok(done)
}

fn bad_line(file: &Path, line: u64, error: BadLine) -> ReplayError {
    ReplayError::Line { file: file.to_owned(), line, error }
}

/// The next line without its end; false at the end of the file. A line over the limit is an error.
fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = io::Read::take(&mut *lines, MAX_LINE as u64 + 1).read_until(b'\n', line)?;
    if line.len() > MAX_LINE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line is longer than {MAX_LINE} bytes")));
    }
    line.truncate(line.trim_ascii_end().len());
    Ok(read > 0)
}

fn device_of<'d>(
    devices: &'d mut HashMap<Arc<str>, Device>,
    frame: &RecordedFrame<'_>,
    settings: &ReplaySettings,
    context: &Context,
) -> Option<&'d mut Device> {
    if !devices.contains_key(&*frame.device) {
        let entry = settings.entries.get_key_value(&*frame.device);
        // A name without an entry is not remembered: the file may hold any number of them.
        let (name, entry) = entry?;
        let device = Device {
            name: name.clone(),
            entry: entry.clone(),
            inlet: context.inlet.device(),
            health: context.health.device(name),
            last: None,
        };
        devices.insert(name.clone(), device);
    }
    devices.get_mut(&*frame.device)
}

impl Device {
    fn reading(&mut self, frame: &RecordedFrame<'_>) -> Result<Reading, BadLine> {
        let same = self
            .last
            .as_ref()
            .filter(|(text, channel)| **text == *frame.channel && !matches!(channel, Channel::Advertisement { .. }));
        let channel = match same {
            Some((_, channel)) => channel.clone(),
            None => {
                let channel = frame.channel()?;
                self.last = Some((Box::from(&*frame.channel), channel.clone()));
                channel
            }
        };
        Ok(Reading {
            device: self.name.clone(),
            entry: self.entry.clone(),
            channel,
            bytes: frame.bytes()?.into(),
            heard: Heard { boot: BootId::WALL, ms: frame.t },
        })
    }
}

/// When the next frame is due.
struct Pace {
    speed: Speed,
    /// The first frame's time, and when it was replayed.
    start: Option<(u64, Instant)>,
}

impl Pace {
    fn new(speed: Speed) -> Self {
        Pace { speed, start: None }
    }

    /// Waits until a frame heard at `t` is due; true when the word to stop came before.
    async fn wait(&mut self, t: u64, context: &mut Context) -> bool {
        let Speed::Factor(factor) = self.speed else {
            return false;
        };
        let (first, started) = *self.start.get_or_insert_with(|| (t, Instant::now()));
        let after = t.saturating_sub(first) as f64 / factor.max(1e-6);
        let due = started + Duration::from_millis(after.min(1e12) as u64);
        match due.checked_duration_since(Instant::now()) {
            Some(wait) if !wait.is_zero() => context.stop.wait_at_most(wait).await,
            _ => false,
        }
    }
}
