//! What is said to a linked device: connect, context, clock, subscriptions, first writes; then polls, keep-alive writes
//! and stored records. Each call has a deadline; what a device lacks is left out and told.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use btleplug::api::{Central as _, Peripheral as _};
use btleplug::platform::Adapter as Central;
use bytes::Bytes;
use jiff::civil::DateTime;
use tokio::time::{Instant, sleep, timeout};

use crate::interpret::link::Repeated;
use crate::interpret::profile::Get;
use crate::reading;
use crate::source::ble::bluez::{Bus, CallError};
use crate::source::ble::flow::{Flows, Route};
use crate::source::ble::gatt::{Characteristic, Gatt};
use crate::source::ble::link::Failure;
use crate::source::ble::place::Place;
use crate::source::ble::{Plan, Wanted};

/// btleplug waits for the link and for the services; the link's state has shorter deadlines of its own.
const CONNECT: Duration = Duration::from_secs(60);

/// How often it is asked whether the services are resolved, besides waiting for the news.
const ASK_RESOLVED: Duration = Duration::from_secs(1);

/// A read of context that takes longer is left out, and those after it too: the device is waiting to talk.
const CONTEXT: Duration = Duration::from_secs(3);

/// BlueZ may say that services are resolved before it shows them.
const SHOWN_LATE: [Duration; 3] = [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];

/// A device that is polled less often than this is left in between.
const STAY: Duration = Duration::from_secs(10);

/// A device's clock that differs by less is right.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);

/// The radio as a device is given it.
#[derive(Clone)]
pub(super) struct Radio {
    pub(super) bus: Arc<Bus>,
    pub(super) central: Central,
    pub(super) place: Place,
}

/// A value that was read.
pub(super) struct Heard {
    pub(super) channel: Arc<str>,
    pub(super) bytes: Bytes,
    /// When it was so: it may be what the device's clock showed then.
    pub(super) at: reading::Heard,
}

/// A link on which everything is subscribed.
pub(super) struct Linked {
    pub(super) talk: Talk,
    /// Context that was read.
    pub(super) heard: Vec<Heard>,
    /// What the profile asks for and the device has not.
    pub(super) lacking: Vec<Arc<str>>,
    /// The hub has set or checked the device's clock on this link.
    pub(super) clock_checked: bool,
    /// Stored records can be asked for.
    pub(super) keeps_records: bool,
}

/// What goes on being said while the link is up.
pub(super) struct Talk {
    gatt: Gatt,
    polls: Vec<Poll>,
    keepalive: Option<(Repeated, Characteristic, Instant)>,
}

struct Poll {
    channel: Arc<str>,
    characteristic: Characteristic,
    every: Duration,
    next: Instant,
}

/// Makes the link and waits until BlueZ has resolved the services.
pub(super) async fn connect(radio: &Radio) -> Result<(), Failure> {
    let known = timeout(CONTEXT * 3, radio.central.peripherals()).await;
    let known = known.map_err(|_| Failure::Passing("bluetoothd does not answer GetManagedObjects".to_owned()))?;
    let known = known.map_err(|why| failure(&why.to_string()))?;
    let peripheral = known.into_iter().find(|peripheral| peripheral.address().to_string() == *radio.place.address);
    let peripheral = peripheral.ok_or_else(|| Failure::Passing("bluetoothd has forgotten it".to_owned()))?;
    // btleplug misses the news at times when two are resolved at once; then asking finds it.
    let resolved = async {
        while radio.bus.is_resolved(&radio.place).await != Ok(true) {
            sleep(ASK_RESOLVED).await;
        }
    };
    let connected = tokio::select! {
        biased;
        connected = timeout(CONNECT, peripheral.connect()) => connected,
        () = async { sleep(ASK_RESOLVED).await; resolved.await } => Ok(Ok(())),
    };
    match connected {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(failure(&why.to_string())),
        Err(_elapsed) => Err(Failure::Passing("bluetoothd does not answer Connect".to_owned())),
    }
}

/// Reads context, sets the clock, subscribes, and writes what the profile says.
pub(super) async fn subscribe(
    radio: &Radio,
    plan: &Plan,
    flows: &Flows,
    route: &(impl Fn(Arc<str>, bool) -> Route + Sync),
    wall: Option<DateTime>,
) -> Result<Linked, Failure> {
    let gatt = listed(radio, plan).await?;
    let (claimed, mut lacking) = claim(&gatt, plan);
    let needed = |wanted: &Wanted| wanted.get != Get::ReadOnce;
    if !claimed.iter().any(|(wanted, _)| needed(wanted)) {
        let wanted: Vec<&str> = plan.channels.iter().filter(|wanted| needed(wanted)).map(|w| &*w.name).collect();
        let wanted = wanted.join(", ");
        return Err(Failure::Lasting(format!(
            "has none of {wanted}, which its profile decodes; is it the right profile?"
        )));
    }
    let mut heard = context(&gatt, &claimed, flows).await;
    let clock_checked = clock(&gatt, plan, wall).await;
    if clock_checked {
        // What it shows from now on. What it showed before counts for the records from before.
        let is_clock = |(wanted, _): &&(&Wanted, Characteristic)| Some(&wanted.name) == plan.link.set_clock.as_ref();
        let clocks: Vec<_> = claimed.iter().filter(is_clock).cloned().collect();
        heard.extend(context(&gatt, &clocks, flows).await);
    }
    let control = plan.link.records.as_ref().map(|records| (&records.control, gatt.of(&records.control).next()));
    match control {
        Some((name, Some(control))) => {
            flows.open(&control.path, route(name.clone(), true));
            gatt.subscribe(control).await.or_else(in_progress).map_err(refused)?;
        }
        // An oximeter without a memory has none.
        Some((name, None)) => lacking.push(name.clone()),
        None => {}
    }
    let keeps_records = control.is_some_and(|(_, control)| control.is_some());
    for (wanted, characteristic) in &claimed {
        let kept = wanted.get == Get::Indicate || characteristic.indicates() || plan.link.records.is_some();
        if matches!(wanted.get, Get::Notify | Get::Indicate) {
            flows.open(&characteristic.path, route(wanted.name.clone(), kept));
            gatt.subscribe(characteristic).await.or_else(in_progress).map_err(refused)?;
        }
    }
    let write_to = plan.link.write_to.as_deref().and_then(|uuid| gatt.of(uuid).next()).cloned();
    if let Some(characteristic) = &write_to {
        for bytes in &plan.link.init {
            gatt.write(characteristic, bytes).await.map_err(refused)?;
        }
    }
    let now = Instant::now();
    let polls = claimed.iter().filter(|(wanted, _)| wanted.get == Get::Poll).map(|(wanted, characteristic)| Poll {
        channel: wanted.name.clone(),
        characteristic: characteristic.clone(),
        every: wanted.every,
        next: now,
    });
    let polls = polls.collect();
    let keepalive = plan.link.keepalive.clone().zip(write_to).map(|(repeated, to)| {
        let next = now + repeated.every;
        (repeated, to, next)
    });
    Ok(Linked { talk: Talk { gatt, polls, keepalive }, heard, lacking, clock_checked, keeps_records })
}

/// Lists what the device has; a little later once more where something is not there yet.
async fn listed(radio: &Radio, plan: &Plan) -> Result<Gatt, Failure> {
    let mut gatt = Gatt::list(radio.bus.clone(), &radio.place).await.map_err(refused)?;
    for wait in SHOWN_LATE {
        let complete = plan
            .channels
            .iter()
            .any(|wanted| wanted.get != Get::ReadOnce && gatt.of(name_and_place(&wanted.name).0).next().is_some());
        if complete {
            break;
        }
        sleep(wait).await;
        gatt = Gatt::list(radio.bus.clone(), &radio.place).await.map_err(refused)?;
    }
    Ok(gatt)
}

/// `2a6e` and 2 of `2a6e#2`; 1 where no number stands.
fn name_and_place(name: &str) -> (&str, usize) {
    name.split_once('#').map_or((name, 1), |(uuid, place)| (uuid, place.parse().unwrap_or(1)))
}

/// Which characteristic each wanted channel is. Further ones of a UUID go to the plain name unless `#n` claims them.
fn claim<'a>(gatt: &Gatt, plan: &'a Plan) -> (Vec<(&'a Wanted, Characteristic)>, Vec<Arc<str>>) {
    let (mut claimed, mut lacking) = (Vec::new(), Vec::new());
    let numbered: BTreeSet<(&str, usize)> =
        plan.channels.iter().map(|wanted| name_and_place(&wanted.name)).filter(|(_, place)| *place > 1).collect();
    for wanted in &plan.channels {
        let (uuid, place) = name_and_place(&wanted.name);
        let before = claimed.len();
        for (at, characteristic) in gatt.of(uuid).enumerate() {
            let others = place == 1 && !numbered.contains(&(uuid, at + 1));
            if at + 1 == place || others {
                claimed.push((wanted, characteristic.clone()));
            }
        }
        if claimed.len() == before {
            lacking.push(wanted.name.clone());
        }
    }
    (claimed, lacking)
}

/// Reads a value, and says when it was so: in the middle between question and answer.
async fn read(
    gatt: &Gatt,
    characteristic: &Characteristic,
    channel: &Arc<str>,
    flows: &Flows,
) -> Result<Heard, CallError> {
    let asked = flows.now();
    let bytes = gatt.read(characteristic).await?.into();
    let answered = flows.now();
    let ms = asked.ms.saturating_add(answered.ms.saturating_sub(asked.ms) / 2);
    Ok(Heard { channel: channel.clone(), bytes, at: reading::Heard { ms, ..answered } })
}

/// Reads what is read once. Nothing here fails the link.
async fn context(gatt: &Gatt, claimed: &[(&Wanted, Characteristic)], flows: &Flows) -> Vec<Heard> {
    let mut heard = Vec::new();
    for (wanted, characteristic) in claimed.iter().filter(|(wanted, _)| wanted.get == Get::ReadOnce) {
        match timeout(CONTEXT, read(gatt, characteristic, &wanted.name, flows)).await {
            Ok(Ok(value)) => heard.push(value),
            Ok(Err(why)) => tracing::debug!(channel = &*wanted.name, "cannot be read: {why}"),
            Err(_elapsed) => break,
        }
    }
    heard
}

/// Sets the device's clock to the hub's, or finds that it is right. Only while the hub's own is synchronised.
async fn clock(gatt: &Gatt, plan: &Plan, wall: Option<DateTime>) -> bool {
    let characteristic = plan.link.set_clock.as_deref().and_then(|uuid| gatt.of(uuid).next());
    let (Some(characteristic), Some(wall)) = (characteristic, wall) else { return false };
    if deadline(gatt.write(characteristic, &current_time(wall))).await.is_some() {
        return true;
    }
    let read = deadline(gatt.read(characteristic)).await;
    read.and_then(|bytes| date_time(&bytes)).is_some_and(|device| {
        let apart = wall.duration_since(device).unsigned_abs();
        apart <= CLOCK_TOLERANCE
    })
}

async fn deadline<T>(call: impl Future<Output = Result<T, CallError>>) -> Option<T> {
    timeout(CONTEXT, call).await.ok()?.ok()
}

/// Current Time 2A2B: date and time, day of the week (Monday is 1), fractions of 1/256 s, reason: external reference.
/// Bluetooth Current Time Service 1.1, section 3.1.
fn current_time(wall: DateTime) -> [u8; 10] {
    let year = u16::try_from(wall.year()).unwrap_or(0).to_le_bytes();
    let part = |part: i8| u8::try_from(part).unwrap_or(0);
    let weekday = part(wall.weekday().to_monday_one_offset());
    let fraction = u8::try_from(wall.subsec_nanosecond() / (1_000_000_000 / 256 + 1)).unwrap_or(255);
    let [month, day] = [part(wall.month()), part(wall.day())];
    [year[0], year[1], month, day, part(wall.hour()), part(wall.minute()), part(wall.second()), weekday, fraction, 0x02]
}

fn date_time(bytes: &[u8]) -> Option<DateTime> {
    let [low, high, month, day, hour, minute, second, ..] = *bytes else { return None };
    let year = i16::try_from(u16::from_le_bytes([low, high])).ok()?;
    let part = |part: u8| i8::try_from(part).ok();
    DateTime::new(year, part(month)?, part(day)?, part(hour)?, part(minute)?, part(second)?, 0).ok()
}

impl Talk {
    /// When something is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let polls = self.polls.iter().map(|poll| poll.next);
        polls.chain(self.keepalive.iter().map(|(_, _, next)| *next)).min()
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next_at().is_some_and(|at| at <= now)
    }

    /// Says what is due, and `order` to the control point of stored records; what was read comes into `heard`.
    pub(super) async fn say(
        &mut self,
        now: Instant,
        order: Option<(Arc<str>, Vec<u8>)>,
        flows: &Flows,
        heard: &mut Vec<Heard>,
    ) -> Result<(), Failure> {
        if let Some((control, bytes)) = order
            && let Some(characteristic) = self.gatt.of(&control).next()
        {
            self.gatt.write(characteristic, &bytes).await.map_err(refused)?;
        }
        for poll in self.polls.iter_mut().filter(|poll| poll.next <= now) {
            poll.next = now + poll.every;
            let value = read(&self.gatt, &poll.characteristic, &poll.channel, flows).await;
            heard.push(value.map_err(refused)?);
        }
        if let Some((repeated, to, next)) = self.keepalive.as_mut().filter(|(_, _, next)| *next <= now) {
            *next = now + repeated.every;
            for bytes in &repeated.send {
                self.gatt.write(to, bytes).await.map_err(refused)?;
            }
        }
        Ok(())
    }

    /// How long the device may be left alone, when all is said for now.
    pub(super) fn rest_after(&self, now: Instant) -> Option<Duration> {
        let next = self.polls.iter().map(|poll| poll.next).min()?;
        let rest = next.saturating_duration_since(now);
        (rest > STAY).then_some(rest)
    }
}

/// Someone else has asked for the same notifications, or we had before a restart: they come.
fn in_progress(why: CallError) -> Result<(), CallError> {
    match &why {
        CallError::Refused(words) if words.starts_with("InProgress") => Ok(()),
        _ => Err(why),
    }
}

fn refused(why: CallError) -> Failure {
    match why {
        CallError::Refused(words) => failure(&words),
        why => Failure::Passing(why.to_string()),
    }
}

/// What BlueZ's words mean. Those of the kernel and of BlueZ's own `btd_error` alike; seen in the issues of bleak and of
/// Home Assistant.
fn failure(words: &str) -> Failure {
    const TRANSIENT: &[&str] = &[
        "le-connection-abort",
        "connection-canceled",
        "connection abort",
        "InProgress",
        "in progress",
        "Connection reset",
        "Host is down",
        "ATT error: 0x0e",
    ];
    const UNPAIRED: &[&str] =
        &["Authentication", "NotAuthorized", "Not paired", "Insufficient", "ATT error: 0x05", "ATT error: 0x0f"];
    if TRANSIENT.iter().any(|part| words.contains(part)) {
        Failure::Transient(words.to_owned())
    } else if UNPAIRED.iter().any(|part| words.contains(part)) {
        Failure::Lasting(format!("wants to be paired ({words}); run `biogate pair` with its name"))
    } else {
        Failure::Passing(words.to_owned())
    }
}
