//! The integration tests: one binary, one rig, real parts on loopback.

mod store;
mod store_damage;
mod store_kill;
mod store_model;
mod store_rig;
