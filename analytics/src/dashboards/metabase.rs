//! The way to Metabase over its REST API: one request at a time, each with a deadline.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use reqwest::{Certificate, Client, Method, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Metabase asks the warehouse while it saves a connection or a card, so this is longer than one statement may run.
const DEADLINE: Duration = Duration::from_secs(90);
const BETWEEN: Duration = Duration::from_secs(2);
/// Longer than the list of a large collection.
const LONGEST: ByteSize = ByteSize::mib(32);

/// `[metabase]`: where the dashboards are made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// As `http://127.0.0.1:3000`.
    pub url: String,
    /// The mail address of an administrator. A Metabase without users gets this one.
    pub user: Option<String>,
    /// File that holds the administrator's password.
    pub password_file: Option<PathBuf>,
    /// File that holds an API key of the group Administrators, in place of `user`.
    pub api_key_file: Option<PathBuf>,
    /// Certificate authority of the server, where the system does not know it.
    pub ca_file: Option<PathBuf>,
    /// Where Metabase reaches the warehouse, if that is not `url` of `[warehouse]`.
    pub warehouse_url: Option<String>,
    /// What the connection and the collection are called.
    #[serde(default = "default_name")]
    pub name: String,
}

fn default_name() -> String {
    "biogate".to_owned()
}

/// Why Metabase did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// No connection, or it broke.
    #[error("{what}: {why}; is Metabase at {url}?")]
    Unreachable {
        /// What was asked.
        what: String,
        /// What happened.
        why: String,
        /// Where.
        url: String,
    },
    /// It did not start in time.
    #[error("Metabase at {url} is not ready after {} s ({last}); look into its log, or wait longer by --wait", .waited.as_secs())]
    NotReady {
        /// Where.
        url: String,
        /// How long.
        waited: Duration,
        /// What it said last.
        last: String,
    },
    /// It does not know us, or we may not.
    #[error("{what}: {status} {words}; {mend}")]
    NotAllowed {
        /// What was asked.
        what: String,
        /// Its status.
        status: StatusCode,
        /// Its words.
        words: String,
        /// What to do.
        mend: &'static str,
    },
    /// It refused what was asked.
    #[error("{what}: Metabase refuses: {status} {words}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its status.
        status: StatusCode,
        /// Its words.
        words: String,
    },
    /// The answer is not what its API says.
    #[error("{what}: the answer has no {missing}; is this Metabase, and a version that docs/dashboards.md names?")]
    Answer {
        /// What was asked.
        what: String,
        /// What was looked for.
        missing: &'static str,
    },
}

/// What proves who asks.
#[derive(Debug, Clone)]
enum Proof {
    Nobody,
    Key(String),
    Session(String),
}

/// A Metabase, and who asks it.
#[derive(Debug)]
pub struct Metabase {
    client: Client,
    url: Url,
    proof: Proof,
}

/// Reads a secret's file.
pub(super) fn secret(path: &Path, what: &str) -> Result<String, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|why| Error::Settings(format!("{what} {}: cannot be read: {why}", path.display())))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Error::Settings(format!("{what} {}: is empty", path.display()))),
        text => Ok(text.to_owned()),
    }
}

impl Metabase {
    /// Waits until it is up, then signs in. A Metabase without users gets its first one. True: that was so.
    pub async fn sign_in(settings: &Settings, wait: Duration) -> Result<(Metabase, bool), Error> {
        let mut metabase = Metabase { client: client(settings)?, url: url(settings)?, proof: Proof::Nobody };
        let credentials = credentials(settings)?;
        metabase.ready(wait).await?;
        let properties = metabase.get("api/session/properties").await?;
        let token = properties["setup-token"].as_str().filter(|_| properties["has-user-setup"] == false);
        let session = match (credentials, token) {
            (Credentials::Key(_), Some(_)) => {
                return Err(Error::Settings(format!(
                    "{} has no user yet: write user and password_file in place of api_key_file, and it gets its first one",
                    settings.url
                )));
            }
            (Credentials::Key(key), None) => {
                metabase.proof = Proof::Key(key);
                return Ok((metabase, false));
            }
            (Credentials::Password(user, password), Some(token)) => {
                let body = json!({
                    "token": token,
                    "user": {"email": user, "password": password, "first_name": null, "last_name": null},
                    "prefs": {"site_name": settings.name, "site_locale": "en"},
                });
                metabase.post("api/setup", &body).await?
            }
            (Credentials::Password(user, password), None) => {
                metabase.post("api/session", &json!({"username": user, "password": password})).await?
            }
        };
        let id = session["id"].as_str().ok_or(Error::Answer { what: "sign in".to_owned(), missing: "session id" })?;
        metabase.proof = Proof::Session(id.to_owned());
        Ok((metabase, token.is_some()))
    }

    /// Ends the session; a key has none.
    pub async fn sign_out(self) -> Result<(), Error> {
        match self.proof {
            Proof::Session(_) => self.send(Method::DELETE, "api/session", None).await.map(drop),
            Proof::Key(_) | Proof::Nobody => Ok(()),
        }
    }

    async fn ready(&self, wait: Duration) -> Result<(), Error> {
        let end = Instant::now() + wait;
        loop {
            let last = match self.request(Method::GET, "api/health")?.timeout(BETWEEN * 5).send().await {
                Ok(response) if response.status() == StatusCode::OK => return Ok(()),
                Ok(response) => response.status().to_string(),
                Err(why) => causes(&why),
            };
            if Instant::now() + BETWEEN > end {
                return Err(Error::NotReady { url: self.url.to_string(), waited: wait, last });
            }
            sleep(BETWEEN).await;
        }
    }

    /// Asks.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.send(Method::GET, path, None).await
    }

    /// Makes.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// Changes.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.send(Method::PUT, path, Some(body)).await
    }

    fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, Error> {
        let url = self.url.join(path).map_err(|why| Error::Settings(format!("{path}: {why}")))?;
        let request = self.client.request(method, url).timeout(DEADLINE);
        Ok(match &self.proof {
            Proof::Nobody => request,
            Proof::Key(key) => request.header("X-API-Key", key),
            Proof::Session(id) => request.header("X-Metabase-Session", id),
        })
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let what = format!("{method} {path}");
        let mut request = self.request(method, path)?;
        if let Some(body) = body {
            request = request.json(body);
        }
        let broken = |why: reqwest::Error| Error::Unreachable {
            what: what.clone(),
            why: causes(&why),
            url: self.url.to_string(),
        };
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status();
        let answer = whole(&mut response).await.map_err(broken)?;
        if status.is_success() {
            // A 204 has no body.
            return match answer.is_empty() {
                true => Ok(Value::Null),
                false => serde_json::from_slice(&answer).map_err(|_| Error::Answer { what, missing: "JSON" }),
            };
        }
        let words: String = String::from_utf8_lossy(&answer).chars().take(600).collect();
        let mend = match status {
            StatusCode::UNAUTHORIZED if path == "api/session" => "write the administrator's mail address and password",
            StatusCode::UNAUTHORIZED => "make an API key in Metabase: Admin settings > Authentication > API keys",
            StatusCode::FORBIDDEN => "the user or the API key must be of the group Administrators",
            StatusCode::TOO_MANY_REQUESTS => "it counts failed sign-ins: wait a minute",
            status if status.is_redirection() => "write the address that it leads to as url, with https://",
            _ => return Err(Error::Refused { what, status, words }),
        };
        Err(Error::NotAllowed { what, status, words, mend })
    }
}

enum Credentials {
    Key(String),
    Password(String, String),
}

fn credentials(settings: &Settings) -> Result<Credentials, Error> {
    match (&settings.api_key_file, &settings.user, &settings.password_file) {
        (Some(key), None, None) => Ok(Credentials::Key(secret(key, "api_key_file")?)),
        (None, Some(user), Some(password)) => {
            Ok(Credentials::Password(user.clone(), secret(password, "password_file")?))
        }
        _ => Err(Error::Settings("write either user and password_file, or api_key_file".to_owned())),
    }
}

fn url(settings: &Settings) -> Result<Url, Error> {
    let wrong = |why: String| Error::Settings(format!("url = {:?}: {why}; write http://HOST:3000", settings.url));
    // Metabase may lie below a path.
    let url = Url::parse(&format!("{}/", settings.url.trim_end_matches('/'))).map_err(|why| wrong(why.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(wrong(format!("{other} is not spoken"))),
    }
}

fn client(settings: &Settings) -> Result<Client, Error> {
    // A redirect would make a GET of a POST.
    let mut builder =
        Client::builder().no_proxy().redirect(redirect::Policy::none()).connect_timeout(Duration::from_secs(5));
    if let Some(path) = &settings.ca_file {
        let pem = std::fs::read(path)
            .map_err(|why| Error::Settings(format!("ca_file {}: cannot be read: {why}", path.display())))?;
        let authority = Certificate::from_pem(&pem)
            .map_err(|why| Error::Settings(format!("ca_file {}: {why}; write a PEM certificate", path.display())))?;
        builder = builder.add_root_certificate(authority);
    }
    builder.build().map_err(|why| Error::Settings(format!("the HTTP client: {why}")))
}

/// The body, up to a limit: beyond it the JSON is torn, and refused as such.
async fn whole(response: &mut Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        body.extend_from_slice(&part);
        if body.len() as u64 > LONGEST.0 {
            break;
        }
    }
    Ok(body)
}

fn causes(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}
