//! Taking a person out of the landing zone, or giving a person another pseudonym.
//!
//! An order runs in rounds. A round has a cut: what was ingested up to then, and is therefore visible by now, is counted
//! into `erased_hours` and then taken away; so no row goes uncounted, and the completeness views stay silent. What came
//! meanwhile is the next round's. Where it stands is kept in `erasures` before each step, and each step may be repeated:
//! a run that was cut off is finished by the next one. At the end every column of every table is searched for the pseudonym.

mod balance;
mod elsewhere;
mod found;
mod moves;
mod order;
mod report;
mod scan;
mod state;
mod zone;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::warehouse::{self, Warehouse};

pub use elsewhere::Place;
pub use order::{Kind, Order};
pub use report::{Mention, Report, TableReport};
pub use state::late;

use state::State;
use zone::{Table, Zone};

/// How long an insert may take from reading its rows to showing them: the landing zone's promise (0001_landing_zone.sql).
pub const SETTLE: Duration = Duration::from_secs(600);

/// How an order is carried out.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long an insert may take until its rows are seen; `SETTLE` unless inserts are known to be faster.
    pub settle: Duration,
    /// For how long all of it may last. What is not done then is done by the next run.
    pub patience: Duration,
    /// The cluster over which the tables lie.
    pub cluster: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options { settle: SETTLE, patience: Duration::from_secs(3600), cluster: None }
    }
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The warehouse said no, or nothing.
    #[error("{doing}: {why}")]
    Warehouse {
        /// What was being done.
        doing: String,
        /// Its words.
        why: warehouse::Error,
    },
    /// The order cannot be carried out as it stands.
    #[error("{0}")]
    Refused(String),
    /// It takes longer than it may.
    #[error("{0} is not done after the time that it may take; run the command again: it goes on there")]
    Patience(String),
}

/// What is there of the person, and where else there may be more. Nothing is changed.
pub async fn plan(warehouse: &Warehouse, order: &Order, options: &Options) -> Result<Report, Error> {
    let zone = Zone::survey(warehouse, options).await?;
    order.check(&zone).await?;
    let found = zone.found(order.user()).await?;
    let mentions = scan::mentions(&zone, order.user()).await?;
    let mut report = Report::new(order.kind(), Uuid::nil(), found.clone());
    report.mentions = scan::not_counted(&found.tables, mentions);
    report.elsewhere = elsewhere::places(&zone, order.user(), &found).await?;
    report.settle(&found.tables);
    Ok(report)
}

/// Carries the order out, or goes on with one that was cut off.
pub async fn run(warehouse: &Warehouse, order: &Order, options: &Options) -> Result<Report, Error> {
    let zone = Zone::survey(warehouse, options).await?;
    order.check(&zone).await?;
    let end = Instant::now() + options.patience;
    let mut state = State::resume_or_begin(&zone, order).await?;
    let left = loop {
        round(&zone, order, &mut state, end).await?;
        let left = zone.counted(order.user()).await?;
        // Where only rows are left that no round can change, another one would not end either.
        if left.iter().all(|(table, rows)| *rows == 0 || !zone.can_be_cleared(table, order.kind())) {
            break left;
        }
        if !wait_for(&zone, order, options, end).await? {
            break left;
        }
        state.next_round(&zone, &left).await?;
    };
    mask(&zone, order, end).await?;
    let is_done = left.values().all(|rows| *rows == 0);
    if is_done {
        state.finish(&zone, order, end).await?;
    }
    let mut report = Report::new(order.kind(), state.erasure, state.found.clone());
    report.rounds = state.round;
    report.elsewhere = elsewhere::places(&zone, order.user(), &state.found).await?;
    report.mentions = scan::not_counted(&left, scan::mentions(&zone, order.user()).await?);
    report.settle(&left);
    report.is_done = is_done && report.mentions.is_empty();
    Ok(report)
}

/// Counts and takes away, or moves, what was ingested up to the round's cut, and everything that was made of it.
async fn round(zone: &Zone<'_>, order: &Order, state: &mut State, end: Instant) -> Result<(), Error> {
    state.cut(zone).await?;
    if let (Kind::Erase, false) = (order.kind(), state.counted) {
        balance::count(zone, order, state, end).await?;
        state.mark_counted(zone).await?;
    }
    for table in zone.tables_of_persons() {
        match (order, zone::known(&table.name)) {
            (_, Some(zone::Known::Remembered)) => {}
            (Order::Repseudonymise { to, .. }, Some(zone::Known::Keyed { .. })) => {
                moves::pairs(zone, table, order.user(), *to, state, end).await?;
            }
            _ => {}
        }
    }
    // What is remembered goes first: until the events are gone too, the numbers come from them.
    forget(zone, order, end).await?;
    for table in zone.tables_of_persons() {
        match zone::known(&table.name) {
            Some(zone::Known::Remembered) => {}
            Some(zone::Known::Keyed { mark }) => moves::take(zone, table, mark, order.user(), state, end).await?,
            Some(zone::Known::Statements) => moves::rename(zone, table, order, end).await?,
            None if order.kind() == Kind::Repseudonymise => moves::rename(zone, table, order, end).await?,
            None => moves::drop_rows(zone, table, order.user(), end).await?,
        }
    }
    // A refresh that had read the events before may have written since.
    zone.wait_for_refreshes(end).await?;
    forget(zone, order, end).await
}

/// Takes the person's remembered hours away; they are made of the events.
async fn forget(zone: &Zone<'_>, order: &Order, end: Instant) -> Result<(), Error> {
    for table in zone.tables_of_persons() {
        if zone::known(&table.name) == Some(zone::Known::Remembered) {
            moves::drop_rows(zone, table, order.user(), end).await?;
        }
    }
    Ok(())
}

/// Waits until all that is left was ingested long enough ago for a round of its own. `false`: not within the patience.
async fn wait_for(zone: &Zone<'_>, order: &Order, options: &Options, end: Instant) -> Result<bool, Error> {
    let newest = zone.newest(order.user()).await?;
    let age = zone.now().await?.saturating_sub(newest);
    let rest = options.settle.saturating_sub(Duration::from_millis(age.max(0).unsigned_abs()));
    if Instant::now() + rest > end {
        return Ok(false);
    }
    if rest > Duration::from_secs(5) {
        tracing::info!(
            seconds = rest.as_secs(),
            "rows came just now; waiting until no more can be under way with them"
        );
    }
    sleep(rest + Duration::from_millis(1)).await;
    Ok(true)
}

/// Writes other rows' texts that name the person anew, where the engine lets them be changed.
async fn mask(zone: &Zone<'_>, order: &Order, end: Instant) -> Result<(), Error> {
    let mut by_table: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for mention in scan::mentions(zone, order.user()).await? {
        if zone.table(&mention.table).is_some_and(|table| table.can_be_masked(&mention.column)) {
            by_table.entry(mention.table).or_default().push(mention.column);
        }
    }
    for (name, columns) in by_table {
        if let Some(table) = zone.table(&name) {
            moves::mask(zone, table, &columns, order, end).await?;
        }
    }
    Ok(())
}

/// The table's rows of a person: a condition on the parameter `user`.
fn rows_of(table: &Table) -> String {
    match table.column(zone::PERSON).map(|column| column.kind.as_str()) {
        Some(kind) if kind.contains("UUID") => format!("{} = {{user:UUID}}", zone::PERSON),
        _ => format!("replaceAll(lower(toString({})), '-', '') = replaceAll({{user:String}}, '-', '')", zone::PERSON),
    }
}
