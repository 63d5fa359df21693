//! The loop of a destination with the real store: what was stored is delivered, and every outcome is in the ledger.

use std::fs;
use std::path::Path;

use biogate::forward::health::State;
use biogate::forward::{Gate, Kind, file};
use biogate::observation::Observation;
use biogate::resolve::Unassigned;
use biogate::store::AsideKind;

use crate::rig::events::heart_rates;
use crate::rig::lane::Lane;

fn archive(dir: &Path) -> Kind {
    Kind::File(file::Settings::new(dir.join("archive")))
}

fn start(dir: &Path) -> Lane {
    Lane::start(dir, archive(dir), Gate::Open, Unassigned::Forward)
}

/// All events of the archive.
fn lines(dir: &Path) -> Vec<serde_json::Value> {
    let mut paths: Vec<_> = fs::read_dir(dir.join("archive")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("events-"));
    paths.sort();
    let text: String = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(dir: &Path) -> std::collections::HashSet<String> {
    lines(dir).iter().map(|line| line["event_id"].as_str().unwrap().to_owned()).collect()
}

/// Readings of one run, for two commits.
fn halves(count: u64) -> (Vec<Observation>, Vec<Observation>) {
    let mut first = heart_rates(count);
    let second = first.split_off(first.len() / 2);
    (first, second)
}

#[tokio::test]
async fn what_is_stored_is_delivered_once_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let lane = start(dir.path());
        lane.commit(heart_rates(500)).await;
        let tally = lane.until("all delivered", |tally| tally.waiting == 0 && tally.delivered == round * 500).await;
        assert_eq!((tally.rejected, tally.parked, tally.damaged), (0, 0, 0));
        lane.shut_down().await;
    }
    assert_eq!(lines(dir.path()).len(), 1_500);
    assert_eq!(ids(dir.path()).len(), 1_500);
}

#[tokio::test]
async fn nothing_is_cut_while_the_gate_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let held = Gate::Held("waiting for the clock, at most 10 min".to_owned());
    let lane = Lane::start(dir.path(), archive(dir.path()), held, Unassigned::Forward);
    lane.commit(heart_rates(10)).await;
    lane.until("all wait", |tally| tally.waiting == 10).await;
    while lane.health.snapshot().state != State::WaitingForClock {
        tokio::task::yield_now().await;
    }
    assert!(lane.store.in_hand("out").is_none());
    lane.open_gate();
    lane.until("delivered", |tally| tally.delivered == 10).await;
    lane.shut_down().await;
}

#[tokio::test]
async fn a_waiting_loop_cuts_with_what_is_newest_when_events_come() {
    let dir = tempfile::tempdir().unwrap();
    let lane = start(dir.path());
    let (first, second) = halves(2);
    lane.commit(first).await;
    lane.until("the first", |tally| tally.delivered == 1).await;
    while lane.health.snapshot().state != State::Idle {
        tokio::task::yield_now().await;
    }
    lane.move_to("garden");
    // The loop sees the move before anything else that it can wait for.
    tokio::task::yield_now().await;
    lane.commit(second).await;
    lane.until("the second", |tally| tally.delivered == 2).await;
    lane.shut_down().await;
    let places: Vec<_> = lines(dir.path()).iter().map(|line| line["location"].clone()).collect();
    assert_eq!(places, ["ward-3", "garden"]);
}

#[tokio::test]
async fn events_of_nobody_are_parked_by_setting() {
    let dir = tempfile::tempdir().unwrap();
    let lane = Lane::start(dir.path(), archive(dir.path()), Gate::Open, Unassigned::Park);
    lane.commit(heart_rates(7)).await;
    let tally = lane.until("parked", |tally| tally.parked == 7).await;
    assert_eq!((tally.delivered, tally.waiting), (0, 0));
    let aside = lane.store.aside(100).await.unwrap();
    assert_eq!(aside.iter().filter(|entry| entry.kind == AsideKind::Parked).count(), 7);
    lane.shut_down().await;
}

#[tokio::test]
async fn a_missing_folder_is_retried_with_the_reason_and_stays_stored_over_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, away) = (dir.path().join("archive"), dir.path().join("away"));
    let lane = start(dir.path());
    let (first, second) = halves(10);
    lane.commit(first).await;
    lane.until("the first", |tally| tally.delivered == 5).await;
    fs::rename(&archive, &away).unwrap();
    lane.commit(second).await;
    lane.until("a failed try", |_| lane.health.snapshot().state == State::Retrying).await;
    let reason = lane.health.snapshot().reason.unwrap();
    assert!(reason.contains("is missing"), "{reason}");
    lane.shut_down().await;
    fs::rename(&away, &archive).unwrap();
    let lane = start(dir.path());
    lane.until("the rest", |tally| tally.delivered == 10).await;
    lane.shut_down().await;
    assert_eq!(ids(dir.path()).len(), 10);
    assert_eq!(lines(dir.path()).len(), 10);
}

#[cfg(feature = "clickhouse")]
#[tokio::test]
async fn a_refused_row_is_set_aside_and_an_overload_is_waited_out() {
    let Some(engine) = crate::rig::clickhouse::Engine::own() else { return };
    let dir = tempfile::tempdir().unwrap();
    biogate::forward::clickhouse::schema::apply(&engine.settings()).await.unwrap();
    engine.sql("ALTER TABLE biometric_events ADD CONSTRAINT sane CHECK value < 300");
    engine.fault("503", 1);
    let lane = Lane::start(dir.path(), Kind::ClickHouse(engine.settings()), Gate::Open, Unassigned::Forward);
    let mut observations = heart_rates(200);
    observations[50].value = 301.0;
    lane.commit(observations).await;
    lane.until("a failed try", |_| lane.health.snapshot().state == State::Retrying).await;
    let tally = lane.until("all settled", |tally| tally.waiting == 0).await;
    assert_eq!((tally.delivered, tally.rejected), (199, 1));
    assert_eq!(engine.counts(), (199, 199));
    let aside = lane.store.aside(10).await.unwrap();
    assert_eq!((aside.len(), aside[0].kind), (1, AsideKind::Rejected));
    assert!(aside[0].reason.contains("sane"), "{}", aside[0].reason);
    lane.shut_down().await;
}
