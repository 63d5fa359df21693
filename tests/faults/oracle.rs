//! What was said at the source: every reading has an identity, device and number, and is an obligation once it was
//! taken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

use crate::rig::gateway::wait_for;
use crate::rig::pty::Pty;

/// Devices that speak MQTT, and the time between two messages of all of them together.
pub(crate) const BEDS: u32 = 5;
const MESSAGE_EVERY: Duration = Duration::from_millis(10);
/// Serial devices, and the time between two lines of each.
pub(crate) const CABLES: u32 = 2;
const LINE_EVERY: Duration = Duration::from_millis(30);

/// A heart rate that no other reading of the device has: from 60 on, three decimals.
fn rate_of(number: u32) -> f64 {
    60.0 + f64::from(number) / 1_000.0
}

/// Which reading it was.
pub(crate) fn number_of(rate: f64) -> u32 {
    ((rate - 60.0) * 1_000.0).round() as u32
}

/// How far the time of the campaigns is ahead of the machine's: hours of an outage are leapt over.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// The truth about now, whatever the gateway is told.
pub(crate) fn now_ms() -> i64 {
    let machine = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    machine + AHEAD_MS.load(Ordering::SeqCst)
}

/// Leaps ahead of the machine's time; only while nobody says anything.
pub(crate) fn leap(ahead_ms: i64) {
    AHEAD_MS.store(ahead_ms, Ordering::SeqCst);
}

/// When each reading was said: by device, the first is number 1.
pub(crate) type Said = BTreeMap<String, Vec<i64>>;

/// The sources of a campaign, talking.
pub(crate) struct Sources {
    said: Arc<Mutex<Said>>,
    stop: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    counts: Arc<Counts>,
    talking: Vec<JoinHandle<()>>,
    connection: Option<JoinHandle<()>>,
}

/// Messages at QoS 1: handed to the client, and acknowledged by the broker.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    idle: AtomicBool,
}

impl Sources {
    /// Begins to talk to the broker at `port` and over the lines.
    pub(crate) fn start(port: u16, cables: Vec<Pty>, sequences: bool) -> Sources {
        let said: Arc<Mutex<Said>> = Arc::default();
        let (stop, paused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let counts: Arc<Counts> = Arc::default();
        let mut options = MqttOptions::new("oracle", "127.0.0.1", port);
        options.set_inflight(1_000).set_clean_session(false);
        let (client, mut connection) = Client::new(options, 2_000);
        let (over, tally) = (stop.clone(), counts.clone());
        let connection = std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::PubAck(_))) => {
                        tally.acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(_) => {}
                    Err(_) if over.load(Ordering::SeqCst) => return,
                    // The broker is being restarted.
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
            }
        });
        let publisher = Publisher {
            client,
            said: said.clone(),
            stop: stop.clone(),
            paused: paused.clone(),
            counts: counts.clone(),
            sequences,
        };
        let mut talking = vec![std::thread::spawn(move || publisher.run())];
        for (nth, cable) in cables.into_iter().enumerate() {
            let (said, stop, paused) = (said.clone(), stop.clone(), paused.clone());
            talking.push(std::thread::spawn(move || talk(&cable, &format!("cable-{nth}"), &said, &stop, &paused)));
        }
        Sources { said, stop, paused, counts, talking, connection: Some(connection) }
    }

    /// Nothing more is published, and the broker has all that was: a restart of it repeats nothing of ours.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        self.settled();
    }

    /// Goes on.
    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }

    fn settled(&self) {
        let counts = &self.counts;
        let settled = wait_for(Duration::from_secs(20), || {
            let idle = counts.idle.load(Ordering::SeqCst);
            (idle && counts.acknowledged.load(Ordering::SeqCst) >= counts.sent.load(Ordering::SeqCst)).then_some(())
        });
        settled.expect("the broker takes everything");
    }

    /// Ends all talk; what was said, all of it with the broker or written to a line.
    pub(crate) fn finish(&mut self) -> Said {
        self.pause();
        self.stop.store(true, Ordering::SeqCst);
        for talking in self.talking.drain(..) {
            talking.join().expect("a source");
        }
        if let Some(connection) = self.connection.take() {
            connection.join().expect("the publisher's connection");
        }
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

struct Publisher {
    client: Client,
    said: Arc<Mutex<Said>>,
    stop: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    counts: Arc<Counts>,
    sequences: bool,
}

impl Publisher {
    fn run(self) {
        for turn in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            if self.paused.load(Ordering::SeqCst) {
                self.counts.idle.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            self.counts.idle.store(false, Ordering::SeqCst);
            let device = format!("bed-{}", turn % BEDS);
            let number = say(&self.said, &device);
            let payload = match self.sequences {
                true => format!("{{\"seq\":{number},\"hr\":{}}}", rate_of(number)),
                false => format!("{{\"hr\":{}}}", rate_of(number)),
            };
            self.counts.sent.fetch_add(1, Ordering::SeqCst);
            let topic = format!("clinic/{device}/vitals");
            self.client.publish(topic, QoS::AtLeastOnce, false, payload).expect("publishing");
            std::thread::sleep(MESSAGE_EVERY);
        }
        self.client.disconnect().ok();
    }
}

/// Notes that the device says its next reading now, and gives its number.
fn say(said: &Mutex<Said>, device: &str) -> u32 {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let times = said.entry(device.to_owned()).or_default();
    times.push(now_ms());
    times.len() as u32
}

/// A device that talks whether anybody listens or not.
fn talk(cable: &Pty, device: &str, said: &Mutex<Said>, stop: &AtomicBool, paused: &AtomicBool) {
    let master = cable.master();
    rustix::fs::fcntl_setfl(&master, rustix::fs::OFlags::NONBLOCK).expect("a line that never blocks");
    while !stop.load(Ordering::SeqCst) {
        if paused.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let number = say(said, device);
        // With nobody reading, the line's buffer fills, and what does not fit is never heard.
        let _dropped = rustix::io::write(&master, format!("HR:{},S:{number}\n", rate_of(number)).as_bytes());
        std::thread::sleep(LINE_EVERY);
    }
    // The port stays open until what was said has been read.
    std::thread::sleep(Duration::from_secs(1));
}
