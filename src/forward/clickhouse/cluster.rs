//! PURE The schema for a cluster, made of the same statements as that for one server.
//!
//! Each table becomes a replicated `NAME_local` on every host and a Distributed `NAME` over the shards, so that writers
//! and readers use the names that they know. A person's rows lie on one shard, as do a hub's reports: whatever replaces
//! a row lands beside it, and FINAL on a shard is FINAL. A view of a person's rows alone is one of each shard's own, with
//! a Distributed table over it: a shard remembers its own hours up to its own watermark, which no other one knows. A view
//! that counts hubs' reports against persons' rows asks all shards.

use std::collections::BTreeSet;

use super::DEFAULT_TABLE;
use super::declared::{self, Declared, Kind};
use super::migrations;

/// How long a replicated table remembers inserts by their tokens: a gateway may be offline that long.
const WINDOW_SECONDS: u32 = 604_800;

/// The statements that make the landing zone on this cluster, in their order. The database's name is part of them.
pub(super) fn statements(cluster: &str, database: &str) -> Vec<String> {
    let statements = migrations::statements(DEFAULT_TABLE);
    let made = declared::all(&statements);
    let form = Form { cluster, database, per_shard: per_shard(&made), halved: halved(&made) };
    statements.iter().flat_map(|statement| form.of(statement)).collect()
}

/// The tables whose rows lie on the shard of their person, and the views that ask only these.
fn per_shard(made: &[Declared]) -> BTreeSet<String> {
    let mut others = BTreeSet::new();
    let mut names = BTreeSet::new();
    for declared in made {
        let is_own = match declared.kind {
            Kind::Table => !matches!(declared.first_key(), Some("gateway_id" | "name" | "erasure" | "event_id")),
            Kind::View | Kind::Refreshed => !words(&declared.select).any(|word| others.contains(word)),
        };
        if is_own { &mut names } else { &mut others }.insert(declared.name.clone());
    }
    names
}

/// What has a local half under a Distributed table: every table, and the views that a shard answers alone.
fn halved(made: &[Declared]) -> BTreeSet<String> {
    let per_shard = per_shard(made);
    let has_halves = |declared: &&Declared| match declared.kind {
        Kind::Table => true,
        Kind::View => per_shard.contains(&declared.name),
        Kind::Refreshed => false,
    };
    made.iter().filter(has_halves).map(|declared| declared.name.clone()).collect()
}

struct Form<'a> {
    cluster: &'a str,
    database: &'a str,
    per_shard: BTreeSet<String>,
    halved: BTreeSet<String>,
}

impl Form<'_> {
    fn of(&self, statement: &str) -> Vec<String> {
        let Some(declared) = Declared::read(statement) else { return self.changed(statement) };
        let on = format!("ON CLUSTER '{}'", self.cluster);
        let name = declared.name.as_str();
        let Some((create, rest)) = statement.split_once(&format!(" {name}")) else { return Vec::new() };
        match declared.kind {
            Kind::Table => {
                let rest = self.replicated(&declared, rest);
                let over = self.distributed("CREATE TABLE IF NOT EXISTS", &declared);
                vec![format!("{create} {name}_local {on}{rest}"), over]
            }
            Kind::View if self.halved.contains(name) => {
                let rest = self.localised(rest);
                // Nobody writes there, so nothing is lost when it is made anew with the columns of a view that was.
                let over = self.distributed(&create.replace("VIEW", "TABLE"), &declared);
                vec![format!("{create} {name}_local {on}{rest}"), over]
            }
            Kind::View => {
                // A subquery behind IN is asked once, and its answer sent to every shard.
                let join = if declared.select.contains(" SETTINGS ") { ", " } else { "\nSETTINGS " };
                vec![format!("{create} {name} {on}{rest}{join}distributed_product_mode='global'")]
            }
            Kind::Refreshed => {
                let rest = self.localised(rest);
                vec![format!("{create} {name} {on}{rest}")]
            }
        }
    }

    /// The engine's replicated form, with a window of inserts that outlasts a gateway's absence.
    fn replicated(&self, declared: &Declared, rest: &str) -> String {
        let call = declared.engine_call();
        let name = declared.engine_name();
        let more = call[name.len()..].trim_matches(['(', ')']);
        let comma = if more.is_empty() { "" } else { ", " };
        let engine =
            format!("ENGINE = Replicated{name}('/clickhouse/tables/{{uuid}}/{{shard}}', '{{replica}}'{comma}{more})");
        rest.replacen(&format!("ENGINE = {call}"), &engine, 1).replace(
            "non_replicated_deduplication_window=10000",
            &format!("replicated_deduplication_window=10000, replicated_deduplication_window_seconds={WINDOW_SECONDS}"),
        )
    }

    /// The table over all shards, under the name that everybody knows.
    fn distributed(&self, create: &str, declared: &Declared) -> String {
        let Form { cluster, database, .. } = self;
        let name = &declared.name;
        let key = match declared.first_key() {
            Some(key @ ("user_id" | "gateway_id" | "name" | "erasure" | "event_id")) => format!(", cityHash64({key})"),
            // Nobody writes there: each shard fills its own.
            _ => String::new(),
        };
        format!(
            "{create} {name} ON CLUSTER '{cluster}' AS {name}_local\n\
             ENGINE = Distributed('{cluster}', '{database}', '{name}_local'{key})"
        )
    }

    /// What alters or drops something, for both of its halves where it has two.
    fn changed(&self, statement: &str) -> Vec<String> {
        let heads = ["ALTER TABLE ", "DROP VIEW IF EXISTS ", "DROP TABLE IF EXISTS "];
        let Some((head, rest)) = heads.iter().find_map(|head| Some((*head, statement.strip_prefix(head)?))) else {
            return vec![statement.to_owned()];
        };
        let (name, rest) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        let halves = if self.halved.contains(name) {
            vec![format!("{name}_local"), name.to_owned()]
        } else {
            vec![name.to_owned()]
        };
        halves.iter().map(|name| format!("{head}{name} ON CLUSTER '{}'{rest}", self.cluster)).collect()
    }

    /// A select that asks the shard's own tables.
    fn localised(&self, select: &str) -> String {
        let mut text = String::with_capacity(select.len() + 64);
        let mut rest = select;
        while let Some(word) = words(rest).find(|word| self.per_shard.contains(*word)) {
            // Where a word lies in the text that it was taken from.
            let end = word.as_ptr() as usize - rest.as_ptr() as usize + word.len();
            text.push_str(&rest[..end]);
            text.push_str("_local");
            rest = &rest[end..];
        }
        text.push_str(rest);
        text
    }
}

/// The words of a select outside its literals.
fn words(select: &str) -> impl Iterator<Item = &str> {
    let code = select.split('\'').step_by(2);
    code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_')).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Vec<String> {
        let named = |statement: &String| {
            Declared::read(statement).is_some_and(|made| made.name.trim_end_matches("_local") == name)
        };
        statements("ward", "biometrics").into_iter().filter(named).collect()
    }

    #[test]
    fn a_table_is_replicated_and_distributed_by_its_person_or_hub() {
        let events = of("biometric_events");
        assert_eq!(events.len(), 2);
        assert!(events[0].starts_with("CREATE TABLE IF NOT EXISTS biometric_events_local ON CLUSTER 'ward' (\n"));
        let engine =
            "ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}', version, deleted)";
        assert!(events[0].contains(engine), "{}", events[0]);
        let window = " replicated_deduplication_window=10000, replicated_deduplication_window_seconds=604800";
        assert!(events[0].contains(window) && !events[0].contains("non_replicated"), "{}", events[0]);
        let over = "ENGINE = Distributed('ward', 'biometrics', 'biometric_events_local', cityHash64(user_id))";
        assert!(events[1].ends_with(over), "{}", events[1]);
        assert!(of("device_assignments")[1].ends_with("cityHash64(gateway_id))"));
        assert!(of("hourly_watermark")[1].ends_with("'hourly_watermark_local')"));
        assert!(
            of("gateway_status")[0]
                .contains("ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')\n")
        );
    }

    #[test]
    fn a_shard_remembers_its_own_hours_and_a_view_of_hubs_asks_all() {
        let hours = of("hourly_metrics");
        assert_eq!(hours.len(), 2);
        assert!(hours[0].contains("FROM hourly_watermark_local") && hours[0].contains("FROM hourly_stale_local"));
        for statement in of("hourly_metrics_mv").iter().chain(&of("hourly_sweep_mv")) {
            assert!(statement.contains("APPEND TO hourly_rollup_local AS"), "{statement}");
            assert!(!statement.contains("FROM biometric_events\n") && !statement.contains("FROM biometric_events "));
        }
        for view in ["reconciliation_gaps", "hub_hours", "hub_complete", "device_hours", "gateway_now"] {
            let made = of(view);
            assert_eq!(made.len(), 1, "{view}");
            assert!(
                !made[0].contains("_local") && made[0].ends_with("distributed_product_mode='global'"),
                "{}",
                made[0]
            );
        }
    }

    #[test]
    fn a_name_in_a_literal_stays() {
        let form = Form { cluster: "c", database: "d", per_shard: ["t".to_owned()].into(), halved: BTreeSet::new() };
        assert_eq!(
            form.localised("SELECT 't', a.t2 FROM t WHERE x IN (SELECT x FROM t)"),
            "SELECT 't', a.t2 FROM t_local WHERE x IN (SELECT x FROM t_local)"
        );
    }
}
