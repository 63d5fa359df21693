//! Every error that a client sees: problem+json (RFC 9457).

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::warehouse;

/// A problem, as RFC 9457 writes it. `instance`, the request's id, is added on the way out.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// What kind of problem: `urn:biogate:problem:...`; docs/query-api.md lists them.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// `urn:uuid:` and the request's id, which the audit and ClickHouse's query log have too.
    pub instance: String,
    #[serde(skip)]
    #[schema(ignore)]
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        let title = kind.replace('-', " ");
        Problem {
            kind: format!("urn:biogate:problem:{kind}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            instance: String::new(),
            header: None,
        }
    }

    /// With a header of the answer.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// What the client sent cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// No token, or one that is not taken. Which of the two is not told apart further.
    pub fn unauthorized(detail: &'static str) -> Self {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// A token without the right.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// Nothing is there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// The path knows other methods. axum adds which.
    pub fn method_not_allowed() -> Self {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "the Allow header says which methods this path has",
        )
    }

    /// Too often, or too much at once; how many seconds to wait.
    pub fn wait(status: StatusCode, kind: &'static str, detail: &'static str, seconds: u64) -> Self {
        Problem::new(status, kind, detail).with(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// This program failed.
    pub fn internal() -> Self {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this is a fault of the server; its log says more")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let header = self.header.clone();
        let mut response = (status, Json(&self)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(header) = header {
            let (name, value) = *header;
            response.headers_mut().insert(name, value);
        }
        // The gate writes the request's id into it.
        response.extensions_mut().insert(self);
        response
    }
}

impl Problem {
    /// The answer again, now with the request's id. What the layers around it have added stays.
    pub(super) fn signed(mut self, request: &str, response: &Response) -> Response {
        self.instance = format!("urn:uuid:{request}");
        let mut signed = self.into_response();
        if let Some(allow) = response.headers().get(ALLOW) {
            signed.headers_mut().insert(ALLOW, allow.clone());
        }
        signed
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let kind = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "payload-too-large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported-media-type",
            StatusCode::UNPROCESSABLE_ENTITY => "unprocessable",
            _ => "bad-request",
        };
        // serde's words may repeat a value that was sent; that goes back to its sender and nowhere else.
        Problem::new(rejection.status(), kind, rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Problem::bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::bad_request(rejection.body_text())
    }
}

/// What the server's refusal means for who asked. `free`: the statement is the client's own, so its faults are too.
pub(super) fn of_warehouse(error: &warehouse::Error, free: bool) -> Problem {
    use warehouse::Error;
    let busy = |detail| Problem::wait(StatusCode::SERVICE_UNAVAILABLE, "warehouse-busy", detail, 5);
    let expensive = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "limit-exceeded", detail);
    match error {
        Error::Unreachable { .. } => {
            Problem::wait(StatusCode::SERVICE_UNAVAILABLE, "warehouse-unreachable", "the warehouse does not answer", 5)
        }
        Error::TooSlow { .. } => too_slow(),
        Error::TooLarge(_) => expensive(format!("{error}: ask for less")),
        Error::Format(_) => Problem::bad_request(error.to_string()),
        Error::Refused { code, words } => match code {
            // TIMEOUT_EXCEEDED, TOO_SLOW
            159 | 160 => too_slow(),
            // TOO_MANY_SIMULTANEOUS_QUERIES, and memory that others take
            202 => busy("the warehouse runs as many statements as it may"),
            241 if words.contains("(total)") => busy("the warehouse is out of memory at the moment"),
            // TOO_MANY_ROWS, MEMORY_LIMIT_EXCEEDED, TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES
            158 | 241 | 307 | 396 => expensive(format!("ask for less: {words}")),
            // wrong user, password or rights of this program itself
            192 | 193 | 194 | 516 => broken(),
            _ if free => Problem::new(StatusCode::BAD_REQUEST, "statement-refused", words.clone()),
            _ => broken(),
        },
        Error::Answer(_) | Error::Settings(_) => broken(),
    }
}

fn too_slow() -> Problem {
    Problem::new(
        StatusCode::GATEWAY_TIMEOUT,
        "too-slow",
        "the warehouse gave no answer in time: ask for less, or later",
    )
}

fn broken() -> Problem {
    let detail = "the warehouse refuses what this program asks; its operator finds the reason in the log";
    Problem::new(StatusCode::BAD_GATEWAY, "warehouse-refuses", detail)
}
