//! The shipped profiles, and any bytes through each of their channels.

use std::time::{Duration, Instant};

use biogate::interpret::frame::readings_of;
use biogate::interpret::{Catalog, DeviceMemory, EntryBinding, Limits, ProfileSet, builtin};
use bytes::Bytes;
use proptest::prelude::*;

use super::{Device, reading};

#[test]
fn every_shipped_profile_loads_so_its_examples_hold() {
    let set = ProfileSet::builtin().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(set.iter().count(), builtin::FILES.len());
}

#[test]
fn every_channel_has_a_good_and_a_refused_example() {
    for profile in ProfileSet::builtin().unwrap().iter() {
        for (channel, good, refused) in profile.examples() {
            assert!(good > 0 && refused > 0, "{} {channel}: {good} good, {refused} refused", profile.id());
        }
    }
}

#[test]
fn a_shipped_profile_is_refused_when_any_number_in_its_good_examples_is_wrong() {
    // The examples can fail: 97 percent is expected where 98 is sent.
    let (_, text) = builtin::FILES.iter().find(|(name, _)| *name == "contec-cms50.toml").unwrap();
    let wrong = text.replacen("events = [{ spo2 = 97 }", "events = [{ spo2 = 98 }", 1);
    assert!(wrong != *text && biogate::interpret::Profile::parse("cms", &wrong).is_err());
}

#[test]
fn the_profile_that_the_guide_writes_loads() {
    let guide = include_str!("../../../docs/profiles.md");
    let blocks = guide.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let profile: String = blocks.map(|(block, _)| block).collect();
    let device = Device::of(&profile);
    assert_eq!(device.profile().examples().map(|(_, good, refused)| (good, refused)).collect::<Vec<_>>(), [(2, 2)]);
}

#[test]
fn sources_find_link_and_frame_settings() {
    let device = Device::shipped("contec-cms50dplus");
    let link = device.profile().link();
    assert_eq!(link.baud, Some(115_200));
    assert_eq!(link.init, [Bytes::from_static(&[0x7d, 0x81, 0xa1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80])]);
    let keepalive = link.keepalive.as_ref().unwrap();
    assert_eq!((keepalive.every, keepalive.send[0][2]), (Duration::from_secs(5), 0xaf));
    let oem3 = Device::shipped("nonin-oem3");
    assert_eq!(oem3.profile().frame().unwrap().gather.unwrap().frames, 25);
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(any::<u8>(), 0..400),
        // Flags that promise much, and little behind them.
        (any::<u8>(), prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..24))
            .prop_map(|(first, rest)| [vec![first], rest].concat()),
        "[-HRTS:,.0-9{}\"a-z\\[\\] ]{0,80}".prop_map(String::into_bytes),
        "\\{\"(hr|ts|steps|bp|temp)\":(-?[0-9]{1,25}|null|\"x\"|\\{\"c\":[0-9.e+]{1,6}\\})\\}"
            .prop_map(String::into_bytes),
    ]
}

/// One catalog with an entry for each shipped profile.
fn everything() -> (ProfileSet, Catalog) {
    let set = ProfileSet::builtin().unwrap();
    let bind = |id: &str| EntryBinding { entry: id.into(), profile: id.to_owned(), component: None, key: None };
    let bindings = set.iter().map(|profile| bind(profile.id())).collect();
    let catalog = Catalog::new(&set, bindings, Limits::default()).unwrap();
    (set, catalog)
}

#[test]
fn any_bytes_are_safe_in_every_channel() {
    let (set, catalog) = everything();
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 2_000, ..ProptestConfig::default() });
    let outcome = runner.run(&any_frame(), |bytes| {
        for profile in set.iter() {
            for channel in profile.channels().map(|channel| channel.name) {
                let mut reading = reading(profile, channel, &bytes, 1);
                reading.entry = profile.id().clone();
                let said = catalog.interpret(&reading, 1, &mut DeviceMemory::default());
                for observation in said.observations.iter().chain(said.implausible.iter().map(|(o, _)| o)) {
                    prop_assert!(observation.value.is_finite());
                }
                prop_assert!(said.observations.len() <= bytes.len() + 8);
                let explained = catalog.explain(&reading, 1, &mut DeviceMemory::default());
                prop_assert_eq!(&explained.interpretation.observations, &said.observations);
                prop_assert_eq!(&explained.interpretation.faults, &said.faults);
                if let Some(spec) = profile.frame() {
                    let _checked_without_panic = readings_of(Some(spec), vec![Bytes::from(bytes.clone())]);
                }
            }
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_megabyte_of_anything_takes_bounded_time() {
    let (set, catalog) = everything();
    let texts: [Vec<u8>; 7] = [
        vec![0xff; 1 << 20],
        vec![0x00; 1 << 20],
        // BTHome: a text of no length again and again.
        [vec![0x40], [0x53, 0x00].repeat(1 << 19)].concat(),
        "HR:1,".repeat(200_000).into_bytes(),
        "SPO2=".repeat(200_000).into_bytes(),
        [vec![b' '; 1 << 20], b"x".to_vec()].concat(),
        format!("{}1{}", "[".repeat(100), "]".repeat(100)).into_bytes(),
    ];
    for bytes in &texts {
        for profile in set.iter() {
            for channel in profile.channels().map(|channel| channel.name) {
                let mut reading = reading(profile, channel, bytes, 1);
                reading.entry = profile.id().clone();
                let start = Instant::now();
                let _said = catalog.interpret(&reading, 1, &mut DeviceMemory::default());
                // Unoptimised and beside other tests; a quadratic step would take minutes.
                assert!(start.elapsed() < Duration::from_secs(5), "{} {channel}: {:?}", profile.id(), start.elapsed());
            }
        }
    }
}

proptest! {
    /// A number that lies in any pieces over two bytes is the number.
    #[test]
    fn bits_join_however_they_are_scattered(number: u16, cut in 1u32..15) {
        let piece = |high: u32, low: u32| {
            // Bit 15 of the number is bit 7 of byte 0; a piece may not cross a byte.
            let byte = |bit: u32| 1 - bit / 8;
            if byte(high) == byte(low) {
                vec![format!("\"b{}.{}-{}\"", byte(high), high % 8, low % 8)]
            } else {
                vec![format!("\"b0.{}-0\"", high - 8), format!("\"b1.7-{low}\"")]
            }
        };
        let pieces = [piece(15, cut), piece(cut - 1, 0)].concat().join(", ");
        let mut device = Device::of(&format!(r#"
            schema = 1
            id = "split"
            version = 1
            title = "t"
            source = "s"
            match = {{ serial = true }}
            frame = {{ cobs = true }}
            [[channel]]
            name = "frame"
            fields = [{{ name = "number", bits = [{pieces}], unit = "{{steps}}" }}]
            emit = [{{ event = "steps", value = "number" }}]
        "#));
        let said = device.hears("frame", &number.to_be_bytes(), 1);
        prop_assert_eq!(super::values(&said), vec![f64::from(number)]);
    }
}
