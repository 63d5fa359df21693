//! The integration tests of the Query API: one binary, the real engine on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test may wait on its own thread and read its environment")]

mod rig;
mod warehouse;
