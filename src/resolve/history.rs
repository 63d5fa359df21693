//! Who wore what, from when to when: what was said about it, in the order in which it was said.
//!
//! A history is a list of statements, and of all that speak of an instant the newest holds. A change of the past is one
//! more statement: nothing that was said is rewritten, so two moments that are known in different clocks (a Unix time
//! that a person wrote, an uptime of a boot whose clock is not known yet) need no order between them until a row asks.
//! Seen along the time of one device ([`Worn::intervals`]) the statements are stretches that follow each other.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Anchors;
use crate::event::ClockQuality;
use crate::reading::{BootId, Heard};

/// How many statements about one device are kept; what falls out is older than anything that can still be sent.
pub const MOST_OF_DEVICE: usize = 64;

/// How many statements are kept in all: they lie in one state value of the store, which takes 64 KiB.
pub const MOST_IN_ALL: usize = 1_200;

/// One statement about a device: whose it is, or where, from some moment on, until another one or until further notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The device_id.
    pub device: Arc<str>,
    /// The person; `None` is nobody.
    pub user_id: Option<Uuid>,
    /// The room; `None` is the hub's own.
    pub location: Option<Arc<str>>,
    /// Since when; `None` is since always (the device was first configured together with its person).
    pub from: Option<Heard>,
    /// Until when, that moment not included; `None` is until further notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Heard>,
    /// Which half of it counts.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub says: Says,
    /// Who says so.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub by: By,
    /// Its number: of two statements the later said one has the higher. 0 before it has one.
    #[serde(default)]
    pub version: u64,
    /// Grows when its moments become better known: a row of the same version that replaces the one before. 0: not counted
    /// since it changed.
    #[serde(default)]
    pub revision: u64,
    /// When it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Heard>,
    /// Whether a moment of it comes from a clock that never was synchronised.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub estimated: bool,
}

/// What a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// Person and room.
    #[default]
    Both,
    /// The person only; the room stays.
    Person,
    /// The room only; the person stays.
    Place,
}

impl Says {
    /// The word in a report.
    pub fn name(self) -> &'static str {
        match self {
            Says::Both => "both",
            Says::Person => "person",
            Says::Place => "place",
        }
    }
}

/// Who makes a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A device entry of the configuration.
    #[default]
    Entry,
    /// `assign` or `unassign`.
    Command,
}

impl By {
    /// The word in a report.
    pub fn name(self) -> &'static str {
        match self {
            By::Entry => "entry",
            By::Command => "command",
        }
    }
}

/// A stretch of a device's time with one person in one place. `None` ends it on neither side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Unix milliseconds.
    pub from: Option<i64>,
    /// Unix milliseconds, not included.
    pub until: Option<i64>,
    /// The person; `None` is nobody.
    pub user_id: Option<Uuid>,
    /// The room; `None` is the hub's own.
    pub location: Option<Arc<str>>,
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Assignment {
    /// Whether it speaks of the person.
    pub fn says_person(&self) -> bool {
        self.says != Says::Place
    }

    /// Whether it speaks of the room.
    pub fn says_place(&self) -> bool {
        self.says != Says::Person
    }

    fn moments(&mut self) -> impl Iterator<Item = &mut Heard> {
        [&mut self.from, &mut self.until, &mut self.said].into_iter().flatten()
    }

    /// Whether a moment of it hangs on a boot's anchors.
    pub fn needs(&self, boot: BootId) -> bool {
        [self.from, self.until, self.said].iter().flatten().any(|heard| heard.boot == boot)
    }
}

/// A statement with its moments as one version of the anchors tells them.
#[derive(Debug)]
struct Said<'a> {
    from: i64,
    until: i64,
    assignment: &'a Assignment,
}

impl Said<'_> {
    fn covers(&self, at_ms: i64) -> bool {
        self.from <= at_ms && at_ms < self.until
    }
}

/// The statements about every device, ready to be asked about instants.
#[derive(Debug)]
pub struct Worn<'a>(HashMap<&'a str, Vec<Said<'a>>>);

/// The statements about one device, oldest first.
#[derive(Debug, Clone, Copy)]
pub struct OfDevice<'w, 'a>(&'w [Said<'a>]);

impl<'a> Worn<'a> {
    /// The history with its moments in Unix milliseconds.
    pub fn new(history: &'a [Assignment], unix_ms: impl Fn(Heard) -> i64) -> Self {
        let mut worn: HashMap<&str, Vec<Said<'_>>> = HashMap::new();
        for assignment in history {
            let from = assignment.from.map_or(i64::MIN, &unix_ms);
            let until = assignment.until.map_or(i64::MAX, &unix_ms);
            worn.entry(&assignment.device).or_default().push(Said { from, until, assignment });
        }
        Worn(worn)
    }

    /// What was said about this device.
    pub fn of(&self, device: &str) -> OfDevice<'_, 'a> {
        OfDevice(self.0.get(device).map_or(&[], Vec::as_slice))
    }
}

impl<'a> OfDevice<'_, 'a> {
    /// The newest statement about the person at this instant.
    fn about_person(&self, at_ms: i64) -> Option<&'a Assignment> {
        self.0.iter().rev().find(|said| said.covers(at_ms) && said.assignment.says_person()).map(|said| said.assignment)
    }

    fn about_place(&self, at_ms: i64) -> Option<&'a Assignment> {
        self.0.iter().rev().find(|said| said.covers(at_ms) && said.assignment.says_place()).map(|said| said.assignment)
    }

    /// Who wears the device at this instant.
    pub fn person(&self, at_ms: i64) -> Option<Uuid> {
        self.about_person(at_ms)?.user_id
    }

    /// The device's own room at this instant.
    pub fn place(&self, at_ms: i64) -> Option<&'a Arc<str>> {
        self.about_place(at_ms)?.location.as_ref()
    }

    /// The stretches between all moments that a statement names, whether something changes there or not.
    fn pieces(&self) -> Vec<Piece<'a>> {
        let ends = |said: &Said<'_>| [(said.from, said.assignment.from), (said.until, said.assignment.until)];
        let mut ends: Vec<(i64, Option<Heard>)> = self.0.iter().flat_map(ends).collect();
        ends.extend([(i64::MIN, None), (i64::MAX, None)]);
        ends.sort_by_key(|(ms, _)| *ms);
        ends.dedup_by_key(|(ms, _)| *ms);
        let piece = |pair: &[(i64, Option<Heard>)]| Piece {
            from: pair[0],
            until: pair[1],
            person: self.about_person(pair[0].0),
            place: self.about_place(pair[0].0),
        };
        ends.windows(2).map(piece).collect()
    }

    /// The device's whole time, in order and without a hole; neighbours differ.
    pub fn intervals(&self) -> Vec<Interval> {
        let mut intervals: Vec<Interval> = Vec::new();
        for piece in self.pieces() {
            let user_id = piece.person.and_then(|said| said.user_id);
            let location = piece.place.and_then(|said| said.location.clone());
            let until = piece.until.1.map(|_| piece.until.0);
            match intervals.last_mut() {
                Some(last) if last.user_id == user_id && last.location == location => last.until = until,
                _ => intervals.push(Interval { from: piece.from.1.map(|_| piece.from.0), until, user_id, location }),
            }
        }
        intervals
    }
}

/// A stretch and the statements that hold in it.
struct Piece<'a> {
    from: (i64, Option<Heard>),
    until: (i64, Option<Heard>),
    person: Option<&'a Assignment>,
    place: Option<&'a Assignment>,
}

/// Turns moments of a boot's uptime into Unix times where those will not change any more: the boot was synchronised, or
/// it is over (`now` is another) and never will be. What changed has no revision afterwards.
pub fn settle(history: &mut [Assignment], anchors: &Anchors, now: BootId) {
    for assignment in history {
        let (mut changed, mut estimated) = (false, assignment.estimated);
        for moment in assignment.moments().filter(|moment| moment.boot != BootId::WALL) {
            let (unix_ms, quality) = anchors.unix_ms(anchors.version(), *moment);
            if quality == ClockQuality::Synced || moment.boot != now {
                *moment = wall(unix_ms);
                estimated |= quality != ClockQuality::Synced;
                changed = true;
            }
        }
        assignment.estimated = estimated;
        if changed {
            assignment.revision = 0;
        }
    }
}

/// Numbers what has no number yet, above all others and above `floor`.
pub fn number(history: &mut [Assignment], floor: u64) {
    let mut last = history.iter().map(|it| it.revision.max(it.version)).fold(floor, u64::max);
    for assignment in history.iter_mut().filter(|assignment| assignment.revision == 0) {
        last += 1;
        assignment.revision = last;
        if assignment.version == 0 {
            assignment.version = last;
        }
    }
}

/// Keeps the history within its limits: of a device with too many statements only the newest stretches stay.
pub fn bound(history: &mut Vec<Assignment>, unix_ms: impl Fn(Heard) -> i64) {
    let mut most = MOST_OF_DEVICE;
    loop {
        let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
        history.iter().for_each(|it| *counts.entry(it.device.clone()).or_default() += 1);
        let long: BTreeSet<Arc<str>> =
            counts.into_iter().filter(|(_, count)| *count > most).map(|(device, _)| device).collect();
        for device in long {
            let kept = newest_stretches(history, &device, most, &unix_ms);
            history.retain(|it| it.device != device);
            history.extend(kept);
        }
        if history.len() <= MOST_IN_ALL || most == 1 {
            return;
        }
        most /= 2;
    }
}

/// The device's last `most` stretches as statements of their own.
fn newest_stretches(
    history: &[Assignment],
    device: &str,
    most: usize,
    unix_ms: impl Fn(Heard) -> i64,
) -> Vec<Assignment> {
    let worn = Worn::new(history, unix_ms);
    let stretch = |piece: Piece<'_>| {
        let said = piece.person.or(piece.place)?;
        // Cut in pieces, a statement cannot be told anew under its number: its moments stay as they are known now.
        let open = [piece.from.1, piece.until.1].into_iter().flatten().any(|moment| moment.boot != BootId::WALL);
        Some(Assignment {
            user_id: piece.person.and_then(|said| said.user_id),
            location: piece.place.and_then(|said| said.location.clone()),
            from: piece.from.1.map(|_| wall(piece.from.0)),
            until: piece.until.1.map(|_| wall(piece.until.0)),
            says: Says::Both,
            estimated: said.estimated || open,
            ..said.clone()
        })
    };
    let mut kept: Vec<Assignment> = Vec::new();
    for next in worn.of(device).pieces().into_iter().filter_map(stretch) {
        match kept.last_mut() {
            Some(last) if goes_on(last, &next) => last.until = next.until,
            _ => kept.push(next),
        }
    }
    kept.drain(..kept.len().saturating_sub(most));
    kept
}

/// Whether `next` says the same from where `last` ends.
fn goes_on(last: &Assignment, next: &Assignment) -> bool {
    let what = |it: &Assignment| (it.user_id, it.location.clone(), it.by);
    last.until == next.from && what(last) == what(next)
}

/// A moment of the wall clock.
pub fn wall(unix_ms: i64) -> Heard {
    Heard { boot: BootId::WALL, ms: unix_ms.max(0) as u64 }
}
