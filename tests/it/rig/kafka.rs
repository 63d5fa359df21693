//! A real Apache Kafka (tests/servers/kafka): the one that all tests share, or one of a test's own; topics and readers.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use super::clickhouse::root;
use super::{DEADLINE, missing};

/// Running brokers. Those of the test's own are killed and removed with it.
pub(crate) struct Kafka {
    /// Bootstrap addresses of the plain listener.
    pub(crate) brokers: String,
    environment: HashMap<String, String>,
    own: Option<TempDir>,
}

/// What a reader is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Everything, of open and aborted transactions too.
    Uncommitted,
    /// As far as the last transaction that is decided, without the aborted ones.
    Committed,
}

/// One record of a topic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) headers: HashMap<String, String>,
}

impl Kafka {
    /// The broker that all tests share, started by `make test`; else one of the test's own. It has TLS and rights.
    pub(crate) fn shared() -> Option<Kafka> {
        if std::env::var_os("KAFKA_BROKERS").is_none() {
            return Kafka::own(&["--tls"]);
        }
        let environment: HashMap<String, String> =
            std::env::vars().filter(|(name, _)| name.starts_with("KAFKA_")).collect();
        Some(Kafka { brokers: environment["KAFKA_BROKERS"].clone(), environment, own: None })
    }

    /// Brokers that only this test uses, with options of `kafka.sh start`: they can be killed and paused.
    pub(crate) fn own(options: &[&str]) -> Option<Kafka> {
        let Some(lib) = lib() else {
            missing("Kafka (tests/servers/kafka/kafka.sh install)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let lib = lib.to_str().unwrap();
        let mut kafka = Kafka { brokers: String::new(), environment: HashMap::new(), own: Some(dir) };
        let printed = kafka.script("start", &[&["--lib", lib], options].concat());
        let lines = printed.lines().filter_map(|line| line.split_once('='));
        kafka.environment = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        kafka.brokers = kafka.environment["KAFKA_BROKERS"].clone();
        Some(kafka)
    }

    /// Brokers that the test started itself.
    pub(crate) fn at(brokers: String) -> Kafka {
        Kafka { brokers, environment: HashMap::new(), own: None }
    }

    /// Bootstrap addresses of the listener that wants a client's certificate.
    pub(crate) fn ssl(&self) -> &str {
        &self.environment["KAFKA_BROKERS_SSL"]
    }

    /// Bootstrap addresses of the listener with TLS and SCRAM-SHA-512, for the users `gateway` and `outsider`.
    pub(crate) fn sasl_ssl(&self) -> &str {
        &self.environment["KAFKA_BROKERS_SASL_SSL"]
    }

    /// `ca.pem`, and certificate and key of `client`, `outsider` (no rights) and `stranger` (of `stranger-ca.pem`).
    pub(crate) fn tls(&self, file: &str) -> PathBuf {
        Path::new(&self.environment["KAFKA_TLS"]).join(file)
    }

    /// Both users' password.
    pub(crate) fn password(&self) -> &str {
        &self.environment["KAFKA_SASL_PASSWORD"]
    }

    /// Lets `outsider` write to a topic.
    pub(crate) fn grant(&self, topic: &str) {
        self.script("grant", &[topic]);
    }

    /// SIGKILL to a broker of the test's own, counted from 1.
    pub(crate) fn kill(&self, node: i32) {
        self.script("kill", &[&node.to_string()]);
    }

    /// Starts again what was killed, with its data and at its port.
    pub(crate) fn start(&self) {
        self.script("start", &[]);
    }

    /// SIGSTOP to the first broker of the test's own: it neither answers nor hangs up.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Makes a topic of a new name.
    pub(crate) fn topic(&self, partitions: i32) -> String {
        self.topic_with(partitions, &[])
    }

    /// The same, with settings of the topic.
    pub(crate) fn topic_with(&self, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = format!("events-{}", Uuid::new_v4().simple());
        self.make_topic(&name, partitions, settings);
        name
    }

    /// Makes a topic of this name.
    pub(crate) fn make_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let replicas = self.brokers.split(',').count().try_into().unwrap();
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let made = block_on(|| admin.create_topics([&topic], &AdminOptions::new())).unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// Changes a setting of a topic.
    pub(crate) fn alter_topic(&self, topic: &str, setting: &str, value: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(setting, value);
        let altered = block_on(|| admin.alter_configs([&change], &AdminOptions::new())).unwrap();
        assert!(altered.iter().all(Result::is_ok), "{altered:?}");
    }

    /// All records of a topic from its beginning to the end that this isolation sees, partition by partition in order.
    pub(crate) fn read(&self, topic: &str, isolation: Isolation) -> Vec<Record> {
        let isolation = match isolation {
            Isolation::Uncommitted => "read_uncommitted",
            Isolation::Committed => "read_committed",
        };
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", Uuid::new_v4().to_string())
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let partitions = partitions(&consumer, topic);
        let mut from_the_beginning = TopicPartitionList::new();
        for (partition, _) in &partitions {
            from_the_beginning.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&from_the_beginning).unwrap();
        let (mut records, mut ended, end) = (Vec::new(), HashSet::new(), Instant::now() + DEADLINE);
        while ended.len() < partitions.len() {
            assert!(Instant::now() < end, "the end of {topic} is not reached in time");
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(message)) => records.push(record(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
                // A broker that was killed; the others have its partitions.
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure))) => {}
                Some(Err(error)) => panic!("reading {topic}: {error}"),
            }
        }
        records.sort_by_key(|record| record.partition);
        records
    }

    /// Reads until there are so many: a commit is acknowledged before its markers are in every partition.
    pub(crate) fn read_at_least(&self, topic: &str, count: usize, isolation: Isolation) -> Vec<Record> {
        let end = Instant::now() + DEADLINE;
        loop {
            let records = self.read(topic, isolation);
            if records.len() >= count {
                return records;
            }
            assert!(Instant::now() < end, "{} of {count} records in {topic}", records.len());
        }
    }

    /// The number of the broker that leads a topic's first partition.
    pub(crate) fn leader(&self, topic: &str) -> i32 {
        let consumer: BaseConsumer = self.client().create().unwrap();
        partitions(&consumer, topic)[0].1
    }

    /// A client of the plain listener that says nothing on standard error.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    fn signal(&self, signal: Signal) {
        let own = self.own.as_ref().expect("only the test's own broker gets signals");
        let pid = std::fs::read_to_string(own.path().join("node1/pid")).unwrap();
        kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), signal).unwrap();
    }

    fn script(&self, verb: &str, arguments: &[&str]) -> String {
        let dir = match &self.own {
            Some(own) => own.path(),
            None => Path::new(&self.environment["KAFKA_DIR"]),
        };
        assert!(self.own.is_some() || verb == "grant", "only the test's own broker does {verb}");
        let output = script(verb, dir, arguments);
        assert!(output.status.success(), "kafka.sh {verb}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let Some(own) = &self.own else { return };
        // One call for each: a broker that runs no more is no reason to leave the others.
        for node in 1..=3 {
            if own.path().join(format!("node{node}/pid")).exists() {
                script("kill", own.path(), &[&node.to_string()]);
            }
        }
    }
}

/// Each of so many events once, and each device's in the order of their time and in one partition.
pub(crate) fn assert_once_in_order(records: &[Record], count: usize) {
    let ids: HashSet<&str> = records.iter().map(|record| record.value["event_id"].as_str().unwrap()).collect();
    assert_eq!((records.len(), ids.len()), (count, count), "records, and different events among them");
    let mut newest: HashMap<&str, (i32, u64)> = HashMap::new();
    for record in records {
        let at = (record.partition, record.value["timestamp"].as_u64().unwrap());
        if let Some(before) = newest.insert(&record.key, at) {
            assert_eq!(before.0, at.0, "{} is in one partition", record.key);
            assert!(before.1 < at.1, "{}: {} after {}", record.key, at.1, before.1);
        }
    }
}

/// A runtime of its own on a thread of its own: tests with and without a runtime ask the broker.
fn block_on<T: Send, F: Future<Output = T>>(ask: impl FnOnce() -> F + Send) -> T {
    let asked = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask())
    };
    std::thread::scope(|scope| scope.spawn(asked).join().unwrap())
}

fn script(verb: &str, dir: &Path, arguments: &[&str]) -> Output {
    let script = root().join("tests/servers/kafka/kafka.sh");
    Command::new("bash").arg(script).arg(verb).arg(dir).args(arguments).output().unwrap()
}

/// The broker's jars, with Kafka's own tools among them.
pub(crate) fn jars() -> Option<PathBuf> {
    lib().map(|lib| lib.join("lib"))
}

/// The folder with the jars, installed on first use.
fn lib() -> Option<&'static Path> {
    static LIB: OnceLock<Option<PathBuf>> = OnceLock::new();
    LIB.get_or_init(|| {
        let dir = std::env::var_os("BIOGATE_TEST_SERVERS").map(PathBuf::from);
        let dir = dir.unwrap_or_else(|| root().join("target/test-servers"));
        let dir = dir.join("kafka");
        script("install", &dir, &[]).status.success().then_some(dir)
    })
    .as_deref()
}

/// Each partition and its leader.
fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<(i32, i32)> {
    let end = Instant::now() + DEADLINE;
    loop {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5)).unwrap();
        let topic = &metadata.topics()[0];
        // A new topic is known to the controller first.
        let unknown = topic.error().map(RDKafkaErrorCode::from);
        if unknown.is_none() && topic.partitions().iter().all(|partition| partition.leader() > 0) {
            return topic.partitions().iter().map(|partition| (partition.id(), partition.leader())).collect();
        }
        assert!(Instant::now() < end, "no leader for {}: {unknown:?}", topic.name());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn record(message: &impl Message) -> Record {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default()))).collect()
    });
    Record {
        partition: message.partition(),
        key: text(message.key().unwrap_or_default()),
        value: serde_json::from_slice(message.payload().unwrap_or_default()).unwrap(),
        headers: headers.unwrap_or_default(),
    }
}
