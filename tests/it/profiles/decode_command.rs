//! `biogate decode`: the object that it prints, and when a frame counts as refused.

use biogate::cli::decode::DecodeArgs;
use clap::{Args, FromArgMatches};
use serde_json::{Value, json};

fn decode(arguments: &[&str]) -> anyhow::Result<(Value, bool)> {
    let command = DecodeArgs::augment_args(clap::Command::new("decode"));
    let matches = command.try_get_matches_from([&["decode"], arguments].concat())?;
    DecodeArgs::from_arg_matches(&matches)?.answer()
}

#[test]
fn a_good_frame_is_one_object_with_all_its_parts() {
    let (object, refused) = decode(&[
        "--profile",
        "bluetooth-health-thermometer",
        "--channel",
        "2a1c",
        "--hex",
        "06 710100ff ea07 0b 17 08 1e 00 01",
        "--timezone",
        "Europe/Berlin",
    ])
    .unwrap();
    assert!(!refused);
    assert_eq!(
        object,
        json!({
            "profile": "bluetooth-health-thermometer",
            "fields": { "flags": 6, "fahrenheit": false, "has_time": true, "has_site": true, "temperature": 36.9,
                "measured_at": "2026-11-23T08:30:00", "site": "armpit" },
            "events": [{ "event_type": "temperature", "component": "body", "value": 36.9, "unit": "Cel",
                "measured_at": "2026-11-23T07:30:00Z", "metadata": { "site": "armpit" } }],
            "missing": [], "withheld": [], "faults": [],
        })
    );
}

#[test]
fn special_values_are_null_and_missing() {
    let (object, refused) =
        decode(&["--profile", "bluetooth-health-thermometer", "--channel", "2A1C", "--hex", "0000008000"]).unwrap();
    assert!(!refused);
    assert_eq!((&object["fields"]["temperature"], &object["missing"]), (&Value::Null, &json!(["temperature"])));
    assert_eq!(object["fields"]["fahrenheit"], json!(false));
}

#[test]
fn a_refused_frame_keeps_what_was_read_before() {
    let (object, refused) =
        decode(&["--profile", "bluetooth-heart-rate", "--channel", "2a37", "--hex", "1700 50"]).unwrap();
    assert!(refused);
    assert_eq!(object["events"], json!([]));
    assert_eq!(object["faults"][0]["kind"], "refused");
    assert_eq!(object["fields"]["wide"], json!(true));
}

#[test]
fn frames_are_taken_in_order_and_gathered() {
    let (object, _) =
        decode(&["--profile", "serial-vitals-line", "--channel", "frame", "--text", "S:1042", "--text", "S:1050"])
            .unwrap();
    assert_eq!(object["events"][0]["value"], json!(8.0));
    let mut arguments = vec!["--profile", "nonin-oem3", "--channel", "frame"];
    let frames: Vec<String> = (0..25u8)
        .map(|n| {
            let frame = [
                1,
                0x80 | u8::from(n == 0),
                0x40,
                match n {
                    1 => 72,
                    2 => 97,
                    _ => 0,
                },
            ];
            let sum = frame.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            frame.iter().chain([&sum]).map(|byte| format!("{byte:02x}")).collect()
        })
        .collect();
    for frame in &frames {
        arguments.extend(["--hex", frame.as_str()]);
    }
    let (object, refused) = decode(&arguments).unwrap();
    let values: Vec<f64> = object["events"].as_array().unwrap().iter().filter_map(|e| e["value"].as_f64()).collect();
    assert_eq!((values, refused), (vec![97.0, 72.0], false));
}

#[test]
fn wrong_usage_names_what_there_is() {
    let says = |arguments: &[&str], part: &str| {
        let error = format!("{:#}", decode(arguments).unwrap_err());
        assert!(error.contains(part), "{error}");
    };
    says(&["--profile", "bthome-v3", "--channel", "frame", "--hex", "00"], "did you mean \"bthome-v2\"?");
    says(&["--profile", "bthome-v2", "--channel", "frame", "--hex", "00"], "has advertisement");
    says(&["--profile", "bthome-v2", "--channel", "advertisement", "--service-data", "fe95", "--hex", "00"], "fe95");
    says(&["--profile", "bthome-v2", "--channel", "advertisement"], "--hex");
    says(&["--profile", "/nowhere/x.toml", "--channel", "frame", "--hex", "00"], "/nowhere/x.toml");
    says(&["--profile", "bthome-v2", "--channel", "advertisement", "--hex", "0x"], "hexadecimal");
}
