//! The chunk codec with arbitrary observations and arbitrary damage.

use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::Chunks;
use super::chunk::Codec;
use super::damage::{Damaged, WRONG_KEY};
use super::record::{Kind, Place, build};
use super::rows::Reading;
use super::seal::Key;
use crate::observation::{Counted, DeviceTime, EventType, Observation, Value};
use crate::reading::{BootId, Heard, RunId};

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![Just("".into()), Just("strap-anna".into()), ".{0,12}".prop_map(|text| Arc::from(text.as_str()))]
}

fn number() -> impl Strategy<Value = f64> {
    let decimal = (-1_000_000i64..1_000_000, 0..5).prop_map(|(digits, places)| digits as f64 / 10f64.powi(places));
    prop_oneof![
        decimal,
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
        Just(-0.0),
        Just(f64::MIN_POSITIVE)
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        number().prop_map(Value::Num),
        text().prop_map(Value::Text),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::List))
}

fn heard() -> impl Strategy<Value = Heard> {
    (0..3u128, any::<u64>()).prop_map(|(boot, ms)| Heard { boot: BootId(Uuid::from_u128(boot)), ms })
}

fn observation() -> impl Strategy<Value = Observation> {
    let counted = any::<(bool, i64, u64, i64)>();
    let counted = counted.prop_map(|(utc, ms, at_ms, age_ms)| Counted { utc, ms, at_ms, age_ms });
    let time = prop_oneof![
        any::<i64>().prop_map(DeviceTime::Utc),
        any::<i64>().prop_map(DeviceTime::Local),
        counted.prop_map(DeviceTime::Counted),
    ];
    let identity = any::<u128>().prop_map(Uuid::from_u128);
    let what = (any::<u64>(), any::<u16>(), text(), text(), 0..10usize, text(), number());
    let when = (heard(), prop::option::of(time), prop::option::of(heard()), prop::option::of(identity));
    let metadata = prop::collection::vec((text(), value()), 0..4);
    (what, when, metadata).prop_map(|(what, when, metadata)| Observation {
        reading: what.0,
        index: what.1,
        device: what.2,
        profile: what.3,
        event_type: EventType::ALL[what.4],
        component: what.5,
        value: what.6,
        heard: when.0,
        device_time: when.1,
        since: when.2,
        identity: when.3,
        metadata,
    })
}

fn bits(observations: &[Observation]) -> Vec<u64> {
    observations.iter().map(|observation| observation.value.to_bits()).collect()
}

const RUN: RunId = RunId(Uuid::from_u128(77));

fn codec(key: Option<u8>) -> Codec {
    Codec::new(key.map(|byte| Key::of_bytes([byte; 32]))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_observations_come_back_as_they_were(
        observations in prop::collection::vec(observation(), 1..40),
        first in 1..u64::MAX / 2,
        key in prop::option::of(any::<u8>()),
        only_for in prop::option::of(".{0,12}"),
    ) {
        let mut codec = codec(key);
        let chunk = codec.encode(RUN, first, only_for.as_deref(), &observations).unwrap();
        let back = codec.decode(&chunk).unwrap();
        prop_assert_eq!(back.only_for.as_deref(), only_for.as_deref());
        prop_assert_eq!((back.run, back.first), (RUN, first));
        prop_assert_eq!(bits(&back.observations), bits(&observations));
        prop_assert_eq!(back.observations, observations);
    }

    #[test]
    fn chunks_come_in_parts_that_are_their_observations_and_a_damaged_one_is_left_out(
        observations in prop::collection::vec(observation(), 1..40),
        only_for in prop::option::of(".{0,12}"),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut codec = codec(None);
        let count = observations.len() as u64;
        let mut record = |first: u64| {
            let chunk = codec.encode(RUN, first, only_for.as_deref(), &observations).unwrap();
            let place = Place { kind: Kind::Queue, generation: 1, record: 0 };
            (first, build(place, false, &chunk, &[]))
        };
        let mut records = [1, 1 + count, 1 + 2 * count].map(&mut record);
        let length = records[1].1.len();
        records[1].1.truncate(cut.index(length));
        let records = records.map(|(first, record)| (first, sled::IVec::from(record))).to_vec();
        let mut expected = (1..).zip(observations.iter()).chain((1 + 2 * count..).zip(observations.iter()));
        for chunk in Chunks::new(records, codec.decoder().unwrap()) {
            prop_assert_eq!((chunk.run, chunk.only_for.as_deref()), (RUN, only_for.as_deref()));
            for (sequence, observation) in (chunk.first..).zip(&chunk.observations) {
                prop_assert_eq!(expected.next(), Some((sequence, observation)));
            }
        }
        prop_assert_eq!(expected.next(), None);
    }

    #[test]
    fn a_chunk_that_is_cut_or_changed_is_told_from_a_whole_one(
        observations in prop::collection::vec(observation(), 1..10),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let mut codec = codec(None);
        let chunk = codec.encode(RUN, 1, None, &observations).unwrap();
        let at = at.index(chunk.len());
        prop_assert!(codec.decode(&chunk[..at]).is_err());
        let mut changed = chunk.clone();
        changed[at] ^= flip;
        // Two bytes of the header are unused, and covered by the CRC all the same.
        prop_assert!(codec.decode(&changed).is_err());
    }

    #[test]
    fn any_bytes_are_refused_or_read_and_never_panic(raw in prop::collection::vec(any::<u8>(), 0..200), count in 0..9u64) {
        let read = |raw: &[u8]| -> Result<_, Damaged> {
            let mut reading = Reading::begin(raw, count)?;
            Ok((reading.next(raw, count)?, reading.end(raw)?))
        };
        let _any: Result<(Vec<Observation>, Option<Arc<str>>), Damaged> = read(&raw);
        prop_assert!(codec(None).decode(&raw).is_err());
    }
}

#[test]
fn a_sealed_chunk_needs_its_key() {
    let observations = [Observation {
        reading: 1,
        index: 0,
        device: "strap-anna".into(),
        profile: "p/1".into(),
        event_type: EventType::HeartRate,
        component: "".into(),
        value: 72.0,
        heard: Heard { boot: BootId::WALL, ms: 1 },
        device_time: None,
        since: None,
        identity: None,
        metadata: Vec::new(),
    }];
    let chunk = codec(Some(1)).encode(RUN, 1, None, &observations).unwrap();
    assert!(!chunk.windows(5).any(|window| window == b"strap"));
    assert_eq!(codec(Some(2)).decode(&chunk), Err(WRONG_KEY));
    assert!(codec(None).decode(&chunk).is_err());
    assert!(codec(Some(1)).decode(&chunk).is_ok());
}
