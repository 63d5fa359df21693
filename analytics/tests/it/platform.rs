//! The platform's own numbers: pages, gateways, their hours.

use serde_json::json;

use crate::rig::landing_zone;
use crate::rig::server::{ANNA, BEN, Server};

#[tokio::test]
async fn pages_are_counted_by_how_often_they_were_seen() {
    let Some(engine) = landing_zone().await else { return };
    let server = Server::start(&engine).await;
    for (user, page, views) in [(ANNA, "/home", 3), (BEN, "/home", 1), (ANNA, "/sleep", 2)] {
        engine.sql(&format!(
            "INSERT INTO user_activity (event_id, user_id, session_id, page, timestamp, duration) \
             SELECT generateUUIDv4(), '{user}', '{user}', '{page}', now('UTC') - 60 + number, 10 * (number + 1) FROM numbers({views})"
        ));
    }
    let answer = server.get("/api/analytics/activity-funnel", &server.analyst).await;
    let expected = json!([
        {"page": "/home", "views": 4, "unique_users": 2, "avg_duration": 17.5},
        {"page": "/sleep", "views": 2, "unique_users": 1, "avg_duration": 15.0},
    ]);
    assert_eq!(answer["data"], expected);
}

#[tokio::test]
async fn a_gateway_shows_its_lag_and_the_hour_that_lacks_a_row() {
    let Some(engine) = landing_zone().await else { return };
    let server = Server::start(&engine).await;
    let hour = "toStartOfHour(now('UTC')) - INTERVAL 2 HOUR";
    engine.sql(
        "INSERT INTO gateway_status (gateway_id, at, agent_version, config_hash, profiles_hash, clock, backlog_events, \
         oldest_waiting, disk_free_bytes) SELECT 'hub-1', now64(3, 'UTC'), '1', 'c', 'p', 'synced', 40, now64(3, 'UTC') - 90, 1"
    );
    engine.sql(&format!(
        "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id, gateway_id) \
         SELECT toUUID('00000000-0000-0000-0000-00000000000' || toString(number + 1)), '{ANNA}', 'heart_rate', 60, '/min', \
         {hour} + number, 'd', 'hub-1' FROM numbers(2)"
    ));
    let gateways = async || server.get("/api/analytics/gateways", &server.operator).await["data"][0].clone();
    let hub = gateways().await;
    assert_eq!(
        (&hub["gateway_id"], &hub["backlog_events"], &hub["clock"], &hub["rows_lacking"]),
        (&json!("hub-1"), &json!(40), &json!("synced"), &json!(0))
    );
    // Behind by what waits in it.
    let lag = hub["lag_seconds"].as_i64().unwrap();
    assert!((89..=150).contains(&lag), "{hub}");
    // It has said an hour ago that it has sent three events; their ids' XOR is 1 ^ 2 ^ 4.
    engine.sql(&format!(
        "INSERT INTO reconciliation (gateway_id, device_id, hour, count, ids_xor, version, said_at) \
         SETTINGS insert_allow_materialized_columns = 1 SELECT 'hub-1', 'd', {hour}, 3, 7, 1, now64(3, 'UTC') - INTERVAL 1 HOUR"
    ));
    // Behind up to the hour that lacks one.
    let hub = gateways().await;
    let lag = hub["lag_seconds"].as_i64().unwrap();
    assert!((7_200..=10_900).contains(&lag) && hub["rows_lacking"] == 1, "{hub}");
    let hours = server.get("/api/analytics/gateways/hub-1/hours?days=1", &server.operator).await;
    assert_eq!(hours["data"].as_array().unwrap().len(), 1, "{hours}");
    assert_eq!(
        (&hours["data"][0]["sent"], &hours["data"][0]["stored"], &hours["data"][0]["lacking"]),
        (&json!(3), &json!(2), &json!(1))
    );
    assert_eq!(hours["data"][0]["why"], "warehouse: rows are missing");
    let none = server.get("/api/analytics/gateways/hub-2/hours", &server.operator).await;
    assert_eq!(none, json!({"data": []}));
}
