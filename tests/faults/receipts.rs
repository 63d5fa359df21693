//! A relay between the gateway and its MQTT broker that reads along: which readings the gateway has acknowledged. From
//! that moment on each of them is an obligation, whatever the broker forgets.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::oracle::number_of;

/// Packet types, in the upper half of a packet's first byte.
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;

/// Device and number of what was acknowledged.
pub(crate) type Acknowledged = BTreeSet<(String, u32)>;

/// Runs as long as the program.
pub(crate) struct Receipts {
    pub(crate) port: u16,
    given: Arc<Mutex<Acknowledged>>,
}

/// What a connection has sent to the gateway and not got acknowledged: reading by packet id.
type InFlight = Arc<Mutex<HashMap<u16, (String, u32)>>>;

impl Receipts {
    /// A relay to the broker at this port.
    pub(crate) fn before(broker: u16) -> Receipts {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let given: Arc<Mutex<Acknowledged>> = Arc::default();
        let shared = given.clone();
        std::thread::spawn(move || {
            for gateway in listener.incoming().flatten() {
                // Without a broker the connection ends at once.
                if let Ok(broker) = TcpStream::connect(("127.0.0.1", broker)) {
                    pass_on(gateway, broker, &shared);
                }
            }
        });
        Receipts { port, given }
    }

    /// All that was acknowledged so far.
    pub(crate) fn given(&self) -> Acknowledged {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn pass_on(gateway: TcpStream, broker: TcpStream, given: &Arc<Mutex<Acknowledged>>) {
    let in_flight: InFlight = Arc::default();
    let (from_broker, to_gateway) = (broker.try_clone().expect("a stream"), gateway.try_clone().expect("a stream"));
    let sent = in_flight.clone();
    std::thread::spawn(move || {
        each_packet(from_broker, to_gateway, |packet| {
            if let Some((id, reading)) = published(packet) {
                sent.lock().unwrap_or_else(PoisonError::into_inner).insert(id, reading);
            }
        });
    });
    let given = given.clone();
    std::thread::spawn(move || {
        each_packet(gateway, broker, |packet| {
            let acknowledged = acknowledged(packet)
                .and_then(|id| in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
            given.lock().unwrap_or_else(PoisonError::into_inner).extend(acknowledged);
        });
    });
}

/// Passes packets on, each seen before it goes.
fn each_packet(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&Packet)) {
    while let Some(packet) = packet(&mut from) {
        see(&packet);
        if to.write_all(&packet.bytes).is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}

/// A control packet: all its bytes, and where its variable header begins.
struct Packet {
    bytes: Vec<u8>,
    body: usize,
}

fn packet(from: &mut TcpStream) -> Option<Packet> {
    let mut bytes = vec![0; 2];
    from.read_exact(&mut bytes).ok()?;
    // The remaining length: seven bits a byte, the lowest first.
    while bytes[bytes.len() - 1] & 0x80 != 0 && bytes.len() < 5 {
        bytes.push(0);
        let last = bytes.len() - 1;
        from.read_exact(&mut bytes[last..]).ok()?;
    }
    let body = bytes.len();
    let length = bytes[1..].iter().rev().fold(0usize, |length, byte| length << 7 | usize::from(byte & 0x7f));
    bytes.resize(body + length, 0);
    from.read_exact(&mut bytes[body..]).ok()?;
    Some(Packet { bytes, body })
}

/// Packet id and reading of a message at QoS 1 from one of our devices.
fn published(packet: &Packet) -> Option<(u16, (String, u32))> {
    if packet.bytes[0] >> 4 != PUBLISH || packet.bytes[0] & 0b110 != 0b010 {
        return None;
    }
    let body = &packet.bytes[packet.body..];
    let topic_end = 2 + usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let topic = std::str::from_utf8(body.get(2..topic_end)?).ok()?;
    let id = u16::from_be_bytes([*body.get(topic_end)?, *body.get(topic_end + 1)?]);
    let device = topic.strip_prefix("clinic/")?.strip_suffix("/vitals")?;
    // Properties stand between the id and the payload; none of them holds this text.
    let rest = String::from_utf8_lossy(body.get(topic_end + 2..)?);
    let rate = rest.split("\"hr\":").nth(1)?.trim_end_matches('}').parse().ok()?;
    Some((id, (device.to_owned(), number_of(rate))))
}

fn acknowledged(packet: &Packet) -> Option<u16> {
    let is_puback = packet.bytes[0] >> 4 == PUBACK;
    let id = packet.bytes.get(packet.body..packet.body + 2)?;
    // A reason from 0x80 on would be a refusal.
    let is_refusal = packet.bytes.get(packet.body + 2).is_some_and(|reason| *reason >= 0x80);
    (is_puback && !is_refusal).then(|| u16::from_be_bytes([id[0], id[1]]))
}
