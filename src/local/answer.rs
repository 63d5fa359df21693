//! What the control socket and the TCP listener answer alike: GET, one document each, without measured values and
//! without persons.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};

use super::board::Board;
use super::metrics;

/// An answer; its body may be a stream.
pub(super) type Answer = Response<BoxBody<Bytes, Infallible>>;

/// The paths that are answered here, for who asks another one.
pub(super) const PATHS: &str = "/healthz, /readyz, /metrics, /api/status";

/// The answer to `GET path`, where it is one of these.
pub(super) fn get(board: &Board, path: &str) -> Option<Answer> {
    Some(match path {
        "/healthz" => match board.store.failure() {
            None => text(StatusCode::OK, "alive\n"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("the store failed: {why}\n")),
        },
        "/readyz" => {
            let ready = board.condition().ready();
            let mut answer = json(&ready);
            if !ready.ready {
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            answer
        }
        "/metrics" => of_type(metrics::CONTENT_TYPE, metrics::render(&board.condition(), &board.named).into()),
        "/api/status" | "/status" => json(&board.status()),
        _ => return None,
    })
}

/// A document, or why there is none.
pub(super) fn json_or_problem<T: serde::Serialize, E: std::fmt::Display>(result: Result<T, E>) -> Answer {
    match result {
        Ok(value) => json(&value),
        Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
    }
}

/// A JSON document.
pub(super) fn json<T: serde::Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => of_type("application/json", bytes.into()),
        Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
    }
}

/// A sentence.
pub(super) fn text(status: StatusCode, message: &str) -> Answer {
    let mut answer = of_type("text/plain; charset=utf-8", message.to_owned().into());
    *answer.status_mut() = status;
    answer
}

/// Lines as they come.
pub(super) fn stream(body: BoxBody<Bytes, Infallible>) -> Answer {
    with_headers("application/x-ndjson", body)
}

fn of_type(content_type: &'static str, body: Bytes) -> Answer {
    with_headers(content_type, Full::new(body).boxed())
}

fn with_headers(content_type: &'static str, body: BoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A name that a device chose must not become a page.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
