//! The store under test: a writer that commits and drains as fast as it can, and the checker of what a cut left.
//!
//! One writer, one observation a reading: the n-th observation has sequence n, so what must lie there is a function of
//! the seed and the sequence.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use biogate::observation::{EventType, Observation, Value};
use biogate::reading::{BootId, Channel, Heard, RunId};
use biogate::store::{
    AsideEntry, AsideKind, Commit, CutLimit, IntakeTally, Range, Settings, Settled, StateChange, Store, WhenFull,
};
use uuid::Uuid;

use crate::told::{Outcome, Said, Told, tell};

const DESTINATION: &str = "warehouse";
const STATE: &str = "last";
/// Small, so that a run of seconds sees many births and deaths.
const GENERATION_BYTES: u64 = 256 * 1024;
const BOOT: BootId = BootId(Uuid::from_u128(1));

fn open(dir: &Path) -> anyhow::Result<Store> {
    let settings = Settings {
        dir: dir.join("store"),
        max_bytes: 1 << 30,
        aside_max_bytes: 64 << 20,
        min_free: 0,
        max_age: Duration::from_secs(90 * 86_400),
        when_full: WhenFull::PauseSources,
        key_file: None,
        generation_bytes: GENERATION_BYTES,
    };
    Store::open(&settings, RunId(Uuid::from_u128(9)), BOOT, &[DESTINATION.to_owned()])
        .context("the store does not open")
}

/// The observation of this sequence.
fn observation(seed: u64, sequence: u64) -> Observation {
    let mut random = fastrand::Rng::with_seed(seed ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Random text, so that zstd does not make small commits of large ones.
    let note: String = (0..random.usize(8..120)).map(|_| random.alphanumeric()).collect();
    Observation {
        reading: sequence,
        index: 0,
        device: "strap-anna".into(),
        profile: "bluetooth-heart-rate/1".into(),
        event_type: EventType::HeartRate,
        component: "".into(),
        value: f64::from(random.u32(400..2_000)) / 10.0,
        heard: Heard { boot: BOOT, ms: 1_000 * sequence },
        device_time: None,
        since: None,
        identity: None,
        metadata: vec![("note".into(), Value::Text(note.into()))],
    }
}

/// What is set aside as the n-th.
fn entry(seed: u64, number: u64) -> AsideEntry {
    let mut random = fastrand::Rng::with_seed(!seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    AsideEntry {
        kind: AsideKind::Refused,
        reason: "not what the profile expects".to_owned(),
        device: "strap-anna".into(),
        entry: "strap-anna".into(),
        channel: Channel::Frame,
        profile: "bluetooth-heart-rate/1".into(),
        run: RunId(Uuid::from_u128(9)),
        reading: number,
        heard: Heard { boot: BOOT, ms: number },
        bytes: (0..random.usize(0..2_000)).map(|_| random.u8(..)).collect(),
        destination: None,
        which: None,
        counters: Vec::new(),
        resets: 0,
    }
}

/// Commits of 1 to 40 observations; a state key moves with each and every tenth brings something to set aside.
fn commit(seed: u64, random: &mut fastrand::Rng, last: &mut u64, aside: &mut u64) -> Commit {
    let count = random.u64(1..=40);
    let observations = (*last + 1..=*last + count).map(|sequence| observation(seed, sequence)).collect();
    *last += count;
    let mut set_aside = Vec::new();
    if random.u8(..10) == 0 {
        *aside += 1;
        set_aside.push(entry(seed, *aside));
    }
    let refused = set_aside.len() as u64;
    Commit {
        observations,
        state: vec![StateChange { key: STATE.to_owned(), value: Some(last.to_be_bytes().to_vec()) }],
        aside: set_aside,
        intake: IntakeTally {
            accepted: count + refused,
            refused,
            decoded: count,
            made: count,
            stored: count,
            ..IntakeTally::default()
        },
        ..Commit::default()
    }
}

/// Writes until it is killed, from where the writer before it was killed.
pub(crate) async fn write(dir: &Path, seed: u64) -> anyhow::Result<()> {
    let store = open(dir)?;
    let mut last = store.stat().newest;
    let mut aside = store.aside(1 << 20).await?.len() as u64;
    let mut random = fastrand::Rng::with_seed(seed ^ last);
    let mut drains = random.bool();
    if let Some(range) = store.in_hand(DESTINATION) {
        tell(Said::InHand { first: range.first, last: range.last })?;
    }
    loop {
        let before = generations(dir)?;
        let next = commit(seed, &mut random, &mut last, &mut aside);
        // Where nothing waits, a range that is asked for rides on the commit.
        if drains && waiting(&store) == 0 {
            let (range, committed) = tokio::join!(store.next_range(DESTINATION, 0, 0, limit(1)), store.commit(next));
            committed?;
            let range = range?;
            tell(Said::InHand { first: range.first, last: range.last })?;
        } else {
            store.commit(next).await?;
        }
        let after = generations(dir)?;
        tell(Said::Committed { last, aside, birth: before.last() != after.last() })?;

        if random.u8(..150) == 0 {
            drains = !drains;
        }
        if drains && waiting(&store) > 0 {
            let range = store.next_range(DESTINATION, 0, 0, limit(random.u64(1..=160))).await?;
            tell(Said::InHand { first: range.first, last: range.last })?;
            let count = compare(seed, &store, &range).await?;
            // Said before: from now on the disk may say that it is delivered.
            tell(Said::Settling { last: range.last })?;
            store.settle(DESTINATION, &range, Settled { delivered: count, ..Settled::default() }).await?;
        }
        let left = generations(dir)?;
        tell(Said::Went { death: after.first() != left.first() })?;
    }
}

fn limit(max_observations: u64) -> CutLimit {
    CutLimit { max_observations, max_bytes: 1 << 20 }
}

fn waiting(store: &Store) -> u64 {
    store.stat().destinations.first().map_or(0, |to| to.waiting)
}

/// The numbers of the generations on the disk.
fn generations(dir: &Path) -> anyhow::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for found in std::fs::read_dir(dir.join("store"))? {
        let name = found?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix("gen-")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads a range, compares each observation, and says how many there are.
async fn compare(seed: u64, store: &Store, range: &Range) -> anyhow::Result<u64> {
    let mut expected = range.first;
    for chunk in store.read(range).await? {
        ensure!(chunk.first == expected, "a chunk begins at {} and not at {expected}", chunk.first);
        for found in chunk.observations {
            ensure!(found == observation(seed, expected), "observation {expected} has other values: {found:?}");
            expected += 1;
        }
    }
    ensure!(expected == range.last + 1, "observations {expected} to {} are missing in their range", range.last);
    Ok(range.count())
}

/// What a cut left: nothing that was acknowledged may be missing, nothing may be delivered that was not settled, and
/// the store must work on. An error is a failed open or a broken promise; losses are counted.
pub(crate) async fn check(dir: &Path, seed: u64, told: Told) -> anyhow::Result<Outcome> {
    let store = open(dir)?;
    let stat = store.stat();
    let [to] = &stat.destinations[..] else { bail!("destinations: {:?}", stat.destinations) };
    let (cursor, newest) = (to.cursor, stat.newest);

    // Values first, so that a loss is counted before anything else is found fault with.
    let mut found = vec![false; newest as usize + 1];
    let mut after = cursor.saturating_sub(1);
    loop {
        let chunks = store.export(after, 64).await?;
        let Some(end) = chunks.last().map(|chunk| chunk.first + chunk.observations.len() as u64 - 1) else { break };
        for chunk in chunks {
            for (sequence, one) in (chunk.first..).zip(chunk.observations) {
                ensure!(one == observation(seed, sequence), "observation {sequence} has other values: {one:?}");
                *found.get_mut(sequence as usize).with_context(|| format!("{sequence} is over the newest"))? = true;
            }
        }
        ensure!(end > after, "export repeats itself after {after}");
        after = end;
    }
    let lost =
        (cursor.max(1)..=told.last).filter(|n| !found.get(*n as usize).is_some_and(|there| *there)).count() as u64;
    if lost > 0 {
        return Ok(Outcome { lost, there: 0 });
    }

    ensure!(stat.unhealthy.is_none(), "unhealthy: {:?}", stat.unhealthy);
    ensure!(stat.damaged_bytes == 0, "{} bytes are taken for damaged", stat.damaged_bytes);
    let in_hand = to.in_hand.as_ref().map_or((0, 0), |range| (range.first, range.last));
    ensure!(told.in_hand == (0, 0) || in_hand == told.in_hand, "in hand was {:?}, and is {in_hand:?}", told.in_hand);
    ensure!(cursor <= told.settling + 1, "delivered up to {}, and only {} was settled", cursor - 1, told.settling);
    ensure!((cursor.max(1)..=newest).all(|n| found[n as usize]), "there are holes between {cursor} and {newest}");
    let there = (told.last + 1).saturating_sub(cursor.max(1));
    let ledger = store.ledger();
    ensure!(ledger.intake.stored == newest, "{} stored, and the newest is {newest}", ledger.intake.stored);
    for (name, tally) in &ledger.destinations {
        ensure!(tally.sum() == ledger.intake.stored, "the ledger of {name} does not balance: {tally:?}");
        let is_plain = tally.damaged + tally.evicted + tally.rejected + tally.parked + tally.before == 0;
        ensure!(is_plain && tally.delivered + 1 == cursor.max(1), "cursor {cursor}, and counted were {tally:?}");
    }
    // One record: the state is that of the newest observation, never of another.
    let state = store.state(STATE);
    let expected: Vec<_> =
        (newest > 0).then(|| (STATE.to_owned(), newest.to_be_bytes().to_vec())).into_iter().collect();
    ensure!(state == expected, "the newest observation is {newest}, and the state says {state:?}");
    let aside = store.aside(1 << 20).await?;
    ensure!(aside.len() as u64 >= told.aside, "{} were set aside, and {} are there", told.aside, aside.len());
    for (number, one) in (1..).zip(&aside) {
        ensure!(*one == entry(seed, number), "what was set aside as {number} is another: {one:?}");
    }
    let verified = store.verify().await?;
    ensure!(verified.faults.is_empty(), "verify: {:?}", verified.faults);

    // And it works on: commits get the next numbers, everything drains, it closes.
    let (mut last, mut aside) = (newest, aside.len() as u64);
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..4 {
        let first = last + 1;
        let given = store.commit(commit(seed, &mut random, &mut last, &mut aside)).await?;
        ensure!(given == Some(first..=last), "the commit after {newest} got {given:?}");
    }
    let mut next = cursor.max(1);
    while waiting(&store) > 0 {
        let range = store.next_range(DESTINATION, 0, 0, limit(5_000)).await?;
        ensure!(range.first == next, "the range begins at {} and not at {next}", range.first);
        let delivered = compare(seed, &store, &range).await?;
        store.settle(DESTINATION, &range, Settled { delivered, ..Settled::default() }).await?;
        next = range.last + 1;
    }
    ensure!(next == last + 1, "drained up to {next}, and {last} is the last");
    store.close().await?;
    Ok(Outcome { lost: 0, there })
}
