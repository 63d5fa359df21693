//! Encrypted advertisements: replay, downgrade, restarts, and `decode` with a key.

use std::process::Command;

use biogate::interpret::{FaultKind, ProfileSet};
use proptest::prelude::*;

use super::{Device, values};

const KEY: &str = "231d39c1d7cc1ab1aee224cd096db932";
/// Sent by 54:48:E6:8F:80:A5, whose address is in the frame; counter 0x33221100.
const WITH_MAC: &str = "43a5808fe64854f196c06ffb4900112233f08ecbde";

fn bytes(hex: &str) -> Vec<u8> {
    biogate::interpret::notation::parse_hex(hex).unwrap()
}

fn sensor(key: Option<&str>) -> Device {
    Device::keyed(&ProfileSet::builtin().unwrap(), "bthome-v2", None, key)
}

#[test]
fn a_frame_heard_again_is_a_duplicate_also_after_a_restart() {
    let mut device = sensor(Some(KEY));
    let first = device.hears("advertisement", &bytes(WITH_MAC), 0);
    assert_eq!(values(&first), [25.06]);
    assert!(first.memory_changed && !first.duplicate);
    let again = device.hears("advertisement", &bytes(WITH_MAC), 600_000);
    assert!(again.duplicate && again.faults.is_empty() && again.observations.is_empty());
    assert!(!again.memory_changed, "nothing to write for a frame heard again");
    device.restarts();
    assert!(device.hears("advertisement", &bytes(WITH_MAC), 900_000).duplicate);
}

#[test]
fn a_plain_frame_of_a_device_with_a_key_is_refused_and_without_one_taken() {
    let plain = bytes("4001610248 08");
    let said = sensor(Some(KEY)).hears("advertisement", &plain, 0);
    assert_eq!(said.faults[0].field, "plain");
    assert!(said.observations.is_empty() && said.faults[0].message.contains("not encrypted"));
    // An unknown object stops reading and keeps what came before: no way around the rule.
    let stopped = sensor(Some(KEY)).hears("advertisement", &bytes("40024808f005"), 0);
    assert!(stopped.observations.is_empty() && stopped.faults[0].field == "plain");
    assert_eq!(values(&sensor(None).hears("advertisement", &plain, 0)), [21.2]);
}

#[test]
fn without_a_key_or_with_another_one_nothing_is_believed() {
    let said = sensor(None).hears("advertisement", &bytes(WITH_MAC), 0);
    assert_eq!(said.faults[0].kind, FaultKind::NoKey);
    let wrong = "814aac74c4f17b6c1581e1ab87816b99";
    let said = sensor(Some(wrong)).hears("advertisement", &bytes(WITH_MAC), 0);
    assert_eq!((said.faults[0].kind, said.faults[0].field.as_str()), (FaultKind::Refused, "key"));
    assert!(!said.memory_changed && !format!("{said:?}").contains(wrong));
    let said = sensor(Some("b853075158487ca39a5b5ea9")).hears("advertisement", &bytes(WITH_MAC), 0);
    assert!(said.faults[0].message.contains("24 digits"), "{}", said.faults[0].message);
}

#[test]
fn decode_takes_a_key_file_and_an_address_and_never_says_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sensor.key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let decode = |key_file: &std::path::Path, mac: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_biogate"));
        command.args(["decode", "--profile", "bthome-v2", "--channel", "advertisement", "--explain"]);
        command.args(["--hex", "41e445f3c9962b332211006c7c4519", "--mac", mac, "--key-file"]).arg(key_file);
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.contains(KEY), "{said}");
        (output.status.code(), said)
    };
    let (code, said) = decode(&file, "54:48:E6:8F:80:A5");
    assert!(code == Some(0) && said.contains("event     temperature (ambient) 25.06 Cel"), "{said}");
    assert!(said.contains("41 02 ca 09 03 bf 13"), "the plain bytes are drawn:\n{said}");
    let (code, said) = decode(&file, "54:48:E6:8F:80:A6");
    assert!(code == Some(1) && said.contains("the key does not fit"), "{said}");
    let (code, said) = decode(&file, "5448E68F80A5");
    assert!(code == Some(2) && said.contains("write six bytes"), "{said}");
    std::fs::write(&file, &KEY[..30]).unwrap();
    let (code, said) = decode(&file, "54:48:E6:8F:80:A5");
    assert!(code == Some(2) && said.contains("sensor.key") && said.contains("30 characters"), "{said}");
    assert!(!said.contains(&KEY[..30]), "{said}");
}

proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused(mut frame in proptest::collection::vec(any::<u8>(), 0..64), mi in any::<bool>()) {
        let (id, encrypted) = if mi { ("xiaomi-mibeacon", [0x58, 0x58]) } else { ("bthome-v2", [0x41, 0]) };
        frame.iter_mut().zip(encrypted).take(if mi { 2 } else { 1 }).for_each(|(byte, wanted)| *byte = wanted);
        thread_local!(static SET: ProfileSet = ProfileSet::builtin().unwrap());
        let said = SET.with(|set| Device::keyed(set, id, None, Some(KEY)).hears("advertisement", &frame, 0));
        prop_assert!(said.observations.is_empty() && !said.faults.is_empty());
    }
}
