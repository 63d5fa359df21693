//! One HTTP connection to a ClickHouse server: bounded in time and in what it reads, and exact about whether a request
//! can have arrived.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_ENCODING, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use native_tls::{Certificate, Identity, Protocol, TlsConnector};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Settings;

/// More of an answer than this is not read: an error text or a small result.
const MOST_ANSWER: usize = 256 * 1024;

/// A connection that idled longer is not used again: an old server closes its own after 3 s.
const IDLE_AT_LEAST: Duration = Duration::from_secs(2);

/// Where the server is; from the URL, checked once.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

/// What the server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `X-ClickHouse-Exception-Code`.
    pub(super) exception: Option<i32>,
    pub(super) retry_after: Option<Duration>,
    /// Whether any `X-ClickHouse-*` header is there: a proxy's own page has none.
    pub(super) from_clickhouse: bool,
    pub(super) body: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The request never left: settings, files, name, connection, TLS.
    NotSent { access: bool, reason: String },
    /// It may have arrived and been carried out.
    Unknown { timed_out: bool, reason: String },
}

/// The connection; opened when needed, kept while the server keeps it.
pub(super) struct Http {
    settings: Settings,
    endpoint: Endpoint,
    open: Option<Open>,
}

struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    used: Instant,
    keep: Duration,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Reads `http[s]://host[:port][/path]`.
    pub(super) fn parse(url: &str) -> Result<Endpoint, String> {
        let wrong = |what: &str| format!("url `{url}` {what}; write it as https://host:8443");
        if url.contains('@') {
            return Err("the url holds a user or password; write them as user and password_file".to_owned());
        }
        let uri: Uri = url.parse().map_err(|_| wrong("is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(wrong("begins with neither http:// nor https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
        if uri.query().is_some() {
            return Err(wrong("has a query; database and user have keys of their own"));
        }
        Ok(Endpoint {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 8443 } else { 8123 }),
            path: uri.path().to_owned(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{scheme}://{host}:{}", self.port)
    }
}

impl Http {
    pub(super) fn new(settings: Settings) -> Result<Http, String> {
        let endpoint = Endpoint::parse(&settings.url)?;
        Ok(Http { settings, endpoint, open: None })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Drops the connection; the next request opens another.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Posts a body with these URL parameters. `zstd` says that the body is compressed.
    pub(super) async fn post(&mut self, params: &[(&str, &str)], body: Bytes, zstd: bool) -> Result<Answer, Fault> {
        let first = self.request(params, body.clone(), zstd)?;
        let reused = self.is_reusable();
        match self.exchange(first).await {
            // The server closed the idle connection before it saw the request: nothing was carried out.
            Err(Fault::NotSent { .. }) if reused => {
                let again = self.request(params, body, zstd)?;
                self.open = None;
                self.exchange(again).await
            }
            other => other,
        }
    }

    fn is_reusable(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.sender.is_closed() && open.used.elapsed() < open.keep)
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Fault> {
        let reusable = self.is_reusable();
        let mut open = match self.open.take() {
            Some(open) if reusable => open,
            Some(_) | None => match timeout(self.settings.connect_timeout, self.connect()).await {
                Ok(connected) => connected?,
                Err(_) => {
                    let waited = self.settings.connect_timeout.as_secs();
                    let reason = format!("{} does not answer: no connection within {waited} s", self.endpoint);
                    return Err(Fault::NotSent { access: false, reason });
                }
            },
        };
        let answered = timeout(self.settings.request_timeout, send(&mut open.sender, request)).await;
        let (answer, keep) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.never_left => {
                return Err(Fault::NotSent { access: false, reason: format!("{}: {}", self.endpoint, error.reason) });
            }
            Ok(Err(error)) => {
                let reason = format!("the connection to {} broke: {}", self.endpoint, error.reason);
                return Err(Fault::Unknown { timed_out: false, reason });
            }
            Err(_) => {
                let waited = self.settings.request_timeout.as_secs();
                let reason = format!("{} took the batch and did not answer within {waited} s", self.endpoint);
                return Err(Fault::Unknown { timed_out: true, reason });
            }
        };
        self.open = Some(Open { used: Instant::now(), keep, ..open });
        Ok(answer)
    }

    fn request(&self, params: &[(&str, &str)], body: Bytes, zstd: bool) -> Result<Request<Full<Bytes>>, Fault> {
        let mut target = format!("{}?", self.endpoint.path);
        for (nth, (name, value)) in params.iter().enumerate() {
            if nth > 0 {
                target.push('&');
            }
            target.push_str(name);
            target.push('=');
            percent_encode(&mut target, value);
        }
        let not_sent = |reason: String| Fault::NotSent { access: true, reason };
        let mut request = Request::post(target).header(HOST, format!("{}:{}", self.endpoint.host, self.endpoint.port));
        if zstd {
            request = request.header(CONTENT_ENCODING, "zstd");
        }
        if let Some(user) = &self.settings.user {
            request = request.header("X-ClickHouse-User", user.as_str());
            if let Some(path) = &self.settings.password_file {
                let password = read(path).map_err(not_sent)?;
                let password = password.trim_ascii_end();
                let mut value = HeaderValue::from_bytes(password)
                    .map_err(|_| not_sent(format!("{} is no password: it holds control characters", path.display())))?;
                value.set_sensitive(true);
                request = request.header("X-ClickHouse-Key", value);
            }
        }
        request.body(Full::new(body)).map_err(|error| not_sent(format!("cannot ask {}: {error}", self.endpoint)))
    }

    async fn connect(&self) -> Result<Open, Fault> {
        let Endpoint { host, port, tls, .. } = &self.endpoint;
        let not_sent = |access, reason| Fault::NotSent { access, reason };
        let stream = TcpStream::connect((host.as_str(), *port))
            .await
            .map_err(|error| not_sent(false, format!("no connection to {}: {error}", self.endpoint)))?;
        stream.set_nodelay(true).ok();
        if !tls {
            return handshake(stream).await.map_err(|error| not_sent(false, error.to_string()));
        }
        let connector = self.tls_connector().map_err(|reason| not_sent(true, reason))?;
        let secured = tokio_native_tls::TlsConnector::from(connector)
            .connect(host, stream)
            .await
            .map_err(|error| not_sent(true, format!("no TLS with {}: {error}", self.endpoint)))?;
        handshake(secured).await.map_err(|error| not_sent(false, error.to_string()))
    }

    /// Read anew for each connection, so that a renewed certificate needs no restart.
    fn tls_connector(&self) -> Result<TlsConnector, String> {
        let mut builder = TlsConnector::builder();
        builder.min_protocol_version(Some(Protocol::Tlsv12));
        if let Some(path) = &self.settings.ca_file {
            let wrong = |error| format!("{} is no certificate in PEM form: {error}", path.display());
            let certificates = Certificate::stack_from_pem(&read(path)?).map_err(wrong)?;
            if certificates.is_empty() {
                return Err(format!("{} holds no certificate in PEM form", path.display()));
            }
            builder.disable_built_in_roots(true);
            for certificate in certificates {
                builder.add_root_certificate(certificate);
            }
        }
        if let (Some(cert), Some(key)) = (&self.settings.cert_file, &self.settings.key_file) {
            let identity = Identity::from_pkcs8(&read(cert)?, &read(key)?)
                .map_err(|error| format!("{} and {} do not fit: {error}", cert.display(), key.display()))?;
            builder.identity(identity);
        }
        builder.build().map_err(|error| format!("cannot set up TLS: {error}"))
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Open, hyper::Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its errors reach whoever waits for the answer.
        connection.await.ok();
    });
    Ok(Open { sender, used: Instant::now(), keep: IDLE_AT_LEAST })
}

struct SendError {
    never_left: bool,
    reason: String,
}

async fn send(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(Answer, Duration), SendError> {
    let lost = |error: hyper::Error| SendError { never_left: error.is_canceled(), reason: in_words(&error) };
    sender.ready().await.map_err(|error| SendError { never_left: true, reason: in_words(&error) })?;
    crash_point!("clickhouse.send.before");
    let response = sender.send_request(request).await.map_err(lost)?;
    // The server has carried it out, and its answer is not read yet.
    crash_point!("clickhouse.send.after");
    let (parts, body) = response.into_parts();
    let read = Limited::new(body, MOST_ANSWER).collect().await;
    let body = read.map_err(|error| SendError { never_left: false, reason: format!("its answer: {error}") })?;
    let answer = Answer {
        status: parts.status,
        exception: number(&parts.headers, "X-ClickHouse-Exception-Code"),
        retry_after: number(&parts.headers, RETRY_AFTER.as_str()).map(Duration::from_secs),
        from_clickhouse: parts.headers.keys().any(|name| name.as_str().starts_with("x-clickhouse-")),
        body: String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
    };
    Ok((answer, keep_alive(&parts.headers)))
}

/// hyper's own text and the cause below it.
fn in_words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}

fn number<N: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<N> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `Keep-Alive: timeout=10`, less a second for the way.
fn keep_alive(headers: &HeaderMap) -> Duration {
    let stated = headers.get("keep-alive").and_then(|value| value.to_str().ok());
    let seconds = stated.and_then(|text| text.split([',', ' ']).find_map(|part| part.strip_prefix("timeout=")));
    let stated = seconds.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs).unwrap_or_default();
    stated.saturating_sub(Duration::from_secs(1)).max(IDLE_AT_LEAST)
}

/// Everything but RFC 3986's unreserved characters as %XX.
fn percent_encode(into: &mut String, text: &str) {
    use fmt::Write;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(byte as char);
        } else {
            // Writing to a String cannot fail.
            write!(into, "%{byte:02X}").ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused_with_what_to_write() {
        assert_eq!(Endpoint::parse("https://[::1]/ch/").unwrap().to_string(), "https://[::1]:8443");
        assert_eq!(Endpoint::parse("http://db.example:9000").unwrap().to_string(), "http://db.example:9000");
        for wrong in ["db.example:8443", "tcp://db:9000", "https://", "https://db/?user=x", ""] {
            assert!(Endpoint::parse(wrong).unwrap_err().contains("write it as"), "{wrong}");
        }
        let error = Endpoint::parse("https://gw:secret@db").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn parameters_are_encoded() {
        let mut text = String::new();
        percent_encode(&mut text, "INSERT a'ü&");
        assert_eq!(text, "INSERT%20a%27%C3%BC%26");
    }
}
