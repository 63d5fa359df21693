//! The store alone: append with fdatasync, reopen, drain.
//!
//! `cargo bench --bench store -- [append-and-drain N | flat | roll] [--chunk C] [--dir DIR]`; N is 1,000,000 and C 4,096
//! by default. `flat` appends and drains 500,000 observations on backlogs of 10,000 to 10,000,000; `roll` fills and drains
//! 200 generations of 4 MiB. Memory is that of the unit with MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use biogate::observation::{EventType, Observation, Value};
use biogate::reading::{BootId, Heard, RunId};
use biogate::store::{Commit, CutLimit, IntakeTally, Settings, Settled, Store, WhenFull};

const LIMIT: CutLimit = CutLimit { max_observations: 20_000, max_bytes: 4 << 20 };

/// Device, profile, what it measures, component, and the value that wanders.
type Sensor = (Arc<str>, Arc<str>, EventType, Arc<str>, f64);

/// Twenty straps, thermometers and step counters, each with a value that wanders.
struct Ward {
    devices: Vec<Sensor>,
    names: [Arc<str>; 3],
    detected: Arc<str>,
    boot: BootId,
    reading: u64,
    random: fastrand::Rng,
}

impl Ward {
    fn new() -> Ward {
        let mut devices: Vec<Sensor> = Vec::new();
        for number in 0..20 {
            devices.push(match number % 4 {
                0 | 1 => (
                    format!("strap-{number}").into(),
                    "bluetooth-heart-rate/1".into(),
                    EventType::HeartRate,
                    "".into(),
                    72.0,
                ),
                2 => (
                    format!("patch-{number}").into(),
                    "bluetooth-thermometer/1".into(),
                    EventType::Temperature,
                    "body".into(),
                    36.6,
                ),
                _ => (format!("band-{number}").into(), "mqtt-step-counter/1".into(), EventType::Steps, "".into(), 3.0),
            });
        }
        let boot = BootId(uuid::Uuid::from_u128(0x5d1c_77aa));
        let names = ["rr_intervals".into(), "contact".into(), "battery".into()];
        Ward { devices, names, detected: "detected".into(), boot, reading: 0, random: fastrand::Rng::with_seed(7) }
    }

    fn observations(&mut self, count: usize) -> Vec<Observation> {
        (0..count).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> Observation {
        let place = (self.reading % self.devices.len() as u64) as usize;
        let (device, profile, event_type, component, value) = &mut self.devices[place];
        let step = f64::from(self.random.i8(-1..=1));
        let mut metadata = Vec::new();
        match event_type {
            EventType::HeartRate => {
                *value = (*value + step).clamp(48.0, 180.0);
                let rr = (61_440.0 / *value + f64::from(self.random.i8(-20..=20))).round() / 1024.0;
                metadata.push((self.names[1].clone(), Value::Text(self.detected.clone())));
                metadata.push((self.names[0].clone(), Value::List(vec![Value::Num(rr)])));
            }
            EventType::Temperature => *value = ((*value * 10.0 + step).round() / 10.0).clamp(35.0, 41.0),
            _ => metadata.push((self.names[2].clone(), Value::Int(87))),
        }
        self.reading += 1;
        let ms = self.reading * 50 + self.random.u64(0..30);
        Observation {
            reading: self.reading,
            index: 0,
            device: device.clone(),
            profile: profile.clone(),
            event_type: *event_type,
            component: component.clone(),
            value: *value,
            heard: Heard { boot: self.boot, ms },
            device_time: None,
            since: (*event_type == EventType::Steps).then_some(Heard { boot: self.boot, ms: ms.saturating_sub(1_000) }),
            identity: None,
            metadata,
        }
    }
}

fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        max_bytes: 16 << 30,
        aside_max_bytes: 64 << 20,
        min_free: 0,
        max_age: Duration::from_secs(90 * 86_400),
        when_full: WhenFull::EvictOldest,
        key_file: None,
        generation_bytes: 4 << 20,
    }
}

fn open(dir: &Path) -> Store {
    Store::open(&settings(dir), RunId::random(), BootId::WALL, &["out".to_owned()]).unwrap()
}

/// Appends and says how long the store took; making the observations is another thread's time and is left out.
async fn append(store: &Store, ward: &mut Ward, count: u64, chunk: usize) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let observations = ward.observations(chunk.min(left as usize));
        let stored = observations.len() as u64;
        left -= stored;
        let intake = IntakeTally { accepted: stored, decoded: stored, made: stored, stored, ..IntakeTally::default() };
        let commit = Commit { observations, intake, ..Commit::default() };
        let start = Instant::now();
        store.commit(commit).await.unwrap();
        took += start.elapsed();
    }
    took
}

/// Drains `count` observations and says how long that and the first chunk took.
async fn drain(store: &Store, count: u64, limit: CutLimit) -> (Duration, Duration) {
    let start = Instant::now();
    let (mut seen, mut first) = (0, Duration::ZERO);
    while seen < count {
        let range = store.next_range("out", 0, 0, limit).await.unwrap();
        let chunks = store.read(&range).await.unwrap();
        let delivered = chunks.map(|chunk| chunk.observations.len() as u64).sum();
        if seen == 0 {
            first = start.elapsed();
        }
        seen += delivered;
        store.settle("out", &range, Settled { delivered, ..Settled::default() }).await.unwrap();
    }
    (start.elapsed(), first)
}

fn io_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn peak_rss_kib() -> u64 {
    status_kib("VmHWM:")
}

fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) * 10
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

async fn append_and_drain(dir: &Path, count: u64, chunk: usize) {
    let (written, cpu) = (io_bytes(), cpu_ms());
    let store = open(dir);
    let took = append(&store, &mut Ward::new(), count, chunk).await;
    let stat = store.stat();
    println!(
        "append {count} in chunks of {chunk}: {:.0} observations/s, {:.2} bytes each on disk, {} fdatasyncs, \
         {:.2} written bytes each, {} generations, cpu with making them {:.2} us each",
        rate(count, took),
        stat.disk_bytes as f64 / count as f64,
        stat.syncs,
        (io_bytes() - written) as f64 / count as f64,
        stat.generations,
        (cpu_ms() - cpu) as f64 * 1_000.0 / count as f64,
    );
    store.close().await.unwrap();
    let start = Instant::now();
    let store = open(dir);
    let opened = start.elapsed();
    let cpu = cpu_ms();
    let (took, first) = drain(&store, count, LIMIT).await;
    println!(
        "reopen {opened:?}, first chunk {first:?}, drain: {:.0} observations/s, {:.2} us cpu each, {} bytes left, \
         peak RSS {} KiB",
        rate(count, took),
        (cpu_ms() - cpu) as f64 * 1_000.0 / count as f64,
        store.stat().disk_bytes,
        peak_rss_kib(),
    );
    store.close().await.unwrap();
}

async fn flat(dir: &Path, chunk: usize) {
    const STEP: u64 = 500_000;
    // One chunk at a time, so that a small backlog is not drained along with the step.
    let small = CutLimit { max_observations: 1, max_bytes: 1 };
    let store = open(dir);
    let mut ward = Ward::new();
    let mut waiting = 0;
    for backlog in [10_000, 100_000, 1_000_000, 10_000_000] {
        append(&store, &mut ward, backlog - waiting, chunk).await;
        let appended = append(&store, &mut ward, STEP, chunk).await;
        let (drained, _) = drain(&store, STEP, small).await;
        waiting = store.stat().destinations[0].waiting;
        println!(
            "{waiting} waiting: append {:.0}/s, drain {:.0}/s, peak RSS {} KiB",
            rate(STEP, appended),
            rate(STEP, drained),
            peak_rss_kib()
        );
    }
    store.close().await.unwrap();
}

async fn roll(dir: &Path, chunk: usize) {
    let store = open(dir);
    println!("opened: RSS {} KiB", status_kib("VmRSS:"));
    let mut ward = Ward::new();
    for generation in 1..=200u64 {
        append(&store, &mut ward, 900_000, chunk).await;
        let waiting = store.stat().destinations[0].waiting;
        drain(&store, waiting, CutLimit { max_observations: 4_096, max_bytes: 1 << 20 }).await;
        if [1, 20, 100, 200].contains(&generation) {
            println!("after {generation} generations: RSS {} KiB", status_kib("VmRSS:"));
        }
    }
    store.close().await.unwrap();
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let chunk = after("--chunk").map_or(4_096, |text| text.parse().unwrap());
    let parent = after("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::Builder::new().prefix("store-bench").tempdir_in(parent).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if args.iter().any(|arg| arg == "flat") {
        runtime.block_on(flat(dir.path(), chunk));
    } else if args.iter().any(|arg| arg == "roll") {
        runtime.block_on(roll(dir.path(), chunk));
    } else {
        let count = after("append-and-drain").map_or(1_000_000, |text| text.parse().unwrap());
        runtime.block_on(append_and_drain(dir.path(), count, chunk));
    }
}
