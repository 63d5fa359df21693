//! The running gateway as a hub has it: start to the first event, memory and CPU idle and with twenty devices at one
//! frame a second, and what it writes.
//!
//! `cargo bench --bench footprint -- [--seconds S] [--starts N] [--dir DIR] [--archive DIR]`; S is 20 and N is 5 by
//! default. `BIOGATE_WITH=FILE` adds the sections of that file to the configuration of the long run: further destinations
//! and rooms. Ten devices are serial lines (ptys), ten publish to a mosquitto of the bench's own. For what the store alone
//! writes to the block layer, give `--dir` a file system of its own and `--archive` another.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use biogate::source::context::Stop;
use biogate::source::mqtt::publisher::{Publisher, publisher};
use rustix::process::{Pid, Signal, kill_process};

mod rig;

use rig::line::Line;
use rig::ward::{DEVICES, Ward};
use rig::{Arguments, biogate, configuration, cpu, device_written, median, peak_rss_kib, pss_kib, rss_kib};

/// The store commits so often by default.
const COMMIT_SECONDS: f64 = 4.0;

fn main() {
    let arguments = Arguments::read();
    let (seconds, starts) = (arguments.number("--seconds", 20), arguments.number("--starts", 5));
    let dir = arguments.folder();
    let Some(broker) = Broker::start(dir.path()) else {
        println!("footprint: mosquitto is not installed; nothing measured");
        return;
    };
    let lines: Vec<Line> = (0..DEVICES / 2).map(|_| Line::open()).collect();
    let times = (0..starts).map(|run| start(&dir.path().join(format!("start-{run}")), &broker, &lines)).collect();
    println!("start to the first event in the file, commits every 100 ms: {:.0} ms, median of {starts}", median(times));
    let elsewhere = arguments.folder_in("--archive");
    let run_in = dir.path().join("run");
    let archive = elsewhere.as_ref().map_or_else(|| run_in.join("archive"), |folder| folder.path().to_owned());
    run(&run_in, &archive, &broker, &lines, seconds);
}

/// A gateway with serial lines and a broker.
fn gateway(dir: &Path, archive: &Path, broker: &Broker, lines: &[Line], commit_interval: &str) -> Child {
    gateway_with(dir, archive, broker, lines, commit_interval, "")
}

/// The same with further sections of its configuration.
fn gateway_with(
    dir: &Path,
    archive: &Path,
    broker: &Broker,
    lines: &[Line],
    commit_interval: &str,
    further: &str,
) -> Child {
    fs::create_dir(dir).unwrap();
    let mut text = configuration(dir, archive, commit_interval);
    text += &format!("\n[[mqtt]]\nname = \"ward\"\nurl = \"{}\"\n", broker.url());
    text += "\n[[device]]\nname = \"beds\"\nprofile = \"mqtt-vitals-json\"\nmqtt = \"clinic/{device}/vitals\"\n";
    for (number, line) in lines.iter().enumerate() {
        let port = &line.port;
        text += &format!(
            "\n[[device]]\nname = \"band-{number}\"\nprofile = \"serial-vitals-line\"\nserial = {port:?}\n\
             user_id = \"6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11\"\n"
        );
    }
    text += further;
    let config = dir.join("biogate.toml");
    fs::write(&config, text).unwrap();
    biogate(&config, &["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Milliseconds from the start of the binary to its first event in the file, a line being sent every 5 ms.
fn start(dir: &Path, broker: &Broker, lines: &[Line]) -> f64 {
    let ended = Arc::new(AtomicBool::new(false));
    let mut line = lines[0].master.try_clone().unwrap();
    let sending = ended.clone();
    let sender = std::thread::spawn(move || {
        while !sending.load(Relaxed) {
            // A pty that nobody reads is full in the end; what it does not take is lost, as on a line.
            line.write_all(b"HR:72,T:36.6\n").unwrap_or_default();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let archive = dir.join("archive");
    let start = Instant::now();
    let child = gateway(dir, &archive, broker, &lines[..1], "100 ms");
    while archived(&archive) == 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "no event");
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed().as_secs_f64() * 1e3;
    ended.store(true, Relaxed);
    end(child);
    sender.join().unwrap();
    took
}

fn archived(archive: &Path) -> u64 {
    let entries = fs::read_dir(archive).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

fn run(dir: &Path, archive: &Path, broker: &Broker, lines: &[Line], seconds: u64) {
    let further = std::env::var_os("BIOGATE_WITH").map(|file| fs::read_to_string(file).unwrap());
    let child = gateway_with(dir, archive, broker, lines, "4 s", &further.unwrap_or_default());
    let pid = child.id();
    std::thread::sleep(Duration::from_secs(3));
    let idle_from = cpu(pid);
    std::thread::sleep(Duration::from_secs(seconds));
    memory("idle", pid, share(cpu(pid) - idle_from, seconds));

    let mut ward = Ward::new();
    let (publish, _stop) = publishing(broker);
    let second = |ward: &mut Ward| {
        let start = Instant::now();
        for (device, line) in lines.iter().enumerate() {
            let frame = ward.band(device) + "\n";
            (&line.master).write_all(frame.as_bytes()).unwrap();
            let values = format!(r#"{{"hr":{},"spo2":97,"temp":{{"c":36.6}}}}"#, ward.strap(device)[1]);
            publish.publish(format!("clinic/bed-{device}/vitals"), values);
            std::thread::sleep(Duration::from_millis(90));
        }
        std::thread::sleep(Duration::from_secs(1).saturating_sub(start.elapsed()));
    };
    for _ in 0..5 {
        second(&mut ward);
    }
    let (cpu_from, written_from, device_from) = (cpu(pid), rig::written(pid), device_written(dir));
    let archived_from = archived(archive);
    for _ in 0..seconds {
        second(&mut ward);
    }
    memory("20 devices at 1 Hz", pid, share(cpu(pid) - cpu_from, seconds));
    let commits = seconds as f64 / COMMIT_SECONDS;
    let lines = (archived(archive) - archived_from) as f64;
    let (written, device) = ((rig::written(pid) - written_from) as f64, (device_written(dir) - device_from) as f64);
    let a_day = |bytes: f64| bytes * 86_400.0 / seconds as f64 / 1e9;
    println!(
        "  a commit: dirtied {:.1} KB, block layer {:.1} KB, {:.1} KB of lines to the archive",
        written / commits / 1e3,
        device / commits / 1e3,
        lines / commits / 1e3
    );
    println!(
        "  a day: dirtied {:.2} GB, block layer {:.2} GB, {:.2} GB of lines",
        a_day(written),
        a_day(device),
        a_day(lines)
    );
    end(child);
}

fn share(used: Duration, seconds: u64) -> f64 {
    used.as_secs_f64() / seconds as f64 * 100.0
}

fn memory(what: &str, pid: u32, cpu_percent: f64) {
    let mib = |kib: Option<u64>| kib.unwrap_or(0) as f64 / 1_024.0;
    println!(
        "{what}: PSS {:.1} MiB, RSS {:.1} MiB, peak RSS {:.1} MiB, cpu {cpu_percent:.2} % of one core",
        mib(pss_kib(pid)),
        mib(rss_kib(pid)),
        mib(peak_rss_kib(pid)),
    );
}

/// A publisher on a thread of its own; it ends with the sender of its stop.
fn publishing(broker: &Broker) -> (Publisher, tokio::sync::watch::Sender<bool>) {
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let (publish, carry) = publisher(&broker.url(), "bench-ward", Stop::new(stopping)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime.block_on(carry));
    (publish, stop)
}

fn end(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A mosquitto of the bench's own.
struct Broker {
    child: Child,
    port: u16,
}

impl Broker {
    /// `None` where it is not installed.
    fn start(dir: &Path) -> Option<Broker> {
        let binary = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].map(Path::new).into_iter();
        let binary = binary.into_iter().find(|binary| binary.exists())?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.join("mosquitto.conf");
        fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest none\n")).unwrap();
        let mut command = Command::new(binary);
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Broker { child, port })
    }

    fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
