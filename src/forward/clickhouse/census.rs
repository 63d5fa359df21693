//! What a simulated fleet left in the table, and in how many pieces the table lies.

use serde::{Deserialize, Serialize};

use super::http::Http;
use super::schema::{self, Error};
use super::{Settings, quoted};

/// Rows of some gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rows {
    /// As they lie there, with repeats that no merge has removed.
    pub rows: u64,
    /// Distinct event ids.
    pub events: u64,
    /// Distinct gateways.
    pub gateways: u64,
}

/// The table's pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Parts {
    /// Active ones.
    pub parts: u64,
    /// Partitions that they lie in.
    pub partitions: u64,
    /// The most of one partition: the server slows inserts down by it, and refuses them from 3,000 on by default.
    pub most_of_a_partition: u64,
    /// Their bytes on disk.
    pub bytes: u64,
}

const AS_NUMBERS: (&str, &str) = ("output_format_json_quote_64bit_integers", "0");

/// Counts the rows of the gateways whose names begin so.
pub async fn rows_of(settings: &Settings, prefix: &str) -> Result<Rows, Error> {
    let table = format!("{}.{}", quoted(&settings.database), quoted(&settings.table));
    let sql = format!(
        "SELECT count() AS rows, uniqExact(event_id) AS events, uniqExact(gateway_id) AS gateways FROM {table} \
         WHERE startsWith(gateway_id, {{prefix:String}}) FORMAT JSONEachRow"
    );
    one(settings, &sql, &[("param_prefix", prefix), AS_NUMBERS]).await
}

/// Whether any row is of a gateway whose name does not begin so.
pub async fn has_others(settings: &Settings, prefix: &str) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Found {
        others: u64,
    }
    let table = format!("{}.{}", quoted(&settings.database), quoted(&settings.table));
    let sql = format!(
        "SELECT count() AS others FROM (SELECT 1 FROM {table} WHERE NOT startsWith(gateway_id, {{prefix:String}}) LIMIT 1) \
         FORMAT JSONEachRow"
    );
    let found: Found = one(settings, &sql, &[("param_prefix", prefix), AS_NUMBERS]).await?;
    Ok(found.others > 0)
}

/// Counts the parts of the events' table.
pub async fn parts(settings: &Settings) -> Result<Parts, Error> {
    let sql = "SELECT sum(n) AS parts, count() AS partitions, max(n) AS most_of_a_partition, sum(b) AS bytes FROM \
               (SELECT partition_id, count() AS n, sum(bytes_on_disk) AS b FROM system.parts \
                WHERE active AND database = {d:String} AND table = {t:String} GROUP BY partition_id) FORMAT JSONEachRow";
    let names = [("param_d", settings.database.as_str()), ("param_t", settings.table.as_str()), AS_NUMBERS];
    one(settings, sql, &names).await
}

async fn one<T: for<'a> Deserialize<'a>>(settings: &Settings, sql: &str, params: &[(&str, &str)]) -> Result<T, Error> {
    let mut http = Http::new(settings.clone()).map_err(Error::Unreachable)?;
    let params = [params, &[("wait_end_of_query", "1")]].concat();
    let text = schema::ask(&mut http, settings, sql, &params).await?;
    let mut rows: Vec<T> = schema::rows(&http, &text)?;
    rows.pop().ok_or_else(|| Error::Unreachable(format!("{} answers with no row", http.endpoint())))
}
