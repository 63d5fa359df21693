//! The statements that change rows. Each may run again, and then finds nothing to do.

use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::state::State;
use super::zone::{PERSON, Table, Zone, quoted};
use super::{Error, Order, rows_of};

/// Takes the round's rows away. `mark`: the column in which the tombstones of `pairs` name their order; they go with it.
pub(super) async fn take(
    zone: &Zone<'_>,
    table: &Table,
    mark: &str,
    user: Uuid,
    state: &State,
    end: Instant,
) -> Result<(), Error> {
    let change = format!(
        "DELETE WHERE {PERSON} = {{user:UUID}} AND (ingested_at <= fromUnixTimestamp64Milli({{cut:Int64}}, 'UTC') \
         OR {mark} = {{erasure:String}})"
    );
    let params: [(&str, &str); 3] =
        [("user", &user.to_string()), ("cut", &state.cut.to_string()), ("erasure", &state.erasure.to_string())];
    let sql = format!("SELECT count() AS n FROM {} WHERE {PERSON} = {{user:UUID}} SETTINGS final = 0", table.quoted());
    match zone.number(&sql, &params[..1]).await? {
        0 => Ok(()),
        _ => zone.alter(table, &change, &params, end).await,
    }
}

/// Takes away all rows of the person, whenever they came.
pub(super) async fn drop_rows(zone: &Zone<'_>, table: &Table, user: Uuid, end: Instant) -> Result<(), Error> {
    if !table.is_merge_tree || !has_rows(zone, table, user).await? {
        return Ok(());
    }
    zone.alter(table, &format!("DELETE WHERE {}", rows_of(table)), &[("user", &user.to_string())], end).await
}

/// Writes another person into the rows, where the person is in no key: the new pseudonym, or nobody.
pub(super) async fn rename(zone: &Zone<'_>, table: &Table, order: &Order, end: Instant) -> Result<(), Error> {
    let is_key = table.column(PERSON).is_some_and(|column| column.in_key);
    if is_key || !table.is_merge_tree || !has_rows(zone, table, order.user()).await? {
        return Ok(());
    }
    let kind = table.column(PERSON).map_or("UUID", |column| column.kind.as_str());
    let change = format!("UPDATE {PERSON} = CAST({{to:String}}, {{kind:String}}) WHERE {}", rows_of(table));
    let params: [(&str, &str); 3] =
        [("user", &order.user().to_string()), ("to", &order.to().to_string()), ("kind", kind)];
    zone.alter(table, &change, &params, end).await
}

async fn has_rows(zone: &Zone<'_>, table: &Table, user: Uuid) -> Result<bool, Error> {
    let sql = format!("SELECT count() AS n FROM {} WHERE {} SETTINGS final = 0", table.quoted(), rows_of(table));
    Ok(zone.number(&sql, &[("user", &user.to_string())]).await? > 0)
}

/// Gives the round's rows to another person, as the schema asks: the old key with the next version and deleted=1, and the
/// new row, in one insert, a month at a time. So no reader counts a row twice or not at all.
///
/// Tombstones move too, or a late old version of what they hide would come to life under the new person.
pub(super) async fn pairs(
    zone: &Zone<'_>,
    table: &Table,
    user: Uuid,
    to: Uuid,
    state: &State,
    end: Instant,
) -> Result<(), Error> {
    let params: [(&str, &str); 4] = [
        ("user", &user.to_string()),
        ("to", &to.to_string()),
        ("cut", &state.cut.to_string()),
        ("erasure", &state.erasure.to_string()),
    ];
    let round = "user_id = {user:UUID} AND ingested_at <= fromUnixTimestamp64Milli({cut:Int64}, 'UTC')";
    let name = table.quoted();
    #[derive(Deserialize)]
    struct Month {
        month: u32,
    }
    let months = format!(
        "SELECT toYYYYMM(timestamp) AS month FROM {name} WHERE {round} GROUP BY month ORDER BY month SETTINGS final = 0"
    );
    let months: Vec<Month> = zone.rows(&months, &[params[0], params[2]]).await?;
    let (tombstones, rows) = (tombstones(table, round), rows(table, round));
    for Month { month } in months {
        if Instant::now() >= end {
            return Err(Error::Patience(format!("giving {} another person", table.name)));
        }
        let month = month.to_string();
        let mut params = params.to_vec();
        params.push(("month", &month));
        zone.execute(&tombstones, &params).await?;
        zone.execute(&rows, &params).await?;
    }
    Ok(())
}

/// The columns that a writer gives, without those that a move changes.
fn kept(table: &Table) -> Vec<String> {
    let changed = [PERSON, "version", "deleted"];
    let kept = table.columns.iter().filter(|column| !column.is_computed && !changed.contains(&column.name.as_str()));
    kept.map(|column| column.name.clone()).collect()
}

fn rows(table: &Table, round: &str) -> String {
    let kept = kept(table);
    let mark = if kept.iter().any(|name| name == "unit") { "unit" } else { "page" };
    let names = kept.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let values = kept.iter().map(|name| match name == mark {
        true => format!("if(side.2 = 1, {{erasure:String}}, toString({mark}))"),
        false => quoted(name),
    });
    let values = values.collect::<Vec<_>>().join(", ");
    let table = table.quoted();
    format!(
        "INSERT INTO {table} (user_id, version, deleted, {names}) SELECT side.1, version + 1, side.2, {values} \
         FROM (SELECT * FROM {table} FINAL WHERE {round} AND toYYYYMM(timestamp) = {{month:UInt32}}) \
         ARRAY JOIN [({{user:UUID}}, 1), ({{to:UUID}}, 0)] AS side \
         SETTINGS async_insert = 0, insert_deduplicate = 0, do_not_merge_across_partitions_select_final = 1"
    )
}

fn tombstones(table: &Table, round: &str) -> String {
    let names = kept(table).iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let key = match table.column("session_id") {
        Some(_) => "session_id, timestamp, event_id",
        None => "event_type, timestamp, event_id",
    };
    let table = table.quoted();
    format!(
        "INSERT INTO {table} (user_id, version, deleted, {names}) SELECT {{to:UUID}}, version + 1, 1, {names} \
         FROM {table} WHERE {round} AND deleted = 1 AND toYYYYMM(timestamp) = {{month:UInt32}} \
         AND ({key}) NOT IN (SELECT {key} FROM {table} FINAL WHERE user_id IN ({{to:UUID}}, {{user:UUID}})) \
         SETTINGS async_insert = 0, insert_deduplicate = 0, final = 0"
    )
}

/// Writes the pseudonym's place in other texts anew: with the new one, or with zeros.
pub(super) async fn mask(
    zone: &Zone<'_>,
    table: &Table,
    columns: &[String],
    order: &Order,
    end: Instant,
) -> Result<(), Error> {
    let (user, to) = (order.user(), order.to());
    let pattern = format!("(?i){user}|{}", user.simple());
    let mut params = vec![("pattern".to_owned(), pattern), ("to".to_owned(), to.to_string())];
    let (mut changes, mut conditions) = (Vec::new(), Vec::new());
    for (nth, column) in columns.iter().enumerate() {
        let name = quoted(column);
        let kind = table.column(column).map_or("String", |column| column.kind.as_str());
        params.push((format!("kind{nth}"), kind.to_owned()));
        changes.push(format!(
            "{name} = CAST(replaceRegexpAll(toString({name}), {{pattern:String}}, {{to:String}}), {{kind{nth}:String}})"
        ));
        conditions.push(format!("ifNull(match(toString({name}), {{pattern:String}}), 0)"));
    }
    let change = format!("UPDATE {} WHERE {}", changes.join(", "), conditions.join(" OR "));
    let params: Vec<(&str, &str)> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    zone.alter(table, &change, &params, end).await
}
