//! The integration tests: one binary, one rig, real parts on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod profiles;
