//! A wrong profile is refused with file, line, what was found and what to write.

use biogate::interpret::{Catalog, EntryBinding, Limits, Profile, ProfileSet};

const GOOD: &str = r#"schema  = 1
id      = "test"
version = 1
title   = "t"
source  = "s"
match   = { serial = true }
frame   = { fixed = 3, sync = ["1.......", "0.......", "0......."], checksum = { kind = "xor8", over = "0..1", at = 2 } }

[[channel]]
name = "frame"
fields = [
  { name = "flags", type = "u8" },
  { name = "wide",  bits = "flags.0" },
  { name = "rate",  type = "u8", unit = "/min" },
]
emit = [
  { event = "heart_rate", value = "rate", metadata = ["wide"] },
]
examples = [
  { hex = "81 48 c9", refuse = "sync" },
  { hex = "81 48 48", refuse = "checksum" },
]
"#;

#[test]
fn the_profile_that_the_others_spoil_is_nearly_good() {
    let text = GOOD
        .replace("\"0.......\"]", "\"........\"]")
        .replace("c9\", refuse = \"sync\"", "c9\", events = [{ heart_rate = 72 }]");
    Profile::parse("good.toml", &text).unwrap_or_else(|error| panic!("{error}"));
}

/// Replaces one text by another; the error must stand on this line and say both.
fn wrong(from: &str, to: &str, line: usize, found: &str, expected: &str) {
    assert!(GOOD.contains(from), "{from}");
    let error = Profile::parse("p.toml", &GOOD.replacen(from, to, 1)).expect_err(to);
    assert_eq!(error.line, line, "{error}");
    assert!(error.found.contains(found), "found: {error}");
    assert!(error.expected.contains(expected), "expected: {error}");
    assert!(error.to_string().starts_with(&format!("p.toml:{line}: ")), "{error}");
}

#[test]
fn unknown_keys_types_words_and_events_are_named_with_the_nearest() {
    wrong("title ", "titel ", 4, "unknown key `titel`", "write `title`?");
    wrong("unit = \"/min\"", "units = \"/min\"", 14, "unknown key `units`", "write `unit`?");
    wrong("type = \"u8\" }", "type = \"u9\" }", 12, "unknown type \"u9\"", "\"u8\"");
    wrong("type = \"u8\" }", "type = \"u16\" }", 12, "unknown type \"u16\"", "\"u16le\" or \"u16be\"");
    wrong("\"heart_rate\"", "\"hart_rate\"", 17, "unknown event \"hart_rate\"", "write \"heart_rate\"?");
    wrong("xor8", "xor9", 7, "unknown checksum \"xor9\"", "write \"xor8\"?");
    wrong("version = 1", "version = \"one\"", 3, "invalid type", "expected u32");
    wrong("schema  = 1", "schema  = 2", 1, "schema = 2", "schema = 1");
    wrong("bits = \"flags.0\"", "bits = 4", 13, "found 4", "a text or a list of texts");
    wrong("serial = true", "mqtt = true", 7, "a frame without serial", "only serial");
    wrong("fixed = 3", "fixed = 3, line = \"\\n\"", 7, "several of line, fixed", "exactly one");
}

#[test]
fn bits_outside_their_byte_or_field_are_refused() {
    wrong("flags.0", "flags.8", 13, "bit 8 in \"flags.8\"", "0 to 7");
    wrong("flags.0", "b0.9-8", 13, "bit 9", "0 to 7");
    wrong("flags.0", "flags.0-3", 13, "bits 0-3", "highest first: 3-0");
    wrong("flags.0", "flag.0", 13, "no field \"flag\"", "write \"flags\"?");
    wrong("flags.0", "flags", 13, "bits = \"flags\"", "\"b0.4\"");
}

#[test]
fn names_are_unique_unless_conditions_exclude_each_other() {
    wrong("name = \"wide\", ", "name = \"flags\",", 13, "the name \"flags\" twice", "exclude each other");
    let two = "{ name = \"rate\", type = \"u8\", unit = \"/min\", unless = \"wide\" },\n  { name = \"rate\", type = \"u16le\", unit = \"/min\", if = \"wide\" },";
    let row = "{ name = \"rate\",  type = \"u8\", unit = \"/min\" },";
    wrong(row, &two.replace("unless", "if"), 15, "the name \"rate\" twice", "exclude");
    assert!(Profile::parse("p.toml", &GOOD.replacen(row, two, 1)).is_ok());
}

#[test]
fn units_that_cannot_become_the_types_own_are_refused_at_load() {
    wrong("unit = \"/min\"", "unit = \"kg\"", 17, "\"rate\" in kg", "heart_rate takes /min");
    wrong(", unit = \"/min\"", "", 17, "\"rate\" without unit", "write the unit");
    wrong("value = \"rate\"", "value = \"wide\"", 17, "value = \"wide\"", "number");
    wrong("metadata = [\"wide\"]", "metadata = [\"wild\"]", 17, "\"wild\"", "write \"wide\"?");
}

#[test]
fn a_failing_example_refuses_the_profile() {
    // The third byte is a checksum, and its pattern forbids the high bit: the frame is refused by sync.
    wrong(
        "c9\", refuse = \"sync\"",
        "c9\", events = [{ heart_rate = 72 }]",
        20,
        "example 1 of frame: refuse = \"sync\"",
        "expected a good frame",
    );
    wrong(
        "48 48\", refuse = \"checksum\"",
        "48 48\", refuse = \"rate\"",
        21,
        "example 2 of frame: refuse = \"checksum\"",
        "expected refuse = \"rate\"",
    );
    wrong("\"81 48 48\"", "\"81 48 4\"", 21, "5 hexadecimal digits", "as \"06 71 01\"");
}

#[test]
fn what_an_example_expects_and_what_came_are_both_said() {
    let good = GOOD.replace("\"0.......\"]", "\"........\"]");
    let spoil = |expectation: &str| {
        let text = good.replace("refuse = \"sync\"", expectation);
        Profile::parse("p.toml", &text).unwrap_err().to_string()
    };
    let events = spoil("events = [{ heart_rate = 73 }]");
    assert!(
        events.contains("p.toml:20: example 1")
            && events.contains("[{ heart_rate = 72 }]; expected [{ heart_rate = 73 }]"),
        "{events}"
    );
    let fields = spoil("fields = { rate = 71 }");
    assert!(fields.contains("rate is 72; expected 71"), "{fields}");
    let missing = spoil("missing = [\"rate\"]");
    assert!(missing.contains("missing []; expected [\"rate\"]"), "{missing}");
    let refused = spoil("refuse = \"rate\"");
    assert!(refused.contains("a good frame; expected refuse = \"rate\""), "{refused}");
}

#[test]
fn an_entry_with_an_unknown_profile_hears_near_names() {
    let set = ProfileSet::builtin().unwrap();
    let (entry, profile) = ("strap-anna".into(), "bluetooth-hart-rate".into());
    let binding = EntryBinding { entry, profile, component: None, key: None };
    let error = Catalog::new(&set, vec![binding], Limits::default()).unwrap_err().to_string();
    assert!(error.contains("strap-anna") && error.contains("did you mean \"bluetooth-heart-rate\""), "{error}");
}
