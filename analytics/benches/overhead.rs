//! What the Query API costs over the engine: the same question directly over HTTP and through the API, alternating, each on
//! a connection that is kept alive.  `cargo bench -p biogate-analytics --bench overhead -- --rounds 300`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a bench may wait on its own thread and read its environment")]

#[path = "../tests/it/rig/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod rig;

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::HeaderName;
use axum::routing::any;
use biogate_analytics::warehouse::{self, Limits};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;

use rig::server::{ANNA, Server};

const DAILY: &str = include_str!("../../deploy/clickhouse/queries/daily_stats.sql");

/// Rounds before the first that counts.
const WARM: usize = 20;

/// What the API sends with every statement.
fn settings(database: &str) -> Vec<(&'static str, String)> {
    let limits = Limits::default();
    vec![
        ("database", database.to_owned()),
        ("default_format", "JSON".to_owned()),
        ("date_time_output_format", "iso".to_owned()),
        ("output_format_json_quote_64bit_integers", "0".to_owned()),
        ("wait_end_of_query", "1".to_owned()),
        ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
        ("max_execution_time", limits.time.as_secs().to_string()),
        ("timeout_overflow_mode", "throw".to_owned()),
        ("max_result_rows", limits.rows.to_string()),
        ("max_result_bytes", limits.bytes.0.to_string()),
        ("result_overflow_mode", "throw".to_owned()),
        ("max_memory_usage", limits.memory.0.to_string()),
        ("max_bytes_to_read", limits.read_bytes.0.to_string()),
        ("read_overflow_mode", "throw".to_owned()),
        ("max_threads", limits.threads.to_string()),
        ("readonly", "1".to_owned()),
    ]
}

/// The way without the API.
struct Direct {
    client: Client,
    warehouse: warehouse::Settings,
    key: String,
}

impl Direct {
    fn to(warehouse: warehouse::Settings) -> Direct {
        let key = std::fs::read_to_string(warehouse.password_file.as_ref().unwrap()).unwrap().trim_end().to_owned();
        Direct { client: Client::builder().no_proxy().build().unwrap(), warehouse, key }
    }

    fn ask(&self, sql: &str, params: &[(&str, &str)]) -> RequestBuilder {
        self.client
            .post(&self.warehouse.url)
            .query(&settings(&self.warehouse.database))
            .query(params)
            .header("X-ClickHouse-User", self.warehouse.user.clone().unwrap())
            .header("X-ClickHouse-Key", &self.key)
            .body(sql.to_owned())
    }
}

/// How long until the whole answer is here.
async fn time(request: RequestBuilder) -> Duration {
    let begun = Instant::now();
    let answer = request.send().await.unwrap().error_for_status().unwrap();
    let length = answer.bytes().await.unwrap().len();
    let took = begun.elapsed();
    assert!(length > 20);
    took
}

/// Asks both ways in turn and prints the quantiles of each.
async fn compare(what: &str, rounds: usize, direct: impl Fn() -> RequestBuilder, api: impl Fn() -> RequestBuilder) {
    let (mut directly, mut through) = (Vec::new(), Vec::new());
    for round in 0..rounds + WARM {
        // Which goes first changes, so that neither finds the warmer cache.
        let first = if round % 2 == 0 { time(direct()).await } else { time(api()).await };
        let second = if round % 2 == 0 { time(api()).await } else { time(direct()).await };
        let (one, other) = if round % 2 == 0 { (first, second) } else { (second, first) };
        if round >= WARM {
            directly.push(one);
            through.push(other);
        }
    }
    directly.sort_unstable();
    through.sort_unstable();
    for (name, share) in [("median", 0.5), ("p95", 0.95), ("p99", 0.99)] {
        let at = |times: &[Duration]| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let (direct, api) = (at(&directly), at(&through));
        println!("{what}, {rounds} rounds: {name} direct {direct:.2} ms, API {api:.2} ms: {:.2} ms over", api - direct);
    }
}

/// A server that gives one answer at once: what is left is the API's own time.
async fn at_once(answer: String) -> String {
    let headers = [(HeaderName::from_static("x-clickhouse-format"), "JSON")];
    let app = Router::new().fallback(any(async move || (headers, answer.clone())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    url
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args().skip_while(|argument| argument != "--rounds").nth(1);
    let rounds: usize = rounds.map_or(300, |number| number.parse().unwrap());
    let Some(engine) = rig::landing_zone().await else { return };
    // A week at one value a minute.
    engine.sql(&format!(
        "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id) \
         SELECT generateUUIDv4(), '{ANNA}', 'heart_rate', 60 + number % 40, '/min', now64(3, 'UTC') - 1 - number * 60, 'd' \
         FROM numbers(10000)"
    ));
    let warehouse = rig::settings(&engine);
    let user = ANNA.to_string();
    let params = [("param_user_id", user.as_str()), ("param_event_type", "heart_rate"), ("param_days", "7")];
    let path = format!("/api/analytics/heart-rate/{ANNA}?days=7");
    let (direct, server) = (Direct::to(warehouse.clone()), Server::start(&engine).await);
    let daily = || direct.ask(DAILY, &params);
    compare("7 days of heart rate, engine", rounds, daily, || server.ask(Method::GET, &path, &server.anna)).await;
    let free = json!({"query": "SELECT {x:UInt8} AS x", "parameters": {"x": 1}});
    let one = || direct.ask("SELECT {x:UInt8} AS x", &[("param_x", "1")]);
    let query = || server.ask(Method::POST, "/api/query", &server.analyst).json(&free);
    compare("SELECT 1, engine", rounds, one, query).await;

    // The engine's own time scatters more than the API takes: once more without it.
    let answer = daily().send().await.unwrap().text().await.unwrap();
    let warehouse = warehouse::Settings { url: at_once(answer).await, ..warehouse };
    let server = Server::with(warehouse.clone(), Limits::default(), |_| {}).await;
    let direct = Direct::to(warehouse);
    let daily = || direct.ask(DAILY, &params);
    let api = || server.ask(Method::GET, &path, &server.anna);
    compare("7 days of heart rate, answered at once", rounds * 10, daily, api).await;
}
