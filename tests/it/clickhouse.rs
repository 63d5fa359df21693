//! The ClickHouse destination against the real engine: each event counts once, whatever goes wrong on the way.

use std::time::Duration;

use biogate::forward::Delivery;
use biogate::forward::clickhouse::{ClickHouse, Settings, schema};
use biogate::forward::refusal::{Refusal, Trouble};
use biogate::forward::rows::Batch;
use biogate::observation::Observation;

use crate::rig::clickhouse::Engine;
use crate::rig::events::{batch, heart_rate, heart_rates, run, yesterday_ms};
use crate::rig::tls::TlsRelay;

async fn ready(engine: &Engine) -> ClickHouse {
    schema::apply(&engine.settings()).await.unwrap();
    destination(engine.settings())
}

fn destination(settings: Settings) -> ClickHouse {
    ClickHouse::new(settings).unwrap()
}

fn new_batch(observations: &[Observation]) -> Batch {
    batch(run(), observations, false)
}

async fn delivered(clickhouse: &mut ClickHouse, batch: Batch) -> Batch {
    match clickhouse.deliver(batch).await {
        Delivery::Done(batch) => batch,
        other => panic!("{other:?}"),
    }
}

async fn refused(clickhouse: &mut ClickHouse, batch: Batch) -> (Batch, Refusal) {
    match clickhouse.deliver(batch).await {
        Delivery::Later(batch, refusal) => (batch, refusal),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rows_arrive_with_every_column() {
    let Some(engine) = Engine::shared() else { return };
    let mut clickhouse = ready(&engine).await;
    let at_ms = yesterday_ms();
    let done = delivered(&mut clickhouse, new_batch(&[heart_rate(1, 72.5, at_ms)])).await;
    assert_eq!((done.tally.delivered, done.tally.rejected.len()), (1, 0));
    let row = engine.sql(
        "SELECT user_id, event_type, component, value, unit, toUnixTimestamp64Milli(timestamp), period_start, device_id, \
         gateway_id, location, clock, metadata.contact, metadata.profile, version, deleted FROM biometric_events",
    );
    let expected = format!(
        "00000000-0000-0000-0000-000000000000 heart_rate  72.5 /min {at_ms} \\N strap-anna hub-0042 ward-3 synced \
         detected bluetooth-heart-rate/1 1 0"
    );
    assert_eq!(row.trim_end().replace('\t', " "), expected);
}

#[tokio::test]
async fn a_large_batch_is_sent_in_blocks_and_repeats_are_dropped() {
    let Some(engine) = Engine::shared() else { return };
    let mut clickhouse = ready(&engine).await;
    let (run, observations) = (run(), heart_rates(45_000));
    for resumed in [false, true] {
        let done = delivered(&mut clickhouse, batch(run, &observations, resumed)).await;
        assert_eq!(done.tally.delivered, 45_000);
        assert_eq!(engine.counts(), (45_000, 45_000));
    }
}

#[tokio::test]
async fn what_the_server_refuses_for_a_while_is_tried_again() {
    let Some(engine) = Engine::own() else { return };
    let mut clickhouse = ready(&engine).await;
    let second = Some(Duration::from_secs(1));
    let mut count = 0;
    for (fault, trouble, asked, words) in [
        ("503", Trouble::Overload, second, "has too much to do (503"),
        ("429", Trouble::Overload, second, "has too much to do (429"),
        ("500", Trouble::Peer, None, "answers 500"),
        ("too_many_parts", Trouble::Overload, None, "Too many parts"),
        ("memory_limit", Trouble::Heavy, None, "Memory limit"),
    ] {
        engine.fault(fault, 2);
        let mut batch = new_batch(&heart_rates(100));
        for _ in 0..2 {
            let (returned, refusal) = refused(&mut clickhouse, batch).await;
            assert_eq!((refusal.trouble, refusal.asked), (trouble, asked), "{fault}");
            assert!(refusal.reason.contains(words), "{}", refusal.reason);
            batch = returned;
        }
        let done = delivered(&mut clickhouse, batch).await;
        assert_eq!((done.tally.delivered, done.tally.resent), (100, 0));
        count += 100;
        assert_eq!(engine.counts(), (count, count), "{fault}");
    }
}

#[tokio::test]
async fn what_is_too_much_for_the_servers_memory_again_and_again_is_sent_in_halves() {
    let Some(engine) = Engine::own() else { return };
    let mut clickhouse = ready(&engine).await;
    engine.fault("memory_limit", 4);
    let (run, observations) = (run(), heart_rates(100));
    let mut first = batch(run, &observations, false);
    for _ in 0..4 {
        let (returned, refusal) = refused(&mut clickhouse, first).await;
        assert_eq!((refusal.trouble, refusal.in_doubt), (Trouble::Heavy, false));
        first = returned;
    }
    // The second refusal halved it, and the fourth its first half.
    let halved = first.halved.clone();
    let done = delivered(&mut clickhouse, first).await;
    assert_eq!((done.tally.delivered, done.tally.resent), (100, 0));
    assert_eq!(engine.counts(), (100, 100));
    assert_eq!(engine.sql("SELECT uniqExact(_part) FROM biometric_events").trim(), "3", "in three inserts");
    // The next process has it in hand again, and knows what was noted of it.
    let mut again = batch(run, &observations, true);
    again.halved = halved;
    delivered(&mut destination(engine.settings()), again).await;
    assert_eq!(engine.counts(), (100, 100), "raw rows and events");
}

#[tokio::test]
async fn a_connection_that_breaks_before_or_after_the_commit_counts_each_event_once() {
    let Some(engine) = Engine::own() else { return };
    let mut clickhouse = ready(&engine).await;
    for (nth, fault) in ["drop_before", "drop_after"].into_iter().enumerate() {
        let (run, observations) = (run(), heart_rates(500));
        engine.fault(fault, 2);
        let (first_try, refusal) = refused(&mut clickhouse, batch(run, &observations, false)).await;
        assert_eq!(refusal.trouble, Trouble::Unreachable, "{}", refusal.reason);
        let (_, refusal) = refused(&mut clickhouse, first_try).await;
        assert_eq!(refusal.trouble, Trouble::Unreachable);
        // The process dies here, and the next one takes up the range in hand.
        let mut clickhouse = destination(engine.settings());
        let done = delivered(&mut clickhouse, batch(run, &observations, true)).await;
        assert_eq!(done.tally.delivered, 500);
        let expected = (nth as u64 + 1) * 500;
        assert_eq!(engine.counts(), (expected, expected), "{fault}: raw rows and events");
    }
}

#[tokio::test]
async fn a_server_that_is_down_and_comes_back_gets_the_rest_of_the_batch() {
    let Some(mut engine) = Engine::own() else { return };
    let mut clickhouse = ready(&engine).await;
    delivered(&mut clickhouse, new_batch(&heart_rates(10))).await;
    engine.stop();
    // The kept connection breaks; then there is none.
    let (returned, refusal) = refused(&mut clickhouse, new_batch(&heart_rates(30))).await;
    assert_eq!(refusal.trouble, Trouble::Unreachable, "{}", refusal.reason);
    let (returned, refusal) = refused(&mut clickhouse, returned).await;
    assert!(refusal.reason.contains("no connection to http://127.0.0.1"), "{}", refusal.reason);
    engine.restart();
    let done = delivered(&mut clickhouse, returned).await;
    assert_eq!(done.tally.delivered, 30);
    assert_eq!(engine.counts(), (40, 40));
}

#[tokio::test]
async fn a_batch_that_is_half_through_when_the_server_fails_goes_on_with_the_other_half() {
    let Some(engine) = Engine::own() else { return };
    let mut clickhouse = ready(&engine).await;
    // 25,000 rows are two blocks; the second one meets the fault.
    engine.fault_later("drop_after", 1, 1);
    let (returned, _) = refused(&mut clickhouse, new_batch(&heart_rates(25_000))).await;
    assert_eq!(returned.tally.delivered, 20_000);
    let done = delivered(&mut clickhouse, returned).await;
    assert_eq!(done.tally.delivered, 25_000);
    assert_eq!(engine.counts(), (25_000, 25_000));
}

#[tokio::test]
async fn one_bad_row_is_found_by_halving_and_the_others_arrive() {
    let Some(engine) = Engine::own() else { return };
    let mut clickhouse = ready(&engine).await;
    engine.sql("ALTER TABLE biometric_events ADD CONSTRAINT sane CHECK value < 300");
    let mut observations = heart_rates(1_000);
    observations[617].value = 301.0;
    // The first try breaks after an unknown outcome, so the halves count as sent again.
    engine.fault("drop_before", 1);
    let (returned, _) = refused(&mut clickhouse, new_batch(&observations)).await;
    let done = delivered(&mut clickhouse, returned).await;
    assert_eq!((done.tally.delivered, done.tally.resent), (999, 1_000));
    let [rejected] = &done.tally.rejected[..] else { panic!("{:?}", done.tally.rejected) };
    assert_eq!(rejected.sequence, 618);
    assert!(rejected.reason.contains("sane"), "{}", rejected.reason);
    assert_eq!(engine.counts(), (999, 999));
    let settled = done.settle(crate::rig::events::chunks(run(), &observations));
    assert_eq!((settled.delivered, settled.rejected, settled.aside.len()), (999, 1, 1));
    assert_eq!(settled.aside[0].reading, 617);
    assert_eq!(settled.aside[0].destination.as_deref(), Some("test"));
}

#[tokio::test]
async fn a_time_that_the_table_cannot_hold_is_set_aside_unsent() {
    let Some(engine) = Engine::shared() else { return };
    let mut clickhouse = ready(&engine).await;
    let observations = [heart_rate(1, 60.0, yesterday_ms()), heart_rate(2, 60.0, 9_999_999_999_999)];
    let done = delivered(&mut clickhouse, new_batch(&observations)).await;
    assert_eq!((done.tally.delivered, done.tally.rejected.len()), (1, 1));
    assert!(done.tally.rejected[0].reason.contains("outside 1970 to 2105"), "{:?}", done.tally.rejected);
    assert_eq!(engine.counts(), (1, 1));
}

#[tokio::test]
async fn too_many_months_for_one_insert_are_sent_month_by_month() {
    let Some(engine) = Engine::shared() else { return };
    let mut clickhouse = ready(&engine).await;
    // A device with a wild clock: 110 months, two rows each; the server takes 100 months at once.
    let (start_ms, month_ms) = (yesterday_ms(), 31 * 86_400_000);
    let observations: Vec<_> = (0..220).map(|n| heart_rate(n, 60.0, start_ms + (n / 2) * month_ms)).collect();
    let done = delivered(&mut clickhouse, new_batch(&observations)).await;
    assert_eq!((done.tally.delivered, done.tally.rejected.len()), (220, 0));
    assert_eq!(engine.counts(), (220, 220));
}

#[tokio::test]
async fn what_a_person_must_mend_is_said_in_plain_words() {
    let Some(engine) = Engine::shared() else { return };
    let mut wrong = engine.settings();
    wrong.password_file = Some(engine.write_password("not-it-4711"));
    let (_, refusal) = refused(&mut destination(wrong), new_batch(&heart_rates(1))).await;
    assert_eq!(refusal.trouble, Trouble::Access);
    assert!(refusal.reason.contains("wrong password or no such user"), "{}", refusal.reason);
    assert!(!refusal.reason.contains("4711"), "{}", refusal.reason);

    let mut missing = engine.settings();
    missing.password_file = Some("/nonexistent/clickhouse".into());
    let (_, refusal) = refused(&mut destination(missing), new_batch(&heart_rates(1))).await;
    assert!(refusal.reason.contains("cannot read /nonexistent/clickhouse"), "{}", refusal.reason);

    let mut clickhouse = destination(engine.settings());
    let (batch, refusal) = refused(&mut clickhouse, new_batch(&heart_rates(1))).await;
    assert_eq!(refusal.trouble, Trouble::Schema);
    assert!(refusal.reason.contains("database ") && refusal.reason.contains("schema apply"), "{}", refusal.reason);
    engine.make_database();
    let (batch, refusal) = refused(&mut clickhouse, batch).await;
    assert_eq!(refusal.trouble, Trouble::Schema);
    assert!(refusal.reason.contains("table ") && refusal.reason.contains("does not exist"), "{}", refusal.reason);
    schema::apply(&engine.settings()).await.unwrap();
    assert_eq!(delivered(&mut clickhouse, batch).await.tally.delivered, 1);
}

#[tokio::test]
async fn a_table_that_does_not_fit_is_refused_by_name_and_no_row_is_blamed() {
    let Some(engine) = Engine::shared() else { return };
    let mut clickhouse = ready(&engine).await;
    let fitting = schema::apply(&engine.settings()).await.unwrap();
    assert_eq!((fitting.engine.as_str(), fitting.deduplication_window), ("ReplacingMergeTree", Some(10_000)));
    assert!(!fitting.server_version.is_empty());
    engine.sql("DROP TABLE biometric_events");
    let narrow = schema::statements("biometric_events")
        .swap_remove(0)
        .replace(",'glucose'=10", "")
        .replace("version       UInt32", "version       UInt16")
        .replace("INDEX by_ingested", "CONSTRAINT never CHECK value < 0, INDEX by_ingested");
    engine.sql(&narrow);
    let error = schema::verify(&engine.settings()).await.unwrap_err().to_string();
    assert!(error.contains("column event_type is Enum8(") && error.contains("'glucose' = 10"), "{error}");
    assert!(error.contains("column version is UInt16, expected UInt32"), "{error}");
    let (returned, refusal) = refused(&mut clickhouse, new_batch(&heart_rates(4))).await;
    assert!(returned.tally.rejected.is_empty(), "the rows are good, the table is not");
    assert!(matches!(refusal.trouble, Trouble::Schema | Trouble::Peer), "{refusal:?}");
}

#[tokio::test]
async fn tls_needs_a_certificate_that_is_trusted_and_for_that_host() {
    let Some(engine) = Engine::shared() else { return };
    let Some(relay) = TlsRelay::to(engine.address.clone()).await else { return };
    schema::apply(&engine.settings()).await.unwrap();
    let mut settings = engine.settings();
    settings.url = format!("https://localhost:{}", relay.address.port());
    let (_, refusal) = refused(&mut destination(settings.clone()), new_batch(&heart_rates(3))).await;
    assert_eq!(refusal.trouble, Trouble::Access);
    assert!(refusal.reason.contains("no TLS with https://localhost"), "{}", refusal.reason);

    settings.ca_file = Some(relay.ca_file());
    let mut other_host = settings.clone();
    other_host.url = format!("https://127.0.0.1:{}", relay.address.port());
    let (_, refusal) = refused(&mut destination(other_host), new_batch(&heart_rates(3))).await;
    assert_eq!(refusal.trouble, Trouble::Access, "{}", refusal.reason);

    let done = delivered(&mut destination(settings), new_batch(&heart_rates(3))).await;
    assert_eq!(done.tally.delivered, 3);
    assert_eq!(engine.counts(), (3, 3));
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_given_up_and_in_doubt() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = Settings::new(format!("http://{}", silent.local_addr().unwrap()), "any");
    settings.request_timeout = Duration::from_millis(200);
    let (_, refusal) = refused(&mut destination(settings), new_batch(&heart_rates(3))).await;
    assert_eq!(refusal.trouble, Trouble::Timeout);
    assert!(refusal.reason.contains("did not answer within"), "{}", refusal.reason);
}
