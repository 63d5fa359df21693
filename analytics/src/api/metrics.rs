//! `/metrics`: what the server does, in numbers. Nothing of persons, tokens or statements.

use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// OpenMetrics, which Prometheus asks for first.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds.
const BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Answered {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route {
    route: String,
}

impl EncodeLabelSet for Answered {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("route", self.route.clone()), ("status", self.status.to_string())].encode(encoder)
    }
}

impl EncodeLabelSet for Route {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("route", self.route.clone())].encode(encoder)
    }
}

/// The server's numbers.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    /// Connections that are open.
    pub(super) connections: Gauge,
    /// Tokens that are known, expired ones too.
    pub(super) tokens: Gauge,
    /// Statements that the warehouse did not answer.
    pub(super) failed: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("biogate_analytics");
        let requests = Family::<Answered, Counter>::default();
        let seconds = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let (connections, tokens, failed) = (Gauge::default(), Gauge::default(), Counter::default());
        registry.register("requests", "Requests by route and status; 499: the client went away", requests.clone());
        registry.register("request_seconds", "How long requests took", seconds.clone());
        registry.register("connections", "Connections that are open", connections.clone());
        registry.register("tokens", "Tokens in the tokens file", tokens.clone());
        let help = "Statements that the warehouse did not answer, by its fault or this program's";
        registry.register("warehouse_failures", help, failed.clone());
        Metrics { registry: Mutex::new(registry), requests, seconds, connections, tokens, failed }
    }

    /// Counts a request. Its route is the pattern, never the path.
    pub(super) fn answered(&self, route: &str, status: u16, took: Duration) {
        let route = if route.is_empty() { "none" } else { route }.to_owned();
        self.seconds.get_or_create(&Route { route: route.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&Answered { route, status }).inc();
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _infallible = encode(&mut text, &registry);
        text
    }
}
