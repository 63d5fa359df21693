//! `biogate schema`: what is applied is what is compared, and a difference is named.

use biogate::forward::clickhouse::difference::{self, Difference};
use biogate::forward::clickhouse::schema;

use crate::rig::clickhouse::Engine;

async fn differences(engine: &Engine) -> Vec<String> {
    let found = difference::find(&engine.settings(), None).await.unwrap();
    found.iter().map(Difference::to_string).collect()
}

#[tokio::test]
async fn what_was_applied_is_no_difference_and_applied_again_nothing_is_new() {
    let Some(engine) = Engine::shared() else { return };
    let nothing = differences(&engine).await;
    assert!(
        nothing.iter().any(|line| line == "biometric_events is missing, expected ReplacingMergeTree"),
        "{nothing:?}"
    );
    assert!(nothing.iter().any(|line| line == "hourly_metrics is missing, expected View"), "{nothing:?}");
    let first = schema::apply_and_tell(&engine.settings(), None).await.unwrap().ledger;
    assert!(first.new.iter().any(|name| name == "0001_landing_zone") && first.changed.is_empty(), "{first:?}");
    assert_eq!(differences(&engine).await, [""; 0]);
    let tables =
        "SELECT name, uuid, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name";
    let before = engine.sql(tables);
    let second = schema::apply_and_tell(&engine.settings(), None).await.unwrap().ledger;
    assert_eq!(second, Default::default());
    assert_eq!(engine.sql(tables), before);
    assert_eq!(engine.sql("SELECT count() FROM schema_migrations").trim(), first.new.len().to_string());
}

#[tokio::test]
async fn a_file_that_said_something_else_is_named_once_and_so_is_one_of_a_newer_program() {
    let Some(engine) = Engine::shared() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    engine.sql("ALTER TABLE schema_migrations DELETE WHERE name = '0001_landing_zone' SETTINGS mutations_sync = 1");
    engine.sql(
        "INSERT INTO schema_migrations (name, checksum, agent_version) VALUES ('0001_landing_zone', generateUUIDv4(), '0'), \
         ('9999_later', generateUUIDv4(), '9')",
    );
    let ledger = schema::apply_and_tell(&engine.settings(), None).await.unwrap().ledger;
    assert_eq!(
        (ledger.changed, ledger.unknown.clone()),
        (vec!["0001_landing_zone".to_owned()], vec!["9999_later".to_owned()])
    );
    let ledger = schema::apply_and_tell(&engine.settings(), None).await.unwrap().ledger;
    assert_eq!((ledger.changed.len(), ledger.unknown.len()), (0, 1));
}

#[tokio::test]
async fn each_difference_is_named_with_what_is_there_and_what_should_be() {
    let Some(engine) = Engine::shared() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    for change in [
        "DROP VIEW device_hours",
        "ALTER TABLE biometric_events MODIFY SETTING non_replicated_deduplication_window = 100",
        "ALTER TABLE biometric_events MODIFY TTL toDateTime(timestamp) + INTERVAL 2 YEAR",
        "ALTER TABLE biometric_events ADD COLUMN own String",
        "ALTER TABLE user_activity DROP COLUMN browser",
        "ALTER TABLE coverage MODIFY COLUMN measured UInt32",
        "ALTER TABLE user_activity MODIFY COLUMN version DEFAULT 2",
        "ALTER TABLE coverage COMMENT COLUMN aside 'Put away'",
        "CREATE OR REPLACE VIEW events AS SELECT * FROM biometric_events",
        "DROP TABLE reconciliation",
        "CREATE TABLE reconciliation (gateway_id LowCardinality(String), device_id LowCardinality(String), \
         hour DateTime64(3, 'UTC'), count UInt64, ids_xor UInt128, version UInt64, \
         said_at DateTime64(3, 'UTC') MATERIALIZED nowInBlock64(3)) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(hour) \
         ORDER BY (gateway_id, hour) TTL toDateTime(hour) + INTERVAL 1 YEAR \
         SETTINGS non_replicated_deduplication_window = 10000",
    ] {
        engine.sql(change);
    }
    let found = differences(&engine).await;
    for expected in [
        "device_hours is missing, expected View",
        "biometric_events: setting non_replicated_deduplication_window is 100, expected 10000",
        "biometric_events: TTL is toDateTime(timestamp) + toIntervalYear(2), expected toDateTime(timestamp) + INTERVAL 1 YEAR DELETE",
        "user_activity: column browser is missing, expected LowCardinality(String)",
        "coverage: column measured is UInt32, expected UInt16",
        "coverage: comment of column aside is Put away, expected Seconds whose readings were set aside in the hub. Example: 0",
        "user_activity: default of column version is DEFAULT 2, expected DEFAULT 1",
        "reconciliation: sort key is gateway_id, hour, expected (gateway_id, device_id, hour)",
        "reconciliation: setting merge_with_ttl_timeout is missing, expected 86400",
    ] {
        assert!(found.iter().any(|line| line == expected), "{expected}: {found:#?}");
    }
    assert!(
        found.iter().any(|line| line.starts_with("reconciliation: engine is ReplacingMergeTree PART")),
        "{found:#?}"
    );
    assert!(found.iter().any(|line| line.starts_with("events: select is")), "{found:#?}");
    // The table that was made anew has lost its comments, each of which is named.
    let others = found.iter().filter(|line| !line.starts_with("reconciliation: comment of column "));
    assert_eq!(others.count(), 11, "a column of one's own is no difference: {found:#?}");
}

/// There is no Keeper here, so nothing of a cluster runs: the engine's parser takes every statement, and its replicated
/// tables, said without their cluster, stop at the missing Keeper only.
#[tokio::test]
async fn the_engine_understands_every_statement_of_the_clusters_form() {
    let Some(engine) = Engine::shared() else { return };
    engine.make_database();
    let script = schema::cluster_script("ward", &engine.database);
    let statements: Vec<&str> = script.split(";\n\n").filter(|statement| !statement.is_empty()).collect();
    for statement in &statements {
        let tree = engine.sql(&format!("EXPLAIN AST {statement}"));
        assert!(tree.contains("Create") || tree.contains("Alter"), "{statement}: {tree}");
        assert!(statement.contains(" ON CLUSTER 'ward'"), "{statement}");
    }
    let replicated = statements.iter().filter(|statement| statement.contains("ENGINE = Replicated")).count();
    let distributed = statements.iter().filter(|statement| statement.contains("ENGINE = Distributed")).count();
    assert!(replicated >= 10 && distributed > replicated, "{replicated} {distributed}");
}

/// The shards' halves on one server: with their engines unreplicated and views in place of the Distributed tables, each
/// name answers what the single server's does.
#[tokio::test]
async fn the_shards_half_answers_as_one_server_does() {
    let Some(engine) = Engine::shared() else { return };
    engine.make_database();
    let script = schema::cluster_script("ward", &engine.database);
    for statement in script.split(";\n\n").filter(|statement| !statement.is_empty()).skip(1) {
        let plain = statement
            .replace(" ON CLUSTER 'ward'", "")
            .replace("ENGINE = Replicated", "ENGINE = ")
            .replace("'/clickhouse/tables/{uuid}/{shard}', '{replica}', ", "")
            .replace("('/clickhouse/tables/{uuid}/{shard}', '{replica}')", "")
            .replace(
                "replicated_deduplication_window=10000, replicated_deduplication_window_seconds=604800",
                "non_replicated_deduplication_window=10000",
            );
        let plain = match plain.split_once("\nENGINE = Distributed") {
            Some((head, _)) => {
                let name = head.trim_start_matches("CREATE TABLE IF NOT EXISTS ").split(' ').next().unwrap();
                // What a Distributed table does with the columns of its local one: takes them over.
                engine.sql(&format!("CREATE TABLE {name}_columns AS {name}_local ENGINE = Memory"));
                engine.sql(&format!("DROP TABLE {name}_columns"));
                format!("CREATE TABLE {name} AS {name}_local ENGINE = Merge(currentDatabase(), '^{name}_local$')")
            }
            None => plain,
        };
        engine.sql(&plain);
    }
    engine.sql(
        "INSERT INTO biometric_events_local (event_id, user_id, event_type, value, unit, timestamp, device_id, gateway_id) \
         SELECT generateUUIDv4(), toUUID('00000000-0000-0000-0000-000000000007'), 'heart_rate', number, '/min', \
         toDateTime64('2026-11-20 10:00:00', 3, 'UTC') + number, 'strap', 'hub-1' FROM numbers(100)",
    );
    assert_eq!(engine.sql("SELECT count, min_value, max_value FROM hourly_metrics").trim(), "100\t0\t99");
    assert_eq!(engine.sql("SELECT count() FROM events").trim(), "100");
    for view in ["hub_hours", "hub_complete", "device_hours", "reconciliation_gaps", "gateway_now", "session_metrics"] {
        assert_eq!(engine.sql(&format!("SELECT count() FROM {view}")).trim(), "0", "{view}");
    }
}

#[tokio::test]
async fn the_data_dictionary_names_the_columns_that_the_engine_has() {
    let Some(engine) = Engine::shared() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    let text = include_str!("../../docs/data.md");
    let mut tables = 0;
    for section in text.split("\n### ").skip(1) {
        let (name, rest) = section.split_once('\n').unwrap();
        let rows = rest.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let written: Vec<&str> = rows.map(|(column, _)| column).collect();
        let columns = engine.sql(&format!(
            "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = '{name}' ORDER BY position"
        ));
        assert_eq!(written, columns.lines().collect::<Vec<_>>(), "{name}");
        tables += 1;
    }
    let all = engine
        .sql("SELECT count() FROM system.tables WHERE database = currentDatabase() AND engine != 'MaterializedView'");
    assert_eq!(all.trim(), tables.to_string());
    let comment = "SELECT comment FROM system.columns WHERE database = currentDatabase() AND table = 'coverage' AND name = 'aside'";
    assert_eq!(engine.sql(comment).trim(), "Seconds whose readings were set aside in the hub. Example: 0");
}
