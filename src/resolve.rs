//! Observation + clock anchors + assignments -> event. Pure: the same inputs render the same rows at every retry.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Anchors;
use crate::event::{ClockQuality, Event, event_id};
use crate::observation::{Counted, DeviceTime, Observation, Value};
use crate::reading::{Heard, RunId};

pub mod history;

use history::{Assignment, Worn};

/// Everything but the anchors that a row depends on. A change makes a new version; a range in hand names its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// The hub's name.
    pub gateway_id: Arc<str>,
    /// IANA name of the hub's place.
    pub timezone: String,
    /// The hub's own location, for devices whose entry names none.
    pub location: Option<Arc<str>>,
    /// What becomes of an observation of nobody.
    pub unassigned: Unassigned,
    /// Who wore what, from when to when, in the order in which it was said.
    pub assignments: Vec<Assignment>,
}

/// What becomes of an observation of a device that nobody is assigned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unassigned {
    /// It is forwarded with the nil UUID as its person.
    #[default]
    Forward,
    /// It is set aside until somebody is assigned.
    Park,
}

/// What a range was rendered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Number of anchors.
    pub anchors: u64,
    /// Number of the basis.
    pub basis: u64,
}

/// All that rows depend on, in all versions that a range may still name. A change makes a new timeline; readers keep
/// the one that they hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timeline {
    /// The anchors; a version is how many of them were there.
    pub anchors: Anchors,
    /// Each basis under its number. One that a range in hand names stays until that range is settled.
    pub bases: BTreeMap<u64, Basis>,
}

impl Timeline {
    /// What a range that is cut now will be rendered with. `None` before the first basis.
    pub fn newest(&self) -> Option<Versions> {
        let (&basis, _) = self.bases.last_key_value()?;
        Some(Versions { anchors: self.anchors.version(), basis })
    }
}

/// What `resolve` makes of an observation. Either is used up where it is made, so neither is worth an allocation.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    /// A row.
    Event(Event),
    /// Nobody is assigned, and the setting says to wait. The observation is handed back.
    Parked(Observation),
}

/// Renders rows as of one pair of versions.
pub struct Resolver<'a> {
    anchors: &'a Anchors,
    version: u64,
    basis: &'a Basis,
    zone: TimeZone,
    worn: Worn<'a>,
    /// The metadata's name for the profile: one allocation for all rows.
    profile_key: Arc<str>,
    /// The minute since 1970 that was asked last, and its offset: rows come many to a minute, and no zone changes its
    /// offset within one.
    last_offset: Cell<(i64, i16)>,
}

/// No device time before this is believed: 2000-01-01, in Unix milliseconds. Devices that lost their clock start near 1970.
const EARLIEST_DEVICE_TIME_MS: i64 = 946_684_800_000;

/// No device time later than this after it was heard is believed.
const LATEST_DEVICE_TIME_AHEAD_MS: i64 = 24 * 3_600_000;

/// A device's clock that differs by no more is right: it tells whole seconds.
const RIGHT_MS: u64 = 1_000;

/// Nothing was measured later than it was heard, but for the rounding of clocks.
const LATEST_COUNTED_AHEAD_MS: i64 = 10_000;

/// Whether a device's clock can have been right when it showed this.
fn is_believable(unix_ms: i64, heard_ms: i64) -> bool {
    let latest = heard_ms.saturating_add(LATEST_DEVICE_TIME_AHEAD_MS);
    (EARLIEST_DEVICE_TIME_MS..=latest).contains(&unix_ms)
}

impl<'a> Resolver<'a> {
    /// A resolver that sees the first `version` anchors. An unknown time zone name is UTC: it was checked with the configuration.
    pub fn new(anchors: &'a Anchors, version: u64, basis: &'a Basis) -> Self {
        let worn = Worn::new(&basis.assignments, |heard| anchors.unix_ms(version, heard).0);
        let zone = TimeZone::get(&basis.timezone).unwrap_or(TimeZone::UTC);
        let profile_key = "profile".into();
        Resolver { anchors, version, basis, zone, worn, profile_key, last_offset: Cell::new((i64::MIN, 0)) }
    }

    /// The row of an observation of this run.
    pub fn resolve(&self, run: RunId, observation: Observation) -> Resolved {
        let (heard_ms, heard_clock) = self.anchors.unix_ms(self.version, observation.heard);
        let own_ms = observation.device_time.and_then(|time| self.own_ms(time));
        let counted = self.counted(&observation, heard_ms);
        let (timestamp, clock) = match (counted, own_ms.filter(|own_ms| is_believable(*own_ms, heard_ms))) {
            // A clock that is right keeps its word: to the second, and the same whenever the record comes again.
            (Some((ms, _)), Some(own_ms)) if own_ms.abs_diff(ms) <= RIGHT_MS => (own_ms, ClockQuality::Device),
            (Some(counted), _) if counted.1 == ClockQuality::Synced => counted,
            // A hub that does not know the time itself cannot correct another clock.
            (_, Some(own_ms)) => (own_ms, ClockQuality::Device),
            (Some(counted), None) => counted,
            (None, None) => (heard_ms, heard_clock),
        };
        let said = self.worn.of(&observation.device);
        let user_id = match (said.person(timestamp), self.basis.unassigned) {
            (Some(user_id), _) => user_id,
            (None, Unassigned::Forward) => Uuid::nil(),
            (None, Unassigned::Park) => return Resolved::Parked(observation),
        };
        // The boot in which the period began may be long forgotten; then nobody knows when that was.
        let began = observation.since.and_then(|since| self.anchors.known_ms(self.version, since));
        let period_start = began.map(|(began_ms, _)| began_ms.min(timestamp));
        let location = said.place(timestamp).or(self.basis.location.as_ref()).cloned();
        let event_id = event_id(run, &observation);
        let mut metadata = observation.metadata;
        match (observation.device_time, counted, own_ms) {
            (None, ..) => {}
            (Some(_), ..) if clock == ClockQuality::Device => {}
            (Some(_), Some(_), Some(own_ms)) => {
                metadata.push(("device_clock_ahead_ms".into(), Value::Int(own_ms.saturating_sub(timestamp))));
            }
            (Some(time), ..) => metadata.push(("device_time_refused".into(), Value::Int(time.shown_ms()))),
        }
        metadata.push((self.profile_key.clone(), Value::Text(observation.profile)));
        Resolved::Event(Event {
            event_id,
            user_id,
            event_type: observation.event_type,
            component: observation.component,
            value: observation.value,
            unit: observation.event_type.unit(),
            timestamp,
            period_start,
            tz_offset_min: self.offset_min(timestamp),
            device_id: observation.device,
            gateway_id: self.basis.gateway_id.clone(),
            location,
            clock,
            metadata,
            version: 1,
            deleted: 0,
        })
    }

    /// What a device's clock showed, as Unix milliseconds.
    fn own_ms(&self, time: DeviceTime) -> Option<i64> {
        match time.shown() {
            DeviceTime::Utc(ms) => Some(ms),
            DeviceTime::Local(ms) | DeviceTime::Counted(Counted { ms, .. }) => {
                let local = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(ms).ok()?);
                self.unix_of_local(local)
            }
        }
    }

    /// The time of a record that is counted from an instant of the hub's uptime, and how well that instant is known,
    /// unless it cannot be true.
    fn counted(&self, observation: &Observation, heard_ms: i64) -> Option<(i64, ClockQuality)> {
        let Some(DeviceTime::Counted(counted)) = observation.device_time else { return None };
        let at = Heard { boot: observation.heard.boot, ms: counted.at_ms };
        let (at_ms, clock) = self.anchors.unix_ms(self.version, at);
        let unix_ms = at_ms.saturating_sub(counted.age_ms);
        let latest = heard_ms.saturating_add(LATEST_COUNTED_AHEAD_MS);
        (EARLIEST_DEVICE_TIME_MS..=latest).contains(&unix_ms).then_some((unix_ms, clock))
    }

    fn unix_of_local(&self, local: civil::DateTime) -> Option<i64> {
        self.zone.to_timestamp(local).ok().map(|instant| instant.as_millisecond())
    }

    fn offset_min(&self, unix_ms: i64) -> i16 {
        let minute = unix_ms.div_euclid(60_000);
        let (last, offset) = self.last_offset.get();
        if last == minute {
            return offset;
        }
        let offset = Timestamp::from_millisecond(unix_ms)
            .map_or(0, |instant| (self.zone.to_offset(instant).seconds() / 60) as i16);
        self.last_offset.set((minute, offset));
        offset
    }
}
