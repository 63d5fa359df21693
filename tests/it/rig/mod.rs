//! The rig: real parts on loopback, each started for one test and stopped by its own id.

pub(crate) mod bluez;
pub(crate) mod bluez_words;
pub(crate) mod clickhouse;
pub(crate) mod events;
pub(crate) mod gateway;
#[cfg(feature = "kafka")]
pub(crate) mod kafka;
#[cfg(feature = "kafka")]
pub(crate) mod kafka_relay;
pub(crate) mod lane;
pub(crate) mod mosquitto;
pub(crate) mod pty;
pub(crate) mod source;
pub(crate) mod tls;
#[cfg(feature = "ble")]
pub(crate) mod ward;
#[cfg(feature = "clickhouse")]
pub(crate) mod ways;

use std::time::{Duration, Instant};

/// Every wait in a test ends after this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `holds`; panics with `what` at the deadline.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A part that is not installed: the test is skipped, or fails where everything is required.
pub(crate) fn missing(part: &str) {
    assert!(std::env::var_os("BIOGATE_TEST_REQUIRE_ALL").is_none_or(|all| all != "1"), "{part} is not installed");
    #[expect(clippy::print_stdout, reason = "who runs the tests must see what was skipped")]
    {
        println!("skipped: {part} not installed");
    }
}
