//! The calls to one adapter that may hang: scan, power, a new btleplug session. One task per adapter does them one after
//! the other, so that a hung adapter stops nothing but itself.

use std::sync::Arc;
use std::time::Duration;

use btleplug::api::{Central as _, Manager as _, ScanFilter};
use btleplug::platform::{Adapter as Central, Manager};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::source::ble::bluez::{Bus, CallError, DEADLINE};
use crate::source::ble::place::Place;

/// How many orders may wait.
const ORDERS: usize = 64;

/// An adapter that is switched off and on needs a moment in between: the firmware of some is loaded anew.
const OFF: Duration = Duration::from_millis(1_500);

/// btleplug's session cannot be closed: each new one leaves a connection to the bus behind, and the bus allows a user 256.
const MOST_SESSIONS: usize = 32;

/// btleplug's session, which all adapters share.
#[derive(Default)]
pub(super) struct Sessions {
    current: Mutex<(Option<Manager>, usize)>,
}

impl Sessions {
    /// The session, or a new one in its place.
    async fn manager(&self, renew: bool) -> btleplug::Result<Manager> {
        let mut current = self.current.lock().await;
        let (manager, made) = &mut *current;
        if renew && *made < MOST_SESSIONS {
            *manager = None;
        }
        if let Some(manager) = manager {
            return Ok(manager.clone());
        }
        let new = Manager::new().await?;
        (*manager, *made) = (Some(new.clone()), *made + 1);
        Ok(new)
    }
}

/// What an adapter's worker shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Switch the adapter on if it is off, and hear advertisements.
    Scan,
    /// Hear them no longer.
    Quiet,
    /// Hear them no longer, since this device connects.
    QuietFor(usize),
    /// Stop, then scan again.
    RestartScan,
    /// Forget btleplug's session and make a new one, then scan.
    Renew,
    /// Off and on again, then scan.
    PowerCycle,
    /// Make BlueZ forget these, but for those that are bonded.
    Forget(Vec<Place>),
}

/// What came of an order.
pub(super) struct Done {
    pub(super) adapter: Arc<str>,
    pub(super) order: Order,
    /// The adapter as btleplug has it, or why it failed.
    pub(super) result: Result<Central, CallError>,
}

/// The session's end of a worker; dropping it ends the worker.
pub(super) struct Worker {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Worker {
    pub(super) fn start(adapter: Arc<str>, bus: Arc<Bus>, sessions: Arc<Sessions>, done: mpsc::Sender<Done>) -> Self {
        let (orders, ordered) = mpsc::channel(ORDERS);
        let task = tokio::spawn(Hands { adapter, bus, sessions, central: None }.work(ordered, done));
        Worker { orders, task }
    }

    /// Gives an order; false when too many wait, which is a hung adapter.
    pub(super) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }
}

struct Hands {
    adapter: Arc<str>,
    bus: Arc<Bus>,
    sessions: Arc<Sessions>,
    central: Option<Central>,
}

impl Hands {
    async fn work(mut self, mut ordered: mpsc::Receiver<Order>, done: mpsc::Sender<Done>) {
        while let Some(order) = ordered.recv().await {
            let result = self.obey(&order).await;
            if done.send(Done { adapter: self.adapter.clone(), order, result }).await.is_err() {
                return;
            }
        }
    }

    async fn obey(&mut self, order: &Order) -> Result<Central, CallError> {
        match order {
            Order::Scan => self.scan().await?,
            Order::Quiet | Order::QuietFor(_) => self.quiet().await?,
            Order::RestartScan => {
                // A scan that does not run cannot be stopped; what counts is that it starts.
                let _not_running = self.quiet().await;
                self.scan().await?;
            }
            Order::Renew => {
                let _not_running = self.quiet().await;
                self.central = None;
                let renewed = timeout(DEADLINE, self.sessions.manager(true)).await;
                renewed.map_err(|_| CallError::Hung("a new session"))?.map_err(|why| refused(&why))?;
                self.scan().await?;
            }
            Order::PowerCycle => {
                self.bus.set_powered(&self.adapter, false).await?;
                sleep(OFF).await;
                self.bus.set_powered(&self.adapter, true).await?;
                self.central = None;
                self.scan().await?;
            }
            Order::Forget(places) => {
                for place in places {
                    if !self.bus.is_paired(place).await.unwrap_or(false) {
                        // It may be forgotten already.
                        let _unknown = self.bus.remove(place).await;
                    }
                }
            }
        }
        self.central().await
    }

    async fn scan(&mut self) -> Result<(), CallError> {
        let central = self.central().await?;
        let started = timeout(DEADLINE, central.start_scan(ScanFilter::default())).await;
        match started.map_err(|_| CallError::Hung("StartDiscovery"))? {
            Ok(()) => Ok(()),
            // Ours from before, or another program's: it runs.
            Err(why) if why.to_string().contains("InProgress") || why.to_string().contains("in progress") => Ok(()),
            Err(why) => Err(refused(&why)),
        }
    }

    async fn quiet(&mut self) -> Result<(), CallError> {
        let central = self.central().await?;
        match timeout(DEADLINE, central.stop_scan()).await.map_err(|_| CallError::Hung("StopDiscovery"))? {
            Ok(()) => Ok(()),
            Err(why) if why.to_string().contains("No discovery started") => Ok(()),
            Err(why) => Err(refused(&why)),
        }
    }

    async fn central(&mut self) -> Result<Central, CallError> {
        if let Some(central) = &self.central {
            return Ok(central.clone());
        }
        let found = timeout(DEADLINE, self.find()).await.map_err(|_| CallError::Hung("a new session"))?;
        let central = found.map_err(|why| refused(&why))?;
        let central = central.ok_or_else(|| CallError::Refused(format!("the adapter {} is gone", self.adapter)))?;
        self.central = Some(central.clone());
        Ok(central)
    }

    async fn find(&self) -> btleplug::Result<Option<Central>> {
        for central in self.sessions.manager(false).await?.adapters().await? {
            let info = central.adapter_info().await?;
            if info.split(' ').next() == Some(&*self.adapter) {
                return Ok(Some(central));
            }
        }
        Ok(None)
    }
}

/// btleplug's words for what BlueZ said.
fn refused(why: &btleplug::Error) -> CallError {
    let words = why.to_string();
    if words.contains("Did not receive a reply") || words.contains("timed out") {
        CallError::Hung("the adapter")
    } else {
        CallError::Refused(words)
    }
}
