//! The integration tests: one binary, one rig, real parts on loopback.
<<<<<<< HEAD
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
=======
#![allow(clippy::unwrap_used, clippy::expect_used)]
>>>>>>> interpret

mod clickhouse;
mod configuration;
mod file;
mod framing;
mod kill;
mod mqtt;
mod packaging;
mod path;
mod profiles;
mod replay;
mod rig;
mod serial;
mod tidy;
mod virtual_patient;
mod forward;
mod wire_v1;
