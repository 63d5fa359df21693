//! A person's numbers against a plain model, in the person's time zone, and nobody else's.

use std::collections::BTreeMap;

use biogate::observation::EventType;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::server::{ANNA, BEN, Server, problem};
use crate::rig::{empty_zone, landing_zone};

/// The numbers of one day, by the definition of each: the quantiles interpolate between the values around them.
fn model(values: &[f64]) -> [f64; 6] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let sum: f64 = values.iter().sum();
    let quantile = |share: f64| {
        let at = share * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        below + (above - below) * at.fract()
    };
    [sorted[0], sorted[sorted.len() - 1], sum / values.len() as f64, quantile(0.5), quantile(0.95), sum]
}

fn numbers(day: &Value) -> [f64; 6] {
    ["min", "max", "avg", "median", "p95", "sum"].map(|name| day[name].as_f64().unwrap())
}

fn assert_near(found: [f64; 6], expected: [f64; 6], what: &str) {
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{what}: {found} is not {expected}");
    }
}

#[tokio::test]
async fn the_days_of_every_type_are_those_of_the_model() {
    let Some(engine) = landing_zone().await else { return };
    let server = Server::start(&engine).await;
    for (index, kind) in EventType::ALL.into_iter().enumerate() {
        // Noon of yesterday and of the day before in UTC, so that no run of the test meets midnight.
        for (days, count) in [(1, 21), (2, 1)] {
            engine.sql(&format!(
                "INSERT INTO biometric_events (event_id, user_id, event_type, component, value, unit, timestamp, device_id) \
                 SELECT generateUUIDv4(), '{ANNA}', '{}', 'c', number * 7 % 50 + {index}, '{}', \
                 toStartOfDay(now('UTC')) - INTERVAL {days} DAY + INTERVAL 12 HOUR + number, 'd' FROM numbers({count})",
                kind.name(),
                kind.unit()
            ));
        }
        let path = format!("/api/analytics/{}/{ANNA}?days=7", kind.name().replace('_', "-"));
        let answer = server.get(&path, &server.anna).await;
        let days = answer["data"].as_array().unwrap();
        assert_eq!(days.len(), 2, "{answer}");
        for (day, count) in days.iter().zip([21u8, 1]) {
            let values: Vec<f64> =
                (0..count).map(|number| f64::from(u16::from(number) * 7 % 50) + index as f64).collect();
            assert_near(numbers(day), model(&values), kind.name());
            assert_eq!(
                (&day["readings"], &day["unit"], &day["component"]),
                (&json!(count), &json!(kind.unit()), &json!("c"))
            );
        }
        assert!(days[0]["date"].as_str() > days[1]["date"].as_str(), "{answer}");
        let others = server.get(&path.replace(&ANNA.to_string(), &BEN.to_string()), &server.clinician).await;
        assert_eq!(others, json!({"data": []}));
    }
}

#[tokio::test]
async fn a_day_is_the_persons_own_or_that_of_the_zone_asked_for() {
    let Some(engine) = landing_zone().await else { return };
    let server = Server::start(&engine).await;
    // 23:30 UTC of the day before yesterday, at a place two hours east: yesterday 01:30 there.
    engine.sql(&format!(
        "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, tz_offset_min, device_id) \
         SELECT generateUUIDv4(), '{ANNA}', 'heart_rate', 60, '/min', \
         toStartOfDay(now('UTC')) - INTERVAL 1 DAY - INTERVAL 30 MINUTE, 120, 'd'"
    ));
    let yesterday = engine.sql("SELECT toDate(now('UTC')) - 1").trim().to_owned();
    let before = engine.sql("SELECT toDate(now('UTC')) - 2").trim().to_owned();
    for (zone, expected) in
        [("", &yesterday), ("?tz=UTC", &before), ("?tz=America/New_York", &before), ("?tz=Asia/Tokyo", &yesterday)]
    {
        let answer = server.get(&format!("/api/analytics/heart-rate/{ANNA}{zone}"), &server.anna).await;
        assert_eq!(answer["data"][0]["date"], **expected, "{zone}");
    }
}

/// The days of a zone by `jiff`, over both changes of its clock in the last year: one day of 23 hours, one of 25.
#[tokio::test]
async fn the_days_when_the_clocks_change_have_the_hours_of_the_model() {
    let Some(engine) = landing_zone().await else { return };
    let server = Server::start(&engine).await;
    for name in ["Europe/Berlin", "America/New_York"] {
        let zone = TimeZone::get(name).unwrap();
        // Whole days that the API can still be asked about.
        let (oldest, newest) = (Timestamp::now() - (24 * 363).hours(), Timestamp::now() - 24.hours());
        let changes = zone.preceding(newest).map(|change| change.timestamp());
        let changes: Vec<Timestamp> = changes.take(2).filter(|change| *change > oldest).collect();
        assert!(!changes.is_empty());
        // A value every half an hour, from two days before each change to two days after it, as far as time has come.
        let half_hour = 30.minutes();
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut rows = Vec::new();
        for change in &changes {
            let mut at = *change - 48.hours();
            while at < *change + 48.hours() && at < Timestamp::now() {
                let value = 60.0 + (rows.len() * 7 % 50) as f64;
                values.entry(zone.to_datetime(at).date().to_string()).or_default().push(value);
                rows.push(format!(
                    "(generateUUIDv4(), '{ANNA}', 'spo2', {value}, '%', fromUnixTimestamp({}), 'd')",
                    at.as_second()
                ));
                at += half_hour;
            }
        }
        engine.sql("TRUNCATE TABLE biometric_events");
        engine.sql(&format!(
            "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id) VALUES {}",
            rows.join(",")
        ));
        let answer = server.get(&format!("/api/analytics/spo2/{ANNA}?days=366&tz={name}"), &server.anna).await;
        let days = answer["data"].as_array().unwrap();
        assert_eq!(days.len(), values.len(), "{name}: {answer}");
        for (day, (date, values)) in days.iter().zip(values.iter().rev()) {
            assert_eq!((&day["date"], &day["readings"]), (&json!(date), &json!(values.len())), "{name}");
            assert_near(numbers(day), model(values), date);
        }
        for change in changes {
            let readings = values[&zone.to_datetime(change).date().to_string()].len();
            assert!([46, 50].contains(&readings), "{name}: the day of {change} has {readings} half hours");
        }
    }
}

#[tokio::test]
async fn a_wrong_part_of_the_address_is_named() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    let ask = async |path: &str| server.ask(Method::GET, path, &server.anna).send().await.unwrap();
    for asked in [
        "days=0",
        "days=367",
        "days=-1",
        "days=x",
        "days=99999999",
        "tz=Middle/Earth",
        "tz=",
        "dayz=1",
        "tz=../../etc/passwd",
    ] {
        problem(ask(&format!("/api/analytics/heart-rate/{ANNA}?{asked}")).await, 400, "bad-request").await;
    }
    let detail = problem(ask(&format!("/api/analytics/heartrate/{ANNA}")).await, 404, "not-found").await;
    assert!(detail.contains("heart-rate"), "{detail}");
    problem(ask(&format!("/api/analytics/realtime/{ANNA}?minutes=1441")).await, 400, "bad-request").await;
    problem(ask("/api/analytics/heart-rate/%ff").await, 400, "bad-request").await;
    problem(ask("/api/nothing").await, 404, "not-found").await;
    let deleted =
        server.ask(Method::DELETE, &format!("/api/analytics/heart-rate/{ANNA}"), &server.anna).send().await.unwrap();
    assert_eq!(deleted.headers()["allow"], "GET,HEAD");
    problem(deleted, 405, "method-not-allowed").await;
}

#[tokio::test]
async fn minutes_and_sessions_are_one_persons() {
    let Some(engine) = landing_zone().await else { return };
    let server = Server::start(&engine).await;
    for (user, value) in [(ANNA, 60), (BEN, 90)] {
        engine.sql(&format!(
            "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id) \
             SELECT generateUUIDv4(), '{user}', 'heart_rate', {value} + number, '/min', \
             toStartOfMinute(now('UTC')) - INTERVAL 5 MINUTE + number, 'd' FROM numbers(3)"
        ));
        engine.sql(&format!(
            "INSERT INTO user_activity (event_id, user_id, session_id, page, timestamp, duration) \
             SELECT generateUUIDv4(), '{user}', '{user}', if(number = 2, 'b', 'a'), now('UTC') - 60 + number, 10 FROM numbers(3)"
        ));
    }
    let minutes = server.get(&format!("/api/analytics/realtime/{ANNA}"), &server.anna).await;
    assert_eq!(minutes["data"].as_array().unwrap().len(), 1, "{minutes}");
    assert_eq!((&minutes["data"][0]["events"], &minutes["data"][0]["avg_value"]), (&json!(3), &json!(61.0)));
    let all = server.get("/api/analytics/realtime", &server.analyst).await;
    assert_eq!((&all["data"][0]["events"], &all["data"][0]["avg_value"]), (&json!(6), &json!(76.0)));
    let sessions = server.get(&format!("/api/analytics/sessions/{ANNA}"), &server.anna).await;
    assert_eq!(sessions["data"].as_array().unwrap().len(), 1, "{sessions}");
    let session = &sessions["data"][0];
    assert_eq!(
        (&session["page_views"], &session["unique_pages"], &session["total_duration"]),
        (&json!(3), &json!(2), &json!(30))
    );
    assert_eq!(session["session_id"], ANNA.to_string());
}
