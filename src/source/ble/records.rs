//! PURE Stored measurements: what is asked of a record access control point (2A52), and when records may be erased.
//!
//! One [`Transfer`] is one link: the records after those that are known are asked for, come as notifications of another
//! characteristic, and a response ends them. The hub asks to erase only what every record of a complete transfer is
//! durable of; whatever was cut off is read again next time, and doubles are known by their sequence number.
//!
//! After Bluetooth SIG, Glucose Service 1.0, section 3.4: `op code, operator, operand`; op codes 1 report, 2 delete,
//! 5 number of records, 6 response; operators 0 none, 1 all, 2 at most, 3 at least; filter 1 is the sequence number.

use std::time::Duration;

const REPORT: u8 = 1;
const DELETE: u8 = 2;
const NUMBER: u8 = 5;
const RESPONSE: u8 = 6;
const NONE: u8 = 0;
const ALL: u8 = 1;
const AT_MOST: u8 = 2;
const AT_LEAST: u8 = 3;
const SEQUENCE: u8 = 1;
const SUCCESS: u8 = 1;
const NO_RECORDS: u8 = 6;

/// Without a record or a response for so long, the driver tells [`Happened::Quiet`].
pub const QUIET: Duration = Duration::from_secs(30);

/// Sequence numbers have two bytes and begin again; a gap wider than half of them is a new beginning.
const HALF: u16 = u16::MAX / 2;

/// From here on all records are asked for: those after the wrap have low numbers and would not be found.
const NEAR_WRAP: u16 = 0xF000;

/// What the driver tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened<'a> {
    /// Both characteristics are subscribed to.
    Started,
    /// One stored record came.
    Record(&'a [u8]),
    /// The control point said something.
    Control(&'a [u8]),
    /// So many records of this transfer are in the store for good, in all.
    Durable {
        /// How many.
        records: usize,
    },
    /// Neither came for [`QUIET`].
    Quiet,
}

/// What the driver does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    /// Write this to the control point.
    Write(Vec<u8>),
    /// The transfer is complete, and what was to be erased is.
    Done,
    /// The transfer ended early; what came is kept and nothing more is erased.
    Failed(String),
}

/// One transfer over one link.
#[derive(Debug)]
pub struct Transfer {
    erase: Erase,
    sequence_at: Option<usize>,
    after: Option<u16>,
    state: State,
    received: usize,
    durable: usize,
    sequences: Sequences,
}

/// What becomes of records in the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Erase {
    Keep,
    OnceDurable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotStarted,
    /// Asked for records.
    Reports,
    /// All came; some are not durable.
    Settles,
    /// Asked to erase.
    Erases,
    Over,
}

/// What is known of the sequence numbers of the records that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sequences {
    NoneYet,
    /// From first to highest without a new beginning.
    Ordered {
        first: u16,
        highest: u16,
    },
    /// They wrapped, or a record was too short to hold one: "at most" would hit others than those received.
    Unclear,
}

impl Transfer {
    /// `sequence_at` is where a record holds its sequence number, two bytes, low one first; `after` is the highest one
    /// that is already durable in this process.
    pub fn new(erase: bool, sequence_at: Option<usize>, after: Option<u16>) -> Self {
        Transfer {
            erase: if erase { Erase::OnceDurable } else { Erase::Keep },
            sequence_at,
            after: after.filter(|after| sequence_at.is_some() && *after < NEAR_WRAP),
            state: State::NotStarted,
            received: 0,
            durable: 0,
            sequences: Sequences::NoneYet,
        }
    }

    /// Something happened; returns what to do, if anything.
    pub fn tell(&mut self, happened: Happened<'_>) -> Option<Do> {
        match (self.state, happened) {
            (State::NotStarted, Happened::Started) => {
                self.state = State::Reports;
                Some(Do::Write(self.request()))
            }
            (State::Reports | State::Settles | State::Erases, Happened::Record(bytes)) => {
                self.received = self.received.saturating_add(1);
                self.sequences = self.sequences.with(self.sequence(bytes));
                // A record after the end of its transfer makes the end untrue.
                match self.state {
                    State::Reports => None,
                    _ => Some(self.fail("a record came after the end of the transfer")),
                }
            }
            (State::Reports | State::Erases, Happened::Control(bytes)) => self.control(bytes),
            (State::Reports | State::Settles, Happened::Durable { records }) => {
                self.durable = self.durable.max(records);
                if self.state == State::Settles { self.settle() } else { None }
            }
            (State::Reports, Happened::Quiet) => Some(self.fail("no record and no response for 30 s")),
            (State::Settles, Happened::Quiet) => Some(self.fail("the records are not durable after 30 s")),
            (State::Erases, Happened::Quiet) => Some(self.fail("no response to the request to erase for 30 s")),
            _ => None,
        }
    }

    /// How many records came.
    pub fn received(&self) -> usize {
        self.received
    }

    /// The highest sequence number that came, for the next transfer's `after` once all are durable; unknown after a wrap.
    pub fn highest(&self) -> Option<u16> {
        match self.sequences {
            Sequences::Ordered { highest, .. } => Some(highest),
            Sequences::NoneYet | Sequences::Unclear => None,
        }
    }

    /// Records at and above a number can be asked for, not above it: the known last one comes once more.
    fn request(&self) -> Vec<u8> {
        match self.after {
            None => vec![REPORT, ALL],
            Some(after) => with_sequence(REPORT, AT_LEAST, after),
        }
    }

    fn sequence(&self, record: &[u8]) -> Option<u16> {
        let at = self.sequence_at?;
        let bytes = record.get(at..at.checked_add(2)?)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    }

    fn control(&mut self, bytes: &[u8]) -> Option<Do> {
        let (asked, code) = match *bytes {
            [RESPONSE, NONE, asked, code] => (asked, code),
            // The number of records was not asked for and does not end anything; nor does what nobody knows.
            [NUMBER, NONE, _, _] => return None,
            _ => return None,
        };
        match (self.state, asked, code) {
            (State::Reports, REPORT, SUCCESS) => {
                self.state = State::Settles;
                self.settle()
            }
            (State::Reports, REPORT, NO_RECORDS) if self.received == 0 => Some(self.nothing_found()),
            (State::Erases, DELETE, SUCCESS | NO_RECORDS) => Some(self.done()),
            (State::Reports, REPORT, code) => Some(self.fail(&format!("asked for records, it says {}", meaning(code)))),
            (State::Erases, DELETE, code) => Some(self.fail(&format!("asked to erase, it says {}", meaning(code)))),
            _ => None,
        }
    }

    /// Nothing from the known number on: all was erased, or the numbers began again below it. Asking for all tells.
    fn nothing_found(&mut self) -> Do {
        if self.after.take().is_some() { Do::Write(self.request()) } else { self.done() }
    }

    fn settle(&mut self) -> Option<Do> {
        if self.durable < self.received {
            return None;
        }
        match (self.erase, self.sequences) {
            (Erase::OnceDurable, Sequences::Ordered { first, highest }) if self.after.is_none_or(|a| a <= first) => {
                self.state = State::Erases;
                Some(Do::Write(with_sequence(DELETE, AT_MOST, highest)))
            }
            _ => Some(self.done()),
        }
    }

    fn done(&mut self) -> Do {
        self.state = State::Over;
        Do::Done
    }

    fn fail(&mut self, why: &str) -> Do {
        self.state = State::Over;
        Do::Failed(why.to_owned())
    }
}

impl Sequences {
    fn with(self, sequence: Option<u16>) -> Self {
        match (self, sequence) {
            (Sequences::NoneYet, Some(first)) => Sequences::Ordered { first, highest: first },
            (Sequences::Ordered { first, highest }, Some(next))
                if next >= highest && next - highest <= HALF && next - first <= HALF =>
            {
                Sequences::Ordered { first, highest: next }
            }
            // Lower than one before: begun again, or a device without order. Both are reason enough to erase nothing.
            _ => Sequences::Unclear,
        }
    }
}

fn with_sequence(op: u8, operator: u8, sequence: u16) -> Vec<u8> {
    let [low, high] = sequence.to_le_bytes();
    vec![op, operator, SEQUENCE, low, high]
}

fn meaning(code: u8) -> String {
    match code {
        2 => "that it does not know the request".to_owned(),
        3 => "that the operator is invalid".to_owned(),
        4 => "that it does not know the operator".to_owned(),
        5 => "that the operand is invalid".to_owned(),
        6 => "that it has no records, after it sent some".to_owned(),
        7 => "that the transfer was aborted".to_owned(),
        8 => "that it could not complete it".to_owned(),
        9 => "that it does not know the operand".to_owned(),
        other => format!("code {other}"),
    }
}

#[cfg(test)]
mod tests;
