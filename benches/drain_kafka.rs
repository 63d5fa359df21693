//! Into a real Kafka: a full store until all is acknowledged, and frames through the whole path. Beside each, in the same
//! run, a bare rdkafka loop that sends records of the same bytes with the same settings; they take turns at being first. A
//! broker that was just started compiles its own code for some seconds, so it is warmed up before anything is measured.
//! A drain is timed from its first acknowledged batch on and the bare loop from its first acknowledged record: librdkafka
//! has its producer id after 0.1 or, where it asked before it was connected, 0.5 s, which is chance. What comes before is
//! printed as the start.
//!
//! `cargo bench --bench drain_kafka -- [--events N] [--runs R] [--only zstd|lz4|exact|path] [--dir DIR] [--malloc glibc]`;
//! N is 200,000 (1,000,000 with `--long`) and R is 3 by default. `KAFKA_BROKERS` names a broker that runs already. The bare
//! loop has the allocator settings that the unit gives the gateway; with `--malloc glibc` it has glibc's own, the gateway not.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

mod rig;

use rig::backlog::Backlog;
use rig::servers::Server;
use rig::ward::{self, Speak};
use rig::{Arguments, Cost, biogate, configuration_to, cpu, follow, median, number};

/// Partitions of each topic.
const PARTITIONS: i32 = 3;
/// Records that the bare loop sends again and again: the first of those that the gateway sent.
const SAMPLE: usize = 100_000;

/// What is sent to warm the broker up, in each codec.
const WARM: u64 = 500_000;

/// The gateway's run and the bare loop's beside it.
struct Run {
    gateway: Cost,
    /// Events a second.
    rate: f64,
    /// Not in the rate.
    start: Duration,
    bare: Cost,
}

fn main() {
    let arguments = Arguments::read();
    if arguments.text("--malloc").is_none_or(|of| of != "glibc") {
        rig::with_the_units_allocator();
    }
    let events = arguments.number("--events", if arguments.has("--long") { 1_000_000 } else { 200_000 });
    let runs = arguments.number("--runs", 3);
    let server = Server::kafka();
    let bus = Bus { brokers: server.get("KAFKA_BROKERS").to_owned() };
    let dir = arguments.folder();
    let backlog = Backlog::fill(dir.path(), events);
    let is_asked = |what: &str| arguments.text("--only").is_none_or(|only| only == what);
    let sample = warm_up(&bus, &backlog, dir.path());
    let of = |way: &str| -> Vec<Run> {
        let codec = if way.contains("lz4") { "lz4" } else { "zstd" };
        let gateway = |run| {
            let to = bus.destination(&bus.topic(PARTITIONS), way);
            let drained = backlog.drain(&dir.path().join(format!("run-{run}")), &to);
            (drained.cost, drained.rate, drained.start)
        };
        (0..runs).map(|run| in_turn(run, || gateway(run), || bus.bare(&sample, backlog.events, codec))).collect()
    };
    if is_asked("zstd") || is_asked("exact") {
        let plain = of("compression = \"zstd\"\n");
        report("a full store, zstd", backlog.events, &plain);
        if is_asked("exact") {
            let exact = of("compression = \"zstd\"\nexactly_once = true\n");
            report("a full store, zstd, exactly once", backlog.events, &exact);
            let rate = |runs: &[Run]| median(runs.iter().map(|run| run.rate).collect());
            println!("exactly once against plain: {:.0} % of the rate", rate(&exact) / rate(&plain) * 100.0);
        }
    }
    if is_asked("lz4") {
        report("a full store, lz4", backlog.events, &of("compression = \"lz4\"\n"));
    }
    if is_asked("path") {
        let recording = dir.path().join("recording.ndjson");
        let frames = events / 2;
        ward::record(&recording, frames, Speak::All);
        let mut replayed = 0;
        let path = |run| {
            let dir = dir.path().join(format!("path-{run}"));
            let gateway = || {
                let (events, cost) = replay(&bus, &recording, &dir);
                replayed = events;
                (cost, events as f64 / cost.wall.as_secs_f64(), Duration::ZERO)
            };
            in_turn(run, gateway, || bus.bare(&sample, backlog.events, "zstd"))
        };
        let path: Vec<Run> = (0..runs).map(path).collect();
        report("frames through the whole path, zstd", replayed, &path);
    }
}

/// Lets the broker compile what it runs often; returns records as the gateway sends them.
fn warm_up(bus: &Bus, backlog: &Backlog, dir: &Path) -> Vec<OwnedMessage> {
    let topic = bus.topic(PARTITIONS);
    backlog.drain(&dir.join("first"), &bus.destination(&topic, ""));
    let sample = bus.sample(&topic);
    for codec in ["zstd", "lz4", "zstd"] {
        bus.bare(&sample, WARM, codec);
    }
    sample
}

/// Both, one after the other; which is first changes from run to run.
fn in_turn(run: u64, gateway: impl FnOnce() -> (Cost, f64, Duration), bare: impl FnOnce() -> Cost) -> Run {
    let ((gateway, rate, start), bare) = if run.is_multiple_of(2) {
        let gateway = gateway();
        (gateway, bare())
    } else {
        let bare = bare();
        (gateway(), bare)
    };
    Run { gateway, rate, start, bare }
}

fn replay(bus: &Bus, recording: &Path, dir: &Path) -> (u64, Cost) {
    fs::create_dir(dir).unwrap();
    let topic = bus.topic(PARTITIONS);
    let (config, out) = (dir.join("biogate.toml"), dir.join("out"));
    fs::write(&config, configuration_to(dir, "4 s", &bus.destination(&topic, "")) + &ward::entries()).unwrap();
    let mut command = biogate(&config, &["replay", recording.to_str().unwrap(), "--full-speed"]);
    let gateway = follow(command.stdout(File::create(&out).unwrap()).stderr(Stdio::inherit()).spawn().unwrap());
    let ledger = fs::read_to_string(&out).unwrap();
    let events = number(&ledger, "stored");
    assert_eq!(number(&ledger, "out.delivered"), events, "{ledger}");
    fs::remove_dir_all(dir).unwrap();
    (events, gateway)
}

fn report(what: &str, events: u64, runs: &[Run]) {
    let of = |figure: &dyn Fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let bare = |run: &Run| events as f64 / run.bare.wall.as_secs_f64();
    let each = |cost: &Cost| cost.cpu.as_secs_f64() * 1e6 / events as f64;
    println!("kafka, {what}: {events} events, medians of {} runs", runs.len());
    println!(
        "  {:.0} events/s, bare loop {:.0}: {:.0} %; start {:.2} s; cpu {:.2} us/event, bare loop {:.2}; peak RSS {:.1} MiB",
        of(&|run| run.rate),
        of(&bare),
        of(&|run| run.rate / bare(run)) * 100.0,
        of(&|run| run.start.as_secs_f64()),
        of(&|run| each(&run.gateway)),
        of(&|run| each(&run.bare)),
        of(&|run| run.gateway.peak_rss_kib as f64 / 1_024.0),
    );
}

/// A running broker.
struct Bus {
    brokers: String,
}

impl Bus {
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// A topic of a new name.
    fn topic(&self, partitions: i32) -> String {
        let name = format!("bench-{}", uuid::Uuid::new_v4().simple());
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let made = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
        assert!(made[0].is_ok(), "{made:?}");
        name
    }

    /// The gateway's section, with a cursor topic of its own: each drain begins at the first event.
    fn destination(&self, topic: &str, way: &str) -> String {
        let cursors =
            if way.contains("exactly_once") { format!("cursor_topic = {:?}\n", self.topic(1)) } else { String::new() };
        format!(
            "[[destination]]\nname = \"out\"\nkind = \"kafka\"\nbrokers = [{:?}]\ntopic = {topic:?}\n{way}{cursors}",
            self.brokers
        )
    }

    /// The first records of a topic.
    fn sample(&self, topic: &str) -> Vec<OwnedMessage> {
        let mut config = self.client();
        config.set("group.id", "bench").set("enable.partition.eof", "true").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&all).unwrap();
        let (mut sample, mut ended) = (Vec::new(), 0);
        while sample.len() < SAMPLE && ended < PARTITIONS {
            match consumer.poll(Duration::from_secs(1)) {
                None => {}
                Some(Ok(message)) => sample.push(message.detach()),
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => panic!("{error}"),
            }
        }
        sample
    }

    /// Sends `count` records of the sample as fast as one loop can, until all are acknowledged. One more goes before.
    fn bare(&self, sample: &[OwnedMessage], count: u64, codec: &str) -> Cost {
        let topic = self.topic(PARTITIONS);
        let producer: ThreadedProducer<Counted> = self
            .client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.codec", codec)
            // As the gateway has it.
            .set("compression.level", if codec == "zstd" { "1" } else { "-1" })
            .set("linger.ms", "5")
            .set("partitioner", "murmur2_random")
            .create_with_context(Counted::default())
            .unwrap();
        let send = |message: &OwnedMessage| {
            let headers = message.headers().map_or_else(OwnedHeaders::new, Clone::clone);
            let key = message.key().unwrap();
            let mut record = BaseRecord::to(&topic).key(key).payload(message.payload().unwrap()).headers(headers);
            while let Err((error, back)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                std::thread::sleep(Duration::from_millis(1));
                record = back;
            }
        };
        let all_are_acknowledged = || {
            while producer.in_flight_count() > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        send(&sample[0]);
        all_are_acknowledged();
        let pid = std::process::id();
        let (start, cpu_before) = (Instant::now(), cpu(pid));
        sample.iter().cycle().take(count as usize).for_each(send);
        all_are_acknowledged();
        let cost = Cost { wall: start.elapsed(), cpu: cpu(pid) - cpu_before, peak_rss_kib: 0, written: 0 };
        assert_eq!(producer.context().0.load(Ordering::Relaxed), count + 1);
        cost
    }
}

/// Counts what is acknowledged.
#[derive(Default)]
struct Counted(AtomicU64);

impl ClientContext for Counted {}

impl ProducerContext for Counted {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        assert!(result.is_ok());
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
