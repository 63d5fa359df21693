//! A store with a backlog, and the real binary that drains a copy of it into a destination.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::ward::{self, Speak};
use super::{Cost, biogate, configuration_to, cpu, number, peak_rss_kib, state, written};

/// A frame of the ward is two events on average.
const EVENTS_PER_FRAME: u64 = 2;

/// A process that does nothing for so long is done; on a crowded machine a second is too short.
const IDLE: Duration = Duration::from_secs(4);

/// What a drain came to.
pub(crate) struct Drained {
    /// Of the whole process.
    pub(crate) cost: Cost,
    /// From its start until the first look at which something was acknowledged: the store opens, the destination is found.
    pub(crate) start: Duration,
    /// Events a second from that look on.
    pub(crate) rate: f64,
}

/// A full store, which is copied for each drain.
pub(crate) struct Backlog {
    dir: PathBuf,
    /// Events that wait.
    pub(crate) events: u64,
}

impl Backlog {
    /// Fills a store in `dir` with about so many events for the destination `out`, recorded two days ago.
    pub(crate) fn fill(dir: &Path, events: u64) -> Backlog {
        let dir = dir.join("full");
        fs::create_dir(&dir).unwrap();
        let (config, recording, out) = (dir.join("biogate.toml"), dir.join("recording.ndjson"), dir.join("ledger"));
        // A file in the place of its folder: the destination is away.
        fs::write(dir.join("away"), "").unwrap();
        let away = format!("[[destination]]\nname = \"out\"\nkind = \"file\"\ndir = {:?}\n", dir.join("away"));
        fs::write(&config, configuration_to(&dir, "4 s", &away) + &ward::entries()).unwrap();
        ward::record_from(&recording, events / EVENTS_PER_FRAME, Speak::All, two_days_ago_ms());
        let mut command = biogate(&config, &["replay", recording.to_str().unwrap(), "--full-speed"]);
        let child = command.stdout(File::create(&out).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        // Filled once it does nothing for some seconds but try the destination again; it can be asked nothing.
        let (mut used, mut since) = (Duration::ZERO, Instant::now());
        while since.elapsed() < IDLE {
            std::thread::sleep(Duration::from_millis(50));
            let now = cpu(child.id());
            if now > used + Duration::from_millis(10) {
                since = Instant::now();
            }
            used = now;
            assert!(state(child.id()) != 'Z', "it ended while filling");
        }
        end(child, Signal::INT);
        fs::remove_file(recording).unwrap();
        let ledger = fs::read_to_string(out).unwrap();
        Backlog { events: number(&ledger, "out.waiting"), dir }
    }

    /// Drains a copy into this destination, named `out`; ends when nothing waits.
    pub(crate) fn drain(&self, to: &Path, destination: &str) -> Drained {
        let copied = Command::new("cp").arg("-r").arg(&self.dir).arg(to).status().unwrap();
        assert!(copied.success());
        // On the disk before the clock starts.
        assert!(Command::new("sync").arg("-f").arg(to).status().unwrap().success());
        let config = to.join("biogate.toml");
        fs::write(&config, configuration_to(to, "4 s", destination)).unwrap();
        let log = File::create(to.join("log")).unwrap();
        let start = Instant::now();
        let child = biogate(&config, &["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let pid = child.id();
        let mut first = None;
        loop {
            let (now, waiting) = (start.elapsed(), waiting(to));
            if let Some(left) = waiting.filter(|left| *left < self.events) {
                first.get_or_insert((now, left));
            }
            if waiting == Some(0) {
                break;
            }
            assert!(state(pid) != 'Z', "it ended: {}", fs::read_to_string(to.join("log")).unwrap());
            assert!(now < Duration::from_secs(600), "{waiting:?} wait");
            std::thread::sleep(Duration::from_millis(10));
        }
        let cost = Cost {
            wall: start.elapsed(),
            cpu: cpu(pid),
            peak_rss_kib: peak_rss_kib(pid).unwrap_or(0),
            written: written(pid),
        };
        let status = ask(to).unwrap();
        let tally = &status["ledger"]["destinations"][0][1];
        assert_eq!(tally["delivered"].as_u64(), Some(self.events), "{tally}");
        end(child, Signal::TERM);
        fs::remove_dir_all(to).unwrap();
        let (start, left) = first.unwrap();
        Drained { cost, start, rate: left as f64 / (cost.wall - start).as_secs_f64() }
    }
}

fn waiting(dir: &Path) -> Option<u64> {
    ask(dir)?["ledger"]["destinations"][0][1]["waiting"].as_u64()
}

/// What the gateway says of itself, over its control socket.
fn ask(dir: &Path) -> Option<Value> {
    let mut stream = UnixStream::connect(dir.join("data/control.sock")).ok()?;
    stream.write_all(b"GET /status HTTP/1.1\r\nhost: biogate\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

fn end(mut child: Child, signal: Signal) {
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap();
}

fn two_days_ago_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (now.as_secs() - 2 * 86_400) * 1_000
}
