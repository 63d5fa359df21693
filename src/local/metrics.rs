//! `/metrics`: the condition as Prometheus reads it. `docs/metrics.md` names every metric; a test compares the two.
//!
//! How many series there are is bounded, whatever devices come: counts are kept by kind of source and by destination,
//! and by device only for the first [`MOST_DEVICES`] that were seen. The rest is one series, `other`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::condition::{Condition, Destination, Seen};
use super::exposition::{Exposition, Family};
use crate::forward::health::{Snapshot as Delivering, State};
use crate::source::health::{Kind, Snapshot};

/// What an answer says of itself.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How many devices, brokers and radios have series of their own.
pub const MOST_DEVICES: usize = 64;

/// The label of all others together. No device has this name: it is no name that an entry may have.
const OTHER: &str = "(other)";

/// Who has series of its own: the first that were seen, so that a device's series does not end when another one comes.
#[derive(Debug, Default)]
pub struct Named(Mutex<BTreeSet<Arc<str>>>);

impl Named {
    /// Takes in who is new while there is room, and returns all that have series of their own.
    fn of(&self, sources: &[Seen]) -> BTreeSet<Arc<str>> {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for seen in sources {
            if named.len() >= MOST_DEVICES {
                break;
            }
            named.insert(seen.source.name.clone());
        }
        named.clone()
    }
}

/// The whole text.
pub fn render(condition: &Condition, named: &Named) -> String {
    let mut text = Exposition::default();
    gateway(&mut text, condition);
    intake(&mut text, condition);
    store(&mut text, condition);
    destinations(&mut text, &condition.destinations);
    sources(&mut text, condition);
    devices(&mut text, &condition.sources, &named.of(&condition.sources));
    text.into_text()
}

fn gateway(text: &mut Exposition, condition: &Condition) {
    static BUILD: Family = Family::gauge("biogate_build_info", "1, with the version and the hub's name as labels.");
    static UPTIME: Family = Family::gauge("biogate_uptime_seconds", "Since this process started.");
    static READY: Family = Family::gauge("biogate_ready", "1 while data move end to end, as /readyz says it.");
    static OFFLINE: Family = Family::gauge("biogate_offline", "1 while the configuration says that nothing is sent.");
    static SYNC: Family =
        Family::gauge("biogate_clock_synchronised", "1 once the clock was synchronised in this boot.");
    static HELD: Family = Family::gauge("biogate_clock_holding", "1 while events wait for the clock.");
    let name = condition.gateway.as_deref().unwrap_or("");
    text.family(&BUILD).sample(&[("version", env!("CARGO_PKG_VERSION")), ("gateway", name)], 1);
    text.single(&UPTIME, condition.uptime_s);
    text.single(&READY, condition.ready().ready);
    text.single(&OFFLINE, condition.offline);
    text.single(&SYNC, condition.synchronised);
    text.single(&HELD, condition.held.is_some());
}

fn intake(text: &mut Exposition, condition: &Condition) {
    static READINGS: Family =
        Family::counter("biogate_readings_total", "Readings by what became of them, since the store was made.");
    static OBSERVATIONS: Family = Family::counter(
        "biogate_observations_total",
        "Observations that readings gave, by what became of them, since the store was made.",
    );
    static FLOODED: Family = Family::counter(
        "biogate_messages_flooded_total",
        "Messages dropped because their device sent too many, since the store was made.",
    );
    static OVERSIZED: Family = Family::counter(
        "biogate_messages_oversized_total",
        "Messages over the limit of size, since the store was made.",
    );
    let tally = &condition.ledger.intake;
    let mut readings = text.family(&READINGS);
    for (outcome, count) in [
        ("decoded", tally.decoded),
        ("without_event", tally.without_event),
        ("refused", tally.refused),
        ("duplicate", tally.duplicate),
    ] {
        readings.sample(&[("outcome", outcome)], count);
    }
    let mut observations = text.family(&OBSERVATIONS);
    observations.sample(&[("outcome", "stored")], tally.stored);
    observations.sample(&[("outcome", "implausible")], tally.implausible);
    text.single(&FLOODED, tally.flooded);
    text.single(&OVERSIZED, tally.oversized);
}

fn store(text: &mut Exposition, condition: &Condition) {
    static HEALTHY: Family = Family::gauge("biogate_store_healthy", "1 while the store takes what comes.");
    static DISK: Family = Family::gauge("biogate_store_disk_bytes", "The queue on disk.");
    static MOST: Family = Family::gauge("biogate_store_max_bytes", "What the queue may have on disk, by setting.");
    static FREE: Family = Family::gauge("biogate_store_free_bytes", "Free on the store's file system.");
    static DAMAGED: Family = Family::gauge("biogate_store_damaged_bytes", "Damaged generations on disk.");
    static GENERATIONS: Family = Family::gauge("biogate_store_generations", "Files that the queue consists of.");
    static OLDEST: Family = Family::gauge(
        "biogate_store_oldest_waiting_age_seconds",
        "How long ago the oldest event that waits for any destination was heard, about; 0 when none waits.",
    );
    static SYNCS: Family = Family::counter("biogate_store_syncs_total", "fdatasyncs since this process started.");
    static ASIDE: Family = Family::gauge("biogate_quarantine_entries", "Readings that are set aside.");
    static ASIDE_BYTES: Family = Family::gauge("biogate_quarantine_bytes", "What is set aside, on disk.");
    static ASIDE_EVICTED: Family = Family::counter(
        "biogate_quarantine_evicted_total",
        "Readings that were set aside and removed to make room, since the store was made.",
    );
    let stat = &condition.store;
    text.single(&HEALTHY, stat.unhealthy.is_none() && condition.failure.is_none());
    text.single(&DISK, stat.disk_bytes);
    text.single(&MOST, stat.max_bytes);
    text.single(&FREE, stat.free_bytes);
    text.single(&DAMAGED, stat.damaged_bytes);
    text.single(&GENERATIONS, stat.generations);
    text.single(&OLDEST, condition.oldest_waiting_s.unwrap_or(0));
    text.single(&SYNCS, stat.syncs);
    text.single(&ASIDE, stat.aside_entries);
    text.single(&ASIDE_BYTES, stat.aside_bytes);
    text.single(&ASIDE_EVICTED, stat.aside_evicted);
}

fn destinations(text: &mut Exposition, all: &[Destination]) {
    static EVENTS: Family = Family::counter(
        "biogate_destination_events_total",
        "Events by what became of them for this destination, since the store was made.",
    );
    static RESENT: Family = Family::counter(
        "biogate_destination_resent_events_total",
        "Events sent more than once, since the store was made.",
    );
    static IN_DOUBT: Family = Family::counter(
        "biogate_destination_in_doubt_resent_events_total",
        "Events delivered by one destination of a failover while another may have them too, since the store was made.",
    );
    static ACTIVE: Family =
        Family::gauge("biogate_failover_active", "1 for the destination of the failover that gets the events.");
    static WAITING: Family = Family::gauge("biogate_destination_waiting_events", "Events that wait for it.");
    static OLDEST: Family = Family::gauge(
        "biogate_destination_oldest_waiting_age_seconds",
        "How long ago the oldest event that waits for it was heard, about; 0 when none waits.",
    );
    static UP: Family =
        Family::gauge("biogate_destination_up", "1 while it takes what it is sent, as far as is known.");
    static TRIES: Family =
        Family::gauge("biogate_destination_failed_tries", "Tries that failed since the last one that did not.");
    static BATCHES: Family =
        Family::counter("biogate_destination_batches_total", "Batches settled since this process started.");
    static BYTES: Family = Family::counter(
        "biogate_destination_sent_bytes_total",
        "Sent or written, after compression, since this process started.",
    );
    static LAST: Family = Family::gauge(
        "biogate_destination_last_delivery_timestamp_seconds",
        "Unix time of the last delivery by the hub's clock; 0 before the first one.",
    );
    let mut events = text.family(&EVENTS);
    for Destination { name, tally, .. } in all {
        for (outcome, count) in [
            ("delivered", tally.delivered),
            ("rejected", tally.rejected),
            ("parked", tally.parked),
            ("evicted", tally.evicted),
            ("damaged", tally.damaged),
            ("before", tally.before),
        ] {
            events.sample(&[("destination", name), ("outcome", outcome)], count);
        }
    }
    let mut each = |family: &'static Family, value: &dyn Fn(&Destination) -> u64| {
        let mut samples = text.family(family);
        for destination in all {
            samples.sample(&[("destination", &destination.name)], value(destination));
        }
    };
    each(&RESENT, &|to| to.tally.resent);
    each(&IN_DOUBT, &|to| to.tally.in_doubt_resent);
    each(&WAITING, &|to| to.tally.waiting);
    each(&OLDEST, &|to| to.oldest_waiting_s.unwrap_or(0));
    each(&UP, &|to| {
        let down = [State::Starting, State::Retrying, State::Stopped];
        // One that stands by is well unless there is a reason why another has its place.
        let stood_down = |health: &Delivering| health.state == State::Standby && health.reason.is_some();
        to.health.as_ref().is_some_and(|health| !down.contains(&health.state) && !stood_down(health)).into()
    });
    each(&TRIES, &|to| to.health.as_ref().map_or(0, |health| health.attempts.into()));
    each(&BATCHES, &|to| to.health.as_ref().map_or(0, |health| health.batches));
    each(&BYTES, &|to| to.health.as_ref().map_or(0, |health| health.bytes));
    let mut last = text.family(&LAST);
    for destination in all {
        let at_ms = destination.health.as_ref().and_then(|health| health.last_delivered_at_ms).unwrap_or(0);
        last.sample(&[("destination", &destination.name)], at_ms as f64 / 1_000.0);
    }
    let mut active = text.family(&ACTIVE);
    for member in all.iter().flat_map(|to| &to.order) {
        active.sample(&[("destination", &member.name)], u64::from(member.active == Some(true)));
    }
}

fn sources(text: &mut Exposition, condition: &Condition) {
    static ENTRIES: Family = Family::gauge("biogate_sources", "Devices, brokers and radios by kind.");
    static TROUBLED: Family =
        Family::gauge("biogate_sources_in_trouble", "Those that are not as they should be, by kind.");
    static FRAMES: Family =
        Family::counter("biogate_source_frames_total", "Whole frames or messages heard since this process started.");
    static GARBAGE: Family = Family::counter(
        "biogate_source_garbage_bytes_total",
        "Bytes skipped to find the start of a frame, since this process started.",
    );
    static FAULTS: Family =
        Family::counter("biogate_source_faults_total", "What went wrong, by kind, since this process started.");
    static EVENTS: Family = Family::counter(
        "biogate_source_events_total",
        "What only some sources count (restarts of a scan, pairings), since this process started.",
    );
    let kinds = [Kind::Bluetooth, Kind::Serial, Kind::Mqtt, Kind::Broker, Kind::Radio, Kind::Other];
    let mut each = |family: &'static Family, value: &dyn Fn(&Snapshot) -> u64| {
        let mut samples = text.family(family);
        for kind in kinds {
            samples.sample(&[("kind", kind.name())], condition.of_kind(kind).map(value).sum::<u64>());
        }
    };
    each(&ENTRIES, &|_| 1);
    each(&TROUBLED, &|source| source.trouble.into());
    each(&FRAMES, &|source| source.frames);
    each(&GARBAGE, &|source| source.garbage_bytes);
    let mut faults = text.family(&FAULTS);
    for kind in kinds {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (fault, count) in condition.of_kind(kind).flat_map(faults_of) {
            *sums.entry(fault).or_default() += count;
        }
        for (fault, count) in sums {
            faults.sample(&[("kind", kind.name()), ("fault", fault)], count);
        }
    }
    let mut events = text.family(&EVENTS);
    for kind in kinds {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (event, count) in condition.of_kind(kind).flat_map(|source| &source.named) {
            *sums.entry(event).or_default() += count;
        }
        for (event, count) in sums {
            events.sample(&[("kind", kind.name()), ("event", event)], count);
        }
    }
}

fn devices(text: &mut Exposition, all: &[Seen], named: &BTreeSet<Arc<str>>) {
    static HEARD: Family = Family::gauge(
        "biogate_device_heard_age_seconds",
        "Since it was last heard; of the others together since any was. Absent before the first time.",
    );
    static FRAMES: Family =
        Family::counter("biogate_device_frames_total", "Whole frames or messages heard since this process started.");
    static FAULTS: Family =
        Family::counter("biogate_device_faults_total", "All that went wrong since this process started.");
    static TROUBLE: Family =
        Family::gauge("biogate_device_trouble", "1 while it is not as it should be; of the others together how many.");
    let (own, others): (Vec<&Seen>, Vec<&Seen>) = all.iter().partition(|seen| named.contains(&seen.source.name));
    let mut each = |family: &'static Family, value: &dyn Fn(&[&Seen]) -> Option<u64>| {
        let mut samples = text.family(family);
        for seen in &own {
            if let Some(value) = value(&[seen]) {
                samples.sample(&[("device", &seen.source.name)], value);
            }
        }
        if let Some(value) = value(&others).filter(|_| !others.is_empty()) {
            samples.sample(&[("device", OTHER)], value);
        }
    };
    each(&HEARD, &|some| some.iter().filter_map(|seen| seen.heard_ago_s).min());
    each(&FRAMES, &|some| Some(some.iter().map(|seen| seen.source.frames).sum()));
    each(&FAULTS, &|some| Some(some.iter().flat_map(|seen| faults_of(&seen.source)).map(|(_, count)| count).sum()));
    each(&TROUBLE, &|some| Some(some.iter().filter(|seen| seen.source.trouble).count() as u64));
}

fn faults_of(source: &Snapshot) -> [(&'static str, u64); 9] {
    [
        ("checksum", source.checksum_failures),
        ("oversized", source.oversized),
        ("flooded", source.flooded),
        ("dropped", source.dropped),
        ("disconnect", source.disconnects),
        ("retained", source.retained),
        ("refused", source.refused),
        ("silence", source.silences),
        ("failed_try", source.failures),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::health::{Count, Health};

    fn sources(health: &Health) -> Vec<Seen> {
        let age = |place: usize| (place > 70).then_some(place as u64);
        let all = health.snapshot().into_iter().enumerate();
        all.map(|(place, source)| Seen { source, heard_ago_s: age(place), last_day_s: None }).collect()
    }

    #[test]
    fn many_devices_make_few_series_and_none_of_them_ends() {
        let health = Health::default();
        for n in 100..200 {
            health.device(&format!("dev-{n}")).count(Count::Frames, 2);
        }
        let named = Named::default();
        let mut condition = Condition { sources: sources(&health), ..Condition::default() };
        let first = render(&condition, &named);
        assert_eq!(first.matches("biogate_device_frames_total{").count(), MOST_DEVICES + 1);
        assert!(first.contains("biogate_device_frames_total{device=\"(other)\"} 72\n"), "{first}");
        assert!(first.contains("biogate_device_heard_age_seconds{device=\"(other)\"} 71\n"), "{first}");
        assert!(first.contains("biogate_source_frames_total{kind=\"other\"} 200\n"), "{first}");
        health.device("a-newcomer").count(Count::Frames, 1);
        condition.sources = sources(&health);
        let then = render(&condition, &named);
        assert!(!then.contains("a-newcomer"), "{then}");
        assert!(then.contains("biogate_device_frames_total{device=\"(other)\"} 73\n"), "{then}");
    }
}
