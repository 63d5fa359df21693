//! From a range's chunks to rows: resolve as of the range's versions, set aside what is parked, count what is missing.
//!
//! A batch hands out its rows one by one: it unpacks a chunk when its turn comes and drops each observation behind it, so
//! what stays in memory is what the destination keeps. The same range gives the same rows in the same order at every
//! retry, also after a restart.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::vec;

use crate::event::Event;
#[cfg(feature = "clickhouse")]
use crate::forward::clickhouse::Whole;
use crate::forward::reconciliation::Sums;
use crate::observation::Observation;
use crate::reading::{Channel, RunId};
use crate::resolve::{Resolved, Resolver, Timeline};
use crate::store::{AsideEntry, AsideKind, Chunk, Range, Sequence, Settled, observation_to_cbor};

/// A range in hand and what became of its rows so far.
#[derive(Debug)]
pub struct Batch {
    /// The name of the destination.
    pub destination: Arc<str>,
    /// What of the store it is.
    pub range: Range,
    /// Another process may have sent it already, in part or whole.
    pub resumed: bool,
    /// Observations that were handed out so far; a batch that was read anew begins at 0 again.
    pub rendered: u64,
    /// Tokens of its inserts that go in halves.
    pub halved: Vec<String>,
    timeline: Arc<Timeline>,
    pending: Pending,
    /// Rows that were rendered before the batch's turn.
    pub(super) prepared: Prepared,
    /// What may leave before every row of this one is acknowledged.
    pub(super) behind: Behind,
    /// What became of the rows so far.
    pub tally: Tally,
}

/// Rows of a batch in the form of its destination, before they are sent.
#[derive(Debug, Default)]
pub(super) enum Prepared {
    /// None: they are rendered when they are sent.
    #[default]
    Nothing,
    /// An insert.
    #[cfg(feature = "clickhouse")]
    ClickHouse(Whole),
}

/// The batch that leaves behind another while that one's last rows are on their way. Its range is in hand with the other's.
#[derive(Debug, Default)]
pub(super) enum Behind {
    /// None, until this one is settled.
    #[default]
    Nothing,
    /// It is being made ready: to be asked for, by [`Delivery::Underway`](super::Delivery::Underway), once there is room.
    Coming,
    /// It may go.
    InHand(Box<Batch>),
}

/// The outcome of a batch, row by row.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rows that are there for good.
    pub delivered: u64,
    /// Rows that were sent once more in another cut, after a try whose outcome stayed unknown.
    pub resent: u64,
    /// Bytes sent or written.
    pub bytes: u64,
    /// Observations of nobody, by setting.
    pub parked: Vec<AsideEntry>,
    /// Rows that the destination refuses for what they are.
    pub rejected: Vec<Rejected>,
    /// The rows that were rendered, per device and hour.
    pub sums: Sums,
}

/// A row that the destination will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which observation.
    pub sequence: Sequence,
    /// The destination's words.
    pub reason: String,
}

/// The observations that were not rendered yet.
struct Pending {
    /// Those of other destinations are passed over.
    destination: Arc<str>,
    passed_over: u64,
    chunks: Box<dyn Iterator<Item = Chunk> + Send + Sync>,
    current: Option<(RunId, Sequence, vec::IntoIter<Observation>)>,
}

impl Iterator for Pending {
    type Item = (RunId, Sequence, Observation);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((run, sequence, observations)) = &mut self.current
                && let Some(observation) = observations.next()
            {
                let this = *sequence;
                *sequence += 1;
                return Some((*run, this, observation));
            }
            let chunk = self.chunks.next()?;
            if chunk.only_for.is_some_and(|only| only != self.destination) {
                self.passed_over += chunk.observations.len() as u64;
                continue;
            }
            self.current = Some((chunk.run, chunk.first, chunk.observations.into_iter()));
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("passed_over", &self.passed_over).finish_non_exhaustive()
    }
}

impl Batch {
    /// The rows of these chunks, which are taken as they are needed.
    pub fn new(
        destination: Arc<str>,
        range: Range,
        resumed: bool,
        chunks: impl IntoIterator<Item = Chunk, IntoIter: Send + Sync + 'static>,
        timeline: Arc<Timeline>,
    ) -> Self {
        let chunks = Box::new(chunks.into_iter());
        let pending = Pending { destination: destination.clone(), passed_over: 0, chunks, current: None };
        Batch {
            destination,
            range,
            resumed,
            rendered: 0,
            halved: Vec::new(),
            timeline,
            pending,
            prepared: Prepared::Nothing,
            behind: Behind::Nothing,
            tally: Tally::default(),
        }
    }

    /// Renders further rows until `row` breaks or none is left. `false` when the timeline lacks the range's basis.
    pub fn fill(&mut self, mut row: impl FnMut(Sequence, &Event) -> ControlFlow<()>) -> bool {
        let Some(basis) = self.timeline.bases.get(&self.range.basis) else { return false };
        let resolver = Resolver::new(&self.timeline.anchors, self.range.anchors, basis);
        for (run, sequence, observation) in self.pending.by_ref() {
            self.rendered += 1;
            match resolver.resolve(run, observation) {
                Resolved::Event(event) => {
                    self.tally.sums.add(&event);
                    if row(sequence, &event).is_break() {
                        break;
                    }
                }
                Resolved::Parked(observation) => {
                    let reason = "nobody is assigned to the device".to_owned();
                    let entry = aside(AsideKind::Parked, reason, run, &observation, &self.destination);
                    self.tally.parked.push(entry);
                }
            }
        }
        true
    }

    /// All that is in hand: its range and that of the batch behind it.
    pub(super) fn in_hand(&self) -> Range {
        match &self.behind {
            Behind::InHand(behind) => Range { last: behind.range.last, ..self.range.clone() },
            Behind::Nothing | Behind::Coming => self.range.clone(),
        }
    }

    /// The hub's name in its rows. `None` when the timeline lacks the range's basis.
    pub fn gateway(&self) -> Option<Arc<str>> {
        self.timeline.bases.get(&self.range.basis).map(|basis| basis.gateway_id.clone())
    }

    /// The part of the range that the rejected rows lie in.
    pub fn rejected_range(&self) -> Option<Range> {
        let sequences = || self.tally.rejected.iter().map(|rejected| rejected.sequence);
        Some(Range { first: sequences().min()?, last: sequences().max()?, ..self.range.clone() })
    }

    /// Observations that the range names and its chunks lack; known once every row is rendered.
    pub fn damaged(&self) -> u64 {
        self.range.count().saturating_sub(self.rendered + self.pending.passed_over)
    }

    /// Closes the account, once every row is rendered. `chunks` are those of [`Self::rejected_range`] once more.
    pub fn settle(self, chunks: impl IntoIterator<Item = Chunk>) -> Settled {
        let (damaged, passed_over) = (self.damaged(), self.pending.passed_over);
        let Batch { range, timeline, destination, tally, .. } = self;
        let Tally { delivered, resent, bytes: _, parked, mut rejected, mut sums } = tally;
        let basis = timeline.bases.get(&range.basis);
        let resolver = basis.map(|basis| Resolver::new(&timeline.anchors, range.anchors, basis));
        let mut settled = Settled {
            delivered,
            rejected: rejected.len() as u64,
            parked: parked.len() as u64,
            passed_over,
            damaged,
            resent,
            in_doubt_resent: 0,
            aside: parked,
            sums: Vec::new(),
        };
        // One that was damaged since it was sent counts as rejected, but there is nothing left to show.
        rejected.sort_by_key(|rejected| rejected.sequence);
        for Chunk { run, first, observations, .. } in chunks {
            let of_chunk = rejected.partition_point(|rejected| rejected.sequence < first)..;
            for Rejected { sequence, reason } in &rejected[of_chunk] {
                let index = usize::try_from(sequence - first).unwrap_or(usize::MAX);
                let Some(observation) = observations.get(index) else { break };
                settled.aside.push(aside(AsideKind::Rejected, reason.clone(), run, observation, &destination));
                if let Some(Resolved::Event(event)) =
                    resolver.as_ref().map(|resolver| resolver.resolve(run, observation.clone()))
                {
                    sums.take_back(&event);
                }
            }
        }
        settled.sums = sums.into_sums();
        settled
    }
}

/// The record of an observation that this destination did not get. Its bytes are the observation's CBOR: the reading
/// behind it is not kept, so the channel only says that, and the entry is the device's own name.
fn aside(kind: AsideKind, reason: String, run: RunId, observation: &Observation, destination: &str) -> AsideEntry {
    AsideEntry {
        kind,
        reason,
        device: observation.device.clone(),
        entry: observation.device.clone(),
        channel: Channel::Gatt("observation".into()),
        profile: observation.profile.clone(),
        run,
        reading: observation.reading,
        heard: observation.heard,
        bytes: observation_to_cbor(observation),
        destination: Some(destination.to_owned()),
        which: None,
        counters: Vec::new(),
        resets: 0,
    }
}
