//! What the gateway tells on its own machine, through the whole binary: over TCP, on the control socket, and by commands.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::rig::gateway::{Hub, wait_for};
use crate::rig::pty::Pty;

const SOON: Duration = Duration::from_secs(20);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PERSON: &str = "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11";

/// A hub with one serial device, quick commits, and `rest`.
fn hub(port: &Path, rest: &str) -> Hub {
    let hub = Hub::new("");
    let text = std::fs::read_to_string(hub.config()).unwrap();
    let archive = hub.dir.path().join("archive");
    let common = format!(
        "[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"50 ms\"\nmin_free = \"1 MiB\"\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n\
         [[device]]\nname = \"band-1\"\nprofile = \"serial-vitals-line\"\nserial = {port:?}\nuser_id = \"{PERSON}\"\n"
    );
    std::fs::write(hub.config(), text + &common + rest).unwrap();
    hub
}

/// A serial port with nobody at it.
fn port(folder: &tempfile::TempDir) -> std::path::PathBuf {
    folder.path().join("ttyUSB0")
}

/// Where it listens, as `status` says it.
fn address(hub: &Hub) -> String {
    let said = wait_for(SOON, || status(hub)?["local"]["address"].as_str().map(str::to_owned));
    said.unwrap_or_else(|| panic!("it does not listen: {:?}\n{}", status(hub), hub.log()))
}

fn status(hub: &Hub) -> Option<Value> {
    let (code, out, _) = hub.output(&["status", "--json"]);
    if code == 0 { serde_json::from_str(&out).ok() } else { None }
}

/// The status line's number, the head and the body.
fn ask(address: &str, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    (code, head.to_ascii_lowercase(), body.to_owned())
}

fn get(address: &str, path: &str) -> (u16, String, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

fn say(pty: &mut Pty, rate: u32) {
    pty.send(format!("HR:{rate}\n").as_bytes());
}

#[test]
fn a_monitoring_system_reads_health_readiness_and_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let mut pty = Pty::plug(&port(&folder));
    let mut hub = hub(&port(&folder), "[local]\nlisten = \"127.0.0.1:0\"\n");
    hub.start();
    let address = address(&hub);
    let heard = wait_for(SOON, || {
        say(&mut pty, 71);
        let (_, _, body) = get(&address, "/metrics");
        (!body.contains("biogate_observations_total{outcome=\"stored\"} 0\n")).then_some(())
    });
    heard.unwrap_or_else(|| panic!("nothing is stored: {}", hub.log()));
    hub.wait_until_drained(1, SOON);
    let (code, head, body) = get(&address, "/healthz");
    assert_eq!((code, body.as_str()), (200, "alive\n"));
    assert!(head.contains("x-content-type-options: nosniff") && head.contains("cache-control: no-store"), "{head}");
    let (code, _, body) = get(&address, "/readyz");
    assert_eq!((code, body.as_str()), (200, "{\"ready\":true,\"offline\":false,\"reasons\":[]}"));
    let (code, head, metrics) = get(&address, "/metrics");
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    for line in [
        "biogate_ready 1",
        "biogate_destination_up{destination=\"archive\"} 1",
        "biogate_destination_waiting_events{destination=\"archive\"} 0",
        "biogate_sources{kind=\"serial\"} 1",
        "biogate_device_trouble{device=\"band-1\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in:\n{metrics}");
    }
    exposition_is_right(&metrics);
    let (code, _, body) = get(&address, "/api/status");
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (code, &document["gateway"], &document["devices"][0]["kind"]),
        (200, &"hub-test".into(), &"serial".into())
    );
    for told in [&metrics, &body] {
        assert!(!told.contains(PERSON) && !told.contains("heart_rate"), "{told}");
    }
    assert_eq!(hub.stop(), 0);
}

#[test]
fn nobody_else_is_answered_and_nothing_is_changed_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = hub(&port(&folder), "[local]\nlisten = \"127.0.0.1:0\"\n");
    hub.start();
    let address = address(&hub);
    let (code, _, said) = ask(&address, "GET /api/status HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(code == 421 && said.contains("hosts"), "{code} {said}");
    assert_eq!(ask(&address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").0, 200);
    for path in ["/tap", "/record", "/quarantine", "/export", "/verify", "/near", "/"] {
        assert_eq!(get(&address, path).0, 404, "{path}");
    }
    let (code, head, _) = ask(&address, "POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}");
    assert!(code == 405 && head.contains("allow: get"), "{code} {head}");
    // A client that says nothing, and one that never ends its head, cost a place for a while and nothing else.
    let _idle: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let mut endless = TcpStream::connect(&address).unwrap();
    endless.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    assert_eq!(get(&address, "/healthz").0, 200);
    endless.set_read_timeout(Some(SOON)).unwrap();
    let mut said = String::new();
    let ended = endless.read_to_string(&mut said);
    assert!(ended.is_ok() && !said.contains(" 200 "), "{ended:?} {said}");
    assert_eq!(hub.stop(), 0);
}

#[test]
fn off_loopback_a_token_is_needed_and_without_one_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let bare = hub(&port(&folder), "[local]\nlisten = \"0.0.0.0:0\"\n");
    let (code, _, said) = bare.output(&["run"]);
    assert!(code == 2 && said.contains("token_file"), "{code} {said}");
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let mut hub = hub(&port(&folder), &format!("[local]\nlisten = \"0.0.0.0:0\"\ntoken_file = {token:?}\n"));
    hub.start();
    let address = address(&hub).replace("0.0.0.0", "127.0.0.1");
    let (code, head, _) = get(&address, "/metrics");
    assert!(code == 401 && head.contains("www-authenticate: bearer"), "{code} {head}");
    let with = |shown: &str| {
        ask(&address, &format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: {shown}\r\n\r\n")).0
    };
    assert_eq!(with(&format!("Bearer {TOKEN}")), 200);
    for wrong in ["Bearer x".to_owned(), format!("Bearer {TOKEN}0"), format!("Basic {TOKEN}"), "Bearer ".to_owned()] {
        assert_eq!(with(&wrong), 401, "{wrong}");
    }
    assert!(!hub.log().contains(TOKEN));
    assert_eq!(hub.stop(), 0);
}

#[test]
fn a_port_in_use_is_said_and_the_gateway_runs_on_and_takes_it_when_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let mut hub = hub(&port(&folder), &format!("[local]\nlisten = \"{listen}\"\n"));
    hub.start();
    let said = wait_for(SOON, || status(&hub)?["local"]["trouble"].as_str().map(str::to_owned));
    assert!(said.is_some_and(|said| said.contains(&listen.to_string())), "{}", hub.log());
    let (_, table, _) = hub.output(&["status"]);
    assert!(table.contains("answers     NOT: cannot listen"), "{table}");
    assert!(hub.is_running() && hub.log().contains("runs on without it"), "{}", hub.log());
    drop(taken);
    assert_eq!(address(&hub), listen.to_string());
    assert_eq!(hub.stop(), 0);
}

#[test]
fn a_destination_that_refuses_makes_the_gateway_unready_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut pty = Pty::plug(&port(&folder));
    let mut hub = hub(&port(&folder), "[local]\nlisten = \"127.0.0.1:0\"\n");
    // Where the folder should be made there is a file.
    std::fs::write(hub.dir.path().join("archive"), "").unwrap();
    hub.start();
    let address = address(&hub);
    let unready = wait_for(SOON, || {
        say(&mut pty, 71);
        Some(get(&address, "/readyz")).filter(|(code, _, body)| *code == 503 && body.contains("cannot"))
    });
    let (_, _, body) = unready.unwrap_or_else(|| panic!("{:?}\n{}", get(&address, "/readyz"), hub.log()));
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert!(ready["reasons"][0].as_str().unwrap().starts_with("destination archive: "), "{body}");
    assert_eq!(get(&address, "/healthz").0, 200, "alive it is");
    assert!(get(&address, "/metrics").2.contains("\nbiogate_ready 0\n"));
    let (code, table, _) = hub.output(&["status"]);
    assert!(code == 0 && table.contains("NOT READY   destination archive: "), "{table}");
    std::fs::remove_file(hub.dir.path().join("archive")).unwrap();
    let ready = wait_for(SOON, || (get(&address, "/readyz").0 == 200).then_some(()));
    assert!(ready.is_some(), "{:?}", get(&address, "/readyz"));
    assert_eq!(hub.stop(), 0);
}

#[test]
fn who_is_offline_by_setting_keeps_everything_and_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let mut pty = Pty::plug(&port(&folder));
    let mut hub = hub(&port(&folder), "[local]\nlisten = \"127.0.0.1:0\"\n");
    let online = std::fs::read_to_string(hub.config()).unwrap();
    std::fs::write(hub.config(), online.replace("[gateway]\n", "[gateway]\noffline = true\n")).unwrap();
    hub.start();
    let address = address(&hub);
    let waiting = wait_for(SOON, || {
        say(&mut pty, 71);
        let (_, _, body) = get(&address, "/metrics");
        (!body.contains("biogate_destination_waiting_events{destination=\"archive\"} 0\n")).then_some(())
    });
    assert!(waiting.is_some(), "{}", hub.log());
    let (code, _, body) = get(&address, "/readyz");
    assert_eq!((code, body.as_str()), (200, "{\"ready\":true,\"offline\":true,\"reasons\":[]}"));
    assert!(hub.output(&["status"]).1.contains("offline by setting"));
    assert_eq!(hub.stop(), 0);
    std::fs::write(hub.config(), online).unwrap();
    hub.start();
    hub.wait_until_drained(1, SOON);
    assert_eq!(hub.stop(), 0);
}

#[test]
fn a_tap_shows_what_passes_and_masks_what_nobody_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut pty = Pty::plug(&port(&folder));
    let mut hub = hub(&port(&folder), "");
    hub.start();
    wait_for(SOON, || status(&hub)).expect("a gateway that answers");
    let mut first = |arguments: &[&str]| {
        let mut command = hub.command(arguments);
        let mut tap = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(tap.stdout.take().unwrap()).lines();
        let (send, received) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || send.send(lines.next()));
        let line = wait_for(SOON, || {
            say(&mut pty, 71);
            received.try_recv().ok()
        });
        let _ended_already = tap.kill();
        tap.wait().unwrap();
        line.flatten().and_then(Result::ok).unwrap_or_else(|| panic!("nothing passes: {}", hub.log()))
    };
    let masked = first(&["tap"]);
    // Behind the time, whose digits may be any.
    let (_, said) = masked.split_once("  ").unwrap();
    assert!(said.starts_with("band-1  heart_rate  masked") && !said.contains("71"), "{masked}");
    let open: Value =
        serde_json::from_str(&first(&["tap", "--json", "--values", "--persons", "--count", "1"])).unwrap();
    assert_eq!((&open["value"], &open["user_id"]), (&71.0.into(), &PERSON.into()), "{open}");
    let masked: Value = serde_json::from_str(&first(&["tap", "--json", "--device", "band-1"])).unwrap();
    assert_eq!((&masked["value"], &masked["user_id"]), (&"masked".into(), &"masked".into()), "{masked}");
    assert_eq!(hub.stop(), 0);
}

#[test]
fn status_follows_a_gateway_that_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = hub(&port(&folder), "");
    let mut watching = hub.command(&["status", "--watch", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let (send, lines) = std::sync::mpsc::sync_channel(1_024);
    let output = BufReader::new(watching.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    let seen = |what: &str| {
        let found = wait_for(SOON, || lines.try_iter().any(|line| line.contains(what)).then_some(()));
        assert!(found.is_some(), "{what} is not seen");
    };
    seen("no gateway runs here");
    hub.start();
    seen("hub-test runs");
    assert_eq!(hub.stop(), 0);
    seen("no gateway runs here");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

/// Every metric that is served stands in docs/metrics.md with its type, and the other way round.
#[test]
fn the_documented_metrics_are_those_that_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = hub(&port(&folder), "[local]\nlisten = \"127.0.0.1:0\"\n");
    hub.start();
    let (_, _, metrics) = get(&address(&hub), "/metrics");
    assert_eq!(hub.stop(), 0);
    let served: BTreeSet<(String, String)> = exposition_is_right(&metrics);
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        name.starts_with("biogate_").then(|| (name.to_owned(), cells[2].to_owned()))
    };
    let documented: BTreeSet<(String, String)> = document.lines().filter_map(row).collect();
    assert_eq!(served, documented);
}

/// The text is what Prometheus reads: each family once, with help and type before its samples, names as its conventions
/// want them, no sample twice. Returns the families with their types.
fn exposition_is_right(text: &str) -> BTreeSet<(String, String)> {
    let mut families = BTreeSet::new();
    let mut samples = BTreeSet::new();
    let mut current = String::new();
    let mut helped = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, sentence) = help.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(sentence.ends_with('.'), "{line}");
            helped = name.to_owned();
        } else if let Some(of_type) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of_type.split_once(' ').unwrap();
            assert!(name == helped && ["counter", "gauge"].contains(&kind), "{line}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{line}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(families.insert((name.to_owned(), kind.to_owned())), "twice: {line}");
            current = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            let name = series.split('{').next().unwrap();
            assert_eq!(name, current, "a sample outside its family");
            assert!(samples.insert(series.to_owned()), "twice: {line}");
        }
    }
    families
}
