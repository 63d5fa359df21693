//! Where an order stands: its row in `erasures`, written before each step.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::found::Found;
use super::order::hash;
use super::zone::{OWN, PERSON, Zone};
use super::{Error, Kind, Options, Order};
use crate::warehouse::Warehouse;

/// An order under way.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) erasure: Uuid,
    step: u32,
    order: Order,
    pub(super) round: u16,
    /// What was ingested up to then is the round's, in ms; 0: not decided.
    pub(super) cut: i64,
    pub(super) counted: bool,
    pub(super) found: Found,
    begun_at: i64,
}

#[derive(Deserialize)]
struct Row {
    erasure: Uuid,
    step: u32,
    kind: Kind,
    to_user: Uuid,
    round: u16,
    cut: i64,
    counted: u8,
    found: String,
    begun_at: i64,
}

impl State {
    /// The order as it was left, or a new one.
    pub(super) async fn resume_or_begin(zone: &Zone<'_>, order: &Order) -> Result<State, Error> {
        let sql = "SELECT erasure, step, kind, to_user, round, toUnixTimestamp64Milli(cut) AS cut, counted, found, \
             toUnixTimestamp64Milli(begun_at) AS begun_at FROM erasures FINAL \
             WHERE user_id = {user:UUID} AND done_at IS NULL ORDER BY begun_at LIMIT 1";
        let open: Vec<Row> = zone.rows(sql, &[("user", &order.user().to_string())]).await?;
        let Some(row) = open.into_iter().next() else { return State::begin(zone, order).await };
        if row.kind != order.kind() || row.to_user != order.to() {
            let under_way = match row.kind {
                Kind::Erase => format!("erase --user {}", order.user()),
                Kind::Repseudonymise => format!("repseudonymise --user {} --to {}", order.user(), row.to_user),
            };
            return Err(Error::Refused(format!("`{under_way}` was begun and not finished: run it again first")));
        }
        tracing::info!(erasure = %row.erasure, round = row.round, "going on with what was begun");
        Ok(State {
            erasure: row.erasure,
            step: row.step,
            order: *order,
            round: row.round,
            cut: row.cut,
            counted: row.counted == 1,
            found: serde_json::from_str(&row.found).unwrap_or_default(),
            begun_at: row.begun_at,
        })
    }

    async fn begin(zone: &Zone<'_>, order: &Order) -> Result<State, Error> {
        let mut state = State {
            erasure: Uuid::new_v4(),
            step: 0,
            order: *order,
            round: 1,
            cut: 0,
            counted: false,
            found: zone.found(order.user()).await?,
            begun_at: zone.now().await?,
        };
        state.save(zone, None).await?;
        Ok(state)
    }

    /// Decides what is the round's, once.
    pub(super) async fn cut(&mut self, zone: &Zone<'_>) -> Result<(), Error> {
        if self.cut == 0 {
            self.cut = zone.now().await? - i64::try_from(zone.settle.as_millis()).unwrap_or(i64::MAX);
            self.save(zone, None).await?;
        }
        Ok(())
    }

    /// From now on the round's rows may go.
    pub(super) async fn mark_counted(&mut self, zone: &Zone<'_>) -> Result<(), Error> {
        self.counted = true;
        self.save(zone, None).await
    }

    /// `rows` were left by the last round, because they came too late for it.
    pub(super) async fn next_round(&mut self, zone: &Zone<'_>, rows: &BTreeMap<String, u64>) -> Result<(), Error> {
        (self.round, self.cut, self.counted) = (self.round.saturating_add(1), 0, false);
        self.found.later =
            rows.iter().filter(|(_, rows)| **rows > 0).map(|(name, rows)| (name.clone(), *rows)).collect();
        self.save(zone, None).await
    }

    /// Writes that it is done, and removes each word that names the person.
    pub(super) async fn finish(&mut self, zone: &Zone<'_>, order: &Order, end: Instant) -> Result<(), Error> {
        let now = zone.now().await?;
        self.save(zone, Some(now)).await?;
        if let Some(own) = zone.table(OWN) {
            zone.alter(
                own,
                &format!("DELETE WHERE {PERSON} = {{user:UUID}}"),
                &[("user", &order.user().to_string())],
                end,
            )
            .await?;
        }
        Ok(())
    }

    async fn save(&mut self, zone: &Zone<'_>, done_at: Option<i64>) -> Result<(), Error> {
        self.step += 1;
        let nobody = Uuid::nil();
        let (user, to) = if done_at.is_some() { (nobody, nobody) } else { (self.order.user(), self.order.to()) };
        let found = serde_json::to_string(&self.found).unwrap_or_default();
        let done = done_at.map_or("NULL", |_| "fromUnixTimestamp64Milli({done:Int64}, 'UTC')");
        let sql = format!(
            "INSERT INTO erasures (erasure, step, kind, person, user_id, to_user, round, cut, counted, found, begun_at, done_at) \
             SELECT {{erasure:UUID}}, {{step:UInt32}}, {{kind:String}}, {{person:String}}, {{user:UUID}}, {{to:UUID}}, \
             {{round:UInt16}}, fromUnixTimestamp64Milli({{cut:Int64}}, 'UTC'), {{counted:UInt8}}, {{found:String}}, \
             fromUnixTimestamp64Milli({{begun:Int64}}, 'UTC'), {done} SETTINGS async_insert = 0"
        );
        zone.execute(
            &sql,
            &[
                ("erasure", &self.erasure.to_string()),
                ("step", &self.step.to_string()),
                ("kind", self.order.kind().name()),
                ("person", &hash(self.order.user())),
                ("user", &user.to_string()),
                ("to", &to.to_string()),
                ("round", &self.round.to_string()),
                ("cut", &self.cut.to_string()),
                ("counted", &u8::from(self.counted).to_string()),
                ("found", &found),
                ("begun", &self.begun_at.to_string()),
                ("done", &done_at.unwrap_or_default().to_string()),
            ],
        )
        .await
    }
}

/// A person whose erasure is done, or whose pseudonym was given up, and of whom rows came since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// What was done.
    pub kind: Kind,
    /// The pseudonym, as the late rows have it.
    pub user: Uuid,
    /// When it was done.
    pub done_at: Timestamp,
}

/// Whose rows came after they were erased.
pub async fn late(warehouse: &Warehouse, options: &Options) -> Result<Vec<Late>, Error> {
    #[derive(Deserialize)]
    struct Row {
        user: Uuid,
        kind: Kind,
        done_at: i64,
    }
    let zone = Zone::survey(warehouse, options).await?;
    let users: Vec<String> = zone
        .tables_of_persons()
        .map(|table| format!("SELECT toString({PERSON}) AS user FROM {} GROUP BY user", table.quoted()))
        .collect();
    if zone.table(OWN).is_none() || users.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT u.user AS user, e.kind AS kind, toUnixTimestamp64Milli(e.done_at) AS done_at \
         FROM (SELECT DISTINCT lower(user) AS user FROM ({})) AS u \
         INNER JOIN (SELECT person, kind, assumeNotNull(done_at) AS done_at FROM erasures FINAL \
         WHERE isNotNull(erasures.done_at) ORDER BY done_at DESC LIMIT 1 BY person) AS e \
         ON e.person = lower(hex(SHA256(u.user))) ORDER BY done_at, user SETTINGS final = 0",
        users.join(" UNION ALL ")
    );
    let rows: Vec<Row> = zone.rows(&sql, &[]).await?;
    Ok(rows
        .into_iter()
        .map(|row| Late {
            kind: row.kind,
            user: row.user,
            done_at: Timestamp::from_millisecond(row.done_at).unwrap_or_default(),
        })
        .collect())
}
