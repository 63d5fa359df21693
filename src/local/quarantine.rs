//! `/quarantine/list`, `/quarantine/replay` and `/quarantine/drop`: what is set aside, looked at, brought back and removed.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::quarantine::{Filter, Quarantine};

/// No listing has more entries.
const MOST_LISTED: usize = 100_000;

/// What a command asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// Which entries.
    pub filter: Filter,
    /// Of a listing the newest so many.
    pub limit: usize,
    /// Of a replay: only say what would come of it.
    pub dry_run: bool,
}

/// Carries out what is asked for.
pub(super) async fn command(quarantine: &Quarantine, path: &str, asked: Value) -> Result<Value, String> {
    let asked: Asked =
        serde_json::from_value(asked).map_err(|why| format!("the request is of another version: {why}"))?;
    if let Some(wrong) = asked.filter.objection() {
        return Err(wrong);
    }
    let said = |why: crate::store::Error| why.to_string();
    match path {
        "/quarantine/list" => {
            quarantine.list(&asked.filter, asked.limit.min(MOST_LISTED)).await.map(Value::Array).map_err(said)
        }
        "/quarantine/replay" => {
            let outcome = quarantine.replay(&asked.filter, asked.dry_run).await.map_err(said)?;
            serde_json::to_value(outcome).map_err(|why| why.to_string())
        }
        _ => quarantine.drop(&asked.filter).await.map(|dropped| json!({ "dropped": dropped })).map_err(said),
    }
}
