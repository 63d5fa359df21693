//! The search for a pseudonym in every column of every table: what proves that nothing is left.

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use super::Error;
use super::report::Mention;
use super::zone::{Column, OWN, PERSON, Table, Zone, quoted};

/// Types that cannot hold a pseudonym.
const NUMBERS: [&str; 10] =
    ["UInt", "Int", "Float", "BFloat", "Decimal", "Bool", "Date", "Enum", "IPv", "AggregateFunction"];

/// Every table and column in which the pseudonym stands, as a UUID or in a text, with how many rows.
pub(super) async fn mentions(zone: &Zone<'_>, user: Uuid) -> Result<Vec<Mention>, Error> {
    let mut found = Vec::new();
    for table in zone.tables() {
        let columns: Vec<&Column> = table.columns.iter().filter(|column| may_hold(&column.kind)).collect();
        if columns.is_empty() {
            continue;
        }
        for (column, rows) in of_table(zone, table, &columns, user).await? {
            let how = match table.can_be_masked(&column) {
                true => "its text can be written anew",
                false => "part of a key, or of a kind that cannot be changed: take these rows out by hand",
            };
            found.push(Mention { table: table.name.clone(), column, rows, how: how.to_owned() });
        }
    }
    Ok(found)
}

/// Without those of the person's own rows, which the report counts table by table; `counts`: how many it has of each.
pub(super) fn not_counted(counts: &BTreeMap<String, u64>, mentions: Vec<Mention>) -> Vec<Mention> {
    let is_counted = |mention: &Mention| match mention.table == OWN {
        true => [PERSON, "to_user"].contains(&mention.column.as_str()),
        false => mention.column == PERSON && counts.get(&mention.table).is_some_and(|rows| mention.rows <= *rows),
    };
    mentions.into_iter().filter(|mention| !is_counted(mention)).collect()
}

/// A part of the table at a time: one statement over all of a large table would outlast its deadline.
async fn of_table(
    zone: &Zone<'_>,
    table: &Table,
    columns: &[&Column],
    user: Uuid,
) -> Result<Vec<(String, u64)>, Error> {
    #[derive(Deserialize)]
    struct Part {
        id: String,
    }
    let mut parts = vec![None];
    if table.is_merge_tree {
        let sql = format!("SELECT DISTINCT _partition_id AS id FROM {}", table.quoted());
        let found: Vec<Part> = zone.rows(&sql, &[]).await?;
        parts = found.into_iter().map(|part| Some(part.id)).collect();
    }
    let counts = columns.iter().enumerate().map(|(nth, column)| format!("countIf({}) AS c{nth}", holds(column)));
    let counts = counts.collect::<Vec<_>>().join(", ");
    let mut sums = vec![0_u64; columns.len()];
    let (user, simple) = (user.to_string(), user.simple().to_string());
    for part in parts {
        let only = if part.is_some() { "WHERE _partition_id = {part:String}" } else { "" };
        let sql = format!("SELECT {counts} FROM {} {only} SETTINGS final = 0", table.quoted());
        let part = part.unwrap_or_default();
        let params = [("user", user.as_str()), ("simple", simple.as_str()), ("part", part.as_str())];
        let rows: Vec<BTreeMap<String, u64>> = zone.rows(&sql, &params).await?;
        for (nth, sum) in sums.iter_mut().enumerate() {
            *sum += rows.first().and_then(|row| row.get(&format!("c{nth}")).copied()).unwrap_or(0);
        }
    }
    Ok(columns.iter().map(|column| column.name.clone()).zip(sums).filter(|(_, rows)| *rows > 0).collect())
}

fn may_hold(kind: &str) -> bool {
    let inner =
        ["LowCardinality(", "Nullable("].iter().fold(kind, |kind, head| kind.strip_prefix(head).unwrap_or(kind));
    !NUMBERS.iter().any(|number| inner.starts_with(number))
}

fn holds(column: &Column) -> String {
    let name = quoted(&column.name);
    match column.kind.as_str() {
        "UUID" => format!("{name} = {{user:UUID}}"),
        _ => format!(
            "ifNull(positionCaseInsensitive(toString({name}), {{user:String}}) > 0 \
             OR positionCaseInsensitive(toString({name}), {{simple:String}}) > 0, 0)"
        ),
    }
}
