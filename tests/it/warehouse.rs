//! What analysts ask of the landing zone, against the real engine and a plain model of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use biogate::forward::clickhouse::schema;
use biogate::observation::EventType;

use crate::rig::clickhouse::Engine;

mod completeness;
mod document;
mod queries;
mod rollups;

const HOUR_MS: i64 = 3_600_000;

/// The landing zone, in which nothing is waited for: an hour is remembered as soon as it is refreshed.
fn landing_zone() -> Option<Engine> {
    let engine = Engine::shared()?;
    engine.make_database();
    for statement in schema::statements("biometric_events") {
        engine.sql(&statement.replace("INTERVAL 10 MINUTE", "INTERVAL 0 SECOND"));
    }
    Some(engine)
}

/// A row of `biometric_events`.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    event_id: Uuid,
    user_id: Uuid,
    event_type: EventType,
    component: &'static str,
    value: f64,
    unit: String,
    timestamp: i64,
    tz_offset_min: i16,
    version: u32,
    deleted: bool,
}

impl Row {
    fn new(user_id: Uuid, event_type: EventType, value: f64, timestamp: i64) -> Row {
        let component = match event_type {
            EventType::BloodPressure => "systolic",
            EventType::Temperature => "body",
            _ => "",
        };
        Row {
            event_id: Uuid::new_v4(),
            user_id,
            event_type,
            component,
            value,
            unit: event_type.unit().to_owned(),
            timestamp,
            tz_offset_min: 60,
            version: 1,
            deleted: false,
        }
    }

    fn next(&self) -> Row {
        Row { version: self.version + 1, ..self.clone() }
    }

    fn json(&self) -> Value {
        json!({
            "event_id": self.event_id, "user_id": self.user_id, "event_type": self.event_type.name(),
            "component": self.component, "value": self.value, "unit": self.unit,
            "timestamp": format!("{}.{:03}", self.timestamp / 1000, self.timestamp % 1000),
            "tz_offset_min": self.tz_offset_min, "device_id": "strap", "gateway_id": "hub-1",
            "version": self.version, "deleted": u8::from(self.deleted),
        })
    }
}

/// What a reader must find: of each key the highest version, and not when it is deleted.
#[derive(Debug, Default)]
struct Model(BTreeMap<(Uuid, i8, i64, Uuid), Row>);

impl Model {
    fn learn(&mut self, rows: &[Row]) {
        for row in rows {
            let key = (row.user_id, row.event_type as i8, row.timestamp, row.event_id);
            let known = self.0.entry(key).or_insert_with(|| row.clone());
            if row.version >= known.version {
                known.clone_from(row);
            }
        }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.0.values().filter(|row| !row.deleted)
    }
}

/// Inserts rows; without a token nothing recognises a repeat.
fn insert(engine: &Engine, rows: &[Row], token: Option<&str>) {
    let token = token.map(|token| format!(", insert_deduplication_token='{token}'")).unwrap_or_default();
    let lines: String = rows.iter().map(|row| format!("{}\n", row.json())).collect();
    engine.sql(&format!(
        "INSERT INTO biometric_events (event_id, user_id, event_type, component, value, unit, timestamp, tz_offset_min, \
         device_id, gateway_id, version, deleted) SETTINGS async_insert=0, insert_deduplicate=1{token} \
         FORMAT JSONEachRow {lines}"
    ));
}

/// The engine's own time, so that "the last days" means the same to both.
fn now_ms(engine: &Engine) -> i64 {
    engine.sql("SELECT toUnixTimestamp64Milli(now64(3))").trim().parse().unwrap()
}

/// Rows of a TSV answer.
fn cells(answer: &str) -> Vec<Vec<&str>> {
    answer.lines().map(|line| line.split('\t').collect()).collect()
}

fn close(found: &str, expected: f64) -> bool {
    let found: f64 = found.parse().unwrap_or_else(|_| panic!("{found} is no number"));
    (found - expected).abs() <= 1e-9 * expected.abs().max(1.0)
}
