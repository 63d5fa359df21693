//! `POST /api/query`: a free statement of an analyst.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json as Answered};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use super::extract::Json;
use super::gate::{Record, RequestId};
use super::problem::Problem;
use crate::warehouse::Column;
use crate::{statement, token};

/// A statement and its values.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "query": "SELECT count() AS readings FROM events WHERE event_type = {type:String}",
    "parameters": {"type": "heart_rate"}
}))]
pub(super) struct Asked {
    /// One statement that reads. Values stand in it as `{name:Type}`.
    #[schema(min_length = 1)]
    query: String,
    /// The values by their names: strings, numbers, booleans, or arrays of these.
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    parameters: Option<BTreeMap<String, Value>>,
}

/// What a statement gave.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rows {
    /// The rows, each an object of columns.
    #[schema(value_type = Vec<Value>)]
    data: Box<RawValue>,
    /// The columns, in their order.
    meta: Vec<Column>,
    /// How many rows.
    rows: u64,
}

/// Run a statement that reads
///
/// One statement, by a user that may only read, within the server's limits of time, rows, bytes and memory. It needs a
/// token with the scope `query`, which only a token that may see everybody can have.
#[utoipa::path(post, path = "/api/query", tag = "query", request_body = Asked, responses(
    (status = 200, description = "The rows", body = Rows),
    (status = 400, description = "Not one reading statement, or the warehouse refuses it", body = Problem, content_type = "application/problem+json"),
    (status = 408, description = "The body did not arrive in time", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "The JSON is not a statement, or the answer is over a limit", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn execute(
    State(api): State<Arc<Api>>,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(record): Extension<Record>,
    Json(asked): Json<Asked>,
) -> Result<Answered<Rows>, Problem> {
    let parameters = asked.parameters.unwrap_or_default();
    record.write().statement = token::hash(&asked.query);
    let statement = statement::checked(&asked.query).map_err(Problem::bad_request)?;
    let parameters = parameters.iter().map(|(name, value)| statement::parameter(name, value));
    let parameters = parameters.collect::<Result<Vec<_>, _>>().map_err(Problem::bad_request)?;
    record.write().parameters = parameters.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",");
    let _place = api.place().await?;
    let answer = api.warehouse.answer(statement, parameters, &id).await.map_err(|why| api.failed(&why, true))?;
    record.write().rows = answer.rows;
    Ok(Answered(Rows { data: answer.data, meta: answer.meta, rows: answer.rows }))
}
