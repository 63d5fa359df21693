//! `/assign` and `/assignments`: who wears what, said and asked over the control socket.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use crate::resolve::Timeline;
use crate::resolve::history::{Assignment, Interval, Worn};

/// How long the gateway may take for a command: a full disk makes its commit wait.
const DEADLINE: Duration = Duration::from_secs(30);

/// Commands that may wait for the gateway.
pub const ORDERS: usize = 4;

/// A moment as a person says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At this moment.
    Now,
    /// So many milliseconds ago.
    Ago(u64),
    /// Unix milliseconds.
    At(i64),
}

/// What `assign` and `unassign` ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The device_id.
    pub device: Arc<str>,
    /// The person; `None` is nobody.
    pub user_id: Option<Uuid>,
    /// Since when.
    pub from: When,
    /// Until when; without it until further notice.
    pub until: Option<When>,
    /// Also for a device that nothing is known of.
    pub anyway: bool,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It holds and is durable.
    Done(Done),
    /// It does not; why, and what to write instead.
    Refused(String),
}

/// A change that holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Since when, in Unix milliseconds.
    pub from: i64,
    /// Until when; without it until further notice.
    pub until: Option<i64>,
    /// Whether these moments are estimates, because the hub does not know the time.
    pub estimated: bool,
    /// Whether events of that time may have been sent already.
    pub past: bool,
    /// The device's whole time.
    pub worn: DeviceWorn,
}

/// A device's whole time, and what was said about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceWorn {
    /// The device_id.
    pub device: Arc<str>,
    /// In order and without a hole.
    pub intervals: Vec<Interval>,
    /// In the order in which it was said.
    pub said: Vec<Statement>,
}

/// One statement as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Its number.
    pub version: u64,
    /// Unix milliseconds; absent where it was said by a version that did not note it.
    pub said_at: Option<i64>,
    /// entry or command.
    pub by: String,
    /// both, person or place.
    pub says: String,
    /// Unix milliseconds; absent for since always.
    pub from: Option<i64>,
    /// Unix milliseconds; absent for until further notice.
    pub until: Option<i64>,
    /// The person; absent for nobody.
    pub user_id: Option<Uuid>,
    /// The room; absent for the hub's own.
    pub location: Option<Arc<str>>,
}

/// A change on its way to the gateway.
#[derive(Debug)]
pub struct Order {
    /// What is asked for.
    pub change: Change,
    /// Where the answer goes. An error is one of the store.
    pub answer: oneshot::Sender<anyhow::Result<Answer>>,
}

/// Has the gateway carry out a change.
pub async fn assign(orders: &mpsc::Sender<Order>, asked: Value) -> anyhow::Result<Answer> {
    let change = serde_json::from_value(asked).context("reading what is to be changed")?;
    let (answer, answered) = oneshot::channel();
    let carried_out = async {
        orders.send(Order { change, answer }).await.ok().context("the gateway is stopping")?;
        answered.await.context("the gateway is stopping")?
    };
    timeout(DEADLINE, carried_out).await.context("the gateway did not get to it in time")?
}

/// Every device, or the one of this name, that anything was said about; by name.
pub fn worn(timeline: &Timeline, device: Option<&str>) -> Vec<DeviceWorn> {
    let Some((_, basis)) = timeline.bases.last_key_value() else { return Vec::new() };
    let unix_ms = |heard| timeline.anchors.unix_ms(timeline.anchors.version(), heard).0;
    let worn = Worn::new(&basis.assignments, unix_ms);
    let mut names: Vec<&Arc<str>> = basis.assignments.iter().map(|said| &said.device).collect();
    names.sort();
    names.dedup();
    names.retain(|name| device.is_none_or(|device| device == &***name));
    let statement = |said: &Assignment| Statement {
        version: said.version,
        said_at: said.said.map(unix_ms),
        by: said.by.name().to_owned(),
        says: said.says.name().to_owned(),
        from: said.from.map(unix_ms),
        until: said.until.map(unix_ms),
        user_id: said.user_id,
        location: said.location.clone(),
    };
    let one = |name: &Arc<str>| DeviceWorn {
        device: name.clone(),
        intervals: worn.of(name).intervals(),
        said: basis.assignments.iter().filter(|said| said.device == *name).map(statement).collect(),
    };
    names.into_iter().map(one).collect()
}
