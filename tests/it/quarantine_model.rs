//! What comes back has the ids that it would have had: arbitrary frames, read by a wrong profile and again by the fixed
//! one, against the fixed one from the start.

use std::collections::BTreeMap;

use biogate::clock::Anchors;
use biogate::event::event_id;
use biogate::interpret::{Catalog, DeviceMemory, EntryBinding, Interpretation, Limits, ProfileSet};
use biogate::observation::{EventType, Observation};
use biogate::quarantine::{Again, Rereader};
use biogate::reading::{BootId, Channel, Heard, Reading, RunId};
use biogate::store::{AsideEntry, AsideKind};
use proptest::prelude::*;
use uuid::Uuid;

const RUN: RunId = RunId(Uuid::from_u128(77));

/// A line profile; `needs` is the part that it refuses a frame without.
fn profile(needs: &str, counter_first: bool) -> ProfileSet {
    let optional = |part: &str| if needs == part { "" } else { ", optional = true" };
    let steps = r#"{ event = "steps", value = "steps", counter = { wraps_at = 65536 } }"#;
    let others = r#"{ event = "heart_rate", value = "heart_rate" }, { event = "temperature", value = "temperature", component = "body" }"#;
    let emit = if counter_first { format!("{steps}, {others}") } else { format!("{others}, {steps}") };
    let (heart_rate, temperature, battery) = (optional("HR"), optional("T"), optional("BAT"));
    let text = format!(
        r#"
schema = 1
id = "line"
version = 1
title = "a line"
source = "made up"
match = {{ serial = true }}
link = {{ baud = 9600 }}
frame = {{ line = "\n", max = 120 }}
[[channel]]
name = "frame"
format = {{ pairs = ",", equals = ":" }}
fields = [
  {{ name = "heart_rate", at = "HR", type = "decimal", unit = "/min"{heart_rate} }},
  {{ name = "temperature", at = "T", type = "decimal", unit = "Cel"{temperature} }},
  {{ name = "battery", at = "BAT", type = "decimal"{battery} }},
  {{ name = "steps", at = "S", type = "decimal", unit = "{{steps}}", optional = true }},
]
emit = [{emit}]
examples = [
  {{ text = "HR:72,T:36.6,BAT:3", events = [{{ heart_rate = 72 }}, {{ temperature = 36.6 }}] }},
  {{ text = "hello", refuse = "nothing known" }},
]
"#
    );
    let mut set = ProfileSet::empty();
    set.add("line.toml", &text).unwrap_or_else(|why| panic!("{why}"));
    set
}

fn catalog(profiles: &ProfileSet, limits: Limits) -> Catalog {
    let binding = EntryBinding { entry: "band".into(), profile: "line".into(), component: None, key: None };
    Catalog::new(profiles, vec![binding], limits).unwrap()
}

#[derive(Debug, Clone)]
struct Frame {
    heart_rate: Option<u16>,
    temperature: Option<u16>,
    steps: Option<u16>,
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let part = |range: std::ops::Range<u16>| prop::option::weighted(0.7, range);
    let frame = (part(15..330), part(200..460), part(0..700));
    let frame = frame.prop_map(|(heart_rate, temperature, steps)| Frame { heart_rate, temperature, steps });
    // A frame of nothing is refused by any profile.
    let frame = frame.prop_filter("empty", |frame| {
        frame.heart_rate.is_some() || frame.temperature.is_some() || frame.steps.is_some()
    });
    prop::collection::vec(frame, 1..30)
}

/// The readings of these frames, a second apart; steps are a running total.
fn readings(frames: &[Frame]) -> Vec<Reading> {
    let mut total = 0u32;
    let mut reading = |(number, frame): (usize, &Frame)| {
        let mut parts = vec!["X:1".to_owned()];
        parts.extend(frame.heart_rate.map(|rate| format!("HR:{rate}")));
        parts.extend(frame.temperature.map(|tenths| format!("T:{}.{}", tenths / 10, tenths % 10)));
        parts.extend(frame.steps.map(|more| {
            total += u32::from(more);
            format!("S:{total}")
        }));
        Reading {
            device: "band".into(),
            entry: "band".into(),
            channel: Channel::Frame,
            bytes: parts.join(",").into_bytes().into(),
            heard: Heard { boot: BootId::WALL, ms: 1_795_000_000_000 + number as u64 * 1_000 },
        }
    };
    frames.iter().enumerate().map(&mut reading).collect()
}

type Rows = BTreeMap<Uuid, (EventType, u64)>;

fn rows(observations: &[Observation]) -> Rows {
    observations.iter().map(|found| (event_id(RUN, found), (found.event_type, found.value.to_bits()))).collect()
}

fn entry(kind: AsideKind, reading: &Reading, number: u64, before: &DeviceMemory) -> AsideEntry {
    AsideEntry {
        kind,
        reason: "battery: there is no \"BAT\"".to_owned(),
        device: reading.device.clone(),
        entry: reading.entry.clone(),
        channel: reading.channel.clone(),
        profile: "line/1".into(),
        run: RUN,
        reading: number,
        heard: reading.heard,
        bytes: reading.bytes.to_vec(),
        destination: None,
        which: None,
        counters: before.counters(),
        resets: before.resets(),
    }
}

/// What a live device gives: its rows, and the entries that are set aside.
fn live(catalog: &Catalog, readings: &[Reading]) -> (Rows, Vec<AsideEntry>) {
    let (mut memory, mut stored, mut aside) = (DeviceMemory::default(), Rows::new(), Vec::new());
    for (number, reading) in readings.iter().enumerate() {
        let number = number as u64;
        let before = DeviceMemory::from_state(&memory.to_state());
        let Interpretation { observations, implausible, faults, .. } = catalog.interpret(reading, number, &mut memory);
        if observations.is_empty() && implausible.is_empty() && !faults.is_empty() {
            aside.push(entry(AsideKind::Refused, reading, number, &before));
            continue;
        }
        stored.extend(rows(&observations));
        aside.extend(implausible.iter().map(|(found, _)| AsideEntry {
            which: Some((found.index, found.event_type)),
            ..entry(AsideKind::Implausible, reading, number, &before)
        }));
    }
    (stored, aside)
}

/// What comes back of the entries, read in groups: between two of them the process is killed and only what is stored
/// of the memory is left.
fn replayed(catalog: &Catalog, aside: &[AsideEntry], group: usize) -> Vec<(AsideEntry, Rows)> {
    let anchors = Anchors::new(0);
    let mut earlier: Option<Vec<u8>> = None;
    let mut back = Vec::new();
    for entries in aside.chunks(group) {
        let kept = earlier.clone();
        let stored = move |_: &str| (None, kept.clone());
        let mut reread = Rereader::new(catalog, &anchors, &stored);
        for entry in entries {
            let observations = match reread.read(entry) {
                Again::Read { observations, implausible } => {
                    assert_eq!(implausible, []);
                    observations
                }
                Again::WithoutEvent => Vec::new(),
                other => panic!("{entry:?}: {other:?}"),
            };
            back.push((entry.clone(), rows(&observations)));
        }
        if let Some((_, state)) = reread.take_changed().pop() {
            earlier = Some(state);
        }
    }
    back
}

fn wide() -> Limits {
    let all = EventType::ALL.into_iter().map(|kind| ((kind, None), (-1e9, 1e9)));
    Limits(all.collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_fixed_profile_gives_the_ids_that_it_would_have_given_from_the_start(
        frames in frames(),
        needs in prop::sample::select(vec!["BAT", "T", "HR"]),
        counter_first in any::<bool>(),
        group in 1..9usize,
    ) {
        let readings = readings(&frames);
        let (wrong, fixed) = (profile(needs, counter_first), profile("none", counter_first));
        let (wrong, fixed) = (catalog(&wrong, wide()), catalog(&fixed, wide()));
        let mut memory = DeviceMemory::default();
        let from_the_start: Vec<(u64, Rows)> = readings.iter().enumerate().map(|(number, reading)| {
            (number as u64, rows(&fixed.interpret(reading, number as u64, &mut memory).observations))
        }).collect();
        let all: Rows = from_the_start.iter().flat_map(|(_, rows)| rows.clone()).collect();
        let (stored, aside) = live(&wrong, &readings);
        let steps = |rows: &Rows| rows.values().filter(|(kind, _)| *kind == EventType::Steps)
            .map(|(_, bits)| f64::from_bits(*bits)).sum::<f64>();
        let mut total = steps(&stored);
        for (entry, rows) in replayed(&fixed, &aside, group) {
            let mut wanted = from_the_start[entry.reading as usize].1.clone();
            if !entry.counters.is_empty() {
                // The next good reading brought these steps already.
                wanted.retain(|_, (kind, _)| *kind != EventType::Steps);
            }
            total += steps(&rows);
            prop_assert_eq!(rows, wanted, "{:?}", entry);
        }
        prop_assert!(total <= steps(&all), "steps are counted twice: {} of {}", total, steps(&all));
    }

    #[test]
    fn wider_limits_give_the_rest_of_each_reading_and_nothing_twice(
        frames in frames(),
        counter_first in any::<bool>(),
        group in 1..9usize,
    ) {
        let readings = readings(&frames);
        let profile = profile("none", counter_first);
        let narrow = Limits(BTreeMap::from([((EventType::Steps, None), (0.0, 300.0))]));
        let (narrow, wide) = (catalog(&profile, narrow), catalog(&profile, wide()));
        let (all, none) = live(&wide, &readings);
        prop_assert_eq!(none.len(), 0);
        let (mut rows, aside) = live(&narrow, &readings);
        for (entry, back) in replayed(&wide, &aside, group) {
            prop_assert_eq!(back.len(), 1, "{:?}", entry);
            for (id, row) in back {
                prop_assert!(rows.insert(id, row).is_none(), "stored already: {:?}", entry);
            }
        }
        prop_assert_eq!(rows, all);
    }
}

#[test]
fn an_old_frame_that_was_sent_once_more_stays_out() {
    let catalog = catalog(&profile("none", false), wide());
    let reading = &readings(&[Frame { heart_rate: Some(70), temperature: None, steps: None }])[0];
    let mut entry = entry(AsideKind::Refused, reading, 1, &DeviceMemory::default());
    let (anchors, stored) = (Anchors::new(0), |_: &str| (None, None));
    let mut reread = Rereader::new(&catalog, &anchors, &stored);
    assert!(matches!(reread.read(&entry), Again::Read { observations, .. } if observations.len() == 1));
    entry.reason = "replay: its counter is 7 and was 9 before: an old frame is sent again".to_owned();
    assert!(matches!(reread.read(&entry), Again::Still(_)));
}

#[test]
fn entries_read_out_of_their_order_count_no_step_twice() {
    let catalog = catalog(&profile("none", false), wide());
    let frame = |steps| Frame { heart_rate: None, temperature: None, steps: Some(steps) };
    let readings = readings(&[frame(100), frame(10), frame(20), frame(30)]);
    let entries: Vec<AsideEntry> = readings
        .iter()
        .enumerate()
        .map(|(number, reading)| entry(AsideKind::Refused, reading, number as u64, &DeviceMemory::default()))
        .collect();
    let (anchors, stored) = (Anchors::new(0), |_: &str| (None, None));
    let mut reread = Rereader::new(&catalog, &anchors, &stored);
    let mut steps = 0.0;
    for number in [2, 3, 0, 1] {
        if let Again::Read { observations, .. } = reread.read(&entries[number]) {
            steps += observations.iter().map(|found: &Observation| found.value).sum::<f64>();
        }
    }
    assert_eq!(steps, 30.0, "the last two count among themselves, the first two not once more");
}
