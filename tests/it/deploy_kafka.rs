//! `deploy/kafka/`: the topics on a real broker, and what a sink makes of the gateway's records.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::rig::kafka::{self, Kafka};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kafka").join(path)
}

/// Apache Kafka's own tools under the names that its image has, from the broker's jars.
fn tools(folder: &Path, jars: &Path) {
    for (name, class) in
        [("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"), ("kafka-configs.sh", "kafka.admin.ConfigCommand")]
    {
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
        &[("retention.ms", "1000"), ("min.compaction.lag.ms", "86400000")],
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
    assert!(said.contains("set cleanup.policy=compact,delete of device-assignments"), "{said}");
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
