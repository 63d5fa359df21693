//! What handlers take from a request. A refusal is a problem, and nobody gets a person's id without the right to it.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::gate::{Caller, Record};
use super::problem::Problem;

/// How long a client may take for its body.
const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let slow = || Problem::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "the body did not arrive in time");
        let body = axum::Json::from_request(request, state);
        let axum::Json(body) = tokio::time::timeout(BODY_DEADLINE, body).await.map_err(|_| slow())??;
        Ok(Json(body))
    }
}

/// The part after `?`.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(asked) = Query::from_request_parts(parts, state).await?;
        Ok(Asked(asked))
    }
}

/// A piece of the path by its name.
pub(super) async fn piece(parts: &mut Parts, name: &str) -> Result<String, Problem> {
    let pieces = RawPathParams::from_request_parts(parts, &()).await;
    let pieces = pieces.map_err(|why| Problem::bad_request(why.body_text()))?;
    let found = pieces.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(Problem::internal)
}

/// The `{user_id}` of the path, which the token may see. There is no other way to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person(pub(super) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Person {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let text = piece(parts, "user_id").await?;
        let user = Uuid::try_parse(&text).map_err(|_| Problem::bad_request("user_id is not a UUID"))?;
        if let Some(record) = parts.extensions.get::<Record>() {
            record.write().person = user.to_string();
        }
        match Caller::of(parts)?.sees(user) {
            true => Ok(Person(user)),
            // The same whether there is such a person or not.
            false => Err(Problem::forbidden("this token may not see this person's rows")),
        }
    }
}

/// The `{gateway_id}` of the path.
#[derive(Debug)]
pub(super) struct Gateway(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Gateway {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, state).await?;
        Ok(Gateway(id))
    }
}
