//! The far end: what arrived, compared with what was said.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::oracle::{Said, number_of};
use crate::rig::clickhouse::Engine;

/// How far a timestamp may be from the truth, and how long after a start and before an end that is not judged from above:
/// what was said while nobody listened is heard later.
const HONEST_MS: i64 = 1_000;
/// What was said before a boot may be heard in it.
const HEARD_LATER_MS: i64 = 20_000;
/// So many counts at the ends of a device's readings may come without a reading.
const TORN: f64 = 3.0;
/// So many findings of one kind are told in full.
const TOLD: usize = 5;

/// One reading at the far end.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    device: String,
    number: u32,
    event_id: String,
    timestamp: i64,
    synced: bool,
}

/// What one destination holds.
pub(crate) struct FarEnd {
    pub(crate) name: &'static str,
    /// Of the kind that carries the number; in order of arrival where the destination has one.
    pub(crate) readings: Vec<Arrived>,
    /// All events.
    pub(crate) events: u64,
    /// Sums of the counters' increments by device.
    pub(crate) steps: BTreeMap<String, f64>,
    pub(crate) ordered: bool,
    /// Events that came again where the promise is once by event_id; only the first of each is judged.
    pub(crate) repeated: u64,
    seen: Option<HashSet<String>>,
}

/// What may be missing and how times are judged.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// Spans (truth, ms) in which the gateway listened all the time.
    pub(crate) listening: Vec<(i64, i64)>,
    /// Readings that the ledger says were damaged or evicted before they left for this destination.
    pub(crate) excused: u64,
    /// Spans of boots that were never synchronised: what was heard in them may be marked as estimated.
    pub(crate) unsynced: Vec<(i64, i64)>,
}

/// What was found, in numbers and in words.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) readings: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    pub(crate) mistimed: u64,
    pub(crate) estimated: u64,
    pub(crate) said: Vec<String>,
}

impl FarEnd {
    /// Every raw row of the campaign's database: what ClickHouse would merge away counts.
    pub(crate) fn warehouse(engine: &Engine, by_event_id: bool) -> FarEnd {
        let text = engine.sql(
            "SELECT device_id, event_type, value, toUnixTimestamp64Milli(timestamp), clock, event_id \
             FROM biometric_events FORMAT TSV",
        );
        let mut far = FarEnd { ordered: false, ..FarEnd::empty("warehouse", by_event_id) };
        for line in text.lines() {
            let mut cells = line.split('\t');
            let mut cell = || cells.next().unwrap_or_default();
            let (device, event_type, value, timestamp, clock) = (cell(), cell(), cell(), cell(), cell());
            let (value, timestamp): (f64, i64) = (value.parse().expect("a value"), timestamp.parse().expect("a time"));
            far.take(&json!({
                "device_id": device, "event_type": event_type, "value": value, "timestamp": timestamp, "clock": clock,
                "event_id": cell(),
            }));
        }
        far
    }

    /// Every line of the files, in the order in which they were written.
    pub(crate) fn files(dir: &Path, by_event_id: bool) -> FarEnd {
        let mut far = FarEnd::empty("archive", by_event_id);
        for file in in_order(dir) {
            let text = std::fs::read_to_string(&file).expect("reading an archive file");
            for line in text.lines() {
                far.take(&serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")));
            }
        }
        far
    }

    /// Nothing yet, of a destination that keeps an order. `by_event_id`: only the first of each event is judged.
    pub(crate) fn empty(name: &'static str, by_event_id: bool) -> FarEnd {
        let seen = by_event_id.then(HashSet::new);
        FarEnd { name, readings: Vec::new(), events: 0, steps: BTreeMap::new(), ordered: true, repeated: 0, seen }
    }

    /// Where a counter's increments do not add up to what the device counted from its first to its last reading here.
    pub(crate) fn miscounted(&self) -> Option<String> {
        let wrong = self.steps.iter().find(|(device, sum)| {
            let numbers = || self.readings.iter().filter(|reading| reading.device == **device).map(|r| r.number);
            let spanned = numbers().max().unwrap_or(0) - numbers().min().unwrap_or(0);
            // A line torn at its head still says its count.
            (*sum - f64::from(spanned)).abs() > TORN
        });
        wrong
            .map(|(device, sum)| format!("{}: {device}: increments of {sum} in all do not fit its readings", self.name))
    }

    /// One event in its JSON form.
    pub(crate) fn take(&mut self, event: &Value) {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        if self.seen.as_mut().is_some_and(|seen| !seen.insert(text("event_id"))) {
            self.repeated += 1;
            return;
        }
        self.events += 1;
        let value = event["value"].as_f64().expect("a value");
        match event["event_type"].as_str() {
            Some("heart_rate") => self.readings.push(Arrived {
                device: text("device_id"),
                number: number_of(value),
                event_id: text("event_id"),
                timestamp: event["timestamp"].as_i64().expect("a time"),
                synced: event["clock"] == "synced",
            }),
            Some("steps") => *self.steps.entry(text("device_id")).or_default() += value,
            _ => {}
        }
    }

    /// Judges it against what was said. `must` says whether a reading that was said is an obligation.
    pub(crate) fn judge(&self, said: &Said, terms: &Terms, must: impl Fn(&str, u32) -> bool) -> Verdict {
        let mut verdict = Verdict { readings: self.readings.len() as u64, ..Verdict::default() };
        let mut arrived: BTreeMap<&str, Vec<&Arrived>> = BTreeMap::new();
        self.readings.iter().for_each(|reading| arrived.entry(&reading.device).or_default().push(reading));
        let mut ids = BTreeSet::new();
        let repeated = self.readings.iter().filter(|reading| !ids.insert(&reading.event_id)).count();
        if repeated > 0 {
            verdict.tell(&format!("{}: {repeated} rows with an event_id that is there already", self.name));
        }
        for (device, times) in said {
            let empty = Vec::new();
            let of_device = arrived.get(device.as_str()).unwrap_or(&empty);
            self.judge_device(device, times, of_device, &must, &mut verdict);
            of_device.iter().for_each(|reading| judge_time(self.name, reading, times, terms, &mut verdict));
        }
        if let Some(stranger) = self.readings.iter().find(|reading| !said.contains_key(&reading.device)) {
            verdict.tell(&format!("{}: {stranger:?} was never said", self.name));
        }
        if verdict.lost > terms.excused {
            verdict
                .tell(&format!("{}: {} lost, of which {} are accounted for", self.name, verdict.lost, terms.excused));
        } else {
            verdict.lost = 0;
        }
        verdict
    }

    fn judge_device(
        &self,
        device: &str,
        times: &[i64],
        arrived: &[&Arrived],
        must: &impl Fn(&str, u32) -> bool,
        verdict: &mut Verdict,
    ) {
        let mut seen = vec![0u32; times.len() + 1];
        for reading in arrived {
            match seen.get_mut(reading.number as usize) {
                Some(count) if reading.number > 0 => *count += 1,
                Some(_) | None => verdict.tell(&format!("{}: {reading:?} was never said", self.name)),
            }
        }
        let missing: Vec<u32> =
            (1..=times.len() as u32).filter(|number| seen[*number as usize] == 0 && must(device, *number)).collect();
        let doubled: Vec<u32> = (1..=times.len() as u32).filter(|number| seen[*number as usize] > 1).collect();
        let mut sorted = arrived.to_vec();
        if !self.ordered {
            // Rows have no order but their times', and an estimate orders nothing.
            sorted.retain(|reading| reading.synced);
            sorted.sort_by_key(|reading| (reading.timestamp, reading.number));
        }
        let reordered = sorted.windows(2).filter(|pair| pair[0].number > pair[1].number).count();
        for (what, numbers) in [("lost", &missing), ("doubled", &doubled)] {
            if !numbers.is_empty() {
                let some = &numbers[..numbers.len().min(TOLD)];
                verdict.note(&format!("{}: {device}: {} {what}: {some:?}", self.name, numbers.len()));
            }
        }
        if reordered > 0 {
            verdict.note(&format!("{}: {device}: {reordered} out of order", self.name));
        }
        verdict.lost += missing.len() as u64;
        verdict.doubled += doubled.len() as u64;
        verdict.reordered += reordered as u64;
    }
}

/// No reading is older than the moment it was said; one that was said while the gateway listened is no younger either.
fn judge_time(name: &str, reading: &Arrived, times: &[i64], terms: &Terms, verdict: &mut Verdict) {
    let Some(said) = (reading.number as usize).checked_sub(1).and_then(|nth| times.get(nth)) else { return };
    if !reading.synced && terms.unsynced.iter().any(|(from, to)| *said > from - HEARD_LATER_MS && said <= to) {
        verdict.estimated += 1;
        return;
    }
    let listening = terms.listening.iter().any(|(from, to)| *said > from + HONEST_MS && *said < to - HONEST_MS);
    let off = reading.timestamp - said;
    if !reading.synced || off < -HONEST_MS || (listening && off > HONEST_MS) {
        verdict.mistimed += 1;
        if verdict.mistimed <= TOLD as u64 {
            verdict.note(&format!("{name}: {reading:?} is {off} ms from the truth"));
        }
    }
}

impl Verdict {
    /// A finding that is counted too.
    fn note(&mut self, finding: &str) {
        self.said.push(finding.to_owned());
    }

    /// A finding that stands for itself.
    fn tell(&mut self, finding: &str) {
        self.said.push(format!("! {finding}"));
    }

    /// Whether anything is wrong.
    pub(crate) fn is_bad(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.mistimed > 0
            || self.said.iter().any(|said| said.starts_with('!'))
    }
}

/// The files by the second and the number in their names: `events-YYYYMMDDTHHMMSSZ-N.ndjson[.part]`.
fn in_order(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>());
    let mut files: Vec<((String, u32), PathBuf)> = entries
        .unwrap_or_default()
        .into_iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_prefix("events-")?.split('.').next()?.to_owned();
            let (second, nth) = name.split_once('-')?;
            Some(((second.to_owned(), nth.parse().ok()?), path))
        })
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}
