//! How the gateway is at one moment: what status, readiness and metrics are made of. No measured value and no person is
//! in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::forward::health::{Snapshot as Delivering, State};
use crate::source::health::{Kind, Snapshot as Source};
use crate::store::{DestinationTally, Ledger, Stat};

/// Everything that the gateway knows of itself, as numbers and words.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// The hub's name.
    pub gateway: Option<Arc<str>>,
    /// Seconds since this process started.
    pub uptime_s: u64,
    /// Why rows wait for the clock, while they do.
    pub held: Option<String>,
    /// Whether this boot has a synchronised anchor.
    pub synchronised: bool,
    /// Whether the configuration says that nothing is sent for now.
    pub offline: bool,
    /// Why the store can do nothing more, once that is so.
    pub failure: Option<String>,
    /// All counts.
    pub ledger: Ledger,
    /// The store.
    pub store: Stat,
    /// How long ago the oldest that waits for any destination was heard, about.
    pub oldest_waiting_s: Option<u64>,
    /// Devices, brokers, radios.
    pub sources: Vec<Seen>,
    /// The ways out, in the order of their names.
    pub destinations: Vec<Destination>,
}

/// A device, broker or radio.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// Its state and counts.
    #[serde(flatten)]
    pub source: Source,
    /// Seconds since it was last heard.
    pub heard_ago_s: Option<u64>,
    /// Seconds of the last 24 hours by what they were, but for those of none; `None` where nobody accounts for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_day_s: Option<BTreeMap<&'static str, u64>>,
}

/// A destination.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// What its loop does, of a failover the active one of its order; `None` while the gateway is offline.
    pub health: Option<Delivering>,
    /// Of a failover: those that share its cursor, in their order.
    pub order: Vec<Delivering>,
    /// What became of the observations for it.
    pub tally: DestinationTally,
    /// How long ago the oldest that waits for it was heard, about.
    pub oldest_waiting_s: Option<u64>,
}

/// Whether data move from the sensors to every destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Data move, or they stand still because somebody wants it so.
    pub ready: bool,
    /// Whether the configuration says that nothing is sent for now.
    pub offline: bool,
    /// What does not move and why, each in a sentence.
    pub reasons: Vec<String>,
}

impl Condition {
    /// One JSON document: gateway, clock, ledger, store, devices, destinations.
    pub fn document(&self) -> Value {
        json!({
            "gateway": self.gateway,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": self.uptime_s,
            "ready": self.ready(),
            "clock": { "state": self.held.as_deref().unwrap_or("known"), "synchronised": self.synchronised },
            "ledger": self.ledger,
            "store": self.store,
            "oldest_waiting_s": self.oldest_waiting_s,
            "devices": self.sources,
            "destinations": self.destinations.iter().map(Destination::document).collect::<Vec<_>>(),
        })
    }

    /// Whether data move end to end. What a sensor does is no matter of the hub's: a strap that nobody wears is no fault.
    pub fn ready(&self) -> Ready {
        let mut reasons = Vec::new();
        reasons.extend(self.failure.as_ref().map(|why| format!("store: {why}")));
        reasons.extend(self.store.unhealthy.as_ref().map(|why| format!("store: {why}")));
        if !self.offline {
            reasons.extend(self.held.as_ref().map(|why| format!("clock: {why}")));
            reasons.extend(self.destinations.iter().filter_map(Destination::trouble));
        }
        let hub = self.sources.iter().filter(|seen| !seen.source.kind.is_device() && seen.source.trouble);
        reasons.extend(hub.map(|seen| format!("{}: {}", seen.source.name, seen.source.state)));
        Ready { ready: reasons.is_empty(), offline: self.offline, reasons }
    }

    /// The sources of this kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Source> {
        self.sources.iter().map(|seen| &seen.source).filter(move |source| source.kind == kind)
    }
}

impl Destination {
    fn document(&self) -> Value {
        let mut document = match &self.health {
            Some(health) => json!(health),
            None => json!({ "name": self.name, "state": "offline" }),
        };
        if let Value::Object(fields) = &mut document {
            fields.insert("name".to_owned(), self.name.as_str().into());
            if !self.order.is_empty() {
                fields.insert("order".to_owned(), json!(self.order));
            }
            fields.insert("waiting".to_owned(), self.tally.waiting.into());
            fields.insert("oldest_waiting_s".to_owned(), self.oldest_waiting_s.into());
        }
        document
    }

    /// Why nothing moves, where that is not the clock's doing.
    fn trouble(&self) -> Option<String> {
        let health = self.health.as_ref()?;
        let why = match health.state {
            State::Starting => "has not started yet",
            State::Stopped => "its loop has ended",
            State::Retrying => health.reason.as_deref().unwrap_or("a try failed and will be made again"),
            _ => return None,
        };
        Some(format!("destination {}: {why}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::health::Health;
    use crate::source::health;

    fn running() -> Condition {
        let health = Health::new("archive", "file");
        health.delivered(1, 1);
        let destination = Destination {
            name: "archive".to_owned(),
            health: Some(health.snapshot()),
            order: Vec::new(),
            tally: DestinationTally::default(),
            oldest_waiting_s: None,
        };
        Condition { destinations: vec![destination], ..Condition::default() }
    }

    fn reasons(change: impl FnOnce(&mut Condition)) -> Vec<String> {
        let mut condition = running();
        change(&mut condition);
        let ready = condition.ready();
        assert_eq!(ready.ready, ready.reasons.is_empty());
        ready.reasons
    }

    fn seen(kind: Kind, trouble: bool) -> Seen {
        let all = health::Health::default();
        let one = all.device("one");
        one.set_kind(kind);
        if trouble {
            one.set_trouble("is gone")
        } else {
            one.set_state("fine")
        }
        Seen { source: one.snapshot(), heard_ago_s: None, last_day_s: None }
    }

    #[test]
    fn it_is_ready_while_everything_moves_and_says_what_does_not() {
        assert_eq!(reasons(|_| ()), Vec::<String>::new());
        assert_eq!(reasons(|is| is.held = Some("waiting".into())), ["clock: waiting"]);
        assert_eq!(reasons(|is| is.store.unhealthy = Some("full".into())), ["store: full"]);
        assert_eq!(reasons(|is| is.failure = Some("dead".into())), ["store: dead"]);
        let refused = Health::new("archive", "file");
        refused.retrying("refused", "no such folder", 3);
        let snapshot = refused.snapshot();
        assert_eq!(reasons(|is| is.destinations[0].health = Some(snapshot)), ["destination archive: no such folder"]);
        let starting = Health::new("archive", "file").snapshot();
        assert_eq!(
            reasons(|is| is.destinations[0].health = Some(starting)),
            ["destination archive: has not started yet"]
        );
    }

    #[test]
    fn a_broker_that_is_gone_is_the_hubs_trouble_and_a_sensor_is_not() {
        assert_eq!(reasons(|is| is.sources.push(seen(Kind::Broker, true))), ["one: is gone"]);
        assert_eq!(reasons(|is| is.sources.push(seen(Kind::Radio, true))), ["one: is gone"]);
        assert_eq!(reasons(|is| is.sources.push(seen(Kind::Broker, false))), Vec::<String>::new());
        assert_eq!(reasons(|is| is.sources.push(seen(Kind::Serial, true))), Vec::<String>::new());
    }

    #[test]
    fn who_is_offline_by_setting_is_ready_unless_the_store_is_not() {
        let offline = |is: &mut Condition| {
            (is.offline, is.held) = (true, Some("waiting".into()));
            is.destinations[0].health = None;
        };
        assert_eq!(reasons(offline), Vec::<String>::new());
        assert_eq!(
            reasons(|is| {
                offline(is);
                is.store.unhealthy = Some("full".into());
            }),
            ["store: full"]
        );
    }

    #[test]
    fn a_failover_is_as_well_as_its_active_destination_and_shows_them_all() {
        let (bus, archive) = (Health::new("bus", "clickhouse"), Health::new("archive", "file"));
        bus.step_back("archive gets the events since bus failed: no connection");
        bus.standby(Some("no connection"));
        archive.take_over("bus failed: no connection");
        let failover = Destination {
            name: "failover".to_owned(),
            health: Some(archive.snapshot()),
            order: vec![bus.snapshot(), archive.snapshot()],
            tally: DestinationTally::default(),
            oldest_waiting_s: None,
        };
        let condition = Condition { destinations: vec![failover], ..Condition::default() };
        assert_eq!(condition.ready().reasons, Vec::<String>::new());
        let document = condition.document();
        let shown = &document["destinations"][0];
        assert_eq!((&shown["name"], &shown["state"]), (&json!("failover"), &json!("idle")));
        let of = |place: usize, key: &str| shown["order"][place][key].clone();
        assert_eq!(
            (of(0, "active"), of(0, "state"), of(0, "reason")),
            (json!(false), json!("standby"), json!("no connection"))
        );
        assert_eq!((of(1, "active"), of(1, "failover")), (json!(true), json!("bus failed: no connection")));
    }
}
