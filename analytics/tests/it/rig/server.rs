//! A server of this test's own, in this process, on a free port of loopback.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use biogate_analytics::api::{Api, Settings, listener};
use biogate_analytics::token::{self, Role};
use biogate_analytics::warehouse::{self, Limits, Warehouse};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::clickhouse::Engine;

/// Whom tests ask about.
pub(crate) const ANNA: Uuid = Uuid::from_u128(0xa11a);
/// Somebody else.
pub(crate) const BEN: Uuid = Uuid::from_u128(0xbe11);

/// A running server and the tokens that it knows.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Free statements and everything.
    pub(crate) analyst: String,
    /// Everybody's values.
    pub(crate) clinician: String,
    /// Anna's own values.
    pub(crate) anna: String,
    /// Gateways.
    pub(crate) operator: String,
    /// Past its end.
    pub(crate) expired: String,
    pub(crate) tokens: std::path::PathBuf,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
    _files: TempDir,
}

/// An entry of the tokens file.
pub(crate) fn entry(name: &str, role: Role, users: &str, expires: &str, token: &str) -> String {
    let scopes: Vec<_> = role.scopes().iter().map(|scope| format!("{:?}", scope.name())).collect();
    let (scopes, hash) = (scopes.join(", "), token::hash(token));
    format!(
        "[[token]]\nname = {name:?}\nsha256 = {hash:?}\nscopes = [{scopes}]\nusers = {users}\nexpires = {expires:?}\n"
    )
}

impl Server {
    /// In front of this engine.
    pub(crate) async fn start(engine: &Engine) -> Server {
        Server::with(super::settings(engine), Limits::default(), |_| {}).await
    }

    /// With limits and settings of its own.
    pub(crate) async fn with(
        warehouse: warehouse::Settings,
        limits: Limits,
        change: impl FnOnce(&mut Settings),
    ) -> Server {
        let files = tempfile::tempdir().unwrap();
        let tokens = files.path().join("tokens.toml");
        let (later, before, all) = ("2099-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "\"all\"");
        let own = format!("[\"{ANNA}\"]");
        let new = || token::new().unwrap();
        let (analyst, clinician, anna, operator, expired) = (new(), new(), new(), new(), new());
        let text = [
            entry("analyst", Role::Analyst, all, later, &analyst),
            entry("clinician", Role::Clinician, all, later, &clinician),
            entry("anna", Role::Person, &own, later, &anna),
            entry("operator", Role::Operator, "[]", later, &operator),
            entry("expired", Role::Analyst, all, before, &expired),
        ];
        std::fs::write(&tokens, text.concat()).unwrap();
        // Tests ask faster than people; the one about rates sets its own.
        let often = NonZeroU32::new(10_000).unwrap();
        let mut settings =
            Settings { tokens_file: tokens.clone(), requests_per_minute: often, burst: often, ..Settings::default() };
        change(&mut settings);
        let warehouse = Warehouse::new(&warehouse::Settings { limits, ..warehouse }).unwrap();
        let api: Arc<Api> = Api::new(settings, warehouse).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(listener::serve(api, listener, async {
            stopped.await.ok();
        }));
        let client = Client::builder().no_proxy().build().unwrap();
        let stop = Some(stop);
        Server { address, analyst, clinician, anna, operator, expired, tokens, client, stop, task, _files: files }
    }

    /// A request with a token.
    pub(crate) fn ask(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address)).bearer_auth(token)
    }

    /// A GET that has to go well.
    pub(crate) async fn get(&self, path: &str, token: &str) -> Value {
        let response = self.ask(Method::GET, path, token).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A statement.
    pub(crate) async fn query(&self, token: &str, body: &Value) -> Response {
        self.ask(Method::POST, "/api/query", token).json(body).send().await.unwrap()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).ok();
        tokio::time::timeout(std::time::Duration::from_secs(10), &mut self.task).await.unwrap().unwrap().unwrap();
    }
}

/// That it is a problem of this status and kind, as RFC 9457 wants it; its detail.
pub(crate) async fn problem(response: Response, status: u16, kind: &str) -> String {
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let content = response.headers()["content-type"].to_str().unwrap().to_owned();
    let found = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!((found, content.as_str()), (status, "application/problem+json"), "{text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["type"], format!("urn:biogate:problem:{kind}"), "{text}");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["instance"], format!("urn:uuid:{id}"));
    problem["detail"].as_str().unwrap().to_owned()
}
