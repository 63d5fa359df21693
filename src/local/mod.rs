//! What the gateway tells on its own machine: the control socket that the commands ask.

pub mod board;
pub mod client;
pub mod control;
pub mod persons;
pub mod quarantine;
