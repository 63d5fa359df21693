//! Erasure and new pseudonyms on the real engine: the person is gone everywhere, nobody else is touched, and no view takes
//! what was erased for lost.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use biogate_analytics::erase::{self, Error, Kind, Options, Order, Report};
use biogate_analytics::warehouse::{Limits, Warehouse};
use serde_json::Value;
use uuid::Uuid;

use crate::rig::clickhouse::Engine;
use crate::rig::server::{ANNA, BEN};
use crate::rig::{landing_zone, warehouse};

/// Anna's new pseudonym.
const CARLA: Uuid = Uuid::from_u128(0xca_41a);
/// The hour that the ward's events are of.
const HOUR: &str = "(toStartOfHour(now64(3, 'UTC')) - INTERVAL 3 HOUR)";
/// Events of each person and hour.
const EVENTS: u64 = 120;

/// Inserts that were seen long ago: nothing is waited for.
fn at_once() -> Options {
    Options { settle: Duration::ZERO, ..Options::default() }
}

fn admin(engine: &Engine) -> Warehouse {
    warehouse(engine, Limits { rows: 1_000_000, ..Limits::default() })
}

/// Anna and Ben wear a strap and a watch of one hub by turns for two hours, look at pages, and the hub has said all of it.
async fn ward() -> Option<Engine> {
    let engine = landing_zone().await?;
    events(&engine, ANNA, "strap", "0a", 0);
    events(&engine, ANNA, "watch", "0b", 1);
    events(&engine, BEN, "watch", "0c", 0);
    events(&engine, BEN, "strap", "0d", 1);
    for user in [ANNA, BEN] {
        engine.sql(&format!(
            "INSERT INTO user_activity (event_id, user_id, session_id, page, timestamp, duration) \
             SELECT generateUUIDv4(), '{user}', '7d9f0c7e-5c1e-4a4e-9f2b-0d8c6b1f3a55', '/home', {HOUR} + number, 10 FROM numbers(30)"
        ));
    }
    engine.sql(&format!(
        "INSERT INTO device_assignments (gateway_id, device_id, version, valid_from, valid_until, user_id, says, said_by, clock, revision) \
         VALUES ('hub', 'strap', 1, now64(3) - INTERVAL 1 DAY, NULL, '{ANNA}', 'person', 'entry', 'synced', 1), \
         ('hub', 'watch', 2, now64(3) - INTERVAL 1 DAY, NULL, '{BEN}', 'person', 'entry', 'synced', 1)"
    ));
    engine.sql(
        "INSERT INTO reconciliation (gateway_id, device_id, hour, count, ids_xor, version, said_at) \
         SETTINGS insert_allow_materialized_columns = 1 \
         SELECT gateway_id, device_id, toStartOfHour(timestamp) AS hour, count(), groupBitXor(toUInt128(event_id)), 1, \
         now64(3, 'UTC') - INTERVAL 1 HOUR FROM biometric_events GROUP BY gateway_id, device_id, hour",
    );
    refresh(&engine);
    Some(engine)
}

/// A person's events of one hour. Their ids begin with `head`.
fn events(engine: &Engine, user: Uuid, device: &str, head: &str, hour: u32) {
    engine.sql(&format!(
        "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id, gateway_id, metadata) \
         SELECT toUUID('{head}' || leftPad(toString(number), 6, '0') || '-0000-0000-0000-000000000000'), '{user}', 'heart_rate', \
         60 + number % 50, '/min', {HOUR} + INTERVAL {hour} HOUR + number, '{device}', 'hub', '{{\"profile\":\"p/1\"}}' FROM numbers({EVENTS})"
    ));
}

fn refresh(engine: &Engine) {
    for view in ["hourly_metrics_mv", "hourly_watermark_mv"] {
        engine.sql(&format!("SYSTEM REFRESH VIEW {view}"));
        engine.sql(&format!("SYSTEM WAIT VIEW {view}"));
    }
}

/// Each table that says whose a row is, and how many rows and which they are of this person.
fn rows(engine: &Engine, user: Uuid) -> Vec<String> {
    let tables = engine.sql(
        "SELECT DISTINCT table FROM system.columns WHERE database = currentDatabase() AND name = 'user_id' AND table IN \
         (SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree') \
         AND table != 'erasures' ORDER BY table",
    );
    let of = |table: &str| {
        let rows = engine.sql(&format!(
            "SELECT count(), groupBitXor(cityHash64(toString(tuple(*)))) FROM {table} WHERE user_id = '{user}' SETTINGS final = 0"
        ));
        format!("{table} {}", rows.trim())
    };
    tables.lines().map(of).collect()
}

/// The same without what is remembered, which a refresh may write anew at any time.
fn lasting(engine: &Engine, user: Uuid) -> Vec<String> {
    rows(engine, user).into_iter().filter(|row| !row.starts_with("hourly_rollup ")).collect()
}

fn nothing(rows: &[String]) -> bool {
    rows.len() >= 4 && rows.iter().all(|row| row.ends_with(" 0\t0"))
}

/// The numbers of a person's hours, without whose they are.
fn hours(engine: &Engine, user: Uuid) -> String {
    engine.sql(&format!(
        "SELECT event_type, component, unit, hour, count, sum_value, min_value, max_value FROM hourly_metrics \
         WHERE user_id = '{user}' ORDER BY ALL"
    ))
}

/// What the completeness views complain of.
fn complaints(engine: &Engine) -> String {
    let hubs =
        "SELECT hour, sent, stored, why FROM hub_hours WHERE why NOT IN ('complete', 'not judged yet') ORDER BY hour";
    engine.sql(hubs) + &engine.sql("SELECT * FROM reconciliation_gaps ORDER BY hour, device_id")
}

fn of<'a>(report: &'a Report, table: &str) -> &'a erase::TableReport {
    report.tables.iter().find(|row| row.table == table).unwrap()
}

#[tokio::test]
async fn an_erased_person_is_gone_everywhere_and_nobody_else_is_touched() {
    let Some(engine) = ward().await else { return };
    // A table of somebody's own, and a text that names Anna in one of Ben's rows.
    engine.sql("CREATE TABLE notes (user_id UUID, text String) ENGINE = MergeTree ORDER BY text");
    engine.sql(&format!("INSERT INTO notes VALUES ('{ANNA}', 'a'), ('{BEN}', 'b')"));
    engine.sql("CREATE TABLE letters (id UInt8, text String) ENGINE = MergeTree ORDER BY id");
    engine.sql(&format!("INSERT INTO letters VALUES (1, 'about {}, again'), (2, 'about nobody')", ANNA.simple()));
    // Her pseudonym as a text that is part of the key, without hyphens; and in the JSON of a table that is not hers.
    engine.sql("CREATE TABLE badges (user_id String, n UInt8) ENGINE = MergeTree ORDER BY user_id");
    engine.sql(&format!("INSERT INTO badges VALUES ('{}', 1), ('{BEN}', 2)", ANNA.simple().to_string().to_uppercase()));
    engine.sql("CREATE TABLE forms (id UInt8, form JSON) ENGINE = MergeTree ORDER BY id");
    engine.sql(&format!("INSERT INTO forms VALUES (1, '{{\"ward\":{{\"who\":\"{ANNA}\",\"bed\":3}}}}')"));
    assert_eq!(complaints(&engine), "");
    let (ben, ben_hours) = (lasting(&engine, BEN), hours(&engine, BEN));
    assert!(!nothing(&rows(&engine, ANNA)) && !hours(&engine, ANNA).is_empty());

    let report = erase::run(&admin(&engine), &Order::Erase { user: ANNA }, &at_once()).await.unwrap();

    assert!(report.is_done, "{report}");
    assert!(nothing(&rows(&engine, ANNA)), "{:#?}", rows(&engine, ANNA));
    assert_eq!(hours(&engine, ANNA), "");
    refresh(&engine);
    assert_eq!(hours(&engine, ANNA), "", "a refresh brings nothing back");
    assert_eq!((lasting(&engine, BEN), hours(&engine, BEN)), (ben, ben_hours));
    assert_eq!(complaints(&engine), "", "what was erased is not lost");
    let text = "SELECT text FROM letters ORDER BY id";
    assert_eq!(engine.sql(text), format!("about {}, again\nabout nobody\n", Uuid::nil()));
    assert_eq!(engine.sql("SELECT user_id, n FROM badges").trim(), format!("{BEN}\t2"));
    let form = engine.sql("SELECT form.ward.who, form.ward.bed FROM forms");
    assert_eq!(form.trim(), format!("{}\t3", Uuid::nil()));
    for (table, before) in [
        ("biometric_events", 2 * EVENTS),
        ("user_activity", 30),
        ("device_assignments", 1),
        ("notes", 1),
        ("badges", 1),
    ] {
        let row = of(&report, table);
        assert_eq!((row.before, row.taken, row.left), (before, before, 0), "{table}");
    }
    // The person's time with the strap stays said, or another's would reach into it.
    assert_eq!(engine.sql("SELECT count() FROM device_assignments FINAL").trim(), "2");
    // Of the order itself only the hash is left.
    let own = engine.sql("SELECT user_id, to_user, length(person), done_at IS NOT NULL FROM erasures FINAL");
    assert_eq!(own.trim(), format!("{0}\t{0}\t64\t1", Uuid::nil()));
    // A row that is lost is named all the same.
    engine.sql("ALTER TABLE biometric_events DELETE WHERE event_id = '0c000007-0000-0000-0000-000000000000' SETTINGS mutations_sync = 1");
    assert!(complaints(&engine).contains("rows are missing"), "{}", complaints(&engine));
}

#[tokio::test]
async fn an_erasure_told_again_finds_nothing_and_a_plan_changes_nothing() {
    let Some(engine) = ward().await else { return };
    let (order, admin) = (Order::Erase { user: ANNA }, admin(&engine));
    let before = rows(&engine, ANNA);
    let plan = erase::plan(&admin, &order, &at_once()).await.unwrap();
    assert_eq!((of(&plan, "biometric_events").before, plan.is_done), (2 * EVENTS, false));
    assert_eq!(rows(&engine, ANNA), before);
    assert_eq!(engine.sql("SELECT count() FROM erasures").trim(), "0");
    // Both sensors are named with their hub; the strap is still hers.
    let hub = plan.elsewhere.iter().find(|place| place.place.starts_with("hub ")).unwrap();
    assert_eq!(hub.place, "hub hub, strap, watch");
    assert!(hub.command.contains("biogate unassign strap") && !hub.command.contains("unassign watch"), "{hub:?}");
    for place in ["Kafka, biometric-events", "Kafka, device-assignments", "backups", "query_log"] {
        assert!(plan.elsewhere.iter().any(|there| there.place.contains(place)), "{place}");
    }

    assert!(erase::run(&admin, &order, &at_once()).await.unwrap().is_done);
    let again = erase::run(&admin, &order, &at_once()).await.unwrap();
    assert!(again.is_done && again.tables.iter().all(|row| (row.before, row.taken) == (0, 0)), "{again}");
    assert_eq!(complaints(&engine), "");
}

#[tokio::test]
async fn what_a_hub_sends_after_the_erasure_is_named_and_erased_once_more() {
    let Some(engine) = ward().await else { return };
    let admin = admin(&engine);
    erase::run(&admin, &Order::Erase { user: ANNA }, &at_once()).await.unwrap();
    assert!(erase::late(&admin, &at_once()).await.unwrap().is_empty());
    // Kafka is read again: the same rows as before. And a new one, which the hub counts into its hour.
    events(&engine, ANNA, "strap", "0a", 0);
    engine.sql(&format!(
        "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id, gateway_id) \
         VALUES ('0e000000-0000-0000-0000-000000000000', '{ANNA}', 'heart_rate', 70, '/min', {HOUR} + 3000, 'strap', 'hub')"
    ));
    engine.sql(&format!(
        "INSERT INTO reconciliation (gateway_id, device_id, hour, count, ids_xor, version, said_at) \
         SETTINGS insert_allow_materialized_columns = 1 \
         SELECT 'hub', 'strap', {HOUR}, {EVENTS} + 1, bitXor(ids_xor, toUInt128(toUUID('0e000000-0000-0000-0000-000000000000'))), 2, \
         now64(3, 'UTC') - INTERVAL 1 HOUR FROM reconciliation WHERE device_id = 'strap' AND hour = {HOUR}"
    ));
    let named = engine.sql("SELECT kind, gateway_id, device_id, rows FROM erased_late");
    assert_eq!(named.trim(), format!("erase\thub\tstrap\t{}", EVENTS + 1));

    let late = erase::late(&admin, &at_once()).await.unwrap();
    assert_eq!(late.iter().map(|late| (late.kind, late.user)).collect::<Vec<_>>(), [(Kind::Erase, ANNA)]);
    let report = erase::run(&admin, &Order::Erase { user: ANNA }, &at_once()).await.unwrap();
    assert_eq!((report.is_done, of(&report, "biometric_events").taken), (true, EVENTS + 1));
    assert_eq!(engine.sql("SELECT count() FROM erased_late").trim(), "0");
    assert_eq!(complaints(&engine), "", "a repeat that was erased is not counted twice");
}

#[tokio::test]
async fn rows_that_came_just_now_wait_for_a_round_of_their_own() {
    let Some(engine) = ward().await else { return };
    let options = Options { settle: Duration::from_secs(3), ..Options::default() };
    let report = erase::run(&admin(&engine), &Order::Erase { user: ANNA }, &options).await.unwrap();
    assert!(report.is_done && report.rounds >= 2, "{report}");
    assert!(nothing(&rows(&engine, ANNA)), "{:#?}", rows(&engine, ANNA));
    // Where there is no time for that, it says so, and the next run goes on.
    let options = Options { settle: Duration::from_secs(600), patience: Duration::from_secs(60), cluster: None };
    let report = erase::run(&admin(&engine), &Order::Erase { user: BEN }, &options).await.unwrap();
    assert!(!report.is_done && of(&report, "biometric_events").left == 2 * EVENTS, "{report}");
    let other = erase::run(&admin(&engine), &Order::Repseudonymise { user: BEN, to: CARLA }, &at_once()).await;
    assert!(matches!(&other, Err(Error::Refused(why)) if why.contains("begun and not finished")), "{other:?}");
    let report = erase::run(&admin(&engine), &Order::Erase { user: BEN }, &at_once()).await.unwrap();
    assert!(report.is_done && of(&report, "biometric_events").before == 2 * EVENTS, "{report}");
    assert_eq!(complaints(&engine), "");
}

#[tokio::test]
async fn a_new_pseudonym_has_the_same_numbers_and_the_old_one_has_none() {
    let Some(engine) = ward().await else { return };
    let admin = admin(&engine);
    // A corrected event and one that was taken away: neither comes back under the new name.
    engine.sql(
        "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id, gateway_id, version, deleted) \
         SELECT event_id, user_id, event_type, 99, unit, timestamp, device_id, gateway_id, 2, number FROM \
         (SELECT *, toUInt8(event_id = '0a000001-0000-0000-0000-000000000000') AS number FROM biometric_events \
         WHERE event_id IN ('0a000000-0000-0000-0000-000000000000', '0a000001-0000-0000-0000-000000000000'))"
    );
    let content = |user: Uuid| {
        engine.sql(&format!(
            "SELECT event_id, event_type, value, unit, timestamp, device_id, toString(metadata) FROM events \
             WHERE user_id = '{user}' ORDER BY event_id"
        ))
    };
    let (before, numbers, ben) = (content(ANNA), hours(&engine, ANNA), lasting(&engine, BEN));
    let complained = complaints(&engine);
    assert_eq!(before.lines().count() as u64, 2 * EVENTS - 1);

    let order = Order::Repseudonymise { user: ANNA, to: CARLA };
    let report = erase::run(&admin, &order, &at_once()).await.unwrap();

    assert!(report.is_done, "{report}");
    assert!(nothing(&rows(&engine, ANNA)), "{:#?}", rows(&engine, ANNA));
    assert_eq!((content(CARLA), hours(&engine, CARLA)), (before.clone(), numbers));
    assert_eq!((lasting(&engine, BEN), complaints(&engine)), (ben, complained));
    let worn = format!("SELECT device_id FROM device_assignments FINAL WHERE user_id = '{CARLA}'");
    assert_eq!(engine.sql(&worn).trim(), "strap");
    assert_eq!(engine.sql(&format!("SELECT count() FROM user_activity FINAL WHERE user_id = '{CARLA}'")).trim(), "30");
    // Told again nothing changes; and a pseudonym that was given up is not given to anybody else.
    assert!(erase::run(&admin, &order, &at_once()).await.unwrap().is_done);
    assert_eq!(content(CARLA), before);
    let refused = erase::run(&admin, &Order::Repseudonymise { user: BEN, to: ANNA }, &at_once()).await;
    assert!(matches!(&refused, Err(Error::Refused(why)) if why.contains("given up")), "{refused:?}");
}

#[tokio::test]
async fn what_would_do_harm_is_refused_before_anything_is_touched() {
    let Some(engine) = ward().await else { return };
    let admin = admin(&engine);
    for (order, why) in [
        (Order::Erase { user: Uuid::nil() }, "is nobody"),
        (Order::Repseudonymise { user: ANNA, to: ANNA }, "write another pseudonym"),
        (Order::Repseudonymise { user: ANNA, to: Uuid::nil() }, "write another pseudonym"),
    ] {
        let refused = erase::run(&admin, &order, &at_once()).await;
        assert!(matches!(&refused, Err(Error::Refused(words)) if words.contains(why)), "{refused:?}");
    }
    assert_eq!(engine.sql("SELECT count() FROM erasures").trim(), "0");
}

/// The program's configuration for this engine.
fn config(folder: &Path, engine: &Engine) -> std::path::PathBuf {
    let at = engine.settings();
    let section = |name: &str| {
        format!(
            "[{name}]\nurl = \"http://{}\"\ndatabase = {:?}\nuser = {:?}\npassword_file = {:?}\n",
            engine.address,
            engine.database,
            at.user.clone().unwrap(),
            at.password_file.clone().unwrap()
        )
    };
    let path = folder.join("analytics.toml");
    let api = format!("[api]\nlisten = \"127.0.0.1:0\"\ntokens_file = {:?}\n", folder.join("tokens.toml"));
    std::fs::write(&path, [section("warehouse"), section("admin"), api].concat()).unwrap();
    path
}

fn program(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_biogate-analytics"));
    command.arg("--config").arg(config).args(arguments).args(["--settle", "0s"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_reports_in_words_and_in_json() {
    let Some(engine) = ward().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &engine);
    let user = ANNA.to_string();
    let plan = program(&config, &["erase", "--user", &user, "--dry-run"]).output().unwrap();
    assert!(plan.status.success() && text(&plan).contains("nothing was changed"), "{}", text(&plan));
    let done = program(&config, &["erase", "--user", &user, "--json"]).output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&report["kind"], &report["is_done"]), (&"erase".into(), &true.into()), "{report}");
    assert!(!report.to_string().replace("query, '", "").contains(&format!("\"{user}\"")), "{report}");
    let late = program(&config, &["erase", "--late"]).output().unwrap();
    assert!(late.status.success() && text(&late).contains("no rows came"), "{}", text(&late));
    let refused = program(&config, &["repseudonymise", "--user", &user, "--to", &user]).output().unwrap();
    assert!(!refused.status.success() && text(&refused).contains("write another pseudonym"), "{}", text(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_something_is_left_the_command_says_what_and_fails() {
    let Some(engine) = ward().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &engine);
    // No row of such a table can be changed.
    engine.sql("CREATE TABLE lists (user_id UUID) ENGINE = Log");
    engine.sql(&format!("INSERT INTO lists VALUES ('{ANNA}')"));
    let done = program(&config, &["erase", "--user", &ANNA.to_string(), "--json"]).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", text(&done));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let left: Vec<_> = report["tables"].as_array().unwrap().iter().filter(|row| row["left"] != 0).collect();
    assert!(left.len() == 1 && left[0]["table"] == "lists" && report["is_done"] == false, "{report}");
    engine.sql("DROP TABLE lists");
    let done = program(&config, &["erase", "--user", &ANNA.to_string()]).output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    // A pseudonym that was given up has rows again: only who gave it up can move them.
    let (ben, carla) = (BEN.to_string(), CARLA.to_string());
    let moved = program(&config, &["repseudonymise", "--user", &ben, "--to", &carla]).output().unwrap();
    assert!(moved.status.success(), "{}", text(&moved));
    events(&engine, BEN, "watch", "0c", 0);
    events(&engine, ANNA, "strap", "0a", 0);
    let late = program(&config, &["erase", "--late"]).output().unwrap();
    assert_eq!(late.status.code(), Some(1), "{}", text(&late));
    assert_eq!(lasting(&engine, ANNA).iter().filter(|row| !row.ends_with(" 0\t0")).count(), 0);
}

/// SIGKILL at later and later instants: whatever the order left half done, the next run ends it, and no number is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_killed_again_and_again_is_ended_by_the_next_run() {
    let Some(engine) = ward().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &engine);
    let (anna, carla, ben) = (ANNA.to_string(), CARLA.to_string(), lasting(&engine, BEN));
    let numbers = hours(&engine, ANNA);
    for arguments in [vec!["repseudonymise", "--user", &anna, "--to", &carla], vec!["erase", "--user", &carla]] {
        let mut kills = 0;
        for nth in 1..40 {
            let mut child = program(&config, &arguments).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(60 * nth)).await;
            match child.try_wait().unwrap() {
                None => kills += 1,
                Some(_) => break,
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(kills >= 3, "{kills} kills");
        let end = program(&config, &arguments).output().unwrap();
        assert!(end.status.success(), "{}", text(&end));
        assert_eq!((complaints(&engine), lasting(&engine, BEN)), (String::new(), ben.clone()));
        if arguments[0] == "repseudonymise" {
            assert_eq!(hours(&engine, CARLA), numbers);
        }
    }
    assert!(nothing(&rows(&engine, ANNA)) && nothing(&rows(&engine, CARLA)));
    assert_eq!(hours(&engine, CARLA), "");
}
