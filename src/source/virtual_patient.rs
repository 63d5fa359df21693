//! Virtual patients for the demo: each writes a device's real bytes to a pty, or publishes to a broker.

pub mod model;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::source::context::Stop;
use crate::source::virtual_patient::model::{Patient, Vitals};

/// One virtual patient.
#[derive(Debug, Clone)]
pub struct PatientSettings {
    /// Who she is.
    pub seed: u64,
    /// The time between two measurements.
    pub every: Duration,
    /// How much faster she lives: at 60 a minute of her day passes in a second, so that a short look shows rest and walk.
    pub haste: f64,
    /// The hour of her day at which she begins, 0 to 24.
    pub hour: f64,
}

impl PatientSettings {
    /// A patient who measures once a second, from ten in the morning, a minute of her day in each.
    pub fn new(seed: u64) -> Self {
        PatientSettings { seed, every: Duration::from_secs(1), haste: 60.0, hour: 10.0 }
    }
}

/// The device's side of a serial line; the other side is a port that the serial source opens.
#[derive(Debug)]
pub struct PatientLine {
    master: File,
    port: PathBuf,
}

impl PatientLine {
    /// A new pty.
    pub fn open() -> io::Result<PatientLine> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let mut settings = tcgetattr(&master)?;
        settings.make_raw();
        tcsetattr(&master, OptionalActions::Now, &settings)?;
        // A device does not wait for a hub that does not read.
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        let port = ptsname(&master, Vec::new())?.into_string().map_err(io::Error::other)?;
        Ok(PatientLine { master: master.into(), port: port.into() })
    }

    /// The path that a device entry names.
    pub fn port(&self) -> &Path {
        &self.port
    }

    /// Writes one line of the profile `serial-vitals-line`; false when the hub does not read and it is lost.
    fn say(&mut self, vitals: &Vitals) -> bool {
        self.master.write_all(line(vitals).as_bytes()).is_ok()
    }
}

/// One line of the profile `serial-vitals-line`: `HR:72,T:36.6,S:1042` and a line feed.
fn line(vitals: &Vitals) -> String {
    let heart = vitals.heart_rate.map_or_else(|| "--".to_owned(), |heart| heart.to_string());
    let tenths = vitals.temperature_tenths;
    format!("HR:{heart},T:{}.{},S:{}\n", tenths / 10, tenths % 10, vitals.steps)
}

/// Writes the patient's measurements to the line until the stop.
pub async fn run_serial(settings: PatientSettings, mut line: PatientLine, stop: Stop) {
    live(settings, stop, |vitals, _| {
        let _a_frame_nobody_reads_is_lost = line.say(vitals);
    })
    .await;
}

/// Publishes the patient's measurements until the stop: `PREFIX/NAME/vitals` in the form of the profile
/// `mqtt-vitals-json`, and `PREFIX/NAME/steps` in that of `mqtt-step-counter`.
#[cfg(feature = "mqtt")]
pub async fn run_mqtt(
    settings: PatientSettings,
    prefix: String,
    name: String,
    publisher: crate::source::mqtt::publisher::Publisher,
    stop: Stop,
) {
    let (mut sequence, mut total) = (0u32, Total::default());
    live(settings, stop, |vitals, now_ms| {
        sequence = sequence.wrapping_add(1);
        let heart = vitals.heart_rate.map_or_else(|| "null".to_owned(), |heart| heart.to_string());
        let (whole, tenth) = (vitals.temperature_tenths / 10, vitals.temperature_tenths % 10);
        let payload = format!(r#"{{"ts":{now_ms},"seq":{sequence},"hr":{heart},"temp":{{"c":{whole}.{tenth}}}}}"#);
        publisher.publish(format!("{prefix}/{name}/vitals"), payload);
        let payload = format!(r#"{{"steps":{},"ts":{now_ms}}}"#, total.at(vitals.steps));
        publisher.publish(format!("{prefix}/{name}/steps"), payload);
    })
    .await;
}

/// Her steps in all: the counter of the profile `mqtt-step-counter` does not wrap, and takes any fall for a restart.
#[cfg(feature = "mqtt")]
#[derive(Default)]
struct Total {
    steps: u64,
    counter: Option<u64>,
}

#[cfg(feature = "mqtt")]
impl Total {
    /// When the sensor's own counter, which wraps, shows this.
    fn at(&mut self, counter: u64) -> u64 {
        let before = self.counter.replace(counter).unwrap_or(0);
        self.steps += (counter + model::STEPS_WRAP - before) % model::STEPS_WRAP;
        self.steps
    }
}

/// Lives until the stop and tells each measurement, with the Unix milliseconds at which it was made.
async fn live(settings: PatientSettings, mut stop: Stop, mut tell: impl FnMut(&Vitals, u64)) {
    let mut patient = Patient::new(settings.seed);
    let begin_ms = (settings.hour.clamp(0.0, 24.0) * 3_600_000.0) as u64;
    let started = Instant::now();
    let mut ticks = interval(settings.every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.wait() => return,
            _ = ticks.tick() => {}
        }
        let lived_ms = started.elapsed().as_secs_f64() * 1_000.0 * settings.haste.max(0.0);
        // Her own clock: whole steps of it, so that the same seed says the same whatever the machine's delays.
        let step_ms = (settings.every.as_secs_f64() * 1_000.0 * settings.haste).max(1.0);
        let age_ms = ((lived_ms / step_ms).round() * step_ms) as u64;
        if let Some(vitals) = patient.at(begin_ms + age_ms) {
            tell(&vitals, unix_ms());
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "mqtt")]
    #[test]
    fn the_total_of_steps_goes_on_where_the_sensor_s_counter_wraps() {
        let mut total = Total::default();
        assert_eq!(
            [65_000, 65_530, 4, 4, 100].map(|counter| total.at(counter)),
            [65_000, 65_530, 65_540, 65_540, 65_636]
        );
    }

    #[test]
    fn a_line_is_the_shipped_profile_s() {
        let vitals = Vitals { heart_rate: Some(72), temperature_tenths: 366, steps: 1_042 };
        assert_eq!(line(&vitals), "HR:72,T:36.6,S:1042\n");
        assert_eq!(line(&Vitals { heart_rate: None, ..vitals }), "HR:--,T:36.6,S:1042\n");
    }
}
