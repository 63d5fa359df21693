//! Destinations together: one after another under a failover, side by side without, and none slows another.

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use biogate::forward::clickhouse::{self, schema};
use biogate::forward::failover::{CURSOR, Settings};
use biogate::forward::health::State;
use biogate::forward::{Kind, file};
use biogate::observation::Observation;

use crate::rig::clickhouse::Engine;
use crate::rig::events::{heart_rate, heart_rates, yesterday_ms};
use crate::rig::gateway::Hub;
use crate::rig::ways::{Swallower, Ways, store_of_the_killed};

fn archive(dir: &Path) -> Kind {
    Kind::File(file::Settings::new(dir.join("archive")))
}

/// A ClickHouse destination at an address where there may be none.
fn warehouse_at(address: &str) -> Kind {
    let mut settings = clickhouse::Settings::new(format!("http://{address}"), "nowhere");
    settings.request_timeout = Duration::from_millis(300);
    Kind::ClickHouse(settings)
}

/// An address where nobody listens.
fn refused_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn times(in_doubt_ms: u64, back_after: Duration) -> Settings {
    Settings {
        in_doubt: Duration::from_millis(in_doubt_ms),
        after: Duration::from_millis(200),
        back_after,
        ..Settings::new(Vec::new())
    }
}

const NEVER_BACK: Duration = Duration::from_secs(3_600);
const HOUR_MS: u64 = 3_600_000;

fn ids(dir: &Path) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(dir.join("archive")) else { return Vec::new() };
    let paths = files.map(|entry| entry.unwrap().path());
    // Reports stand beside the events, in files of their own.
    let events = paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("events-"));
    let text: String = events.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let id =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["event_id"].as_str().unwrap().to_owned();
    text.lines().map(id).collect()
}

/// Readings `from` to `to` of one run.
fn readings(from: u64, to: u64) -> Vec<Observation> {
    let start_ms = yesterday_ms();
    (from..to).map(|n| heart_rate(n, 60.0 + (n % 100) as f64, start_ms + n * 1_000)).collect()
}

#[tokio::test]
async fn the_next_takes_over_when_the_first_is_down_and_the_first_when_it_has_been_well() {
    let Some(mut engine) = Engine::own() else { return };
    let dir = tempfile::tempdir().unwrap();
    schema::apply(&engine.settings()).await.unwrap();
    engine.stop();
    let order = [("warehouse", Kind::ClickHouse(engine.settings())), ("archive", archive(dir.path()))];
    let ways = Ways::failover(dir.path(), &order, &times(HOUR_MS, Duration::from_millis(600)));
    assert_eq!(ways.health("warehouse").active, Some(true));
    ways.commit(readings(0, 100)).await;
    ways.until("delivered by the next", |ways| ways.tally(CURSOR).delivered == 100).await;
    let (left, taken) = (ways.health("warehouse"), ways.health("archive"));
    assert_eq!((left.state, left.active, taken.active), (State::Standby, Some(false), Some(true)));
    let why = taken.failover.unwrap();
    assert!(why.contains("warehouse failed: no connection to http://127.0.0.1"), "{why}");
    // It is asked all the while, and its health says what is wrong.
    ways.until("asked", |ways| ways.health("warehouse").reason.is_some()).await;
    ways.commit(readings(100, 200)).await;
    ways.until("the next goes on", |ways| ways.tally(CURSOR).delivered == 200).await;
    engine.restart();
    let mut sent = 200;
    while ways.health("warehouse").active != Some(true) {
        ways.commit(readings(sent, sent + 10)).await;
        sent += 10;
        ways.until("delivered", |ways| ways.tally(CURSOR).delivered == sent).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(sent < 10_000, "the first never takes over: {:?}", ways.health("warehouse"));
    }
    let tally = ways.tally(CURSOR);
    assert_eq!((tally.delivered, tally.in_doubt_resent, tally.waiting), (sent, 0, 0));
    let filed = ids(dir.path()).len() as u64;
    assert_eq!(engine.counts(), (sent - filed, sent - filed), "each event is at one of them");
    assert!(filed >= 200 && filed < sent);
    ways.shut_down().await;
}

#[tokio::test]
async fn what_may_have_arrived_waits_and_then_goes_on_with_the_same_ids_and_is_counted() {
    let Some(engine) = Engine::own() else { return };
    let dir = tempfile::tempdir().unwrap();
    schema::apply(&engine.settings()).await.unwrap();
    engine.fault("drop_after", 1);
    let order = [("warehouse", Kind::ClickHouse(engine.settings())), ("archive", archive(dir.path()))];
    let ways = Ways::failover(dir.path(), &order, &times(3_000, NEVER_BACK));
    let began = Instant::now();
    ways.commit(heart_rates(100)).await;
    ways.until("the lost acknowledgement", |ways| ways.health("warehouse").state == State::Retrying).await;
    engine.fault("503", 1_000);
    while began.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(ids(dir.path()).len(), 0, "in doubt, and another has it");
        assert_eq!(ways.health("warehouse").active, Some(true));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ways.until("delivered", |ways| ways.tally(CURSOR).waiting == 0).await;
    let tally = ways.tally(CURSOR);
    assert_eq!((tally.delivered, tally.in_doubt_resent), (100, 100));
    let filed: HashSet<String> = ids(dir.path()).into_iter().collect();
    let stored = engine.sql("SELECT event_id FROM biometric_events");
    assert_eq!(filed, stored.lines().map(str::to_owned).collect(), "the same ids at both");
    // What comes after it is in no doubt.
    ways.commit(readings(500, 600)).await;
    ways.until("the rest", |ways| ways.tally(CURSOR).delivered == 200).await;
    assert_eq!(ways.tally(CURSOR).in_doubt_resent, 100);
    ways.shut_down().await;
}

#[tokio::test]
async fn a_range_in_doubt_that_is_answered_in_time_stays_where_it_is() {
    let Some(engine) = Engine::own() else { return };
    let dir = tempfile::tempdir().unwrap();
    schema::apply(&engine.settings()).await.unwrap();
    engine.fault("drop_after", 2);
    let order = [("warehouse", Kind::ClickHouse(engine.settings())), ("archive", archive(dir.path()))];
    let ways = Ways::failover(dir.path(), &order, &times(HOUR_MS, NEVER_BACK));
    ways.commit(heart_rates(100)).await;
    ways.until("delivered", |ways| ways.tally(CURSOR).delivered == 100).await;
    let tally = ways.tally(CURSOR);
    assert_eq!((tally.in_doubt_resent, engine.counts(), ids(dir.path()).len()), (0, (100, 100), 0));
    ways.shut_down().await;
}

#[tokio::test]
async fn after_a_kill_the_range_goes_on_where_it_may_be_and_its_doubts_are_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Swallower::new(), Swallower::new());
    let order = [("bus", warehouse_at(&first.address)), ("archive", warehouse_at(&second.address))];
    let ways = Ways::failover(dir.path(), &order, &times(1_000, NEVER_BACK));
    ways.commit(heart_rates(50)).await;
    ways.until("the second is tried", |_| second.inserts() > 0).await;
    let left = store_of_the_killed(dir.path());
    ways.shut_down().await;
    // The next process: the second has become well, and the first still swallows.
    let called = first.inserts();
    let order = [("bus", warehouse_at(&first.address)), ("archive", archive(left.path()))];
    let ways = Ways::failover(left.path(), &order, &times(HOUR_MS, NEVER_BACK));
    assert_eq!(ways.health("archive").active, Some(true), "it may have the range");
    ways.until("delivered", |ways| ways.tally(CURSOR).delivered == 50).await;
    assert_eq!(ways.tally(CURSOR).in_doubt_resent, 50, "the first may have them too");
    assert_eq!(ids(left.path()).len(), 50);
    assert_eq!(first.inserts() - called, 0, "a range was given back without a wait");
    ways.shut_down().await;
}

#[tokio::test]
async fn a_stop_in_an_outage_leaves_no_doubt_and_a_kill_does() {
    let dir = tempfile::tempdir().unwrap();
    let refused = refused_address();
    let order = [("bus", warehouse_at(&refused)), ("archive", archive(dir.path()))];
    let patient = Settings { after: Duration::from_secs(600), ..times(HOUR_MS, NEVER_BACK) };
    let ways = Ways::failover(dir.path(), &order, &patient);
    ways.commit(heart_rates(50)).await;
    ways.until("a failed try", |ways| ways.health("bus").state == State::Retrying).await;
    let killed = store_of_the_killed(dir.path());
    ways.shut_down().await;
    let ways = Ways::failover(dir.path(), &order, &times(HOUR_MS, NEVER_BACK));
    ways.until("delivered by the next", |ways| ways.tally(CURSOR).delivered == 50).await;
    assert_eq!(ways.tally(CURSOR).in_doubt_resent, 0);
    ways.shut_down().await;
    let order = [("bus", warehouse_at(&refused)), ("archive", archive(killed.path()))];
    let ways = Ways::failover(killed.path(), &order, &times(2_000, NEVER_BACK));
    ways.until("delivered by the next", |ways| ways.tally(CURSOR).delivered == 50).await;
    assert_eq!(ways.tally(CURSOR).in_doubt_resent, 50, "the process before may have sent them");
    ways.shut_down().await;
}

/// How long each of 15 small commits takes to the archive and to the warehouse: the median.
async fn latency(ways: &Ways, from: u64) -> Duration {
    let mut took = Vec::new();
    for n in from..from + 15 {
        let began = Instant::now();
        ways.commit(readings(n * 10, n * 10 + 10)).await;
        let all = (n + 1) * 10;
        let has_all = |ways: &Ways| ["archive", "warehouse"].iter().all(|to| ways.tally(to).delivered == all);
        ways.until("delivered to the healthy ones", has_all).await;
        took.push(began.elapsed());
    }
    took.sort();
    took[took.len() / 2]
}

#[tokio::test]
async fn a_dead_and_a_hanging_destination_slow_no_other() {
    let Some(engine) = Engine::own() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    let alone = tempfile::tempdir().unwrap();
    let ways = Ways::fan_out(
        alone.path(),
        &[("archive", archive(alone.path())), ("warehouse", Kind::ClickHouse(engine.settings()))],
    );
    let by_themselves = latency(&ways, 0).await;
    ways.shut_down().await;
    let dir = tempfile::tempdir().unwrap();
    let swallower = Swallower::new();
    let destinations = [
        ("archive", archive(dir.path())),
        ("warehouse", Kind::ClickHouse(engine.settings())),
        ("dead", warehouse_at(&refused_address())),
        ("hanging", warehouse_at(&swallower.address)),
    ];
    let ways = Ways::fan_out(dir.path(), &destinations);
    ways.commit(readings(0, 10)).await;
    ways.until("both are in trouble", |ways| {
        ["dead", "hanging"].iter().all(|name| ways.health(name).state == State::Retrying)
    })
    .await;
    let beside_them = latency(&ways, 1).await;
    // A wait for either of them would be 300 ms and more.
    let most = by_themselves * 4 + Duration::from_millis(100);
    assert!(beside_them <= most, "{beside_them:?} beside them, {by_themselves:?} by themselves");
    assert!(swallower.inserts() > 0);
    assert_eq!((ways.tally("dead").delivered, ways.tally("hanging").delivered), (0, 0));
    assert_eq!(ids(dir.path()).len() as u64, ways.tally("archive").delivered);
    ways.shut_down().await;
}

const FILES: &str = "[[destination]]\nname = \"bus\"\nkind = \"file\"\ndir = \"/tmp/none\"\n\
                     [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = \"/tmp/none\"\n";

#[test]
fn an_order_names_destinations_that_exist_each_once() {
    let check =
        |failover: &str, more: &str| Hub::new(&format!("{failover}\n{FILES}{more}")).output(&["check", "--offline"]);
    for (section, more, expected) in [
        ("[failover]\norder = [\"bus\"]", "", "found 1 names; write at least two destinations"),
        ("[failover]\nafter = \"5 s\"", "", "found 0 names; write at least two destinations"),
        ("[failover]\norder = [\"bus\", \"lake\"]", "", "found \"lake\"; there is no such [[destination]]"),
        ("[failover]\norder = [\"bus\", \"bus\"]", "", "found \"bus\" twice"),
        ("[failover]\norder = [\"bus\", \"archive\"]\nin_doubt = \"1 s\"", "", "less than failover.after"),
        ("[failover]\norder = [\"bus\", \"archive\"]\nsoon = true", "", "unknown field `soon`"),
        (
            "[failover]\norder = [\"bus\", \"archive\"]",
            "[[destination]]\nname = \"failover\"\nkind = \"file\"\ndir = \"/tmp/none\"\n",
            "found a [[destination]] named \"failover\"",
        ),
    ] {
        let (code, _, error) = check(section, more);
        assert!(code == 2 && error.contains(expected), "{section}: {error}");
    }
    let (code, out, error) = check("[failover]\norder = [\"bus\", \"archive\"]\nin_doubt = \"2 h\"", "");
    assert_eq!(code, 0, "{out}{error}");
}

/// A hub whose first destination refuses connections.
fn hub(dir: &Path) -> Hub {
    Hub::new(&format!(
        "[failover]\norder = [\"bus\", \"archive\"]\nafter = \"200 ms\"\n[[device]]\nname = \"strap\"\n\
         profile = \"bluetooth-heart-rate\"\nble = \"A0:9E:1A:00:11:22\"\n[[destination]]\nname = \"bus\"\n\
         kind = \"clickhouse\"\nurl = \"http://{}\"\n[[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {:?}\n",
        refused_address(),
        dir.join("archive"),
    ))
}

#[test]
fn a_whole_gateway_fails_over_and_the_ledger_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let frame = |n| format!("{{\"t\":{n}000,\"device\":\"strap\",\"channel\":\"2a37\",\"hex\":\"0048\"}}\n");
    let recording = dir.path().join("frames.ndjson");
    std::fs::write(&recording, (1..51).map(frame).collect::<String>()).unwrap();
    let (code, out, error) = hub(dir.path()).output(&["replay", recording.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.contains("failover.delivered=50") && !out.contains("bus."), "{out}");
    assert!(error.contains("the next destination of the order gets the events"), "{error}");
    assert_eq!(ids(dir.path()).len(), 50);
}
