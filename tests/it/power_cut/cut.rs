//! The disk as a power cut leaves it, from what reached it before. Pure.

use super::disk::{Entry, Logged};

/// A disk writes whole sectors; file systems of today count on no more than 4 KiB at once.
const BLOCK: usize = 4_096;

/// What a cut does to writes that no flush had followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unflushed {
    /// All of them stayed in the cache.
    Dropped,
    /// Each block of each write reached the platters or not, as a coin says: so they also arrive out of order.
    Tossed { seed: u64 },
}

/// The disk that held `image` at the log's start, cut before entry number `at`.
pub(crate) fn disk_at(image: &[u8], log: &[Logged], at: usize, unflushed: Unflushed) -> Vec<u8> {
    let mut disk = image.to_vec();
    let safe = log[..at].iter().rposition(|logged| matches!(logged.entry, Entry::Flush)).map_or(0, |flush| flush + 1);
    for (offset, data) in writes(&log[..safe]) {
        disk[offset..offset + data.len()].copy_from_slice(data);
    }
    if let Unflushed::Tossed { seed } = unflushed {
        let mut coin = fastrand::Rng::with_seed(seed);
        for (offset, data) in writes(&log[safe..at]) {
            let (mut from, end) = (offset, offset + data.len());
            while from < end {
                let to = (from / BLOCK * BLOCK + BLOCK).min(end);
                if coin.bool() {
                    disk[from..to].copy_from_slice(&data[from - offset..to - offset]);
                }
                from = to;
            }
        }
    }
    disk
}

fn writes(log: &[Logged]) -> impl Iterator<Item = (usize, &[u8])> {
    log.iter().filter_map(|logged| match &logged.entry {
        Entry::Write { offset, data } => Some((*offset, data.as_slice())),
        Entry::Flush => None,
    })
}

fn write(offset: usize, byte: u8, blocks: usize) -> Logged {
    Logged { acknowledged: 0, entry: Entry::Write { offset, data: vec![byte; blocks * BLOCK] } }
}

#[test]
fn a_cut_keeps_what_was_flushed_and_tosses_each_block_of_the_rest() {
    let log = [
        write(0, 1, 64),
        Logged { acknowledged: 0, entry: Entry::Flush },
        write(0, 2, 64),
        Logged { acknowledged: 0, entry: Entry::Flush },
    ];
    let image = vec![0; 64 * BLOCK];
    let blocks = |at, unflushed| -> Vec<u8> {
        disk_at(&image, &log, at, unflushed).chunks(BLOCK).map(|block| block[0]).collect()
    };
    assert_eq!(blocks(1, Unflushed::Dropped), vec![0; 64]);
    assert_eq!(blocks(3, Unflushed::Dropped), vec![1; 64]);
    assert_eq!(blocks(4, Unflushed::Dropped), vec![2; 64]);
    assert_eq!(blocks(4, Unflushed::Tossed { seed: 1 }), vec![2; 64]);
    let tossed = blocks(3, Unflushed::Tossed { seed: 1 });
    assert!(tossed.contains(&1) && tossed.contains(&2) && !tossed.contains(&0), "{tossed:?}");
}
