//! Whom entries claim, whom they refuse, and what hostile names do.

use proptest::prelude::*;

use std::sync::Arc;

use super::*;

const STRAP: &str = "A0:9E:1A:00:11:22";
const OTHER: &str = "A0:9E:1A:00:11:23";

fn seen<'a>(address: &'a str, name: &'a str) -> Seen<'a> {
    Seen { address, name: Some(name), services: &[] }
}

fn allow(targets: &[Target]) -> Allow {
    Allow::new(&targets.iter().cloned().enumerate().collect::<Vec<_>>())
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

#[test]
fn addresses_and_names_are_read_and_addresses_are_upper_case() {
    assert_eq!(target("a0:9e:1a:00:11:22"), Target::Address(STRAP.into()));
    assert_eq!(target("name:Polar H10*"), Target::Name("Polar H10*".into()));
    assert_eq!(target("name:*Scale"), Target::Name("*Scale".into()));
}

#[test]
fn errors_say_what_was_found_and_what_to_write() {
    let error = |text: &str| text.parse::<Target>().unwrap_err().to_string();
    for text in ["", "Polar", "A0:9E:1A:00:11", "A0:9E:1A:00:11:2G", "A0-9E-1A-00-11-22", "A0:9E:1A:00:11:22:33"] {
        assert_eq!(
            error(text),
            format!("found {text:?}; write an address like \"A0:9E:1A:00:11:22\" or a name like \"name:Polar H10*\"")
        );
    }
    for text in ["name:", "name:*", "name:**", "name: * "] {
        assert!(error(text).contains("strangers' sensors; write the beginning of the name"), "{text}");
    }
    assert!(error("name:a\u{7}b").contains("control characters"));
    assert!(error(&format!("name:{}", "x".repeat(10_000))).len() < 200);
}

#[test]
fn an_address_beats_a_name_and_a_name_beats_a_service() {
    let now = Instant::now();
    let mut allow = allow(&[Target::Service("180d".into()), target("name:Polar*"), target(STRAP)]);
    let services = [Arc::from("180D")];
    let full = |address, name| Seen { address, name, services: &services };
    assert_eq!(allow.claim(now, full("a0:9e:1a:00:11:22", Some("Polar H10"))), Claim::Device(2));
    assert_eq!(allow.claim(now, full(OTHER, Some("Polar H10"))), Claim::Device(1));
    assert_eq!(allow.claim(now, full("00:00:00:00:00:01", Some("Strap"))), Claim::OfService(0));
    assert_eq!(allow.claim(now, full("00:00:00:00:00:02", None)), Claim::OfService(0));
    assert_eq!(allow.claim(now, seen("00:00:00:00:00:03", "Strap")), Claim::NotListed);
}

#[test]
fn an_entry_with_a_name_is_one_device_and_follows_when_that_is_gone() {
    let now = Instant::now();
    let mut allow = allow(&[target("name:Polar*")]);
    assert_eq!(allow.claim(now, seen(STRAP, "Polar H10")), Claim::Device(0));
    assert_eq!(allow.claim(now, Seen { address: STRAP, name: None, services: &[] }), Claim::Device(0));
    assert_eq!(allow.claim(now, seen(OTHER, "Polar H10")), Claim::Another(0, Told::Now));
    assert_eq!(allow.claim(now, seen(OTHER, "Polar H10")), Claim::Another(0, Told::Before));
    assert_eq!(allow.refused(), Refused { another: 2, too_many: 0 });
    let later = now + REBIND_AFTER;
    assert_eq!(allow.claim(later, seen(OTHER, "Polar H10")), Claim::Device(0));
    assert_eq!(allow.claim(later, seen(STRAP, "Polar H10")), Claim::Another(0, Told::Now));
}

#[test]
fn a_linked_device_keeps_its_entry_without_being_heard() {
    let now = Instant::now();
    let mut allow = allow(&[target("name:Polar*")]);
    allow.claim(now, seen(STRAP, "Polar H10"));
    allow.linked(STRAP);
    let later = now + 10 * REBIND_AFTER;
    assert_eq!(allow.claim(later, seen(OTHER, "Polar H10")), Claim::Another(0, Told::Now));
    allow.freed(later, STRAP);
    assert_eq!(allow.claim(later, seen(OTHER, "Polar H10")), Claim::Another(0, Told::Before));
    assert_eq!(allow.claim(later + REBIND_AFTER, seen(OTHER, "Polar H10")), Claim::Device(0));
}

#[test]
fn two_entries_with_one_name_are_two_devices() {
    let now = Instant::now();
    let mut allow = allow(&[target("name:Cuff"), target("name:Cuff")]);
    assert_eq!(allow.claim(now, seen(STRAP, "Cuff")), Claim::Device(0));
    assert_eq!(allow.claim(now, seen(OTHER, "Cuff")), Claim::Device(1));
    assert_eq!(allow.claim(now, seen(STRAP, "Cuff")), Claim::Device(0));
}

#[test]
fn a_service_takes_sensors_up_to_the_cap_and_forgets_the_absent() {
    let now = Instant::now();
    let mut allow = allow(&[Target::Service("180d".into())]);
    let services = [Arc::from("0000180d-0000-1000-8000-00805f9b34fb")];
    let address = |n: usize| format!("00:00:00:00:00:{n:02X}");
    let claim =
        |allow: &mut Allow, now, n| allow.claim(now, Seen { address: &address(n), name: None, services: &services });
    for n in 0..MOST_OF_SERVICES {
        assert_eq!(claim(&mut allow, now, n), Claim::OfService(0));
    }
    assert_eq!(claim(&mut allow, now, 100), Claim::TooMany(0, Told::Now));
    assert_eq!(claim(&mut allow, now, 101), Claim::TooMany(0, Told::Before));
    assert_eq!(allow.refused().too_many, 2);
    assert_eq!(claim(&mut allow, now, 3), Claim::OfService(0));
    allow.linked(&address(3));
    assert_eq!(claim(&mut allow, now + FORGET_AFTER, 100), Claim::OfService(0));
    assert_eq!(allow.of_services.len(), 2);
}

#[test]
fn ids_are_made_of_the_digits_of_the_address() {
    assert_eq!(device_id("a0:9e:1a:00:11:22"), "ble-A09E1A001122");
    assert_eq!(device_id(&"../\n1".repeat(1_000)), "ble-111111111111");
}

#[test]
fn globs_fit_whole_names_and_know_upper_case() {
    for (pattern, name) in
        [("Polar H10*", "Polar H10 A1"), ("*Scale", "My Scale"), ("A*B*C", "AxBBxC"), ("Cuff", "Cuff")]
    {
        assert!(glob(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in
        [("Polar H10*", "polar H10"), ("Cuff", "Cuff 2"), ("*Scale", "Scale 2"), ("A*B", ""), ("", "x")]
    {
        assert!(!glob(pattern, name), "{pattern} {name}");
    }
}

#[test]
fn hostile_names_and_patterns_are_harmless() {
    let now = Instant::now();
    let mut allow = allow(&[Target::Name("*a".repeat(124).into()), target("name:Polar*")]);
    let long = format!("Polar{}", "a".repeat(10_000));
    assert_eq!(allow.claim(now, seen(STRAP, &long)), Claim::NotListed);
    assert_eq!(allow.claim(now, seen(STRAP, &"ab".repeat(124))), Claim::NotListed);
    assert_eq!(allow.claim(now, seen(STRAP, "\u{1b}[2J\0\u{202e}")), Claim::NotListed);
}

proptest! {
    #[test]
    fn globs_agree_with_the_plain_definition(pattern in "[ab*]{0,7}", name in "[ab]{0,9}") {
        fn plain(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern, name) {
                ([], name) => name.is_empty(),
                ([b'*', rest @ ..], name) => (0..=name.len()).any(|taken| plain(rest, &name[taken..])),
                ([byte, pattern @ ..], [first, name @ ..]) => byte == first && plain(pattern, name),
                (_, []) => false,
            }
        }
        prop_assert_eq!(glob(&pattern, &name), plain(pattern.as_bytes(), name.as_bytes()));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}", name in "\\PC{0,40}", service in "\\PC{0,40}") {
        let listed = text.parse::<Target>().into_iter().chain([Target::Service(service.clone().into())]);
        let mut allow = allow(&listed.collect::<Vec<_>>());
        allow.claim(Instant::now(), Seen { address: &text, name: Some(&name), services: &[service.into()] });
    }
}
