//! Files -> `Config`: what the operator wrote, checked, with each room's own settings filled in.
//!
//! Typed text first (`raw`), checked values next. Errors name the file, the line, what was found and what to write.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use crate::clock::keeper;
use crate::observation::EventType;
use crate::resolve::Unassigned;
use crate::{forward, source, store};

mod checks;
pub mod raw;

/// Where the gateway looks unless told otherwise.
pub const DEFAULT_FILE: &str = "/etc/biogate/biogate.toml";

