//! biogate-analytics: the platform's Query API over the landing zone, and the commands that go with it.
//!
//! The modules in reading order: what the operator wrote, the way to the warehouse, who may ask what, the API itself.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod cli;
pub mod config;
pub mod warehouse;

pub mod statement;
pub mod token;

pub mod api;

pub mod dashboards;
pub mod erase;
