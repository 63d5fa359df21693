//! Decoding and normalizing one frame, for a few profiles.
//!
//! `cargo bench --bench decode -- [--rounds N]`; a round is 20,000 frames, and N is 25 by default.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use biogate::interpret::{Catalog, DeviceMemory, EntryBinding, Limits, ProfileSet};
use biogate::reading::{BootId, Channel, Element, Heard, Reading};
use rustix::time::{ClockId, clock_gettime};

mod rig;

const FRAMES: u64 = 20_000;

/// Profile, channel, frame: hex, or text where it is quoted.
const CASES: &[(&str, &str, &str)] = &[
    ("bluetooth-heart-rate", "2a37", "1648b303"),
    ("bluetooth-heart-rate", "2a37", "0048"),
    ("bluetooth-health-thermometer", "2a1c", "06710100ffea070b17081e0001"),
    ("bluetooth-blood-pressure", "2a35", "1e79004f005d00ea070b17081e00480001 0500"),
    ("bthome-v2", "advertisement", "400161024808"),
    ("contec-cms50", "frame", "851e033d61"),
    ("serial-vitals-line", "frame", "'HR:72,T:36.6,S:1042"),
    ("mqtt-vitals-json", "message", r#"'{"hr":72,"spo2":97,"temp":{"c":36.6}}"#),
];

fn main() {
    let rounds = rig::Arguments::read().number("--rounds", 25);
    let profiles = ProfileSet::builtin().unwrap();
    println!("decode and normalize, CPU of one frame, median of {rounds} rounds of {FRAMES}");
    for (profile, channel, frame) in CASES {
        let entry: Arc<str> = "device".into();
        let binding = EntryBinding { entry: entry.clone(), profile: (*profile).to_owned(), component: None, key: None };
        let catalog = Catalog::new(&profiles, vec![binding], Limits::default()).unwrap();
        let mut reading = Reading {
            device: entry.clone(),
            entry,
            channel: channel_of(channel),
            bytes: bytes_of(frame).into(),
            heard: Heard { boot: BootId::WALL, ms: 1_763_900_000_000 },
        };
        let mut memory = DeviceMemory::default();
        let mut number = 0;
        let mut events = 0;
        let mut round = || {
            let start = cpu_ns();
            for _ in 0..FRAMES {
                number += 1;
                reading.heard.ms += 1_000;
                let interpretation = catalog.interpret(black_box(&reading), number, &mut memory);
                assert!(interpretation.faults.is_empty(), "{:?}", interpretation.faults);
                events = interpretation.observations.len();
                black_box(&interpretation);
            }
            (cpu_ns() - start) as f64 / FRAMES as f64
        };
        round();
        let cost = rig::median((0..rounds).map(|_| round()).collect());
        println!("  {cost:6.0} ns  {profile}, {} bytes, {events} events", reading.bytes.len());
    }
}

fn cpu_ns() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn channel_of(name: &str) -> Channel {
    match name {
        "frame" => Channel::Frame,
        "message" => Channel::Message { topic: "clinic/bed-7/vitals".into() },
        "advertisement" => {
            Channel::Advertisement { address: "A0:9E:1A:00:11:22".into(), element: Element::ServiceData("fcd2".into()) }
        }
        characteristic => Channel::Gatt(characteristic.into()),
    }
}

fn bytes_of(frame: &str) -> Vec<u8> {
    if let Some(text) = frame.strip_prefix('\'') {
        return text.as_bytes().to_vec();
    }
    let hex: Vec<u8> = frame.bytes().filter(|byte| *byte != b' ').collect();
    hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
