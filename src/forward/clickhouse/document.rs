//! A database that was made by the platform document's own statements becomes the landing zone without losing a row.
//!
//! Its tables step aside under names of their own, the trigger view that fed the wrong sums goes, and the rows are copied
//! into the new tables, a day at a time. Each step may be repeated: a run that was cut off is finished by the next. The
//! old tables stay until somebody drops them. docs/decisions/2026-11-26-landing-zone.md says what was wrong with them.

use serde::Deserialize;

use super::Settings;
use super::http::Http;
use super::schema::{Error, ask, rows};

/// What a table of the document is called once it stepped aside.
const ASIDE: &str = "document_";
/// The comment of a table whose rows are all copied.
const COPIED: &str = "copied into the landing zone";

/// Its views that add up what is inserted.
const TRIGGERS: [&str; 2] = ["hourly_metrics_mv", "session_summary_mv"];

/// Columns of the new table and what they are made of, from the document's events. Rows that stand under one key and say
/// different things would merge into one: each of these gets an id of its own, made of what it says.
const EVENTS: &str = "INSERT INTO biometric_events (event_id, user_id, event_type, value, unit, timestamp, device_id, \
     location, clock, metadata) \
     WITH sipHash128(toString(event_id), toString(value), unit, device_id, ifNull(location, ''), toString(metadata)) AS says, \
     (SELECT groupUniqArray(key) FROM (SELECT (event_id, user_id, event_type, timestamp) AS key \
     FROM document_biometric_events WHERE toDate(timestamp, 'UTC') = {day:Date} \
     GROUP BY key HAVING uniqExact(sipHash128(toString(value), unit, device_id, ifNull(location, ''), toString(metadata))) > 1)) AS shared \
     SELECT if(has(shared, (event_id, user_id, event_type, timestamp)), reinterpretAsUUID(says), event_id), user_id, \
     toString(event_type), value, \
     transform(unit, ['bpm', 'BPM', 'beats/min', 'mmHg', 'C', '°C', 'celsius', 'steps', 'count'], \
     ['/min', '/min', '/min', 'mm[Hg]', 'Cel', 'Cel', 'Cel', '{steps}', '{steps}'], unit), \
     toDateTime64(timestamp, 3, 'UTC'), device_id, location, 'estimated', toString(metadata) \
     FROM document_biometric_events WHERE toDate(timestamp, 'UTC') = {day:Date}";

/// The same of page views, which had no id: two that are alike in everything are two.
const ACTIVITY: &str = "INSERT INTO user_activity (event_id, user_id, session_id, page, action, timestamp, duration, device, \
     browser) SELECT reinterpretAsUUID(sipHash128(toString((user_id, session_id, page, action, timestamp, duration, device, \
     browser)), row_number() OVER (PARTITION BY user_id, session_id, page, action, timestamp, duration, device, browser))), \
     user_id, session_id, page, action, toDateTime64(timestamp, 3, 'UTC'), duration, device, browser \
     FROM document_user_activity WHERE toDate(timestamp, 'UTC') = {day:Date}";

/// A table of the document, and how its rows are copied; sums of hours and sessions are made anew.
const COPIES: [(&str, &str); 2] = [("biometric_events", EVENTS), ("user_activity", ACTIVITY)];

/// Rows of the document's tables that were copied by this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The table that was read; it stays.
    pub from: String,
    /// How many rows it has.
    pub rows: u64,
}

#[derive(Deserialize)]
struct Found {
    name: String,
    engine: String,
    comment: String,
    is_trigger: u8,
    has_version: u8,
}

/// Lets the document's tables step aside. To be done before the landing zone's are made.
pub(super) async fn step_aside(http: &mut Http, settings: &Settings) -> Result<(), Error> {
    let found = tables(http, settings).await?;
    let is_there = |name: &str| found.iter().any(|table| table.name == name);
    for table in &found {
        let name = table.name.as_str();
        let aside = format!("{ASIDE}{name}");
        let is_of_the_document = match name {
            // It lacks the contract's columns and is no mistake of somebody who renamed one of ours.
            "biometric_events" | "user_activity" => table.engine.ends_with("MergeTree") && table.has_version == 0,
            "hourly_metrics" => table.engine.ends_with("SummingMergeTree"),
            // Of somebody who mended the statement that makes it; here it is a view.
            "session_metrics" => table.engine.ends_with("MergeTree"),
            _ => false,
        };
        if TRIGGERS.contains(&name) && table.is_trigger == 1 {
            run(http, settings, &format!("DROP VIEW IF EXISTS {name}"), &[]).await?;
        }
        if is_of_the_document && is_there(&aside) {
            return Err(Error::Aside { server: http.endpoint().to_string(), table: name.to_owned(), aside });
        }
        if is_of_the_document {
            tracing::warn!(table = name, %aside, "the platform document's table steps aside");
            run(http, settings, &format!("RENAME TABLE {name} TO {aside}"), &[]).await?;
        }
    }
    Ok(())
}

/// Copies what stepped aside and was not copied yet. To be done after the landing zone's tables are made.
pub(super) async fn copy(http: &mut Http, settings: &Settings) -> Result<Vec<Copied>, Error> {
    #[derive(Deserialize)]
    struct Day {
        day: String,
        count: u64,
    }
    let mut copied = Vec::new();
    for (table, insert) in COPIES {
        let from = format!("{ASIDE}{table}");
        let found = tables(http, settings).await?;
        if !found.iter().any(|table| table.name == from && table.comment != COPIED) {
            continue;
        }
        let days = format!(
            "SELECT toString(toDate(timestamp, 'UTC')) AS day, count() AS count FROM {from} GROUP BY day ORDER BY day \
             FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0"
        );
        let text = run(http, settings, &days, &[]).await?;
        let days: Vec<Day> = rows(http, &text)?;
        for Day { day, .. } in &days {
            run(http, settings, insert, &[("param_day", day), ("async_insert", "0")]).await?;
        }
        run(http, settings, &format!("ALTER TABLE {from} MODIFY COMMENT '{COPIED}'"), &[]).await?;
        copied.push(Copied { from, rows: days.iter().map(|day| day.count).sum() });
    }
    Ok(copied)
}

async fn tables(http: &mut Http, settings: &Settings) -> Result<Vec<Found>, Error> {
    let sql = "SELECT name, engine, comment, \
               toUInt8(engine = 'MaterializedView' AND position(create_table_query, ' REFRESH ') = 0) AS is_trigger, \
               toUInt8((database, name) IN (SELECT database, table FROM system.columns WHERE name = 'version')) AS has_version \
               FROM system.tables WHERE database = {d:String} FORMAT JSONEachRow";
    let text = run(http, settings, sql, &[("param_d", &settings.database)]).await?;
    rows(http, &text)
}

async fn run(http: &mut Http, settings: &Settings, sql: &str, params: &[(&str, &str)]) -> Result<String, Error> {
    let mut all = vec![("database", settings.database.as_str()), ("wait_end_of_query", "1")];
    all.extend_from_slice(params);
    ask(http, settings, sql, &all).await
}
