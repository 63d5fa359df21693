//! PURE Cuts a stream of bytes into frames: told bytes and the time, it returns whole, checked frames.
//!
//! Any split of the stream gives the same frames. It holds at most one frame's `max` and the bytes just given. What
//! cannot be the start of a frame is skipped byte by byte and counted; a line or delimited frame that grows over `max`
//! is skipped up to its end, so that its tail is never taken for a frame.

use std::borrow::Cow;

use bytes::Bytes;

use crate::interpret::frame::{Gathered, Gatherer};
use crate::interpret::link::{Cut, FrameSpec};

/// What was found beside good frames since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes that belong to no frame.
    pub garbage_bytes: u64,
    /// Frames whose checksum was wrong.
    pub checksum_failures: u64,
    /// Frames over `max`.
    pub oversized: u64,
    /// Good frames that could not be gathered into a whole.
    pub ungathered: u64,
}

/// The state of one stream.
#[derive(Debug)]
pub struct Framer {
    spec: FrameSpec,
    /// The bytes not yet decided on.
    held: Vec<u8>,
    gatherer: Option<Gatherer>,
    /// Inside something whose start is not known or that is too long: skip up to the next end.
    skipping: bool,
    /// When the last byte came.
    last_ms: u64,
    tally: Tally,
}

/// What to do with the bytes from here on.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// More bytes are needed to tell.
    Wait,
    /// So many bytes are no frame.
    Skip(usize),
    /// So many bytes are nothing, and no garbage either (an empty line).
    Pass(usize),
    /// A frame of `frame` bytes, and `consumed` with its end.
    Frame { frame: usize, consumed: usize },
}

impl Framer {
    /// A stream that begins now.
    pub fn new(spec: FrameSpec) -> Self {
        let gatherer = spec.gather.map(Gatherer::new);
        // A delimited frame lies between two delimiters: what comes before the first is not known to be whole.
        let skipping = matches!(spec.cut, Cut::Delimiter { .. });
        Framer { spec, held: Vec::new(), gatherer, skipping, last_ms: 0, tally: Tally::default() }
    }

    /// The stream begins in the middle of something: the first line (or delimited frame) may lack its start and is
    /// skipped. Half of `172` must not become a heart rate of 72.
    pub fn begin_in_the_middle(&mut self) {
        self.skipping = self.skipping || matches!(self.spec.cut, Cut::Line { .. } | Cut::Cobs);
    }

    /// What was found beside good frames since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Takes the next bytes, which came at `now_ms`, and appends the frames that they complete.
    pub fn push(&mut self, bytes: &[u8], now_ms: u64, frames: &mut Vec<Bytes>) {
        if bytes.is_empty() {
            return;
        }
        self.forget_after_pause(now_ms);
        self.last_ms = now_ms;
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let rest = &self.held[at..];
            match self.step(rest) {
                Step::Wait => break,
                Step::Pass(n) => {
                    let ends_garbage = std::mem::take(&mut self.skipping);
                    self.tally.garbage_bytes += if ends_garbage { n as u64 } else { 0 };
                    at += n;
                }
                Step::Skip(n) => {
                    self.tally.garbage_bytes += n as u64;
                    at += n;
                }
                Step::Frame { frame, consumed } => at += self.whole(at, frame, consumed, frames),
            }
        }
        self.held.drain(..at);
        self.give_up_on_long();
    }

    /// A pause as long as the frame's timeout ends what was begun.
    fn forget_after_pause(&mut self, now_ms: u64) {
        let Some(timeout) = self.spec.timeout else { return };
        if u128::from(now_ms.saturating_sub(self.last_ms)) < timeout.as_millis() {
            return;
        }
        self.tally.garbage_bytes += self.held.len() as u64;
        self.held.clear();
        self.drop_gathered();
    }

    fn drop_gathered(&mut self) {
        if let Some(gatherer) = &mut self.gatherer {
            self.tally.ungathered += gatherer.drop_held() as u64;
        }
    }

    /// What the bytes from `rest` on are.
    fn step(&self, rest: &[u8]) -> Step {
        if rest.is_empty() {
            return Step::Wait;
        }
        match &self.spec.cut {
            Cut::Line { end } => self.ended(rest, end),
            Cut::Delimiter { delimiter } => self.ended(rest, delimiter),
            Cut::Cobs => self.ended(rest, &[0]),
            Cut::Fixed { length, .. } if rest.len() < *length => Step::Wait,
            Cut::Fixed { length, .. } => Step::Frame { frame: *length, consumed: *length },
            Cut::Header { header, .. } => self.headed(rest, header),
        }
    }

    /// A frame that its end tells.
    fn ended(&self, rest: &[u8], end: &[u8]) -> Step {
        let Some(frame) = find(rest, end) else { return Step::Wait };
        let consumed = frame + end.len();
        match frame {
            0 => Step::Pass(consumed),
            _ => Step::Frame { frame, consumed },
        }
    }

    /// A frame that its header and its length tell.
    fn headed(&self, rest: &[u8], header: &[u8]) -> Step {
        let seen = rest.len().min(header.len());
        if rest[..seen] != header[..seen] {
            return Step::Skip(1);
        }
        match self.spec.whole_length(rest) {
            None => Step::Wait,
            Some(0) => Step::Skip(1),
            Some(whole) if rest.len() < whole => Step::Wait,
            Some(whole) => Step::Frame { frame: whole, consumed: whole },
        }
    }

    /// Judges the frame at `at` and returns how many bytes are done with.
    fn whole(&mut self, at: usize, frame: usize, consumed: usize, frames: &mut Vec<Bytes>) -> usize {
        let slides = matches!(self.spec.cut, Cut::Fixed { .. } | Cut::Header { .. });
        if std::mem::take(&mut self.skipping) {
            self.tally.garbage_bytes += consumed as u64;
            return consumed;
        }
        if consumed > self.spec.max {
            self.tally.oversized += 1;
            self.tally.garbage_bytes += consumed as u64;
            return consumed;
        }
        let Some(content) = content(&self.spec.cut, &self.held[at..at + frame]) else {
            self.tally.garbage_bytes += consumed as u64;
            self.drop_gathered();
            return consumed;
        };
        if content.is_empty() {
            return consumed;
        }
        if let Err(fault) = self.spec.check(&content) {
            self.tally.checksum_failures += u64::from(fault.what == "checksum");
            let skipped = if slides { 1 } else { consumed };
            self.tally.garbage_bytes += skipped as u64;
            self.drop_gathered();
            return skipped;
        }
        let unpacked = self.spec.unpack(&content);
        match &mut self.gatherer {
            None => frames.push(Bytes::copy_from_slice(&unpacked)),
            Some(gatherer) => match gatherer.push(&unpacked) {
                Gathered::Waiting { dropped } => self.tally.ungathered += dropped as u64,
                Gathered::Whole(whole) => frames.push(whole.into()),
            },
        }
        consumed
    }

    /// What is held and has no end within `max` cannot become a frame: keep only what may be part of its end.
    fn give_up_on_long(&mut self) {
        let end = match &self.spec.cut {
            Cut::Line { end } => end.len(),
            Cut::Delimiter { delimiter } => delimiter.len(),
            Cut::Cobs => 1,
            Cut::Fixed { .. } | Cut::Header { .. } => return,
        };
        if !self.skipping {
            if self.held.len() < self.spec.max {
                return;
            }
            self.skipping = true;
            self.tally.oversized += 1;
        }
        let done = self.held.len().saturating_sub(end.saturating_sub(1));
        self.tally.garbage_bytes += done as u64;
        self.held.drain(..done);
    }
}

/// A frame without what its transport added; `None` when that is broken.
fn content<'f>(cut: &Cut, frame: &'f [u8]) -> Option<Cow<'f, [u8]>> {
    match cut {
        Cut::Line { .. } => Some(Cow::Borrowed(frame.strip_suffix(b"\r").unwrap_or(frame))),
        Cut::Cobs => unstuff(frame).map(Cow::Owned),
        Cut::Fixed { .. } | Cut::Delimiter { .. } | Cut::Header { .. } => Some(Cow::Borrowed(frame)),
    }
}

/// Where `end` begins in `bytes`.
fn find(bytes: &[u8], end: &[u8]) -> Option<usize> {
    match end {
        [] => None,
        [byte] => bytes.iter().position(|found| found == byte),
        _ => bytes.windows(end.len()).position(|window| window == end),
    }
}

/// Undoes consistent overhead byte stuffing; `None` when a count leads past the end.
fn unstuff(frame: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(frame.len());
    let mut rest = frame;
    while let Some((&code, after)) = rest.split_first() {
        let (block, tail) = after.split_at_checked(usize::from(code).checked_sub(1)?)?;
        plain.extend_from_slice(block);
        if code != 0xff && !tail.is_empty() {
            plain.push(0);
        }
        rest = tail;
    }
    Some(plain)
}
