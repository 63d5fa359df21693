//! A fake org.bluez with fault switches (tests/servers/fake_bluez) on a private bus; one per test, stopped by its id.
#![allow(dead_code, reason = "the rig's vocabulary is larger than what the tests of one moment use")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::gateway::wait_for;
use super::{DEADLINE, missing};

/// A bus, bluetoothd and systemd's Manager on it.
pub(crate) struct Bluez {
    files: TempDir,
    bus: Child,
    fake: Child,
    /// One command at a time: its line in, its answer out.
    line: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

/// All that the fake counted.
#[derive(Deserialize)]
pub(crate) struct State {
    pub(crate) adapters: BTreeMap<String, AdapterState>,
    pub(crate) devices: BTreeMap<String, DeviceState>,
    /// By method, as in `Adapter1.StartDiscovery`.
    pub(crate) calls: BTreeMap<String, u64>,
    pub(crate) starts: u64,
    /// Of bluetooth.service, by systemd.
    pub(crate) restarts: u64,
    /// Path and capability of each registered agent.
    pub(crate) agents: Vec<(String, String)>,
    /// What agents were asked.
    pub(crate) questions: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct AdapterState {
    pub(crate) powered: bool,
    pub(crate) discovering: bool,
    /// How often a discovery began.
    pub(crate) discoveries: u64,
    pub(crate) links: u64,
    pub(crate) most_links: u64,
    pub(crate) power_cycles: u64,
    /// How many devices BlueZ lists.
    pub(crate) devices: u64,
    /// Advertisements.
    pub(crate) heard: u64,
}

#[derive(Deserialize)]
pub(crate) struct DeviceState {
    pub(crate) connect_calls: u64,
    pub(crate) connects: u64,
    /// Of the calls, those made while the adapter discovered.
    pub(crate) connects_while_discovering: u64,
    pub(crate) linked: bool,
    /// Which adapter holds the link.
    pub(crate) adapter: Option<String>,
    pub(crate) link_seconds: f64,
    pub(crate) adverts: u64,
    pub(crate) attributes: Vec<AttributeState>,
    pub(crate) records: Option<RecordsState>,
}

#[derive(Deserialize)]
pub(crate) struct AttributeState {
    pub(crate) uuid: String,
    /// Notifications while somebody listened: the counter in them went through 1 to this number.
    pub(crate) emitted: u64,
    pub(crate) garbage: u64,
    pub(crate) reads: u64,
    /// StartNotify calls that were granted.
    pub(crate) sessions: u64,
    pub(crate) writes: Vec<Request>,
    pub(crate) value: String,
}

#[derive(Deserialize)]
pub(crate) struct RecordsState {
    pub(crate) stored: Vec<u64>,
    /// In the order they went out, again and again.
    pub(crate) sent: Vec<u64>,
    pub(crate) deleted: Vec<Deleted>,
    /// Written to the Record Access Control Point.
    pub(crate) requests: Vec<Request>,
}

/// Bytes in hex, and the Unix time they came at.
#[derive(Deserialize)]
pub(crate) struct Request {
    pub(crate) at: f64,
    pub(crate) value: String,
}

#[derive(Deserialize)]
pub(crate) struct Deleted {
    pub(crate) at: f64,
    pub(crate) number: u64,
}

impl DeviceState {
    /// The first attribute of this UUID.
    pub(crate) fn attribute(&self, uuid: &str) -> &AttributeState {
        self.attributes.iter().find(|one| one.uuid == uuid).unwrap_or_else(|| panic!("no attribute {uuid}"))
    }
}

impl Bluez {
    /// One adapter, hci0, and an empty room; `None` when something is not installed.
    pub(crate) fn start() -> Option<Bluez> {
        let bluez = Bluez::launch("")?;
        bluez.tell(json!({"do": "add_adapter"}));
        Some(bluez)
    }

    /// The same on a bus that lets nobody talk to org.bluez.
    pub(crate) fn start_denied() -> Option<Bluez> {
        let bluez = Bluez::launch("<deny send_destination=\"org.bluez\"/>")?;
        bluez.tell(json!({"do": "add_adapter"}));
        Some(bluez)
    }

    /// No adapter yet.
    pub(crate) fn start_without_adapter() -> Option<Bluez> {
        Bluez::launch("")
    }

    fn launch(denied: &str) -> Option<Bluez> {
        let Some(venv) = venv() else {
            missing("the fake BlueZ (tests/servers/bluez.sh install)");
            return None;
        };
        let files = tempfile::tempdir().unwrap();
        let config = std::fs::read_to_string(servers().join("fake_bluez/bus.conf")).unwrap();
        let config = config.replace("FOLDER", files.path().to_str().unwrap()).replace("DENIED", denied);
        std::fs::write(files.path().join("bus.conf"), config).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.arg("--config-file").arg(files.path().join("bus.conf")).args(["--nofork", "--nopidfile"]);
        let Ok(bus) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            missing("dbus-daemon");
            return None;
        };
        let socket = files.path().join("bus");
        wait_for(DEADLINE, || socket.exists().then_some(())).expect("the private bus listens");
        let mut fake = Command::new(venv.join("bin/python"))
            .arg("-B")
            .arg(servers().join("fake_bluez"))
            .arg(address(files.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(files.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let (input, mut output) = (fake.stdin.take().unwrap(), BufReader::new(fake.stdout.take().unwrap()));
        let mut ready = String::new();
        output.read_line(&mut ready).unwrap();
        let bluez = Bluez { files, bus, fake, line: Mutex::new((input, output)) };
        assert_eq!(ready, "ready\n", "{}", bluez.log());
        Some(bluez)
    }

    /// For DBUS_SYSTEM_BUS_ADDRESS of whoever shall meet this BlueZ.
    pub(crate) fn bus_address(&self) -> String {
        address(self.files.path())
    }

    /// What the fake said about its own faults.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }

    /// A command as control.py lists them; the methods of `bluez_words` are names for these.
    pub(crate) fn tell(&self, command: Value) -> Value {
        let mut line = self.line.lock().unwrap();
        writeln!(line.0, "{command}").unwrap();
        let mut answer = String::new();
        line.1.read_line(&mut answer).unwrap();
        let mut answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{command}: {}", self.log()));
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer["ok"].take()
    }

    pub(crate) fn state(&self) -> State {
        serde_json::from_value(self.tell(json!({"do": "state"}))).unwrap()
    }

    pub(crate) fn device(&self, address: &str) -> DeviceState {
        self.state().devices.remove(address).unwrap_or_else(|| panic!("no device {address}"))
    }

    /// How often a method was called.
    pub(crate) fn calls(&self, method: &str) -> u64 {
        self.state().calls.get(method).copied().unwrap_or(0)
    }
}

impl Drop for Bluez {
    fn drop(&mut self) {
        for child in [&mut self.fake, &mut self.bus] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn address(folder: &Path) -> String {
    format!("unix:path={}/bus", folder.display())
}

fn servers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers")
}

/// The Python environment, installed on first use.
fn venv() -> Option<&'static Path> {
    static VENV: OnceLock<Option<PathBuf>> = OnceLock::new();
    VENV.get_or_init(|| {
        let dir = std::env::var_os("BIOGATE_TEST_SERVERS").map(PathBuf::from);
        let dir = dir.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-servers"));
        let installed = Command::new("bash").arg(servers().join("bluez.sh")).arg("install").arg(&dir).status();
        installed.is_ok_and(|status| status.success()).then(|| dir.join("bluez-venv"))
    })
    .as_deref()
}
