//! Serial devices: one task each, which opens the port, cuts frames, waits for a place, and reopens for ever.
//!
//! A read of 0 bytes is an unplugged device: the port is closed at once, since holding it would make the kernel give the
//! device another number when it returns. The only home of tokio-serial.

pub mod port_name;
pub mod ports;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_serial::{FlowControl, Parity, SerialStream};

use crate::interpret::link::{self, FrameSpec, LinkSpec, Repeated};
use crate::reading::{Channel, Reading};
use crate::source::backoff::Backoff;
use crate::source::context::{Context, Stop};
use crate::source::delivery::DeviceInlet;
use crate::source::framing::Framer;
use crate::source::health::{Count, DeviceHealth, Kind};
use crate::source::serial::port_name::{NotFound, PortName};

/// Without a frame for so long, a device is reported silent and its port opened once more.
pub const SILENCE: Duration = Duration::from_secs(60);

/// A silence longer than this is never waited for.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(365 * 86_400);

/// An open or a write that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long a frame in hand may still wait for a place once the sources shall stop.
const LAST_FRAME: Duration = Duration::from_secs(2);

/// Bytes that come so soon after the open belong to something that began before it.
const IN_THE_MIDDLE: Duration = Duration::from_millis(20);

/// The baud rate where the profile names none.
const BAUD: u32 = 9_600;

/// One serial device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialSettings {
    /// The `device_id` of its readings.
    pub device: Arc<str>,
    /// The entry that names it.
    pub entry: Arc<str>,
    /// Its port.
    pub port: PortName,
    /// How its profile opens the line and keeps it talking.
    pub link: LinkSpec,
    /// How its profile cuts frames.
    pub frame: FrameSpec,
    /// How long without a frame is silence; at most [`LONGEST_SILENCE`].
    pub silence: Duration,
}

/// Why reading a port ended.
#[derive(Debug)]
enum Ended {
    Stopping,
    Lost(String),
    Silent,
}

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("{0}")]
    NotFound(#[from] NotFound),
    #[error("cannot open {}: {error}", path.display())]
    Open { path: PathBuf, error: tokio_serial::Error },
    #[error("opening {0} hangs")]
    Hangs(PortName),
    #[error("opening {0} panicked")]
    Panicked(PortName),
}

/// Reads one device until the sources stop.
pub async fn run(mut settings: SerialSettings, mut context: Context) {
    settings.silence = settings.silence.min(LONGEST_SILENCE);
    let health = context.health.device(&settings.device);
    health.set_kind(Kind::Serial);
    let mut device =
        Device { inlet: context.inlet.device(), health: health.clone(), settings, silence_told: false, frames: 0 };
    let mut opener = Opener { port: device.settings.port.clone(), link: device.settings.link.clone(), opening: None };
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    loop {
        let opened = tokio::select! {
            () = context.stop.wait() => break,
            opened = opener.open() => opened,
        };
        match opened {
            Err(error) => {
                health.set_in_reach(false);
                health.set_trouble(&error.to_string());
            }
            Ok((port, is_pty)) => {
                health.set_in_reach(true);
                if !device.silence_told {
                    health.set_state("open");
                }
                let before = device.frames;
                let ended = device.talk(port, is_pty, &mut context).await;
                if device.frames > before {
                    backoff.reset();
                }
                match ended {
                    Ended::Stopping => break,
                    Ended::Lost(why) => {
                        health.count(Count::Disconnects, 1);
                        health.set_in_reach(false);
                        health.set_trouble(&format!("disconnected: {why}"));
                    }
                    Ended::Silent => continue,
                }
            }
        }
        if context.stop.wait_at_most(backoff.next_wait(fastrand::f64())).await {
            break;
        }
    }
    health.set_state("stopped");
}

/// Opens the port off the async threads: a broken adapter can hang in it.
struct Opener {
    port: PortName,
    link: LinkSpec,
    /// An attempt that has not come back: no second one is started beside it.
    opening: Option<JoinHandle<Result<(SerialStream, bool), OpenError>>>,
}

impl Opener {
    async fn open(&mut self) -> Result<(SerialStream, bool), OpenError> {
        let (port, link) = (&self.port, &self.link);
        let opening = self.opening.get_or_insert_with(|| {
            let (port, link) = (port.clone(), link.clone());
            tokio::task::spawn_blocking(move || open(&port, &link))
        });
        let opened = timeout(DEADLINE, opening).await.map_err(|_| OpenError::Hangs(self.port.clone()))?;
        self.opening = None;
        opened.map_err(|_| OpenError::Panicked(self.port.clone()))?
    }
}

/// Opens the port; also tells whether it is a pty, which has neither parity nor flow control nor exclusive use.
fn open(port: &PortName, link: &LinkSpec) -> Result<(SerialStream, bool), OpenError> {
    let path = port.resolve(Path::new("/sys"), Path::new("/dev"))?;
    let is_pty = path.canonicalize().is_ok_and(|real| real.starts_with("/dev/pts"));
    let plain = tokio_serial::new(path.to_string_lossy(), link.baud.unwrap_or(BAUD));
    let builder = if is_pty {
        plain.exclusive(false)
    } else {
        plain.exclusive(true).parity(parity(link.parity)).flow_control(flow(link.flow))
    };
    let stream = SerialStream::open(&builder).map_err(|error| OpenError::Open { path, error })?;
    Ok((stream, is_pty))
}

fn parity(parity: link::Parity) -> Parity {
    match parity {
        link::Parity::None => Parity::None,
        link::Parity::Odd => Parity::Odd,
        link::Parity::Even => Parity::Even,
    }
}

fn flow(flow: link::Flow) -> FlowControl {
    match flow {
        link::Flow::None => FlowControl::None,
        link::Flow::Software => FlowControl::Software,
        link::Flow::Hardware => FlowControl::Hardware,
    }
}

struct Device {
    settings: SerialSettings,
    inlet: DeviceInlet,
    health: Arc<DeviceHealth>,
    /// Silence was reported and the port reopened for it; a frame ends it.
    silence_told: bool,
    /// Good frames since the start.
    frames: u64,
}

impl Device {
    /// Reads and writes until the port or the gateway ends it.
    async fn talk(&mut self, port: SerialStream, is_pty: bool, context: &mut Context) -> Ended {
        let (reader, writer) = tokio::io::split(port);
        let link = self.settings.link.clone();
        let mut stop = context.stop.clone();
        tokio::select! {
            ended = self.listen(reader, is_pty, context, &mut stop) => ended,
            why = speak(writer, link) => Ended::Lost(why),
        }
    }

    async fn listen(
        &mut self,
        mut port: impl AsyncRead + Unpin,
        is_pty: bool,
        context: &Context,
        stop: &mut Stop,
    ) -> Ended {
        let mut framer = Framer::new(self.settings.frame.clone());
        let (mut bytes, mut frames) = ([0; 4_096], Vec::new());
        let opened = Instant::now();
        let (mut first, mut receiving) = (true, false);
        let mut silent_at = opened + self.settings.silence;
        loop {
            let read = tokio::select! {
                () = stop.wait() => return Ended::Stopping,
                () = sleep_until(silent_at), if !self.silence_told => return self.tell_silence(),
                read = port.read(&mut bytes) => read,
            };
            let length = match read {
                Ok(0) => return Ended::Lost("the port was closed (unplugged?)".to_owned()),
                Ok(length) => length,
                Err(error) => return Ended::Lost(error.to_string()),
            };
            if std::mem::take(&mut first) && !is_pty && opened.elapsed() < IN_THE_MIDDLE {
                framer.begin_in_the_middle();
            }
            let heard = (context.uptime)();
            framer.push(&bytes[..length], heard.ms, &mut frames);
            self.count(&mut framer);
            for frame in frames.drain(..) {
                silent_at = Instant::now() + self.settings.silence;
                self.frames += 1;
                self.silence_told = false;
                if !std::mem::replace(&mut receiving, true) {
                    self.health.set_state("receiving");
                }
                self.health.heard(heard);
                let reading = self.reading(frame, heard);
                if !deliver(&self.inlet, reading, stop).await {
                    self.health.count(Count::Dropped, 1);
                    return Ended::Stopping;
                }
            }
        }
    }

    fn reading(&self, bytes: Bytes, heard: crate::reading::Heard) -> Reading {
        let (device, entry) = (self.settings.device.clone(), self.settings.entry.clone());
        Reading { device, entry, channel: Channel::Frame, bytes, heard }
    }

    fn tell_silence(&mut self) -> Ended {
        self.silence_told = true;
        self.health.count(Count::Silences, 1);
        self.health.set_trouble(&format!("silent for {} s; port opened once more", self.settings.silence.as_secs()));
        Ended::Silent
    }

    fn count(&self, framer: &mut Framer) {
        let tally = framer.take_tally();
        let port = &self.settings.port;
        self.health.fault(Count::GarbageBytes, tally.garbage_bytes, port);
        self.health.fault(Count::ChecksumFailures, tally.checksum_failures, port);
        self.health.fault(Count::Oversized, tally.oversized, port);
        self.health.fault(Count::Dropped, tally.ungathered, &"frames without their first");
    }
}

/// Waits for a place. At a stop the frame in hand has a moment left; false when it was not taken.
async fn deliver(inlet: &DeviceInlet, reading: Reading, stop: &mut Stop) -> bool {
    let too_late = async {
        stop.wait().await;
        tokio::time::sleep(LAST_FRAME).await;
    };
    tokio::select! {
        biased;
        taken = inlet.deliver(reading, None, None) => taken.is_ok(),
        () = too_late => false,
    }
}

/// Writes what the profile asks for; returns only when a write fails.
async fn speak(mut port: impl AsyncWrite + Unpin, link: LinkSpec) -> String {
    if let Err(why) = write_all(&mut port, &link.init).await {
        return why;
    }
    let (mut keepalive, mut poll) = (ticks(&link.keepalive, false), ticks(&link.poll, true));
    loop {
        let repeated = tokio::select! {
            _ = keepalive.tick(), if link.keepalive.is_some() => &link.keepalive,
            _ = poll.tick(), if link.poll.is_some() => &link.poll,
            else => std::future::pending().await,
        };
        let send = repeated.as_ref().map_or(&[][..], |repeated| &repeated.send);
        if let Err(why) = write_all(&mut port, send).await {
            return why;
        }
    }
}

/// The rounds of a repeated write; the first at once or after one period.
fn ticks(repeated: &Option<Repeated>, at_once: bool) -> Interval {
    let period = repeated.as_ref().map_or(DEADLINE, |repeated| repeated.every).max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + if at_once { Duration::ZERO } else { period }, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn write_all(port: &mut (impl AsyncWrite + Unpin), writes: &[Bytes]) -> Result<(), String> {
    for write in writes {
        let written = timeout(DEADLINE, port.write_all(write)).await;
        written.map_err(|_| "a write hangs".to_owned())?.map_err(|error| format!("cannot write: {error}"))?;
    }
    Ok(())
}
