//! `deploy/kafka/`: the topics on a real broker, and what a sink makes of the gateway's records.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use biogate::event::ClockQuality;
use biogate::event::Event;
use biogate::forward::clickhouse::schema;
use biogate::observation::EventType;
use biogate::report::Kind;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::reports::sample;
use crate::rig::clickhouse::Engine;
use crate::rig::kafka::{self, Kafka};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kafka").join(path)
}

/// Apache Kafka's own tools under the names that its image has, from the broker's jars.
pub(crate) fn tools(folder: &Path, jars: &Path) {
    for (name, class) in [
        ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
        ("kafka-configs.sh", "kafka.admin.ConfigCommand"),
        ("kafka-acls.sh", "org.apache.kafka.tools.AclCommand"),
    ] {
        let path = folder.join(name);
        let java = format!("#!/bin/sh\nexec java -XX:TieredStopAtLevel=1 -cp '{}/*' {class} \"$@\"\n", jars.display());
        std::fs::write(&path, java).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

struct Topics {
    bin: tempfile::TempDir,
    broker: Kafka,
}

impl Topics {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut script = Command::new("bash");
        script.arg(deploy("topics.sh")).args(["--bootstrap-server", &self.broker.brokers]).args(arguments);
        script.env("KAFKA_BIN", self.bin.path()).output().unwrap()
    }

    fn said(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
        let said = said.lines().filter(|line| line.starts_with("topics.sh:")).map(|line| format!("{line}\n")).collect();
        (output.status.code().unwrap(), said)
    }
}

#[test]
fn topics_are_made_once_mended_where_that_is_harmless_and_named_where_it_is_not() {
    let Some(broker) = Kafka::own(&[]) else { return };
    let topics = Topics { bin: tempfile::tempdir().unwrap(), broker };
    tools(topics.bin.path(), &kafka::jars().unwrap());
    // Somebody made this one by hand, and this one otherwise than it should be.
    topics.broker.make_topic("user-activity", 2, &[("retention.ms", "1209600000")]);
    topics.broker.make_topic(
        "device-assignments",
        1,
        &[("retention.ms", "1000"), ("message.timestamp.type", "LogAppendTime")],
    );

    let (code, said) = topics.said(&["--check"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("biometric-events is missing") && said.contains("device-assignments lacks retention.ms=-1"),
        "{said}"
    );

    let (code, said) = topics.said(&[]);
    assert!(
        said.contains("made biometric-events, 12 partitions") && said.contains("made biogate-cursors, 1 "),
        "{said}"
    );
    assert!(said.contains("set retention.ms=-1 of device-assignments"), "{said}");
    assert!(code == 1 && said.contains("user-activity has 2 partitions, and not 6: left as it is"), "{said}");

    let (code, said) = topics.said(&["--check"]);
    assert_eq!((code, said.as_str()), (1, "topics.sh: user-activity has 2 partitions, and not 6: left as it is\n"));
}

/// Topics that the gateway writes to by its defaults are all in the file.
#[test]
fn every_topic_of_the_gateway_is_made() {
    let conf = std::fs::read_to_string(deploy("topics.conf")).unwrap();
    let made: Vec<&str> = conf.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let reports = biogate::report::Kind::ALL.iter().map(|kind| kind.topic());
    for topic in reports.chain(["biometric-events", "biogate-cursors", "user-activity"]) {
        assert!(made.contains(&topic), "{topic}");
    }
}

/// Settings of the ClickHouse sink by its documentation (clickhouse.com, "ClickHouse Kafka Connect Sink", configuration
/// options, and its release notes up to 1.3), and of Connect itself.
const SINK: &[&str] = &[
    "hostname",
    "port",
    "ssl",
    "jdbcConnectionProperties",
    "username",
    "password",
    "database",
    "exactlyOnce",
    "zkPath",
    "zkDatabase",
    "clickhouseSettings",
    "topic2TableMap",
    "tableRefreshInterval",
    "keeperOnCluster",
    "bypassRowBinary",
    "dateTimeFormats",
    "tolerateStateMismatch",
    "ignorePartitionsWhenBatching",
    "bypassSchemaValidation",
    "suppressTableExistenceException",
    "customInsertFormat",
];
pub(crate) const CONNECT: &[&str] = &[
    "connector.class",
    "tasks.max",
    "topics",
    "key.converter",
    "value.converter",
    "value.converter.schemas.enable",
    "errors.tolerance",
    "errors.deadletterqueue.topic.name",
    "errors.deadletterqueue.topic.replication.factor",
    "errors.deadletterqueue.context.headers.enable",
    "errors.log.enable",
    "errors.log.include.messages",
    "consumer.override.isolation.level",
    "consumer.override.max.poll.records",
    "consumer.override.fetch.min.bytes",
    "consumer.override.fetch.max.wait.ms",
];

struct Sink(Value);

impl Sink {
    fn read() -> Sink {
        Sink(serde_json::from_str(&std::fs::read_to_string(deploy("clickhouse-sink.json")).unwrap()).unwrap())
    }

    fn setting(&self, name: &str) -> &str {
        self.0["config"][name].as_str().unwrap_or_else(|| panic!("no {name}"))
    }

    /// Topic and table.
    fn tables(&self) -> Vec<(&str, &str)> {
        let map: Vec<_> = self.setting("topic2TableMap").split(',').map(|pair| pair.split_once('=').unwrap()).collect();
        let table = |topic| map.iter().find(|(from, _)| *from == topic).map_or(topic, |(_, table)| *table);
        self.setting("topics").split(',').map(|topic| (topic, table(topic))).collect()
    }
}

#[test]
fn the_sinks_settings_are_ones_that_it_has_and_hold_no_secret() {
    let sink = Sink::read();
    for (name, value) in sink.0["config"].as_object().unwrap() {
        assert!(SINK.contains(&name.as_str()) || CONNECT.contains(&name.as_str()), "{name} is no setting");
        assert!(value.is_string(), "Connect takes texts only: {name}");
    }
    assert!(sink.setting("password").starts_with("${dir:"), "the password is a reference");
    let conf = std::fs::read_to_string(deploy("topics.conf")).unwrap();
    let dead = sink.setting("errors.deadletterqueue.topic.name");
    for topic in sink.tables().into_iter().map(|(topic, _)| topic).chain([dead]) {
        assert!(conf.lines().any(|line| line.split_whitespace().next() == Some(topic)), "nobody makes {topic}");
    }
}

/// An event with everything that one can have.
fn event() -> Event {
    Event {
        event_id: Uuid::from_u128(1),
        user_id: Uuid::from_u128(2),
        event_type: EventType::Steps,
        component: "".into(),
        value: 12.0,
        unit: EventType::Steps.unit(),
        timestamp: 1_790_000_000_123,
        period_start: Some(1_789_999_940_456),
        tz_offset_min: 120,
        device_id: "band".into(),
        gateway_id: "hub-1".into(),
        location: Some("room 12".into()),
        clock: ClockQuality::Synced,
        metadata: vec![("battery".into(), biogate::observation::Value::Num(80.0))],
        version: 1,
        deleted: 0,
    }
}

fn page_view() -> Value {
    json!({"event_id": Uuid::from_u128(3), "user_id": Uuid::from_u128(2), "session_id": Uuid::from_u128(4), "page": "/",
           "action": "view", "timestamp": 1_790_000_000_123_i64, "duration": 5, "device": "tablet", "browser": "x"})
}

const EVENT: &str = "SELECT event_type, value, toUnixTimestamp64Milli(timestamp), toUnixTimestamp64Milli(period_start), \
                     location, metadata.battery::Float64 FROM biometric_events";
const ROW: &str = "steps\t12\t1790000000123\t1789999940456\troom 12\t80\n";

#[test]
fn records_as_the_gateway_writes_them_become_rows_under_the_sinks_settings() {
    let Some(engine) = Engine::shared() else { return };
    engine.make_database();
    schema::statements("biometric_events").iter().for_each(|statement| drop(engine.sql(statement)));
    let sink = Sink::read();
    for (topic, table) in sink.tables() {
        let record = match (topic, Kind::ALL.into_iter().find(|kind| kind.topic() == topic)) {
            (_, Some(kind)) => sample(kind).row,
            ("user-activity", None) => page_view().to_string(),
            (_, None) => serde_json::to_string(&event()).unwrap(),
        };
        let settings = sink
            .setting("clickhouseSettings")
            .replace("date_time_input_format=best_effort", "date_time_input_format='best_effort'");
        engine.sql(&format!("INSERT INTO {table} SETTINGS {settings} FORMAT JSONEachRow {record}"));
        assert_eq!(engine.sql(&format!("SELECT count() FROM {table}")).trim(), "1", "{topic}");
        times_are_the_records(&engine, table, &serde_json::from_str(&record).unwrap());
    }
    assert_eq!(engine.sql(EVENT), ROW);
    let seen = engine.sql("SELECT toUnixTimestamp64Milli(assumeNotNull(devices.last_seen[1])) FROM gateway_status");
    assert_eq!(seen.trim(), "1790000000000");
}

/// Every column of a time holds the record's milliseconds. One of whole seconds would read them as seconds, to the year 2106.
fn times_are_the_records(engine: &Engine, table: &str, record: &Value) {
    let columns = engine.sql(&format!(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = '{table}' \
         AND type LIKE '%DateTime%' AND type NOT LIKE 'Array%' AND default_kind != 'MATERIALIZED'"
    ));
    assert!(!columns.is_empty(), "{table}");
    for name in columns.lines() {
        let read = engine.sql(&format!("SELECT toUnixTimestamp64Milli(toDateTime64({name}, 3, 'UTC')) FROM {table}"));
        let said = record[name].as_i64().map_or("\\N".to_owned(), |at| at.to_string());
        assert_eq!(read.trim(), said, "{table}.{name}");
    }
}

#[test]
fn the_kafka_engines_statements_parse_and_its_views_make_the_same_rows() {
    let Some(engine) = Engine::shared() else { return };
    engine.make_database();
    schema::statements("biometric_events").iter().for_each(|statement| drop(engine.sql(statement)));
    let text = std::fs::read_to_string(deploy("../clickhouse/kafka_engine.sql")).unwrap();
    let code: String = text.lines().map(|line| line.split("--").next().unwrap().to_owned() + "\n").collect();
    for statement in code.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        engine.sql(&format!("EXPLAIN AST {statement}"));
        let statement = statement.trim();
        if statement.contains("ENGINE = Kafka") {
            // The engine of the tests must not hold one: an ordinary table that also has the columns of a bad record.
            let (columns, _) = statement.split_once(") ENGINE = Kafka").unwrap();
            engine.sql(&format!(
                "{columns}, _error String, _raw_message String, _topic String, _partition UInt64, _offset UInt64) ENGINE = Null"
            ));
        } else {
            engine.sql(statement);
        }
    }
    let record = serde_json::to_string(&event()).unwrap();
    engine.sql(&format!(
        "INSERT INTO kafka_biometric_events SETTINGS input_format_json_read_objects_as_strings=1, async_insert=0 FORMAT JSONEachRow {record}"
    ));
    engine.sql(
        "INSERT INTO kafka_biometric_events (_error, _raw_message, _topic, _partition, _offset) VALUES \
         ('no JSON', '{broken', 'biometric-events', 3, 17)",
    );
    assert_eq!(engine.sql(EVENT), ROW);
    assert_eq!(
        engine.sql("SELECT topic, partition, position, error, record FROM kafka_refused"),
        "biometric-events\t3\t17\tno JSON\t{broken\n"
    );
}
