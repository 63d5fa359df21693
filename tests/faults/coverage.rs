//! The account of each device's seconds, through the real binary: four hours in leaps of the injected clock, with every
//! reason that a hub can meet without losing events, a kill -9, a clean stop, and a boot whose clock nobody has set.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::oracle::{leap, now_ms};
use crate::rig::gateway::{Hub, lines_named, wait_for};
use crate::rig::pty::Pty;
use crate::trouble::Clock;

const SOON: Duration = Duration::from_secs(20);
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Between two leaps the machine's time goes on, and a port that was lost is opened again within seconds.
const UNSURE_S: i64 = 15;

/// Device, hour, and what the seconds of it were; what is not named is 0.
type Hour = (&'static str, usize, &'static [(&'static str, i64)]);

const WANTED: [Hour; 8] = [
    // The first reading speaks for 30 s, each later one for three of the device's minutes.
    ("band", 0, &[("hub_off", 600), ("measured", 1_350), ("silent", 570), ("aside", 480), ("out_of_reach", 600)]),
    ("band", 1, &[("out_of_reach", 600), ("measured", 900), ("hub_off", 1_800), ("silent", 300)]),
    ("band", 2, &[("measured", 300), ("hub_off", 600), ("silent", 2_700)]),
    ("band", 3, &[("silent", 2_400), ("hub_off", 300), ("clock_unsure", 900)]),
    ("finger", 0, &[("hub_off", 600), ("measured", 1_170), ("silent", 30), ("not_worn", 1_800)]),
    ("finger", 1, &[("not_worn", 1_230), ("hub_off", 1_800), ("silent", 570)]),
    ("finger", 2, &[("hub_off", 600), ("silent", 3_000)]),
    ("finger", 3, &[("silent", 2_400), ("hub_off", 300), ("clock_unsure", 900)]),
];

/// A packet of the finger's sensor, worn and taken off: two examples of its profile.
const WORN: &str = "01814000c2 018041480a 0180426124 01804330f4 01804400c5 01804500c6 01804600c7 01804700c8 018048612a \
                    018049612b 01804a612c 01804b00cc 01804c00cd 01804d00ce 01804e4817 01804f6131 0180506132 01805100d2 \
                    01805200d3 01805300d4 018054481d 01805500d6 018056481f 01805700d8 01805800d9";
const TAKEN_OFF: &str = "01c1400305 01c0417f81 01c0427f82 01c0433034 01c0440005 01c0450006 01c0460007 01c0470008 \
                         01c0487f88 01c0497f89 01c04a7f8a 01c04b000c 01c04c000d 01c04d0311 01c04e7f8e 01c04f7f8f \
                         01c0507f90 01c0510012 01c0520013 01c0530317 01c0547f94 01c0550319 01c0567f96 01c0570018 \
                         01c0580019";

/// What is wrong with what the hub said; nothing where all is well.
pub(crate) fn judge() -> Vec<String> {
    let lived = std::panic::catch_unwind(|| {
        let mut day = Day::begin();
        day.first_hour();
        day.second_hour();
        day.third_hour();
        day.fourth_hour();
        day.told()
    });
    leap(0);
    match lived {
        Ok((began, told)) => compare(began, &told),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            vec![said.unwrap_or("a panic").to_owned()]
        }
    }
}

/// The newest row of each device and hour.
type Told = BTreeMap<(String, i64), Value>;

fn compare(began: i64, told: &Told) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((device, hour), row) in told {
        let sum: i64 = reasons().map(|reason| row[reason].as_i64().unwrap_or(-1)).sum();
        if sum != 3_600 {
            wrong.push(format!("{device}, hour {}: {sum} s in all: {row}", (hour - began) / HOUR_MS));
        }
    }
    for (device, hour, wanted) in WANTED {
        let Some(row) = told.get(&(device.to_owned(), began + hour as i64 * HOUR_MS)) else {
            wrong.push(format!("{device}, hour {hour}: no row"));
            continue;
        };
        for reason in reasons() {
            let wanted = wanted.iter().find(|(name, _)| *name == reason).map_or(0, |(_, seconds)| *seconds);
            let found = row[reason].as_i64().unwrap_or(-1);
            if found.abs_diff(wanted) > UNSURE_S as u64 {
                wrong.push(format!("{device}, hour {hour}: {found} s {reason}, and it were {wanted}"));
            }
        }
    }
    if told.len() != WANTED.len() {
        wrong.push(format!("{} hours were told of, and there were {}", told.len(), WANTED.len()));
    }
    wrong
}

fn reasons() -> impl Iterator<Item = &'static str> {
    biogate::coverage::Second::ALL.into_iter().map(biogate::coverage::Second::name)
}

/// The hub, its two devices, and the time.
struct Day {
    hub: Hub,
    clock: Clock,
    band: Option<Pty>,
    finger: Pty,
    /// The first hour's beginning.
    began: i64,
}

impl Day {
    /// Nothing runs yet; it is ten past.
    fn begin() -> Day {
        let mut hub = Hub::new("");
        let dir = hub.dir.path().to_owned();
        let text = format!(
            "[store]\ncommit_interval = \"20 ms\"\nmin_free = \"1 MiB\"\n\
             [[device]]\nname = \"band\"\nprofile = \"serial-vitals-line\"\nserial = {:?}\n\
             [[device]]\nname = \"finger\"\nprofile = \"nonin-oem3\"\nserial = {:?}\n\
             [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {:?}\n",
            dir.join("band"),
            dir.join("finger"),
            dir.join("archive"),
        );
        let head = std::fs::read_to_string(hub.config()).expect("the configuration");
        std::fs::write(hub.config(), head + &text).expect("writing the configuration");
        let clock = Clock::at(dir.join("clock"));
        hub.env("FAILPOINTS", &format!("clock=return({});coverage.every_ms=return(100)", dir.join("clock").display()));
        let (band, finger) = (Some(Pty::plug(&dir.join("band"))), Pty::plug(&dir.join("finger")));
        let began = (now_ms() / HOUR_MS + 1) * HOUR_MS;
        let mut day = Day { hub, clock, band, finger, began };
        day.at(10.0);
        day
    }

    fn first_hour(&mut self) {
        self.start();
        for minute in 10..=30 {
            self.at(f64::from(minute));
            self.band_says("HR:72\n");
            self.finger_says(if minute < 30 { WORN } else { TAKEN_OFF });
        }
        for minute in 40..=45 {
            self.at(f64::from(minute));
            self.band_says("HR:x\n");
        }
        self.at(50.0);
        self.settle();
        self.band = None;
        wait_for(SOON, || (self.seconds("band")["out_of_reach"].as_i64() > Some(0)).then_some(()))
            .expect("it is out of reach");
    }

    fn second_hour(&mut self) {
        self.at(70.0);
        self.settle();
        self.band = Some(Pty::plug(&self.hub.dir.path().join("band")));
        for minute in 70..=80 {
            self.at(f64::from(minute));
            self.band_says("HR:72\n");
        }
        self.at(80.5);
        self.settle();
        self.hub.kill();
        self.at(110.5);
        self.start();
        for minute in 115..=120 {
            self.at(f64::from(minute));
            self.band_says("HR:72\n");
        }
    }

    fn third_hour(&mut self) {
        self.at(122.0);
        self.band_says("HR:72\n");
        self.at(125.0);
        self.settle();
        assert_eq!(self.hub.stop(), 0, "{}", self.hub.log());
        self.at(135.0);
        self.start();
    }

    fn fourth_hour(&mut self) {
        self.at(190.0);
        self.settle();
        self.hub.kill();
        self.clock.boot(&mut fastrand::Rng::with_seed(1));
        // Right by chance: nobody vouches for it.
        self.clock.wrong_ms = 0;
        self.at(195.0);
        self.start();
        // Past the time for which the hub waits for its clock.
        self.at(210.0);
        self.settle();
        self.clock.sync();
        self.at(241.0);
        self.settle();
    }

    /// What arrived.
    fn told(mut self) -> (i64, Told) {
        let archive = self.hub.dir.path().join("archive");
        let told = || {
            let mut told = Told::new();
            for row in lines_named(&archive, "coverage-") {
                let key = (row["device_id"].as_str()?.to_owned(), row["hour"].as_i64()?);
                if told.get(&key).is_none_or(|than| row["version"].as_i64() > than["version"].as_i64()) {
                    told.insert(key, row);
                }
            }
            Some(told)
        };
        let all = wait_for(SOON, || told().filter(|told| told.len() >= WANTED.len()));
        let running = self.hub.stat().expect("a stat of the running hub")["coverage"].clone();
        assert_eq!(self.hub.stop(), 0, "{}", self.hub.log());
        let at_rest = self.hub.stat().expect("a stat of the store at rest")["coverage"].clone();
        for (device, reason) in [("band", "out_of_reach"), ("finger", "not_worn")] {
            let (told, kept) = (&running[device][reason], &at_rest[device][reason]);
            assert!(told.as_i64() > Some(0) && told == kept, "{device} {reason}: {told}, and at rest {kept}");
        }
        (self.began, all.or_else(told).unwrap_or_default())
    }

    /// Leaps to this minute of the day.
    fn at(&mut self, minute: f64) {
        let then = self.began + (minute * MINUTE_MS as f64) as i64;
        let machine = now_ms() - self.clock.ahead_ms;
        self.clock.ahead_ms = self.clock.ahead_ms.max(then - machine);
        self.clock.tell();
        leap(self.clock.ahead_ms);
    }

    fn start(&mut self) {
        self.hub.start();
        wait_for(SOON, || self.status().map(drop)).unwrap_or_else(|| panic!("it does not run: {}", self.hub.log()));
    }

    fn status(&self) -> Option<Value> {
        let (code, out, _) = self.hub.output(&["status", "--json"]);
        (code == 0).then(|| serde_json::from_str(&out).ok())?
    }

    /// What the running hub says of a device's last day.
    fn seconds(&self, device: &str) -> Value {
        let status = self.status().unwrap_or_default();
        let of = status["devices"].as_array().and_then(|all| all.iter().find(|of| of["name"] == device).cloned());
        of.unwrap_or_default()["last_day_s"].clone()
    }

    /// Until the account has come to now.
    fn settle(&self) {
        let ledger = || {
            let seconds = self.seconds("finger");
            let sum: i64 = seconds.as_object()?.values().filter_map(Value::as_i64).sum();
            Some((seconds, sum))
        };
        // It begins when the hub first ran.
        let wanted = (now_ms() - self.began) / 1_000 - 600;
        let settled = wait_for(SOON, || ledger().filter(|(_, sum)| (sum - wanted).abs() <= UNSURE_S));
        assert!(settled.is_some(), "{wanted} s after the start: {:?}: {}", ledger(), self.hub.log());
    }

    fn band_says(&mut self, line: &str) {
        let heard = self.heard();
        let band = self.band.as_mut().expect("a band that is plugged in");
        band.send(line.as_bytes());
        if wait_for(Duration::from_secs(1), || (self.heard() > heard).then_some(())).is_none() {
            // The first bytes after an open may be those of a line that began before.
            self.band_says(line);
        }
    }

    fn finger_says(&mut self, packet: &str) {
        let digits: Vec<u8> = packet.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Vec<u8> = digits.chunks(2).filter_map(byte).collect();
        let heard = self.heard();
        self.finger.send(&bytes);
        wait_for(SOON, || (self.heard() > heard).then_some(())).expect("a packet of the finger's sensor");
    }

    /// Readings that the hub has accepted.
    fn heard(&self) -> u64 {
        let accepted = |stat: Value| stat["ledger"]["intake"]["accepted"].as_u64();
        self.hub.stat().and_then(accepted).unwrap_or(0)
    }
}
