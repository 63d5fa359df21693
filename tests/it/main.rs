//! The integration tests: one binary, one rig, real parts on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test may wait on its own thread and read its environment")]

#[cfg(feature = "ble")]
mod at_the_hub;
#[cfg(feature = "ble")]
mod ble_allow;
#[cfg(feature = "ble")]
mod ble_commands;
#[cfg(feature = "ble")]
mod ble_faults;
#[cfg(feature = "ble")]
mod ble_follow;
#[cfg(feature = "ble")]
mod ble_ladder;
#[cfg(feature = "ble")]
mod ble_memory;
#[cfg(feature = "ble")]
mod ble_records;
#[cfg(feature = "ble")]
mod ble_streams;
#[cfg(feature = "ble")]
mod ble_turns;
#[cfg(feature = "ble")]
mod ble_ward;
mod bluez_fake;
mod clickhouse;
mod configuration;
mod file;
mod forward;
mod framing;
#[cfg(feature = "kafka")]
mod kafka_rig;
mod kill;
mod local;
mod mqtt;
#[cfg(feature = "ble")]
mod nearby;
mod packaging;
mod path;
mod profiles;
mod readme;
mod replay;
mod rig;
mod serial;
mod store;
mod store_damage;
mod store_kill;
mod store_model;
mod store_reports;
mod store_rig;
mod tidy;
mod time;
mod trouble;
mod virtual_patient;
mod wire_v1;
