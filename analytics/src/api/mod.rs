//! The Query API: routes, and what stands around them.
//!
//! A request passes `gate::watch` (id, deadline, audit), then under `/api` `gate::enter` (token, rate, scope), then
//! its handler, which takes a place when it knows what to ask. The listener below is slow-client safe; every error is problem+json.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::{Json, Router};
use bytesize::ByteSize;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::token::Scope;
use crate::warehouse::Warehouse;
use gate::Gate;
use metrics::Metrics;
use problem::Problem;

mod extract;
mod gate;
pub mod listener;
mod metrics;
pub mod openapi;
mod person;
mod platform;
pub mod problem;
mod query;

/// How long a request waits for a place before it is told to come again.
const PLACE_DEADLINE: Duration = Duration::from_secs(2);

/// How much longer a request may take than its statement.
const AROUND: Duration = Duration::from_secs(5);

/// How often the tokens file is looked at.
const FOLLOW_TOKENS: Duration = Duration::from_secs(2);

/// `[api]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where it listens. Off loopback only behind something that speaks TLS.
    pub listen: SocketAddr,
    /// The tokens file; `token new` prints its entries.
    pub tokens_file: PathBuf,
    /// How many requests a token may send in a minute.
    pub requests_per_minute: NonZeroU32,
    /// How many of them at once.
    pub burst: NonZeroU32,
    /// How many requests are answered at once.
    pub concurrent_requests: u16,
    /// How many connections are held at once.
    pub connections: u16,
    /// Longest body.
    pub body: ByteSize,
    /// How long a client may take for a request's head, and how long a connection may stand still.
    #[serde(with = "humantime_serde")]
    pub client_timeout: Duration,
    /// How long requests in hand may take when the server is asked to stop.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
    /// Origins whose pages may ask, as `https://dashboards.example.org`; none by default.
    pub cors_origins: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 8790)),
            tokens_file: PathBuf::from("/etc/biogate/tokens.toml"),
            requests_per_minute: NonZeroU32::new(300).unwrap_or(NonZeroU32::MIN),
            burst: NonZeroU32::new(50).unwrap_or(NonZeroU32::MIN),
            concurrent_requests: 16,
            connections: 512,
            body: ByteSize::kib(64),
            client_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(20),
            cors_origins: Vec::new(),
        }
    }
}

/// A server that is ready to listen.
#[derive(Debug)]
pub struct Api {
    warehouse: Warehouse,
    gate: Arc<Gate>,
    metrics: Metrics,
    places: Semaphore,
    deadline: Duration,
    settings: Settings,
}

impl Api {
    /// Reads the tokens and checks the settings.
    pub fn new(settings: Settings, warehouse: Warehouse) -> Result<Arc<Api>, String> {
        let gate = Gate::new(settings.tokens_file.clone(), settings.requests_per_minute, settings.burst)?;
        for origin in &settings.cors_origins {
            if origin == "*" || HeaderValue::from_str(origin).is_err() {
                return Err(format!("cors_origins: {origin:?} is no origin; write https://HOST"));
            }
        }
        Ok(Arc::new(Api {
            deadline: warehouse.limits().time + AROUND,
            gate: Arc::new(gate),
            metrics: Metrics::new(),
            places: Semaphore::new(usize::from(settings.concurrent_requests)),
            warehouse,
            settings,
        }))
    }

    /// A place among the requests whose statement runs. It is asked for when the request is whole, so that a client that is
    /// slow with its body holds none.
    async fn place(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let place = tokio::time::timeout(PLACE_DEADLINE, self.places.acquire()).await;
        place.ok().and_then(Result::ok).ok_or_else(|| {
            let detail = "the server answers as many requests as it may";
            Problem::wait(StatusCode::SERVICE_UNAVAILABLE, "busy", detail, 2)
        })
    }

    /// What a failed statement means for the client; what it means for the operator goes to the log.
    fn failed(&self, error: &crate::warehouse::Error, free: bool) -> Problem {
        let problem = problem::of_warehouse(error, free);
        if problem.status >= 500 {
            self.metrics.failed.inc();
            match error {
                // A refusal's words may repeat values of the client's statement; ours has none.
                crate::warehouse::Error::Refused { code, .. } if free => {
                    tracing::warn!("the warehouse refuses a statement with code {code}");
                }
                other => tracing::warn!("{other}"),
            }
        }
        problem
    }
}

/// The routes with their description; behind the gate of `api`, where there is one.
fn described(api: Option<&Arc<Api>>) -> OpenApiRouter<Arc<Api>> {
    let scoped = |routes: OpenApiRouter<Arc<Api>>, scope: Scope| match api {
        Some(api) => routes.route_layer(from_fn_with_state((api.clone(), scope), gate::enter)),
        None => routes,
    };
    let persons = OpenApiRouter::new()
        .routes(routes!(person::daily))
        .routes(routes!(person::sessions))
        .routes(routes!(person::realtime));
    let aggregates = OpenApiRouter::new().routes(routes!(platform::funnel)).routes(routes!(platform::realtime));
    let fleet = OpenApiRouter::new().routes(routes!(platform::gateways)).routes(routes!(platform::gateway_hours));
    OpenApiRouter::with_openapi(openapi::base())
        .merge(scoped(OpenApiRouter::new().routes(routes!(query::execute)), Scope::Query))
        .merge(scoped(persons, Scope::Persons))
        .merge(scoped(aggregates, Scope::Aggregates))
        .merge(scoped(fleet, Scope::Fleet))
        .routes(routes!(openapi::document))
        .routes(routes!(healthz))
        .routes(routes!(metrics_text))
}

/// The whole server as one service.
pub fn router(api: &Arc<Api>) -> Router {
    let (routes, _) = described(Some(api)).split_for_parts();
    let routes = routes
        .fallback(async || Problem::not_found("there is nothing at this path; /openapi.json says what there is"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(DefaultBodyLimit::max(usize::try_from(api.settings.body.0).unwrap_or(usize::MAX)))
        .layer(CatchPanicLayer::custom(gate::panicked))
        .layer(from_fn_with_state(api.clone(), gate::watch))
        .layer(from_fn(quiet));
    match cors(&api.settings.cors_origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
    .with_state(api.clone())
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST])
            .allow_headers([AUTHORIZATION, CONTENT_TYPE])
            .max_age(Duration::from_secs(600))
    })
}

/// No cache keeps an answer, and no browser guesses what it is.
async fn quiet(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
    let mut response = next.run(request).await;
    for (name, value) in [("cache-control", "no-store"), ("x-content-type-options", "nosniff")] {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Whether the server runs and reaches the warehouse.
#[utoipa::path(get, path = "/healthz", tag = "server", security(()), responses(
    (status = 200, description = "It does", body = Health),
    (status = 503, description = "It runs and does not reach the warehouse", body = Health),
))]
async fn healthz(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let reached =
        tokio::time::timeout(Duration::from_secs(3), api.warehouse.ping()).await.is_ok_and(|ping| ping.is_ok());
    let status = if reached { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Health { warehouse: if reached { "reached" } else { "not reached" } }))
}

/// How the server is.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
struct Health {
    /// `reached` or `not reached`.
    warehouse: &'static str,
}

/// The server's numbers for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server", security(()), responses(
    (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
))]
async fn metrics_text(State(api): State<Arc<Api>>) -> impl IntoResponse {
    api.metrics.tokens.set(i64::try_from(api.gate.tokens()).unwrap_or(i64::MAX));
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], api.metrics.text())
}
