//! The store against a model that is a list of observations and one cursor for each destination.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::VecDeque;

use proptest::prelude::*;

use biogate::store::{CutLimit, Range, Settled, StateChange};

use crate::store_rig::{
    LIMIT, assert_balanced, assert_no_blobs, commit_of, drain, observation, open, readings, runtime, settings, waiting,
};

#[derive(Debug, Clone)]
enum Step {
    Commit(u64),
    State(u8, Option<u16>),
    Range(usize),
    /// A call that its forwarder drops at once.
    DroppedRange(usize),
    /// The range behind the one in hand goes in hand with it.
    Extend(usize),
    /// Everything in hand, or only what was in hand before it was extended.
    Settle(usize, Whole),
    Reopen,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Whole {
    Yes,
    Front,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..300u64).prop_map(Step::Commit),
        2 => (0..4u8, prop::option::of(any::<u16>())).prop_map(|(key, value)| Step::State(key, value)),
        4 => (0..2usize).prop_map(Step::Range),
        1 => (0..2usize).prop_map(Step::DroppedRange),
        3 => (0..2usize).prop_map(Step::Extend),
        4 => (0..2usize, prop_oneof![Just(Whole::Yes), Just(Whole::Front)]).prop_map(|(to, of)| Step::Settle(to, of)),
        2 => Just(Step::Reopen),
    ]
}

const NAMES: [&str; 2] = ["a", "b"];

#[derive(Default)]
struct Model {
    /// Of sequence n the reading is n - 1: nothing is lost here, so the numbers are dense.
    stored: u64,
    cursors: [u64; 2],
    in_hand: [Option<Range>; 2],
    /// The last sequences of what is in hand, as it was put there.
    ends: [VecDeque<u64>; 2],
    state: std::collections::BTreeMap<String, Vec<u8>>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_does_what_a_list_and_two_cursors_do(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let runtime = runtime();
        let mut store = open(&settings, &NAMES);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Commit(count) => {
                    let range = runtime.block_on(store.commit(commit_of(model.stored..model.stored + count))).unwrap();
                    prop_assert_eq!(range, Some(model.stored + 1..=model.stored + count));
                    model.stored += count;
                }
                Step::State(key, value) => {
                    let (key, value) = (format!("key/{key}"), value.map(|value| value.to_le_bytes().to_vec()));
                    let change = StateChange { key: key.clone(), value: value.clone() };
                    let commit = biogate::store::Commit { state: vec![change], ..Default::default() };
                    prop_assert_eq!(runtime.block_on(store.commit(commit)).unwrap(), None);
                    match value {
                        Some(value) => model.state.insert(key, value),
                        None => model.state.remove(&key),
                    };
                }
                Step::Range(to) if model.in_hand[to].is_some() || model.cursors[to] < model.stored => {
                    let range = runtime.block_on(store.next_range(NAMES[to], 1, 2, LIMIT)).unwrap();
                    if let Some(known) = &model.in_hand[to] {
                        prop_assert_eq!(known, &range);
                    }
                    prop_assert_eq!(range.first, model.cursors[to] + 1);
                    prop_assert!(range.last <= model.stored && range.last >= range.first);
                    let chunks = runtime.block_on(store.read(&range)).unwrap().collect::<Vec<_>>();
                    prop_assert_eq!(readings(&range, &chunks), (range.first - 1..range.last).collect::<Vec<_>>());
                    prop_assert_eq!(&chunks[0].observations[0], &observation(range.first - 1));
                    if model.in_hand[to].is_none() {
                        model.ends[to].push_back(range.last);
                    }
                    model.in_hand[to] = Some(range);
                }
                Step::Range(_) => {}
                Step::DroppedRange(to) => {
                    let call = store.next_range(NAMES[to], 1, 2, LIMIT);
                    runtime.block_on(async { tokio::time::timeout(std::time::Duration::ZERO, call).await.ok() });
                    // Whether it was cut or not: the thread has answered once it answers the next request.
                    runtime.block_on(store.aside(0)).unwrap();
                    if model.in_hand[to].is_none() {
                        model.in_hand[to] = store.in_hand(NAMES[to]);
                        model.ends[to].extend(model.in_hand[to].iter().map(|range| range.last));
                    }
                }
                Step::Extend(to) => if let Some(whole) = &mut model.in_hand[to] {
                    let limit = CutLimit { max_observations: 500, ..LIMIT };
                    let Some((next, _)) = runtime.block_on(store.ahead(whole, limit)).unwrap() else {
                        prop_assert_eq!(whole.last, model.stored);
                        continue;
                    };
                    prop_assert_eq!(next.first, whole.last + 1);
                    if runtime.block_on(store.extend(NAMES[to], &next)).unwrap() {
                        whole.last = next.last;
                        model.ends[to].push_back(next.last);
                        let chunks = runtime.block_on(store.read(whole)).unwrap().collect::<Vec<_>>();
                        prop_assert_eq!(readings(whole, &chunks), (whole.first - 1..whole.last).collect::<Vec<_>>());
                    }
                },
                Step::Settle(to, of) => if let Some(whole) = model.in_hand[to].take() {
                    let end = if of == Whole::Front { model.ends[to].pop_front() } else { None };
                    let range = Range { last: end.unwrap_or(whole.last), ..whole.clone() };
                    let settled = Settled { delivered: range.count(), ..Settled::default() };
                    runtime.block_on(store.settle(NAMES[to], &range, settled)).unwrap();
                    model.cursors[to] = range.last;
                    if range.last < whole.last {
                        model.in_hand[to] = Some(Range { first: range.last + 1, ..whole });
                    } else {
                        model.ends[to].clear();
                    }
                },
                Step::Reopen => {
                    runtime.block_on(store.close()).unwrap();
                    store = open(&settings, &NAMES);
                }
            }
            for (to, name) in NAMES.into_iter().enumerate() {
                prop_assert_eq!(waiting(&store, name), model.stored - model.cursors[to]);
                prop_assert_eq!(store.in_hand(name), model.in_hand[to].clone());
            }
            prop_assert_eq!(store.state("key/"), model.state.clone().into_iter().collect::<Vec<_>>());
            assert_balanced(&store);
        }
        assert_no_blobs(dir.path());
        for (to, name) in NAMES.into_iter().enumerate() {
            let rest = runtime.block_on(drain(&store, name));
            prop_assert!(rest == (model.cursors[to]..model.stored).collect::<Vec<_>>());
        }
        prop_assert_eq!(store.stat().generations, 1);
        prop_assert!(runtime.block_on(store.verify()).unwrap().faults.is_empty());
        runtime.block_on(store.close()).unwrap();
    }
}
