//! Asking a running gateway over its control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the gateway may take to answer. A verification of a full store reads 2 GiB.
const DEADLINE: Duration = Duration::from_secs(120);

/// No answer is longer.
const MAX_ANSWER: usize = 256 << 20;

/// No line of a stream is longer: an event's metadata is bounded well below.
const MAX_LINE: usize = 1 << 20;

/// The JSON that a running gateway answers at `path`; `None` when no gateway listens there.
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> anyhow::Result<Option<T>> {
    answer_of(open(socket, path).await?).await
}

/// The JSON that a running gateway answers to a command; `None` when no gateway listens there.
pub async fn post<T: DeserializeOwned>(socket: &Path, path: &str, body: &impl Serialize) -> anyhow::Result<Option<T>> {
    let request = Request::post(path)
        .header("host", "biogate")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?;
    answer_of(ask(socket, request).await?).await
}

async fn answer_of<T: DeserializeOwned>(response: Option<Response<Incoming>>) -> anyhow::Result<Option<T>> {
    let Some(response) = response else { return Ok(None) };
    let body = timeout(DEADLINE, Limited::new(response.into_body(), MAX_ANSWER).collect())
        .await
        .context("the running gateway did not finish its answer")?
        .map_err(|why| anyhow::anyhow!("the running gateway's answer broke off: {why}"))?;
    let value =
        serde_json::from_slice(&body.to_bytes()).context("the running gateway's answer is of another version")?;
    Ok(Some(value))
}

/// A streaming answer; `None` when no gateway listens there.
pub async fn open(socket: &Path, path: &str) -> anyhow::Result<Option<Response<Incoming>>> {
    ask(socket, Request::get(path).header("host", "biogate").body(Full::default())?).await
}

/// The lines of a streaming answer.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    held: Vec<u8>,
}

impl Lines {
    /// Asks for it; `None` when no gateway listens there.
    pub async fn open(socket: &Path, path: &str) -> anyhow::Result<Option<Lines>> {
        let response = open(socket, path).await?;
        Ok(response.map(|response| Lines { body: response.into_body(), held: Vec::new() }))
    }

    /// The next line, without its end; `None` when the gateway stopped. It waits as long as nothing passes. Cancel-safe.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.held.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.held.len() > MAX_LINE {
                bail!("the running gateway sent a line of more than {MAX_LINE} bytes");
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    let frame = frame.context("the gateway went away")?;
                    self.held.extend_from_slice(&frame.into_data().unwrap_or_default());
                }
            }
        }
    }
}

async fn ask(socket: &Path, request: Request<Full<Bytes>>) -> anyhow::Result<Option<Response<Incoming>>> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(why) => return Err(why).with_context(|| format!("asking the running gateway at {}", socket.display())),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // The answer's own reader sees the loss of a connection.
        let _told_to_the_reader = connection.await;
    });
    let response =
        timeout(DEADLINE, sender.send_request(request)).await.context("the running gateway did not answer")??;
    if !response.status().is_success() {
        let status = response.status();
        let body = Limited::new(response.into_body(), 64 << 10)
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        bail!("the running gateway answered {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(Some(response))
}
