//! Twenty people's sensors, deterministic: ten straps with Bluetooth heart-rate frames and ten bands that write a text
//! line, one frame a second each.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::{create, finish};

/// Devices of a ward; half are straps, half are bands.
pub(crate) const DEVICES: usize = 20;

/// Which of them speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speak {
    /// Straps only: one event a frame.
    Straps,
    /// All: one event a frame of a strap, three of a band.
    All,
}

/// The ward's state.
pub(crate) struct Ward {
    random: fastrand::Rng,
    rates: [i32; DEVICES],
    temperatures: [i32; DEVICES],
    steps: [u32; DEVICES],
}

impl Ward {
    pub(crate) fn new() -> Ward {
        let random = fastrand::Rng::with_seed(7);
        Ward { random, rates: [72; DEVICES], temperatures: [366; DEVICES], steps: [1_000; DEVICES] }
    }

    /// The next frame of a strap: contact detected, one interval.
    pub(crate) fn strap(&mut self, device: usize) -> [u8; 4] {
        let rate = self.rate(device);
        let interval = (61_440 / rate + self.random.i32(-20..=20)) as u16;
        let [low, high] = interval.to_le_bytes();
        [0x16, rate as u8, low, high]
    }

    /// The next line of a band.
    pub(crate) fn band(&mut self, device: usize) -> String {
        let rate = self.rate(device);
        let degrees = &mut self.temperatures[device];
        *degrees = (*degrees + self.random.i32(-1..=1)).clamp(350, 410);
        self.steps[device] = (self.steps[device] + self.random.u32(0..3)) % 65_536;
        format!("HR:{rate},T:{}.{},S:{}", *degrees / 10, *degrees % 10, self.steps[device])
    }

    fn rate(&mut self, device: usize) -> i32 {
        let rate = &mut self.rates[device];
        *rate = (*rate + self.random.i32(-1..=1)).clamp(48, 180);
        *rate
    }
}

/// The entries of all devices, each assigned to a person. Their links are not opened by `replay`.
pub(crate) fn entries() -> String {
    let mut text = String::new();
    for number in 0..DEVICES {
        let (name, profile, link) = match number % 2 {
            0 => ("strap", "bluetooth-heart-rate", format!("mqtt = \"bench/{number}\"")),
            _ => ("band", "serial-vitals-line", format!("serial = \"/dev/bench-{number}\"")),
        };
        let person = uuid::Uuid::from_u128(0x6f1c_7a52_0000_4f8e_9a57_0000_0000_0000 + number as u128);
        write!(
            text,
            "\n[[device]]\nname = \"{name}-{number}\"\nprofile = \"{profile}\"\n{link}\nuser_id = \"{person}\"\n\
             location = \"room {number}\"\n"
        )
        .unwrap();
    }
    text + "\n[[mqtt]]\nname = \"bench\"\nurl = \"mqtt://127.0.0.1:1\"\n"
}

/// Writes a recording of so many frames.
pub(crate) fn record(file: &Path, frames: u64, speak: Speak) {
    record_from(file, frames, speak, 1_763_900_000_000);
}

/// The same, from this Unix time on: a table may drop what is older than a year.
pub(crate) fn record_from(file: &Path, frames: u64, speak: Speak, start_ms: u64) {
    let mut ward = Ward::new();
    let mut out = create(file);
    let mut t = start_ms;
    for frame in 0..frames {
        let device = frame as usize % DEVICES;
        let device = if speak == Speak::Straps { device & !1 } else { device };
        t += 50;
        let (name, channel, bytes) = match device % 2 {
            0 => ("strap", "2a37", ward.strap(device).to_vec()),
            _ => ("band", "frame", ward.band(device).into_bytes()),
        };
        let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        writeln!(out, r#"{{"t":{t},"device":"{name}-{device}","channel":"{channel}","hex":"{hex}"}}"#).unwrap();
    }
    finish(out);
}
