//! The whole path: a recording through the real binary into the file destination, and beside it a bare client that
//! writes the same lines with the same fsyncs.
//!
//! `cargo bench --bench path -- [--frames N] [--runs R] [--dir DIR]`; N is 1,000,000 and R is 3 by default.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

mod rig;

use rig::ward::{self, Speak};
use rig::{Arguments, Cost, biogate, configuration, cpu, device_written, follow, median, number};

/// Rows between two fsyncs of the bare client: a batch of the file destination.
const BATCH_ROWS: u64 = 8_192;

/// One replay and the bare client after it.
struct Run {
    events: u64,
    cost: Cost,
    /// Bytes at the block layer while it ran, of everybody on that device.
    device: u64,
    /// What lies in the archive.
    lines: u64,
    bare: Cost,
}

fn main() {
    let arguments = Arguments::read();
    let (frames, runs) = (arguments.number("--frames", 1_000_000), arguments.number("--runs", 3));
    for (what, speak) in [("straps and bands", Speak::All), ("straps only", Speak::Straps)] {
        let dir = arguments.folder();
        let recording = dir.path().join("recording.ndjson");
        ward::record(&recording, frames, speak);
        let runs: Vec<Run> = (0..runs).map(|run| replay(&dir.path().join(run.to_string()), &recording)).collect();
        report(what, frames, &runs);
    }
}

fn replay(dir: &Path, recording: &Path) -> Run {
    fs::create_dir(dir).unwrap();
    let (config, out) = (dir.join("biogate.toml"), dir.join("out"));
    fs::write(&config, configuration(dir, &dir.join("archive"), "4 s") + &ward::entries()).unwrap();
    let device = device_written(dir);
    let mut command = biogate(&config, &["replay", recording.to_str().unwrap(), "--full-speed"]);
    let cost = follow(command.stdout(File::create(&out).unwrap()).stderr(Stdio::inherit()).spawn().unwrap());
    let device = device_written(dir) - device;
    let ledger = fs::read_to_string(&out).unwrap();
    let events = number(&ledger, "stored");
    assert_eq!(number(&ledger, "archive.delivered"), events, "{ledger}");
    let files = files(&dir.join("archive"));
    let lines = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    let bare = bare(&dir.join("bare"), &files);
    fs::remove_dir_all(dir).unwrap();
    Run { events, cost, device, lines, bare }
}

fn files(archive: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(archive).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Reads the lines and writes them again, with an fsync for each batch.
fn bare(to: &Path, files: &[PathBuf]) -> Cost {
    let pid = std::process::id();
    let (start, cpu_before, written_before) = (Instant::now(), cpu(pid), rig::written(pid));
    let mut out = BufWriter::with_capacity(256 << 10, File::create(to).unwrap());
    let (mut line, mut rows) = (Vec::new(), 0);
    for file in files {
        let mut lines = BufReader::with_capacity(256 << 10, File::open(file).unwrap());
        while lines.read_until(b'\n', &mut line).unwrap() > 0 {
            out.write_all(&line).unwrap();
            line.clear();
            rows += 1;
            if rows % BATCH_ROWS == 0 {
                out.flush().unwrap();
                out.get_ref().sync_data().unwrap();
            }
        }
    }
    out.flush().unwrap();
    out.get_ref().sync_data().unwrap();
    let (wall, cpu) = (start.elapsed(), cpu(pid) - cpu_before);
    Cost { wall, cpu, peak_rss_kib: 0, written: rig::written(pid) - written_before }
}

fn report(what: &str, frames: u64, runs: &[Run]) {
    let of = |figure: &dyn Fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let events = runs[0].events;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
    println!("path, {what}: {frames} frames, {events} events, medians of {} runs", runs.len());
    println!(
        "  {:.0} frames/s, {:.0} events/s; bare client {:.0} events/s",
        of(&|run| frames as f64 / run.cost.wall.as_secs_f64()),
        of(&|run| events as f64 / run.cost.wall.as_secs_f64()),
        of(&|run| events as f64 / run.bare.wall.as_secs_f64()),
    );
    println!(
        "  cpu {:.2} us/event, {:.2} us/frame; bare client {:.2} us/event",
        of(&|run| each(run.cost.cpu)),
        of(&|run| each(run.cost.cpu) * events as f64 / frames as f64),
        of(&|run| each(run.bare.cpu)),
    );
    println!(
        "  peak RSS {:.1} MiB; dirtied {:.1} bytes/event, of which lines {:.1}, store {:.1}; block layer {:.1} bytes/event",
        of(&|run| run.cost.peak_rss_kib as f64 / 1_024.0),
        of(&|run| run.cost.written as f64 / events as f64),
        of(&|run| run.lines as f64 / events as f64),
        of(&|run| run.cost.written.saturating_sub(run.lines) as f64 / events as f64),
        of(&|run| run.device as f64 / events as f64),
    );
}
