//! The integration tests: one binary, one rig, real parts on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod rig;

#[cfg(feature = "clickhouse")]
mod clickhouse;
mod file;
mod forward;
mod wire_v1;
