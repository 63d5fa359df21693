//! PURE Who may hold the radio: a cap on links, one connecting at a time, turns when there are more devices than links.
//!
//! The driver tells what happened and asks [`Turns::next`] after each telling and at [`Turns::next_look`], until it
//! answers nothing. A turn to connect is taken the moment it is given. Who wants a link again after [`Turns::freed`] or
//! [`Turns::failed`] asks again.
//!
//! Who comes first: a visitor that just advertised, since it is gone in seconds, but at most [`VISITS_IN_A_ROW`] of them
//! before one other; whoever waited [`OVERDUE`], by waiting; then whoever had least link time lately, and of equals the
//! one that waited longest; last, whoever failed [`FAILURES`] times in a row, with every second turn at best. So nobody
//! waits for ever, and hungry devices end up with equal shares of link time, however long their links are.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A link is not asked for before it was held so long.
pub const SLOT: Duration = Duration::from_secs(60);

/// Who waits longer while all links are used makes one yield.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The same for a visitor that just advertised: it sleeps again before the other patience is over.
const VISITOR_PATIENCE: Duration = Duration::from_secs(3);

/// An advertisement of a visitor tells of a device that is awake for so long.
const FRESH: Duration = Duration::from_secs(10);

/// Attempts to connect that last longer have failed, whatever becomes of them.
pub const CONNECT_BOUND: Duration = Duration::from_secs(60);

/// Waiting so long comes before any share.
const OVERDUE: Duration = Duration::from_secs(600);

/// Who does not yield within this time is asked again, or another one is.
const YIELD_BOUND: Duration = Duration::from_secs(15);

/// A stream whose link lasts less has failed: BlueZ says "connected" also where there is no link.
const SHORT_LINK: Duration = Duration::from_secs(10);

/// So many failures in a row send a device to the end; the first few are common among many devices and pass.
const FAILURES: u32 = 3;

/// So many visitors come before one other.
const VISITS_IN_A_ROW: u32 = 3;

/// Link time counts half as much after this many seconds.
const HALF_LIFE_SECONDS: f64 = 600.0;

/// What a device does with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wants to stay: a chest strap, an oximeter.
    Streams,
    /// Wakes, delivers and goes: a cuff, a scale. Asks anew with each advertisement.
    Visits,
    /// Is asked, answers and is left; comes again.
    Polls,
}

/// What the driver does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Connect to this device, and tell how it ended.
    Connect(usize),
    /// Give up the link of this device, since others wait; tell when it is free.
    Yield(usize),
}

/// The turns of one adapter. Devices are small numbers, of which the caller has a bounded set.
#[derive(Debug)]
pub struct Turns {
    max_links: usize,
    devices: BTreeMap<usize, Device>,
    visits_in_a_row: u32,
    last: Lane,
    waited_longest: Duration,
}

#[derive(Debug)]
struct Device {
    kind: Kind,
    state: State,
    failures: u32,
    /// Link time of links that ended.
    held: Duration,
    /// The same in seconds, where what is long ago counts less; as of the instant.
    lately: (f64, Instant),
}

#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    /// Asked first and last.
    Waits {
        since: Instant,
        heard: Instant,
    },
    Connecting {
        /// When it asked.
        asked: Instant,
        since: Instant,
    },
    Linked {
        since: Instant,
        /// When it was last asked to yield.
        asked: Option<Instant>,
    },
}

/// How a device that waits is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Visitor,
    Plain,
    Failing,
}

impl Turns {
    /// No device yet. No cap below one makes sense.
    pub fn new(max_links: usize) -> Self {
        Turns {
            max_links: max_links.max(1),
            devices: BTreeMap::new(),
            visits_in_a_row: 0,
            last: Lane::Plain,
            waited_longest: Duration::ZERO,
        }
    }

    /// The device wants a link; of one that [`Kind::Visits`]: and was heard just now. One that waits keeps its place, one
    /// that connects or is linked has what it wants.
    pub fn ask(&mut self, now: Instant, device: usize, kind: Kind) {
        let device = self.devices.entry(device).or_insert_with(|| Device::new(now));
        device.kind = kind;
        match &mut device.state {
            State::Waits { heard, .. } => *heard = now,
            state @ State::Idle => *state = State::Waits { since: now, heard: now },
            State::Connecting { .. } | State::Linked { .. } => {}
        }
    }

    /// The device wants no link any more. An attempt to connect counts as given up and not as failed; a link counts
    /// until it is freed.
    pub fn withdraw(&mut self, _now: Instant, device: usize) {
        let Some(device) = self.devices.get_mut(&device) else { return };
        if !matches!(device.state, State::Linked { .. }) {
            device.state = State::Idle;
        }
    }

    /// The device is linked. Also one whose turn is over by then, since a link is a link: it is made to yield at once
    /// where it is one too many.
    pub fn connected(&mut self, now: Instant, device: usize) {
        let device = self.devices.entry(device).or_insert_with(|| Device::new(now));
        if let State::Connecting { asked, .. } = device.state {
            self.waited_longest = self.waited_longest.max(now.saturating_duration_since(asked));
        }
        if !matches!(device.state, State::Linked { .. }) {
            device.state = State::Linked { since: now, asked: None };
        }
        if device.kind != Kind::Streams {
            device.failures = 0;
        }
    }

    /// The attempt to connect failed.
    pub fn failed(&mut self, now: Instant, device: usize) {
        let Some(device) = self.devices.get_mut(&device) else { return };
        match device.state {
            State::Connecting { .. } => {
                device.failures = device.failures.saturating_add(1);
                device.state = State::Idle;
            }
            State::Linked { .. } => {
                device.unlink(now);
                device.failures = device.failures.saturating_add(1);
            }
            // Counted when its bound was over.
            State::Idle | State::Waits { .. } => {}
        }
    }

    /// The link is gone: given up, lost, or closed by the device.
    pub fn freed(&mut self, now: Instant, device: usize) {
        let Some(device) = self.devices.get_mut(&device) else { return };
        match device.state {
            State::Linked { since, .. } => {
                device.unlink(now);
                if device.kind == Kind::Streams {
                    let short = now.saturating_duration_since(since) < SHORT_LINK;
                    device.failures = if short { device.failures.saturating_add(1) } else { 0 };
                }
            }
            State::Connecting { .. } => device.state = State::Idle,
            State::Idle | State::Waits { .. } => {}
        }
    }

    /// What to do now, if anything. Each answer is given once.
    pub fn next(&mut self, now: Instant) -> Option<Turn> {
        self.end_a_hung_attempt(now);
        if self.links() > self.max_links || (self.connecting().is_none() && self.links() == self.max_links) {
            let (at, device) = self.next_yield(now)?;
            if at > now {
                return None;
            }
            if let Some(State::Linked { asked, .. }) = self.devices.get_mut(&device).map(|d| &mut d.state) {
                *asked = Some(now);
            }
            return Some(Turn::Yield(device));
        }
        if self.connecting().is_some() {
            return None;
        }
        let (lane, id) = self.first_in_line(now)?;
        let device = self.devices.get_mut(&id)?;
        if let State::Waits { since, .. } = device.state {
            device.state = State::Connecting { asked: since, since: now };
        }
        self.last = lane;
        self.visits_in_a_row = if lane == Lane::Visitor { self.visits_in_a_row.saturating_add(1) } else { 0 };
        Some(Turn::Connect(id))
    }

    /// When [`Turns::next`] may have an answer although nothing is told until then.
    pub fn next_look(&self, now: Instant) -> Option<Instant> {
        let attempt_ends = self.devices.values().find_map(|device| match device.state {
            State::Connecting { since, .. } => Some(since + CONNECT_BOUND),
            _ => None,
        });
        if self.links() > self.max_links {
            return self.next_yield(now).map(|(at, _)| attempt_ends.map_or(at, |end| end.min(at)));
        }
        if attempt_ends.is_some() || self.waiting() == 0 {
            return attempt_ends;
        }
        if self.links() < self.max_links { Some(now) } else { self.next_yield(now).map(|(at, _)| at) }
    }

    /// The device that is connecting: the radio does not scan meanwhile.
    pub fn connecting(&self) -> Option<usize> {
        let mut connecting = self.devices.iter().filter(|(_, d)| matches!(d.state, State::Connecting { .. }));
        connecting.next().map(|(id, _)| *id)
    }

    /// How many links there are.
    pub fn links(&self) -> usize {
        self.devices.values().filter(|device| matches!(device.state, State::Linked { .. })).count()
    }

    /// How many devices wait for a link.
    pub fn waiting(&self) -> usize {
        self.devices.values().filter(|device| matches!(device.state, State::Waits { .. })).count()
    }

    /// How long the device was linked in all.
    pub fn held(&self, now: Instant, device: usize) -> Duration {
        let Some(device) = self.devices.get(&device) else { return Duration::ZERO };
        match device.state {
            State::Linked { since, .. } => device.held + now.saturating_duration_since(since),
            _ => device.held,
        }
    }

    /// The longest time from asking to a link, with those that still wait.
    pub fn waited_longest(&self, now: Instant) -> Duration {
        let waits = self.devices.values().filter_map(|device| match device.state {
            State::Waits { since: asked, .. } | State::Connecting { asked, .. } => {
                Some(now.saturating_duration_since(asked))
            }
            _ => None,
        });
        waits.fold(self.waited_longest, Duration::max)
    }

    fn end_a_hung_attempt(&mut self, now: Instant) {
        for device in self.devices.values_mut() {
            if matches!(device.state, State::Connecting { since, .. } if since + CONNECT_BOUND <= now) {
                device.failures = device.failures.saturating_add(1);
                device.state = State::Idle;
            }
        }
    }

    fn first_in_line(&self, now: Instant) -> Option<(Lane, usize)> {
        let mut visitor: Option<(Instant, usize)> = None;
        let mut plain: Option<((bool, f64, Instant), usize)> = None;
        let mut failing: Option<(Instant, usize)> = None;
        for (id, device) in &self.devices {
            let State::Waits { since, .. } = device.state else { continue };
            match device.lane(now) {
                Lane::Visitor if visitor.is_none_or(|(first, _)| since < first) => visitor = Some((since, *id)),
                Lane::Failing if failing.is_none_or(|(first, _)| since < first) => failing = Some((since, *id)),
                Lane::Plain => {
                    let in_time = since + OVERDUE > now;
                    let key = (in_time, if in_time { device.lately(now) } else { 0.0 }, since);
                    if plain.is_none_or(|(first, _)| key < first) {
                        plain = Some((key, *id));
                    }
                }
                Lane::Visitor | Lane::Failing => {}
            }
        }
        let overdue = failing.filter(|(since, _)| *since + OVERDUE <= now && self.last != Lane::Failing);
        let others = plain.is_some() || overdue.is_some();
        if let Some((_, id)) = visitor.filter(|_| self.visits_in_a_row < VISITS_IN_A_ROW || !others) {
            return Some((Lane::Visitor, id));
        }
        let plain = plain.map(|(_, id)| (Lane::Plain, id));
        overdue.map(|(_, id)| (Lane::Failing, id)).or(plain).or(failing.map(|(_, id)| (Lane::Failing, id)))
    }

    /// Who is asked to yield next, and when; nobody where nobody waits.
    fn next_yield(&self, now: Instant) -> Option<(Instant, usize)> {
        let one_too_many = self.links() > self.max_links;
        let waits = self.devices.values().filter_map(|device| device.impatient_at(now)).min();
        let wanted = if one_too_many { now } else { waits? };
        let mut holders: Vec<(Instant, Kind, Instant, usize)> = Vec::new();
        let mut wanted = wanted;
        for (id, device) in &self.devices {
            let State::Linked { since, asked } = device.state else { continue };
            // One after another: two that yield for one that waits would leave a link unused.
            wanted = wanted.max(asked.map_or(wanted, |asked| asked + YIELD_BOUND));
            let slot_ends = if one_too_many { since } else { since + SLOT };
            holders.push((slot_ends, device.kind, since, *id));
        }
        let at = holders.iter().map(|holder| holder.0).min()?.max(wanted);
        // A stream comes back to where it was; records in the middle of their transfer do not.
        let rank = |kind: Kind| match kind {
            Kind::Streams => 0,
            Kind::Polls => 1,
            Kind::Visits => 2,
        };
        let may = holders.iter().filter(|holder| holder.0 <= at);
        let (_, _, _, id) = may.min_by_key(|(_, kind, since, _)| (rank(*kind), *since))?;
        Some((at, *id))
    }
}

impl Device {
    fn new(now: Instant) -> Self {
        Device { kind: Kind::Streams, state: State::Idle, failures: 0, held: Duration::ZERO, lately: (0.0, now) }
    }

    fn unlink(&mut self, now: Instant) {
        let State::Linked { since, .. } = self.state else { return };
        let lasted = now.saturating_duration_since(since);
        self.lately = (self.lately(now) + lasted.as_secs_f64(), now);
        self.held += lasted;
        self.state = State::Idle;
    }

    fn lately(&self, now: Instant) -> f64 {
        let (seconds, at) = self.lately;
        seconds * (-now.saturating_duration_since(at).as_secs_f64() / HALF_LIFE_SECONDS).exp2()
    }

    fn lane(&self, now: Instant) -> Lane {
        match self.state {
            _ if self.failures >= FAILURES => Lane::Failing,
            State::Waits { heard, .. } if self.kind == Kind::Visits && now < heard + FRESH => Lane::Visitor,
            _ => Lane::Plain,
        }
    }

    /// From when on a device that waits makes another one yield.
    fn impatient_at(&self, now: Instant) -> Option<Instant> {
        let State::Waits { since, .. } = self.state else { return None };
        Some(match self.lane(now) {
            Lane::Visitor => since + VISITOR_PATIENCE,
            Lane::Plain => since + PATIENCE,
            // Nobody gives up a good link for an attempt that will fail.
            Lane::Failing => since + OVERDUE,
        })
    }
}

#[cfg(test)]
mod tests;
