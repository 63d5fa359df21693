//! The landing zone as this erasure finds it: its tables, their columns, and how they are asked and changed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::found::Found;
use super::{Error, Kind, Options, rows_of};
use crate::warehouse::Warehouse;

/// The column that says whose a row is.
pub(super) const PERSON: &str = "user_id";

/// What the schema says of a table with persons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// The person is part of the key of a ReplacingMergeTree; `mark` is a text that a tombstone has no use for.
    Keyed { mark: &'static str },
    /// Made of the events.
    Remembered,
    /// Who wore what: the row stays, since another statement would else speak of its time.
    Statements,
}

/// The tables of the schema; what else is there is treated by its columns.
pub(super) fn known(table: &str) -> Option<Known> {
    match table {
        "biometric_events" => Some(Known::Keyed { mark: "unit" }),
        "user_activity" => Some(Known::Keyed { mark: "page" }),
        "hourly_rollup" => Some(Known::Remembered),
        "device_assignments" => Some(Known::Statements),
        _ => None,
    }
}

/// The order's own table names the person while it is under way.
pub(super) const OWN: &str = "erasures";

/// A column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: String,
    /// Part of the sort or partition key: it cannot be changed.
    pub(super) in_key: bool,
    /// Made by the server.
    pub(super) is_computed: bool,
}

/// A table that holds rows.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// By which it is asked.
    pub(super) name: String,
    /// By which it is changed: on a cluster the shard's own.
    pub(super) local: String,
    pub(super) is_merge_tree: bool,
    pub(super) columns: Vec<Column>,
}

impl Table {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub(super) fn quoted(&self) -> String {
        quoted(&self.name)
    }

    /// Whether a text in it may be written anew.
    pub(super) fn can_be_masked(&self, column: &str) -> bool {
        let is_text = |kind: &str| kind.contains("String") || kind.starts_with("JSON");
        self.is_merge_tree
            && self.name != OWN
            && self.column(column).is_some_and(|found| {
                !found.in_key && !found.is_computed && is_text(&found.kind) && !is_compound(&found.kind)
            })
    }
}

fn is_compound(kind: &str) -> bool {
    ["Array(", "Map(", "Tuple(", "Nested(", "FixedString("].iter().any(|head| kind.contains(head))
}

/// The database that is worked on.
pub(super) struct Zone<'a> {
    pub(super) warehouse: &'a Warehouse,
    pub(super) settle: Duration,
    cluster: Option<String>,
    tables: Vec<Table>,
}

#[derive(Deserialize)]
struct Row {
    table: String,
    engine: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    in_key: u8,
    default_kind: String,
}

const SURVEY: &str = "SELECT t.name AS table, t.engine AS engine, c.name AS name, c.type AS type, \
     toUInt8(c.is_in_sorting_key OR c.is_in_primary_key OR c.is_in_partition_key OR c.is_in_sampling_key) AS in_key, \
     c.default_kind AS default_kind \
     FROM system.tables AS t INNER JOIN system.columns AS c ON c.database = t.database AND c.table = t.name \
     WHERE t.database = currentDatabase() AND NOT t.is_temporary \
     AND (t.engine LIKE '%MergeTree' OR t.engine LIKE '%Log' OR t.engine IN ('Memory', 'Distributed')) \
     AND c.default_kind NOT IN ('ALIAS', 'EPHEMERAL') ORDER BY t.name, c.position";

impl<'a> Zone<'a> {
    /// Looks at what there is.
    pub(super) async fn survey(warehouse: &'a Warehouse, options: &Options) -> Result<Zone<'a>, Error> {
        let doing = |why| Error::Warehouse { doing: "looking at the tables".into(), why };
        let rows: Vec<Row> = warehouse.rows(SURVEY, &[]).await.map_err(doing)?;
        let mut tables: Vec<(Table, String)> = Vec::new();
        for row in rows {
            if tables.last().is_none_or(|(table, _)| table.name != row.table) {
                let is_merge_tree = row.engine.ends_with("MergeTree");
                let table = Table { name: row.table.clone(), local: row.table, is_merge_tree, columns: Vec::new() };
                tables.push((table, row.engine));
            }
            if let Some((table, _)) = tables.last_mut() {
                let (in_key, is_computed) = (row.in_key == 1, row.default_kind == "MATERIALIZED");
                table.columns.push(Column { name: row.name, kind: row.kind, in_key, is_computed });
            }
        }
        Ok(Zone { warehouse, settle: options.settle, cluster: options.cluster.clone(), tables: of_shards(tables) })
    }

    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }

    pub(super) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Those that say whose a row is.
    pub(super) fn tables_of_persons(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| table.name != OWN && table.column(PERSON).is_some())
    }

    /// Whether a round can take the person out of the table.
    pub(super) fn can_be_cleared(&self, name: &str, kind: Kind) -> bool {
        let Some(table) = self.table(name) else { return false };
        let is_key = table.column(PERSON).is_some_and(|column| column.in_key);
        table.is_merge_tree && (kind == Kind::Erase || known(name).is_some() || !is_key)
    }

    /// Rows of a reading statement.
    pub(super) async fn rows<T: serde::de::DeserializeOwned>(
        &self,
        sql: &str,
        params: &[(&str, &str)],
    ) -> Result<Vec<T>, Error> {
        let doing = |why| Error::Warehouse { doing: first_words(sql), why };
        self.warehouse.rows(sql, params).await.map_err(doing)
    }

    /// The column `n` of the only row.
    pub(super) async fn number(&self, sql: &str, params: &[(&str, &str)]) -> Result<i64, Error> {
        #[derive(Deserialize)]
        struct Number {
            n: i64,
        }
        let rows: Vec<Number> = self.rows(sql, params).await?;
        Ok(rows.first().map_or(0, |row| row.n))
    }

    pub(super) async fn execute(&self, sql: &str, params: &[(&str, &str)]) -> Result<(), Error> {
        let doing = |why| Error::Warehouse { doing: first_words(sql), why };
        self.warehouse.execute(sql, params).await.map_err(doing)
    }

    /// The server's time, in ms.
    pub(super) async fn now(&self) -> Result<i64, Error> {
        self.number("SELECT toUnixTimestamp64Milli(now64(3)) AS n", &[]).await
    }

    /// How many rows each table has of the person, deleted and outdated ones too.
    pub(super) async fn counted(&self, user: Uuid) -> Result<BTreeMap<String, u64>, Error> {
        let mut counts = BTreeMap::new();
        for table in self.tables_of_persons() {
            let sql =
                format!("SELECT count() AS n FROM {} WHERE {} SETTINGS final = 0", table.quoted(), rows_of(table));
            let n = self.number(&sql, &[("user", &user.to_string())]).await?;
            counts.insert(table.name.clone(), n.max(0).unsigned_abs());
        }
        Ok(counts)
    }

    /// When the newest row of the person was ingested, in ms.
    pub(super) async fn newest(&self, user: Uuid) -> Result<i64, Error> {
        let mut newest = 0;
        for table in self.tables_of_persons().filter(|table| table.column("ingested_at").is_some()) {
            let sql = format!(
                "SELECT toUnixTimestamp64Milli(max(ingested_at)) AS n FROM {} WHERE {} SETTINGS final = 0",
                table.quoted(),
                rows_of(table)
            );
            newest = newest.max(self.number(&sql, &[("user", &user.to_string())]).await?);
        }
        Ok(newest)
    }

    /// What there is of the person before anything is done.
    pub(super) async fn found(&self, user: Uuid) -> Result<Found, Error> {
        let devices = "SELECT gateway_id, device_id, sum(n) AS events, max(worn) AS is_worn FROM ( \
             SELECT toString(gateway_id) AS gateway_id, toString(device_id) AS device_id, count() AS n, 0 AS worn \
             FROM biometric_events WHERE user_id = {user:UUID} GROUP BY gateway_id, device_id \
             UNION ALL \
             SELECT toString(gateway_id), toString(device_id), 0, toUInt8(argMax(user_id, version) = {user:UUID} AND argMax(tuple(valid_until), version).1 IS NULL) \
             FROM device_assignments FINAL WHERE says != 'place' GROUP BY gateway_id, device_id \
             HAVING countIf(user_id = {user:UUID}) > 0 \
             ) GROUP BY gateway_id, device_id ORDER BY gateway_id, device_id SETTINGS final = 0";
        let devices = self.rows(devices, &[("user", &user.to_string())]).await?;
        Ok(Found { tables: self.counted(user).await?, later: BTreeMap::new(), devices })
    }

    /// ` ON CLUSTER 'c'`, where there is one.
    pub(super) fn on_cluster(&self) -> String {
        self.cluster.as_ref().map(|name| format!(" ON CLUSTER {}", literal(name))).unwrap_or_default()
    }

    /// A system table, of all servers.
    pub(super) fn system(&self, name: &str) -> String {
        match &self.cluster {
            Some(cluster) => format!("clusterAllReplicas({}, system.{name})", literal(cluster)),
            None => format!("system.{name}"),
        }
    }

    /// Changes rows and waits until it is done: `change` is what stands behind ALTER TABLE x.
    pub(super) async fn alter(
        &self,
        table: &Table,
        change: &str,
        params: &[(&str, &str)],
        end: Instant,
    ) -> Result<(), Error> {
        let sql = format!("ALTER TABLE {}{} {change}", quoted(&table.local), self.on_cluster());
        self.execute(&sql, params).await?;
        let open = format!(
            "SELECT count() AS n, any(latest_fail_reason) AS why FROM {} \
             WHERE database = currentDatabase() AND table = {{table:String}} AND NOT is_done",
            self.system("mutations")
        );
        self.until(&format!("changing {}", table.name), &open, &[("table", &table.local)], end).await
    }

    /// Waits until no view is being refreshed.
    pub(super) async fn wait_for_refreshes(&self, end: Instant) -> Result<(), Error> {
        let running = format!(
            "SELECT count() AS n, '' AS why FROM {} WHERE database = currentDatabase() AND status = 'Running'",
            self.system("view_refreshes")
        );
        self.until("a refresh of the remembered hours", &running, &[], end).await
    }

    async fn until(&self, what: &str, sql: &str, params: &[(&str, &str)], end: Instant) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Open {
            n: u64,
            why: String,
        }
        let mut pause = Duration::from_millis(20);
        loop {
            let open: Vec<Open> = self.rows(sql, params).await?;
            match open.first() {
                Some(open) if open.n > 0 && Instant::now() >= end => {
                    let why = if open.why.is_empty() { String::new() } else { format!(" ({})", open.why) };
                    return Err(Error::Patience(format!("{what}{why}")));
                }
                Some(open) if open.n > 0 => sleep(pause).await,
                _ => return Ok(()),
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// Of a table over shards and the shard's own half, one: asked by the first name, changed by the second.
fn of_shards(found: Vec<(Table, String)>) -> Vec<Table> {
    let distributed: Vec<String> =
        found.iter().filter(|(_, engine)| engine == "Distributed").map(|(table, _)| table.name.clone()).collect();
    found
        .into_iter()
        .filter(|(_, engine)| engine != "Distributed")
        .map(|(mut table, _)| {
            if let Some(name) = table.name.strip_suffix("_local").filter(|name| distributed.iter().any(|d| d == name)) {
                table.name = name.to_owned();
            }
            table
        })
        .collect()
}

/// A name as a statement writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Enough of a statement to know which one it was. Values are not in it.
fn first_words(sql: &str) -> String {
    sql.split_whitespace().take(8).collect::<Vec<_>>().join(" ")
}
