//! One pass over everything that is set aside now, page by page, oldest first.

use std::collections::HashMap;

use crate::store::{AsideEntry, AsideFrom, AsidePlace, Error, Store};

/// A pass. What is set aside while it runs is not part of it.
pub(super) struct Scan<'a> {
    store: &'a Store,
    next: Option<AsideFrom>,
    end: Option<AsideFrom>,
    /// Of each id whether its entry was taken; a crash may have left an entry twice.
    seen: HashMap<u64, bool>,
}

/// One entry of a pass.
pub(super) struct Scanned {
    pub(super) place: AsidePlace,
    pub(super) id: u64,
    pub(super) entry: AsideEntry,
    /// The same entry came before; whether that one was taken.
    pub(super) twin: Option<bool>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Scan { store, next: Some(AsideFrom::default()), end: None, seen: HashMap::new() }
    }

    /// The next entries; `None` at the end.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<(AsidePlace, AsideEntry)>>, Error> {
        let Some(from) = self.next else { return Ok(None) };
        let page = self.store.aside_page(from).await?;
        let end = *self.end.get_or_insert(page.end);
        self.next = page.next.filter(|next| *next < end);
        let mut entries = page.entries;
        entries.retain(|(place, _)| place.is_before(end));
        Ok(Some(entries))
    }

    /// Looks whether an entry came before.
    pub(super) fn look(&self, (place, entry): (AsidePlace, AsideEntry)) -> Scanned {
        let id = entry.id();
        Scanned { place, id, entry, twin: self.seen.get(&id).copied() }
    }

    /// Notes what became of an entry.
    pub(super) fn note(&mut self, id: u64, taken: bool) {
        self.seen.insert(id, taken);
    }

    /// The ids that came.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.seen.keys().copied()
    }
}
