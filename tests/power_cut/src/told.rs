//! What a writer tells the driver: each line is answered before the writer goes on, so that the driver's position in
//! the log is the one at which it was said.

use std::fmt;
use std::io::{self, Write};

use anyhow::{Context, bail};

/// One line of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// Everything up to here is acknowledged. A birth lies before it.
    Committed { last: u64, aside: u64, birth: bool },
    /// This range is in hand, and must stay so until it is settled.
    InHand { first: u64, last: u64 },
    /// The cursor may move past this one from now on.
    Settling { last: u64 },
    /// A round is over. A death may lie before it.
    Went { death: bool },
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Committed { last, aside, birth } => write!(f, "committed {last} {aside} {birth}"),
            Said::InHand { first, last } => write!(f, "in-hand {first} {last}"),
            Said::Settling { last } => write!(f, "settling {last}"),
            Said::Went { death } => write!(f, "went {death}"),
        }
    }
}

impl Said {
    pub(crate) fn read(line: &str) -> anyhow::Result<Said> {
        let said = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["committed", last, aside, birth] => {
                Said::Committed { last: last.parse()?, aside: aside.parse()?, birth: birth.parse()? }
            }
            ["in-hand", first, last] => Said::InHand { first: first.parse()?, last: last.parse()? },
            ["settling", last] => Said::Settling { last: last.parse()? },
            ["went", death] => Said::Went { death: death.parse()? },
            _ => bail!("a writer said {line:?}"),
        };
        Ok(said)
    }
}

/// Says a line and waits for the answer.
pub(crate) fn tell(said: Said) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{said}")?;
    out.flush()?;
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer).context("waiting for the driver")?;
    if read == 0 { bail!("the driver is gone") } else { Ok(()) }
}

/// Everything that was said up to a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    /// The last that was acknowledged.
    pub(crate) last: u64,
    /// How many set aside were acknowledged.
    pub(crate) aside: u64,
    /// The last that may be counted as delivered.
    pub(crate) settling: u64,
    /// First and last of the range in hand; 0 and 0 where it is being settled or there is none.
    pub(crate) in_hand: (u64, u64),
}

impl Told {
    pub(crate) fn hear(&mut self, said: Said) {
        match said {
            Said::Committed { last, aside, .. } => (self.last, self.aside) = (last, aside),
            Said::InHand { first, last } => self.in_hand = (first, last),
            Said::Settling { last } => (self.settling, self.in_hand) = (last, (0, 0)),
            Said::Went { .. } => {}
        }
    }
}

/// What a checker found of what was acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Neither there nor delivered.
    pub(crate) lost: u64,
    /// Read and compared; the rest was delivered before.
    pub(crate) there: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lost {} there {}", self.lost, self.there)
    }
}

impl Outcome {
    pub(crate) fn read(line: &str) -> anyhow::Result<Outcome> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["lost", lost, "there", there] => Ok(Outcome { lost: lost.parse()?, there: there.parse()? }),
            _ => bail!("a checker said {line:?}"),
        }
    }
}
