//! The ways in: each source sends what it hears on one bounded channel and is told when it became durable.

pub mod delivery;
