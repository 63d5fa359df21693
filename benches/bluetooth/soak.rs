//! Twenty straps and everything that goes wrong with them, for as long as is asked; at the end each value that was
//! emitted while somebody listened must have arrived once, and neither memory nor connections may have grown.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use dbus::blocking::Connection;
use dbus::channel::Channel;
use serde_json::{Value, json};

use crate::fake::bluez::Bluez;
use crate::fake::bluez_words::SilentUntil;
use crate::rig::{Arguments, median, pss_kib, rss_kib};
use crate::room::{Counted, Gateway, counted, each_line, emissions, entries, now, straps};

/// The store commits so often by default; what was not committed is lost by a SIGKILL.
const COMMIT: f64 = 4.0;

/// A commit of a busy machine, and the moment until the bus has noticed that the gateway is gone.
const LATE: f64 = 1.0;

/// Nothing more goes wrong in the last seconds, so that everything can arrive.
const CALM: Duration = Duration::from_secs(75);

/// Memory is compared between the first and the last minutes of the last gateway's life.
const COMPARED: Duration = Duration::from_secs(300);

/// A gateway that has just started still takes what it needs.
const WARM: Duration = Duration::from_secs(60);

/// How many readings that are missing for no good reason are told one by one.
const TOLD: usize = 20;

struct Sample {
    at: Duration,
    rss_mib: f64,
    pss_mib: f64,
    files: usize,
    connections: usize,
}

struct Soak {
    bluez: Bluez,
    straps: Vec<String>,
    gateway: Gateway,
    bus: Connection,
    begun: Instant,
    random: fastrand::Rng,
    /// What ends later: at this moment, this command.
    later: Vec<(Instant, Value)>,
    /// Time and words of each fault.
    faults: Vec<(f64, String)>,
    kills: Vec<f64>,
    emitted: HashMap<Counted, f64>,
    /// Of the running gateway.
    samples: Vec<Sample>,
    /// What `status` counted: of gateways that were killed, and of the running one.
    counts: BTreeMap<String, u64>,
    counting: BTreeMap<String, u64>,
    addresses: u64,
}

pub(crate) fn run(arguments: &Arguments) {
    let length = Duration::from_secs(arguments.number("--seconds", 3_600));
    let dir = arguments.folder();
    let Some((bluez, straps)) = straps() else { return };
    let gateway = Gateway::start(&dir.path().join("hub"), &bluez.bus_address(), "4 s", &entries(&straps));
    emissions(&bluez, &straps);
    let mut channel = Channel::open_private(&bluez.bus_address()).unwrap();
    channel.register().unwrap();
    let mut soak = Soak {
        bluez,
        straps,
        gateway,
        bus: channel.into(),
        begun: Instant::now(),
        random: fastrand::Rng::with_seed(7),
        later: Vec::new(),
        faults: Vec::new(),
        kills: Vec::new(),
        emitted: HashMap::new(),
        samples: Vec::new(),
        counts: BTreeMap::new(),
        counting: BTreeMap::new(),
        addresses: 0,
    };
    soak.live(length);
    soak.report();
}

impl Soak {
    fn live(&mut self, length: Duration) {
        let calm = length.saturating_sub(CALM).as_secs();
        // Early, so that the last gateway lives long enough for its memory to be compared.
        let kills = [calm / 6, calm / 3];
        for second in 0..length.as_secs() {
            let due = self.begun + Duration::from_secs(second);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.end_faults(second == calm);
            if kills.contains(&second) && second > 0 {
                self.kill();
            } else if second > 20 && second < calm {
                self.misfortune(second);
            }
            if second % 10 == 9 {
                self.look();
            }
            if second % 60 == 59 {
                self.emitted.extend(emissions(&self.bluez, &self.straps));
                println!("{} min: {} values, {} faults", second / 60 + 1, self.emitted.len(), self.faults.len());
            }
        }
        for strap in &self.straps {
            self.bluez.falls_silent(strap);
        }
        std::thread::sleep(Duration::from_secs_f64(COMMIT + 6.0));
        self.emitted.extend(emissions(&self.bluez, &self.straps));
    }

    /// What goes wrong in this second.
    fn misfortune(&mut self, second: u64) {
        match second {
            _ if second % 180 == 100 => {
                self.note("bluetoothd restarts".to_owned());
                self.bluez.bluetoothd_vanishes();
                self.after(1..5, json!({"do": "return"}));
            }
            _ if second % 300 == 200 => {
                self.note("the adapter is unplugged".to_owned());
                self.bluez.remove_adapter("hci0");
                self.after(5..15, json!({"do": "add_adapter"}));
            }
            _ if second % 240 == 170 => {
                self.note("the adapter falls silent".to_owned());
                self.bluez.adapter_falls_silent("hci0", SilentUntil::NextScan);
                self.fault_of_a_strap();
            }
            _ if second % 120 == 60 => {
                self.note("500 rotating addresses".to_owned());
                let rotate = json!({"do": "rotate", "adapter": "hci0", "count": 500, "per_second": 50,
                    "serial": self.addresses});
                self.bluez.tell(rotate);
                self.addresses += 500;
            }
            // An adapter that is away, or a bluetoothd, has nothing that could go wrong.
            _ if self.later.iter().any(|(_, command)| command.get("address").is_none()) => {}
            _ if self.random.u8(0..5) == 0 => self.fault_of_a_strap(),
            _ => {}
        }
    }

    fn fault_of_a_strap(&mut self) {
        let strap = self.random.usize(0..self.straps.len());
        let (number, address) = (strap + 1, self.straps[strap].clone());
        if self.later.iter().any(|(_, command)| command["address"] == json!(address)) {
            return;
        }
        let what = match self.random.u8(0..20) {
            0..8 => {
                self.bluez.drop_link(&address);
                "loses its link"
            }
            8..12 => {
                self.bluez.falls_silent(&address);
                self.after(5..45, json!({"do": "set_device", "address": address, "muted": false}));
                "falls silent"
            }
            12..16 => {
                self.bluez.leaves(&address);
                self.after(5..25, json!({"do": "set_device", "address": address, "absent": false}));
                "leaves"
            }
            16..19 => {
                self.bluez.connect_fails(&address, 2);
                self.bluez.drop_link(&address);
                "loses its link and refuses two"
            }
            _ => {
                self.bluez.becomes_phantom(&address);
                // Should the gateway not heal it, this does.
                self.after(90..91, json!({"do": "set_device", "address": address, "phantom": false}));
                "becomes a phantom"
            }
        };
        self.note(format!("strap {number} {what}"));
    }

    /// Some seconds from now.
    fn after(&mut self, seconds: Range<u64>, command: Value) {
        let seconds = self.random.u64(seconds);
        self.later.push((Instant::now() + Duration::from_secs(seconds), command));
    }

    fn end_faults(&mut self, all: bool) {
        let due = |at: &Instant| all || *at <= Instant::now();
        let ending: Vec<Value> = self.later.extract_if(.., |(at, _)| due(at)).map(|(_, command)| command).collect();
        ending.into_iter().for_each(|command| drop(self.bluez.tell(command)));
        if all {
            self.bluez.clear_faults();
        }
    }

    fn note(&mut self, words: String) {
        self.faults.push((now(), words));
    }

    /// SIGKILL, and a new one.
    fn kill(&mut self) {
        self.look();
        for (name, count) in std::mem::take(&mut self.counting) {
            *self.counts.entry(name).or_default() += count;
        }
        self.note("the gateway is killed".to_owned());
        self.kills.push(now());
        self.gateway.kill();
        self.gateway.begin();
        self.samples.clear();
    }

    fn look(&mut self) {
        let pid = self.gateway.pid();
        let mib = |kib: Option<u64>| kib.unwrap_or(0) as f64 / 1_024.0;
        self.samples.push(Sample {
            at: self.begun.elapsed(),
            rss_mib: mib(rss_kib(pid)),
            pss_mib: mib(pss_kib(pid)),
            files: std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
            connections: self.connections(pid),
        });
        if let Some(status) = self.gateway.status() {
            self.counting = counts(&status);
        }
    }

    /// How many connections to the bus this process has.
    fn connections(&self, pid: u32) -> usize {
        let bus = self.bus.with_proxy("org.freedesktop.DBus", "/org/freedesktop/DBus", Duration::from_secs(5));
        let (names,): (Vec<String>,) = bus.method_call("org.freedesktop.DBus", "ListNames", ()).unwrap();
        let of = |name: &&String| -> bool {
            let owner: Result<(u32,), dbus::Error> =
                bus.method_call("org.freedesktop.DBus", "GetConnectionUnixProcessID", (name.as_str(),));
            owner.is_ok_and(|(owner,)| owner == pid)
        };
        names.iter().filter(|name| name.starts_with(':')).filter(of).count()
    }

    fn report(mut self) {
        self.look();
        let mut arrived: HashMap<Counted, u32> = HashMap::new();
        each_line(&self.gateway.archive(), |line| *arrived.entry(counted(line)).or_default() += 1);
        let twice = arrived.values().filter(|count| **count > 1).count();
        let unknown = arrived.keys().filter(|one| !self.emitted.contains_key(*one)).count();
        let mut missing: Vec<(f64, Counted)> =
            self.emitted.iter().filter(|(one, _)| !arrived.contains_key(*one)).map(|(one, at)| (*at, *one)).collect();
        missing.sort_by(|a, b| a.0.total_cmp(&b.0));
        let killed = |at: f64| self.kills.iter().any(|kill| (kill - COMMIT - LATE..kill + LATE).contains(&at));
        let (in_flight, lost): (Vec<_>, Vec<_>) = missing.iter().partition(|(at, _)| killed(*at));
        println!(
            "soak, {:.0} s: {} values emitted to a listener, {} arrived once, {twice} twice, {unknown} from nowhere; \
             missing: {} in flight at {} SIGKILLs, {} for no reason",
            self.begun.elapsed().as_secs_f64(),
            self.emitted.len(),
            arrived.values().filter(|count| **count == 1).count(),
            in_flight.len(),
            self.kills.len(),
            lost.len()
        );
        for (at, (strap, counter)) in lost.iter().take(TOLD) {
            let before = self.faults.iter().rev().find(|(fault, words)| {
                fault <= at && (!words.starts_with("strap") || words.starts_with(&format!("strap {strap} ")))
            });
            let before = before.map_or(String::new(), |(fault, words)| format!("{:.3} s after: {words}", at - fault));
            println!("  missing: strap {strap}, number {counter}; {before}");
        }
        self.memory();
        let mut faults: BTreeMap<&str, u32> = BTreeMap::new();
        for (_, words) in &self.faults {
            let kind = words
                .split_once(char::is_numeric)
                .map_or(&**words, |(_, rest)| rest.trim_start_matches(char::is_numeric).trim());
            *faults.entry(kind).or_default() += 1;
        }
        println!("  faults: {faults:?}");
        for (name, count) in std::mem::take(&mut self.counting) {
            *self.counts.entry(name).or_default() += count;
        }
        println!("  counted by the gateways: {:?}", self.counts);
        let state = self.bluez.state();
        let linked = state.devices.values().filter(|device| device.linked).count();
        println!(
            "  at the end: {linked} of {} straps linked; the bus's faults: {:?}",
            self.straps.len(),
            self.bluez.log()
        );
        self.gateway.end();
        assert!(twice == 0 && unknown == 0 && lost.is_empty(), "not each value once");
    }

    /// The first minutes of the last gateway's life against its last ones.
    fn memory(&self) {
        let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) else { return };
        let (from, to) = (first.at + WARM, last.at.saturating_sub(COMPARED));
        let early: Vec<&Sample> = self.samples.iter().filter(|one| (from..from + COMPARED).contains(&one.at)).collect();
        let late: Vec<&Sample> = self.samples.iter().filter(|one| one.at >= to).collect();
        if early.is_empty() {
            return println!("  too short to compare memory");
        }
        let of =
            |samples: &[&Sample], figure: fn(&Sample) -> f64| median(samples.iter().map(|one| figure(one)).collect());
        println!(
            "  the last gateway, {:.0} s, first 5 min (after one) against last 5 min, medians: RSS {:.2} and {:.2} MiB, \
             PSS {:.2} and {:.2} MiB, open files {} and {}, D-Bus connections {} and {}",
            (last.at - first.at).as_secs_f64(),
            of(&early, |one| one.rss_mib),
            of(&late, |one| one.rss_mib),
            of(&early, |one| one.pss_mib),
            of(&late, |one| one.pss_mib),
            of(&early, |one| one.files as f64),
            of(&late, |one| one.files as f64),
            of(&early, |one| one.connections as f64),
            of(&late, |one| one.connections as f64),
        );
    }
}

/// What `status` counts of the radio, and of all straps together.
fn counts(status: &Value) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for one in status["devices"].as_array().into_iter().flatten() {
        let name = one["name"].as_str().unwrap_or_default();
        let whose = if name.starts_with("strap-") { "straps" } else { name };
        let mut add = |key: &str, count: &Value| match count.as_u64() {
            Some(count) if count > 0 => *counts.entry(format!("{whose}.{key}")).or_default() += count,
            _ => {}
        };
        for (key, count) in one.as_object().into_iter().flatten() {
            add(key, count);
        }
        for (key, count) in one["named"].as_object().into_iter().flatten() {
            add(key, count);
        }
    }
    counts
}
