//! Slow and greedy clients, and the end of the server.

use std::time::{Duration, Instant};

use biogate_analytics::warehouse::Limits;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::server::{Server, problem};
use crate::rig::{empty_zone, settings, until};

/// What the server sends until it hangs up.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    timeout(Duration::from_secs(15), stream.read_to_end(&mut bytes)).await.expect("the server does not hang up").ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_hung_up_on() {
    let Some(engine) = empty_zone().await else { return };
    let server =
        Server::with(settings(&engine), Limits::default(), |api| api.client_timeout = Duration::from_millis(500)).await;
    for begun in ["", "GET /healthz HTT", "GET /healthz HTTP/1.1\r\nhost: x\r\nx-a:"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let since = Instant::now();
        rest(&mut stream).await;
        assert!(since.elapsed() < Duration::from_secs(5), "{begun:?} held its place for {:?}", since.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_body_gets_408() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/query HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\nconnection: close\r\n\r\n{{",
        server.analyst
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("urn:biogate:problem:request-timeout"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    let long = server.ask(Method::GET, "/healthz", "").header("x-long", "x".repeat(20_000)).send().await.unwrap();
    assert_eq!(long.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let mut many = server.ask(Method::GET, "/healthz", "");
    for index in 0..100 {
        many = many.header(format!("x-{index}"), "x");
    }
    assert_eq!(many.send().await.unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn requests_over_the_number_of_places_are_told_to_come_again() {
    let Some(engine) = empty_zone().await else { return };
    let limits = Limits { time: Duration::from_secs(4), ..Limits::default() };
    let server = Server::with(settings(&engine), limits, |api| api.concurrent_requests = 1).await;
    let slow = json!({"query": "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 1"});
    let first = server.query(&server.analyst, &slow);
    let second = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.query(&server.analyst, &json!({"query": "SELECT 1"})).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(second.headers().contains_key("retry-after"));
    problem(second, 503, "busy").await;
    problem(first, 504, "too-slow").await;
    let after = server.query(&server.analyst, &json!({"query": "SELECT 1"})).await;
    assert_eq!(after.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_answers_what_it_has_in_hand() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::start(&engine).await;
    let body = json!({"query": "SELECT 1 AS x"}).to_string();
    let head = format!(
        "POST /api/query HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        server.analyst,
        body.len()
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The request is in hand when the server has counted the connection and read the head.
    until("the connection is open", async || {
        server.ask(Method::GET, "/metrics", "").send().await.unwrap().text().await.unwrap().contains("_connections 2")
    })
    .await;
    let address = server.address;
    let stopped = tokio::spawn(server.stop());
    until("no new connection is taken", async || TcpStream::connect(address).await.is_err()).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"rows\":1"), "{answer}");
    stopped.await.unwrap();
}
