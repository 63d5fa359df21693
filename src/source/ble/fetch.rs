//! Stored records of one link: the [`Transfer`] with its clock and its receipts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::interpret::link::RecordsSpec;
use crate::source::ble::records::{Do, Happened, QUIET, Transfer};

/// A meter whose records were fetched is left alone for so long: it would only say that there are none.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

/// The fetching of one link's stored records.
pub(super) struct Fetch {
    transfer: Transfer,
    control: Arc<str>,
    to_write: Option<Vec<u8>>,
    /// Without a word until then it is over.
    quiet_at: Instant,
    durable: usize,
    end: Option<End>,
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// All came, and what was to be erased is. The highest sequence number, for the next time.
    Complete(Option<u16>),
    /// What came is kept, nothing is erased.
    Early(String),
}

impl Fetch {
    /// Asks for the records from `after` on.
    pub(super) fn begin(now: Instant, spec: &RecordsSpec, after: Option<u16>) -> Self {
        let mut fetch = Fetch {
            transfer: Transfer::new(spec.erase, spec.sequence_at, after),
            control: spec.control.clone(),
            to_write: None,
            quiet_at: now + QUIET,
            durable: 0,
            end: None,
        };
        fetch.tell(Happened::Started);
        fetch
    }

    /// Whether this is the characteristic through which records are asked for.
    pub(super) fn is_control(&self, channel: &str) -> bool {
        *self.control == *channel
    }

    /// The control point's characteristic.
    pub(super) fn control(&self) -> &Arc<str> {
        &self.control
    }

    /// The control point answered.
    pub(super) fn answered(&mut self, now: Instant, bytes: &[u8]) {
        self.quiet_at = now + QUIET;
        self.tell(Happened::Control(bytes));
    }

    /// A record came.
    pub(super) fn record(&mut self, now: Instant, bytes: &[u8]) {
        self.quiet_at = now + QUIET;
        self.tell(Happened::Record(bytes));
    }

    /// One more record is durable.
    pub(super) fn durable(&mut self) {
        self.durable += 1;
        self.tell(Happened::Durable { records: self.durable });
    }

    /// When [`Fetch::time`] has something to say.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.end.is_none().then_some(self.quiet_at)
    }

    /// Nothing but time.
    pub(super) fn time(&mut self, now: Instant) {
        if self.end.is_none() && now >= self.quiet_at {
            self.quiet_at = now + QUIET;
            self.tell(Happened::Quiet);
        }
    }

    /// What is to be written to the control point, once.
    pub(super) fn take_write(&mut self) -> Option<Vec<u8>> {
        self.to_write.take()
    }

    /// How it ended, once it has.
    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    fn tell(&mut self, happened: Happened<'_>) {
        match self.transfer.tell(happened) {
            None => {}
            Some(Do::Write(bytes)) => self.to_write = Some(bytes),
            Some(Do::Done) => self.end = Some(End::Complete(self.transfer.highest())),
            Some(Do::Failed(why)) => self.end = Some(End::Early(why)),
        }
    }
}
