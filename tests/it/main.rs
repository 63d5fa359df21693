//! The integration tests: one binary, one rig, real parts on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod framing;
mod mqtt;
mod profiles;
mod replay;
mod rig;
mod serial;
mod virtual_patient;
