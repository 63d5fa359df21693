//! kill -9 of the real binary at random moments, sensors at one end and the ClickHouse engine at the other: what the
//! broker was told is taken, and what the store took, arrives once, and the ledger balances.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

use crate::rig::clickhouse::Engine;
use crate::rig::gateway::{Hub, assert_balanced, destinations, wait_for};
use crate::rig::mosquitto::{Mosquitto, note};
use crate::rig::pty::Pty;

/// At least so many kills in every run.
const KILLS: u32 = 50;

/// Messages a second from the broker, and lines a second from the serial device.
const RATE: u32 = 150;

/// A heart rate that no other reading of this run has: within 60 and 160, three decimals.
fn rate_of(number: u32) -> f64 {
    60.0 + f64::from(number) / 1_000.0
}

fn number_of(rate: f64) -> u32 {
    ((rate - 60.0) * 1_000.0).round() as u32
}

#[test]
fn every_reading_arrives_once_over_fifty_kills() {
    let Some(mosquitto) = Mosquitto::start() else { return };
    let Some(warehouse) = Engine::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let serial = Pty::plug(&port);
    let settings = warehouse.settings();
    let mut hub = Hub::new(&format!(
        r#"
        [clock]
        trust = "always"
        [store]
        commit_interval = "40 ms"
        [[mqtt]]
        name = "ward"
        url = "{}"
        [[device]]
        name = "bed"
        profile = "mqtt-vitals-json"
        mqtt = "clinic/{{device}}/vitals"
        [[device]]
        name = "cable"
        profile = "serial-vitals-line"
        serial = {port:?}
        [[destination]]
        name = "warehouse"
        kind = "clickhouse"
        url = "{}"
        database = "{}"
        user = {:?}
        password_file = {:?}
        "#,
        mosquitto.url(),
        settings.url,
        settings.database,
        settings.user.unwrap_or_default(),
        settings.password_file.unwrap_or_default(),
    ));
    let (code, said, error) = hub.output(&["schema", "apply"]);
    assert_eq!(code, 0, "{said}{error}");
    let stop = Arc::new(AtomicBool::new(false));
    // The session must exist before the first message: MQTT keeps nothing for a client that it has never seen.
    hub.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    wait_for(Duration::from_secs(20), || {
        runtime.block_on(mosquitto.publish(vec![note("clinic/probe/vitals", "{}")]));
        (hub.stat()?["ledger"]["intake"]["accepted"] != 0).then_some(())
    })
    .expect("the subscription");
    let publisher = Publisher::start(&mosquitto.url(), stop.clone());
    let cable = talk(serial, stop.clone());
    let mut random = fastrand::Rng::with_seed(0x6b69_6c6c);
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.u64(5..500)));
        hub.kill();
        hub.start();
        if kill % 10 == 9 {
            assert!(hub.is_running(), "it starts after every kill: {}", hub.log());
        }
    }
    stop.store(true, Ordering::SeqCst);
    let published = publisher.finish();
    cable.join().expect("the serial device");
    let stat = hub.wait_until_drained(u64::from(published), Duration::from_secs(60));
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    assert_balanced(&stat);
    assert_once(&warehouse, &stat, published);
    assert!(!has_blobs(&hub.data_dir().join("store")), "no file in blobs/ ever");
}

#[test]
fn what_was_halved_for_want_of_memory_is_halved_again_after_a_kill() {
    let Some(warehouse) = Engine::own() else { return };
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut serial = Pty::plug(&port);
    let settings = warehouse.settings();
    let mut hub = Hub::new(&format!(
        "[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"500 ms\"\n\
         [[device]]\nname = \"cable\"\nprofile = \"serial-vitals-line\"\nserial = {port:?}\n\
         [[destination]]\nname = \"warehouse\"\nkind = \"clickhouse\"\nurl = \"{}\"\ndatabase = \"{}\"\n",
        settings.url, settings.database,
    ));
    let (code, said, error) = hub.output(&["schema", "apply"]);
    assert_eq!(code, 0, "{said}{error}");
    hub.start();
    let soon = Duration::from_secs(30);
    // The first line after an open may be torn.
    let heard = wait_for(soon, || {
        serial.send(b"HR:50\n");
        (warehouse.counts().0 > 0).then_some(())
    });
    heard.expect("the line is heard");
    warehouse.fault("memory_limit", 2);
    serial.send("HR:72\n".repeat(20).as_bytes());
    let raw = || warehouse.sql("SELECT count() FROM biometric_events WHERE value = 72").trim().to_owned();
    // Refused twice, then in halves. The cursor moves durably with a later record: after the kill it has not moved.
    wait_for(soon, || (raw() == "20").then_some(())).unwrap_or_else(|| panic!("{} of 20", raw()));
    hub.kill();
    hub.start();
    let stat = hub.wait_until_drained(21, soon);
    assert_eq!(stat["ledger"]["destinations"][0][1]["resent"], 0, "{stat}");
    assert_eq!(raw(), "20");
    let (rows, events) = warehouse.counts();
    assert_eq!(rows, events);
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}

fn assert_once(warehouse: &Engine, stat: &serde_json::Value, published: u32) {
    let values = |device: &str, event_type: &str| -> Vec<f64> {
        let sql = format!(
            "SELECT value FROM biometric_events FINAL WHERE device_id = '{device}' AND event_type = '{event_type}' ORDER BY value"
        );
        column(warehouse, &sql)
    };
    let beds: Vec<u32> = values("ward-bed-7", "heart_rate").into_iter().map(number_of).collect();
    assert_eq!(beds, (1..=published).collect::<Vec<u32>>(), "every acknowledged message, once");
    let lines: Vec<u32> = values("cable", "heart_rate").into_iter().map(number_of).collect();
    let distinct: BTreeSet<u32> = lines.iter().copied().collect();
    assert_eq!(lines.len(), distinct.len(), "no serial line twice");
    let steps: f64 = values("cable", "steps").iter().sum();
    let spanned = distinct.last().zip(distinct.first()).map_or(0, |(last, first)| last - first);
    assert_eq!(steps as u32, spanned, "the counter's increments add up over every restart");
    let counted: Vec<f64> = column(warehouse, "SELECT count() FROM biometric_events FINAL");
    let raw: Vec<f64> = column(warehouse, "SELECT count() FROM biometric_events");
    let (_, tally) = destinations(stat).remove(0);
    assert_eq!(counted[0] as u64, tally["delivered"].as_u64().unwrap(), "the ledger's count is the warehouse's");
    assert_eq!(raw, counted, "the tokens keep repeats out of the raw table too");
}

/// The numbers of one column.
fn column(warehouse: &Engine, sql: &str) -> Vec<f64> {
    warehouse.sql(sql).lines().map(|line| line.parse().expect("a number")).collect()
}

/// Publishes numbered messages at QoS 1.
struct Publisher {
    sent: std::thread::JoinHandle<u32>,
    acknowledged: Arc<AtomicU32>,
    connection: std::thread::JoinHandle<()>,
}

impl Publisher {
    fn start(url: &str, stop: Arc<AtomicBool>) -> Publisher {
        let address = url.trim_start_matches("mqtt://");
        let (host, port) = address.rsplit_once(':').expect("host:port");
        let mut options = MqttOptions::new("publisher", host, port.parse().expect("a port"));
        options.set_inflight(1_000);
        let (client, mut connection) = Client::new(options, 1_000);
        let acknowledged = Arc::new(AtomicU32::new(0));
        let count = acknowledged.clone();
        let connection = std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::PubAck(_))) => {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        let sent = std::thread::spawn(move || {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                number += 1;
                let payload = format!("{{\"seq\":{number},\"hr\":{}}}", rate_of(number));
                client.publish("clinic/ward-bed-7/vitals", QoS::AtLeastOnce, false, payload).expect("publishing");
                std::thread::sleep(Duration::from_millis(1_000 / u64::from(RATE)));
            }
            // Keeps the connection until everything is acknowledged.
            std::thread::sleep(Duration::from_secs(1));
            client.disconnect().expect("disconnecting");
            number
        });
        Publisher { sent, acknowledged, connection }
    }

    /// How many were sent; the broker has acknowledged them all.
    fn finish(self) -> u32 {
        let sent = self.sent.join().expect("the publisher");
        self.connection.join().expect("the publisher's connection");
        assert_eq!(self.acknowledged.load(Ordering::SeqCst), sent, "the broker took everything");
        sent
    }
}

/// A device that talks whether anybody listens or not.
fn talk(serial: Pty, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let master = serial.master();
        rustix::fs::fcntl_setfl(&master, rustix::fs::OFlags::NONBLOCK).expect("a line that never blocks");
        let mut number = 0;
        while !stop.load(Ordering::SeqCst) {
            number += 1;
            // With nobody reading, the line's buffer fills, and what does not fit is never heard.
            let _dropped = rustix::io::write(&master, format!("HR:{},S:{number}\n", rate_of(number)).as_bytes());
            std::thread::sleep(Duration::from_millis(1_000 / u64::from(RATE)));
        }
        // The port stays open until what was said has been read.
        std::thread::sleep(Duration::from_secs(1));
    })
}

fn has_blobs(folder: &std::path::Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        path.is_dir()
            && (has_blobs(&path)
                || (path.ends_with("blobs") && std::fs::read_dir(&path).is_ok_and(|mut files| files.next().is_some())))
    })
}
