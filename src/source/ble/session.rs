//! Everything alive between two rebuilds.

use std::sync::{Arc, Mutex};

use super::nearby::Nearby;
use crate::source::context::Stop;

/// Listens on these adapters (on all where none is named) and fills `nearby`, until told to stop.
pub async fn survey(_adapters: &[String], _nearby: Arc<Mutex<Nearby>>, _stop: Stop) -> Result<(), String> {
    Err("not built".to_owned())
}
