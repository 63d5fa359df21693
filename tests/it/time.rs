//! Honest time, with clocks of the test's own: a wall clock that jumps by seconds, days and ten years in both directions
//! and is synchronised sooner, later or never; and devices whose clocks are wrong.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use biogate::clock::Anchors;
use biogate::clock::keeper::{Held, Hold, Keeper, Sample, Settings, Trust};
use biogate::event::{ClockQuality, Event};
use biogate::forward::{self, Forwarder, Gate, Inputs, Kind};
use biogate::interpret::{Catalog, DeviceMemory, EntryBinding, Interpretation, Limits, ProfileSet};
use biogate::observation::{Observation, Value};
use biogate::reading::{BootId, Channel, Heard, Reading, RunId};
use biogate::resolve::{Resolved, Resolver, Timeline, Unassigned};
use biogate::store::{self, Commit, IntakeTally, Store, WhenFull};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use tokio::sync::watch;
use uuid::Uuid;

use crate::rig::events::{heart_rate, timeline};
use crate::rig::gateway::lines_of;

/// How long the hub of these tests waits for its clock.
const HOLD_S: u64 = 60;

/// 2026-11-25, and the floor of a store that was just made: the month's first day.
const TODAY_MS: i64 = 1_795_564_800_000;
const FLOOR_MS: i64 = 1_793_491_200_000;

const DAY_MS: i64 = 86_400_000;

/// What happens to the wall clock in one boot.
#[derive(Debug, Clone)]
struct Plan {
    length_s: u64,
    /// How wrong the wall clock is when the boot begins.
    wrong_ms: i64,
    /// When it is first synchronised.
    sync_s: Option<u64>,
    /// When somebody sets it, by how much; ten seconds later it is synchronised again, if it ever was.
    jumps: Vec<(u64, i64)>,
}

fn any_jump() -> impl Strategy<Value = i64> {
    let size = prop_oneof![500i64..30_000, DAY_MS..40 * DAY_MS, Just(3_653 * DAY_MS)];
    (size, any::<bool>()).prop_map(|(size, back)| if back { -size } else { size })
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let jumps = prop::collection::vec((1u64..200, any_jump()), 0..4);
    (30u64..200, any_jump(), prop::option::weighted(0.7, 0u64..150), jumps)
        .prop_map(|(length_s, wrong_ms, sync_s, jumps)| Plan { length_s, wrong_ms, sync_s, jumps })
}

/// One boot: what the kernel says each second, and what the hub makes of it.
struct Boot {
    id: BootId,
    plan: Plan,
    /// Unix time at uptime 0.
    began_ms: i64,
    wrong_ms: i64,
    synchronised: bool,
    keeper: Keeper,
}

impl Boot {
    fn new(number: u128, plan: Plan, began_ms: i64, anchors: &Anchors) -> Boot {
        let settings = Settings { trust: Trust::Kernel, max_hold: Hold::AtMost(Duration::from_secs(HOLD_S)) };
        let id = BootId(Uuid::from_u128(number));
        let keeper = Keeper::new(settings, id, 0, anchors);
        Boot { id, wrong_ms: plan.wrong_ms, plan, began_ms, synchronised: false, keeper }
    }

    fn truth_ms(&self, uptime_ms: u64) -> i64 {
        self.began_ms + uptime_ms as i64
    }

    /// Whether the clock was first synchronised within the hold.
    fn syncs_in_time(&self) -> bool {
        self.plan.sync_s.is_some_and(|at| at < HOLD_S && at < self.plan.length_s)
    }

    /// One second passes; an anchor may come of it. The kernel wakes the hub at a step, else it looks every five seconds,
    /// and every second while it waits.
    fn second(&mut self, second: u64, anchors: &mut Anchors) -> Held {
        let mut stepped = second == 0;
        for (at, jump) in &self.plan.jumps {
            if *at == second {
                // settimeofday(2) says of itself that the clock is no longer synchronised.
                (self.wrong_ms, self.synchronised, stepped) = (self.wrong_ms + jump, false, true);
            }
        }
        let first = self.plan.sync_s.filter(|first| *first <= second);
        let again = self.plan.jumps.iter().any(|(at, _)| at + 10 == second);
        if first == Some(second) || (first.is_some() && again) {
            (self.wrong_ms, self.synchronised, stepped) = (second as i64 % 40, true, true);
        }
        let uptime_ms = second * 1_000;
        let waits = self.keeper.held(uptime_ms) != Held::No;
        if stepped || waits || second.is_multiple_of(5) {
            let wall_ms = self.truth_ms(uptime_ms) + self.wrong_ms;
            let sample = Sample { uptime_ms, wall_ms, synchronised: self.synchronised };
            if let Some(anchor) = self.keeper.observe(sample) {
                anchors.append(anchor);
            }
            if let Some(floor_ms) = self.keeper.floor(sample) {
                anchors.raise_floor(floor_ms);
            }
        }
        self.keeper.held(uptime_ms)
    }
}

fn began_at(number: usize) -> i64 {
    TODAY_MS + number as i64 * DAY_MS / 2
}

fn event(timeline: &Timeline, version: u64, observation: Observation) -> Event {
    let resolver = Resolver::new(&timeline.anchors, version, &timeline.bases[&1]);
    match resolver.resolve(RunId(Uuid::nil()), observation) {
        Resolved::Event(event) => event,
        Resolved::Parked(observation) => panic!("parked: {observation:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Pure: readings each second, rendered as soon as the hub may, over several boots.
    #[test]
    fn times_are_true_whenever_a_sync_came_within_the_hold(plans in prop::collection::vec(any_plan(), 1..4)) {
        let mut anchors = Anchors::new(FLOOR_MS);
        let mut waiting: Vec<(Heard, i64, bool)> = Vec::new();
        let mut sent = Vec::new();
        for (number, plan) in plans.into_iter().enumerate() {
            let mut boot = Boot::new(number as u128 + 1, plan, began_at(number), &anchors);
            let floor_ms = anchors.floor_ms();
            for second in 0..boot.plan.length_s {
                let held = boot.second(second, &mut anchors);
                let heard = Heard { boot: boot.id, ms: second * 1_000 + 137 };
                waiting.push((heard, boot.truth_ms(heard.ms), boot.syncs_in_time()));
                if held != Held::No {
                    continue;
                }
                for (heard, truth_ms, in_time) in waiting.drain(..) {
                    let version = anchors.version();
                    let (unix_ms, clock) = anchors.unix_ms(version, heard);
                    sent.push((heard, version, unix_ms, clock));
                    let error_ms = unix_ms.abs_diff(truth_ms);
                    if in_time {
                        prop_assert_eq!(clock, ClockQuality::Synced);
                    }
                    match clock {
                        ClockQuality::Synced => prop_assert!(error_ms <= 1_000, "{} ms off: {:?}", error_ms, heard),
                        _ if heard.boot == boot.id => prop_assert!(unix_ms >= floor_ms, "below the floor: {:?}", heard),
                        _ => {}
                    }
                }
            }
        }
        for (heard, version, unix_ms, clock) in sent {
            prop_assert_eq!(anchors.unix_ms(version, heard), (unix_ms, clock), "a retry renders another time");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// The same with a real store and a real file destination, which stop and start with each boot.
    #[test]
    fn clock_jumps_lose_double_and_reorder_nothing(plans in prop::collection::vec(any_plan(), 2..4)) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let made = runtime.block_on(run_through(folder.path(), plans));
        let rows = lines_of(&folder.path().join("out"));
        let numbers: Vec<u64> = rows.iter().map(|row| row["value"].as_f64().unwrap() as u64).collect();
        prop_assert_eq!(numbers, (0..made.len() as u64).collect::<Vec<_>>(), "lost, doubled or out of order");
        let ids: HashSet<&str> = rows.iter().map(|row| row["event_id"].as_str().unwrap()).collect();
        prop_assert_eq!(ids.len(), rows.len());
        for (row, (truth_ms, in_time)) in rows.iter().zip(made) {
            let error_ms = row["timestamp"].as_i64().unwrap().abs_diff(truth_ms);
            if in_time {
                prop_assert_eq!(&row["clock"], "synced");
            }
            prop_assert!(row["clock"] == "estimated" || error_ms <= 1_000, "{} is {} ms off", row, error_ms);
        }
    }
}

/// Lives through the boots; returns each reading's true time, and whether its boot was synchronised in time.
async fn run_through(folder: &Path, plans: Vec<Plan>) -> Vec<(i64, bool)> {
    let mut anchors = Anchors::new(FLOOR_MS);
    let mut made = Vec::new();
    let boots = plans.len();
    for (number, plan) in plans.into_iter().enumerate() {
        let mut boot = Boot::new(number as u128 + 1, plan, began_at(number), &anchors);
        let hub = Running::start(folder, boot.id);
        let mut collected = Vec::new();
        let mut open = false;
        for second in 0..boot.plan.length_s {
            open = boot.second(second, &mut anchors) == Held::No;
            hub.timeline.send_modify(|known| {
                let bases = known.bases.clone();
                *known = Arc::new(Timeline { anchors: anchors.clone(), bases });
            });
            hub.gate.send_replace(if open { Gate::Open } else { Gate::Held("the clock".into()) });
            let heard = Heard { boot: boot.id, ms: second * 1_000 + 137 };
            collected.push(Observation { heard, ..heart_rate(second, made.len() as f64, 0) });
            made.push((boot.truth_ms(heard.ms), boot.syncs_in_time()));
            if second % 7 == 6 || second + 1 == boot.plan.length_s {
                hub.commit(std::mem::take(&mut collected)).await;
            }
            if open && second % 31 == 30 {
                hub.drained().await;
            }
        }
        if number + 1 == boots {
            hub.gate.send_replace(Gate::Open);
            hub.drained().await;
        } else if open {
            // What is in hand at the end of a boot goes on in the next one.
            tokio::task::yield_now().await;
        }
        hub.stop().await;
    }
    made
}

/// A store and the loop of a file destination, for one boot.
struct Running {
    store: Store,
    timeline: watch::Sender<Arc<Timeline>>,
    gate: watch::Sender<Gate>,
    stop: watch::Sender<Option<tokio::time::Instant>>,
    task: tokio::task::JoinHandle<Result<(), store::Error>>,
}

impl Running {
    fn start(folder: &Path, boot: BootId) -> Running {
        let settings = store::Settings {
            dir: folder.join("store"),
            max_bytes: 64 << 20,
            aside_max_bytes: 8 << 20,
            min_free: 0,
            max_age: Duration::from_secs(86_400),
            when_full: WhenFull::EvictOldest,
            key_file: None,
            generation_bytes: 4 << 20,
        };
        let store = Store::open(&settings, RunId::random(), boot, &["out".to_owned()]).unwrap();
        let (timeline, timeline_seen) = watch::channel(timeline(Unassigned::Forward));
        let (gate, gate_seen) = watch::channel(Gate::Held("the clock".into()));
        let (stop, stop_seen) = watch::channel(None);
        let inputs = Inputs { gate: gate_seen, timeline: timeline_seen, stop: stop_seen };
        let kind = Kind::File(forward::file::Settings::new(folder.join("out")));
        let settings = forward::Settings { name: "out".to_owned(), kind };
        let forwarder = Forwarder::new(&settings, store.clone(), inputs, 1).unwrap();
        Running { store, timeline, gate, stop, task: tokio::spawn(forwarder.run()) }
    }

    async fn commit(&self, observations: Vec<Observation>) {
        let count = observations.len() as u64;
        let intake =
            IntakeTally { accepted: count, decoded: count, made: count, stored: count, ..IntakeTally::default() };
        self.store.commit(Commit { observations, intake, ..Commit::default() }).await.unwrap();
    }

    async fn drained(&self) {
        crate::rig::until("every event is in a file", || self.store.ledger().destinations[0].1.waiting == 0).await;
    }

    async fn stop(self) {
        self.stop.send_replace(Some(tokio::time::Instant::now() + Duration::from_secs(5)));
        tokio::time::timeout(crate::rig::DEADLINE, self.task).await.unwrap().unwrap().unwrap();
        self.store.close().await.unwrap();
    }
}

/// A cuff with a clock of its own, and the hub that reads it.
struct Cuff {
    catalog: Catalog,
    memory: DeviceMemory,
    /// What its clock shows, less Unix time.
    ahead_ms: i64,
    /// Unix time at uptime 0.
    began_ms: i64,
}

const BOOT: BootId = BootId(Uuid::from_u128(77));
const ZONE: &str = "Europe/Berlin";

impl Cuff {
    fn new(ahead_ms: i64) -> Cuff {
        let set = ProfileSet::builtin().unwrap();
        let profile = "bluetooth-blood-pressure".to_owned();
        let binding = EntryBinding { entry: "entry".into(), profile, component: None, key: None };
        let catalog = Catalog::new(&set, vec![binding], Limits::default()).unwrap();
        Cuff { catalog, memory: DeviceMemory::default(), ahead_ms, began_ms: TODAY_MS }
    }

    fn hears(&mut self, channel: &str, bytes: &[u8], ms: u64) -> Interpretation {
        let (channel, heard) = (Channel::Gatt(channel.into()), Heard { boot: BOOT, ms });
        let bytes = bytes.to_vec().into();
        let reading = Reading { device: "cuff".into(), entry: "entry".into(), channel, bytes, heard };
        self.catalog.interpret(&reading, ms, &mut self.memory)
    }

    /// What its clock shows at this Unix time, to the whole second, in the bytes of a date_time.
    fn shows(&self, unix_ms: i64) -> Vec<u8> {
        let shown = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(unix_ms + self.ahead_ms).unwrap());
        let mut bytes = shown.year().to_le_bytes().to_vec();
        bytes.extend([shown.month(), shown.day(), shown.hour(), shown.minute(), shown.second()].map(|part| part as u8));
        bytes
    }

    /// The hub reads its clock.
    fn tells_the_time(&mut self, ms: u64) {
        let now = self.shows(self.began_ms + ms as i64);
        let said = self.hears("2a2b", &[&now[..], &[1, 0, 0]].concat(), ms);
        assert!(said.faults.is_empty(), "{:?}", said.faults);
    }

    /// The hub sets its clock.
    fn is_set(&mut self, ms: u64) {
        let zone = TimeZone::get(ZONE).unwrap();
        let now = Timestamp::from_millisecond(self.began_ms + ms as i64).unwrap();
        self.ahead_ms = i64::from(zone.to_offset(now).seconds()) * 1_000;
        self.memory.set_clock_checked(true);
    }

    /// A measurement that it shows the time of.
    fn record(&self, unix_ms: i64) -> Vec<u8> {
        [&[0x02, 0x79, 0, 0x4f, 0, 0x5d, 0][..], &self.shows(unix_ms)].concat()
    }

    /// The event of a measurement that comes at this uptime.
    fn sends(&mut self, record: &[u8], ms: u64, anchors: &Anchors) -> Event {
        let observation = self.hears("2a35", record, ms).observations.remove(0);
        let known = timeline(Unassigned::Forward);
        let timeline = Timeline { anchors: anchors.clone(), bases: known.bases.clone() };
        event(&timeline, anchors.version(), observation)
    }
}

fn synchronised(began_ms: i64) -> Anchors {
    let mut anchors = Anchors::new(FLOOR_MS);
    anchors.append(biogate::clock::Anchor { boot: BOOT, from_ms: 0, offset_ms: began_ms, synced: true });
    anchors
}

fn metadata(event: &Event, name: &str) -> Option<i64> {
    let found = event.metadata.iter().find(|(key, _)| **key == *name)?;
    match found.1 {
        Value::Int(number) => Some(number),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_cuff_whose_clock_is_wrong_gives_true_times(
        ahead_ms in prop_oneof![-3_600_000i64..3_600_000, any_jump(), any_jump()],
        ages_s in prop::collection::vec(1i64..2_000_000, 1..6),
        linked_ms in 1_000u64..500_000,
        reads_late_ms in 0u64..5_000,
        is_set in any::<bool>(),
    ) {
        let mut cuff = Cuff::new(ahead_ms);
        let anchors = synchronised(cuff.began_ms);
        let truth = |ms: u64| TODAY_MS + ms as i64;
        let old: Vec<(i64, Vec<u8>)> = ages_s.iter().map(|age_s| {
            let made_ms = truth(linked_ms) - age_s * 1_000 - 321;
            (made_ms, cuff.record(made_ms))
        }).collect();
        cuff.tells_the_time(linked_ms);
        let before = cuff.ahead_ms;
        let now_ms = linked_ms + reads_late_ms + 1_000;
        if is_set {
            cuff.is_set(linked_ms + 200);
            cuff.tells_the_time(linked_ms + 400);
            // A record that shows a time after the setting cannot be told from one that was made after it.
            let set_ms = truth(linked_ms) + cuff.ahead_ms - 4_000;
            let looks_new = |made_ms: &i64| (set_ms..=set_ms + 15_000).contains(&(made_ms + before));
            prop_assume!(!old.iter().any(|(made_ms, _)| looks_new(made_ms)));
        }
        for (made_ms, record) in &old {
            let event = cuff.sends(record, now_ms, &anchors);
            let error_ms = event.timestamp.abs_diff(*made_ms);
            match event.clock {
                // Told in whole seconds; and what was measured before a setting by less than two seconds, which nobody notices,
                // shows the time of the clock before it.
                ClockQuality::Device => prop_assert!(error_ms <= 3_000, "{} ms off by its own clock", error_ms),
                clock => {
                    prop_assert_eq!(clock, ClockQuality::Synced);
                    prop_assert!(error_ms <= 1_000, "{} ms off", error_ms);
                    prop_assert!(metadata(&event, "device_clock_ahead_ms").is_some());
                }
            }
        }
        let record = cuff.record(truth(now_ms));
        let live = cuff.sends(&record, now_ms + 300, &anchors);
        prop_assert!(live.timestamp.abs_diff(truth(now_ms)) <= 1_000, "live: {} ms off", live.timestamp - truth(now_ms));
    }
}

#[test]
fn a_hub_that_does_not_know_the_time_believes_the_device_and_corrects_only_what_cannot_be_true() {
    let unsynchronised = || {
        let mut anchors = Anchors::new(FLOOR_MS);
        let anchor = biogate::clock::Anchor { boot: BOOT, from_ms: 0, offset_ms: TODAY_MS, synced: false };
        anchors.append(anchor);
        anchors
    };
    let berlin = 3_600_000;
    let mut right = Cuff::new(berlin);
    let record = right.record(TODAY_MS - 7_200_000);
    right.tells_the_time(10_000);
    let event = right.sends(&record, 11_000, &unsynchronised());
    assert_eq!((event.timestamp, event.clock), (TODAY_MS - 7_200_000, ClockQuality::Device));
    let mut lost = Cuff::new(-40 * 365 * DAY_MS);
    let record = lost.record(TODAY_MS - 7_200_000);
    lost.tells_the_time(10_000);
    let event = lost.sends(&record, 11_000, &unsynchronised());
    assert_eq!((event.timestamp, event.clock), (TODAY_MS - 7_200_000, ClockQuality::Estimated));
    assert_eq!(metadata(&event, "device_clock_ahead_ms"), Some(-40 * 365 * DAY_MS - berlin));
    assert_eq!(metadata(&event, "device_time_refused"), None);
}

#[test]
fn a_record_of_a_clock_that_is_right_has_the_same_time_whenever_it_comes() {
    let anchors = synchronised(TODAY_MS);
    let mut cuff = Cuff::new(3_600_000);
    let record = cuff.record(TODAY_MS - 7_200_000);
    for linked_ms in [10_000, 50_400, 99_900] {
        // A reading that is not known any more: its event replaces the first one only with the same time.
        cuff.memory = DeviceMemory::default();
        cuff.tells_the_time(linked_ms);
        let event = cuff.sends(&record, linked_ms + 500, &anchors);
        assert_eq!((event.timestamp, event.clock), (TODAY_MS - 7_200_000, ClockQuality::Device));
    }
}

#[test]
fn the_correction_leaves_event_ids_as_they_were() {
    let anchors = synchronised(TODAY_MS);
    let id = |tells: bool| {
        let mut cuff = Cuff::new(5 * DAY_MS);
        cuff.memory.set_clock_checked(true);
        let record = cuff.record(TODAY_MS - DAY_MS);
        if tells {
            cuff.tells_the_time(10_000);
        }
        let event = cuff.sends(&record, 11_000, &anchors);
        (event.event_id, event.clock)
    };
    let (plain, counted) = (id(false), id(true));
    assert_eq!(plain.0, counted.0);
    // Five days ahead is more than a hub believes, so that without the count the time of hearing would stand.
    assert_eq!(counted.1, ClockQuality::Synced);
}

#[test]
fn a_clock_that_was_never_set_tells_no_time() {
    let mut cuff = Cuff::new(0);
    let said = cuff.hears("2a2b", &[0; 10], 10_000);
    assert!(said.faults.is_empty() && said.observations.is_empty());
    let record = cuff.record(TODAY_MS - DAY_MS);
    let event = cuff.sends(&record, 11_000, &synchronised(TODAY_MS));
    assert_eq!(event.clock, ClockQuality::Device);
}
