//! The integration tests of the Query API: one binary, the real engine on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test may wait on its own thread and read its environment")]

mod connections;
mod dashboards;
mod docs;
mod end_to_end;
mod erase;
mod fuzz;
mod gate;
mod openapi;
mod persons;
mod platform;
mod program;
mod query;
mod rig;
mod tricks;
mod warehouse;
