//! The rig: real parts on loopback, each started for one test and stopped by its own id.

#[cfg(feature = "clickhouse")]
pub(crate) mod clickhouse;
pub(crate) mod events;
pub(crate) mod lane;
#[cfg(feature = "clickhouse")]
pub(crate) mod tls;

/// A part that is not installed: the test is skipped, or fails where everything is required.
pub(crate) fn missing(part: &str) {
    assert!(std::env::var_os("BIOGATE_TEST_REQUIRE_ALL").is_none_or(|all| all != "1"), "{part} is not installed");
    #[expect(clippy::print_stdout, reason = "who runs the tests must see what was skipped")]
    {
        println!("skipped: {part} not installed");
    }
}
