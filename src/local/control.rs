//! HTTP on a unix socket, mode 0660: how `buffer`, `record` and the like reach a gateway that holds the store.
//!
//! GET what `answer` has for everybody, and `/near` (the Bluetooth peripherals that are heard),
//! `/quarantine?limit=N`, `/verify`, `/export?limit=N`, `/record` (one JSON line a frame, until the client goes) and
//! `/tap` (one JSON line an event). Every other answer is one document. POST carries out a command, a JSON document of
//! at most 64 KiB: `/quarantine/...`, `/assign`, and `/assignments`, which tells who wears what. Answers are bounded.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::answer::{self, Answer, PATHS, json, json_or_problem, text as problem};
use super::board::Board;
use super::persons;
use super::tap::{self, Shown};
use crate::quarantine::Filter;
use crate::source::recorded::RecordedFrame;

/// How many clients are served at once; a further one waits.
const MAX_CLIENTS: usize = 8;

/// How long a client may take for its request's head.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// A command's request is never longer.
const MAX_COMMAND: usize = 64 << 10;

/// How many lines of a recording may wait for a slow client before it loses some.
const RECORD_QUEUE: usize = 256;

/// The socket; dropping it removes the file.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens at `path`, in place of a socket that an earlier process left there. Only the holder of the store may call this.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::fs::remove_file(path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Control { listener, path: path.to_path_buf() })
    }

    /// Serves until dropped.
    pub async fn serve(self, board: Arc<Board>) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(why) => {
                    warn!("the control socket did not accept: {why}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let board = board.clone();
            tokio::spawn(async move {
                let _place = place;
                let answer = service_fn(move |request| {
                    let board = board.clone();
                    async move { Ok::<_, Infallible>(answer(&board, request).await) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(16 << 10);
                if let Err(why) = server.serve_connection(TokioIo::new(stream), answer).await {
                    debug!("a control client went: {why}");
                }
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(why) = std::fs::remove_file(&self.path) {
            debug!("the control socket's file stays: {why}");
        }
    }
}

async fn answer(board: &Arc<Board>, request: Request<Incoming>) -> Answer {
    match *request.method() {
        Method::GET => {}
        Method::POST => return command(board, request).await,
        _ => return problem(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST are answered here"),
    }
    if let Some(answer) = answer::get(board, request.uri().path()) {
        return answer;
    }
    let query = request.uri().query();
    let limit = limit_of(query);
    match request.uri().path() {
        #[cfg(feature = "ble")]
        "/near" => answer::json(&board.near()),
        "/quarantine" => json_or_problem(board.quarantine.list(&Filter::default(), limit).await),
        "/verify" => json_or_problem(board.store.verify().await),
        "/export" => json_or_problem(board.export(limit).await),
        "/record" => record(board),
        "/tap" => tap::open(board.clone(), Shown::of(query)),
        _ => problem(
            StatusCode::NOT_FOUND,
            &format!("ask {PATHS}, /near, /quarantine, /verify, /export, /record or /tap"),
        ),
    }
}

/// Carries out what a command asks for.
async fn command(board: &Board, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let body = match timeout(HEAD_DEADLINE, Limited::new(request.into_body(), MAX_COMMAND).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(why)) => return problem(StatusCode::BAD_REQUEST, &why.to_string()),
        Err(_elapsed) => return problem(StatusCode::REQUEST_TIMEOUT, "the request did not come whole"),
    };
    let asked: Value = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &format!("the request is no JSON: {why}")),
    };
    match path.as_str() {
        "/quarantine/list" | "/quarantine/replay" | "/quarantine/drop" => {
            json_or_problem(super::quarantine::command(&board.quarantine, &path, asked).await)
        }
        "/assign" => json_or_problem(persons::assign(&board.orders, asked).await.map_err(|why| format!("{why:#}"))),
        // Names of persons: asked for like a command, so that only who may command is told.
        "/assignments" => json(&persons::worn(&board.timeline.borrow(), asked["device"].as_str())),
        _ => problem(StatusCode::NOT_FOUND, &format!("no command {path} is known here")),
    }
}

/// `limit=N` of a query; 1,000 where it says nothing, at most 100,000.
fn limit_of(query: Option<&str>) -> usize {
    let said = query.unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("limit=")?.parse().ok());
    said.unwrap_or(1_000).min(100_000)
}

fn record(board: &Board) -> Answer {
    let (mut lines, body) = Channel::<Bytes, Infallible>::new(RECORD_QUEUE);
    let mut readings = board.taps.readings.subscribe();
    let boot = board.boot;
    tokio::spawn(async move {
        loop {
            let line = match readings.recv().await {
                Ok(reading) => {
                    let heard_at = crate::clock::system::wall_of(boot, reading.heard);
                    let mut line =
                        serde_json::to_vec(&RecordedFrame::from_reading(&reading, heard_at)).unwrap_or_default();
                    line.push(b'\n');
                    line
                }
                Err(RecvError::Lagged(lost)) => {
                    warn!("a recording client is too slow: it lost {lost} frames");
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            if lines.send_data(line.into()).await.is_err() {
                return;
            }
        }
    });
    answer::stream(body.boxed())
}
