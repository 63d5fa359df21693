//! What the intake hears of each device, for the account of its seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::coverage::{Sign, Span, Watch};
use crate::interpret::Interpretation;
use crate::reading::{BootId, Heard};

/// So many devices are watched at once; of further ones nothing is told.
const MAX_DEVICES: usize = 8_192;

/// Every device that is expected or was heard in this process. Clones share it.
#[derive(Debug, Clone)]
pub struct Watches {
    boot: BootId,
    devices: Arc<Mutex<HashMap<Arc<str>, Watch>>>,
}

impl Watches {
    /// Nobody yet. Only readings of this boot are looked at: those of a recording are of another time.
    pub fn new(boot: BootId) -> Watches {
        Watches { boot, devices: Arc::default() }
    }

    /// A device that is to be heard from now on.
    pub fn expect(&self, device: &Arc<str>, now_ms: u64) {
        let mut devices = self.lock();
        if !devices.contains_key(device) && devices.len() < MAX_DEVICES {
            devices.insert(device.clone(), Watch::new(now_ms));
        }
    }

    /// A device that is no longer to be heard.
    pub fn forget(&self, device: &str) {
        self.lock().remove(device);
    }

    /// Notes whether a device can be heard, and takes what its time was until now. `None`: it is not watched.
    pub fn take(&self, device: &str, in_reach: bool, now_ms: u64) -> Option<Vec<Span>> {
        let mut devices = self.lock();
        let watch = devices.get_mut(device)?;
        watch.reach(now_ms, in_reach);
        Some(watch.take(now_ms))
    }

    /// Who is watched.
    pub fn devices(&self) -> Vec<Arc<str>> {
        self.lock().keys().cloned().collect()
    }

    /// A reading was interpreted.
    pub(super) fn heard(&self, device: &Arc<str>, heard: Heard, refused: bool, meant: &Interpretation) {
        let sign = if !meant.observations.is_empty() {
            Sign::Measured
        } else if refused || !meant.implausible.is_empty() {
            Sign::Aside
        } else if meant.withholds {
            Sign::NotWorn
        } else {
            return;
        };
        if heard.boot != self.boot {
            return;
        }
        let mut devices = self.lock();
        if !devices.contains_key(device) && devices.len() < MAX_DEVICES {
            devices.insert(device.clone(), Watch::new(heard.ms));
        }
        if let Some(watch) = devices.get_mut(device) {
            watch.heard(heard.ms, sign);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Watch>> {
        // A watch is whole between its calls, whatever happened to the thread that held it.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
