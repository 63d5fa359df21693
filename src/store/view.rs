//! What every handle sees without asking the store thread: state keys, ledger, ranges, health, as of the last durable
//! record.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::{Error, Gap, Ledger, Range, Stat, StateChange};
use crate::reading::BootId;

/// The content of the view.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) keys: BTreeMap<String, Vec<u8>>,
    pub(super) ledger: Ledger,
    pub(super) ranges: BTreeMap<String, Range>,
    pub(super) stat: Stat,
    pub(super) gaps: Vec<(u64, Gap)>,
    pub(super) boots: Vec<BootId>,
    /// Set once, when the store can do nothing more.
    pub(super) dead: Option<Error>,
}

/// The view, shared between the thread that writes it and the handles that read.
#[derive(Debug, Default)]
pub(super) struct Shared {
    view: RwLock<View>,
    reports: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// There are new reports.
    pub(super) fn tell_of_reports(&self) {
        self.reports.send_modify(|calls| *calls += 1);
    }

    pub(super) fn report_news(&self) -> watch::Receiver<u64> {
        self.reports.subscribe()
    }
}

impl View {
    /// Folds changes of keys that are not the store's own.
    pub(super) fn apply(&mut self, changes: Vec<StateChange>) {
        for change in changes {
            match change.value {
                Some(value) => self.keys.insert(change.key, value),
                None => self.keys.remove(&change.key),
            };
        }
    }

    /// All of the keys, as a birth writes them.
    pub(super) fn whole(&self) -> impl Iterator<Item = StateChange> + '_ {
        self.keys.iter().map(|(key, value)| StateChange { key: key.clone(), value: Some(value.clone()) })
    }

    /// Bytes of the keys and their values.
    pub(super) fn bytes(&self) -> u64 {
        self.keys.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}
