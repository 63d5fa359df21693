//! What is to be done, to whom.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::zone::{PERSON, Zone, known};
use super::{Error, rows_of};

/// What an order does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Takes the person's rows away.
    Erase,
    /// Gives them to another pseudonym.
    Repseudonymise,
}

impl Kind {
    /// As `erasures` has it, and the command.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Erase => "erase",
            Kind::Repseudonymise => "repseudonymise",
        }
    }
}

/// What is to be done, to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Every row of this person is taken away.
    Erase {
        /// The pseudonym.
        user: Uuid,
    },
    /// Every row of this person becomes one of `to`.
    Repseudonymise {
        /// The pseudonym that goes.
        user: Uuid,
        /// The one that comes in its place.
        to: Uuid,
    },
}

impl Order {
    /// Whose rows.
    pub fn user(&self) -> Uuid {
        match self {
            Order::Erase { user } | Order::Repseudonymise { user, .. } => *user,
        }
    }

    /// Whose they are to be; zeros of an erasure.
    pub fn to(&self) -> Uuid {
        match self {
            Order::Erase { .. } => Uuid::nil(),
            Order::Repseudonymise { to, .. } => *to,
        }
    }

    /// Which of the two.
    pub fn kind(&self) -> Kind {
        match self {
            Order::Erase { .. } => Kind::Erase,
            Order::Repseudonymise { .. } => Kind::Repseudonymise,
        }
    }

    /// Refuses what would do harm, before anything is touched.
    pub(super) async fn check(&self, zone: &Zone<'_>) -> Result<(), Error> {
        let refused = |words: String| Err(Error::Refused(words));
        if self.user().is_nil() {
            return refused(
                "the UUID of zeros is nobody: its events have no person; give them one with reassign.sql".into(),
            );
        }
        for table in ["erasures", "erased_hours", "erased_events", "biometric_events"] {
            if zone.table(table).is_none() {
                let database = zone.warehouse.database();
                return refused(format!(
                    "the database {database} has no table {table}: run `biogate schema apply` first"
                ));
            }
        }
        let Order::Repseudonymise { user, to } = *self else { return Ok(()) };
        if to.is_nil() || to == user {
            return refused(format!("--to {to}: write another pseudonym, a new UUID (uuidgen)"));
        }
        let erased = zone
            .number(
                "SELECT count() AS n FROM erasures FINAL WHERE person = {person:String} AND done_at IS NOT NULL",
                &[("person", &hash(to))],
            )
            .await?;
        if erased > 0 {
            return refused(format!("--to {to}: this pseudonym was erased or given up; write a new UUID (uuidgen)"));
        }
        for table in zone.tables_of_persons() {
            let is_key = table.column(PERSON).is_some_and(|column| column.in_key);
            if known(&table.name).is_some() || !is_key {
                continue;
            }
            let sql = format!("SELECT count() AS n FROM {} WHERE {}", table.quoted(), rows_of(table));
            if zone.number(&sql, &[("user", &user.to_string())]).await? > 0 {
                return refused(format!(
                    "the table {} holds rows of this person, and {PERSON} is part of its key, so that it cannot be \
                     changed: DROP TABLE it where it is left over from a migration, or take the rows out of it",
                    table.name
                ));
            }
        }
        Ok(())
    }
}

/// By which a pseudonym is known after it was erased.
pub(super) fn hash(user: Uuid) -> String {
    hex::encode(Sha256::digest(user.to_string()))
}
