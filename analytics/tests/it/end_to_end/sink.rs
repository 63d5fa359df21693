//! A small consumer in the place of the ClickHouse sink connector: it reads the topics that the sink's own settings name,
//! as a reader of committed records, and writes each record into the table and with the settings that they name.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::rig::DEADLINE;
use crate::rig::clickhouse::{Engine, root};
use crate::rig::kafka::{Isolation, Kafka};

/// Records in one insert.
const AT_ONCE: usize = 5_000;

/// `deploy/kafka/clickhouse-sink.json`.
pub(crate) struct Sink(Value);

impl Sink {
    pub(crate) fn read() -> Sink {
        let text = std::fs::read_to_string(root().join("deploy/kafka/clickhouse-sink.json")).unwrap();
        Sink(serde_json::from_str(&text).unwrap())
    }

    fn setting(&self, name: &str) -> &str {
        self.0["config"][name].as_str().unwrap_or_else(|| panic!("the sink has no {name}"))
    }

    /// Topic and table.
    pub(crate) fn tables(&self) -> Vec<(&str, &str)> {
        let map: Vec<_> = self.setting("topic2TableMap").split(',').map(|pair| pair.split_once('=').unwrap()).collect();
        let table = |topic| map.iter().find(|(from, _)| *from == topic).map_or(topic, |(_, table)| *table);
        self.setting("topics").split(',').map(|topic| (topic, table(topic))).collect()
    }

    /// As the platform's own programs and the sink write rows.
    pub(crate) fn insert(&self, engine: &Engine, table: &str, rows: &[Value]) {
        let settings = self.setting("clickhouseSettings");
        let settings = settings.replace("date_time_input_format=best_effort", "date_time_input_format='best_effort'");
        for rows in rows.chunks(AT_ONCE) {
            let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
            engine.sql(&format!("INSERT INTO {table} SETTINGS {settings} FORMAT JSONEachRow {lines}"));
        }
    }

    /// Everything that is in the topics, from their beginning.
    pub(crate) fn run(&self, kafka: &Kafka, engine: &Engine) {
        for (topic, table) in self.tables() {
            let records = kafka.read(topic, Isolation::Committed);
            let rows: Vec<Value> = records.into_iter().map(|record| record.value).collect();
            self.insert(engine, table, &rows);
        }
    }
}

/// Records without a key, as a web page's backend produces them.
pub(crate) fn produce(kafka: &Kafka, topic: &str, rows: &[Value]) {
    let producer: BaseProducer = kafka.client().create().unwrap();
    for row in rows {
        let text = row.to_string();
        producer.send(BaseRecord::<str, str>::to(topic).payload(&text)).map_err(|(why, _)| why).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
}
