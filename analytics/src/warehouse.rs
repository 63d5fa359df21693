//! The way to ClickHouse over its HTTP interface: one statement at a time, with a deadline and with limits that are
//! sent with each. Values travel as server-side parameters (`{name:Type}` in the statement), never inside its text.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// How much longer than the server this side waits, so that the server's own words about its deadline arrive.
const GRACE: Duration = Duration::from_secs(2);

/// How much of a refusal is read and told.
const WORDS: usize = 4096;

/// `[warehouse]` and `[admin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `http://` or `https://`, as `http://127.0.0.1:8123`.
    pub url: String,
    /// Where the landing zone lies.
    #[serde(default = "default_database")]
    pub database: String,
    /// The server's `default` where it is left out.
    pub user: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Certificate authority of the server, where the system does not know it.
    pub ca_file: Option<PathBuf>,
    /// What each statement may cost.
    #[serde(default)]
    pub limits: Limits,
}

fn default_database() -> String {
    "biometrics".to_owned()
}

/// `[warehouse.limits]`: what one statement may cost. Each is sent with every statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How long it may run.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
    /// How many rows it may give.
    pub rows: u64,
    /// How large its answer may be, in the server and as JSON.
    pub bytes: ByteSize,
    /// How much memory it may take in the server.
    pub memory: ByteSize,
    /// How much it may read.
    pub read_bytes: ByteSize,
    /// On how many threads it may run.
    pub threads: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            time: Duration::from_secs(10),
            rows: 10_000,
            bytes: ByteSize::mib(8),
            memory: ByteSize::gib(2),
            read_bytes: ByteSize::gib(50),
            threads: 4,
        }
    }
}

/// Why a statement gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// No connection, or it broke.
    #[error("{url}: {why}")]
    Unreachable {
        /// The server.
        url: String,
        /// What happened.
        why: String,
    },
    /// No answer in time.
    #[error("{url} gave no answer within {} s", .deadline.as_secs())]
    TooSlow {
        /// The server.
        url: String,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The answer is longer than the limit.
    #[error("the answer is larger than {0}")]
    TooLarge(ByteSize),
    /// The server refused the statement.
    #[error("ClickHouse refuses the statement (code {code}): {words}")]
    Refused {
        /// ClickHouse's number of the exception; 0 where it named none.
        code: u32,
        /// Its words.
        words: String,
    },
    /// The statement chose a format of its own.
    #[error("the answer is {0}, not JSON: leave FORMAT and INTO OUTFILE out of the statement")]
    Format(String),
    /// The answer is not what the caller expects.
    #[error("the answer does not fit: {0}")]
    Answer(String),
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize, utoipa::ToSchema)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its ClickHouse type.
    #[serde(rename = "type")]
    pub kind: String,
}

/// An answer whose rows nobody here looks into.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// The columns, in their order.
    pub meta: Vec<Column>,
    /// A JSON array of objects.
    pub data: Box<RawValue>,
    /// How many.
    pub rows: u64,
}

#[derive(Deserialize)]
struct Rows<T> {
    data: Vec<T>,
}

/// A client of one server, one database and one user.
#[derive(Debug, Clone)]
pub struct Warehouse {
    client: Client,
    url: Url,
    database: String,
    user: Option<String>,
    password: String,
    limits: Limits,
}

impl Warehouse {
    /// Reads the files that the settings name. Nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let wrong = |what: String| Error::Settings(what);
        let url = Url::parse(&settings.url)
            .map_err(|why| wrong(format!("url = {:?}: {why}; write http://HOST:8123", settings.url)))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("url = {:?}: write http:// or https:// at its beginning", settings.url)));
        }
        let read = |path: &PathBuf, what: &str| {
            std::fs::read(path).map_err(|why| wrong(format!("{what} {}: {why}", path.display())))
        };
        let password = match &settings.password_file {
            Some(path) => String::from_utf8(read(path, "password_file")?)
                .map_err(|_| wrong(format!("password_file {}: is not text", path.display())))?,
            None => String::new(),
        };
        let mut builder = Client::builder().no_proxy().connect_timeout(Duration::from_secs(5));
        if let Some(path) = &settings.ca_file {
            let authority = Certificate::from_pem(&read(path, "ca_file")?)
                .map_err(|why| wrong(format!("ca_file {}: {why}; write a PEM certificate", path.display())))?;
            builder = builder.add_root_certificate(authority);
        }
        Ok(Warehouse {
            client: builder.build().map_err(|why| wrong(format!("the HTTP client: {why}")))?,
            url,
            database: settings.database.clone(),
            user: settings.user.clone(),
            password: password.trim_end_matches(['\r', '\n']).to_owned(),
            limits: settings.limits,
        })
    }

    /// The database that statements are asked in.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// What each statement may cost.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The rows of a statement that only reads. Dates and times come as ISO 8601.
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str, params: &[(&str, &str)]) -> Result<Vec<T>, Error> {
        let answer = self.ask(sql, written(params), None).await?;
        let rows: Rows<T> = serde_json::from_slice(&answer).map_err(|why| Error::Answer(why.to_string()))?;
        Ok(rows.data)
    }

    /// The same, with the rows as they came. `id` is the statement's name in the server's query log.
    /// The parameters are written as the server reads them (`statement::parameter`).
    pub async fn answer(&self, sql: &str, params: Vec<(String, String)>, id: &str) -> Result<Answer, Error> {
        let answer = self.ask(sql, params, Some(id)).await?;
        serde_json::from_slice(&answer).map_err(|why| Error::Answer(why.to_string()))
    }

    /// Whether the server answers. It is not asked who we are.
    pub async fn ping(&self) -> Result<(), Error> {
        let deadline = Duration::from_secs(2);
        let url = self.url.join("ping").map_err(|why| Error::Settings(why.to_string()))?;
        let answer = self.client.get(url).timeout(deadline).send().await.map_err(|why| self.fault(&why, deadline))?;
        match answer.status() {
            StatusCode::OK => Ok(()),
            other => Err(Error::Answer(format!("ping: {other}"))),
        }
    }

    /// Runs a statement that writes. Only the commands of `[admin]` do that.
    pub async fn execute(&self, sql: &str, params: &[(&str, &str)]) -> Result<(), Error> {
        let limits = self.limits;
        let settings = vec![
            ("max_execution_time", seconds(limits.time)),
            ("wait_end_of_query", "1".to_owned()),
            // Of tables over shards: what was written is there when the answer comes, and IN looks at all shards.
            ("distributed_foreground_insert", "1".to_owned()),
            ("distributed_product_mode", "global".to_owned()),
        ];
        self.post(sql, written(params), settings).await.map(|_| ())
    }

    async fn ask(&self, sql: &str, params: Vec<(String, String)>, id: Option<&str>) -> Result<Vec<u8>, Error> {
        let mut settings = self.reading();
        settings.extend(id.map(|id| ("query_id", id.to_owned())));
        self.post(sql, params, settings).await
    }

    /// Settings of a statement that only reads. `readonly` is what keeps a statement from writing, from reaching out and
    /// from changing any of these limits by a SETTINGS of its own. It comes last, because nothing can be set after it.
    fn reading(&self) -> Vec<(&'static str, String)> {
        let limits = self.limits;
        vec![
            ("default_format", "JSON".to_owned()),
            ("date_time_output_format", "iso".to_owned()),
            ("output_format_json_quote_64bit_integers", "0".to_owned()),
            // The answer is kept back in the server until it is whole: an exception half way is a refusal, not a torn answer.
            ("wait_end_of_query", "1".to_owned()),
            ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
            ("max_execution_time", seconds(limits.time)),
            ("timeout_overflow_mode", "throw".to_owned()),
            ("max_result_rows", limits.rows.to_string()),
            ("max_result_bytes", limits.bytes.0.to_string()),
            ("result_overflow_mode", "throw".to_owned()),
            ("max_memory_usage", limits.memory.0.to_string()),
            ("max_bytes_to_read", limits.read_bytes.0.to_string()),
            ("read_overflow_mode", "throw".to_owned()),
            ("max_threads", limits.threads.to_string()),
            ("readonly", "1".to_owned()),
        ]
    }

    async fn post(
        &self,
        sql: &str,
        params: Vec<(String, String)>,
        settings: Vec<(&'static str, String)>,
    ) -> Result<Vec<u8>, Error> {
        let deadline = self.limits.time + GRACE;
        let end = Instant::now() + deadline;
        let params = params.into_iter().map(|(name, value)| (format!("param_{name}"), value));
        let mut request = self
            .client
            .post(self.url.clone())
            .query(&[("database", &self.database)])
            .query(&settings)
            .query(&params.collect::<Vec<_>>())
            .timeout(deadline)
            .body(sql.to_owned());
        if let Some(user) = &self.user {
            request = request.header("X-ClickHouse-User", user).header("X-ClickHouse-Key", &self.password);
        }
        let fault = |why: reqwest::Error| self.fault(&why, deadline);
        let mut response = request.send().await.map_err(fault)?;
        if let Some(refusal) = self.refusal(&mut response, end).await {
            return Err(refusal);
        }
        let format = response.headers().get("X-ClickHouse-Format").and_then(|format| format.to_str().ok());
        let reads = settings.iter().any(|(name, _)| *name == "default_format");
        if let (true, Some(format)) = (reads, format.filter(|format| *format != "JSON")) {
            return Err(Error::Format(format.to_owned()));
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(fault)? {
            if (body.len() + part.len()) as u64 > self.limits.bytes.0 {
                return Err(Error::TooLarge(self.limits.bytes));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    async fn refusal(&self, response: &mut Response, end: Instant) -> Option<Error> {
        let code = response.headers().get("X-ClickHouse-Exception-Code");
        if response.status() == StatusCode::OK && code.is_none() {
            return None;
        }
        let code = code.and_then(|code| code.to_str().ok()?.parse().ok()).unwrap_or(0);
        let status = response.status();
        let mut words = Vec::new();
        while words.len() < WORDS && Instant::now() < end {
            match response.chunk().await {
                Ok(Some(part)) => words.extend_from_slice(&part),
                Ok(None) | Err(_) => break,
            }
        }
        words.truncate(WORDS);
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        Some(Error::Refused { code, words: if words.is_empty() { status.to_string() } else { words } })
    }

    fn fault(&self, why: &reqwest::Error, deadline: Duration) -> Error {
        let url = self.url.origin().ascii_serialization();
        match why.is_timeout() && !why.is_connect() {
            true => Error::TooSlow { url, deadline },
            false => Error::Unreachable { url, why: causes(why) },
        }
    }
}

/// Whole seconds, at least one: 0 would be no limit.
fn seconds(time: Duration) -> String {
    time.as_secs().max(1).to_string()
}

/// An error and what caused it, without the request's URL: it holds the parameters.
fn causes(error: &reqwest::Error) -> String {
    let mut words = String::from(if error.is_connect() { "no connection" } else { "the connection broke" });
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}

fn written(params: &[(&str, &str)]) -> Vec<(String, String)> {
    params.iter().map(|(name, value)| ((*name).to_owned(), escaped(value))).collect()
}

/// A string parameter's value as the server reads it: as one field of a TSV line.
pub(crate) fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\0' => text.push_str("\\0"),
            c => text.push(c),
        }
    }
    text
}
