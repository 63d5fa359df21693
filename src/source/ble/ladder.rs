//! PURE What to try, rung by rung, when an adapter goes silent or hangs.
//!
//! The driver tells [`Ladder::sick`] again and again while something is wrong and [`Ladder::well`] for every good sign.
//! Each rung gets time to work before the next. Only a sign that contradicts what is wrong ends the climb: values of a
//! linked sensor do not make a deaf scanner well, but they forbid the rungs that would cut that link.
//!
//! In a quiet home minutes without an advertisement are normal. So silence alone never restarts bluetoothd, switches the
//! radio off at most once an hour and with no link up, and gives up in words only. Giving up is never for ever: every
//! [`AGAIN`] the climb begins from the bottom, and says nothing more until it was well.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// After giving up, the time until the next attempt from the bottom.
pub const AGAIN: Duration = Duration::from_secs(15 * 60);

/// Silence alone switches the radio off and on no more often.
const POWER_CYCLE_AT_MOST: Duration = Duration::from_secs(3_600);

/// A value this young tells of a link that is healthy.
const HEALTHY: Duration = Duration::from_secs(30);

/// Trouble that was not told of for so long after a rung is new trouble.
const CALM: Duration = Duration::from_secs(600);

/// What is wrong with an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symptom {
    /// No advertisement for [`silence_after`], although scanning runs and no call fails.
    SilentAir,
    /// A call to bluetoothd did not come back within its deadline.
    CallHung,
    /// Scanning could not be started.
    ScanRefused,
    /// Links to different sensors fail, one after another.
    LinksFail,
    /// The radio is switched off, though nobody here did it.
    NotPowered,
}

/// A good sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// An advertisement was heard.
    Advertisement,
    /// A linked sensor delivered a value.
    Value,
    /// A link was made and its services are known.
    Link,
    /// A call of the kind that hung came back. Advertisements do not tell this: bluetoothd sends them to whoever listens.
    Answer,
}

/// What is tried, from the gentlest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// Stop scanning and start it.
    RestartScan,
    /// Throw away everything that holds the bus and make it anew.
    NewSession,
    /// Have bluetoothd forget the sensors that neither deliver values nor are paired; a pairing would be lost with them.
    RemoveDevices,
    /// Switch the radio off and on.
    PowerCycle,
    /// Restart bluetoothd, with all adapters.
    RestartBluetoothd,
    /// Say what a person can do, and pause for [`AGAIN`].
    GiveUp,
}

const RUNGS: [Rung; 6] =
    [Rung::RestartScan, Rung::NewSession, Rung::RemoveDevices, Rung::PowerCycle, Rung::RestartBluetoothd, Rung::GiveUp];

/// What was said at the top since it was last well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    /// That nothing is heard, which may be a quiet home.
    Silence,
    /// That the adapter is given up.
    Trouble,
}

/// The ladder of one adapter.
#[derive(Debug)]
pub struct Ladder {
    restart: Restart,
    climb: Option<Climb>,
    said: Said,
    heard: Option<Instant>,
    value: Option<Instant>,
    power_cycled: Option<Instant>,
    counts: [u64; RUNGS.len()],
}

/// Whether bluetoothd may be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    Allowed,
    Forbidden,
}

#[derive(Debug)]
struct Climb {
    began: Instant,
    /// What is wrong and was not contradicted.
    symptoms: BTreeSet<Symptom>,
    /// The place of the next rung in [`RUNGS`].
    next: usize,
    /// Until when the last rung has time to work.
    until: Instant,
}

/// How long scanning may be silent before it is a symptom.
pub const fn silence_after() -> Duration {
    Duration::from_secs(90)
}

impl Rung {
    /// One plain sentence: what was seen, and what is done. `lasted` is [`Ladder::lasted`].
    pub fn words(self, adapter: &str, symptom: Symptom, lasted: Duration) -> String {
        let minutes = lasted.as_secs().div_ceil(60).max(1);
        let seen = match symptom {
            Symptom::SilentAir => format!("nothing was heard for {minutes} min"),
            Symptom::CallHung => "bluetoothd does not answer".to_owned(),
            Symptom::ScanRefused => "bluetoothd refuses to scan".to_owned(),
            Symptom::LinksFail => "one link after another fails".to_owned(),
            Symptom::NotPowered => "the radio is switched off".to_owned(),
        };
        let done = match (self, symptom) {
            (Rung::RestartScan, _) => "scanning is restarted",
            (Rung::NewSession, _) => "a new session with bluetoothd is begun",
            (Rung::RemoveDevices, _) => "bluetoothd shall forget the sensors that are neither delivering nor paired",
            (Rung::PowerCycle, Symptom::NotPowered) => "it is switched on",
            (Rung::PowerCycle, _) => "the radio is switched off and on",
            (Rung::RestartBluetoothd, _) => "bluetoothd is restarted",
            (Rung::GiveUp, Symptom::SilentAir) => {
                "if a sensor is near and awake, unplug the dongle or the hub's power for ten seconds"
            }
            (Rung::GiveUp, _) => {
                "nothing helped: unplug the dongle or the hub's power for ten seconds; attempts go on every 15 min"
            }
        };
        format!("{adapter}: {seen}; {done}")
    }

    /// How long the rung may work before the next.
    fn takes(self) -> Duration {
        match self {
            Rung::RestartScan | Rung::NewSession => Duration::from_secs(15),
            Rung::RemoveDevices => Duration::from_secs(20),
            Rung::PowerCycle => Duration::from_secs(30),
            Rung::RestartBluetoothd => Duration::from_secs(45),
            Rung::GiveUp => AGAIN,
        }
    }
}

impl Sign {
    fn contradicts(self, symptom: Symptom) -> bool {
        match symptom {
            Symptom::SilentAir | Symptom::ScanRefused => self == Sign::Advertisement,
            Symptom::CallHung => matches!(self, Sign::Link | Sign::Answer),
            Symptom::LinksFail => self == Sign::Link,
            Symptom::NotPowered => matches!(self, Sign::Advertisement | Sign::Link),
        }
    }
}

impl Ladder {
    /// At the bottom, with nothing wrong.
    pub fn new(allowed_to_restart_bluetoothd: bool) -> Self {
        Ladder {
            restart: if allowed_to_restart_bluetoothd { Restart::Allowed } else { Restart::Forbidden },
            climb: None,
            said: Said::Nothing,
            heard: None,
            value: None,
            power_cycled: None,
            counts: [0; RUNGS.len()],
        }
    }

    /// Something good was seen.
    pub fn well(&mut self, now: Instant, sign: Sign) {
        match sign {
            Sign::Advertisement => self.heard = Some(now),
            Sign::Value => self.value = Some(now),
            Sign::Link | Sign::Answer => {}
        }
        let Some(climb) = &mut self.climb else { return };
        climb.symptoms.retain(|symptom| !sign.contradicts(*symptom));
        if climb.symptoms.is_empty() {
            self.climb = None;
            self.said = Said::Nothing;
        }
    }

    /// Something is wrong; told as long as it is. Returns the rung to take now, if the one before had its time.
    /// `streaming_links` is the number of links that deliver.
    pub fn sick(&mut self, now: Instant, symptom: Symptom, streaming_links: usize) -> Option<Rung> {
        let climb = self.climb.get_or_insert_with(|| Climb::new(now));
        climb.symptoms.insert(symptom);
        if now < climb.until {
            return None;
        }
        if climb.next > 0 && now > climb.until + CALM {
            climb.next = 0;
            climb.began = now;
        }
        if climb.next == 0 {
            climb.symptoms = BTreeSet::from([symptom]);
        }
        let silence_alone = climb.symptoms.iter().all(|symptom| *symptom == Symptom::SilentAir);
        let not_powered = climb.symptoms.contains(&Symptom::NotPowered);
        let delivers = streaming_links > 0 || self.value.is_some_and(|value| now < value + HEALTHY);
        let cycled_lately = self.power_cycled.is_some_and(|at| now < at + POWER_CYCLE_AT_MOST);
        let power_cycle_is_wrong = delivers || (silence_alone && cycled_lately);
        let (place, rung) = RUNGS.iter().copied().enumerate().skip(climb.next).find(|(_, rung)| match rung {
            // They need a radio that is on.
            Rung::RestartScan | Rung::NewSession | Rung::RemoveDevices => !not_powered,
            Rung::PowerCycle => !power_cycle_is_wrong,
            Rung::RestartBluetoothd => !delivers && !silence_alone && self.restart == Restart::Allowed,
            Rung::GiveUp => true,
        })?;
        climb.until = now + rung.takes();
        climb.next = if rung == Rung::GiveUp { 0 } else { place + 1 };
        match rung {
            Rung::PowerCycle => self.power_cycled = Some(now),
            Rung::GiveUp => {
                let say = if silence_alone { Said::Silence } else { Said::Trouble };
                if self.said == say || self.said == Said::Trouble {
                    return None;
                }
                self.said = say;
            }
            _ => {}
        }
        self.counts[place] = self.counts[place].saturating_add(1);
        Some(rung)
    }

    /// When [`Ladder::sick`] may have a further rung; nothing while nothing is wrong.
    pub fn next_look(&self) -> Option<Instant> {
        self.climb.as_ref().map(|climb| climb.until)
    }

    /// Since when nothing was heard where this was ever the case, otherwise how long something is wrong.
    pub fn lasted(&self, now: Instant) -> Duration {
        let began = self.climb.as_ref().map(|climb| climb.began);
        self.heard.or(began).map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// How often each rung was taken.
    pub fn counts(&self) -> [(Rung, u64); RUNGS.len()] {
        std::array::from_fn(|place| (RUNGS[place], self.counts[place]))
    }
}

impl Climb {
    fn new(now: Instant) -> Self {
        Climb { began: now, symptoms: BTreeSet::new(), next: 0, until: now }
    }
}

#[cfg(test)]
mod tests;
