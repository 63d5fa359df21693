//! What Metabase is told: the files as bodies of its REST API.
//!
//! Whatever the command makes says so at the end of its description, with its key. By that it is found again, under whatever
//! name, and by that what people made is told apart.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::files::{Card, Dashboard, Display, Face, Files, GRID, List, Parameter};
use super::statement::{Kind, Statement};

const MADE: &str = "Made by biogate-analytics; a change made here is overwritten. biogate:";

/// A description that says whose it is.
pub(super) fn marked(about: &str, key: &str) -> String {
    format!("{about}\n\n{MADE} {key}")
}

/// The key in a description, of something that this command made.
pub(super) fn key(description: &str) -> Option<&str> {
    description.rsplit_once(MADE).map(|(_, key)| key.trim())
}

/// Where a card is put, and which database it asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) collection: u64,
    pub(super) database: u64,
}

/// Ids of the cards that are there, by their keys.
pub(super) type Ids = BTreeMap<String, u64>;

/// The body of a list's card.
pub(super) fn list(list: &List, place: Place) -> Value {
    card_body(&list.key, &list.title, "table", &list.statement, json!({}), &[], place)
}

/// The body of a card.
pub(super) fn card(card: &Card, files: &Files, ids: &Ids, place: Place) -> Value {
    let display = match card.face.display {
        Display::Table => "table",
        Display::Line => "line",
        Display::Bar => "bar",
    };
    let asked = asked(&[&card.statement], files);
    let mut body =
        card_body(&card.key, &card.face.title, display, &card.statement, settings(&card.face), &asked, place);
    let parameters: Vec<Value> = asked
        .iter()
        .map(|(parameter, kind)| {
            let kind = if *kind == Kind::Number { "number/=" } else { "category" };
            let mut body = parameter_body(parameter, tag_id(&parameter.name), kind, ids);
            body["target"] = target(parameter);
            body
        })
        .collect();
    body["parameters"] = json!(parameters);
    body
}

fn card_body(
    key: &str,
    title: &str,
    display: &str,
    statement: &Statement,
    settings: Value,
    asked: &[(&Parameter, Kind)],
    place: Place,
) -> Value {
    let tags: Map<String, Value> =
        asked.iter().map(|(parameter, kind)| (parameter.name.clone(), tag(parameter, *kind))).collect();
    json!({
        "name": title,
        "description": marked(&statement.about, key),
        "type": "question",
        "display": display,
        "visualization_settings": settings,
        "collection_id": place.collection,
        "dataset_query": {
            "type": "native",
            "database": place.database,
            "native": {"query": statement.text, "template-tags": tags},
        },
    })
}

/// What of the parameters is asked, in their order.
fn asked<'a>(statements: &[&Statement], files: &'a Files) -> Vec<(&'a Parameter, Kind)> {
    let kind = |name: &str| {
        let mut all = statements.iter().flat_map(|statement| &statement.parameters);
        all.find(|(asked, _)| asked == name).map(|(_, kind)| *kind)
    };
    files.parameters.iter().filter_map(|parameter| Some((parameter, kind(&parameter.name)?))).collect()
}

fn tag(parameter: &Parameter, kind: Kind) -> Value {
    let mut tag = json!({
        "id": tag_id(&parameter.name),
        "name": parameter.name,
        "display-name": parameter.label,
        "type": if kind == Kind::Number { "number" } else { "text" },
        // Without a default Metabase waits for a value by itself; `required` wants one.
        "required": parameter.default.is_some(),
    });
    if let Some(default) = &parameter.default {
        tag["default"] = default.clone();
    }
    tag
}

fn parameter_body(parameter: &Parameter, id: String, kind: &str, ids: &Ids) -> Value {
    let mut body = json!({
        "id": id, "type": kind, "name": parameter.label, "slug": parameter.name, "isMultiSelect": false,
        "required": parameter.default.is_some(),
    });
    if let Some(default) = &parameter.default {
        body["default"] = json!([default]);
    }
    if let Some((list, id)) = parameter.list.as_ref().and_then(|list| Some((list, ids.get(&list.key)?))) {
        body["values_query_type"] = json!("list");
        body["values_source_type"] = json!("card");
        let field = json!(["field", list.column, {"base-type": "type/Text"}]);
        body["values_source_config"] = json!({"card_id": id, "value_field": field});
    }
    body
}

fn target(parameter: &Parameter) -> Value {
    json!(["variable", ["template-tag", parameter.name]])
}

/// The same each time, so that a card told twice is the same card.
fn tag_id(name: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("urn:biogate:dashboards:{name}").as_bytes()).to_string()
}

fn settings(face: &Face) -> Value {
    let mut settings = Map::new();
    if let Some(x) = &face.x {
        let dimensions: Vec<&String> = std::iter::once(x).chain(&face.series).collect();
        settings.insert("graph.dimensions".to_owned(), json!(dimensions));
        settings.insert("graph.metrics".to_owned(), json!(face.y));
    }
    if face.stacked {
        settings.insert("stackable.stack_type".to_owned(), json!("stacked"));
    }
    Value::Object(settings)
}

/// The body that a dashboard is made with: it has no card yet.
pub(super) fn new_dashboard(dashboard: &Dashboard, collection: u64) -> Value {
    json!({
        "name": dashboard.name,
        "description": marked(&dashboard.description, &dashboard.key),
        "collection_id": collection,
    })
}

/// The body of a dashboard with its cards. A card that lies on it already keeps its place's id.
pub(super) fn dashboard(dashboard: &Dashboard, files: &Files, ids: &Ids, there: &[Value]) -> Value {
    let statements: Vec<&Statement> = dashboard.cards.iter().map(|card| &card.statement).collect();
    let parameters: Vec<Value> = asked(&statements, files)
        .iter()
        .map(|(parameter, kind)| {
            let kind = if *kind == Kind::Number { "number" } else { "string" };
            let mut body = parameter_body(parameter, parameter.name.clone(), &format!("{kind}/="), ids);
            body["sectionId"] = json!(kind);
            body
        })
        .collect();
    let mut flow = Flow::default();
    let dashcards: Vec<Value> = dashboard
        .cards
        .iter()
        .enumerate()
        .filter_map(|(place, card)| {
            let id = *ids.get(&card.key)?;
            let known = there.iter().find(|dashcard| dashcard["card_id"] == id).and_then(|known| known["id"].as_i64());
            // A number below zero is a new one to Metabase.
            let new = -1 - i64::try_from(place).unwrap_or(0);
            Some(dashcard(known.unwrap_or(new), id, card, flow.place(&card.face), files))
        })
        .collect();
    json!({
        "name": dashboard.name,
        "description": marked(&dashboard.description, &dashboard.key),
        "width": "full",
        "parameters": parameters,
        "dashcards": dashcards,
    })
}

fn dashcard(id: i64, card_id: u64, card: &Card, (row, column): (u32, u8), files: &Files) -> Value {
    let mappings: Vec<Value> = asked(&[&card.statement], files)
        .iter()
        .map(|(parameter, _)| json!({"parameter_id": parameter.name, "card_id": card_id, "target": target(parameter)}))
        .collect();
    json!({
        "id": id, "card_id": card_id, "row": row, "col": column, "size_x": card.face.width, "size_y": card.face.height,
        "parameter_mappings": mappings, "visualization_settings": {}, "series": [],
    })
}

/// Cards one after the other, a new row where one does not fit beside the last.
#[derive(Default)]
struct Flow {
    row: u32,
    column: u8,
    tallest: u8,
}

impl Flow {
    fn place(&mut self, face: &Face) -> (u32, u8) {
        if self.column + face.width > GRID {
            self.row += u32::from(self.tallest);
            (self.column, self.tallest) = (0, 0);
        }
        let at = (self.row, self.column);
        self.column += face.width;
        self.tallest = self.tallest.max(face.height);
        at
    }
}

/// Whether all that is wanted is there. What Metabase adds of its own is not looked at.
pub(super) fn holds(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| there.get(key).map_or(value.is_null(), |there| holds(there, value)))
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(there, wanted)| holds(there, wanted))
        }
        (there, wanted) => there == wanted,
    }
}
