//! `scan` and `add` as a technician at the hub uses them: what is there, and an entry that is right or not written.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::rig::gateway::Hub;

const PERSON: &str = "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11";

fn hub() -> Hub {
    Hub::new("[[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = \"/tmp/nowhere\"\n")
}

/// `biogate add` with these lines as answers: exit code and both outputs.
fn add(hub: &Hub, arguments: &[&str], answers: &str) -> (i32, String) {
    let mut command = hub.command(&[&["add"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(said).unwrap())
}

fn written(hub: &Hub, name: &str) -> Option<String> {
    std::fs::read_to_string(hub.dir.path().join("devices.d").join(name)).ok()
}

#[test]
fn add_asks_until_the_answers_are_right_and_writes_one_file() {
    let hub = hub();
    let answers =
        format!("strap anna\nstrap-anna\nserial-vitals-lime\nserial-vitals-line\nAnna\n{PERSON}\nroom \"12\"\n");
    let (code, said) = add(&hub, &["--device", "/dev/ttyS9"], &answers);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("found \"strap anna\"") && said.contains("did you mean \"serial-vitals-line\""), "{said}");
    assert!(said.contains("\"Anna\" is no UUID") && said.contains("SIGHUP"), "{said}");
    let text = written(&hub, "strap-anna.toml").unwrap();
    assert_eq!(
        text,
        format!(
            "[[device]]\nname = \"strap-anna\"\nprofile = \"serial-vitals-line\"\nserial = \"/dev/ttyS9\"\n\
             user_id = \"{PERSON}\"\nlocation = 'room \"12\"'\n"
        )
    );
    let mode = std::fs::metadata(hub.dir.path().join("devices.d/strap-anna.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let (code, out, error) = hub.output(&["check", "--offline"]);
    assert!(code == 0 && out.contains("1 devices"), "{out}{error}");
}

#[test]
fn add_replaces_a_file_only_when_it_is_told_so() {
    let hub = hub();
    let whole = ["--device", "/dev/ttyS9", "--name", "strap", "--profile", "serial-vitals-line", "--yes"];
    assert_eq!(add(&hub, &whole, "").0, 0);
    let first = written(&hub, "strap.toml");
    let (code, said) = add(&hub, &whole, "");
    assert!(code == 1 && said.contains("strap.toml is there already"), "{said}");
    let asked = ["--device", "/dev/ttyS8", "--name", "strap", "--profile", "serial-vitals-line"];
    assert_eq!(add(&hub, &asked, "\n\nn\n").0, 1);
    assert_eq!(written(&hub, "strap.toml"), first);
    assert_eq!(add(&hub, &asked, "\n\ny\n").0, 0);
    assert!(written(&hub, "strap.toml").unwrap().contains("/dev/ttyS8"));
}

#[test]
fn add_leaves_nothing_behind_when_the_configuration_would_be_refused() {
    let hub = hub();
    // A profile for Bluetooth on a serial port: only the whole configuration tells.
    let wrong = ["--device", "/dev/ttyS9", "--name", "strap", "--profile", "bluetooth-heart-rate", "--yes"];
    let (code, said) = add(&hub, &wrong, "");
    assert!(code == 2 && said.contains("nothing was written") && said.contains("strap.toml:2"), "{said}");
    assert_eq!(std::fs::read_dir(hub.dir.path().join("devices.d")).unwrap().count(), 0);
    let right = ["--device", "/dev/ttyS9", "--name", "strap", "--profile", "serial-vitals-line", "--yes"];
    assert_eq!(add(&hub, &right, "").0, 0);
    let right = written(&hub, "strap.toml");
    let (code, _) = add(&hub, &wrong[..6], "\n\ny\n");
    assert_eq!((code, written(&hub, "strap.toml")), (2, right));
}

#[test]
fn add_says_which_option_is_missing_or_wrong() {
    let hub = hub();
    for (arguments, word) in [
        (&["--device", "ttyS9"][..], "neither an address"),
        (&["--device", "/dev/ttyS9", "--name", "x y"], "--name x y"),
        (&["--device", "/dev/ttyS9", "--name", "x", "--yes"], "--profile"),
        (&["--device", "/dev/ttyS9"], "--name"),
    ] {
        let (code, said) = add(&hub, arguments, "");
        assert!(code == 1 && said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn scan_prints_one_document_and_says_when_bluetooth_is_not_there() {
    let hub = hub();
    let (code, out, error) = hub.output(&["scan", "--for", "100 ms", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}{error}"));
    assert!(document["bluetooth"].is_array() && document["serial"].is_array(), "{out}");
    assert_eq!(code == 0, document["problem"].is_null(), "{out}{error}");
    assert_eq!(code == 0, error.is_empty(), "{error}");
}

/// A gateway as far as `scan` asks it: `/near` and nothing else.
fn gateway_that_hears(hub: &Hub, near: &Value) {
    std::fs::create_dir_all(hub.data_dir()).unwrap();
    let listener = UnixListener::bind(hub.data_dir().join("control.sock")).unwrap();
    let body = near.to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut part = [0; 512];
            while !head.ends_with(b"\r\n\r\n") {
                let read = client.read(&mut part).unwrap_or(0);
                head.extend_from_slice(&part[..read]);
                if read == 0 {
                    break;
                }
            }
            assert!(head.starts_with(b"GET /near "), "{}", String::from_utf8_lossy(&head));
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _client_has_gone = client.write_all(answer.as_bytes());
        }
    });
}

#[test]
fn scan_shows_what_the_running_gateway_hears_and_what_the_profiles_make_of_it() {
    let hub = hub();
    let near = |address: &str, name: Value, rssi: i16, services: Value, data: Value, this_one: bool| {
        json!({ "address": address, "adapter": "hci0", "name": name, "rssi": rssi, "rising": this_one,
            "this_one": this_one, "seconds": 0, "connected": false, "paired": false, "services": services,
            "service_data": data, "manufacturer": [] })
    };
    let room = json!([{ "id": "fcd2", "hex": "400161024808" }]);
    let heard = json!([
        near("A0:9E:1A:00:11:22", json!("Polar H10 1122"), -48, json!(["180d", "180f"]), json!([]), true),
        near("A4:C1:38:00:00:07", Value::Null, -76, json!([]), room, false),
        near("11:11:11:11:11:11", json!("Television"), -90, json!([]), json!([]), false),
    ]);
    gateway_that_hears(&hub, &heard);
    let (code, out, error) = hub.output(&["scan", "--for", "10 ms"]);
    assert_eq!(code, 0, "{out}{error}");
    let wanted = "\
signal     name            address            profile               value
||||  -48  Polar H10 1122  A0:9E:1A:00:11:22  bluetooth-heart-rate  -         <- this one
||    -76  -               A4:C1:38:00:00:07  bthome-v2             21.2 Cel
1 more that no profile claims; --all shows them

[[device]]
name = \"polar-h10-1122\"
profile = \"bluetooth-heart-rate\"
ble = \"A0:9E:1A:00:11:22\"
# or profile = \"bluetooth-battery\"

[[device]]
name = \"bthome-v2-0007\"
profile = \"bthome-v2\"
ble = \"A4:C1:38:00:00:07\"
";
    assert!(out.starts_with(wanted), "{out}");
    let (_, out, _) = hub.output(&["scan", "--for", "10 ms", "--json", "--all"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["bluetooth"].as_array().unwrap().len(), 3);
    assert_eq!(document["bluetooth"][1]["claims"], json!([{ "profile": "bthome-v2", "value": "21.2 Cel" }]));
    assert_eq!((&document["bluetooth"][0]["this_one"], &document["problem"]), (&json!(true), &Value::Null));
}
