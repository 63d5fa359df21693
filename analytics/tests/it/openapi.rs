//! The description of the API: what it serves is what it says.

use biogate_analytics::api::openapi;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::rig::empty_zone;
use crate::rig::server::Server;

#[test]
fn every_path_is_described_with_its_errors_and_who_may_ask() {
    let document: Value = serde_json::to_value(openapi::describe()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    let expected = [
        "/api/analytics/activity-funnel",
        "/api/analytics/gateways",
        "/api/analytics/gateways/{gateway_id}/hours",
        "/api/analytics/realtime",
        "/api/analytics/realtime/{user_id}",
        "/api/analytics/sessions/{user_id}",
        "/api/analytics/{event_type}/{user_id}",
        "/api/query",
        "/healthz",
        "/metrics",
        "/openapi.json",
    ];
    assert_eq!(paths, expected);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} says not what it does");
            if path.starts_with("/api/") {
                for status in ["401", "403", "429", "500", "502", "503", "504"] {
                    let content = &operation["responses"][status]["content"]["application/problem+json"];
                    assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem", "{method} {path} {status}");
                }
            }
        }
    }
    dangling(&document, &document);
}

/// Every reference leads somewhere.
fn dangling(value: &Value, document: &Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            object.values().for_each(|value| dangling(value, document));
        }
        Value::Array(items) => items.iter().for_each(|value| dangling(value, document)),
        _ => {}
    }
}

#[tokio::test]
async fn the_server_describes_itself_says_how_it_is_and_counts() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    let served = server.get("/openapi.json", "").await;
    assert_eq!(served, serde_json::to_value(openapi::describe()).unwrap());
    assert_eq!(server.get("/healthz", "").await["warehouse"], "reached");
    server.get("/api/analytics/gateways", &server.operator).await;
    let response = server.ask(Method::GET, "/metrics", "").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = response.text().await.unwrap();
    for line in [
        "biogate_analytics_requests_total{route=\"/api/analytics/gateways\",status=\"200\"} 1",
        "biogate_analytics_request_seconds_count{route=\"/api/analytics/gateways\"} 1",
        "biogate_analytics_tokens 5",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_warehouse_that_is_gone_is_a_problem_to_come_again() {
    let Some(mut engine) = crate::rig::clickhouse::Engine::own() else { return };
    engine.make_database();
    let server = Server::start(&engine).await;
    engine.stop();
    let health = server.ask(Method::GET, "/healthz", "").send().await.unwrap();
    assert_eq!(health.status(), StatusCode::SERVICE_UNAVAILABLE);
    let refused = server.ask(Method::GET, "/api/analytics/gateways", &server.operator).send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    crate::rig::server::problem(refused, 503, "warehouse-unreachable").await;
}
