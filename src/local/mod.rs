//! What the gateway tells on its own machine: the control socket that the commands ask, and a TCP listener for others.

mod answer;
pub mod board;
pub mod client;
pub mod condition;
pub mod control;
pub mod exposition;
pub mod listener;
pub mod metrics;
pub mod persons;
pub mod quarantine;
mod tap;
