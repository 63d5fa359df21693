//! What the benches share: the real binary in a fresh folder, what the kernel says it cost, and a deterministic recording.
#![allow(dead_code, reason = "each bench uses its own part of it")]
#![allow(clippy::disallowed_methods, reason = "a bench looks at a process from its own thread")]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) mod arguments;
pub(crate) mod backlog;
pub(crate) mod line;
pub(crate) mod servers;
pub(crate) mod ward;

pub(crate) use arguments::Arguments;

/// The release binary; `BIOGATE=PATH` names another, so that two can be compared.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("BIOGATE").map_or_else(|| env!("CARGO_BIN_EXE_biogate").into(), PathBuf::from)
}

/// The allocator's settings in systemd/biogate.service.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072")];

/// Starts this bench anew where it has other allocator settings than the gateway: glibc reads them once.
pub(crate) fn with_the_units_allocator() {
    if ALLOCATOR.iter().all(|(name, value)| std::env::var(name).is_ok_and(|set| set == *value)) {
        return;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    panic!("{}", again.args(std::env::args_os().skip(1)).envs(ALLOCATOR).exec());
}

/// The binary with the environment of systemd/biogate.service.
pub(crate) fn biogate(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("--config").arg(config).args(arguments);
    command.envs(ALLOCATOR);
    command.stdin(Stdio::null());
    command
}

/// What one process cost, by the kernel's own accounts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// User and system time of all its threads.
    pub(crate) cpu: Duration,
    pub(crate) peak_rss_kib: u64,
    /// Bytes that it dirtied: what it caused to be written, without the file system's journal.
    pub(crate) written: u64,
}

/// Waits for the end of a process and looks at it until then. Its accounts are read while it is a zombie: whole, and
/// nobody else's.
pub(crate) fn follow(mut child: Child) -> Cost {
    let start = Instant::now();
    let pid = child.id();
    let mut cost = Cost::default();
    while state(pid) != 'Z' {
        cost.peak_rss_kib = peak_rss_kib(pid).unwrap_or(cost.peak_rss_kib);
        std::thread::sleep(Duration::from_millis(5));
    }
    cost.wall = start.elapsed();
    cost.cpu = cpu(pid);
    cost.written = written(pid);
    assert!(child.wait().unwrap().success(), "it failed");
    cost
}

/// User and system time of a process with all its threads, living and ended. The kernel counts in hundredths here.
pub(crate) fn cpu(pid: u32) -> Duration {
    let ticks = |at: usize| stat_field(pid, at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// `Z` once it has ended.
pub(crate) fn state(pid: u32) -> char {
    stat_field(pid, 0).and_then(|text| text.chars().next()).unwrap_or('Z')
}

/// A field of /proc/PID/stat, counted from the state.
fn stat_field(pid: u32, at: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(at).map(str::to_owned)
}

pub(crate) fn peak_rss_kib(pid: u32) -> Option<u64> {
    named(&format!("/proc/{pid}/status"), "VmHWM:")
}

pub(crate) fn rss_kib(pid: u32) -> Option<u64> {
    named(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Its own pages and its share of those that others have too.
pub(crate) fn pss_kib(pid: u32) -> Option<u64> {
    named(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

pub(crate) fn written(pid: u32) -> u64 {
    named(&format!("/proc/{pid}/io"), "write_bytes:").unwrap_or(0)
}

fn named(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes that the block device under `dir` was told to write, by anybody: give the bench a file system of its own
/// (`--dir`) for a figure that means something.
pub(crate) fn device_written(dir: &Path) -> u64 {
    let device = std::fs::metadata(dir).unwrap().dev();
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap_or_default();
    // Sectors written, always of 512 bytes.
    stat.split_whitespace().nth(6).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 512
}

/// Bytes on disk of everything in a folder.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A number of a ledger line, as `stored` of `ledger accepted=5 stored=7`.
pub(crate) fn number(ledger: &str, name: &str) -> u64 {
    let found = ledger.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name} in {ledger}"))
}

/// Sections of a configuration that every bench has: the store in `dir`, and a file destination.
pub(crate) fn configuration(dir: &Path, archive: &Path, commit_interval: &str) -> String {
    let archive = format!("[[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n");
    configuration_to(dir, commit_interval, &archive)
}

/// The same with a destination of its own.
pub(crate) fn configuration_to(dir: &Path, commit_interval: &str, destination: &str) -> String {
    let data = dir.join("data");
    let mut text = String::new();
    write!(
        text,
        "[gateway]\nid = \"hub-bench\"\nlocation = \"ward-3\"\ntimezone = \"Europe/Berlin\"\ndata_dir = {data:?}\n\n\
         [clock]\ntrust = \"always\"\n\n\
         [store]\nmax_bytes = \"16 GiB\"\nmin_free = \"16 MiB\"\ncommit_interval = \"{commit_interval}\"\n\n\
         {destination}"
    )
    .unwrap();
    text
}

/// A buffered file.
pub(crate) fn create(path: &Path) -> BufWriter<File> {
    BufWriter::with_capacity(1 << 20, File::create(path).unwrap())
}

/// Makes everything of a buffered file durable.
pub(crate) fn finish(file: BufWriter<File>) {
    let mut file = file.into_inner().unwrap();
    file.flush().unwrap();
    file.sync_all().unwrap();
}
