//! A real mosquitto of one test: its own free port, folder and settings; stopped by its id.
#![allow(clippy::disallowed_methods, reason = "a test may wait for its broker on its own thread")]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{DEADLINE, missing};

const BINARY: &str = "/usr/sbin/mosquitto";

/// A running broker.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    settings: &'static str,
    broker: Option<Child>,
}

/// Anybody may do anything.
const OPEN: &str = "allow_anonymous true";

/// TLS both ways, and a password.
const SECURED: &str = "allow_anonymous false\npassword_file FOLDER/passwords\ncafile FOLDER/ca.pem\n\
                       certfile FOLDER/broker.pem\nkeyfile FOLDER/broker.key\nrequire_certificate true";

/// One message to publish.
pub(crate) struct Note {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retain: bool,
    pub(crate) qos: QoS,
}

impl Mosquitto {
    /// Starts one; `None` when it is not installed.
    pub(crate) fn start() -> Option<Mosquitto> {
        let mut broker = Mosquitto::prepare(OPEN)?;
        broker.launch();
        Some(broker)
    }

    /// Starts one that wants TLS with the client's certificate (`hub.pem` and `hub.key` in its folder, signed by
    /// `ca.pem`) and the password `secret` of the user `hub`; `None` when it, or openssl, is not installed.
    pub(crate) fn start_secured() -> Option<Mosquitto> {
        let mut broker = Mosquitto::prepare(SECURED)?;
        if Command::new("openssl").arg("version").output().is_err() {
            missing("openssl");
            return None;
        }
        let folder = broker.folder.path();
        certificates(folder);
        run(folder, "mosquitto_passwd", "-b -c passwords hub secret");
        broker.launch();
        Some(broker)
    }

    fn prepare(settings: &'static str) -> Option<Mosquitto> {
        if !Path::new(BINARY).exists() {
            missing("mosquitto");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Some(Mosquitto { port, folder: TempDir::new().unwrap(), settings, broker: None })
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Stops it; sessions stay in its folder.
    pub(crate) fn stop(&mut self) {
        let Some(mut broker) = self.broker.take() else { return };
        kill_process(Pid::from_child(&broker), Signal::TERM).ok();
        let end = Instant::now() + DEADLINE;
        while broker.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                broker.kill().ok();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again, with what its folder holds.
    pub(crate) fn launch(&mut self) {
        let config = self.folder.path().join("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\n{}\nuser root\npersistence true\npersistence_location {}/\n\
             max_queued_messages 100000\nlog_dest none\n",
            self.port,
            self.settings.replace("FOLDER", &self.folder.path().display().to_string()),
            self.folder.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(BINARY);
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.broker = Some(command.spawn().unwrap());
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Forgets every session and retained message.
    pub(crate) fn forget(&mut self) {
        self.stop();
        std::fs::remove_file(self.folder.path().join("mosquitto.db")).ok();
        self.launch();
    }

    /// Publishes; returns when the broker has all.
    pub(crate) async fn publish(&self, notes: Vec<Note>) {
        let count = notes.len();
        let to_acknowledge = notes.iter().filter(|note| note.qos == QoS::AtLeastOnce).count();
        let mut options = MqttOptions::new(format!("test-{}", fastrand::u64(..)), "127.0.0.1", self.port);
        options.set_max_packet_size(Some(64 * 1024 * 1024));
        let (client, mut events) = AsyncClient::new(options, count + 1);
        for note in notes {
            client.try_publish(note.topic, note.qos, note.retain, note.payload).unwrap();
        }
        let mut acked = 0;
        let all = async {
            while acked < to_acknowledge {
                if let Event::Incoming(Incoming::PubAck(_)) = events.poll().await.unwrap() {
                    acked += 1;
                }
            }
            client.try_disconnect().unwrap();
            while events.poll().await.is_ok() {}
        };
        tokio::time::timeout(DEADLINE, all).await.expect("published in time");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An authority, and certificates of a broker and a hub that it signed.
fn certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    run(folder, "openssl", &format!("req -x509 {key} -subj /CN=test-ca -keyout ca.key -out ca.pem"));
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost").unwrap();
    for name in ["broker", "hub"] {
        run(folder, "openssl", &format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        let sign = "x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
        run(folder, "openssl", &format!("{sign} -in {name}.csr -out {name}.pem"));
    }
}

fn run(folder: &Path, program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A message that is not retained.
pub(crate) fn note(topic: &str, payload: impl Into<Vec<u8>>) -> Note {
    Note { topic: topic.to_owned(), payload: payload.into(), retain: false, qos: QoS::AtLeastOnce }
}

/// A front that refuses MQTT 5 as brokers of before it do, and passes everything else on. Returns its port.
pub(crate) async fn old_broker(behind: u16) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut start = [0; 16];
                let read = client.read(&mut start).await.unwrap_or(0);
                // CONNECT: fixed header of two bytes, "MQTT" with its length, then the protocol level.
                if start.get(..read).and_then(|start| start.get(8)) == Some(&5) {
                    client.write_all(&[0x20, 2, 0, 1]).await.ok();
                    return;
                }
                let mut broker = tokio::net::TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                broker.write_all(&start[..read]).await.ok();
                tokio::io::copy_bidirectional(&mut client, &mut broker).await.ok();
            });
        }
    });
    port
}
