//! What a seed stands for: one campaign, drawn whole before it begins. Pure.

use std::time::Duration;

use biogate::crash::POINTS;
use fastrand::Rng;

/// Campaigns whose seeds follow each other share the points between them.
const SHARE: u64 = 5;

/// What a campaign does beside killing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Kills, the warehouse's faults, restarts of the broker: every campaign has these.
    Kills,
    /// The store lies on a small disk that is filled, twice.
    FullDisk,
    /// Bytes of the store's files are flipped between runs.
    Damage,
    /// The wall clock is wrong at a boot, jumps in mid-stream, and is set right late.
    Clock,
    /// Hours without any destination while uptime runs fast; then all of it arrives.
    Outage,
}

/// How a run of the gateway ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// kill -9 so long after it was ready.
    Random(Duration),
    /// kill -9 so long after it was started, ready or not.
    Early(Duration),
    /// It dies by itself at the n-th pass of a crash point.
    Point(&'static str, u32),
    /// SIGTERM: a clean stop.
    Stop(Duration),
}

/// What happens to Kafka in a run. All but the lost answers are over when the run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bus {
    /// So many answers to a batch are lost, with their connections.
    LosesAnswers(u32),
    /// So many answers to the end of a transaction.
    LosesEnds(u32),
    /// The way neither answers nor hangs up.
    Holds,
    /// The way is cut.
    Cut,
    /// SIGSTOP, and SIGCONT after the run.
    Paused,
    /// SIGKILL of the leader, and a start in mid-run.
    Killed,
}

/// One run of the gateway, from start to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// A fault of the warehouse's front, for so many inserts after some that go well.
    pub(crate) warehouse: Option<(&'static str, u32, u32)>,
    /// The MQTT broker is restarted in the middle of the run.
    pub(crate) broker: bool,
    pub(crate) bus: Option<Bus>,
    pub(crate) end: End,
}

/// A campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) theme: Theme,
    pub(crate) commit_interval: Duration,
    /// So small that generations are born and die all the time.
    pub(crate) generation_bytes: u64,
    pub(crate) rotate_kib: u64,
    /// Whether messages carry a sequence, by which the profile knows twins. Without one only the packet id tells.
    pub(crate) sequences: bool,
    pub(crate) evicts: bool,
    /// Restarts of the MQTT broker lose all sessions: then an obligation is what the gateway acknowledged.
    pub(crate) forgets: bool,
    /// Kafka by transactions.
    pub(crate) exactly_once: bool,
    /// Rows of a batch into Kafka, mostly so few that one is behind another all the time.
    pub(crate) bus_rows: u64,
    pub(crate) steps: Vec<Step>,
}

/// Faults of the front, see tests/servers/chdb_http.py.
const WAREHOUSE: &[&str] =
    &["503", "429", "500", "drop_before", "drop_after", "delay&ms=400", "too_many_parts", "memory_limit", "read_only"];

impl Plan {
    /// The campaign of this seed.
    pub(crate) fn of(seed: u64) -> Plan {
        let mut random = Rng::with_seed(seed);
        let theme = match seed % 5 {
            0 => Theme::Kills,
            1 => Theme::FullDisk,
            2 => Theme::Damage,
            3 => Theme::Clock,
            _ => Theme::Outage,
        };
        let own = POINTS.iter().enumerate().filter(|(nth, _)| *nth as u64 % SHARE == seed % SHARE);
        let mut ends: Vec<End> = own.map(|(_, point)| End::Point(point, passes(point, &mut random))).collect();
        let commits = |end: &End| matches!(end, End::Point(point, _) if point.starts_with("kafka.commit"));
        let exactly_once = random.bool() || ends.iter().any(commits);
        ends.extend((0..4).map(|_| {
            let others: Vec<_> =
                POINTS.iter().filter(|point| exactly_once || !point.starts_with("kafka.commit")).collect();
            let point = random.choice(others).copied().unwrap_or_default();
            End::Point(point, passes(point, &mut random))
        }));
        ends.extend((0..9).map(|_| End::Random(Duration::from_millis(random.u64(20..2_000)))));
        ends.push(End::Stop(Duration::from_millis(random.u64(100..1_500))));
        random.shuffle(&mut ends);
        // Three opens in a row that do not end would be taken for a hang: one at a time.
        for _ in 0..3 {
            let at = random.usize(0..=ends.len());
            if !matches!(ends.get(at), Some(End::Early(_))) && (at == 0 || !matches!(ends[at - 1], End::Early(_))) {
                ends.insert(at, End::Early(Duration::from_millis(random.u64(1..250))));
            }
        }
        let steps = ends.into_iter().map(|end| Step {
            warehouse: (random.u8(..) < 130).then(|| {
                let kind = random.choice(WAREHOUSE.iter()).copied().unwrap_or("503");
                (kind, random.u32(1..5), random.u32(0..6))
            }),
            broker: random.u8(..) < 24,
            bus: bus(&end, &mut random),
            end,
        });
        Plan {
            seed,
            theme,
            steps: steps.collect(),
            commit_interval: Duration::from_millis(random.u64(10..120)),
            generation_bytes: random.choice([24u64, 48, 96]).unwrap_or(48) << 10,
            rotate_kib: random.u64(8..64),
            sequences: random.bool(),
            evicts: random.bool(),
            forgets: random.u8(..) < 80,
            exactly_once,
            bus_rows: [20, 100, 10_000][(seed % 3) as usize],
        }
    }
}

/// A campaign that dies at these points, early and with a backlog: for those that a run of campaigns has not come by.
pub(crate) fn at_points(seed: u64, points: &[&'static str]) -> Plan {
    let late = Some(("delay&ms=300", 3, 0));
    let steps = points.iter().flat_map(|point| {
        [End::Random(Duration::from_millis(700)), End::Point(point, 0)].map(|end| Step {
            warehouse: late,
            broker: false,
            bus: None,
            end,
        })
    });
    let steps = steps.collect();
    Plan { theme: Theme::Kills, exactly_once: true, generation_bytes: 24 << 10, rotate_kib: 8, steps, ..Plan::of(seed) }
}

/// Kafka's trouble in a run that ends so. A gateway that shall come by a point must not be held up.
fn bus(end: &End, random: &mut Rng) -> Option<Bus> {
    let most = if matches!(end, End::Point(..)) { 60 } else { 130 };
    match random.u8(..) {
        0..30 => Some(Bus::LosesAnswers(random.u32(1..4))),
        30..60 => Some(Bus::LosesEnds(random.u32(1..3))),
        nth if nth >= most => None,
        60..85 => Some(Bus::Holds),
        85..110 => Some(Bus::Cut),
        110..124 => Some(Bus::Paused),
        _ => Some(Bus::Killed),
    }
}

/// After how many passes to die: rare points early, so that a run of some seconds comes by.
fn passes(point: &str, random: &mut Rng) -> u32 {
    let rare =
        ["store.birth", "store.rename", "store.death", "store.range", "file.rename", "clickhouse", "kafka", "forward"];
    let most = if rare.iter().any(|start| point.starts_with(start)) { 2 } else { 40 };
    random.u32(0..most)
}
