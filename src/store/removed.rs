//! Which entries of a generation set aside are removed. The generation itself is append-only, so this is state. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_cbor::Value as Cbor;

use super::AsidePlace;
use crate::reading::BootId;

/// What is known of a generation set aside without opening it. Removing everything is one span; the worst, every second
/// entry, is a bit for each entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AsideKnown {
    /// The boots that its readings were heard in.
    pub(super) boots: Vec<BootId>,
    /// Records without any entry left: first and last number of each span.
    spans: Vec<(u32, u32)>,
    /// Of other records a bit for each entry that is removed.
    bits: BTreeMap<u32, Cbor>,
}

impl AsideKnown {
    pub(super) fn add_boot(&mut self, boot: BootId) {
        if !self.boots.contains(&boot) {
            self.boots.push(boot);
        }
    }

    /// Whether nothing of this record is left.
    pub(super) fn is_whole(&self, record: u32) -> bool {
        self.spans.iter().any(|(first, last)| (*first..=*last).contains(&record))
    }

    pub(super) fn is_removed(&self, record: u32, position: u16) -> bool {
        let bit = |bits: &Cbor| match bits {
            Cbor::Bytes(bits) => {
                bits.get(usize::from(position / 8)).is_some_and(|byte| byte >> (position % 8) & 1 == 1)
            }
            _ => false,
        };
        self.is_whole(record) || self.bits.get(&record).is_some_and(bit)
    }

    /// Removes an entry. `false` when it was removed already.
    pub(super) fn remove(&mut self, place: AsidePlace) -> bool {
        let AsidePlace { record, position, of, .. } = place;
        if self.is_removed(record, position) {
            return false;
        }
        let bits = self.bits.entry(record).or_insert_with(|| Cbor::Bytes(vec![0; usize::from(of.div_ceil(8))]));
        let mut removed = 1;
        if let Cbor::Bytes(bits) = bits {
            if let Some(byte) = bits.get_mut(usize::from(position / 8)) {
                *byte |= 1 << (position % 8);
            }
            removed = bits.iter().map(|byte| byte.count_ones()).sum::<u32>();
        }
        if removed >= u32::from(of) {
            self.bits.remove(&record);
            self.add_span(record);
        }
        true
    }

    fn add_span(&mut self, record: u32) {
        let at = self.spans.partition_point(|(first, _)| *first < record);
        self.spans.insert(at, (record, record));
        if at + 1 < self.spans.len() && self.spans[at + 1].0 == record + 1 {
            self.spans[at].1 = self.spans.remove(at + 1).1;
        }
        if at > 0 && self.spans[at - 1].1 + 1 == record {
            self.spans[at - 1].1 = self.spans.remove(at).1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_removed_is_and_the_rest_is_not(
            sizes in prop::collection::vec(1..20u16, 1..12),
            removed in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..120),
        ) {
            let mut known = AsideKnown::default();
            let mut model = std::collections::BTreeSet::new();
            for (record, position) in removed {
                let record = record.index(sizes.len());
                let position = position.index(usize::from(sizes[record])) as u16;
                let place = AsidePlace { generation: 1, record: record as u32, position, of: sizes[record] };
                prop_assert_eq!(known.remove(place), model.insert((record as u32, position)));
            }
            let bytes = serde_cbor::to_vec(&known).unwrap();
            let known: AsideKnown = serde_cbor::from_slice(&bytes).unwrap();
            for (record, size) in sizes.iter().enumerate() {
                let record = record as u32;
                for position in 0..*size {
                    prop_assert_eq!(known.is_removed(record, position), model.contains(&(record, position)));
                }
                prop_assert_eq!(known.is_whole(record), (0..*size).all(|p| model.contains(&(record, p))));
            }
            prop_assert!(known.spans.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", known.spans);
        }
    }
}
