//! The real binary is killed while it delivers into a real Kafka: plain, at most the batch in hand comes again, with the
//! same ids; with `exactly_once` a reader of committed records sees each event once.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use crate::rig::gateway::{Hub, wait_for};
use crate::rig::kafka::{Isolation, Kafka, Record, assert_once_in_order};
use crate::rig::kafka_relay::{Relay, Request};

/// Frames, one event each: some batches' worth.
const EVENTS: u64 = 60_000;
/// Events in the first batch of a process and the one behind it, and one chunk more of each.
const MOST_IN_HAND: usize = 25_000;

const SOON: Duration = Duration::from_secs(20);

/// A hub with all events in its store and a Kafka that is out of reach.
fn full_hub(kafka: &Kafka, relay: &Relay, topic: &str, way: &str) -> Hub {
    let hub = Hub::new("");
    let cursors = if way.is_empty() { String::new() } else { format!("cursor_topic = {:?}\n", kafka.topic(1)) };
    let text = std::fs::read_to_string(hub.config()).unwrap();
    let name = format!("hub-{}", uuid::Uuid::new_v4().simple());
    let rest = format!(
        "[clock]\ntrust = \"always\"\n[store]\nmin_free = \"1 MiB\"\n\
         [[device]]\nname = \"band\"\nprofile = \"serial-vitals-line\"\nserial = \"/dev/null\"\n\
         [[destination]]\nname = \"bus\"\nkind = \"kafka\"\nbrokers = [{:?}]\ntopic = {topic:?}\n{way}{cursors}",
        relay.address
    );
    // What is in the files is durable, so they tell when the store has all: `replay` can be asked nothing.
    let archive = hub.dir.path().join("archive");
    let rest = format!("{rest}[[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n");
    std::fs::write(hub.config(), text.replace("hub-test", &name) + &rest).unwrap();
    let recording = hub.dir.path().join("recording.ndjson");
    let frame = |n: u64| {
        let hex: String = format!("HR:{}", 60 + n % 40).bytes().map(|byte| format!("{byte:02x}")).collect();
        let t = 1_763_900_000_000 + n * 1_000;
        format!("{{\"t\":{t},\"device\":\"band\",\"channel\":\"frame\",\"hex\":\"{hex}\"}}\n")
    };
    std::fs::write(&recording, (0..EVENTS).map(frame).collect::<String>()).unwrap();
    relay.cut();
    let mut replay = hub.command(&["replay", recording.to_str().unwrap(), "--full-speed"]);
    let mut replay = replay.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let stored = || (whole_lines(&archive) as u64 >= EVENTS).then_some(());
    wait_for(SOON * 3, stored).expect("all are stored");
    replay.kill().unwrap();
    replay.wait().unwrap();
    relay.open();
    hub
}

/// The last line may be half written yet.
fn whole_lines(archive: &Path) -> usize {
    let files = std::fs::read_dir(archive).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    let events = files.iter().filter(|file| file.file_name().to_string_lossy().starts_with("events-"));
    let texts = events.filter_map(|file| std::fs::read(file.path()).ok());
    texts.map(|text| text.iter().filter(|byte| **byte == b'\n').count()).sum()
}

/// Kills it again and again while records are on their way; the last one drains.
fn kill_until_drained(hub: &mut Hub, relay: &Relay, seed: u64) -> u32 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kills = 0;
    for _ in 0..5 {
        let before = relay.produced();
        let requests = random.u32(1..4);
        hub.start();
        let on_their_way = wait_for(Duration::from_secs(5), || (relay.produced() >= before + requests).then_some(()));
        if on_their_way.is_none() {
            break;
        }
        std::thread::sleep(Duration::from_millis(random.u64(0..40)));
        hub.kill();
        kills += 1;
    }
    hub.kill();
    hub.start();
    hub.wait_until_drained(EVENTS, SOON);
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    kills
}

/// The first of each id.
fn different(records: Vec<Record>) -> Vec<Record> {
    let mut seen = HashSet::new();
    records.into_iter().filter(|record| seen.insert(record.headers["event_id"].clone())).collect()
}

#[test]
fn plain_a_killed_gateway_loses_nothing_and_repeats_at_most_its_batches_in_hand() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, relay) = (kafka.topic(2), Relay::to(&kafka.brokers));
    let mut hub = full_hub(&kafka, &relay, &topic, "");
    let kills = kill_until_drained(&mut hub, &relay, 11);
    assert!(kills > 0, "it was quicker than the first kill");
    let records = kafka.read(&topic, Isolation::Uncommitted);
    let repeated = records.len() - EVENTS as usize;
    assert!(repeated <= kills as usize * MOST_IN_HAND, "{repeated} repeated by {kills} kills");
    assert_once_in_order(&different(records), EVENTS as usize);
}

#[test]
fn exactly_once_a_killed_gateway_is_not_seen_by_a_reader_of_committed_records() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, relay) = (kafka.topic(2), Relay::to(&kafka.brokers));
    let mut hub = full_hub(&kafka, &relay, &topic, "exactly_once = true\n");
    let kills = kill_until_drained(&mut hub, &relay, 12);
    assert!(kills > 0, "it was quicker than the first kill");
    let records = kafka.read_at_least(&topic, EVENTS as usize, Isolation::Committed);
    assert_once_in_order(&records, EVENTS as usize);
    // What the kills left behind is there, and hidden.
    let all = kafka.read(&topic, Isolation::Uncommitted);
    assert!(all.len() > records.len(), "no kill met an open transaction");
}

#[test]
fn exactly_once_a_gateway_that_dies_before_it_learns_of_its_commit_finds_the_cursor() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, relay) = (kafka.topic(1), Relay::to(&kafka.brokers));
    let mut hub = full_hub(&kafka, &relay, &topic, "exactly_once = true\n");
    relay.swallow(Request::EndTransaction, u32::MAX);
    hub.start();
    wait_for(SOON, || (relay.swallowed() > 0).then_some(())).expect("a commit");
    hub.kill();
    relay.swallow(Request::EndTransaction, 0);
    hub.start();
    hub.wait_until_drained(EVENTS, SOON);
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    assert!(hub.log().contains("had been committed before"), "{}", hub.log());
    let records = kafka.read_at_least(&topic, EVENTS as usize, Isolation::Committed);
    assert_once_in_order(&records, EVENTS as usize);
}
