//! The handle: what the other rooms hold of the store.

use std::collections::{HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::queue::{Queue, Waiter};
use super::thread::{self, Request, Turned};
use super::view::Shared;
use super::{
    AsideEntry, AsideFrom, AsidePage, AsidePlace, Chunk, Chunks, Commit, CutLimit, Error, Gap, Ledger, Range, SaidSum,
    Sequence, Settings, Settled, Stat, StateChange, Verified,
};
use crate::reading::{BootId, RunId};
use crate::report::{Kind, Report};

/// Requests that may wait for the store thread.
const CAPACITY: usize = 64;
/// A commit that is not durable by then never will be: the disk is taken for dead.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of entries set aside that one listing holds.
const MAX_LISTED_BYTES: usize = 32 << 20;
/// How often a request that found no room asks again.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(500);

/// A handle; clones share the one store thread.
#[derive(Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

impl Store {
    /// Opens or makes the store. Never refuses because of damage; see the module's prose for the refusals.
    ///
    /// It blocks: a healthy store opens in milliseconds, a damaged one in seconds.
    pub fn open(settings: &Settings, run: RunId, _boot: BootId, destinations: &[String]) -> Result<Store, Error> {
        let shared = Arc::new(Shared::default());
        let queue = Queue::open(settings, run, destinations, shared.clone())?;
        let (requests, receiver) = mpsc::channel(CAPACITY);
        let spawned = std::thread::Builder::new().name("store".to_owned()).spawn(move || thread::run(queue, receiver));
        spawned.map_err(|error| Error::fatal("starting the store thread", error))?;
        Ok(Store { requests, shared })
    }

    /// Makes the commit durable; after `Ok` its receipts may be given. Returns the sequences of its observations.
    ///
    /// While there is no room it waits, and [`Stat::unhealthy`] says so. Not cancel-safe: a dropped call may or may not
    /// have committed.
    pub async fn commit(&self, commit: Commit) -> Result<Option<RangeInclusive<Sequence>>, Error> {
        self.until_there_is_room("committing", Box::new(commit), Request::Commit).await
    }

    /// State keys that begin with `prefix` and their values, as of the last durable commit.
    pub fn state(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let view = self.shared.read();
        let from = view.keys.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        let fitting = from.take_while(|(key, _)| key.starts_with(prefix));
        fitting.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The range that was in hand when the process ended, or is in hand now.
    pub fn in_hand(&self, destination: &str) -> Option<Range> {
        self.shared.read().ranges.get(destination).cloned()
    }

    /// Waits until observations wait for this destination, cuts a range and makes it durable (at once, or, when nothing
    /// waits yet, in the same record as the commit that brings the next chunk).
    ///
    /// While a range is in hand it is that one, as it was cut. Cancel-safe: a dropped call cuts nothing that the next
    /// call does not return.
    pub async fn next_range(
        &self,
        destination: &str,
        anchors: u64,
        basis: u64,
        limit: CutLimit,
    ) -> Result<Range, Error> {
        loop {
            let (reply, answer) = oneshot::channel();
            let waiter = Waiter { destination: destination.to_owned(), anchors, basis, limit, reply };
            self.send(Request::NextRange(waiter)).await?;
            match self.wait(answer).await {
                // Not even the range's own record has room.
                Err(Error::Full { .. }) => tokio::time::sleep(LOOK_FOR_ROOM).await,
                other => return other,
            }
        }
    }

    /// The range's chunks in order; chunks that are damaged are left out (count them: `range.count()` minus what came).
    pub async fn read(&self, range: &Range) -> Result<Chunks, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Read(range.clone(), reply)).await?;
        self.wait(answer).await
    }

    /// Moves the cursor past the range, which is the one in hand or its front; the rest stays in hand. Durable with the
    /// next record (`next_range`, `commit` or `close`); entries set aside are durable at once.
    pub async fn settle(&self, destination: &str, range: &Range, settled: Settled) -> Result<(), Error> {
        self.settle_then(destination, range, settled, None).await.map(|_| ())
    }

    /// The same, and puts `next`, which [`Store::ahead`] gave, in hand with the same record. `true`: it is in hand, and
    /// durable. `false`: it was not given, is gone, or its record has no room; [`Store::next_range`] cuts anew.
    pub async fn settle_then(
        &self,
        destination: &str,
        range: &Range,
        settled: Settled,
        next: Option<&Range>,
    ) -> Result<bool, Error> {
        let request =
            |settled, reply| Request::Settle(destination.to_owned(), range.clone(), next.cloned(), settled, reply);
        self.until_there_is_room("settling", settled, request).await
    }

    /// Puts `next`, which [`Store::ahead`] gave for the range in hand, in hand with it: both are one range from then on,
    /// at once durable. `false`: they cannot be one, or its record has no room; nothing changed.
    pub async fn extend(&self, destination: &str, next: &Range) -> Result<bool, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Extend(destination.to_owned(), next.clone(), reply)).await?;
        self.within_deadline("putting a range in hand", self.wait(answer)).await
    }

    /// The range that would follow this one, under the same versions, and its chunks as [`Store::read`] gives them; `None`
    /// where nothing waits behind it. Nothing is cut: until it is in hand it may be evicted, and it must not be sent.
    pub async fn ahead(&self, range: &Range, limit: CutLimit) -> Result<Option<(Range, Chunks)>, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Ahead(range.clone(), limit, reply)).await?;
        self.wait(answer).await
    }

    /// Makes one state key durable, also while the queue is full; waits only for a disk without any room.
    ///
    /// Not cancel-safe: a dropped call may or may not have changed the key.
    pub async fn note(&self, change: StateChange) -> Result<(), Error> {
        self.until_there_is_room("noting a state", change, Request::Note).await
    }

    /// Observations that are still to be settled for this destination.
    pub fn waiting(&self, destination: &str) -> u64 {
        let view = self.shared.read();
        let tally = view.ledger.destinations.iter().find(|(name, _)| name == destination);
        tally.map_or(0, |(_, tally)| tally.waiting)
    }

    /// All counts.
    pub fn ledger(&self) -> Ledger {
        self.shared.read().ledger.clone()
    }

    /// Entries set aside, newest last, at most `limit`, and no more than the newest of 32 MiB. Each is there once.
    pub async fn aside(&self, limit: usize) -> Result<Vec<AsideEntry>, Error> {
        let mut newest = VecDeque::new();
        let (mut bytes, mut seen) = (0, HashSet::new());
        let mut from = Some(AsideFrom::default());
        while let Some(at) = from {
            let page = self.aside_page(at).await?;
            for (_, entry) in page.entries {
                if entry.destination.is_some() && !seen.insert(entry.id()) {
                    continue;
                }
                bytes += entry.bytes.len();
                newest.push_back(entry);
                while newest.len() > limit || bytes > MAX_LISTED_BYTES {
                    bytes -= newest.pop_front().map_or(bytes, |oldest: AsideEntry| oldest.bytes.len());
                }
            }
            from = page.next;
        }
        Ok(newest.into())
    }

    /// Some entries set aside, oldest first.
    pub async fn aside_page(&self, from: AsideFrom) -> Result<AsidePage, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::ReadAside(from, reply)).await?;
        self.wait(answer).await
    }

    /// Removes entries set aside for good, at once durable; says how many there were.
    pub async fn drop_aside(&self, places: Vec<AsidePlace>) -> Result<u64, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::DropAside(places, reply)).await?;
        self.wait(answer).await
    }

    /// How the store is.
    pub fn stat(&self) -> Stat {
        self.shared.read().stat.clone()
    }

    /// Why the store can do nothing more, once that is so.
    pub fn failure(&self) -> Option<Error> {
        self.shared.read().dead.clone()
    }

    /// Observations that left without reaching every destination, each with a number for [`Store::forget_gaps`].
    pub fn gaps(&self) -> Vec<(u64, Gap)> {
        self.shared.read().gaps.clone()
    }

    /// Drops the gaps up to this number, once they were reported. Durable with the next record.
    pub async fn forget_gaps(&self, through: u64) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::ForgetGaps(through, reply)).await?;
        self.wait(answer).await
    }

    /// Makes rows beside the events durable; every destination that is configured now gets them, at least once and in the
    /// order of their kind. [`Error::Full`]: none was stored, since the disk is nearly full and events come first.
    pub async fn report(&self, reports: Vec<Report>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Report(reports, reply)).await?;
        self.wait(answer).await
    }

    /// The oldest reports of this kind that the destination has not got: at least one where one waits, not many more
    /// bytes than the limit. Give the number to [`Store::reports_done`] once it has them.
    pub async fn reports(
        &self,
        destination: &str,
        kind: Kind,
        limit_bytes: usize,
    ) -> Result<(u64, Vec<Report>), Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Reports(destination.to_owned(), kind, limit_bytes, reply)).await?;
        self.wait(answer).await
    }

    /// Changes whenever there are new reports.
    pub fn report_news(&self) -> watch::Receiver<u64> {
        self.shared.report_news()
    }

    /// Moves the destination's cursor past reports that it has. Durable with the next record.
    pub async fn reports_done(&self, destination: &str, kind: Kind, through: u64) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::ReportsDone(destination.to_owned(), kind, through, reply)).await?;
        self.wait(answer).await
    }

    /// What the destination has, per device and hour, where that changed since it was said and is quiet for so long.
    pub async fn sums_due(&self, destination: &str, quiet: Duration) -> Result<Vec<SaidSum>, Error> {
        let (reply, answer) = oneshot::channel();
        let quiet_ms = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        self.send(Request::SumsDue(destination.to_owned(), quiet_ms, reply)).await?;
        self.wait(answer).await
    }

    /// The destination was told. Durable with the next record.
    pub async fn sums_said(&self, destination: &str, said: Vec<SaidSum>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::SumsSaid(destination.to_owned(), said, reply)).await?;
        self.wait(answer).await
    }

    /// The boots that observations still kept were heard in: their clock anchors are needed.
    pub fn boots_needed(&self) -> Vec<BootId> {
        self.shared.read().boots.clone()
    }

    /// Reads every record and says what does not fit.
    pub async fn verify(&self) -> Result<Verified, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Verify(reply)).await?;
        self.wait(answer).await
    }

    /// Chunks with sequences after `after`, oldest first, at most `limit` of them.
    pub async fn export(&self, after: Sequence, limit: usize) -> Result<Vec<Chunk>, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Export(after, limit, reply)).await?;
        self.wait(answer).await
    }

    /// Makes all pending settlements durable and closes, within 10 s. Other handles answer [`Error::Closed`] from now on.
    pub async fn close(self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            self.send(Request::Close(reply)).await?;
            self.wait(answer).await
        };
        self.within_deadline("closing the store", ask).await
    }

    /// Asks again and again with a request that comes back when there is no room for it. Each asking has a deadline.
    async fn until_there_is_room<T, R>(
        &self,
        doing: &'static str,
        mut request: T,
        ask: impl Fn(T, oneshot::Sender<Result<R, Turned<T>>>) -> Request,
    ) -> Result<R, Error> {
        loop {
            let (reply, answer) = oneshot::channel();
            let answered = async {
                self.send(ask(request, reply)).await?;
                Ok(answer.await.unwrap_or_else(|_| Err(Turned::Failed(self.cause()))))
            };
            match self.within_deadline(doing, answered).await? {
                Ok(done) => return Ok(done),
                Err(Turned::Failed(error)) => return Err(error),
                Err(Turned::NoRoom(back)) => request = back,
            }
            tokio::time::sleep(LOOK_FOR_ROOM).await;
        }
    }

    async fn send(&self, request: Request) -> Result<(), Error> {
        self.requests.send(request).await.map_err(|_| self.cause())
    }

    async fn wait<T>(&self, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        answer.await.unwrap_or_else(|_| Err(self.cause()))
    }

    /// Why the store thread answers no more.
    fn cause(&self) -> Error {
        let dead = self.shared.read().dead.clone();
        dead.unwrap_or_else(|| Error::fatal("asking the store", "its thread ended"))
    }

    async fn within_deadline<T>(
        &self,
        doing: &'static str,
        ask: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(DEADLINE, ask).await {
            Ok(result) => result,
            Err(_) => {
                let error = Error::fatal(doing, format!("no answer within {} s", DEADLINE.as_secs()));
                self.shared.write().dead = Some(error.clone());
                Err(error)
            }
        }
    }
}
