//! What twenty straps cost, and how soon they are durable.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::rig::line::Line;
use crate::rig::{Arguments, cpu, median, pss_kib, rss_kib};
use crate::room::{Counted, Gateway, HZ, STRAPS, Tail, counted, emissions, entries, now, straps};

/// Links are made one after another; then all must flow.
const SETTLED: Duration = Duration::from_secs(60);

/// How often the store commits, and the same for serial lines.
const INTERVALS: [(&str, &str); 2] = [("4 s", "serial 4 s"), ("100 ms", "serial 100 ms")];

/// What one gateway cost while it was watched.
struct Cost {
    events: f64,
    cpu_percent: f64,
    cpu_us_each: f64,
    pss_mib: f64,
    rss_mib: f64,
    /// Seconds from a notification to its row, sorted.
    latencies: Vec<f64>,
}

pub(crate) fn run(arguments: &Arguments) {
    let (seconds, runs) = (arguments.number("--seconds", 20), arguments.number("--runs", 1));
    let dir = arguments.folder();
    let mut all: HashMap<&str, Vec<Cost>> = HashMap::new();
    for run in 0..runs {
        let folder = |what: &str| dir.path().join(format!("{what}-{run}"));
        all.entry("idle").or_default().push(serial(&folder("idle"), 1, 0.0, "4 s", seconds));
        for (interval, by_serial) in INTERVALS {
            let cost = serial(&folder(by_serial), STRAPS.into(), HZ, interval, seconds);
            all.entry(by_serial).or_default().push(cost);
            let Some(cost) = bluetooth(&folder(interval), interval, seconds) else { return };
            all.entry(interval).or_default().push(cost);
        }
    }
    println!("{STRAPS} devices at {HZ} Hz, {seconds} s each, medians of {runs} runs");
    let of = |what: &str, figure: &dyn Fn(&Cost) -> f64| median(all[what].iter().map(figure).collect());
    for (what, words) in [
        ("idle", "one serial line, idle"),
        ("serial 4 s", "serial, commits every 4 s"),
        ("4 s", "Bluetooth, commits every 4 s"),
        ("serial 100 ms", "serial, commits every 100 ms"),
        ("100 ms", "Bluetooth, commits every 100 ms"),
    ] {
        println!(
            "  {words}: {:.1} events/s, cpu {:.2} % of one core, {:.0} us each; PSS {:.2} MiB, RSS {:.2} MiB",
            of(what, &|cost| cost.events / seconds as f64),
            of(what, &|cost| cost.cpu_percent),
            of(what, &|cost| cost.cpu_us_each),
            of(what, &|cost| cost.pss_mib),
            of(what, &|cost| cost.rss_mib),
        );
    }
    for (interval, _) in INTERVALS {
        let at = |share: f64| of(interval, &|cost| quantile(&cost.latencies, share) * 1e3);
        println!(
            "  notification to its row, commits every {interval}: median {:.0} ms, 99 % within {:.1} ms, longest {:.1} ms",
            at(0.5),
            at(0.99),
            at(1.0),
        );
    }
}

/// Serial lines at so many events a second each; without Bluetooth.
fn serial(dir: &Path, lines: usize, hz: f64, commit_interval: &str, seconds: u64) -> Cost {
    let lines: Vec<Line> = (0..lines).map(|_| Line::open()).collect();
    let entry = |(number, line): (usize, &Line)| {
        format!(
            "\n[[device]]\nname = \"band-{number}\"\nprofile = \"serial-vitals-line\"\nserial = {:?}\n\
             user_id = \"6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11\"\n",
            line.port
        )
    };
    let sensors: String = lines.iter().enumerate().map(entry).collect();
    let gateway = Gateway::start(dir, "unix:path=/nonexistent", commit_interval, &sensors);
    let speak = |seconds: u64| {
        let begun = Instant::now();
        let events = (hz * lines.len() as f64 * seconds as f64) as u64;
        for (event, line) in (0..events).zip(lines.iter().cycle()) {
            writeln!(&line.master, "HR:{}", 60 + event % 40).unwrap();
            let due = Duration::from_secs_f64((event + 1) as f64 / hz / lines.len() as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        std::thread::sleep(Duration::from_secs(seconds).saturating_sub(begun.elapsed()));
        events
    };
    speak(10);
    let from = cpu(gateway.pid());
    let events = speak(seconds);
    let cost = Cost::of(gateway.pid(), cpu(gateway.pid()) - from, events, seconds);
    gateway.end();
    cost
}

/// Twenty straps.
fn bluetooth(dir: &Path, commit_interval: &str, seconds: u64) -> Option<Cost> {
    let (bluez, straps) = straps()?;
    let gateway = Gateway::start(dir, &bluez.bus_address(), commit_interval, &entries(&straps));
    let archive = gateway.archive();
    let mut tail = Tail::default();
    let begun = Instant::now();
    let mut flowing = [false; STRAPS as usize];
    while flowing.contains(&false) {
        assert!(begun.elapsed() < SETTLED, "not all straps flow; the log:\n{}", gateway.log());
        tail.more(&archive, |line| flowing[usize::from(counted(line).0) - 1] = true);
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(5));
    tail.more(&archive, |_| {});
    emissions(&bluez, &straps);
    let mut arrived: HashMap<Counted, f64> = HashMap::new();
    let mut look = || {
        std::thread::sleep(Duration::from_millis(1));
        tail.more(&archive, |line| {
            arrived.insert(counted(line), now());
        });
    };
    let (until, from) = (Instant::now() + Duration::from_secs(seconds), cpu(gateway.pid()));
    while Instant::now() < until {
        look();
    }
    let used = cpu(gateway.pid()) - from;
    let emitted = emissions(&bluez, &straps);
    let mut cost = Cost::of(gateway.pid(), used, emitted.len() as u64, seconds);
    // What was emitted last has still to come.
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        look();
    }
    let latency = |(one, at): (&Counted, &f64)| arrived.get(one).map(|arrived| arrived - at);
    cost.latencies = emitted.iter().filter_map(latency).collect();
    assert_eq!(cost.latencies.len(), emitted.len(), "a notification went missing; the log:\n{}", gateway.log());
    cost.latencies.sort_by(f64::total_cmp);
    gateway.end();
    Some(cost)
}

impl Cost {
    fn of(pid: u32, used: Duration, events: u64, seconds: u64) -> Cost {
        let mib = |kib: Option<u64>| kib.unwrap_or(0) as f64 / 1_024.0;
        Cost {
            events: events as f64,
            cpu_percent: used.as_secs_f64() / seconds as f64 * 100.0,
            cpu_us_each: used.as_secs_f64() * 1e6 / events.max(1) as f64,
            pss_mib: mib(pss_kib(pid)),
            rss_mib: mib(rss_kib(pid)),
            latencies: Vec::new(),
        }
    }
}

/// Of sorted values, the smallest that this share does not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted[at.clamp(1, sorted.len()) - 1]
}
