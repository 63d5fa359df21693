//! The platform's main path with real parts: virtual patients, serial lines and a broker, the gateway's own program, the
//! warehouse's engine directly and over Apache Kafka, the Query API. Every number at the end is the patients' truth.

mod sink;
mod ward;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use biogate::forward::clickhouse::schema;
use biogate::observation::EventType;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::clickhouse::Engine;
use crate::rig::gateway::{Hub, assert_balanced, program, wait_for};
use crate::rig::kafka::{Isolation, Kafka};
use crate::rig::missing;
use crate::rig::mosquitto::{Mosquitto, note};
use crate::rig::pty::Pty;
use crate::rig::server::{ANNA, BEN, Server};
use sink::Sink;
use ward::{REST_PROFILE, Truth, Wearer};

/// Every wait for the gateway ends after this long; a try that a busy machine made late is repeated after up to a minute.
const SOON: Duration = Duration::from_secs(180);

const MINUTE_MS: u64 = 60_000;

/// Messages that are published at once: fewer than half of what the gateway holds unacknowledged, so that none is flood.
const AT_ONCE: usize = 300;

/// Every person, her sensors and what is known of her.
struct Ward {
    hub: Hub,
    broker: Mosquitto,
    bands: Vec<(Pty, Wearer)>,
    publishers: Vec<Wearer>,
    truth: Truth,
    visits: Vec<Value>,
    zone: TimeZone,
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// The landing zone, in which nothing is waited for: what was said a moment ago is judged.
fn landing_zone() -> Option<Engine> {
    let engine = Engine::shared()?;
    engine.make_database();
    for statement in schema::statements("biometric_events") {
        engine.sql(&statement.replace("INTERVAL 10 MINUTE", "INTERVAL 0 SECOND"));
    }
    Some(engine)
}

/// A zone in which it is about noon, so that no run of the test meets midnight.
fn noon() -> String {
    let hour = (now_ms() / (60 * MINUTE_MS) % 24) as i64;
    match 12 - hour {
        0 => "Etc/GMT".to_owned(),
        // Their signs are the other way round.
        east if east > 0 => format!("Etc/GMT-{east}"),
        west => format!("Etc/GMT+{}", -west),
    }
}

impl Ward {
    fn new(broker: Mosquitto, warehouse: &Engine, bus: &Kafka) -> Ward {
        let at = warehouse.settings();
        let zone = noon();
        let mut rest = format!(
            "timezone = {zone:?}\n[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"50 ms\"\nmin_free = \"1 MiB\"\n\
             [[destination]]\nname = \"warehouse\"\nkind = \"clickhouse\"\nurl = {:?}\ndatabase = {:?}\nuser = {:?}\n\
             password_file = {:?}\n\
             [[destination]]\nname = \"bus\"\nkind = \"kafka\"\nbrokers = [{:?}]\nexactly_once = true\n\
             [[mqtt]]\nname = \"ward\"\nurl = {:?}\n",
            at.url,
            at.database,
            at.user.unwrap(),
            at.password_file.unwrap(),
            bus.brokers,
            broker.url()
        );
        for (name, profile) in
            [("vitals", "mqtt-vitals-json"), ("steps", "mqtt-step-counter"), ("rest", "mqtt-rest-json")]
        {
            rest +=
                &format!("[[device]]\nname = \"{name}\"\nprofile = \"{profile}\"\nmqtt = \"ward/{{device}}/{name}\"\n");
        }
        let publishers = vec![Wearer::new(ANNA, "mqtt-ines", 100), Wearer::new(BEN, "mqtt-jan", 101)];
        let hub = Hub::new("");
        let mut bands = Vec::new();
        for (seed, device) in (0..).zip(["band-anna", "band-bela", "band-carla"]) {
            let port = hub.dir.path().join(device);
            let wearer = Wearer::new(Uuid::new_v4(), device, seed);
            rest += &format!(
                "[[device]]\nname = {device:?}\nprofile = \"serial-vitals-line\"\nserial = {port:?}\nuser_id = \"{}\"\n",
                wearer.user
            );
            bands.push((Pty::plug(&port), wearer));
        }
        let head = std::fs::read_to_string(hub.config()).unwrap();
        std::fs::write(hub.config(), head + &rest).unwrap();
        let profiles = hub.dir.path().join("profiles");
        std::fs::create_dir(&profiles).unwrap();
        std::fs::write(profiles.join("mqtt-rest-json.toml"), REST_PROFILE).unwrap();
        let zone = TimeZone::get(&zone).unwrap();
        Ward { hub, broker, bands, publishers, truth: Truth::default(), visits: Vec::new(), zone }
    }

    fn persons(&self) -> Vec<Uuid> {
        self.publishers.iter().chain(self.bands.iter().map(|(_, wearer)| wearer)).map(|wearer| wearer.user).collect()
    }

    fn start(&mut self) {
        let profiles = self.hub.dir.path().join("profiles");
        self.hub.start_with(&["--profiles", profiles.to_str().unwrap()]);
    }

    /// Says who stands behind the names in the topics; the bands' entries name their persons themselves.
    fn assign(&self) {
        for wearer in &self.publishers {
            let (user, from) = (wearer.user.to_string(), ["--from", "4 days ago", "--anyway"]);
            let (code, _, error) = self.hub.output(&[&["assign", wearer.device, &user], &from[..]].concat());
            assert_eq!(code, 0, "{error}");
        }
    }

    /// Waits until every line is read and every topic subscribed: what is said before that is nobody's reading.
    async fn listened_to(&mut self) {
        for nth in 0..self.bands.len() + 1 {
            let accepted = |hub: &Hub| hub.stat().and_then(|stat| stat["ledger"]["intake"]["accepted"].as_u64());
            let before = wait_for(SOON, || accepted(&self.hub)).expect("a gateway that answers");
            let end = std::time::Instant::now() + SOON;
            while accepted(&self.hub).unwrap_or_default() <= before {
                assert!(std::time::Instant::now() < end, "nobody listens:\n{}", self.hub.log());
                // No value in any of it, so no event either.
                match self.bands.get_mut(nth) {
                    Some((line, _)) => line.send(b"HR:--,T:--,S:--\n"),
                    None => self.broker.publish(vec![note("ward/door/vitals", "{\"seq\":0}")]).await,
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// The demo's patients: four hours of the day of each, a minute a line, all of it said now.
    fn wear_bands(&mut self) {
        let ten = 10 * 60 * MINUTE_MS;
        for minute in 0..240 {
            for (line, wearer) in &mut self.bands {
                if let Some(text) = wearer.line(ten + minute * MINUTE_MS, now_ms() as i64, &mut self.truth) {
                    line.send(text.as_bytes());
                }
            }
        }
    }

    /// Three days of those who publish, every ten minutes, with the times at which it was measured.
    async fn publish_days(&mut self) {
        let last = now_ms() / MINUTE_MS * MINUTE_MS - 60 * MINUTE_MS;
        let mut notes = Vec::new();
        for nth in (0..3 * 144).rev() {
            for wearer in &mut self.publishers {
                for (topic, message) in wearer.messages(last - nth * 10 * MINUTE_MS, &mut self.truth) {
                    notes.push(note(&format!("ward/{}/{topic}", wearer.device), message));
                }
            }
            if notes.len() >= AT_ONCE || nth == 0 {
                self.broker.publish(std::mem::take(&mut notes)).await;
                self.hub.wait_until_drained(self.truth.count(), SOON);
            }
        }
    }

    /// Each person looks at the platform's pages, some more than others.
    fn visit_pages(&mut self) {
        for (nth, user) in self.persons().into_iter().enumerate() {
            for session in 0..nth {
                let id = Uuid::new_v4();
                for view in 0..3 + session {
                    let at_ms = now_ms() - (session as u64 * 300 + 30 - view as u64) * MINUTE_MS;
                    self.visits.push(json!({
                        "event_id": Uuid::new_v4(), "user_id": user, "session_id": id, "page": format!("/page-{}", view % 3),
                        "action": "view", "timestamp": at_ms, "duration": 5 + view * 7, "device": "tablet", "browser": "x",
                    }));
                }
            }
        }
    }

    /// A person's sessions as the API should tell them, the newest first, with times in milliseconds.
    fn sessions(&self, user: Uuid) -> Vec<Value> {
        let mut sessions: Vec<Value> = Vec::new();
        let number = |value: &Value| value.as_u64().unwrap();
        for visit in self.visits.iter().filter(|visit| visit["user_id"] == json!(user)) {
            let views = self.visits.iter().filter(|other| other["session_id"] == visit["session_id"]);
            let mut pages: Vec<_> = views.clone().map(|view| view["page"].to_string()).collect();
            let views_of_all = pages.len();
            pages.sort();
            pages.dedup();
            let session = json!({
                "session_id": visit["session_id"], "page_views": views_of_all, "unique_pages": pages.len(),
                "session_start": views.clone().map(|view| number(&view["timestamp"])).min(),
                "session_end": views.clone().map(|view| number(&view["timestamp"])).max(),
                "total_duration": views.map(|view| number(&view["duration"])).sum::<u64>(),
            });
            if !sessions.contains(&session) {
                sessions.push(session);
            }
        }
        sessions.sort_by_key(|session| std::cmp::Reverse(number(&session["session_start"])));
        sessions
    }
}

/// Numbers may differ by the order in which they were added up.
fn assert_near(found: &Value, expected: &Value, what: &str) {
    assert_eq!(found.as_object().unwrap().len(), expected.as_object().unwrap().len(), "{what}: {found} {expected}");
    for (name, expected) in expected.as_object().unwrap() {
        match (found[name].as_f64(), expected.as_f64()) {
            (Some(found), Some(expected)) => {
                assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{what} {name}: {found} {expected}");
            }
            _ => assert_eq!(&found[name], expected, "{what} {name}"),
        }
    }
}

fn assert_all_near(found: &Value, expected: &[Value], what: &str) {
    let found = found["data"].as_array().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}: {found:?}\nnot {expected:?}");
    found.iter().zip(expected).for_each(|(found, expected)| assert_near(found, expected, what));
}

/// The API's numbers of these persons and every type are the truth, and there is no row beside it.
async fn assert_true(way: &str, at: (&Engine, &Server), ward: &Ward, persons: &[Uuid], truth: &Truth) {
    let (engine, server) = at;
    for &user in persons {
        for kind in EventType::ALL {
            let what = format!("{way} {user} {}", kind.name());
            let path = format!("/api/analytics/{}/{user}?days=7", kind.name());
            let expected = truth.days(user, kind, &ward.zone);
            assert_all_near(&server.get(&path, &server.clinician).await, &expected, &what);
        }
        let mut sessions = server.get(&format!("/api/analytics/sessions/{user}?days=7"), &server.clinician).await;
        for session in sessions["data"].as_array_mut().unwrap() {
            for name in ["session_start", "session_end"] {
                session[name] = json!(session[name].as_str().unwrap().parse::<Timestamp>().unwrap().as_millisecond());
            }
        }
        assert_all_near(&sessions, &ward.sessions(user), &format!("{way} {user} sessions"));
    }
    // Whose days those are is for the asker to say.
    let zone = TimeZone::get("Asia/Kolkata").unwrap();
    let path = format!("/api/analytics/heart-rate/{ANNA}?days=7&tz=Asia/Kolkata");
    let expected = truth.days(ANNA, EventType::HeartRate, &zone);
    assert!(expected.len() >= 3, "{expected:?}");
    assert_all_near(&server.get(&path, &server.anna).await, &expected, way);
    assert_eq!(engine.sql("SELECT count() FROM events").trim(), truth.count().to_string(), "{way}: no row beside them");
}

/// Hours of the hub that are not complete, by the API; what it sent in all of them; and what the hub's own line lacks.
async fn gaps(server: &Server) -> (Vec<Value>, u64, Value) {
    let hours = server.get("/api/analytics/gateways/hub-test/hours?days=7", &server.operator).await;
    let hours = hours["data"].as_array().unwrap();
    let sent = hours.iter().map(|hour| hour["sent"].as_u64().unwrap()).sum();
    let hubs = server.get("/api/analytics/gateways", &server.operator).await;
    assert_eq!(hubs["data"].as_array().unwrap().len(), 1, "{hubs}");
    let incomplete = hours.iter().filter(|hour| hour["why"] != "complete" || hour["lacking"] != 0).cloned().collect();
    (incomplete, sent, hubs["data"][0]["rows_lacking"].clone())
}

/// Loses one row behind everybody's back: it is named, nothing else is, and no other number has changed.
async fn lose_a_row(way: &str, engine: &Engine, server: &Server, ward: &Ward) {
    let (incomplete, sent, lacking) = gaps(server).await;
    assert_eq!((incomplete, sent, &lacking), (Vec::new(), ward.truth.count(), &json!(0)), "{way}: all is here");
    assert_eq!(engine.sql("SELECT count() FROM reconciliation_gaps").trim(), "0");

    let chosen = engine.sql(&format!(
        "SELECT event_id, toUnixTimestamp64Milli(timestamp), toUnixTimestamp(toStartOfHour(timestamp)) FROM events \
         WHERE user_id = '{BEN}' AND event_type = 'spo2' ORDER BY timestamp LIMIT 1 OFFSET 17"
    ));
    let [id, at_ms, hour] = chosen.trim().split('\t').collect::<Vec<_>>()[..] else { panic!("{chosen}") };
    engine.sql(&format!("DELETE FROM biometric_events WHERE event_id = '{id}'"));

    let (incomplete, _, lacking) = gaps(server).await;
    let [gap] = &incomplete[..] else { panic!("{way}: one hour, and not {incomplete:?}") };
    assert_eq!((&gap["lacking"], &gap["why"], lacking), (&json!(1), &json!("warehouse: rows are missing"), json!(1)));
    let named = gap["hour"].as_str().unwrap().parse::<Timestamp>().unwrap().as_second();
    assert_eq!(named.to_string(), hour, "{way}: {gap}");
    let found = engine.sql("SELECT gateway_id, device_id, lacking_id FROM reconciliation_gaps");
    assert_eq!(found, format!("hub-test\tmqtt-jan\t{id}\n"), "{way}");

    let mut truth = ward.truth.clone();
    truth.forget(BEN, EventType::Spo2, at_ms.parse().unwrap());
    // Of the others no row is gone, so what was counted of them above still holds.
    assert_true(way, (engine, server), ward, &[BEN], &truth).await;
}

/// What the hub said of its hours on the bus.
fn said(bus: &Kafka) -> u64 {
    let said = bus.read("reconciliation", Isolation::Committed);
    said.iter().map(|record| record.value["count"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_patients_measured_is_what_the_api_answers_and_a_lost_row_is_named() {
    if !program().exists() {
        return missing("biogate itself (cargo build -p biogate)");
    }
    let Some(broker) = Mosquitto::start() else { return };
    let (Some(direct), Some(over_bus)) = (landing_zone(), landing_zone()) else { return };
    let Some(bus) = Kafka::own(&[]) else { return };
    let sink = Sink::read();
    for (topic, _) in sink.tables() {
        bus.make_topic(topic, 3, &[]);
    }
    bus.make_topic("biogate-cursors", 1, &[]);

    let mut ward = Ward::new(broker, &direct, &bus);
    ward.start();
    ward.listened_to().await;
    ward.assign();
    ward.wear_bands();
    ward.publish_days().await;
    let stat = ward.hub.wait_until_drained(ward.truth.count(), SOON);
    assert_balanced(&stat);
    assert_eq!(stat["ledger"]["intake"]["stored"], ward.truth.count(), "{stat}");
    // After a start the hub says at once what it sent in every hour, and does not wait until each of them is quiet.
    assert_eq!(ward.hub.stop(), 0);
    ward.start();
    let sent = ward.truth.count();
    wait_for(SOON, || {
        let here = direct.sql("SELECT sum(count) FROM reconciliation FINAL");
        (here.trim() == sent.to_string() && said(&bus) == sent).then_some(())
    })
    .expect("both destinations are told what was sent");
    assert_eq!(ward.hub.stop(), 0);

    ward.visit_pages();
    sink.insert(&direct, "user_activity", &ward.visits);
    sink::produce(&bus, "user-activity", &ward.visits);
    sink.run(&bus, &over_bus);
    // It lost its offsets: everything comes again.
    sink.run(&bus, &over_bus);

    for (way, engine) in [("directly", &direct), ("over Kafka", &over_bus)] {
        let server =
            Server::with(crate::rig::settings(engine), biogate_analytics::warehouse::Limits::default(), |api| {
                api.requests_per_minute = 60_000.try_into().unwrap();
                api.burst = 1_000.try_into().unwrap();
            })
            .await;
        assert_true(way, (engine, &server), &ward, &ward.persons(), &ward.truth).await;
        lose_a_row(way, engine, &server, &ward).await;
        server.stop().await;
    }
}
