//! What every request passes: its id, the deadline, the places, the token, the token's rate; and the audit's line about it.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

use super::Api;
use super::problem::Problem;
use crate::token::{Entry, Refused, Scope, Tokens};

/// Each answer has it; problems name it too.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request's id.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// Whose token it is.
#[derive(Debug, Clone)]
pub(super) struct Caller(Arc<Entry>);

impl Caller {
    /// Of a request that passed the token's check.
    pub(super) fn of(parts: &Parts) -> Result<&Caller, Problem> {
        parts.extensions.get::<Caller>().ok_or_else(Problem::internal)
    }

    pub(super) fn sees(&self, user: Uuid) -> bool {
        self.0.sees(user)
    }
}

/// What the audit says of a request beside the usual. Never a value, neither of the answer nor of a parameter.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// Whose token.
    token: String,
    /// Whose rows were asked for, whether they were given or not.
    pub(super) person: String,
    /// SHA-256 of a free statement. Its text is in ClickHouse's query log, under the request's id.
    pub(super) statement: String,
    /// The names of its parameters.
    pub(super) parameters: String,
    /// How many rows went out.
    pub(super) rows: u64,
}

/// The audit of the request in hand.
#[derive(Debug, Clone, Default)]
pub(super) struct Record(Arc<Mutex<Audit>>);

impl Record {
    pub(super) fn write(&self) -> MutexGuard<'_, Audit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's line in the audit. It is written when the request ends, however it ends.
struct Line {
    api: Arc<Api>,
    id: String,
    method: Method,
    route: String,
    record: Record,
    begun: Instant,
    /// 499: the client went away.
    status: u16,
}

impl Drop for Line {
    fn drop(&mut self) {
        let (audit, took) = (self.record.write(), self.begun.elapsed());
        self.api.metrics.answered(&self.route, self.status, took);
        if self.route.starts_with("/api/") {
            info!(
                target: "audit", request = self.id, token = audit.token, method = self.method.as_str(),
                route = self.route, status = self.status, person = audit.person, rows = audit.rows,
                statement = audit.statement, parameters = audit.parameters, ms = took.as_millis() as u64, "asked"
            );
        }
    }
}

/// Who may come in.
#[derive(Debug)]
pub(super) struct Gate {
    tokens: RwLock<Arc<Tokens>>,
    file: PathBuf,
    rate: DefaultKeyedRateLimiter<String>,
}

impl Gate {
    /// Reads the tokens.
    pub(super) fn new(file: PathBuf, per_minute: NonZeroU32, burst: NonZeroU32) -> Result<Self, String> {
        let tokens = RwLock::new(Arc::new(Tokens::load(&file)?));
        let rate = RateLimiter::keyed(Quota::per_minute(per_minute).allow_burst(burst));
        Ok(Gate { tokens, file, rate })
    }

    pub(super) fn tokens(&self) -> usize {
        self.read().len()
    }

    fn read(&self) -> Arc<Tokens> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again whenever it has changed. A file that is wrong changes nothing but the log.
    pub(super) async fn follow(self: Arc<Self>, every: Duration) {
        let modified = |file: PathBuf| async move {
            let about = tokio::fs::metadata(&file).await.and_then(|about| Ok((about.modified()?, about.len())));
            about.unwrap_or((SystemTime::UNIX_EPOCH, 0))
        };
        let mut known = None;
        loop {
            let now = modified(self.file.clone()).await;
            if known.replace(now) != Some(now) {
                match Tokens::load(&self.file) {
                    Ok(tokens) => *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens),
                    Err(why) => warn!("the tokens stay as they were: {why}"),
                }
            }
            tokio::time::sleep(every).await;
        }
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let token = token.ok_or_else(|| Problem::unauthorized("send a token: Authorization: Bearer TOKEN"))?;
        self.read().find(token, Timestamp::now()).map(Caller).map_err(|refused| match refused {
            Refused::Unknown => Problem::unauthorized("this token is not known"),
            Refused::Expired => Problem::unauthorized("this token has expired"),
        })
    }

    fn admit(&self, caller: &Caller) -> Result<(), Problem> {
        self.rate.check_key(&caller.0.name).map_err(|until| {
            let seconds = until.wait_time_from(DefaultClock::default().now()).as_secs() + 1;
            Problem::wait(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "this token asks too often", seconds)
        })
    }
}

/// Around everything: id, deadline, count, audit, and the id in every problem.
pub(super) async fn watch(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    // An id of our own: one that a client chose could forge another request's lines in the audit.
    let id = Uuid::new_v4().to_string();
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let record = Record::default();
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(record.clone());
    let (method, begun, deadline) = (request.method().clone(), Instant::now(), api.deadline);
    let mut line = Line { api, id, method, route, record, begun, status: 499 };
    let mut response = match timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, "too-slow", "no answer in time").into_response(),
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.signed(&line.id, &response);
    }
    if let Ok(value) = HeaderValue::from_str(&line.id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    line.status = response.status().as_u16();
    response
}

/// Around everything under `/api`: the token, its rate, its scope.
pub(super) async fn enter(
    State((api, scope)): State<(Arc<Api>, Scope)>,
    Extension(record): Extension<Record>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = api.gate.caller(request.headers())?;
    record.write().token.clone_from(&caller.0.name);
    api.gate.admit(&caller)?;
    if !caller.0.has(scope) {
        return Err(Problem::forbidden(format!("this token has not the scope {}", scope.name())));
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// A problem in place of what a panic would leave of the connection.
pub(super) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request's task panicked");
    Problem::internal().into_response()
}
