//! The real binary: started with a configuration of its own, asked over its control socket, stopped or killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A folder with a configuration, and at most one running gateway.
pub(crate) struct Hub {
    pub(crate) dir: tempfile::TempDir,
    child: Option<Child>,
    environment: Vec<(String, String)>,
}

impl Hub {
    /// A hub whose main file holds `[gateway]` with a folder of its own, then `rest`.
    pub(crate) fn new(rest: &str) -> Hub {
        let dir = tempfile::tempdir().expect("a folder for the hub");
        let hub = Hub { dir, child: None, environment: Vec::new() };
        let head = format!("[gateway]\nid = \"hub-test\"\ndata_dir = {:?}\n", hub.data_dir());
        std::fs::write(hub.config(), head + rest).expect("writing the configuration");
        hub
    }

    /// A variable for everything that this hub runs from now on.
    #[allow(dead_code, reason = "for the tests of the Bluetooth source, which need a bus of their own")]
    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("biogate.toml")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `biogate --config ... arguments`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("--config").arg(self.config()).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end: exit code, standard output, standard error.
    pub(crate) fn output(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().expect("running biogate");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Starts `biogate run`; its log is appended to `log` in the hub's folder.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same, with further arguments.
    pub(crate) fn start_with(&mut self, arguments: &[&str]) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).expect("log");
        let mut command = self.command(&["run"]);
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("starting biogate run"));
    }

    /// SIGKILL, at whatever it is doing.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killing the gateway");
            child.wait().expect("waiting for the gateway");
        }
    }

    /// A signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("a running gateway").id();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status().expect("kill");
        assert!(sent.success());
    }

    /// SIGTERM, then the exit code; it must come within the ten seconds that are promised.
    pub(crate) fn stop(&mut self) -> i32 {
        self.signal("TERM");
        let mut child = self.child.take().expect("a running gateway");
        let stopped = wait_for(Duration::from_secs(12), || child.try_wait().expect("waiting for the gateway"));
        match stopped {
            Some(status) => status.code().unwrap_or_else(|| panic!("the gateway ended by {status}:\n{}", self.log())),
            None => {
                child.kill().expect("killing the gateway");
                panic!("the gateway did not stop in time; its log:\n{}", self.log());
            }
        }
    }

    /// How much memory it holds now, in KiB.
    #[allow(dead_code, reason = "for the tests of the Bluetooth source, whose sensors flood")]
    pub(crate) fn memory_kib(&self) -> u64 {
        let id = self.child.as_ref().expect("a running gateway").id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("its status in /proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How it ended, if it has ended by itself; then there is none any more.
    #[allow(dead_code, reason = "for the fault rig, whose gateways die at crash points")]
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("waiting for the gateway")?;
        self.child = None;
        Some(status)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// `store` and `ledger` as `buffer stat` says them.
    pub(crate) fn stat(&self) -> Option<Value> {
        let (code, out, _) = self.output(&["buffer", "stat", "--json"]);
        if code != 0 {
            return None;
        }
        serde_json::from_str(&out).ok()
    }

    /// Waits until nothing waits for any destination and at least `stored` observations are stored.
    pub(crate) fn wait_until_drained(&self, stored: u64, deadline: Duration) -> Value {
        let drained = wait_for(deadline, || {
            let stat = self.stat()?;
            let waiting = destinations(&stat).iter().all(|(_, tally)| tally["waiting"] == 0);
            (waiting && stat["ledger"]["intake"]["stored"].as_u64()? >= stored).then_some(stat)
        });
        drained.unwrap_or_else(|| panic!("not drained in time: {:?}\nlog:\n{}", self.stat(), self.log()))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended_already = child.kill();
            let _reaped = child.wait();
        }
        if std::thread::panicking() {
            #[expect(clippy::print_stdout, reason = "who reads a failure must see what the gateway said")]
            {
                println!("the hub's log:\n{}", self.log());
            }
        }
    }
}

/// The program. Cargo tells the gateway's own tests where it is; those of the workspace's other crates find it beside them.
pub(crate) fn program() -> PathBuf {
    let beside = || std::env::current_exe().ok()?.ancestors().nth(2).map(|folder| folder.join("biogate"));
    option_env!("CARGO_BIN_EXE_biogate").map(PathBuf::from).or_else(beside).expect("a folder of programs")
}

/// Each destination's tally in a stat.
pub(crate) fn destinations(stat: &Value) -> Vec<(String, Value)> {
    let list = stat["ledger"]["destinations"].as_array().cloned().unwrap_or_default();
    list.into_iter().map(|pair| (pair[0].as_str().unwrap_or_default().to_owned(), pair[1].clone())).collect()
}

/// The ledger of a stat balances, intake and every destination.
pub(crate) fn assert_balanced(stat: &Value) {
    let count = |value: &Value, key: &str| value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"));
    let intake = &stat["ledger"]["intake"];
    let outcomes: u64 = ["without_event", "refused", "duplicate", "decoded"].iter().map(|key| count(intake, key)).sum();
    assert_eq!(count(intake, "accepted"), outcomes, "{intake}");
    assert_eq!(count(intake, "made"), count(intake, "implausible") + count(intake, "stored"), "{intake}");
    for (name, tally) in destinations(stat) {
        let outcomes: u64 =
            ["before", "delivered", "rejected", "parked", "passed_over", "evicted", "damaged", "waiting"]
                .iter()
                .map(|key| count(&tally, key))
                .sum();
        assert_eq!(count(intake, "stored"), outcomes, "{name}: {tally} of {intake}");
    }
}

/// Asks until there is an answer or the deadline is over.
pub(crate) fn wait_for<T>(deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The events of a file destination, from files closed or not.
pub(crate) fn lines_of(dir: &Path) -> Vec<Value> {
    lines_named(dir, "events-")
}

/// Lines of all its NDJSON files whose names begin so. One that is still being written, or was when the gateway was
/// killed, has no end and is none yet.
pub(crate) fn lines_named(dir: &Path, prefix: &str) -> Vec<Value> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    files.sort();
    let whole = |text: String| text.rfind('\n').map(|end| text[..=end].to_owned());
    let text: String = files.iter().filter_map(|file| whole(std::fs::read_to_string(file).ok()?)).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"))).collect()
}
