//! The integration tests: one binary, one rig, real parts on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, reason = "a test may wait on its own thread and read its environment")]

mod framing;
mod mqtt;
mod packaging;
mod rig;
mod serial;
mod tidy;
