//! A relay in front of a Kafka broker that knows requests and answers: it loses an answer, hangs up, or holds its breath.
//!
//! Wherever an answer names the broker's address the relay writes its own, of the same length, so that clients stay with
//! it without the broker being told.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a client asks, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub(crate) enum Request {
    Produce = 0,
    EndTransaction = 26,
}

/// Whether anything passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Nothing passes, and nobody hangs up.
    Held,
}

/// Runs as long as the test holds it.
pub(crate) struct Relay {
    /// Bootstrap address for the client.
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    line: Line,
    /// Answers to lose yet, with the connection.
    swallow: Option<(Request, u32)>,
    swallowed: u32,
    /// Requests of this kind that went to the broker.
    produced: u32,
    connections: Vec<TcpStream>,
    ended: bool,
}

/// Where a connection goes and what to write in place of the broker's address.
#[derive(Clone)]
struct Route {
    broker: Arc<[u8]>,
    relay: Arc<[u8]>,
}

impl Relay {
    /// A relay to one broker.
    pub(crate) fn to(broker: &str) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state =
            State { line: Line::Open, swallow: None, swallowed: 0, produced: 0, connections: Vec::new(), ended: false };
        let state = Arc::new(Mutex::new(state));
        let route = Route { broker: wire_form(broker), relay: wire_form(&address) };
        let (broker, shared) = (broker.to_owned(), state.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                match shared.lock().unwrap() {
                    state if state.ended => return,
                    state if state.line == Line::Cut => continue,
                    _ => {}
                }
                let Ok(server) = TcpStream::connect(&broker) else { continue };
                pass_on(client, server, &shared, &route);
            }
        });
        Relay { address, state }
    }

    /// Loses the answers to the next `count` requests of this kind, each with its connection: the broker did it.
    pub(crate) fn swallow(&self, request: Request, count: u32) {
        self.state.lock().unwrap().swallow = Some((request, count));
    }

    /// Answers lost so far.
    pub(crate) fn swallowed(&self) -> u32 {
        self.state.lock().unwrap().swallowed
    }

    /// Produce requests that went to the broker.
    pub(crate) fn produced(&self) -> u32 {
        self.state.lock().unwrap().produced
    }

    /// The broker is away.
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.line = Line::Cut;
        hang_up(&mut state);
    }

    /// The broker neither answers nor hangs up.
    pub(crate) fn hold(&self) {
        self.state.lock().unwrap().line = Line::Held;
    }

    /// All is well again.
    pub(crate) fn open(&self) {
        self.state.lock().unwrap().line = Line::Open;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap();
        state.ended = true;
        hang_up(&mut state);
        drop(state);
        // The listening thread looks at `ended` with its next connection.
        drop(TcpStream::connect(&self.address));
    }
}

fn hang_up(state: &mut State) {
    for connection in state.connections.drain(..) {
        connection.shutdown(Shutdown::Both).ok();
    }
}

/// An address as answers carry it: the host's text, then the port in four bytes.
fn wire_form(address: &str) -> Arc<[u8]> {
    let (host, port) = address.split_once(':').unwrap();
    let port: u32 = port.parse().unwrap();
    host.bytes().chain(port.to_be_bytes()).collect()
}

fn pass_on(client: TcpStream, server: TcpStream, state: &Arc<Mutex<State>>, route: &Route) {
    {
        let mut state = state.lock().unwrap();
        state.connections.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
    }
    let watched = Arc::new(Mutex::new(HashSet::new()));
    let (from_client, to_client) = (client.try_clone().unwrap(), client);
    let (from_server, to_server) = (server.try_clone().unwrap(), server);
    let (shared, correlations) = (state.clone(), watched.clone());
    std::thread::spawn(move || requests(from_client, to_server, &shared, &correlations));
    let (shared, route) = (state.clone(), route.clone());
    std::thread::spawn(move || answers(from_server, to_client, &shared, &watched, &route));
}

/// From the client to the broker, and which answers are to be lost.
fn requests(mut from: TcpStream, mut to: TcpStream, state: &Mutex<State>, watched: &Mutex<HashSet<[u8; 4]>>) {
    while let Some(frame) = frame(&mut from) {
        if !wait_until_open(state) {
            break;
        }
        // After the length: the request's kind, its version, its correlation id.
        let kind = i16::from_be_bytes([frame[4], frame[5]]);
        let correlation = [frame[8], frame[9], frame[10], frame[11]];
        {
            let mut state = state.lock().unwrap();
            state.produced += u32::from(kind == Request::Produce as i16);
            if let Some((request, left @ 1..)) = &mut state.swallow
                && *request as i16 == kind
            {
                *left -= 1;
                watched.lock().unwrap().insert(correlation);
            }
        }
        if to.write_all(&frame).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}

/// From the broker to the client.
fn answers(
    mut from: TcpStream,
    mut to: TcpStream,
    state: &Mutex<State>,
    watched: &Mutex<HashSet<[u8; 4]>>,
    route: &Route,
) {
    while let Some(mut frame) = frame(&mut from) {
        if !wait_until_open(state) {
            break;
        }
        if watched.lock().unwrap().contains(&frame[4..8]) {
            state.lock().unwrap().swallowed += 1;
            break;
        }
        replace(&mut frame, &route.broker, &route.relay);
        if to.write_all(&frame).is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}

/// One message with the length before it; `None` when the peer hung up.
fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut frame = length.to_vec();
    frame.resize(4 + u32::from_be_bytes(length) as usize, 0);
    from.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}

/// Whether the line is open in the end.
fn wait_until_open(state: &Mutex<State>) -> bool {
    let end = Instant::now() + Duration::from_secs(120);
    while Instant::now() < end {
        match state.lock().unwrap() {
            state if state.ended || state.line == Line::Cut => return false,
            state if state.line == Line::Open => return true,
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let mut at = 0;
    while at + old.len() <= bytes.len() {
        if bytes[at..].starts_with(old) {
            bytes[at..at + old.len()].copy_from_slice(new);
            at += old.len();
        } else {
            at += 1;
        }
    }
}
