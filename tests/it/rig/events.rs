//! Observations, ranges and batches to send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use biogate::clock::Anchors;
use biogate::forward::rows::Batch;
use biogate::observation::{EventType, Observation, Value};
use biogate::reading::{BootId, Heard, RunId};
use biogate::resolve::{Basis, Timeline, Unassigned};
use biogate::store::{Chunk, Range};
use uuid::Uuid;

/// Yesterday, in whole seconds: the table's TTL drops what is older than a year as it comes in.
pub(crate) fn yesterday_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    (now - 86_400) * 1_000
}

/// A run of its own for each test, so that event ids differ.
pub(crate) fn run() -> RunId {
    RunId(Uuid::new_v4())
}

/// A heart rate of `value`, heard at this Unix time.
pub(crate) fn heart_rate(reading: u64, value: f64, at_ms: u64) -> Observation {
    Observation {
        reading,
        index: 0,
        device: "strap-anna".into(),
        profile: "bluetooth-heart-rate/1".into(),
        event_type: EventType::HeartRate,
        component: "".into(),
        value,
        heard: Heard { boot: BootId::WALL, ms: at_ms },
        device_time: None,
        since: None,
        identity: None,
        metadata: vec![("contact".into(), Value::Text("detected".into()))],
    }
}

/// `count` heart rates of 60 and more, a second apart.
pub(crate) fn heart_rates(count: u64) -> Vec<Observation> {
    let start_ms = yesterday_ms();
    (0..count).map(|n| heart_rate(n, 60.0 + (n % 100) as f64, start_ms + n * 1_000)).collect()
}

/// The same of four devices in turn, the first of them at this number, so that several calls go on where one ended.
pub(crate) fn ward(first: u64, count: u64) -> Vec<Observation> {
    let start_ms = yesterday_ms();
    let of = |n: u64| {
        let mut observation = heart_rate(n, 60.0 + (n % 100) as f64, start_ms + n * 1_000);
        observation.device = format!("strap-{}", n % 4).as_str().into();
        observation
    };
    (first..first + count).map(of).collect()
}

/// A timeline with one basis, number 1.
pub(crate) fn timeline(unassigned: Unassigned) -> Arc<Timeline> {
    let basis = Basis {
        gateway_id: "hub-0042".into(),
        timezone: "Europe/Berlin".to_owned(),
        location: Some("ward-3".into()),
        unassigned,
        assignments: Vec::new(),
    };
    Arc::new(Timeline { anchors: Anchors::new(0), bases: BTreeMap::from([(1, basis)]) })
}

/// A batch of these observations in chunks of 100, beginning at sequence 1.
pub(crate) fn batch(run: RunId, observations: &[Observation], resumed: bool) -> Batch {
    let range = Range { first: 1, last: observations.len() as u64, anchors: 0, basis: 1 };
    Batch::new("test".into(), range, resumed, chunks(run, observations), timeline(Unassigned::Forward))
}

/// As the store would read them back.
pub(crate) fn chunks(run: RunId, observations: &[Observation]) -> Vec<Chunk> {
    let chunk = |(nth, part): (usize, &[Observation])| {
        let (first, observations) = (nth as u64 * 100 + 1, part.to_vec());
        Chunk { run, first, only_for: None, observations }
    };
    observations.chunks(100).enumerate().map(chunk).collect()
}
