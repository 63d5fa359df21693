//! What every source is given: the way in, the clock, the place for its health, and the word to stop.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::DateTime;
use tokio::sync::watch;

use crate::reading::Heard;
use crate::source::delivery::Inlet;
use crate::source::health::Health;

/// Tells the uptime now; a function, so that the room needs no clock of its own.
pub type Uptime = Arc<dyn Fn() -> Heard + Send + Sync>;

/// Tells the time of day at the hub's place while the hub's clock is synchronised, and nothing otherwise.
pub type WallClock = Arc<dyn Fn() -> Option<DateTime> + Send + Sync>;

/// What every source is given. Clones are cheap.
#[derive(Clone)]
pub struct Context {
    /// Where readings go.
    pub inlet: Inlet,
    /// Where each device's state and counts are kept.
    pub health: Arc<Health>,
    /// When is now.
    pub uptime: Uptime,
    /// The clock that devices are set by.
    pub wall: WallClock,
    /// Turns true, or loses its sender, when the sources shall stop.
    pub stop: Stop,
}

/// The word to stop, as a source waits for it.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens to this switch.
    pub fn new(switch: watch::Receiver<bool>) -> Self {
        Stop(switch)
    }

    /// Whether the sources shall stop now.
    pub fn is_set(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the word to stop. Cancel-safe.
    pub async fn wait(&mut self) {
        let _switch_is_gone = self.0.wait_for(|stop| *stop).await.is_err();
    }

    /// Waits this long; true when the word to stop came before.
    pub async fn wait_at_most(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.wait()).await.is_ok()
    }
}
