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
mod clickhouse_check;
mod configuration;
#[cfg(feature = "clickhouse")]
mod dashboards;
#[cfg(feature = "clickhouse")]
mod deploy_compose;
#[cfg(all(feature = "clickhouse", feature = "kafka"))]
mod deploy_connect;
#[cfg(all(feature = "clickhouse", feature = "kafka"))]
mod deploy_kafka;
#[cfg(feature = "clickhouse")]
mod failover;
#[cfg(all(feature = "clickhouse", feature = "kafka"))]
mod failover_kafka;
mod file;
mod forward;
mod framing;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod kafka_death;
#[cfg(feature = "kafka")]
mod kafka_exactly_once;
#[cfg(feature = "kafka")]
mod kafka_faults;
#[cfg(feature = "kafka")]
mod kafka_overlap;
#[cfg(feature = "kafka")]
mod kafka_rig;
#[cfg(feature = "kafka")]
mod kafka_security;
mod kill;
mod local;
#[cfg(feature = "clickhouse")]
mod monitoring;
mod mqtt;
#[cfg(feature = "ble")]
mod nearby;
mod packaging;
mod path;
mod persons;
mod persons_model;
mod profiles;
mod quarantine;
mod quarantine_model;
mod quarantine_store;
mod readme;
mod replay;
mod reports;
mod rig;
mod schema;
mod serial;
#[cfg(feature = "clickhouse")]
mod simulate_fleet;
mod store;
mod store_aside;
mod store_damage;
mod store_kill;
mod store_model;
mod store_reports;
mod store_rig;
mod tidy;
mod time;
mod trouble;
mod virtual_patient;
#[cfg(feature = "clickhouse")]
mod warehouse;
mod wire_v1;
