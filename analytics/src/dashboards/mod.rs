//! Dashboards as code: the files of `deploy/dashboards/` made into a Metabase's connection, cards and dashboards.
//!
//! The modules in reading order: the files, the statements in them, what Metabase is told, the way there.

mod bodies;
pub mod files;
mod metabase;
pub mod statement;

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Url;
use serde_json::{Value, json};

use crate::warehouse;
use bodies::{Ids, Place};
use files::Files;
pub use metabase::{Error, Metabase, Settings};

const COLLECTION: &str = "collection";

/// What became of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It was not there.
    Made,
    /// It was another.
    Changed,
    /// It was so already.
    Kept,
    /// No file names it any more.
    Archived,
}

/// A thing, by its kind and key, its id in Metabase, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// `user`, `database`, `collection`, `card` or `dashboard`.
    pub kind: &'static str,
    /// As the files name it.
    pub key: String,
    /// As Metabase names it.
    pub id: u64,
    /// What became of it.
    pub deed: Deed,
}

/// Makes Metabase show what the files say. Told twice, it is the same: what is there keeps its id.
pub async fn apply(
    settings: &Settings,
    warehouse: &warehouse::Settings,
    files: &Files,
    wait: Duration,
) -> Result<Vec<Done>, Error> {
    let connection = connection(settings, warehouse)?;
    let (metabase, first) = Metabase::sign_in(settings, wait).await?;
    let mut work = Work { metabase: &metabase, done: Vec::new() };
    if first {
        work.did("user", settings.user.as_deref().unwrap_or_default(), 1, Deed::Made);
    }
    let result = work.all(settings, &connection, files).await;
    let done = work.done;
    let left = metabase.sign_out().await;
    result?;
    left?;
    Ok(done)
}

/// How Metabase reaches the warehouse: the same user that the Query API reads with.
fn connection(settings: &Settings, warehouse: &warehouse::Settings) -> Result<Value, Error> {
    let text = settings.warehouse_url.as_ref().unwrap_or(&warehouse.url);
    let wrong = |why: &str| Error::Settings(format!("{text:?}: {why}; write http://HOST:8123 as warehouse_url"));
    let url = Url::parse(text).map_err(|why| wrong(&why.to_string()))?;
    let host = url.host_str().ok_or_else(|| wrong("has no host"))?;
    let ssl = url.scheme() == "https";
    let password = match &warehouse.password_file {
        Some(path) => metabase::secret(path, "password_file of [warehouse]")?,
        None => String::new(),
    };
    Ok(json!({
        "host": host,
        "port": url.port().unwrap_or(if ssl { 8443 } else { 8123 }),
        "user": warehouse.user.as_deref().unwrap_or("default"),
        "password": password,
        "dbname": warehouse.database,
        "ssl": ssl,
    }))
}

struct Work<'a> {
    metabase: &'a Metabase,
    done: Vec<Done>,
}

/// What this command made before and is there still: id and description's key, by kind.
#[derive(Default)]
struct There {
    cards: BTreeMap<String, u64>,
    dashboards: BTreeMap<String, u64>,
}

impl Work<'_> {
    fn did(&mut self, kind: &'static str, key: &str, id: u64, deed: Deed) {
        self.done.push(Done { kind, key: key.to_owned(), id, deed });
    }

    async fn all(&mut self, settings: &Settings, connection: &Value, files: &Files) -> Result<(), Error> {
        let database = self.database(&settings.name, connection).await?;
        let collection = self.collection(&settings.name).await?;
        let place = Place { collection, database };
        let there = self.there(collection).await?;
        let ids = self.cards(files, &there, place).await?;
        for dashboard in &files.dashboards {
            self.dashboard(dashboard, files, &ids, &there, collection).await?;
        }
        // Last: a card that lies on a dashboard still would leave a hole there.
        let unnamed = |kind: &'static str, there: &BTreeMap<String, u64>, named: &dyn Fn(&str) -> bool| {
            let gone = there.iter().filter(|(key, _)| !named(key));
            gone.map(|(key, id)| (kind, key.clone(), *id)).collect::<Vec<_>>()
        };
        let shown = |key: &str| files.dashboards.iter().any(|dashboard| dashboard.key == key);
        let mut gone = unnamed("dashboard", &there.dashboards, &shown);
        gone.extend(unnamed("card", &there.cards, &|key| ids.contains_key(key)));
        for (kind, key, id) in gone {
            self.metabase.put(&format!("api/{kind}/{id}"), &json!({"archived": true})).await?;
            self.did(kind, &key, id, Deed::Archived);
        }
        Ok(())
    }

    async fn database(&mut self, name: &str, details: &Value) -> Result<u64, Error> {
        let answer = self.metabase.get("api/database").await?;
        let all = array(&answer["data"], "GET api/database", "data")?;
        match all.iter().find(|one| one["name"] == name && one["engine"] == "clickhouse") {
            Some(there) => {
                let id = id(there, "GET api/database")?;
                // Always told: Metabase does not show the password, so nobody knows whether it is still the right one.
                self.metabase.put(&format!("api/database/{id}"), &json!({"details": details})).await?;
                let mut seen = details.clone();
                seen["password"] = there["details"]["password"].clone();
                let deed = if bodies::holds(&there["details"], &seen) { Deed::Kept } else { Deed::Changed };
                self.did("database", name, id, deed);
                Ok(id)
            }
            None => {
                // Without is_full_sync Metabase reads names and types of columns, and does not copy their values.
                let body = json!({
                    "name": name, "engine": "clickhouse", "details": details, "is_full_sync": false, "is_on_demand": false,
                    "connection_source": "admin",
                });
                let id = id(&self.metabase.post("api/database", &body).await?, "POST api/database")?;
                self.did("database", name, id, Deed::Made);
                Ok(id)
            }
        }
    }

    async fn collection(&mut self, name: &str) -> Result<u64, Error> {
        let answer = self.metabase.get("api/collection").await?;
        let all = array(&answer, "GET api/collection", "list")?;
        // The root has a word for an id.
        let ours = all.iter().find(|one| one["id"].is_u64() && made(one) == Some(COLLECTION));
        if let Some(there) = ours {
            let id = id(there, "GET api/collection")?;
            self.did(COLLECTION, name, id, Deed::Kept);
            return Ok(id);
        }
        let about = "The platform's dashboards. Copy one into a collection of your own to change it.";
        let body = json!({"name": name, "description": bodies::marked(about, COLLECTION)});
        let id = id(&self.metabase.post("api/collection", &body).await?, "POST api/collection")?;
        self.did(COLLECTION, name, id, Deed::Made);
        Ok(id)
    }

    async fn there(&self, collection: u64) -> Result<There, Error> {
        let path = format!("api/collection/{collection}/items?models=card&models=dashboard");
        let answer = self.metabase.get(&path).await?;
        let mut there = There::default();
        for item in array(&answer["data"], &path, "data")? {
            let Some(key) = made(item) else { continue };
            let id = id(item, &path)?;
            let known = match item["model"].as_str() {
                Some("card") => &mut there.cards,
                Some("dashboard") => &mut there.dashboards,
                _ => continue,
            };
            // What somebody copied carries the description of what it was copied from: the one made first is ours.
            let first = known.get(key).map_or(id, |first| id.min(*first));
            known.insert(key.to_owned(), first);
        }
        Ok(there)
    }

    /// Lists first: a card's parameters name them.
    async fn cards(&mut self, files: &Files, there: &There, place: Place) -> Result<Ids, Error> {
        let mut ids = Ids::new();
        for list in files.parameters.iter().filter_map(|parameter| parameter.list.as_ref()) {
            let id = self.card(&list.key, &bodies::list(list, place), there).await?;
            ids.insert(list.key.clone(), id);
        }
        for card in files.dashboards.iter().flat_map(|dashboard| &dashboard.cards) {
            let id = self.card(&card.key, &bodies::card(card, files, &ids, place), there).await?;
            ids.insert(card.key.clone(), id);
        }
        Ok(ids)
    }

    async fn card(&mut self, key: &str, wanted: &Value, there: &There) -> Result<u64, Error> {
        let (id, deed) = match there.cards.get(key) {
            None => (id(&self.metabase.post("api/card", wanted).await?, "POST api/card")?, Deed::Made),
            Some(&id) => {
                let path = format!("api/card/{id}");
                // Since version 57 queries are given in another form than they are taken in, unless one asks.
                let answer = self.metabase.get(&format!("{path}?legacy-mbql=true")).await?;
                match bodies::holds(&answer, wanted) {
                    true => (id, Deed::Kept),
                    false => {
                        self.metabase.put(&path, wanted).await?;
                        (id, Deed::Changed)
                    }
                }
            }
        };
        self.did("card", key, id, deed);
        Ok(id)
    }

    async fn dashboard(
        &mut self,
        dashboard: &files::Dashboard,
        files: &Files,
        ids: &Ids,
        there: &There,
        collection: u64,
    ) -> Result<(), Error> {
        let (id, made) = match there.dashboards.get(&dashboard.key) {
            Some(&id) => (id, false),
            None => {
                let body = bodies::new_dashboard(dashboard, collection);
                (id(&self.metabase.post("api/dashboard", &body).await?, "POST api/dashboard")?, true)
            }
        };
        let path = format!("api/dashboard/{id}");
        let mut answer = self.metabase.get(&path).await?;
        let lying = array(&answer["dashcards"], &path, "dashcards")?.clone();
        let mut wanted = bodies::dashboard(dashboard, files, ids, &lying);
        in_order(&mut answer);
        in_order(&mut wanted);
        let deed = match (made, bodies::holds(&answer, &wanted)) {
            (false, true) => Deed::Kept,
            (made, _) => {
                self.metabase.put(&path, &wanted).await?;
                if made { Deed::Made } else { Deed::Changed }
            }
        };
        self.did("dashboard", &dashboard.key, id, deed);
        Ok(())
    }
}

/// The key of what this command made.
fn made(item: &Value) -> Option<&str> {
    bodies::key(item["description"].as_str()?)
}

/// Where a card lies is said by its row and column, not by its place in the list.
fn in_order(dashboard: &mut Value) {
    if let Some(dashcards) = dashboard["dashcards"].as_array_mut() {
        dashcards.sort_by_key(|dashcard| dashcard["id"].as_i64());
    }
}

fn id(answer: &Value, what: &str) -> Result<u64, Error> {
    answer["id"].as_u64().ok_or_else(|| Error::Answer { what: what.to_owned(), missing: "id" })
}

fn array<'a>(answer: &'a Value, what: &str, missing: &'static str) -> Result<&'a Vec<Value>, Error> {
    answer.as_array().ok_or_else(|| Error::Answer { what: what.to_owned(), missing })
}
