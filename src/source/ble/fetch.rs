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
    /// Receipts that are still to come of an earlier link's records.
    earlier: usize,
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
    /// Asks for the records from `after` on. The next `earlier` receipts are of records of an earlier link.
    pub(super) fn begin(now: Instant, spec: &RecordsSpec, after: Option<u16>, earlier: usize) -> Self {
        let mut fetch = Fetch {
            transfer: Transfer::new(spec.erase, spec.sequence_at, after),
            control: spec.control.clone(),
            to_write: None,
            quiet_at: now + QUIET,
            earlier,
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

    /// One more record is durable. They become so in the order in which they came.
    pub(super) fn durable(&mut self, now: Instant) {
        self.quiet_at = now + QUIET;
        if self.earlier > 0 {
            self.earlier -= 1;
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &[u8] = &[6, 0, 1, 1];
    const ERASED: &[u8] = &[6, 0, 2, 1];

    fn begun(now: Instant, earlier: usize) -> Fetch {
        let spec = RecordsSpec { control: "2a52".into(), erase: true, sequence_at: Some(1) };
        let mut fetch = Fetch::begin(now, &spec, None, earlier);
        assert_eq!((fetch.take_write(), fetch.take_write()), (Some(vec![1, 1]), None));
        fetch
    }

    #[test]
    fn it_asks_to_erase_after_the_last_receipt_and_is_complete_after_the_answer() {
        let now = Instant::now();
        let mut fetch = begun(now, 0);
        fetch.record(now, &[0, 7, 0]);
        fetch.record(now, &[0, 8, 0]);
        fetch.answered(now, SENT);
        fetch.durable(now);
        assert_eq!((fetch.take_write(), fetch.end()), (None, None));
        fetch.durable(now);
        assert_eq!((fetch.take_write(), fetch.end()), (Some(vec![2, 2, 1, 8, 0]), None));
        fetch.answered(now, ERASED);
        assert_eq!((fetch.end(), fetch.next_at()), (Some(&End::Complete(Some(8))), None));
    }

    #[test]
    fn receipts_of_an_earlier_link_say_nothing_of_this_one() {
        let now = Instant::now();
        let mut fetch = begun(now, 2);
        fetch.record(now, &[0, 7, 0]);
        fetch.answered(now, SENT);
        fetch.durable(now);
        fetch.durable(now);
        assert_eq!((fetch.take_write(), fetch.end()), (None, None));
        fetch.durable(now);
        assert_eq!(fetch.take_write(), Some(vec![2, 2, 1, 7, 0]));
    }

    #[test]
    fn a_slow_disk_is_waited_for_as_long_as_it_gets_on() {
        let start = Instant::now();
        let mut fetch = begun(start, 0);
        (0..4u8).for_each(|number| fetch.record(start, &[0, number, 0]));
        fetch.answered(start, SENT);
        for minute_third in 1..=3 {
            let now = start + Duration::from_secs(20 * minute_third);
            fetch.time(now);
            fetch.durable(now);
            assert_eq!(fetch.end(), None);
        }
        fetch.time(start + Duration::from_secs(89));
        assert_eq!(fetch.end(), None);
        fetch.time(fetch.next_at().unwrap());
        assert!(matches!(fetch.end(), Some(End::Early(_))) && fetch.take_write().is_none());
    }
}
