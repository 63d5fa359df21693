//! The real ClickHouse engine behind the test HTTP front (tests/servers), one database per test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use biogate::forward::clickhouse::Settings;
use tempfile::TempDir;
use uuid::Uuid;

use super::missing;

/// A running engine and this test's own database in it.
pub(crate) struct Engine {
    pub(crate) address: String,
    user: String,
    password: String,
    pub(crate) database: String,
    files: TempDir,
    own: Option<Child>,
}

impl Engine {
    /// The engine that all tests share, started by `make test`; else one of the test's own.
    pub(crate) fn shared() -> Option<Engine> {
        let Ok(url) = std::env::var("CLICKHOUSE_URL") else { return Engine::own() };
        let variable = |name| std::env::var(name).unwrap_or_default();
        let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Some(Engine::at(address, variable("CLICKHOUSE_USER"), variable("CLICKHOUSE_PASSWORD"), None))
    }

    /// An engine that only this test uses: its faults can be switched, and it can be stopped.
    pub(crate) fn own() -> Option<Engine> {
        let Some(venv) = venv() else {
            missing("the ClickHouse engine (tests/servers/clickhouse.sh install)");
            return None;
        };
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("users.json"), r#"{"default":"","gw":"password"}"#).unwrap();
        let (child, address) = start(venv, files.path(), "0");
        let mut engine = Engine::at(address, "gw".to_owned(), "password".to_owned(), Some(child));
        engine.files = files;
        std::fs::write(engine.files.path().join("password"), "password\n").unwrap();
        Some(engine)
    }

    fn at(address: String, user: String, password: String, own: Option<Child>) -> Engine {
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("password"), format!("{password}\n")).unwrap();
        let database = format!("t_{}", Uuid::new_v4().simple());
        Engine { address, user, password, database, files, own }
    }

    /// For a destination that writes into this test's database.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::new(format!("http://{}", self.address), &self.database);
        settings.user = Some(self.user.clone());
        settings.password_file = Some(self.files.path().join("password"));
        settings
    }

    /// Where a file with another password can be put.
    pub(crate) fn write_password(&self, password: &str) -> PathBuf {
        let path = self.files.path().join("other-password");
        std::fs::write(&path, password).unwrap();
        path
    }

    /// Runs a statement in the test's database and returns its answer, as TSV.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.post(&format!("/?database={}", self.database), sql)
    }

    /// The same for a statement with parameters.
    pub(crate) fn sql_with(&self, sql: &str, parameters: &[(&str, &str)]) -> String {
        let encoded = |value: &str| value.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let parameters: String =
            parameters.iter().map(|(name, value)| format!("&param_{name}={}", encoded(value))).collect();
        self.post(&format!("/?database={}{parameters}", self.database), sql)
    }

    /// Makes the test's database, without a table.
    pub(crate) fn make_database(&self) {
        self.post("/", &format!("CREATE DATABASE {}", self.database));
    }

    /// Arms a fault of the front for the next `n` inserts.
    pub(crate) fn fault(&self, kind: &str, n: u32) {
        self.fault_later(kind, n, 0);
    }

    /// The same, after `skip` inserts that go well.
    pub(crate) fn fault_later(&self, kind: &str, n: u32, skip: u32) {
        assert!(self.own.is_some(), "faults are for the test's own engine");
        self.post(&format!("/__fault?kind={kind}&n={n}&skip={skip}"), "");
    }

    /// How many rows the table holds, and how many events a reader counts.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let number = |sql: &str| self.sql(sql).trim().parse().unwrap();
        let events = number("SELECT count() FROM biometric_events FINAL");
        (number("SELECT count() FROM biometric_events"), events)
    }

    /// Ends the test's own engine; its address stays free for `restart`.
    pub(crate) fn stop(&mut self) {
        let mut child = self.own.take().expect("only the test's own engine is stopped");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again at the same address, with the same data.
    pub(crate) fn restart(&mut self) {
        let port = self.address.rsplit(':').next().unwrap().to_owned();
        let (child, address) = start(venv().unwrap(), self.files.path(), &port);
        assert_eq!(address, self.address);
        self.own = Some(child);
    }

    fn post(&self, target: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let (user, key, length) = (&self.user, &self.password, body.len());
        write!(
            stream,
            "POST {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nX-ClickHouse-User: {user}\r\n\
             X-ClickHouse-Key: {key}\r\nContent-Length: {length}\r\n\r\n{body}",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{target} {body}");
        body.to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        match &mut self.own {
            Some(child) => {
                child.kill().ok();
                child.wait().ok();
            }
            None => drop(TcpStream::connect(&self.address).map(|_| {
                self.post("/", &format!("DROP DATABASE IF EXISTS {}", self.database));
            })),
        }
    }
}

fn servers() -> PathBuf {
    root().join("tests/servers")
}

/// The repository: the tests of its other crates use this rig too.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|folder| folder.join("tests/servers").is_dir()).unwrap_or(package)
}

/// The Python environment with the engine, installed on first use.
fn venv() -> Option<&'static Path> {
    static VENV: OnceLock<Option<PathBuf>> = OnceLock::new();
    VENV.get_or_init(|| {
        let dir = std::env::var_os("BIOGATE_TEST_SERVERS").map(PathBuf::from);
        let dir = dir.unwrap_or_else(|| root().join("target/test-servers"));
        let installed = Command::new("bash").arg(servers().join("clickhouse.sh")).arg("install").arg(&dir).status();
        installed.is_ok_and(|status| status.success()).then(|| dir.join("venv"))
    })
    .as_deref()
}

fn start(venv: &Path, dir: &Path, port: &str) -> (Child, String) {
    let mut child = Command::new(venv.join("bin/python"))
        .arg(servers().join("chdb_http.py"))
        .args(["--faults", "--port", port, "--path"])
        .arg(dir.join("ch"))
        .arg("--users")
        .arg(dir.join("users.json"))
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(dir.join("log")).unwrap())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let port = ready.split(' ').nth(1).unwrap_or_else(|| {
        panic!("the engine did not start: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default())
    });
    (child, format!("127.0.0.1:{port}"))
}
