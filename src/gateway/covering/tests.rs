//! The account on a real store: what it takes up, what it reports, and what it keeps.

use std::path::Path;

use uuid::Uuid;

use super::*;
use crate::clock::Anchor;
use crate::coverage::hours::HOUR_MS;
use crate::reading::RunId;
use crate::resolve::{Basis, Unassigned};

const STRAP: &str = "strap-anna";

/// A configuration with one sensor, and its store.
fn hub(folder: &Path) -> (Config, Store) {
    let file = folder.join("biogate.toml");
    let (data, archive) = (folder.join("data"), folder.join("archive"));
    let text = format!(
        "[gateway]\nid = \"hub-1\"\ndata_dir = {data:?}\n\
         [[device]]\nname = \"{STRAP}\"\nprofile = \"serial-vitals-line\"\nserial = \"/dev/null\"\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n"
    );
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&file).unwrap();
    let store = Store::open(&config.store, RunId::random(), BootId::WALL, &["archive".to_owned()]).unwrap();
    (config, store)
}

/// A boot whose clock is known.
fn timeline(boot: BootId) -> Arc<Timeline> {
    let mut anchors = Anchors::new(0);
    let offset_ms = system::wall_ms() - system::uptime_ms() as i64;
    anchors.append(Anchor { boot, from_ms: 0, offset_ms, synced: true });
    let basis = Basis {
        gateway_id: "hub-1".into(),
        timezone: "UTC".to_owned(),
        location: None,
        unassigned: Unassigned::Forward,
        assignments: Vec::new(),
    };
    Arc::new(Timeline { anchors, bases: [(1, basis)].into() })
}

fn account(config: &Config, store: &Store) -> (Covering, watch::Receiver<LastDay>) {
    let boot = BootId(Uuid::from_u128(7));
    let parts = Parts {
        boot,
        store: store.clone(),
        watches: Watches::new(boot),
        sources: Arc::default(),
        timeline: watch::channel(timeline(boot)).1,
        gate: watch::channel(Gate::Open).1,
    };
    let (telling, last_day) = watch::channel(LastDay::default());
    (Covering::new(parts, config, telling), last_day)
}

/// The rows that were stored to be reported.
async fn reported(store: &Store) -> Vec<serde_json::Value> {
    let (_, reports) = store.reports("archive", Kind::Coverage, 1 << 20).await.unwrap();
    reports.iter().map(|report| serde_json::from_str(&report.row).unwrap()).collect()
}

/// What an earlier process kept: measured until `upto_ms`.
async fn kept_until(store: &Store, upto_ms: i64) {
    let mut hours = Hours::default();
    hours.add(upto_ms - 2 * HOUR_MS, upto_ms, Second::Measured, true);
    hours.due();
    let day = |(day, kept): (i64, Option<Day>)| StateChange {
        key: format!("{STATE}{STRAP}/{day}"),
        value: kept.map(|kept| serde_cbor::to_vec(&kept).unwrap()),
    };
    let state = hours.take_changed().into_iter().map(day).collect();
    store.commit(Commit { state, ..Commit::default() }).await.unwrap();
}

#[tokio::test]
async fn a_hub_that_was_off_for_hours_says_so_for_each_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let (config, store) = hub(folder.path());
    let this_hour = system::wall_ms().div_euclid(HOUR_MS) * HOUR_MS;
    // It was killed at a quarter past, three hours ago.
    kept_until(&store, this_hour - 3 * HOUR_MS + HOUR_MS / 4).await;
    let (mut covering, last_day) = account(&config, &store);
    covering.keep().await.unwrap();
    let rows = reported(&store).await;
    let shape: Vec<_> = rows.iter().map(|row| (row["measured"].as_u64(), row["hub_off"].as_u64())).collect();
    assert_eq!(shape, [(Some(900), Some(2_700)), (Some(0), Some(3_600)), (Some(0), Some(3_600))], "{rows:?}");
    assert_eq!((&rows[0]["gateway_id"], &rows[0]["device_id"]), (&"hub-1".into(), &STRAP.into()));
    assert_eq!(rows[0]["hour"], this_hour - 3 * HOUR_MS);
    let told = last_day.borrow()[STRAP];
    assert!(told[Second::HubOff as usize] >= 2 * 3_600 + 2_700, "{told:?}");
    covering.keep().await.unwrap();
    assert_eq!(reported(&store).await.len(), 3);
    // A process that takes up what this one kept knows what was said.
    let (mut next, _) = account(&config, &store);
    next.keep().await.unwrap();
    assert_eq!(reported(&store).await.len(), 3);
}

#[tokio::test]
async fn an_hour_whose_events_were_evicted_is_said_again() {
    let folder = tempfile::tempdir().unwrap();
    let (config, store) = hub(folder.path());
    let this_hour = system::wall_ms().div_euclid(HOUR_MS) * HOUR_MS;
    kept_until(&store, this_hour).await;
    let (mut covering, _) = account(&config, &store);
    covering.keep().await.unwrap();
    assert_eq!(reported(&store).await.len(), 0, "both hours were said by the process before");
    let at = |ms: i64| Some(Heard { boot: BootId::WALL, ms: ms as u64 });
    let (from, to) = (at(this_hour - HOUR_MS + 60_000), at(this_hour - HOUR_MS + 360_000));
    let cause = crate::store::GapCause::Evicted;
    covering.evicted(&[Gap { device: Some(STRAP.into()), from, to, count: 300, cause }]);
    covering.keep().await.unwrap();
    let rows = reported(&store).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0]["measured"].as_u64(), rows[0]["evicted"].as_u64()), (Some(3_300), Some(300)));
    assert_eq!(rows[0]["version"], 2);
}

#[tokio::test]
async fn while_the_clock_is_not_known_nothing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (config, store) = hub(folder.path());
    kept_until(&store, system::wall_ms() - 5 * HOUR_MS).await;
    let (mut covering, _) = account(&config, &store);
    let (gating, gate) = watch::channel(Gate::Held("waiting for the clock".to_owned()));
    covering.parts.gate = gate;
    covering.keep().await.unwrap();
    assert_eq!(reported(&store).await.len(), 0);
    gating.send_replace(Gate::Open);
    covering.keep().await.unwrap();
    assert!(reported(&store).await.len() >= 5);
}
