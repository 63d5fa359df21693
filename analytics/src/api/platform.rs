//! Numbers that name no person: the platform's own use, everybody's values minute by minute, and the gateways.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{Asked, Gateway};
use super::gate::Record;
use super::person::{Minute, Minutes, Rows, rows, within};
use super::problem::Problem;

const FUNNEL: &str = include_str!("../../../deploy/clickhouse/queries/activity_funnel.sql");
const REALTIME: &str = include_str!("../../../deploy/clickhouse/queries/realtime.sql");
const HUBS: &str = include_str!("../../../deploy/clickhouse/queries/hubs.sql");

const GATEWAY_HOURS: &str = "SELECT hour, sent, stored, lacking, lost, refused, why FROM hub_hours \
     WHERE gateway_id = {gateway_id:String} AND hour >= now() - toIntervalDay({days:UInt16}) ORDER BY hour";

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Days {
    /// How many days back from now, 24 hours each.
    #[serde(default = "day")]
    #[param(minimum = 1, maximum = 366, default = 1)]
    days: u16,
}

fn day() -> u16 {
    1
}

/// One page of the platform.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Page {
    /// The page.
    page: String,
    /// How often it was seen.
    views: u64,
    /// By how many persons.
    unique_users: u64,
    /// For how long on the average, in seconds.
    avg_duration: f64,
}

/// Pages by how often they were seen
#[utoipa::path(get, path = "/api/analytics/activity-funnel", tag = "aggregates", params(Days), responses(
    (status = 200, description = "The pages, the most seen first", body = Rows<Page>),
    (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn funnel(
    State(api): State<Arc<Api>>,
    Extension(record): Extension<Record>,
    Asked(asked): Asked<Days>,
) -> Result<Json<Rows<Page>>, Problem> {
    rows(&api, &record, FUNNEL, &[("days", &within("days", asked.days, 366)?)]).await
}

/// Everybody's values minute by minute
///
/// The oldest minute first; minutes without a value are left out. With few persons a mean may be one person's value.
#[utoipa::path(get, path = "/api/analytics/realtime", tag = "aggregates", params(Minutes), responses(
    (status = 200, description = "The minutes that have values", body = Rows<Minute>),
    (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn realtime(
    State(api): State<Arc<Api>>,
    Extension(record): Extension<Record>,
    Asked(asked): Asked<Minutes>,
) -> Result<Json<Rows<Minute>>, Problem> {
    rows(&api, &record, REALTIME, &[("minutes", &within("minutes", asked.minutes, 1440)?)]).await
}

/// One gateway.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Hub {
    /// Its name.
    gateway_id: String,
    /// All that it heard until then is in the warehouse; null: nobody knows.
    #[schema(format = DateTime)]
    complete_up_to: Option<String>,
    /// How far that is behind now, in seconds.
    lag_seconds: Option<i64>,
    /// Events that wait in it.
    backlog_events: u64,
    /// When the oldest of them was measured.
    #[schema(format = DateTime)]
    oldest_waiting: Option<String>,
    /// When it spoke last.
    #[schema(format = DateTime)]
    last_heartbeat: Option<String>,
    /// For how long it has been silent.
    silent_seconds: i64,
    /// Rows that it has sent and that are missing in the warehouse.
    rows_lacking: Option<i64>,
    /// Events that it lost for good before it could send them.
    events_lost: u64,
    /// Of these, those that no hour can name.
    events_lost_undated: u64,
    /// How it knows the time: `synced`, `estimated` or `device`.
    clock: String,
}

/// Every gateway: how far behind it is and what is missing of it
///
/// The one that is silent the longest first.
#[utoipa::path(get, path = "/api/analytics/gateways", tag = "fleet", responses(
    (status = 200, description = "The gateways that have ever sent a heartbeat", body = Rows<Hub>),
))]
pub(super) async fn gateways(
    State(api): State<Arc<Api>>,
    Extension(record): Extension<Record>,
) -> Result<Json<Rows<Hub>>, Problem> {
    let sql = format!(
        "SELECT *, dateDiff('second', complete_up_to, now64(3, 'UTC')) AS lag_seconds FROM (\n{HUBS}\n) \
         ORDER BY silent_seconds DESC, gateway_id"
    );
    rows(&api, &record, &sql, &[]).await
}

/// One hour of a gateway.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct HubHour {
    /// When it begins.
    #[schema(format = DateTime)]
    hour: String,
    /// Events that the gateway has sent.
    sent: u64,
    /// Of these, in the warehouse.
    stored: u64,
    /// How many are missing here; negative: how many are here beyond those sent. 0 while it is too early to say.
    lacking: i64,
    /// Events of this hour that the gateway lost for good.
    lost: u64,
    /// Readings of it that lie in the gateway's quarantine.
    refused: u64,
    /// Why it is not complete, or that it is.
    why: String,
}

/// A gateway's hours: what it sent, what is here, and why the rest is not
#[utoipa::path(get, path = "/api/analytics/gateways/{gateway_id}/hours", tag = "fleet",
    params(("gateway_id" = String, Path, description = "The gateway's name"), Days),
    responses(
        (status = 200, description = "The hours of which anything is known", body = Rows<HubHour>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn gateway_hours(
    State(api): State<Arc<Api>>,
    Extension(record): Extension<Record>,
    Gateway(id): Gateway,
    Asked(asked): Asked<Days>,
) -> Result<Json<Rows<HubHour>>, Problem> {
    let days = within("days", asked.days, 366)?;
    rows(&api, &record, GATEWAY_HOURS, &[("gateway_id", &id), ("days", &days)]).await
}
