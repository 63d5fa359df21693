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
    for (name, tally) in &ledger.destinations {
        for (key, count) in [
            ("before", tally.before),
            ("delivered", tally.delivered),
            ("rejected", tally.rejected),
            ("parked", tally.parked),
            ("evicted", tally.evicted),
            ("damaged", tally.damaged),
            ("waiting", tally.waiting),
        ] {
            // What had gone before a destination was configured is nothing for most, and then not worth a word.
            if key == "before" && count == 0 {
                continue;
            }
            // Writing to a String cannot fail.
            let _infallible = write!(line, " {name}.{key}={count}");
        }
    }
    line
}
