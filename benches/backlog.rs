//! A backlog: the real binary fills its store while the destination is away, and a new start drains it.
//!
//! `cargo bench --bench backlog -- [--observations N | --long] [--dir DIR]`; N is 1,000,000 by default and 10,000,000
//! with `--long`, which takes minutes and about 5 GB of disk.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

mod rig;

use rig::ward::{self, Speak};
use rig::{Arguments, biogate, configuration, cpu, disk_bytes, number, peak_rss_kib, state};

/// A process that does nothing for so long is done; on a crowded machine a second is too short.
const IDLE: Duration = Duration::from_secs(4);

/// A frame of the ward is two events on average.
const EVENTS_PER_FRAME: u64 = 2;

/// What a phase cost, seen from outside: progress in bytes against CPU, at many moments.
#[derive(Default)]
struct Progress {
    moments: Vec<(u64, Duration)>,
    peak_rss_kib: u64,
}

impl Progress {
    fn look(&mut self, pid: u32, bytes: u64) {
        self.moments.push((bytes, cpu(pid)));
        self.peak_rss_kib = peak_rss_kib(pid).unwrap_or(self.peak_rss_kib);
    }

    /// CPU nanoseconds of a byte of progress in each tenth.
    fn tenths(&self) -> Vec<f64> {
        let total = self.moments.last().map_or(0, |(bytes, _)| *bytes);
        let at = |tenth: u64| self.moments.iter().find(|(bytes, _)| *bytes >= total * tenth / 10).unwrap();
        let cost = |tenth: u64| {
            let ((from, cpu_from), (to, cpu_to)) = (at(tenth), at(tenth + 1));
            (*cpu_to - *cpu_from).as_nanos() as f64 / (to - from).max(1) as f64
        };
        (0..10).map(cost).collect()
    }
}

fn main() {
    let arguments = Arguments::read();
    let usual = if arguments.has("--long") { 10_000_000 } else { 1_000_000 };
    let observations = arguments.number("--observations", usual);
    let dir = arguments.folder();
    let dir = dir.path();
    let (filling, draining) = (dir.join("filling.toml"), dir.join("draining.toml"));
    fs::write(&filling, configuration(dir, &dir.join("archive"), "4 s") + &ward::entries()).unwrap();
    fs::write(&draining, configuration(dir, &dir.join("archive"), "4 s")).unwrap();
    let recording = dir.join("recording.ndjson");
    ward::record(&recording, observations / EVENTS_PER_FRAME, Speak::All);
    // A file in the place of the folder: the destination is away.
    fs::write(dir.join("archive"), "").unwrap();
    let waiting = fill(dir, &filling, &recording);
    fs::remove_file(dir.join("archive")).unwrap();
    fs::remove_file(recording).unwrap();
    drain(dir, &draining, waiting);
}

/// Returns what waits.
fn fill(dir: &Path, config: &Path, recording: &Path) -> u64 {
    let out = dir.join("out");
    let start = Instant::now();
    let mut command = biogate(config, &["replay", recording.to_str().unwrap(), "--full-speed"]);
    let child = command.stdout(File::create(&out).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let mut progress = Progress::default();
    let mut idle_since = Instant::now();
    // Filled once it does nothing for some seconds but try the destination again.
    while idle_since.elapsed() < IDLE {
        std::thread::sleep(Duration::from_millis(50));
        let before = progress.moments.last().map(|(_, cpu)| *cpu);
        progress.look(pid, rig::written(pid));
        if progress.moments.last().map(|(_, cpu)| *cpu) > before.map(|cpu| cpu + Duration::from_millis(10)) {
            idle_since = Instant::now();
        }
    }
    let took = start.elapsed() - IDLE;
    let used = cpu(pid);
    let on_disk = disk_bytes(&dir.join("data"));
    end(child, Signal::INT);
    let ledger = fs::read_to_string(out).unwrap();
    let waiting = number(&ledger, "archive.waiting");
    println!("fill: {waiting} observations wait, {:.1} MB on disk", on_disk as f64 / 1e6);
    println!(
        "  {:.0} observations/s, cpu {:.2} us each, peak RSS {:.1} MiB",
        waiting as f64 / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / waiting as f64,
        progress.peak_rss_kib as f64 / 1_024.0
    );
    tenths("  cpu of a byte, each tenth against the median:", &progress.tenths());
    waiting
}

fn drain(dir: &Path, config: &Path, waiting: u64) {
    let archive = dir.join("archive");
    let start = Instant::now();
    let child = biogate(config, &["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let mut progress = Progress::default();
    let mut first = None;
    let mut idle_since = Instant::now();
    while idle_since.elapsed() < IDLE {
        std::thread::sleep(Duration::from_millis(if first.is_some() { 20 } else { 1 }));
        let bytes: u64 = files(&archive).iter().flat_map(fs::metadata).map(|meta| meta.len()).sum();
        if bytes > 0 {
            first.get_or_insert_with(|| start.elapsed());
        }
        if progress.moments.last().is_none_or(|(before, _)| bytes > *before) {
            progress.look(pid, bytes);
            idle_since = Instant::now();
        }
        assert!(state(pid) != 'Z', "it ended");
    }
    let took = start.elapsed() - IDLE;
    let used = cpu(pid);
    let (data, peak) = (disk_bytes(&dir.join("data")), progress.peak_rss_kib.max(peak_rss_kib(pid).unwrap_or(0)));
    end(child, Signal::TERM);
    let lines = count_lines(&archive);
    assert_eq!(lines, waiting, "each once");
    println!("drain: first event {:.0} ms after the start", first.unwrap().as_secs_f64() * 1e3);
    println!(
        "  {:.0} events/s, cpu {:.2} us each, peak RSS {:.1} MiB, {:.1} MB left of the store",
        waiting as f64 / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / waiting as f64,
        peak as f64 / 1_024.0,
        data as f64 / 1e6
    );
    tenths("  cpu of a byte, each tenth against the median:", &progress.tenths());
}

fn tenths(what: &str, costs: &[f64]) {
    let middle = rig::median(costs.to_vec());
    let all: Vec<String> = costs.iter().map(|cost| format!("{:.2}", cost / middle)).collect();
    println!("{what} {}", all.join(" "));
}

fn files(archive: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(archive).into_iter().flatten().flatten();
    let events = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("events-"));
    events.map(|entry| entry.path()).collect()
}

fn count_lines(archive: &Path) -> u64 {
    let mut buffer = vec![0; 1 << 20];
    let mut lines = 0;
    for file in files(archive) {
        let mut file = File::open(file).unwrap();
        loop {
            let read = std::io::Read::read(&mut file, &mut buffer).unwrap();
            if read == 0 {
                break;
            }
            lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
    }
    lines
}

fn end(mut child: Child, signal: Signal) {
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap();
}
