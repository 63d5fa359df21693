//! Stored records that a device sends again: recognised by the whole reading.

use std::collections::VecDeque;

use uuid::Uuid;

/// How many readings are remembered of a device: more than a cuff or a meter stores.
const RECORDS: usize = 1_024;

/// The namespace of the hashes; with it they stay the same in every version of the program.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d1f_3c52_5f0e_4e0a_9a55_0b64_7be1_92c7);

/// The newest readings of a device that stores, as hashes of eight bytes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Records(VecDeque<u64>);

impl Records {
    /// Whether this reading was there before; if not, it is remembered.
    pub(super) fn is_known(&mut self, channel: &str, bytes: &[u8]) -> bool {
        let hash = hash(channel, bytes);
        if self.0.contains(&hash) {
            return true;
        }
        self.push(hash);
        false
    }

    /// Takes note of a reading that is known from elsewhere.
    pub(super) fn know(&mut self, hash: u64) {
        if !self.0.contains(&hash) {
            self.push(hash);
        }
    }

    fn push(&mut self, hash: u64) {
        if self.0.len() >= RECORDS {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    /// For the state.
    pub(super) fn hashes(&self) -> Vec<u64> {
        self.0.iter().copied().collect()
    }

    /// Out of the state; of more than fit the newest.
    pub(super) fn of(hashes: Vec<u64>) -> Records {
        let mut records = Records::default();
        hashes.into_iter().for_each(|hash| records.push(hash));
        records
    }
}

/// The first eight bytes of a UUIDv5 over channel and bytes.
fn hash(channel: &str, bytes: &[u8]) -> u64 {
    let name = [channel.as_bytes(), &[0], bytes].concat();
    Uuid::new_v5(&NAMESPACE, &name).as_u64_pair().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_readings_are_known() {
        let mut records = Records::default();
        let bytes = |n: usize| n.to_le_bytes();
        assert!((0..RECORDS).all(|n| !records.is_known("2a35", &bytes(n))));
        assert!(records.is_known("2a35", &bytes(0)) && !records.is_known("2a36", &bytes(0)));
        assert!(!records.is_known("2a35", &bytes(0)), "the oldest made room for the one of another channel");
        let again = Records::of(records.hashes());
        assert_eq!(again.hashes(), records.hashes());
        assert_eq!(again.0.len(), RECORDS);
    }

    /// On every hub there is state with hashes: this one must never change.
    #[test]
    fn a_hash_stays_the_same_for_ever() {
        assert_eq!(format!("{:016x}", hash("2a35", &[1, 2, 3])), "0e1152ce9344516b");
    }
}
