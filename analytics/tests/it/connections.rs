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

/// Sends `text` and then nothing, and reads nothing.
async fn stalled(server: &Server, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_connections_at_once_are_answered_among_two_hundred_slow_ones() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::with(settings(&engine), Limits::default(), |api| {
        api.client_timeout = Duration::from_secs(3);
        api.concurrent_requests = 4;
    })
    .await;
    let analyst = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", server.analyst);
    // A statement whose answer of 6 MB nobody reads.
    let greedy = json!({"query": "SELECT repeat('x', 1000000) AS x FROM numbers(6)"}).to_string();
    let slow = [
        String::new(),
        "GET /healthz HTTP/1.1\r\nx-a".to_owned(),
        format!("POST /api/query HTTP/1.1\r\nhost: x\r\n{analyst}content-length: 50\r\n\r\n{{"),
        format!("POST /api/query HTTP/1.1\r\nhost: x\r\n{analyst}content-length: {}\r\n\r\n{greedy}", greedy.len()),
    ];
    let mut held = Vec::new();
    for number in 0..200 {
        // The greedy ones are few: what is tried is the waiting, not the engine.
        let kind = if number % 50 == 3 { 3 } else { number % 3 };
        held.push(stalled(&server, &slow[kind]).await);
    }
    // Each on a connection of its own, all at once; told to come again they do.
    let asked = (0..200).map(|_| {
        let request = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let (url, token) = (format!("http://{}/api/analytics/gateways", server.address), server.operator.clone());
        tokio::spawn(async move {
            let end = Instant::now() + Duration::from_secs(90);
            loop {
                let answer = request.get(&url).bearer_auth(&token).send().await.unwrap();
                if answer.status() == StatusCode::OK {
                    return answer.text().await.unwrap();
                }
                // Or 504, where other tests keep the machine that busy.
                if answer.status() != StatusCode::GATEWAY_TIMEOUT {
                    problem(answer, 503, "busy").await;
                }
                assert!(Instant::now() < end, "no place in time");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })
    });
    for task in asked.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap(), "{\"data\":[]}");
    }
    // The slow ones are hung up on, though they never let go.
    until("the slow connections are closed", async || {
        let text = server.ask(Method::GET, "/metrics", "").send().await.unwrap().text().await.unwrap();
        let open = text.lines().find_map(|line| line.strip_prefix("biogate_analytics_connections ")).unwrap();
        open.parse::<u32>().unwrap() <= 1
    })
    .await;
    drop(held);
}

#[tokio::test]
async fn a_connection_over_the_number_waits_until_one_is_closed() {
    let Some(engine) = empty_zone().await else { return };
    let server = Server::with(settings(&engine), Limits::default(), |api| api.connections = 2).await;
    let held = [stalled(&server, "").await, stalled(&server, "").await];
    let third = server.ask(Method::GET, "/metrics", "").send();
    let mut third = std::pin::pin!(third);
    assert!(timeout(Duration::from_millis(500), &mut third).await.is_err(), "a third connection was taken");
    drop(held);
    assert_eq!(timeout(Duration::from_secs(10), third).await.unwrap().unwrap().status(), StatusCode::OK);
}
