//! The ledger as one line of `key=value`, as `demo`, `replay` and a stopping gateway print it.

use std::fmt::Write;

use crate::store::Ledger;

/// `ledger accepted=.. ... NAME.delivered=.. NAME.waiting=..`
pub(super) fn of(ledger: &Ledger) -> String {
    let intake = &ledger.intake;
    let mut line = format!(
        "ledger accepted={} without_event={} refused={} duplicate={} decoded={} made={} implausible={} stored={}",
        intake.accepted,
        intake.without_event,
        intake.refused,
        intake.duplicate,
        intake.decoded,
        intake.made,
        intake.implausible,
        intake.stored,
    );
    if intake.replayed > 0 {
        let _infallible = write!(line, " replayed={}", intake.replayed);
    }
    for (name, tally) in &ledger.destinations {
        for (key, count) in [
            ("before", tally.before),
            ("delivered", tally.delivered),
            ("rejected", tally.rejected),
            ("parked", tally.parked),
            ("passed_over", tally.passed_over),
            ("evicted", tally.evicted),
            ("damaged", tally.damaged),
            ("waiting", tally.waiting),
            ("in_doubt_resent", tally.in_doubt_resent),
        ] {
            // These are nothing for most, and then not worth a word.
            if ["before", "passed_over", "in_doubt_resent"].contains(&key) && count == 0 {
                continue;
            }
            // Writing to a String cannot fail.
            let _infallible = write!(line, " {name}.{key}={count}");
        }
    }
    line
}
