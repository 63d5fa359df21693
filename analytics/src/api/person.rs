//! One person's numbers: by day, by minute, and the person's sessions. The statements are those of
//! `deploy/clickhouse/queries`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::request::Parts;
use axum::{Extension, Json};
use biogate::observation::EventType;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{Asked, Person, piece};
use super::gate::Record;
use super::problem::Problem;

const DAILY: &str = include_str!("../../../deploy/clickhouse/queries/daily_stats.sql");
const SESSIONS: &str = include_str!("../../../deploy/clickhouse/queries/sessions.sql");
const REALTIME: &str = include_str!("../../../deploy/clickhouse/queries/realtime.sql");

/// The day of an event in `DAILY`, and what is in its place when a time zone is asked for.
const DAY: &str = "toDate(local_time)";
const DAY_IN_ZONE: &str = "toDate(toTimeZone(timestamp, {tz:String}))";

/// The events in `REALTIME`, and those of one person.
const EVENTS: &str = "FROM events\nWHERE ";
const EVENTS_OF_ONE: &str = "FROM events\nWHERE user_id = {user_id:UUID} AND ";

/// Rows of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rows<T> {
    /// The rows.
    pub(super) data: Vec<T>,
}

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Days {
    /// How many days back from now, 24 hours each. So the oldest day of the answer is not whole.
    #[serde(default = "week")]
    #[param(minimum = 1, maximum = 366, default = 7)]
    days: u16,
}

/// How far back, and what a day is.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DaysInZone {
    /// How many days back from now, 24 hours each. So the oldest day of the answer is not whole.
    #[serde(default = "week")]
    #[param(minimum = 1, maximum = 366, default = 7)]
    days: u16,
    /// IANA name of the zone whose days are meant, as `Europe/Berlin`. Left out: the day of the place where each event was measured.
    #[param(example = "Europe/Berlin")]
    tz: Option<String>,
}

/// How far back, in minutes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Minutes {
    /// How many minutes back from now.
    #[serde(default = "hour")]
    #[param(minimum = 1, maximum = 1440, default = 60)]
    pub(super) minutes: u16,
}

fn week() -> u16 {
    7
}

fn hour() -> u16 {
    60
}

/// A number of the query string as a parameter, when it is in its range.
pub(super) fn within(name: &str, value: u16, most: u16) -> Result<String, Problem> {
    match (1..=most).contains(&value) {
        true => Ok(value.to_string()),
        false => Err(Problem::bad_request(format!("{name}={value}: write 1 to {most}"))),
    }
}

/// One day of one component.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Day {
    /// The day.
    #[schema(format = Date)]
    date: String,
    /// As `systolic`; empty where the type has one value.
    component: String,
    /// UCUM.
    unit: String,
    /// How many values.
    readings: u64,
    /// The smallest.
    min: f64,
    /// The largest.
    max: f64,
    /// The mean.
    avg: f64,
    /// The middle one.
    median: f64,
    /// 95 % are at most this.
    p95: f64,
    /// All together; what steps, sleep and workouts are asked for.
    sum: f64,
}

/// A person's values of one type, day by day
///
/// Each component and unit for itself, the newest day first. `heart-rate` and `heart_rate` are the same.
#[utoipa::path(get, path = "/api/analytics/{event_type}/{user_id}", tag = "persons",
    params(
        ("event_type" = String, Path, description = "heart-rate, blood-pressure, temperature, steps, sleep, workout, spo2, weight, respiration-rate or glucose", example = "heart-rate"),
        ("user_id" = uuid::Uuid, Path, description = "The person"),
        DaysInZone,
    ),
    responses(
        (status = 200, description = "The days that have values", body = Rows<Day>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such type", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn daily(
    State(api): State<Arc<Api>>,
    Extension(record): Extension<Record>,
    kind: Kind,
    Person(user): Person,
    Asked(asked): Asked<DaysInZone>,
) -> Result<Json<Rows<Day>>, Problem> {
    let (user, days) = (user.to_string(), within("days", asked.days, 366)?);
    let mut params = vec![("user_id", user.as_str()), ("event_type", kind.0.name()), ("days", &days)];
    let sql = match &asked.tz {
        None => DAILY.to_owned(),
        Some(zone) => {
            TimeZone::get(zone)
                .map_err(|_| Problem::bad_request("tz: no such time zone; write an IANA name, as Europe/Berlin"))?;
            params.push(("tz", zone));
            DAILY.replace(DAY, DAY_IN_ZONE)
        }
    };
    rows(&api, &record, &sql, &params).await
}

/// The `{event_type}` of the path.
#[derive(Debug)]
pub(super) struct Kind(EventType);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Kind {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let name = piece(parts, "event_type").await?;
        let names = || EventType::ALL.map(|kind| kind.name().replace('_', "-")).join(", ");
        let unknown = || Problem::not_found(format!("there is no such event type; there are {}", names()));
        EventType::from_name(&name.replace('-', "_")).map(Kind).ok_or_else(unknown)
    }
}

/// One session.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Session {
    /// The session.
    session_id: uuid::Uuid,
    /// Its first page view.
    #[schema(format = DateTime)]
    session_start: String,
    /// Its last one.
    #[schema(format = DateTime)]
    session_end: String,
    /// How many page views.
    page_views: u64,
    /// How many pages.
    unique_pages: u64,
    /// Seconds on them.
    total_duration: u64,
}

/// A person's sessions on the platform
///
/// The newest first.
#[utoipa::path(get, path = "/api/analytics/sessions/{user_id}", tag = "persons",
    params(("user_id" = uuid::Uuid, Path, description = "The person"), Days),
    responses(
        (status = 200, description = "The sessions that ended in these days", body = Rows<Session>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn sessions(
    State(api): State<Arc<Api>>,
    Extension(record): Extension<Record>,
    Person(user): Person,
    Asked(asked): Asked<Days>,
) -> Result<Json<Rows<Session>>, Problem> {
    let days = within("days", asked.days, 366)?;
    rows(&api, &record, SESSIONS, &[("user_id", &user.to_string()), ("days", &days)]).await
}

/// One minute of one component.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Minute {
    /// When it begins.
    #[schema(format = DateTime)]
    minute: String,
    /// As `heart_rate`.
    event_type: String,
    /// As `systolic`; empty where the type has one value.
    component: String,
    /// How many values.
    events: u64,
    /// Their mean, in the type's unit.
    avg_value: f64,
}

/// A person's values minute by minute
///
/// The oldest minute first; minutes without a value are left out.
#[utoipa::path(get, path = "/api/analytics/realtime/{user_id}", tag = "persons",
    params(("user_id" = uuid::Uuid, Path, description = "The person"), Minutes),
    responses(
        (status = 200, description = "The minutes that have values", body = Rows<Minute>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn realtime(
    State(api): State<Arc<Api>>,
    Extension(record): Extension<Record>,
    Person(user): Person,
    Asked(asked): Asked<Minutes>,
) -> Result<Json<Rows<Minute>>, Problem> {
    let minutes = within("minutes", asked.minutes, 1440)?;
    let sql = REALTIME.replace(EVENTS, EVENTS_OF_ONE);
    rows(&api, &record, &sql, &[("user_id", &user.to_string()), ("minutes", &minutes)]).await
}

/// What a statement of ours gives.
pub(super) async fn rows<T: serde::de::DeserializeOwned>(
    api: &Api,
    record: &Record,
    sql: &str,
    params: &[(&str, &str)],
) -> Result<Json<Rows<T>>, Problem> {
    let _place = api.place().await?;
    let data: Vec<T> = api.warehouse.rows(sql, params).await.map_err(|why| api.failed(&why, false))?;
    record.write().rows = data.len() as u64;
    Ok(Json(Rows { data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_hold_what_is_replaced_in_them() {
        assert_eq!(DAILY.matches(DAY).count(), 1, "{DAILY}");
        assert_eq!(REALTIME.matches(EVENTS).count(), 1, "{REALTIME}");
    }
}
