//! The tests' own servers (tests/servers): those that run already, by their environment, or one for this bench.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A running server; one of the bench's own is stopped with it.
pub(crate) struct Server {
    /// What its script prints: `KAFKA_BROKERS`, `CLICKHOUSE_URL` and what belongs to them.
    pub(crate) environment: HashMap<String, String>,
    own: Option<(PathBuf, TempDir)>,
}

impl Server {
    /// A Kafka broker.
    pub(crate) fn kafka() -> Server {
        let jars = installs().join("kafka");
        Server::of("kafka/kafka.sh", "KAFKA_BROKERS", |script, dir| {
            run(script, &["install", &text(&jars)]);
            vec!["start".to_owned(), text(dir), "--lib".to_owned(), text(&jars)]
        })
    }

    /// The ClickHouse engine behind its test front.
    pub(crate) fn clickhouse() -> Server {
        Server::of("clickhouse.sh", "CLICKHOUSE_URL", |script, dir| {
            run(script, &["install", &text(&installs())]);
            std::os::unix::fs::symlink(installs().join("venv"), dir.join("venv")).unwrap();
            vec!["start".to_owned(), text(dir)]
        })
    }

    fn of(script: &str, variable: &str, start: impl FnOnce(&Path, &Path) -> Vec<String>) -> Server {
        let prefix = variable.split('_').next().unwrap();
        if std::env::var_os(variable).is_some() {
            let environment = std::env::vars().filter(|(name, _)| name.starts_with(prefix)).collect();
            return Server { environment, own: None };
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(script);
        let dir = tempfile::tempdir().unwrap();
        let arguments = start(&script, dir.path());
        let printed = run(&script, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let pairs = printed.lines().filter_map(|line| line.split_once('='));
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Server { environment, own: Some((script, dir)) }
    }

    /// A variable that the script printed; empty without.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.environment.get(name).map_or("", String::as_str)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((script, dir)) = &self.own {
            run(script, &["stop", &text(dir.path())]);
        }
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Where `make test` installs them.
fn installs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-servers")
}

fn run(script: &Path, arguments: &[&str]) -> String {
    let output = Command::new("bash").arg(script).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {}: {error}", script.display(), arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}
