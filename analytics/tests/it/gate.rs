//! Who gets in: tokens, scopes, persons, rates, and what the audit keeps of it.

use std::num::NonZeroU32;

use biogate_analytics::api::openapi;
use biogate_analytics::token::{self, Role};
use biogate_analytics::warehouse::Limits;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::server::{ANNA, BEN, Server, entry, problem};
use crate::rig::{empty_zone, settings, until};

/// Every path under `/api` with its method, as the description names them.
fn paths() -> Vec<(Method, String)> {
    let document: Value = serde_json::to_value(openapi::describe()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let found: Vec<_> = paths
        .filter(|(path, _)| path.starts_with("/api/"))
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone())))
        .map(|(method, path)| {
            let path = path.replace("{event_type}", "heart-rate").replace("{gateway_id}", "hub");
            (method.to_uppercase().parse().unwrap(), path.replace("{user_id}", &BEN.to_string()))
        })
        .collect();
    assert_eq!(found.len(), 8, "{found:?}");
    found
}

#[tokio::test]
async fn no_path_answers_without_a_good_token() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    for (method, path) in paths() {
        let bare = reqwest::Client::new().request(method.clone(), format!("http://{}{path}", server.address));
        let refused = bare.send().await.unwrap();
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        problem(refused, 401, "unauthorized").await;
        for token in ["", "biogate_", &token::new().unwrap(), &server.expired, &token::hash(&server.analyst)] {
            problem(server.ask(method.clone(), &path, token).send().await.unwrap(), 401, "unauthorized").await;
        }
    }
}

#[tokio::test]
async fn a_person_sees_nothing_but_the_persons_own_rows() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    for (method, path) in paths() {
        let foreign = server.ask(method.clone(), &path, &server.anna).json(&json!({"query": "SELECT 1"}));
        problem(foreign.send().await.unwrap(), 403, "forbidden").await;
        if path.contains(&BEN.to_string()) {
            let own = path.replace(&BEN.to_string(), &ANNA.to_string());
            server.get(&own, &server.anna).await;
        }
    }
    // Another spelling of Anna's id is Anna's id, and of Ben's it is Ben's.
    server.get(&format!("/api/analytics/sessions/{}", ANNA.simple()), &server.anna).await;
    let spelled = format!("/api/analytics/sessions/{}", BEN.to_string().to_uppercase());
    problem(server.ask(Method::GET, &spelled, &server.anna).send().await.unwrap(), 403, "forbidden").await;
    let path = "/api/analytics/sessions/not-a-uuid";
    problem(server.ask(Method::GET, path, &server.anna).send().await.unwrap(), 400, "bad-request").await;
}

#[tokio::test]
async fn each_role_gets_its_own_paths_and_no_other() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    let tokens = [("analyst", &server.analyst), ("clinician", &server.clinician), ("operator", &server.operator)];
    for (role, token) in tokens {
        for (method, path) in paths() {
            let asked = server.ask(method, &path, token).json(&json!({"query": "SELECT 1"}));
            let allowed = match role {
                "analyst" => true,
                "clinician" => path.contains(&BEN.to_string()),
                _ => path.contains("gateways"),
            };
            let expected = if allowed { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(asked.send().await.unwrap().status(), expected, "{role} {path}");
        }
    }
}

#[tokio::test]
async fn a_token_that_asks_too_often_waits_and_no_other_does() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::with(settings(&engine), Limits::default(), |api| {
        api.requests_per_minute = NonZeroU32::MIN;
        api.burst = NonZeroU32::new(2).unwrap();
    })
    .await;
    let ask = |token: &str| server.ask(Method::GET, "/api/analytics/gateways", token).send();
    for _ in 0..2 {
        assert_eq!(ask(&server.operator).await.unwrap().status(), StatusCode::OK);
    }
    let refused = ask(&server.operator).await.unwrap();
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&seconds), "{seconds}");
    problem(refused, 429, "too-many-requests").await;
    assert_eq!(ask(&server.analyst).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_changed_tokens_file_counts_without_a_restart_and_a_wrong_one_changes_nothing() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    let status = async |token: &str| {
        server.ask(Method::GET, "/api/analytics/gateways", token).send().await.unwrap().status().as_u16()
    };
    std::fs::write(&server.tokens, "[[token]]\nname = 1\n").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(status(&server.operator).await, 200);
    let new = token::new().unwrap();
    std::fs::write(&server.tokens, entry("new", Role::Operator, "[]", "2099-01-01T00:00:00Z", &new)).unwrap();
    until("the new token is known", async || status(&new).await == 200).await;
    assert_eq!(status(&server.operator).await, 401);
}

#[tokio::test]
async fn pages_of_other_origins_get_no_answer_unless_they_are_listed() {
    let Some(engine) = empty_zone().await else { return };
    let closed = Server::start(&engine).await;
    let open = Server::with(settings(&engine), Limits::default(), |api| {
        api.cors_origins = vec!["https://dashboards.example.org".to_owned()];
    })
    .await;
    let allowed = async |server: &Server, origin: &str| {
        let asked = server.ask(Method::GET, "/api/analytics/gateways", &server.operator).header("origin", origin);
        asked.send().await.unwrap().headers().get("access-control-allow-origin").is_some()
    };
    assert!(!allowed(&closed, "https://dashboards.example.org").await);
    assert!(allowed(&open, "https://dashboards.example.org").await);
    assert!(!allowed(&open, "https://elsewhere.example.org").await);
}
