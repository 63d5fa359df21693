//! biogate: the edge gateway agent of the BIOMETRICS platform.
//!
//! The modules in reading order: four values, then what turns one into the next, then the gateway around them.
//! With no Cargo features only the values and the pure rooms exist; that is what the Query API builds on.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[macro_use]
pub mod crash;

pub mod reading;

pub mod observation;

pub mod event;
pub mod report;

pub mod clock;

pub mod resolve;

pub mod interpret;

pub mod coverage;

#[cfg(feature = "gateway")]
pub mod store;

#[cfg(feature = "gateway")]
pub mod source;

#[cfg(feature = "gateway")]
pub mod forward;

#[cfg(feature = "clickhouse")]
pub mod fleet;

#[cfg(all(feature = "serial", feature = "mqtt", feature = "clickhouse"))]
pub mod config;

#[cfg(all(feature = "serial", feature = "mqtt", feature = "clickhouse"))]
pub mod intake;

#[cfg(all(feature = "serial", feature = "mqtt", feature = "clickhouse"))]
pub mod quarantine;

#[cfg(all(feature = "serial", feature = "mqtt", feature = "clickhouse"))]
pub mod local;

#[cfg(all(feature = "serial", feature = "mqtt", feature = "clickhouse"))]
pub mod gateway;

#[cfg(all(feature = "serial", feature = "mqtt", feature = "clickhouse"))]
pub mod cli;
