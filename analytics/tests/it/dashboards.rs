//! `dashboards apply` against a stand-in that speaks Metabase's published contract. Not run here: a Metabase server
//! (docs/dashboards.md has the commands).

mod stand_in;

use std::path::{Path, PathBuf};
use std::time::Duration;

use biogate_analytics::config::Config;
use biogate_analytics::dashboards::files::Files;
use biogate_analytics::dashboards::{self, Deed, Done, Error, Settings};
use biogate_analytics::warehouse;
use serde_json::{Value, json};
use stand_in::StandIn;
use tempfile::TempDir;

use crate::rig::landing_zone;

const USER: &str = "admin@biogate.invalid";

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// A stand-in, the command's settings for it, and a copy of the files that a test may change.
struct Rig {
    stand_in: StandIn,
    settings: Settings,
    warehouse: warehouse::Settings,
    folder: TempDir,
}

impl Rig {
    async fn start() -> Rig {
        let stand_in = StandIn::start().await;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for part in ["dashboards", "clickhouse/queries", "clickhouse/monitoring"] {
            std::fs::create_dir_all(at(part)).unwrap();
            for file in std::fs::read_dir(deploy().join(part)).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), at(part).join(file.file_name())).unwrap();
            }
        }
        for (name, text) in
            [("admin", "s3cret-of-the-admin\n"), ("reader", "reader-1\n"), ("key", "mb_key\n"), ("none", "")]
        {
            std::fs::write(at(name), text).unwrap();
        }
        let settings = Settings {
            url: stand_in.url.clone(),
            user: Some(USER.to_owned()),
            password_file: Some(at("admin")),
            api_key_file: None,
            ca_file: None,
            warehouse_url: None,
            name: "biogate".to_owned(),
        };
        let warehouse = warehouse::Settings {
            url: "http://clickhouse:8123".to_owned(),
            database: "biometrics".to_owned(),
            user: Some("reader".to_owned()),
            password_file: Some(at("reader")),
            ca_file: None,
            limits: warehouse::Limits::default(),
        };
        Rig { stand_in, settings, warehouse, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn change(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.file(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}");
        std::fs::write(self.file(name), text.replace(from, to)).unwrap();
    }

    async fn apply(&self) -> Vec<Done> {
        let done = self.try_apply().await.unwrap();
        let memory = self.stand_in.memory();
        assert!(memory.broken.is_empty(), "against the contract: {:#?}", memory.broken);
        assert!(!memory.signed_in(), "the session was left open");
        done
    }

    async fn try_apply(&self) -> Result<Vec<Done>, Error> {
        let files = Files::read(&self.file("dashboards")).unwrap();
        dashboards::apply(&self.settings, &self.warehouse, &files, Duration::from_secs(1)).await
    }
}

fn ids(done: &[Done]) -> Vec<(&'static str, &str, u64)> {
    let things = done.iter().filter(|one| one.kind != "user");
    things.map(|one| (one.kind, one.key.as_str(), one.id)).collect()
}

fn deeds(done: &[Done], deed: Deed) -> Vec<&str> {
    done.iter().filter(|one| one.deed == deed).map(|one| one.key.as_str()).collect()
}

#[tokio::test]
async fn a_metabase_without_users_gets_its_first_one_and_all_five_dashboards() {
    let rig = Rig::start().await;
    let done = rig.apply().await;
    assert!(done.iter().all(|one| one.deed == Deed::Made), "{done:?}");
    let of = |kind: &str| done.iter().filter(|one| one.kind == kind).map(|one| one.key.as_str()).collect::<Vec<_>>();
    assert_eq!(of("dashboard"), ["completeness", "fleet", "heart_rate", "steps", "vitals_wall"]);
    assert_eq!((of("user"), of("database"), of("collection")), (vec![USER], vec!["biogate"], vec!["biogate"]));
    let memory = rig.stand_in.memory();
    assert_eq!(memory.user, Some((USER.to_owned(), "s3cret-of-the-admin".to_owned())));
    let database = memory.databases.values().next().unwrap();
    let connection = json!({"host": "clickhouse", "port": 8123, "user": "reader", "password": "reader-1",
                            "dbname": "biometrics", "ssl": false});
    assert_eq!(database["details"], connection);
    let heart = memory.dashboards.values().find(|one| one["name"] == "Heart rate per patient").unwrap();
    let parameters: Vec<_> = heart["parameters"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(parameters, ["user_id", "days"]);
    assert!(
        heart["dashcards"]
            .as_array()
            .unwrap()
            .iter()
            .all(|card| card["parameter_mappings"].as_array().unwrap().len() == 2)
    );
    let fleet = memory.dashboards.values().find(|one| one["name"] == "Fleet health").unwrap();
    let mut places: Vec<_> = fleet["dashcards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|card| ["row", "col", "size_x"].map(|key| card[key].as_u64().unwrap()))
        .collect();
    places.sort_unstable();
    assert_eq!(places, [[0, 0, 12], [0, 12, 12], [8, 0, 24]]);
}

#[tokio::test]
async fn applied_twice_everything_keeps_its_id_and_nothing_is_written_but_the_connection() {
    let rig = Rig::start().await;
    let first = rig.apply().await;
    let counts = |rig: &Rig| {
        let memory = rig.stand_in.memory();
        [memory.databases.len(), memory.collections.len(), memory.cards.len(), memory.dashboards.len()]
    };
    let before = counts(&rig);
    rig.stand_in.memory().written.clear();
    let second = rig.apply().await;
    assert_eq!(ids(&first), ids(&second));
    assert_eq!(counts(&rig), before);
    assert!(second.iter().all(|one| one.deed == Deed::Kept), "{second:?}");
    assert_eq!(rig.stand_in.memory().written, ["POST api/session", "PUT api/database/{id}", "DELETE api/session"]);
}

#[tokio::test]
async fn a_changed_statement_or_title_changes_its_card_and_no_other() {
    let rig = Rig::start().await;
    let first = rig.apply().await;
    rig.change("dashboards/steps_daily.sql", "sum(value) AS steps", "sum(value) + 0 AS steps");
    rig.change("dashboards/fleet.json", "Waiting events", "Events that wait");
    let second = rig.apply().await;
    assert_eq!(deeds(&second, Deed::Changed), ["fleet/backlog", "steps/steps_daily"]);
    assert_eq!(ids(&first), ids(&second));
    let memory = rig.stand_in.memory();
    let text = |name: &str| {
        memory.cards.values().find(|one| one["name"] == name).unwrap()["dataset_query"]["native"]["query"].clone()
    };
    assert!(text("Steps by day").as_str().unwrap().contains("sum(value) + 0 AS steps"));
    assert!(text("Events that wait").is_string());
}

#[tokio::test]
async fn what_somebody_changed_by_hand_in_a_card_of_ours_is_put_right() {
    let rig = Rig::start().await;
    rig.apply().await;
    for card in rig.stand_in.memory().cards.values_mut().filter(|card| card["name"] == "Steps by day") {
        card["name"] = json!("my steps");
        card["dataset_query"]["native"]["query"] = json!("SELECT 1");
    }
    assert_eq!(deeds(&rig.apply().await, Deed::Changed), ["steps/steps_daily"]);
    assert!(rig.stand_in.memory().cards.values().any(|card| card["name"] == "Steps by day"));
}

#[tokio::test]
async fn what_no_file_names_any_more_is_archived_and_what_people_made_is_not() {
    let rig = Rig::start().await;
    let first = rig.apply().await;
    let collection = first.iter().find(|one| one.kind == "collection").unwrap().id;
    let theirs = [(9001, collection, "mine, in the platform's collection"), (9002, 77, "mine")];
    for (id, collection, name) in theirs {
        let one =
            json!({"id": id, "name": name, "description": "of my own", "collection_id": collection, "dashcards": []});
        rig.stand_in.memory().cards.insert(id, one.clone());
        rig.stand_in.memory().dashboards.insert(id, one);
    }
    std::fs::remove_file(rig.file("dashboards/steps.json")).unwrap();
    rig.change(
        "dashboards/fleet.json",
        r#",
    { "title": "Hubs", "sql": "hubs.sql", "display": "table", "height": 10 }"#,
        "",
    );
    let second = rig.apply().await;
    assert_eq!(deeds(&second, Deed::Archived), ["steps", "fleet/hubs", "steps/steps_daily"]);
    assert_eq!(deeds(&second, Deed::Changed), ["fleet"]);
    {
        let memory = rig.stand_in.memory();
        let archived: Vec<&Value> =
            memory.cards.values().filter(|one| one["archived"] == true).map(|one| &one["name"]).collect();
        assert_eq!(archived, ["Hubs", "Steps by day"]);
        assert!(
            theirs
                .iter()
                .all(|(id, ..)| memory.cards[id]["archived"].is_null() && memory.dashboards[id]["archived"].is_null())
        );
    }
    let third = rig.apply().await;
    assert!(third.iter().all(|one| one.deed == Deed::Kept), "{third:?}");
}

#[tokio::test]
async fn a_copy_that_somebody_made_is_left_alone() {
    let rig = Rig::start().await;
    let first = rig.apply().await;
    let (id, mut copy) = {
        let memory = rig.stand_in.memory();
        let (_, card) = memory.cards.iter().find(|(_, card)| card["name"] == "Steps by day").unwrap();
        (9003, card.clone())
    };
    copy["id"] = json!(id);
    copy["name"] = json!("Steps by day - duplicate");
    rig.stand_in.memory().cards.insert(id, copy.clone());
    assert_eq!(ids(&first), ids(&rig.apply().await));
    assert_eq!(rig.stand_in.memory().cards[&id], copy);
}

#[tokio::test]
async fn an_apply_that_broke_off_is_finished_by_the_next() {
    let rig = Rig::start().await;
    rig.stand_in.memory().refuse = Some(("PUT api/dashboard/{id}", 500));
    let error = rig.try_apply().await.unwrap_err().to_string();
    assert!(error.contains("PUT api/dashboard/") && error.contains("not today"), "{error}");
    assert!(!rig.stand_in.memory().signed_in(), "the session was left open");
    rig.stand_in.memory().refuse = None;
    rig.apply().await;
    let memory = rig.stand_in.memory();
    assert_eq!(memory.dashboards.len(), 5);
    assert!(memory.dashboards.values().all(|one| !one["dashcards"].as_array().unwrap().is_empty()));
    let names: Vec<_> = memory.cards.values().map(|card| card["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), names.iter().collect::<std::collections::BTreeSet<_>>().len(), "twice: {names:?}");
}

#[tokio::test]
async fn an_api_key_does_where_there_is_a_user_already() {
    let mut rig = Rig::start().await;
    rig.settings.user = None;
    rig.settings.password_file = None;
    rig.settings.api_key_file = Some(rig.file("key"));
    let error = rig.try_apply().await.unwrap_err().to_string();
    assert!(error.contains("has no user yet: write user and password_file"), "{error}");
    rig.stand_in.memory().user = Some(("somebody@example.org".to_owned(), "else-1".to_owned()));
    assert_eq!(rig.apply().await.iter().filter(|one| one.kind == "dashboard").count(), 5);
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    let mut rig = Rig::start().await;
    rig.stand_in.memory().user = Some((USER.to_owned(), "another-1".to_owned()));
    let said = |result: Result<Vec<Done>, Error>| result.unwrap_err().to_string();
    let error = said(rig.try_apply().await);
    assert!(error.contains("write the administrator's mail address and password"), "{error}");
    rig.stand_in.memory().user = Some((USER.to_owned(), "s3cret-of-the-admin".to_owned()));
    rig.stand_in.memory().refuse = Some(("POST api/database", 403));
    let error = said(rig.try_apply().await);
    assert!(error.contains("POST api/database") && error.contains("group Administrators"), "{error}");
    rig.stand_in.memory().refuse = Some(("POST api/database", 400));
    let error = said(rig.try_apply().await);
    assert!(error.contains("Metabase refuses: 400") && error.contains("not today"), "{error}");
    rig.stand_in.memory().starting = 9;
    let error = said(rig.try_apply().await);
    assert!(error.contains("not ready after 1 s (503") && error.contains("--wait"), "{error}");
    rig.settings.password_file = Some(rig.file("none"));
    let error = said(rig.try_apply().await);
    assert!(error.contains("none: is empty"), "{error}");
    rig.settings.url = "metabase:3000".to_owned();
    rig.settings.password_file = Some(rig.file("admin"));
    let error = said(rig.try_apply().await);
    assert!(error.contains("write http://HOST:3000"), "{error}");
}

/// What compose hands to its service `dashboards` is read, and names the files that it mounts.
#[test]
fn the_configuration_of_compose_is_one_that_the_command_reads() {
    let config = Config::load(&deploy().join("compose/api/analytics.toml")).unwrap();
    let metabase = config.metabase.unwrap();
    assert_eq!(metabase.password_file, Some(PathBuf::from("/run/secrets/metabase-admin")));
    assert_eq!((metabase.url.as_str(), metabase.user.as_deref()), ("http://metabase:3000", Some(USER)));
    let files = Files::read(&deploy().join("dashboards")).unwrap();
    assert_eq!(files.dashboards.len(), 5);
}

/// What the stand-in is good for: a request that Metabase would refuse is refused here.
#[test]
fn the_contract_refuses_what_metabase_would() {
    let card = json!({"name": "a", "display": "table", "visualization_settings": {}, "dataset_query":
        {"type": "native", "database": 1, "native": {"query": "SELECT 1", "template-tags": {}}}});
    stand_in::holds("POST api/card", "", &card).unwrap();
    let without = |key: &str| {
        let mut less = card.clone();
        less.as_object_mut().unwrap().remove(key);
        less
    };
    let with = |key: &str, value: Value| {
        let mut more = card.clone();
        more[key] = value;
        more
    };
    for wrong in [
        without("display"),
        without("dataset_query"),
        with("name", json!("")),
        with("colour", json!("red")),
        with("collection_id", json!("root")),
        with("dataset_query", json!({"query": "SELECT 1"})),
    ] {
        assert!(stand_in::holds("POST api/card", "", &wrong).is_err(), "{wrong}");
    }
    assert!(stand_in::holds("GET api/cards", "", &Value::Null).is_err());
    assert!(stand_in::holds("GET api/card/{id}", "legacy=true", &Value::Null).is_err());
    let dashcard = json!({"dashcards": [{"id": -1, "card_id": 1, "sizeX": 4, "size_y": 4, "row": 0, "col": 0}]});
    assert!(stand_in::holds("PUT api/dashboard/{id}", "", &dashcard).is_err());
}

/// Metabase writes a text as a literal in quotes and a number as it is: the tagged statements mean what the files mean.
#[tokio::test]
async fn the_statements_that_metabase_gets_are_answered_by_the_engine() {
    let Some(engine) = landing_zone().await else { return };
    let person = "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11";
    engine.sql(&format!(
        "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, gateway_id, device_id) \
         SELECT generateUUIDv4(), '{person}', if(number < 4, 'heart_rate', 'steps'), 60 + number, '', now64(3) - 60, \
         'hub-1', 'strap' FROM numbers(6)"
    ));
    let rig = Rig::start().await;
    rig.apply().await;
    let memory = rig.stand_in.memory();
    let filled = |card: &Value, days: &str| {
        let text = card["dataset_query"]["native"]["query"].as_str().unwrap().to_owned();
        let values = [
            ("user_id", format!("'{person}'")),
            ("hub", "'%'".to_owned()),
            ("days", days.to_owned()),
            ("hours", "24".to_owned()),
            ("minutes", "60".to_owned()),
        ];
        values.iter().fold(text, |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
    };
    for card in memory.cards.values() {
        engine.sql(&filled(card, "7"));
    }
    let named = |name: &str| memory.cards.values().find(|card| card["name"] == name).unwrap();
    let heart =
        |days: &str| format!("SELECT readings, min_hr, max_hr FROM ({})", filled(named("Heart rate by day"), days));
    assert_eq!(engine.sql(&heart("7")), "4\t60\t63\n");
    assert_eq!(engine.sql(&heart("65535")), "4\t60\t63\n");
    assert_eq!(engine.sql(&format!("SELECT steps FROM ({})", filled(named("Steps by day"), "7"))), "129\n");
}
