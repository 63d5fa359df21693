//! Which destination of an order gets the range: the first healthy one, and never two without saying so. Pure, told the
//! time.
//!
//! The destinations of an order share one cursor, so at most one range is in hand. A try that certainly did not arrive
//! costs nothing: after a while the next destination gets the range. A range that **may** have arrived is *in doubt*: it
//! stays with its destination for `in_doubt`, in the hope of an answer; then the next one gets it with the same event
//! ids, and what is delivered there is counted `in_doubt_resent`.
//!
//! Who may have rows of the range in hand is durable ([`Standing`]) before the first try at another destination.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::Sequence;

/// The name of the one cursor, in the store and in the ledger.
pub const CURSOR: &str = "failover";

/// The state key of the standing.
pub(super) const STANDING: &str = "failover";

/// While none of the order takes anything each is given longer than the one before, up to this: every change is a
/// record in the store.
const LONGEST_AFTER: Duration = Duration::from_secs(300);

/// How long the first may be asked to prove itself after it has failed again and again.
const LONGEST_BACK_AFTER: Duration = Duration::from_secs(4 * 3600);

/// The `[failover]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Names of destinations, the preferred one first.
    pub order: Vec<String>,
    /// How long a range that may have arrived waits before another destination gets it.
    pub in_doubt: Duration,
    /// How long a destination may refuse before the next one gets the range.
    pub after: Duration,
    /// How long an earlier destination has to be well before it takes over again.
    pub back_after: Duration,
}

impl Settings {
    /// The usual times for this order.
    pub fn new(order: Vec<String>) -> Self {
        Settings {
            order,
            in_doubt: Duration::from_secs(3600),
            after: Duration::from_secs(15),
            back_after: Duration::from_secs(300),
        }
    }
}

/// What has to be known after a crash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Standing {
    /// Whom the range in hand is tried at; it may have arrived there.
    pub(super) active: String,
    /// The first sequence of the range that the rest is about.
    pub(super) range: Sequence,
    /// Who else may have rows of it.
    pub(super) doubted: Vec<String>,
    /// The gateway stopped in order, and `active` certainly has nothing of it.
    pub(super) clear: bool,
}

impl Standing {
    /// Whether a crash would learn the same from both.
    pub(super) fn says_as_much_as(&self, other: &Standing) -> bool {
        let nothing_of_the_range = |standing: &Standing| standing.doubted.is_empty() && !standing.clear;
        self == other || (self.active == other.active && nothing_of_the_range(self) && nothing_of_the_range(other))
    }
}

/// The machine. All times are durations since any fixed instant.
#[derive(Debug)]
pub(super) struct Failover {
    settings: Settings,
    rng: fastrand::Rng,
    active: usize,
    /// Others that may have rows of the range in hand. Also names that have left the order since.
    doubted: Vec<String>,
    /// The active one may have rows of it.
    in_doubt: bool,
    /// Since when the active one gets nothing through.
    failing_since: Option<Duration>,
    /// Destinations given up since something was delivered.
    given_up: u32,
    /// 1 to 1.5, drawn anew with every change: a thousand hubs must not change in step.
    spread: f64,
    back_after: Duration,
    returned_at: Option<Duration>,
}

impl Failover {
    /// Goes on where the standing says. `in_hand` is the first sequence of a range that was cut by an earlier process.
    pub(super) fn new(
        settings: Settings,
        standing: Option<Standing>,
        in_hand: Option<Sequence>,
        seed: u64,
    ) -> Failover {
        let back_after = settings.back_after;
        let mut failover = Failover {
            settings,
            rng: fastrand::Rng::with_seed(seed),
            active: 0,
            doubted: Vec::new(),
            in_doubt: false,
            failing_since: None,
            given_up: 0,
            spread: 1.0,
            back_after,
            returned_at: None,
        };
        failover.draw();
        let Standing { active, range, doubted, clear } = standing.unwrap_or_default();
        let place = failover.settings.order.iter().position(|name| *name == active);
        failover.active = place.unwrap_or(0);
        if let Some(first) = in_hand {
            let same = range == first;
            failover.in_doubt = !(clear && same);
            failover.doubted = if same { doubted } else { Vec::new() };
            if place.is_none() && !active.is_empty() && failover.in_doubt {
                // It has left the order, and may have the range all the same.
                failover.doubt(active);
                failover.in_doubt = false;
            }
        }
        failover
    }

    /// Whose turn it is.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// How long an earlier destination has to be well before it takes over.
    pub(super) fn back_after(&self) -> Duration {
        self.back_after
    }

    /// What to write down before the active one is tried with the range that begins here.
    pub(super) fn standing(&self, range: Sequence) -> Standing {
        Standing { active: self.name(), range, doubted: self.doubted.clone(), clear: false }
    }

    /// What to write down at an orderly stop with a range in hand that the active one certainly has nothing of.
    pub(super) fn clear_standing(&self, range: Sequence) -> Option<Standing> {
        (!self.in_doubt).then(|| Standing { clear: true, ..self.standing(range) })
    }

    /// A range was cut that nobody has seen.
    pub(super) fn begin(&mut self) {
        self.doubted.clear();
        self.in_doubt = false;
        self.failing_since = None;
    }

    /// A try that began at `began` failed. `in_doubt`: rows of it may have arrived.
    pub(super) fn failed(&mut self, began: Duration, in_doubt: bool) {
        self.failing_since.get_or_insert(began);
        self.in_doubt |= in_doubt;
    }

    /// When the next destination gets the range, if nothing changes until then.
    pub(super) fn give_up_at(&self) -> Option<Duration> {
        Some(self.failing_since?.saturating_add(self.patience()))
    }

    /// When a try that began at `began` and has not ended is given up. Until it ends it is in doubt.
    pub(super) fn hangs_at(&self, began: Duration) -> Duration {
        self.failing_since.unwrap_or(began).saturating_add(self.settings.in_doubt.max(self.settings.after))
    }

    fn patience(&self) -> Duration {
        let is_known = self.doubted.contains(&self.name());
        if self.in_doubt && !is_known {
            // Whoever waits so long for certainty waits no second time for the same destination.
            return self.settings.in_doubt;
        }
        let longest = LONGEST_AFTER.max(self.settings.after);
        self.settings.after.saturating_mul(1 << self.given_up.min(16)).min(longest).mul_f64(self.spread)
    }

    /// The next destination's turn. Its standing has to be durable before it is tried.
    pub(super) fn give_up(&mut self, now: Duration) {
        if self.in_doubt {
            self.doubt(self.name());
        }
        if let Some(returned) = self.returned_at.take() {
            // It was well for so long and failed again soon: it has to be well for longer.
            let soon = now.saturating_sub(returned) < self.back_after.saturating_mul(4);
            let longer = self.back_after.saturating_mul(2).min(LONGEST_BACK_AFTER.max(self.settings.back_after));
            self.back_after = if soon { longer } else { self.settings.back_after };
        }
        self.active = (self.active + 1) % self.settings.order.len().max(1);
        self.given_up = self.given_up.saturating_add(1);
        self.in_doubt = false;
        self.failing_since = None;
        self.draw();
    }

    /// The range was delivered; returns how many others may have it too.
    pub(super) fn delivered(&mut self) -> u64 {
        let active = self.name();
        let others = self.doubted.iter().filter(|name| **name != active).count() as u64;
        self.given_up = 0;
        self.begin();
        others
    }

    /// Between two ranges: does an earlier destination take over? `well_for` says of each how long it has been well. Its
    /// standing has to be durable before it is tried.
    pub(super) fn go_back(&mut self, now: Duration, well_for: &[Option<Duration>]) -> bool {
        let needed = self.back_after.mul_f64(self.spread);
        let earlier = well_for.iter().take(self.active);
        let Some(place) = earlier.enumerate().find_map(|(place, well)| (*well >= Some(needed)).then_some(place)) else {
            return false;
        };
        self.active = place;
        self.returned_at = Some(now);
        self.draw();
        true
    }

    fn name(&self) -> String {
        self.settings.order.get(self.active).cloned().unwrap_or_default()
    }

    fn doubt(&mut self, name: String) {
        if !self.doubted.contains(&name) {
            self.doubted.push(name);
        }
    }

    fn draw(&mut self) {
        self.spread = 1.0 + 0.5 * self.rng.f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> Settings {
        Settings::new(vec!["bus".to_owned(), "warehouse".to_owned()])
    }

    fn fresh() -> Failover {
        Failover::new(settings(), None, None, 7)
    }

    #[test]
    fn what_certainly_did_not_arrive_goes_to_the_next_soon_and_in_doubt_late() {
        let mut certain = fresh();
        assert_eq!(certain.give_up_at(), None, "nothing failed yet");
        certain.failed(SECOND, false);
        certain.failed(9 * SECOND, false);
        let soon = certain.give_up_at().unwrap();
        assert!(soon >= 16 * SECOND && soon <= 24 * SECOND, "{soon:?}");
        let mut doubtful = fresh();
        doubtful.failed(SECOND, true);
        // A later try that certainly did not arrive says nothing of the earlier one.
        doubtful.failed(9 * SECOND, false);
        assert_eq!(doubtful.give_up_at(), Some(3_601 * SECOND));
    }

    #[test]
    fn only_what_may_lie_at_two_places_is_counted() {
        let mut failover = fresh();
        failover.failed(SECOND, false);
        failover.give_up(20 * SECOND);
        assert_eq!((failover.active(), failover.delivered()), (1, 0));
        failover.failed(30 * SECOND, true);
        failover.give_up(4_000 * SECOND);
        assert_eq!((failover.active(), failover.delivered()), (0, 1));
        failover.failed(5_000 * SECOND, true);
        failover.give_up(9_000 * SECOND);
        failover.failed(9_001 * SECOND, false);
        failover.give_up(9_050 * SECOND);
        // It came back to the one that was in doubt: nobody else has it, and nobody waits an hour again.
        failover.failed(9_051 * SECOND, true);
        assert!(failover.give_up_at().unwrap() < 9_300 * SECOND);
        assert_eq!((failover.active(), failover.delivered()), (0, 0));
    }

    #[test]
    fn a_crash_knows_who_may_have_the_range() {
        let mut failover = fresh();
        failover.failed(SECOND, true);
        failover.give_up(3_700 * SECOND);
        let standing = failover.standing(41);
        let mut next = Failover::new(settings(), Some(standing.clone()), Some(41), 1);
        assert_eq!(next.active(), 1);
        next.failed(SECOND, false);
        assert_eq!(next.give_up_at(), Some(3_601 * SECOND), "the process before may have sent it there too");
        assert_eq!(next.delivered(), 1);
        let mut other = Failover::new(settings(), Some(standing.clone()), Some(90), 1);
        assert_eq!(other.delivered(), 0, "the doubt was about another range");
        // The warehouse left the order: it may have the range all the same.
        let order = Settings::new(vec!["bus".to_owned(), "archive".to_owned()]);
        let mut changed = Failover::new(order, Some(standing), Some(41), 1);
        assert_eq!((changed.active(), changed.delivered()), (0, 1));
    }

    #[test]
    fn an_orderly_stop_leaves_no_doubt_about_what_never_arrived() {
        let mut failover = fresh();
        failover.failed(SECOND, false);
        let clear = failover.clear_standing(41).unwrap();
        let mut next = Failover::new(settings(), Some(clear.clone()), Some(41), 1);
        next.failed(SECOND, false);
        assert!(next.give_up_at().unwrap() < 60 * SECOND);
        let mut other = Failover::new(settings(), Some(clear), Some(42), 1);
        other.failed(SECOND, false);
        assert_eq!(other.give_up_at(), Some(3_601 * SECOND));
        failover.failed(SECOND, true);
        assert_eq!(failover.clear_standing(41), None);
    }

    #[test]
    fn when_all_are_down_the_turns_grow_longer_and_a_delivery_ends_that() {
        let mut failover = fresh();
        let mut now = SECOND;
        let mut turns = Vec::new();
        for _ in 0..8 {
            failover.failed(now, false);
            let at = failover.give_up_at().unwrap();
            turns.push(at - now);
            now = at;
            failover.give_up(now);
        }
        assert!(turns[0] <= 23 * SECOND && turns[7] >= 300 * SECOND && turns[7] <= 450 * SECOND, "{turns:?}");
        failover.delivered();
        failover.failed(now, false);
        assert!(failover.give_up_at().unwrap() - now <= 23 * SECOND);
    }

    #[test]
    fn the_first_comes_back_when_it_has_been_well_and_must_prove_more_when_it_fails_again() {
        let mut failover = fresh();
        let mut now = SECOND;
        let mut needed = Vec::new();
        for _ in 0..9 {
            failover.failed(now, false);
            now = failover.give_up_at().unwrap();
            failover.give_up(now);
            failover.delivered();
            let well = (1..).map(|minutes| minutes * 60 * SECOND).find(|well| failover.go_back(now, &[Some(*well)]));
            needed.push(well.unwrap());
            assert!(!failover.go_back(now, &[None]));
            now += 10 * SECOND;
        }
        assert!(needed[0] >= 300 * SECOND && needed[0] <= 480 * SECOND, "{needed:?}");
        assert!(needed[2] >= 1_200 * SECOND, "{needed:?}");
        assert!(needed[8] <= LONGEST_BACK_AFTER.mul_f64(1.5) + 60 * SECOND, "{needed:?}");
        // It held for long: the next time it is believed as before.
        now += 1_000_000 * SECOND;
        failover.failed(now, false);
        failover.give_up(now + 30 * SECOND);
        assert_eq!(failover.back_after(), settings().back_after);
    }

    #[test]
    fn a_thousand_hubs_do_not_change_in_step() {
        let mut seconds = [0_u32; 60];
        for seed in 0..1_000 {
            let mut failover = Failover::new(settings(), None, None, seed);
            failover.failed(SECOND, false);
            seconds[failover.give_up_at().unwrap().as_secs() as usize] += 1;
        }
        assert!(seconds.iter().all(|count| *count < 200), "{seconds:?}");
    }
}
