//! The store thread: it owns the queue and serves one request after another.

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::generation::said;
use super::queue::{Queue, Waiter};
use super::view::Shared;
use super::{
    AsideFrom, AsidePage, AsidePlace, Chunk, Chunks, Commit, CutLimit, Error, Range, SaidSum, Sequence, Settled,
    StateChange, Verified,
};
use crate::report::{Kind, Report};

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A request that was not carried out.
pub(super) enum Turned<T> {
    /// There is no room now: here it is back, untouched.
    NoRoom(T),
    /// It failed.
    Failed(Error),
}

/// A request that comes back when there is no room for it.
type Returning<T, R> = oneshot::Sender<Result<R, Turned<T>>>;

/// What the handles ask of the thread.
pub(super) enum Request {
    Commit(Box<Commit>, Returning<Box<Commit>, Option<RangeInclusive<Sequence>>>),
    NextRange(Waiter),
    Read(Range, Reply<Chunks>),
    Ahead(Range, CutLimit, Reply<Option<(Range, Chunks)>>),
    Extend(String, Range, Reply<bool>),
    Settle(String, Range, Option<Range>, Settled, Returning<Settled, bool>),
    Note(StateChange, Returning<StateChange, ()>),
    ReadAside(AsideFrom, Reply<AsidePage>),
    DropAside(Vec<AsidePlace>, Reply<u64>),
    ForgetGaps(u64, Reply<()>),
    Report(Vec<Report>, Reply<()>),
    Reports(String, Kind, usize, Reply<(u64, Vec<Report>)>),
    ReportsDone(String, Kind, u64, Reply<()>),
    SumsDue(String, u64, Reply<Vec<SaidSum>>),
    SumsSaid(String, Vec<SaidSum>, Reply<()>),
    Verify(Reply<Verified>),
    Export(Sequence, usize, Reply<Vec<Chunk>>),
    Close(Reply<()>),
}

/// Serves requests until the last handle goes, `Close` comes, or the store fails.
pub(super) fn run(mut queue: Queue, mut requests: mpsc::Receiver<Request>) {
    let shared = queue.shared.clone();
    while let Some(request) = requests.blocking_recv() {
        if let Request::Close(reply) = request {
            let end = close(queue);
            shared.write().dead = Some(Error::Closed);
            drop(reply.send(end));
            return refuse_all(requests, &Error::Closed);
        }
        let served = catch_unwind(AssertUnwindSafe(|| serve(&mut queue, request)));
        let failed = match served {
            Ok(None) => continue,
            Ok(Some(error)) => error,
            Err(panic) => Error::fatal("serving a request", format!("it panicked: {}", said(&panic))),
        };
        tracing::error!(error = %failed, "the store failed");
        die(&shared, &failed);
        for (reply, _) in queue.ranged.drain(..) {
            drop(reply.send(Err(failed.clone())));
        }
        for waiter in queue.waiters.drain(..) {
            drop(waiter.reply.send(Err(failed.clone())));
        }
        queue.forget();
        return refuse_all(requests, &failed);
    }
    // Every handle went without closing: what was acknowledged is durable, the rest was promised to nobody.
    drop(close(queue));
}

fn die(shared: &Arc<Shared>, error: &Error) {
    let mut view = shared.write();
    view.stat.unhealthy = Some(error.to_string());
    view.dead = Some(error.clone());
}

/// Answers one request. An error that ends the store is given to the asker and returned.
fn serve(queue: &mut Queue, request: Request) -> Option<Error> {
    match request {
        Request::Commit(commit, reply) => match queue.has_room_for(&commit) {
            Ok(true) => answer_or_turn(reply, queue.commit(*commit)),
            Ok(false) => turn_back(reply, commit),
            Err(error) => answer_or_turn(reply, Err(error)),
        },
        Request::NextRange(waiter) => queue.next_range(waiter).err(),
        Request::Read(range, reply) => answer(reply, queue.read(&range)),
        Request::Ahead(range, limit, reply) => answer(reply, queue.ahead(&range, limit)),
        Request::Extend(name, next, reply) => answer(reply, queue.extend(&name, &next)),
        Request::Settle(name, range, next, settled, reply) => match settled.aside.is_empty() || queue.has_reserve() {
            true => answer_or_turn(reply, queue.settle(&name, &range, settled, next)),
            false => turn_back(reply, settled),
        },
        Request::Note(change, reply) => match queue.free_reserve().map(|()| queue.has_reserve()) {
            Ok(true) => answer_or_turn(reply, queue.note(change)),
            Ok(false) => turn_back(reply, change),
            Err(error) => answer_or_turn(reply, Err(error)),
        },
        Request::ReadAside(from, reply) => answer(reply, queue.read_aside(from)),
        Request::DropAside(places, reply) => answer(reply, queue.drop_aside(&places)),
        Request::ForgetGaps(through, reply) => {
            queue.own.forget_gaps(through);
            queue.publish();
            answer(reply, Ok(()))
        }
        Request::Report(reports, reply) => answer(reply, queue.put_reports(&reports)),
        Request::Reports(name, kind, limit, reply) => answer(reply, queue.reports_for(&name, kind, limit)),
        Request::ReportsDone(name, kind, through, reply) => {
            queue.reports_done(&name, kind, through);
            answer(reply, Ok(()))
        }
        Request::SumsDue(name, quiet_ms, reply) => answer(reply, Ok(queue.sums_due(&name, quiet_ms))),
        Request::SumsSaid(name, said, reply) => {
            queue.sums_said(&name, &said);
            answer(reply, Ok(()))
        }
        Request::Verify(reply) => answer(reply, queue.verify()),
        Request::Export(after, limit, reply) => answer(reply, queue.export(after, limit)),
        // Taken by the caller, which owns the queue.
        Request::Close(reply) => answer(reply, Err(Error::Closed)),
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, Error>) -> Option<Error> {
    let failed = result.as_ref().err().filter(|error| error.is_fatal()).cloned();
    // The asker may have gone; what it asked for was done all the same.
    drop(reply.send(result));
    failed
}

fn answer_or_turn<T, R>(reply: Returning<T, R>, result: Result<R, Error>) -> Option<Error> {
    let failed = result.as_ref().err().filter(|error| error.is_fatal()).cloned();
    drop(reply.send(result.map_err(Turned::Failed)));
    failed
}

fn turn_back<T, R>(reply: Returning<T, R>, request: T) -> Option<Error> {
    drop(reply.send(Err(Turned::NoRoom(request))));
    None
}

fn refuse_all(mut requests: mpsc::Receiver<Request>, error: &Error) {
    requests.close();
    while let Some(request) = requests.blocking_recv() {
        match request {
            Request::Commit(_, reply) => drop(reply.send(Err(Turned::Failed(error.clone())))),
            Request::NextRange(waiter) => drop(waiter.reply.send(Err(error.clone()))),
            Request::Read(_, reply) => drop(reply.send(Err(error.clone()))),
            Request::Export(_, _, reply) => drop(reply.send(Err(error.clone()))),
            Request::Ahead(_, _, reply) => drop(reply.send(Err(error.clone()))),
            Request::Extend(_, _, reply) => drop(reply.send(Err(error.clone()))),
            Request::Settle(_, _, _, _, reply) => drop(reply.send(Err(Turned::Failed(error.clone())))),
            Request::Note(_, reply) => drop(reply.send(Err(Turned::Failed(error.clone())))),
            Request::ForgetGaps(_, reply)
            | Request::Report(_, reply)
            | Request::ReportsDone(_, _, _, reply)
            | Request::SumsSaid(_, _, reply)
            | Request::Close(reply) => drop(reply.send(Err(error.clone()))),
            Request::Reports(_, _, _, reply) => drop(reply.send(Err(error.clone()))),
            Request::SumsDue(_, _, reply) => drop(reply.send(Err(error.clone()))),
            Request::ReadAside(_, reply) => drop(reply.send(Err(error.clone()))),
            Request::DropAside(_, reply) => drop(reply.send(Err(error.clone()))),
            Request::Verify(reply) => drop(reply.send(Err(error.clone()))),
        }
    }
}

/// How long sled's destructors may take at the end.
const DROP_DEADLINE: Duration = Duration::from_secs(10);

/// Makes pending settlements durable and closes the databases.
fn close(mut queue: Queue) -> Result<(), Error> {
    if queue.own.is_dirty() {
        match queue.write_changes() {
            // No room for the last settlements: the next process repeats those ranges.
            Ok(()) | Err(Error::Full { .. }) => {}
            Err(error) => {
                queue.forget();
                return Err(error);
            }
        }
    }
    for waiter in queue.waiters.drain(..) {
        drop(waiter.reply.send(Err(Error::Closed)));
    }
    let (ended, end) = std_mpsc::sync_channel(1);
    let dropping = std::thread::Builder::new().name("store-close".to_owned()).spawn(move || {
        drop(queue);
        ended.send(()).unwrap_or_default();
    });
    dropping.map_err(|error| Error::fatal("closing the store", error))?;
    end.recv_timeout(DROP_DEADLINE).map_err(|_| Error::fatal("closing the store", "sled does not end"))
}
