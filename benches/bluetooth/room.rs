//! Twenty straps under the fake BlueZ, the gateway that reads them, and what has arrived of each.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::fake::bluez::Bluez;
use crate::rig::{biogate, configuration};

pub(crate) const STRAPS: u8 = 20;
pub(crate) const HZ: f64 = 5.0;

/// Heart Rate Measurement.
const MEASUREMENT: &str = "2a37";

/// A strap's number and the counter in its reading.
pub(crate) type Counted = (u8, u64);

/// A configuration and at most one gateway that runs with it.
pub(crate) struct Gateway {
    dir: PathBuf,
    bus: String,
    child: Option<Child>,
}

impl Gateway {
    /// In a new folder; `sensors` are the rest of its configuration.
    pub(crate) fn start(dir: &Path, bus: &str, commit_interval: &str, sensors: &str) -> Gateway {
        fs::create_dir(dir).unwrap();
        let gateway = Gateway { dir: dir.to_owned(), bus: bus.to_owned(), child: None };
        let text = configuration(dir, &gateway.archive(), commit_interval) + sensors;
        fs::write(dir.join("biogate.toml"), text).unwrap();
        gateway.started()
    }

    fn started(mut self) -> Gateway {
        self.begin();
        self
    }

    pub(crate) fn begin(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = biogate(&self.dir.join("biogate.toml"), &["run"]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGKILL, at whatever it is doing.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and its end.
    pub(crate) fn end(mut self) {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success(), "it failed; its log:\n{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.dir.join("archive")
    }

    /// What it answers to `/status`; nothing while it does not listen.
    pub(crate) fn status(&self) -> Option<Value> {
        let mut socket = UnixStream::connect(self.dir.join("data/control.sock")).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.write_all(b"GET /status HTTP/1.1\r\nhost: biogate\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The entries of all straps.
pub(crate) fn entries(straps: &[String]) -> String {
    let mut text = format!("\n[ble]\nmax_links = {STRAPS}\n");
    for (number, address) in (1..).zip(straps) {
        write!(
            text,
            "\n[[device]]\nname = \"strap-{number}\"\nprofile = \"bluetooth-heart-rate\"\nble = \"{address}\"\n\
             user_id = \"6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11\"\n"
        )
        .unwrap();
    }
    text
}

/// Straps at 5 Hz under a BlueZ of their own; `None` when something is not installed.
pub(crate) fn straps() -> Option<(Bluez, Vec<String>)> {
    let bluez = Bluez::start()?;
    let straps = bluez.straps(STRAPS, HZ);
    Some((bluez, straps))
}

/// When each value was emitted, since the last time this was asked; the first time begins it.
pub(crate) fn emissions(bluez: &Bluez, straps: &[String]) -> HashMap<Counted, f64> {
    let traces = bluez.tell(json!({"do": "trace", "uuid": MEASUREMENT}));
    let of = |(number, address): (u8, &String)| -> Vec<(Counted, f64)> {
        let trace: Vec<(u64, f64)> = serde_json::from_value(traces[address].clone()).unwrap();
        trace.into_iter().map(|(counter, at)| ((number, counter), at)).collect()
    };
    (1..).zip(straps).flat_map(of).collect()
}

/// The end of the archive, as it grows.
#[derive(Default)]
pub(crate) struct Tail {
    file: Option<File>,
    rest: Vec<u8>,
}

impl Tail {
    /// Lines that came since the last time this was asked.
    pub(crate) fn more(&mut self, archive: &Path, mut line: impl FnMut(&str)) {
        if self.file.is_none() {
            self.file = files(archive).pop().map(|file| File::open(file).unwrap());
        }
        let Some(file) = &mut self.file else { return };
        file.read_to_end(&mut self.rest).unwrap();
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for one in self.rest[..whole].split_inclusive(|byte| *byte == b'\n') {
            line(std::str::from_utf8(one).unwrap());
        }
        self.rest.drain(..whole);
    }
}

/// Every line of the archive.
pub(crate) fn each_line(archive: &Path, mut line: impl FnMut(&str)) {
    for file in files(archive) {
        BufReader::new(File::open(file).unwrap()).lines().for_each(|one| line(&one.unwrap()));
    }
}

fn files(archive: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(archive).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("events-")));
    files.sort();
    files
}

/// Which reading this line is: a strap puts its counter in as an interval of so many 1/1024 s.
pub(crate) fn counted(line: &str) -> Counted {
    let number = between(line, "strap-", &['"']);
    let interval = between(line, "rr_intervals", &[']', ',']);
    let interval = interval.trim_start_matches(|c: char| !c.is_ascii_digit());
    let counter = interval.parse::<f64>().unwrap_or_else(|_| panic!("no interval in {line}")) * 1_024.0;
    (number.parse().unwrap_or_else(|_| panic!("no strap in {line}")), counter.round() as u64)
}

fn between<'a>(line: &'a str, before: &str, after: &[char]) -> &'a str {
    let begin = line.find(before).map_or(line.len(), |at| at + before.len());
    let rest = &line[begin..];
    &rest[..rest.find(after).unwrap_or(rest.len())]
}

/// Unix seconds.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
