//! The compose file's broker and Connect worker for real: their own files, with addresses of this machine. A hub writes by its
//! certificate; a connector that is there stands for the ClickHouse sink, under the sink's configuration.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deploy_kafka::tools;
use crate::rig::kafka::{self, Kafka};
use crate::rig::missing;

/// JVMs share the processors with other tests.
const DEADLINE: Duration = Duration::from_secs(60);
const STAND_IN: &str = "org.apache.kafka.connect.file.FileStreamSinkConnector";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The worker's jars, installed on first use.
fn connect_jars() -> Option<&'static Path> {
    static LIB: OnceLock<Option<PathBuf>> = OnceLock::new();
    LIB.get_or_init(|| {
        let dir = kafka::jars()?.parent()?.to_owned();
        let script = repository("tests/servers/kafka/connect.sh");
        let installed = Command::new("bash").arg(script).arg("install").arg(&dir).status();
        installed.is_ok_and(|status| status.success()).then(|| dir.join("connect-lib"))
    })
    .as_deref()
}

fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Below the range of outgoing connections, so that none takes it.
fn free_port() -> u16 {
    loop {
        let port = 20_000 + u16::try_from(Uuid::new_v4().as_u128() % 12_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn succeeds(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{} {said}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

/// A running broker and worker, killed with it.
struct Platform {
    folder: tempfile::TempDir,
    inside: u16,
    hubs: u16,
    rest: u16,
    running: Vec<Child>,
}

impl Platform {
    fn new() -> Platform {
        let folder = tempfile::tempdir().unwrap();
        let platform =
            Platform { folder, inside: free_port(), hubs: free_port(), rest: free_port(), running: Vec::new() };
        for arguments in [["127.0.0.1"].as_slice(), &["--hub", "hub-0042"]] {
            let mut prepare = Command::new("bash");
            prepare.arg(repository("deploy/compose/prepare.sh")).args(arguments);
            succeeds(prepare.env("BIOGATE_GENERATED", platform.path("generated")).output().unwrap());
        }
        for folder in ["secrets", "plugins", "data", "bin"] {
            std::fs::create_dir(platform.path(folder)).unwrap();
        }
        for (made, secret) in
            [("kafka-keystore.pem", "kafka-keystore"), ("ca.pem", "ca"), ("clickhouse-sink", "clickhouse-sink")]
        {
            std::fs::copy(platform.path("generated").join(made), platform.path("secrets").join(secret)).unwrap();
        }
        tools(&platform.path("bin"), &kafka::jars().unwrap());
        platform
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn secret(&self, name: &str) -> String {
        format!("${{dir:{}:{name}}}", self.path("secrets").display())
    }

    /// The text with this machine's addresses and folders in place of the containers'.
    fn localized(&self, text: &str) -> String {
        let controller = free_port();
        let at = |port: u16| format!("127.0.0.1:{port}");
        let mut text = text.to_owned();
        for (container, here) in [
            ("1@kafka:9093", format!("1@{}", at(controller))),
            ("CONTROLLER://:9093", format!("CONTROLLER://{}", at(controller))),
            ("INSIDE://:9092", format!("INSIDE://{}", at(self.inside))),
            ("HUBS://:9094", format!("HUBS://{}", at(self.hubs))),
            ("HUBS://127.0.0.1:9094", format!("HUBS://{}", at(self.hubs))),
            ("kafka:9092", at(self.inside)),
            ("http://:8083", format!("http://{}", at(self.rest))),
            ("/run/secrets", self.path("secrets").display().to_string()),
            ("/var/lib/kafka/data", self.path("data").display().to_string()),
            ("/opt/connect-plugins", self.path("plugins").display().to_string()),
        ] {
            text = text.replace(container, &here);
        }
        text
    }

    fn spawn(&mut self, jars: &Path, class: &str, properties: &Path) {
        let log = std::fs::File::create(self.path(&format!("{class}.log"))).unwrap();
        let mut java = Command::new("java");
        java.args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
        java.arg(jars.join("*")).arg(class).arg(properties);
        let child = java.current_dir(self.folder.path()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.running.push(child);
    }

    fn start_broker(&mut self) {
        let jars = kafka::jars().unwrap();
        let properties = self.path("server.properties");
        let text = std::fs::read_to_string(self.path("generated/kafka/server.properties")).unwrap();
        std::fs::write(&properties, self.localized(&text)).unwrap();
        let mut format = Command::new("java");
        format.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(jars.join("*")).arg("kafka.tools.StorageTool");
        succeeds(format.args(["format", "-t", "5L6g3nShT-eMCtK--X86sw", "-c"]).arg(&properties).output().unwrap());
        self.spawn(&jars, "kafka.Kafka", &properties);
        let consumer: BaseConsumer = self.inside().create().unwrap();
        until("the broker answers", || consumer.fetch_metadata(None, Duration::from_secs(1)).ok());
    }

    fn start_worker(&mut self) {
        let properties = self.path("worker.properties");
        let text = std::fs::read_to_string(repository("deploy/compose/connect/worker.properties")).unwrap();
        std::fs::write(&properties, self.localized(&text)).unwrap();
        self.spawn(connect_jars().unwrap(), "org.apache.kafka.connect.cli.ConnectDistributed", &properties);
    }

    fn wait_for_worker(&self) {
        until("the worker is healthy", || self.rest("GET", "/health", None).filter(|said| said["status"] == "healthy"));
    }

    fn give_rights(&self) {
        let mut bash = Command::new("bash");
        bash.arg(repository("deploy/kafka/rights.sh")).arg("--bootstrap-server");
        succeeds(bash.arg(format!("127.0.0.1:{}", self.inside)).env("KAFKA_BIN", self.path("bin")).output().unwrap());
    }

    fn rest(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--max-time", "20", "-H", "Content-Type: application/json", "-X", method]);
        if let Some(body) = body {
            curl.args(["-d", &body.to_string()]);
        }
        let output = curl.arg(format!("http://127.0.0.1:{}{path}", self.rest)).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// A client on the inner network.
    fn inside(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.inside)).set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    /// A hub outside, which trusts our authority, with its certificate.
    fn hub(&self, certificate: Option<&str>) -> ClientConfig {
        let mut config = ClientConfig::new();
        let generated = self.path("generated");
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.hubs)).set_log_level(RDKafkaLogLevel::Emerg);
        config.set("security.protocol", "ssl").set("ssl.ca.location", generated.join("ca.pem").to_str().unwrap());
        if let Some(name) = certificate {
            let file = |end: &str| generated.join(format!("hubs-certificates/{name}.{end}")).display().to_string();
            config.set("ssl.certificate.location", file("pem")).set("ssl.key.location", file("key"));
        }
        config
    }

    /// The script that hands the sink's file to Connect, with the stand-in for the connector that is not here.
    fn apply(&self, settings: &[String]) -> Output {
        let mut script = Command::new("bash");
        script.arg(repository("deploy/compose/connect/apply.sh")).arg(format!("http://127.0.0.1:{}", self.rest));
        script.arg(repository("deploy/kafka/clickhouse-sink.json")).args(settings).output().unwrap()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        for child in &mut self.running {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Sends and waits for the broker's word.
fn send(producer: &BaseProducer, topic: &str, payload: &str) -> Result<(), String> {
    producer.send(BaseRecord::to(topic).key("strap").payload(payload)).map_err(|(error, _)| error.to_string())?;
    producer.flush(Duration::from_secs(10)).map_err(|error| error.to_string())
}

/// What of a transaction a reader sees is decided by its end.
fn send_in_transaction(producer: &BaseProducer, payload: &str, commits: bool) {
    let patience = Duration::from_secs(20);
    producer.begin_transaction().unwrap();
    send(producer, "biometric-events", payload).unwrap();
    match commits {
        true => producer.commit_transaction(patience).unwrap(),
        false => producer.abort_transaction(patience).unwrap(),
    }
}

/// The first record of the topic of refused ones: its payload, and the headers' names.
fn refused(platform: &Platform) -> (String, Vec<String>) {
    let consumer: BaseConsumer = platform.inside().set("group.id", "test").create().unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("landing-zone-refused", 0, Offset::Beginning).unwrap();
    consumer.assign(&all).unwrap();
    let found =
        until("a refused record", || consumer.poll(Duration::from_millis(100))?.ok().map(|found| found.detach()));
    let payload = String::from_utf8(found.payload().unwrap().to_vec()).unwrap();
    (payload, found.headers().unwrap().iter().map(|header| header.key.to_owned()).collect())
}

#[test]
fn a_hubs_records_pass_the_composed_broker_and_worker_and_what_is_no_json_is_kept_aside() {
    if kafka::jars().is_none() || connect_jars().is_none() {
        missing("Kafka Connect (tests/servers/kafka/connect.sh install)");
        return;
    }
    let mut platform = Platform::new();
    platform.start_broker();
    platform.start_worker();
    // topics.sh makes them otherwise, and has a test of its own.
    let broker = Kafka::at(format!("127.0.0.1:{}", platform.inside));
    for (topic, partitions) in [("biometric-events", 12), ("user-activity", 1), ("landing-zone-refused", 1)] {
        broker.make_topic(topic, partitions, &[]);
    }
    platform.give_rights();
    hubs_are_let_in_by_their_certificate(&platform);
    let hub = platform.hub(Some("hub-0042")).set("transactional.id", "biogate-hub-0042-bus").create();
    let hub: BaseProducer = hub.unwrap();
    hub.init_transactions(Duration::from_secs(20)).unwrap();
    send_in_transaction(&hub, &json!({"device_id": "strap", "value": 72.0, "n": 1}).to_string(), true);
    send_in_transaction(&hub, &json!({"device_id": "strap", "n": "taken back"}).to_string(), false);
    send_in_transaction(&hub, "{broken", true);
    send_in_transaction(&hub, &json!({"device_id": "strap", "value": 73.0, "n": 2}).to_string(), true);

    platform.wait_for_worker();
    let rows = platform.path("rows.txt");
    std::fs::write(platform.path("secrets/rows"), rows.to_str().unwrap()).unwrap();
    let password = format!("password={}", platform.secret("clickhouse-sink"));
    let stand_in = [format!("connector.class={STAND_IN}"), format!("file={}", platform.secret("rows")), password];
    let said = succeeds(platform.apply(&stand_in));
    assert!(said.contains("landing-zone runs, "), "{said}");

    // The file's name came out of a secret; what was taken back and what is no JSON is not in it.
    let read = || std::fs::read_to_string(&rows).unwrap_or_default();
    until("both rows", || (read().contains("n=1") && read().contains("n=2")).then_some(()));
    let (payload, headers) = refused(&platform);
    assert_eq!(payload, "{broken");
    assert!(headers.iter().any(|name| name == "__connect.errors.exception.message"), "{headers:?}");
    assert_eq!(read().lines().count(), 2, "{}", read());
    secrets_stay_references(&platform);
    settings_are_checked(&platform);
}

/// Without a certificate a hub gets nowhere; with one it knows its own topics, and no other.
fn hubs_are_let_in_by_their_certificate(platform: &Platform) {
    let stranger: BaseProducer = platform.hub(None).create().unwrap();
    assert!(stranger.client().fetch_metadata(None, Duration::from_secs(3)).is_err());
    let hub: BaseProducer = platform.hub(Some("hub-0042")).create().unwrap();
    let patience = Duration::from_secs(20);
    let error = |topic: &str| {
        let metadata = hub.client().fetch_metadata(Some(topic), patience).unwrap();
        metadata.topics()[0].error().map(RDKafkaErrorCode::from)
    };
    assert_eq!(error("biometric-events"), None);
    assert_eq!(error("user-activity"), Some(RDKafkaErrorCode::TopicAuthorizationFailed));
}

fn secrets_stay_references(platform: &Platform) {
    let config = platform.rest("GET", "/connectors/landing-zone/config", None).unwrap();
    assert_eq!(config["password"], platform.secret("clickhouse-sink").as_str());
    let password = std::fs::read_to_string(platform.path("secrets/clickhouse-sink")).unwrap();
    let log = std::fs::read_to_string(platform.path("org.apache.kafka.connect.cli.ConnectDistributed.log")).unwrap();
    assert!(log.contains("landing-zone") && !log.contains(&password), "the worker's log holds the password");
}

/// The worker itself reads the settings of Connect that the sink's file has.
fn settings_are_checked(platform: &Platform) {
    let text = std::fs::read_to_string(repository("deploy/kafka/clickhouse-sink.json")).unwrap();
    let mut config = serde_json::from_str::<Value>(&text).unwrap()["config"].clone();
    (config["connector.class"], config["name"]) = (json!(STAND_IN), json!("landing-zone"));
    let path = format!("/connector-plugins/{STAND_IN}/config/validate");
    let validated = platform.rest("PUT", &path, Some(&config)).unwrap();
    assert_eq!(validated["error_count"], 0, "{validated}");
    let known: Vec<&str> =
        validated["configs"].as_array().unwrap().iter().filter_map(|one| one["value"]["name"].as_str()).collect();
    for setting in crate::deploy_kafka::CONNECT {
        assert!(known.contains(setting), "Connect has no {setting}");
    }
    config["errors.tolerance"] = json!("some");
    let refused = platform.rest("PUT", &path, Some(&config)).unwrap();
    assert_eq!(refused["error_count"], 1, "{refused}");
}
