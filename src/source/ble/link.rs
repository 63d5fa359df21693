//! PURE The life of one device: told what happened and the time, it says what to do. No bus, no radio, no clock.
//!
//! ```text
//!            heard            turn              linked              subscribed        a value
//!  Unseen ─────────> Advertising ────> Connecting ────> Discovering ────────> Subscribed ────> Streaming
//!     ^                  ^                 │ failed, or a deadline │                │ silent       │ dropped, silent
//!     └── unheard ───────┴──── over ─── Backoff <──────────────────┴────────────────┴──────────────┘
//!                                          Blocked: only a person can help; tried again now and then
//! ```
//!
//! Health is a value that came, not "connected": BlueZ says Connected of links that are gone. So each state but the first
//! two has an end of its own, and a device that streams is silent when it misses several of its own intervals.

use std::time::Duration;

use tokio::time::Instant;

use crate::source::backoff::Backoff;
use crate::source::ble::Plan;
use crate::source::ble::turns::Kind;

/// Unheard for so long, a device that waits for its turn has gone.
const UNHEARD: Duration = Duration::from_secs(60);

/// A link is made within this or not at all; BlueZ itself gives up after about 25 s, and others wait meanwhile.
const CONNECT: Duration = Duration::from_secs(20);

/// Services are resolved and subscribed within this; a device with a large table takes up to ten seconds.
const DISCOVER: Duration = Duration::from_secs(25);

/// The first value of a stream whose rhythm is not known comes within this; after misses each first value of any stream
/// has twice as long, up to [`LONGEST_FIRST`].
const FIRST_VALUE: Duration = Duration::from_secs(20);
const LONGEST_FIRST: Duration = Duration::from_secs(600);

/// A visitor that has said nothing for so long has said all.
const LINGER: Duration = Duration::from_secs(30);

/// So many of its own intervals without a value are silence, within these bounds.
const MISSED: u32 = 8;
const SHORTEST_SILENCE: Duration = Duration::from_secs(10);
const LONGEST_SILENCE: Duration = Duration::from_secs(600);

/// A transient failure is tried again at once so often.
const AT_ONCE: u32 = 2;

/// After so many failures in a row BlueZ is made to forget the device: its cache or a phantom link may be the cause.
const FORGET_AFTER: u32 = 3;

/// The same after so many subscriptions in a row without a value: that is how a phantom link looks.
const FORGET_AFTER_MUTE: u32 = 2;

/// A blocked device is tried again after this: somebody may have paired it.
const BLOCKED: Duration = Duration::from_secs(300);

/// Where a device is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// Not heard since the start, or not for a minute.
    Unseen,
    /// Heard; it waits for the radio.
    Advertising {
        /// When it was last heard.
        heard: Instant,
    },
    /// BlueZ makes the link.
    Connecting {
        /// When that has failed.
        until: Instant,
    },
    /// The link is up; BlueZ resolves the services, then the profile's characteristics are subscribed.
    Discovering {
        /// When that has failed.
        until: Instant,
    },
    /// Subscribed, and no value yet. Of a visitor: linked, with nothing more to say until the linger is over.
    Subscribed {
        /// When it is silent.
        until: Instant,
        /// How many values there were before.
        values: u64,
    },
    /// Values come.
    Streaming {
        /// When the last look was, and how many values there were then.
        looked: Instant,
        values: u64,
        /// The last time a look found new values.
        last: Instant,
    },
    /// Waits, with jitter, before it may ask again.
    Backoff {
        /// When the wait is over.
        until: Instant,
        /// What for.
        pause: Pause,
    },
    /// Only a person can help.
    Blocked {
        /// What is wrong and what to do.
        reason: String,
        /// When it is tried once more.
        until: Instant,
    },
}

/// Why a device waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// Something failed.
    Failed,
    /// It has said all, until the next poll or visit.
    Done,
    /// Others want the radio.
    Yielded,
}

/// What can happen to a device.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happened {
    /// Its advertisement was heard.
    Heard,
    /// The radio is its own now.
    Turn,
    /// The link is up.
    Linked,
    /// Everything that the profile asks for is subscribed; how many values there were before.
    Subscribed(u64),
    /// A look at its values: how many since the start.
    Values(u64),
    /// A try failed.
    Failed(Failure),
    /// The link went down.
    Dropped,
    /// Others want the radio.
    Yield,
    /// It has said all: its characteristics are read, its records are in.
    Finished {
        /// When it is asked again, at the earliest.
        again: Duration,
    },
    /// The adapter, or bluetoothd, is gone.
    RadioGone,
    /// Nothing but time.
    Time,
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Common near many devices, and gone at the next try.
    Transient(String),
    /// It is out of reach, or will advertise again at once: waiting to hear it is better than trying blindly.
    Gone(String),
    /// Anything else that may pass.
    Passing(String),
    /// Nothing but a person helps.
    Lasting(String),
}

/// What the driver shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Do {
    /// Ask for the radio.
    Ask,
    /// Ask no longer, or give the radio back.
    Withdraw,
    /// Make the link.
    Connect,
    /// List what the device has and subscribe what the profile wants.
    Subscribe,
    /// End the link or the try.
    Disconnect {
        /// Make BlueZ forget the device too.
        forget: bool,
    },
    /// Count and say that it was silent.
    Silent(Duration),
    /// Count and say that a try failed; before the radio is given back, which knows by this how it went.
    Failed(String),
    /// Count and say that the link was lost.
    Lost,
}

/// One device's state and what it has learned.
#[derive(Debug)]
pub(super) struct Link {
    kind: Kind,
    state: State,
    backoff: Backoff,
    /// Failures in a row; a value ends them.
    failures: u32,
    /// Subscriptions in a row without a first value.
    mute: u32,
    /// The interval of its values, smoothed.
    interval: Option<Duration>,
    /// The entry's own word for silence.
    silence: Option<Duration>,
    last_heard: Option<Instant>,
}

impl Link {
    pub(super) fn new(kind: Kind, silence: Option<Duration>) -> Self {
        let backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(120));
        Link { kind, state: State::Unseen, backoff, failures: 0, mute: 0, interval: None, silence, last_heard: None }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    #[cfg(test)]
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Whether it is between the link and the last subscription.
    pub(super) fn is_discovering(&self) -> bool {
        matches!(self.state, State::Discovering { .. })
    }

    /// Whether values come.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// When it must be told the time at the latest.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match &self.state {
            State::Unseen => None,
            State::Advertising { heard } => Some(*heard + UNHEARD),
            State::Connecting { until }
            | State::Discovering { until }
            | State::Subscribed { until, .. }
            | State::Backoff { until, .. }
            | State::Blocked { until, .. } => Some(*until),
            State::Streaming { looked, .. } => Some(*looked + self.silence_after() / 2),
        }
    }

    /// How long without a value is silence.
    pub(super) fn silence_after(&self) -> Duration {
        let learned = || Some((self.interval? * MISSED).clamp(SHORTEST_SILENCE, LONGEST_SILENCE));
        self.silence.or_else(learned).unwrap_or(FIRST_VALUE)
    }

    /// Takes what happened and says what to do. `random` lies in 0..1.
    pub(super) fn on(&mut self, now: Instant, happened: Happened, random: f64) -> Vec<Do> {
        if happened == Happened::Heard {
            self.last_heard = Some(now);
        }
        match (self.state.clone(), happened) {
            (_, Happened::RadioGone) => self.radio_gone(),
            (State::Unseen, Happened::Heard) => self.ask(now),
            // A visitor is awake for some seconds: its turn must come before those that only wait.
            (State::Advertising { .. }, Happened::Heard) => {
                self.state = State::Advertising { heard: now };
                if self.kind == Kind::Visits { vec![Do::Ask] } else { Vec::new() }
            }
            (State::Advertising { .. }, Happened::Turn) => {
                self.state = State::Connecting { until: now + CONNECT };
                vec![Do::Connect]
            }
            // A turn that was given twice: it has the radio.
            (
                State::Connecting { .. }
                | State::Discovering { .. }
                | State::Subscribed { .. }
                | State::Streaming { .. },
                Happened::Turn,
            ) => Vec::new(),
            // A turn that comes too late is given back.
            (_, Happened::Turn) => vec![Do::Disconnect { forget: false }, Do::Withdraw],
            (State::Connecting { .. }, Happened::Linked) => {
                self.state = State::Discovering { until: now + DISCOVER };
                vec![Do::Subscribe]
            }
            (State::Connecting { .. } | State::Discovering { .. }, Happened::Failed(failure)) => {
                self.fail(now, failure, random)
            }
            (State::Connecting { .. } | State::Discovering { .. }, Happened::Dropped) => {
                self.fail(now, Failure::Transient("the link went down at once".to_owned()), random)
            }
            (State::Discovering { .. }, Happened::Subscribed(values)) => {
                self.state = State::Subscribed { until: now + self.first_value(), values };
                Vec::new()
            }
            (State::Subscribed { values: before, .. }, Happened::Values(values)) if values > before => {
                self.first(now, values)
            }
            (State::Streaming { .. }, Happened::Values(values)) => self.look(now, values, random),
            (State::Subscribed { .. } | State::Streaming { .. }, Happened::Dropped) => self.dropped(now, random),
            (State::Subscribed { .. } | State::Streaming { .. }, Happened::Failed(failure)) => {
                self.fail(now, failure, random)
            }
            (State::Subscribed { .. } | State::Streaming { .. }, Happened::Yield) => {
                self.pause(now, Duration::from_secs(1), Pause::Yielded)
            }
            (State::Subscribed { .. } | State::Streaming { .. }, Happened::Finished { again }) => {
                self.failures = 0;
                self.backoff.reset();
                self.pause(now, again, Pause::Done)
            }
            (_, Happened::Time) => self.time(now, random),
            // What no longer concerns this state: an advertisement while linked, a drop that was told twice.
            (
                _,
                Happened::Heard
                | Happened::Linked
                | Happened::Subscribed(_)
                | Happened::Values(_)
                | Happened::Failed(_)
                | Happened::Dropped
                | Happened::Yield
                | Happened::Finished { .. },
            ) => Vec::new(),
        }
    }

    fn ask(&mut self, now: Instant) -> Vec<Do> {
        self.state = State::Advertising { heard: now };
        vec![Do::Ask]
    }

    fn radio_gone(&mut self) -> Vec<Do> {
        let had_it = !matches!(self.state, State::Unseen | State::Backoff { .. } | State::Blocked { .. });
        self.state = State::Unseen;
        if had_it { vec![Do::Withdraw] } else { Vec::new() }
    }

    /// The end of the state's own wait, or nothing.
    fn time(&mut self, now: Instant, random: f64) -> Vec<Do> {
        if self.wake_at().is_none_or(|at| now < at) {
            return Vec::new();
        }
        match self.state.clone() {
            State::Unseen | State::Streaming { .. } => Vec::new(),
            State::Advertising { .. } => {
                self.state = State::Unseen;
                vec![Do::Withdraw]
            }
            State::Connecting { .. } => self.fail(now, Failure::Passing("no link in time".to_owned()), random),
            State::Discovering { .. } => {
                self.fail(now, Failure::Passing("its services are not resolved in time".to_owned()), random)
            }
            State::Subscribed { .. } if self.kind == Kind::Streams => self.mute(now, random),
            // A visitor that lingers without a word has nothing to say: no failure.
            State::Subscribed { .. } => self.pause(now, Duration::from_secs(5), Pause::Done),
            State::Backoff { .. } | State::Blocked { .. } => {
                // Advertisements are missed by the thousand: one heard lately is as good as a new one.
                match self.last_heard.filter(|heard| now.duration_since(*heard) < UNHEARD) {
                    Some(_) => self.ask(now),
                    None => {
                        self.state = State::Unseen;
                        Vec::new()
                    }
                }
            }
        }
    }

    fn first_value(&self) -> Duration {
        match self.kind {
            Kind::Streams => {
                let usual = self.silence_after();
                (usual * 2u32.saturating_pow(self.mute.min(8))).min(LONGEST_FIRST.max(usual))
            }
            Kind::Visits | Kind::Polls => LINGER,
        }
    }

    fn first(&mut self, now: Instant, values: u64) -> Vec<Do> {
        self.failures = 0;
        self.mute = 0;
        self.backoff.reset();
        self.state = match self.kind {
            Kind::Streams => State::Streaming { looked: now, values, last: now },
            Kind::Visits | Kind::Polls => State::Subscribed { until: now + LINGER, values },
        };
        Vec::new()
    }

    /// Compares the count of values with that of the last look.
    fn look(&mut self, now: Instant, values: u64, random: f64) -> Vec<Do> {
        let State::Streaming { looked, values: before, last } = self.state else { return Vec::new() };
        let new = values.saturating_sub(before);
        if new > 0 {
            let interval = now.duration_since(looked) / u32::try_from(new).unwrap_or(u32::MAX);
            self.interval = Some(self.interval.map_or(interval, |known| (known * 3 + interval) / 4));
            self.state = State::Streaming { looked: now, values, last: now };
            return Vec::new();
        }
        let silent_for = now.duration_since(last);
        if silent_for < self.silence_after() {
            self.state = State::Streaming { looked: now, values, last };
            return Vec::new();
        }
        let mut todo = vec![Do::Silent(silent_for)];
        todo.extend(self.fail(now, Failure::Gone("it fell silent".to_owned()), random));
        todo
    }

    /// Subscribed, and no first value: perhaps a link that only BlueZ believes in, perhaps a slow sensor.
    fn mute(&mut self, now: Instant, random: f64) -> Vec<Do> {
        let waited = self.first_value();
        self.mute += 1;
        let mut todo = vec![Do::Silent(waited)];
        let forget = self.mute.is_multiple_of(FORGET_AFTER_MUTE);
        todo.extend(self.fail_and(now, Failure::Passing("subscribed, but no value came".to_owned()), random, forget));
        todo
    }

    fn dropped(&mut self, now: Instant, random: f64) -> Vec<Do> {
        if self.kind != Kind::Streams {
            // A cuff hangs up when it has said all.
            return self.pause(now, Duration::from_secs(1), Pause::Done);
        }
        let mut todo = vec![Do::Lost];
        todo.extend(self.fail(now, Failure::Gone("the link was lost".to_owned()), random));
        todo
    }

    fn pause(&mut self, now: Instant, wait: Duration, pause: Pause) -> Vec<Do> {
        self.state = State::Backoff { until: now + wait, pause };
        vec![Do::Disconnect { forget: false }, Do::Withdraw]
    }

    fn fail(&mut self, now: Instant, failure: Failure, random: f64) -> Vec<Do> {
        self.fail_and(now, failure, random, false)
    }

    fn fail_and(&mut self, now: Instant, failure: Failure, random: f64, forget: bool) -> Vec<Do> {
        self.failures += 1;
        let forget = forget || self.failures.is_multiple_of(FORGET_AFTER);
        let (at_once, why) = match failure {
            Failure::Lasting(reason) => {
                self.state = State::Blocked { reason: reason.clone(), until: now + BLOCKED };
                return vec![Do::Disconnect { forget: false }, Do::Failed(reason), Do::Withdraw];
            }
            Failure::Gone(why) => {
                self.state = State::Unseen;
                return vec![Do::Disconnect { forget }, Do::Failed(why), Do::Withdraw];
            }
            Failure::Transient(why) => (self.failures <= AT_ONCE, why),
            Failure::Passing(why) => (false, why),
        };
        let mut todo = vec![Do::Disconnect { forget }, Do::Failed(why), Do::Withdraw];
        if at_once {
            todo.extend(self.ask(now));
        } else {
            self.state = State::Backoff { until: now + self.backoff.next_wait(random), pause: Pause::Failed };
        }
        todo
    }
}

/// How a profile's device uses the radio.
pub(super) fn kind_of(plan: &Plan) -> Kind {
    use crate::interpret::profile::Get;
    let any = |get: Get| plan.channels.iter().any(|channel| channel.get == get && channel.emits);
    if plan.link.records.is_some() {
        Kind::Visits
    } else if any(Get::Notify) {
        Kind::Streams
    } else if any(Get::Poll) {
        Kind::Polls
    } else {
        Kind::Visits
    }
}

mod words;

#[cfg(test)]
mod tests;
