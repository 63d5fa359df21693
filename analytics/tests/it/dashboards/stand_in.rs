//! A server on loopback that speaks the part of Metabase's REST API that `dashboards apply` uses, and holds each request
//! against the published contract (contract.json). It is no Metabase: it runs no statement and draws nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Map, Value, json};

const CONTRACT: &str = include_str!("contract.json");
const TOKEN: &str = "0f7b2f0e-6c3b-4a43-9f3c-6f6ff0a1a2b3";
const KEY: &str = "mb_key";

/// What it remembers.
#[derive(Default)]
pub(crate) struct Memory {
    /// How often it says that it is starting.
    pub(crate) starting: u32,
    pub(crate) user: Option<(String, String)>,
    sessions: Vec<String>,
    pub(crate) databases: BTreeMap<u64, Value>,
    pub(crate) collections: BTreeMap<u64, Value>,
    pub(crate) cards: BTreeMap<u64, Value>,
    pub(crate) dashboards: BTreeMap<u64, Value>,
    last: u64,
    /// Each request that was not a GET, as `PUT api/card/{id}`.
    pub(crate) written: Vec<String>,
    /// What broke the contract.
    pub(crate) broken: Vec<String>,
    /// What is refused from now on, with this status.
    pub(crate) refuse: Option<(&'static str, u16)>,
}

/// The server, ended with the test's runtime.
#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) url: String,
    memory: Arc<Mutex<Memory>>,
}

type Answer = Result<Value, (u16, Value)>;

impl StandIn {
    pub(crate) async fn start() -> StandIn {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stand_in = StandIn { url, memory: Arc::default() };
        let router = Router::new().fallback(answer).with_state(stand_in.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        stand_in
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }
}

async fn answer(State(stand_in): State<StandIn>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let path = parts.uri.path().trim_start_matches('/');
    let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    let id = segments.iter_mut().find_map(|segment| {
        let id = segment.parse::<u64>().ok()?;
        *segment = "{id}".to_owned();
        Some(id)
    });
    let request = format!("{} {}", parts.method, segments.join("/"));
    let mut memory = stand_in.memory();
    if let Err(why) = holds(&request, parts.uri.query().unwrap_or_default(), &body) {
        memory.broken.push(why.clone());
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    if parts.method != Method::GET {
        memory.written.push(request.clone());
    }
    let known = header("X-API-Key").is_some_and(|key| key == KEY)
        || header("X-Metabase-Session").is_some_and(|id| memory.sessions.contains(&id));
    let open = ["GET api/health", "GET api/session/properties", "POST api/setup", "POST api/session"];
    let result = match memory.refuse {
        Some((refused, status)) if refused == request => Err((status, json!({"message": "not today"}))),
        _ if !known && !open.contains(&request.as_str()) => Err((401, json!("Unauthenticated"))),
        _ => memory.answer(&request, id.unwrap_or_default(), body),
    };
    match result {
        Ok(Value::Null) => StatusCode::NO_CONTENT.into_response(),
        Ok(value) => Json(value).into_response(),
        Err((status, value)) => (StatusCode::from_u16(status).unwrap(), Json(value)).into_response(),
    }
}

/// Holds a request against the contract.
pub(crate) fn holds(request: &str, query: &str, body: &Value) -> Result<(), String> {
    let contract: Value = serde_json::from_str(CONTRACT).unwrap();
    let known =
        contract["requests"].get(request).ok_or_else(|| format!("{request}: the contract has no such request"))?;
    for name in query.split('&').filter(|part| !part.is_empty()).map(|part| part.split('=').next().unwrap()) {
        let may = known["query"].as_array().is_some_and(|may| may.iter().any(|may| may == name));
        may.then_some(()).ok_or_else(|| format!("{request}: no query parameter {name}"))?;
    }
    let Some(schema) = known.get("body") else {
        return if body.is_null() { Ok(()) } else { Err(format!("{request}: takes no body")) };
    };
    let mut schema = schema.clone();
    schema["$defs"] = contract["$defs"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> =
        validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("{request}: {}", wrong.join("; "))) }
}

impl Memory {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn answer(&mut self, request: &str, id: u64, body: Value) -> Answer {
        match request {
            "GET api/health" if self.starting > 0 => {
                self.starting -= 1;
                Err((503, json!({"status": "initializing", "progress": 0.4})))
            }
            "GET api/health" => Ok(json!({"status": "ok"})),
            "GET api/session/properties" => {
                let token = if self.user.is_some() { Value::Null } else { json!(TOKEN) };
                Ok(json!({"has-user-setup": self.user.is_some(), "setup-token": token}))
            }
            "POST api/setup" if self.user.is_some() => Err((403, json!("a user currently exists"))),
            "POST api/setup" if body["token"] != TOKEN => Err((400, json!({"errors": {"token": "does not match"}}))),
            "POST api/setup" => {
                let word = |key: &str| body["user"][key].as_str().unwrap().to_owned();
                self.user = Some((word("email"), word("password")));
                Ok(self.session())
            }
            "POST api/session" => {
                let told = (body["username"].as_str().unwrap(), body["password"].as_str().unwrap());
                match &self.user {
                    Some((user, password)) if told == (user.as_str(), password.as_str()) => Ok(self.session()),
                    _ => Err((401, json!({"errors": {"password": "did not match stored password"}}))),
                }
            }
            "DELETE api/session" => {
                self.sessions.clear();
                Ok(Value::Null)
            }
            "GET api/database" => {
                let shown = self.databases.values().map(|one| {
                    let mut one = one.clone();
                    one["details"]["password"] = json!("**MetabasePass**");
                    one
                });
                Ok(json!({"data": shown.collect::<Vec<_>>(), "total": self.databases.len()}))
            }
            "POST api/database" => Ok(made(&mut self.last, &mut self.databases, body)),
            "PUT api/database/{id}" => changed(&mut self.databases, id, body),
            "GET api/collection" => {
                let mut all = vec![json!({"id": "root", "name": "Our analytics"})];
                all.extend(self.collections.values().cloned());
                Ok(json!(all))
            }
            "POST api/collection" => Ok(made(&mut self.last, &mut self.collections, body)),
            "GET api/collection/{id}/items" => Ok(self.items(id)),
            "POST api/card" => self.card_fits(&body).map(|()| made(&mut self.last, &mut self.cards, body)),
            "GET api/card/{id}" => found(&self.cards, id),
            "PUT api/card/{id}" => {
                self.card_fits(&body)?;
                changed(&mut self.cards, id, body)
            }
            "POST api/dashboard" => {
                let mut body = body;
                body["dashcards"] = json!([]);
                Ok(made(&mut self.last, &mut self.dashboards, body))
            }
            "GET api/dashboard/{id}" => found(&self.dashboards, id),
            "PUT api/dashboard/{id}" => self.dashboard(id, body),
            _ => unreachable!("{request}"),
        }
    }

    fn session(&mut self) -> Value {
        let id = format!("session-{}", self.next());
        self.sessions.push(id.clone());
        json!({"id": id})
    }

    pub(crate) fn signed_in(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// What of a collection is not in the trash.
    fn items(&self, collection: u64) -> Value {
        let of = |model: &str, all: &BTreeMap<u64, Value>| -> Vec<Value> {
            let there = all.values().filter(|one| one["collection_id"] == collection && one["archived"] != true);
            there.map(|one| json!({"id": one["id"], "model": model, "name": one["name"], "description": one["description"]}))
                .collect()
        };
        let all = [of("dashboard", &self.dashboards), of("card", &self.cards)].concat();
        json!({"total": all.len(), "data": all})
    }

    /// What the server checks beyond the form: tags are those of the text, and what is named is there.
    fn card_fits(&self, body: &Value) -> Result<(), (u16, Value)> {
        let refused = |why: &str| Err((400, json!({"message": why})));
        let Some(query) = body.get("dataset_query") else { return Ok(()) };
        if !self.databases.contains_key(&query["database"].as_u64().unwrap()) {
            return refused("no such database");
        }
        let text = query["native"]["query"].as_str().unwrap();
        let mut used: Vec<&str> =
            text.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().trim()).collect();
        used.sort_unstable();
        used.dedup();
        let mut tags = Vec::new();
        for (name, tag) in query["native"]["template-tags"].as_object().unwrap() {
            if tag["name"] != *name {
                return refused("keys in template tag map must match the :name of their values");
            }
            tags.push(name.as_str());
        }
        tags.sort_unstable();
        if tags != used {
            return refused("tags that the text does not use, or the other way round");
        }
        self.sources_fit(&body["parameters"])
    }

    fn sources_fit(&self, parameters: &Value) -> Result<(), (u16, Value)> {
        for parameter in parameters.as_array().into_iter().flatten() {
            let card = parameter["values_source_config"]["card_id"].as_u64();
            if card.is_some_and(|card| !self.cards.contains_key(&card)) {
                return Err((404, json!("Not found.")));
            }
        }
        Ok(())
    }

    fn dashboard(&mut self, id: u64, body: Value) -> Answer {
        self.sources_fit(&body["parameters"])?;
        let parameters = |id: &Value| body["parameters"].as_array().unwrap().iter().any(|one| one["id"] == *id);
        let mut dashcards = body["dashcards"].clone();
        let before = self.dashboards[&id]["dashcards"].as_array().unwrap().clone();
        for dashcard in dashcards.as_array_mut().into_iter().flatten() {
            let card = dashcard["card_id"].as_u64().and_then(|card| self.cards.get(&card));
            let Some(card) = card.filter(|card| card["archived"] != true) else {
                return Err((404, json!("the card is archived, or was never there")));
            };
            for mapping in dashcard["parameter_mappings"].as_array().unwrap() {
                let tag = mapping["target"][1][1].as_str().unwrap();
                let tags = &card["dataset_query"]["native"]["template-tags"];
                if tags.get(tag).is_none() || !parameters(&mapping["parameter_id"]) {
                    return Err((400, json!("a mapping of what is not there")));
                }
            }
            match dashcard["id"].as_i64().unwrap() {
                new @ ..0 => dashcard["id"] = json!(u64::try_from(-new).unwrap() + 1000 * id),
                old if before.iter().any(|known| known["id"] == old) => {}
                _ => return Err((404, json!("no such dashcard"))),
            }
        }
        let mut body = body;
        if dashcards.is_array() {
            // In another order than it was told.
            dashcards.as_array_mut().unwrap().reverse();
            body["dashcards"] = dashcards;
        }
        changed(&mut self.dashboards, id, body)
    }
}

fn made(last: &mut u64, all: &mut BTreeMap<u64, Value>, mut body: Value) -> Value {
    *last += 1;
    body["id"] = json!(*last);
    // What Metabase adds of its own.
    body["created_at"] = json!("2026-11-26T08:00:00Z");
    all.insert(*last, body.clone());
    body
}

fn found(all: &BTreeMap<u64, Value>, id: u64) -> Answer {
    all.get(&id).cloned().ok_or((404, json!("Not found.")))
}

fn changed(all: &mut BTreeMap<u64, Value>, id: u64, body: Value) -> Answer {
    let there = all.get_mut(&id).ok_or((404, json!("Not found.")))?;
    let body: Map<String, Value> = body.as_object().unwrap().clone();
    there.as_object_mut().unwrap().extend(body);
    Ok(there.clone())
}
