//! Reports: a third row of generations of the same form, in `reports/`, for the rows beside the events.
//!
//! The reports of a kind are numbered from 0, and each destination has one cursor for each kind, so that a missing table
//! holds up nothing but its own rows. A report is durable in its own record before [`Queue::put_reports`] answers; what is
//! known of the row (`!reports`) and the cursors ride on the queue's next record, so a crash sends some reports twice and
//! loses none. Bounded by bytes: the oldest generation goes first, counted. One that every destination has goes whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::chunk::Codec;
use super::folder::{self, RESERVE_BYTES};
use super::generation::{Generation, MAX_RECORDS};
use super::ledger::Own;
use super::queue::Queue;
use super::record::{self, MAX_TAIL_BYTES, Place};
use super::row::Row;
use super::{Error, record::Kind as RowKind};
use crate::report::{Kind, Report};

/// Bytes of the row on disk; the oldest generation goes when there are more.
const MAX_BYTES: u64 = 16 << 20;
/// Bytes of the records of one generation, so that the oldest that goes is little.
const GENERATION_BYTES: u64 = 256 << 10;
/// Rows' bytes put into one record: JSON of many alike rows compresses well.
const MAX_PLAIN_BYTES: usize = 256 << 10;

/// One number for each kind, at the kind's place in [`Kind::ALL`]. Kinds that are new in a later program have 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct PerKind(Vec<u64>);

impl PerKind {
    pub(super) fn get(&self, kind: Kind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, kind: Kind, number: u64) {
        if self.0.len() <= kind as usize {
            self.0.resize(Kind::ALL.len(), 0);
        }
        self.0[kind as usize] = number;
    }

    fn raise(&mut self, to: &PerKind) {
        for kind in Kind::ALL {
            self.set(kind, self.get(kind).max(to.get(kind)));
        }
    }
}

/// What is known of the row without opening it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ReportTotals {
    /// The number that the next report of a kind gets.
    pub(super) next: PerKind,
    pub(super) kept: Vec<KeptReports>,
    /// Reports that went because of the bound, before every destination had them.
    pub(super) evicted: u64,
}

/// One generation: of each kind the first number and one past the last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptReports {
    pub(super) generation: u64,
    pub(super) first: PerKind,
    end: PerKind,
}

impl ReportTotals {
    /// The oldest number of this kind that is kept; the next one when none is.
    pub(super) fn first(&self, kind: Kind) -> u64 {
        let of_kind = self.kept.iter().find(|kept| kept.end.get(kind) > kept.first.get(kind));
        of_kind.map_or(self.next.get(kind), |kept| kept.first.get(kind))
    }

    /// Where a destination that is new begins: at the newest report of each kind.
    pub(super) fn newest(&self) -> PerKind {
        let mut cursors = PerKind::default();
        for kind in Kind::ALL {
            let next = self.next.get(kind);
            cursors.set(kind, next.saturating_sub(1).max(self.first(kind)));
        }
        cursors
    }

    /// Reports that wait for a destination with these cursors, of each kind that has any.
    pub(super) fn waiting(&self, cursors: &PerKind) -> BTreeMap<Kind, u64> {
        let of = |kind| self.next.get(kind).saturating_sub(cursors.get(kind).max(self.first(kind)));
        Kind::ALL.into_iter().map(|kind| (kind, of(kind))).filter(|(_, waiting)| *waiting > 0).collect()
    }

    fn note(&mut self, generation: u64, open: &OpenReports) {
        self.kept.retain(|kept| kept.generation != generation);
        self.kept.push(KeptReports { generation, first: open.first.clone(), end: open.end().clone() });
        self.kept.sort_by_key(|kept| kept.generation);
        self.next.raise(open.end());
    }
}

/// A generation and, of each of its records, the numbers that the next one goes on with.
pub(super) struct OpenReports {
    pub(super) generation: Generation,
    first: PerKind,
    ends: Vec<PerKind>,
}

impl OpenReports {
    /// `next` are the numbers that a generation without any report begins with.
    fn of(generation: Generation, codec: &mut Codec, next: &PerKind) -> OpenReports {
        let mut open = OpenReports { first: next.clone(), ends: Vec::new(), generation };
        let mut is_first = true;
        for number in 0..open.generation.records {
            let mut end = open.end().clone();
            if let Some((first, reports)) = read_record(&open.generation, number, codec) {
                if std::mem::take(&mut is_first) {
                    open.first = first.clone();
                }
                end = first;
                reports.iter().for_each(|report| end.set(report.kind, end.get(report.kind) + 1));
            }
            open.ends.push(end);
        }
        open
    }

    fn end(&self) -> &PerKind {
        self.ends.last().unwrap_or(&self.first)
    }

    fn is_full(&self) -> bool {
        self.generation.bytes >= GENERATION_BYTES || self.generation.records >= MAX_RECORDS
    }
}

/// The row.
pub(super) struct Reports {
    row: Row,
    /// Open only while something is read and written: an open database takes a few MiB.
    newest: Option<OpenReports>,
    /// The older one that a destination is reading.
    older: Option<OpenReports>,
    /// Bytes on disk of each generation that is not `newest`.
    bytes: BTreeMap<u64, u64>,
    /// Nobody has read since the last report: the destinations are out of reach, and nothing is kept open for them.
    unread: bool,
}

impl Reports {
    /// Takes up what lies on the disk. Only the newest generation is opened, and what is not known of.
    pub(super) fn open(row: Row, codec: &mut Codec, own: &mut Own) -> Result<Reports, Error> {
        let mut known = own.reports.clone();
        // No number is given twice, whatever was lost.
        own.destinations.values().for_each(|to| known.next.raise(&to.reports));
        let reports = Reports::take_up(row, codec, &mut known)?;
        if known != own.reports {
            *own.reports_mut() = known;
        }
        Ok(reports)
    }

    fn take_up(row: Row, codec: &mut Codec, known: &mut ReportTotals) -> Result<Reports, Error> {
        let numbers = row.prepare()?;
        let mut reports = Reports { row, newest: None, older: None, bytes: BTreeMap::new(), unread: false };
        known.kept.retain(|kept| numbers.contains(&kept.generation));
        for number in numbers.iter().copied() {
            let is_newest = numbers.last() == Some(&number);
            if is_newest || !known.kept.iter().any(|kept| kept.generation == number) {
                let Some(opened) = reports.row.open(number, codec, false)? else {
                    known.kept.retain(|kept| kept.generation != number);
                    continue;
                };
                let open = OpenReports::of(opened.generation, codec, &known.next);
                known.note(number, &open);
            }
            reports.bytes.insert(number, folder::disk_bytes(&folder::named(&reports.row.dir, "gen", number)));
        }
        Ok(reports)
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.bytes.values().sum::<u64>() + self.newest.as_ref().map_or(0, |newest| newest.generation.disk_bytes())
    }

    /// The generation to append to. A full one is followed by another.
    fn writable(&mut self, codec: &mut Codec, next: &PerKind) -> Result<&mut OpenReports, Error> {
        let highest = self.highest();
        self.open_newest(codec, next)?;
        if self.newest.as_ref().is_some_and(OpenReports::is_full) {
            self.close_newest();
        }
        let open = match self.newest.take() {
            Some(open) => open,
            None => OpenReports::of(self.row.birth(highest + 1, codec, &[])?, codec, next),
        };
        Ok(self.newest.insert(open))
    }

    /// The number of the newest generation; 0 when there is none.
    fn highest(&self) -> u64 {
        let newest = self.newest.as_ref().map(|newest| newest.generation.number);
        newest.or(self.bytes.keys().next_back().copied()).unwrap_or(0)
    }

    fn open_newest(&mut self, codec: &mut Codec, next: &PerKind) -> Result<(), Error> {
        if self.newest.is_none()
            && let Some(number) = self.bytes.keys().next_back().copied()
            && let Some(opened) = self.row.open(number, codec, false)?
        {
            self.bytes.remove(&number);
            self.newest = Some(OpenReports::of(opened.generation, codec, next));
        }
        Ok(())
    }

    fn close_newest(&mut self) {
        if let Some(newest) = self.newest.take() {
            self.bytes.insert(newest.generation.number, newest.generation.disk_bytes());
        }
    }

    /// Closes everything: nobody needs it soon.
    pub(super) fn close(&mut self) {
        self.close_newest();
        self.older = None;
    }

    /// The generation of this number; `None` when nothing is left of it.
    pub(super) fn reading(
        &mut self,
        number: u64,
        codec: &mut Codec,
        next: &PerKind,
    ) -> Result<Option<&OpenReports>, Error> {
        self.unread = false;
        if number == self.highest() {
            self.open_newest(codec, next)?;
            return Ok(self.newest.as_ref());
        }
        if self.older.as_ref().is_none_or(|older| older.generation.number != number) {
            self.older = None;
            let opened = self.row.open(number, codec, false)?;
            self.older = opened.map(|opened| OpenReports::of(opened.generation, codec, next));
        }
        Ok(self.older.as_ref())
    }

    pub(super) fn forget(self) {
        self.newest.into_iter().chain(self.older).for_each(|open| open.generation.forget());
    }
}

impl Queue {
    /// Makes reports durable. Refused while the disk is nearly full: events come first.
    pub(super) fn put_reports(&mut self, reports: &[Report]) -> Result<(), Error> {
        let free = self.free_bytes()?;
        if free < 2 * RESERVE_BYTES {
            return Err(Error::Full { what: format!("{free} bytes are free on the disk, too few for reports") });
        }
        let mut next = self.own.reports.next.clone();
        let mut rest = reports;
        let mut tails = Vec::new();
        while !rest.is_empty() {
            let (tail, count) = fitting(&mut self.codec, &next, rest)?;
            let (these, after) = rest.split_at(count);
            these.iter().for_each(|report| next.set(report.kind, next.get(report.kind) + 1));
            tails.push((tail, next.clone()));
            rest = after;
        }
        let sealed = self.codec.key().is_some();
        for (tail, end) in tails {
            let begin = self.own.reports.next.clone();
            let open = self.reports.writable(&mut self.codec, &begin)?;
            let generation = &mut open.generation;
            let place = Place { kind: RowKind::Reports, generation: generation.number, record: generation.records };
            generation.put(&record::build(place, sealed, &[], &tail), None)?;
            generation.sync()?;
            open.ends.push(end);
            let number = open.generation.number;
            self.syncs += 1;
            if let Some(open) = &self.reports.newest {
                self.own.reports_mut().note(number, open);
            }
        }
        if std::mem::replace(&mut self.reports.unread, true) {
            self.reports.close();
        }
        self.bound_reports();
        self.publish();
        self.shared.tell_of_reports();
        Ok(())
    }

    fn bound_reports(&mut self) {
        while self.reports.disk_bytes() > MAX_BYTES
            && let Some(number) = self.reports.bytes.keys().next().copied()
            && number != self.reports.highest()
        {
            let lost = self.own.reports.kept.iter().find(|kept| kept.generation == number).map_or(0, |kept| {
                let of = |kind: Kind| {
                    let cursors = self.own.destinations.values().map(|to| to.reports.get(kind));
                    let lowest = cursors.min().unwrap_or(0).max(kept.first.get(kind));
                    kept.end.get(kind).saturating_sub(lowest)
                };
                Kind::ALL.into_iter().map(of).sum::<u64>()
            });
            if !self.remove_reports(number) {
                return;
            }
            self.own.reports_mut().evicted += lost;
            tracing::warn!(reports = lost, "too many reports wait: the oldest go");
        }
    }

    /// Removes a generation of the row. Whether it went.
    fn remove_reports(&mut self, number: u64) -> bool {
        self.reports.older.take_if(|older| older.generation.number == number);
        if let Err(error) = folder::remove(&self.reports.row.dir, number) {
            tracing::error!(%error, "the oldest reports cannot be removed");
            self.unhealthy = Some(format!("the oldest reports cannot be removed: {error}"));
            return false;
        }
        self.reports.bytes.remove(&number);
        self.own.reports_mut().kept.retain(|kept| kept.generation != number);
        true
    }

    /// The next reports of a kind for a destination, and the number to give to [`Queue::reports_done`] once it has them.
    pub(super) fn reports_for(&mut self, name: &str, kind: Kind, limit: usize) -> Result<(u64, Vec<Report>), Error> {
        let totals = self.own.reports.clone();
        let Some(destination) = self.own.destinations.get(name) else {
            return Err(Error::Refused { what: format!("no destination {name} is configured") });
        };
        let mut through = destination.reports.get(kind).max(totals.first(kind)).min(totals.next.get(kind));
        let mut found = Vec::new();
        for kept in totals.kept.iter().filter(|kept| kept.end.get(kind) > kept.first.get(kind)) {
            if kept.end.get(kind) <= through || !found.is_empty() {
                continue;
            }
            let Some(open) = self.reports.reading(kept.generation, &mut self.codec, &kept.first)? else {
                self.own.reports_mut().kept.retain(|other| other.generation != kept.generation);
                through = kept.end.get(kind);
                continue;
            };
            let mut bytes = 0;
            for record in open.ends.partition_point(|end| end.get(kind) <= through)..open.ends.len() {
                let Some((first, reports)) = read_record(&open.generation, record as u32, &mut self.codec) else {
                    continue;
                };
                let numbered = (first.get(kind)..).zip(reports.into_iter().filter(|report| report.kind == kind));
                for (number, report) in numbered {
                    if number < through {
                        continue;
                    }
                    if !found.is_empty() && bytes + report.row.len() > limit {
                        return Ok((through, found));
                    }
                    bytes += report.row.len();
                    through = number + 1;
                    found.push(report);
                }
            }
            through = kept.end.get(kind);
        }
        Ok((through, found))
    }

    /// Moves a destination's cursor, and removes the generations that every destination has.
    pub(super) fn reports_done(&mut self, name: &str, kind: Kind, through: u64) {
        let Some(destination) = self.own.destinations.get(name) else { return };
        if destination.reports.get(kind) >= through {
            return;
        }
        if let Some(destination) = self.own.destination_mut(name) {
            destination.reports.set(kind, through);
        }
        let is_done = |kept: &KeptReports| {
            let mut all = self.own.destinations.values();
            all.all(|to| {
                Kind::ALL.into_iter().all(|kind| to.reports.get(kind).max(kept.first.get(kind)) >= kept.end.get(kind))
            })
        };
        let kept = self.own.reports.kept.iter();
        let done: Vec<u64> = kept.filter(|kept| is_done(kept)).map(|kept| kept.generation).collect();
        // The newest stays, so that no number of a generation is used twice.
        for number in done.into_iter().filter(|number| *number != self.reports.highest()).collect::<Vec<_>>() {
            self.remove_reports(number);
        }
        if self.own.destinations.values().all(|to| self.own.reports.waiting(&to.reports).is_empty()) {
            self.reports.close();
        }
        self.publish();
    }
}

/// The numbers that a record's reports begin with, and the reports. `None` when it is damaged, or has none.
pub(super) fn read_record(generation: &Generation, number: u32, codec: &mut Codec) -> Option<(PerKind, Vec<Report>)> {
    let value = generation.get(number).ok()?;
    let parsed = record::parse(&value).ok()?;
    if parsed.tail.is_empty() {
        return None;
    }
    let plain = codec.unwrap(parsed.tail, parsed.sealed).ok()?;
    let read = serde_cbor::from_slice(&plain);
    if read.is_err() {
        tracing::error!(generation = generation.number, record = number, "reports cannot be read");
    }
    read.ok()
}

/// The tail of as many reports as fit, and how many those are.
fn fitting(codec: &mut Codec, first: &PerKind, reports: &[Report]) -> Result<(Vec<u8>, usize), Error> {
    let mut bytes = 0;
    let fitting = reports.iter().take_while(|report| {
        bytes += report.row.len() + report.key.len() + 32;
        bytes <= MAX_PLAIN_BYTES
    });
    let mut count = fitting.count().max(1);
    loop {
        let plain =
            serde_cbor::to_vec(&(first, &reports[..count])).map_err(|error| Error::fatal("writing reports", error))?;
        let tail = codec.wrap(&plain)?;
        if tail.len() <= MAX_TAIL_BYTES {
            return Ok((tail, count));
        }
        if count == 1 {
            return Err(Error::Refused { what: format!("a report of {} bytes", reports[0].row.len()) });
        }
        count = count.div_ceil(2);
    }
}
