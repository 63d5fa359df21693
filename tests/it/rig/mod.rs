//! What tests share: real servers on loopback, and values to send.

#[cfg(feature = "clickhouse")]
pub(crate) mod clickhouse;
pub(crate) mod events;

/// Says that a test is skipped; with BIOGATE_TEST_REQUIRE_ALL=1 that is a failure.
pub(crate) fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("BIOGATE_TEST_REQUIRE_ALL").is_none_or(|value| value != "1"), "{why}");
    eprintln!("skipped: {why}");
    None
}
