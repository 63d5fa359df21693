//! Crash points for the fault tests (`make faults`, docs/testing.md): named places where the process can be made to die
//! as by kill -9. They exist with the feature `failpoints` only; without it the macro is nothing.
//!
//! `FAILPOINTS` arms them (the `fail` crate's syntax): `store.fdatasync.before=7*off->return` dies at the eighth pass.
//! `clock=return(FILE)`, `store.generation_bytes=return(N)`, `store.max_bytes=return(N)` and `coverage.every_ms=return(N)`
//! give what else a test sets.

/// Dies here when this point is armed. The name stands in `POINTS`, or the code does not compile.
#[cfg(feature = "failpoints")]
macro_rules! crash_point {
    ($name:literal) => {{
        const _: () = assert!(crate::crash::is_named($name), "a crash point that is not in POINTS");
        crate::crash::pass($name)
    }};
}

#[cfg(not(feature = "failpoints"))]
#[cfg_attr(not(feature = "gateway"), allow(unused_macros, reason = "only the gateway has points"))]
macro_rules! crash_point {
    ($name:literal) => {};
}

/// Every crash point, in the order of the data path. The fault rig dies at each of them.
#[cfg(feature = "failpoints")]
pub const POINTS: &[&str] = &[
    // a record: into sled, through its log, onto the disk
    "store.append.before",
    "store.append.after",
    "store.flush.before",
    "store.flush.after",
    "store.fdatasync.before",
    "store.fdatasync.after",
    // the promise to the source
    "intake.receipt.before",
    "intake.receipt.after",
    "mqtt.ack.before",
    "mqtt.ack.after",
    // a range, and what becomes of it
    "store.range.before",
    "store.range.after",
    "forward.send.before",
    "clickhouse.send.before",
    "clickhouse.send.after",
    "kafka.send.before",
    "kafka.send.after",
    "kafka.commit.before",
    "kafka.commit.after",
    "file.append.before",
    "file.append.after",
    "file.sync.after",
    "file.rename.before",
    "file.rename.after",
    "forward.acknowledged.before",
    "forward.acknowledged.after",
    "store.cursor.before",
    "store.cursor.after",
    // a generation is made, gets its name, and goes
    "store.birth.before",
    "store.birth.made",
    "store.rename.before",
    "store.rename.after",
    "store.birth.after",
    "store.death.before",
    "store.death.renamed",
    "store.death.after",
];

/// Whether `POINTS` names it; at compile time.
#[cfg(feature = "failpoints")]
pub const fn is_named(name: &str) -> bool {
    let mut nth = 0;
    while nth < POINTS.len() {
        if is_same(POINTS[nth].as_bytes(), name.as_bytes()) {
            return true;
        }
        nth += 1;
    }
    false
}

#[cfg(feature = "failpoints")]
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Reads `FAILPOINTS`, once at the start of the process.
#[cfg(feature = "failpoints")]
pub fn arm() {
    // Its end would disarm the points.
    std::mem::forget(fail::FailScenario::setup());
}

/// Comes by a point: ends this process at once if it is armed. No destructor runs and nothing is flushed.
#[cfg(feature = "failpoints")]
pub fn pass(name: &str) {
    let killed =
        fail::eval(name, |_| rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL));
    // The signal ends this thread before it gets here.
    debug_assert!(killed.is_none());
}

/// What a test gives under this name.
#[cfg(feature = "failpoints")]
pub fn given(name: &str) -> Option<String> {
    fail::eval(name, |text| text).flatten()
}

/// A limit: the test's, else the usual one. So small ones that no configuration may have make rare things frequent.
#[cfg(feature = "failpoints")]
pub fn tuned(name: &str, usual: u64) -> u64 {
    given(name).and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A limit: without the feature always the usual one.
#[cfg(not(feature = "failpoints"))]
pub const fn tuned(_name: &str, usual: u64) -> u64 {
    usual
}
