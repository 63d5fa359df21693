//! `[local] listen`: the same answers over TCP, for a monitoring system or a page on this machine. GET only.
//!
//! Whoever makes a browser of this house ask for a name that he points at this address gets nothing: the name in the
//! request has to be one of ours. Off loopback a token is asked for besides.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, HOST, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::answer::{self, Answer, PATHS, text};
use super::board::Board;
use crate::config::Local;

/// How many clients are served at once; a further one waits.
const MAX_CLIENTS: usize = 16;

/// How long a client may take for its request's head.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// How long a client may take for everything. Every answer is one small document.
const CLIENT_DEADLINE: Duration = Duration::from_secs(15);

/// How often a port that was not free is asked for again.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// What `status` says of the listener.
#[derive(Debug, Default)]
pub struct Listening(Mutex<Said>);

#[derive(Debug, Default, Clone, Serialize)]
struct Said {
    /// Where it listens.
    address: Option<String>,
    /// Why it does not.
    trouble: Option<String>,
}

impl Listening {
    /// As JSON; nothing where it was not asked to listen.
    pub fn document(&self) -> serde_json::Value {
        let said = self.lock();
        match said.address.is_none() && said.trouble.is_none() {
            true => serde_json::Value::Null,
            false => serde_json::json!(*said),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until dropped. A port that is in use stops nothing else: it is said once, and asked for again.
pub async fn serve(settings: Local, board: Arc<Board>) {
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(settings.listen).await {
            Ok(listener) => break listener,
            Err(why) => {
                let said = format!("cannot listen at {}: {why}", settings.listen);
                if !told {
                    warn!(
                        "local.listen: {said}; the gateway runs on without it and tries again; end the program that has the port, or write another one"
                    );
                    told = true;
                }
                board.listening.lock().trouble = Some(said);
            }
        }
        tokio::time::sleep(TRY_AGAIN).await;
    };
    let address = listener.local_addr().unwrap_or(settings.listen);
    *board.listening.lock() = Said { address: Some(address.to_string()), trouble: None };
    info!("answers at http://{address}: {PATHS}");
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let door = Arc::new(Door { settings, port: address.port() });
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (door, board) = (door.clone(), board.clone());
                tokio::spawn(async move {
                    let _place = place;
                    if timeout(CLIENT_DEADLINE, client(stream, door, board)).await.is_err() {
                        debug!("a client took too long");
                    }
                });
            }
            Err(why) => {
                warn!("local.listen did not accept: {why}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn client(stream: TcpStream, door: Arc<Door>, board: Arc<Board>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (door, board) = (door.clone(), board.clone());
        async move { Ok::<_, Infallible>(door.answer(&board, &request)) }
    });
    let mut server = http1::Builder::new();
    // One request a connection: a client that idles keeps no place.
    server.keep_alive(false);
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(16 << 10);
    if let Err(why) = server.serve_connection(TokioIo::new(stream), answer).await {
        debug!("a client went: {why}");
    }
}

/// Who comes in.
#[derive(Debug)]
struct Door {
    settings: Local,
    port: u16,
}

impl Door {
    fn answer(&self, board: &Board, request: &Request<Incoming>) -> Answer {
        if let Some(turned) = self.turned(request.method(), request.uri(), request.headers()) {
            return turned;
        }
        let found = answer::get(board, request.uri().path());
        found.unwrap_or_else(|| text(StatusCode::NOT_FOUND, &format!("ask {PATHS}\n")))
    }

    /// The answer to one that is not let in.
    fn turned(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Answer> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let is_ours = host.is_some_and(|host| self.is_ours(host)) && hosts.next().is_none();
        let uri_is_ours = uri.authority().is_none_or(|authority| self.is_ours(authority.as_str()));
        if !is_ours || !uri_is_ours {
            let said = "the request's Host is no name of this gateway; ask for localhost, 127.0.0.1 or [::1], or add the name to hosts in [local]\n";
            return Some(text(StatusCode::MISDIRECTED_REQUEST, said));
        }
        if let Some(token) = &self.settings.token {
            let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
            let shown = shown.filter(|shown| shown.len() > 7 && shown[..7].eq_ignore_ascii_case(b"bearer "));
            if !shown.is_some_and(|shown| token.is(shown[7..].trim_ascii())) {
                let mut answer = text(StatusCode::UNAUTHORIZED, "show the token: Authorization: Bearer TOKEN\n");
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return Some(answer);
            }
        }
        if *method != Method::GET {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return Some(answer);
        }
        None
    }

    /// Whether a client that calls us so means us: our port or none, and a name that nobody else can point here.
    fn is_ours(&self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (host, None),
        };
        if port.is_some_and(|port| port.parse() != Ok(self.port)) && !self.is_forwarded() {
            return false;
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let own = self.settings.listen.ip();
        let is_own = !own.is_unspecified() && (name == own.to_string() || name == format!("[{own}]"));
        ["localhost", "127.0.0.1", "[::1]"].contains(&name.as_str()) || is_own || self.settings.hosts.contains(&name)
    }

    /// A hub that has names of its own may stand behind a proxy with another port.
    fn is_forwarded(&self) -> bool {
        !self.settings.hosts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(listen: &str, hosts: &[&str]) -> Door {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Door { settings: Local { listen: listen.parse().unwrap(), hosts, token: None }, port: 8787 }
    }

    fn status(door: &Door, method: Method, uri: &str, host: &[&str]) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        for host in host {
            headers.append(HOST, host.parse().unwrap());
        }
        door.turned(&method, &uri.parse().unwrap(), &headers).map(|answer| answer.status())
    }

    #[test]
    fn only_names_that_are_ours_are_answered() {
        let loopback = door("127.0.0.1:8787", &[]);
        let ask = |host: &[&str]| status(&loopback, Method::GET, "/metrics", host);
        for ours in ["localhost", "LOCALHOST:8787", "127.0.0.1:8787", "127.0.0.1", "[::1]:8787", "[::1]", "localhost."]
        {
            assert_eq!(ask(&[ours]), None, "{ours}");
        }
        let misdirected = Some(StatusCode::MISDIRECTED_REQUEST);
        for other in ["evil.example", "localhost.evil.example:8787", "127.0.0.1:80", "", "192.168.1.7:8787", "[::2]"] {
            assert_eq!(ask(&[other]), misdirected, "{other}");
        }
        assert_eq!(ask(&[]), misdirected, "a request without a Host");
        assert_eq!(ask(&["localhost", "localhost"]), misdirected, "two of them");
        assert_eq!(status(&loopback, Method::GET, "http://evil.example/metrics", &["localhost"]), misdirected);
        assert_eq!(status(&loopback, Method::POST, "/metrics", &["localhost"]), Some(StatusCode::METHOD_NOT_ALLOWED));
    }

    #[test]
    fn a_hub_answers_to_the_names_of_its_configuration() {
        let named = door("0.0.0.0:8787", &["hub-0042.lan"]);
        assert_eq!(status(&named, Method::GET, "/", &["Hub-0042.lan:443"]), None);
        assert!(status(&named, Method::GET, "/", &["0.0.0.0:8787"]).is_some());
        let own = door("192.168.1.7:8787", &[]);
        assert_eq!(status(&own, Method::GET, "/", &["192.168.1.7:8787"]), None);
    }
}
