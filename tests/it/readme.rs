//! What the README shows is true: its configuration runs, and its table of sensors is the folder's.

use std::time::Duration;

use crate::rig::clickhouse::Engine;
use crate::rig::gateway::{Hub, assert_balanced, wait_for};
use crate::rig::mosquitto::{Mosquitto, note};
use crate::rig::pty::Pty;

const README: &str = include_str!("../../README.md");

/// The README's configuration against a real broker, a real serial line and the ClickHouse engine.
#[test]
fn the_configuration_runs_and_its_rows_are_there_once_each() {
    let Some(mosquitto) = Mosquitto::start() else { return };
    let Some(engine) = Engine::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug(&port);
    let mut hub = Hub::new("");
    let settings = engine.settings();
    let block = README.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a toml block");
    let replaced = block
        .replace("[gateway]\n", &format!("[gateway]\ndata_dir = {:?}\n", hub.data_dir()))
        .replace("/dev/serial/by-id/usb-1a86_USB_Serial-if00-port0", port.to_str().unwrap())
        .replace("mqtt://broker.local:1883", &mosquitto.url())
        .replace("https://clickhouse.example:8443", &settings.url)
        .replace("\"gateway\"", &format!("{:?}\ndatabase = {:?}", settings.user.unwrap(), settings.database))
        .replace("/run/credentials/biogate.service/clickhouse", settings.password_file.unwrap().to_str().unwrap());
    // This machine's own kernel may not be synchronised; the README's hub would wait ten minutes.
    std::fs::write(hub.config(), replaced + "\n[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"100 ms\"\n")
        .unwrap();
    let (code, said, error) = hub.output(&["schema", "apply"]);
    assert_eq!(code, 0, "{said}{error}");
    let (code, said, error) = hub.output(&["check"]);
    assert_eq!(code, 0, "{said}{error}");
    hub.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut rate = 60;
    wait_for(Duration::from_secs(30), || {
        rate += 1;
        line.send(format!("HR:{rate}\n").as_bytes());
        runtime.block_on(
            mosquitto.publish(vec![note("clinic/bed-3/vitals", format!("{{\"seq\":{rate},\"hr\":{rate}}}"))]),
        );
        let heard = engine.sql("SELECT uniqExact(device_id) FROM biometric_events FINAL");
        (heard.trim() == "2").then_some(())
    })
    .expect("rows of both devices");
    assert_balanced(&hub.wait_until_drained(2, Duration::from_secs(20)));
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    let doubled = engine.sql("SELECT device_id, value, count() FROM biometric_events GROUP BY 1, 2 HAVING count() > 1");
    assert_eq!(doubled, "", "each once");
    let persons = engine.sql("SELECT DISTINCT user_id FROM biometric_events WHERE device_id = 'band-anna'");
    assert_eq!(persons.trim(), "6f1c7a52-6a0e-4f8e-9a57-0d6f7f0e5a11");
}

/// The README's Bluetooth entries are accepted; a hub with a radio is not needed for that.
#[test]
fn the_bluetooth_configuration_passes_the_check() {
    let block = toml_with("[ble]");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("room-12"), "00112233445566778899aabbccddeeff\n").unwrap();
    let block = block.replace("/run/credentials/biogate.service", folder.path().to_str().unwrap());
    let hub = Hub::new(&format!("{block}[[destination]]\nname = \"a\"\nkind = \"file\"\ndir = \"/nonexistent\"\n"));
    let (code, said, error) = hub.output(&["check", "--offline"]);
    assert!(code == 0 && said.contains("2 devices"), "{said}{error}");
}

/// The README's Kafka destination is accepted as it stands.
#[cfg(feature = "kafka")]
#[test]
fn the_kafka_destination_passes_the_check() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["kafka", "ca.pem"] {
        std::fs::write(folder.path().join(file), "secret\n").unwrap();
    }
    let here = folder.path().to_str().unwrap();
    let block =
        toml_with("exactly_once").replace("/run/credentials/biogate.service", here).replace("/etc/biogate", here);
    let (code, said, error) = Hub::new(&block).output(&["check", "--offline"]);
    assert!(code == 0 && said.contains("1 destinations"), "{said}{error}");
}

/// The block of the README that holds this.
fn toml_with(what: &str) -> &'static str {
    let blocks = README.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.into_iter().find(|block| block.contains(what)).expect("a toml block of the README")
}

const TABLE_BEGINS: &str = "<!-- sensors: written by BIOGATE_WRITE_README=1 cargo test --test it readme -->\n";
const TABLE_ENDS: &str = "<!-- end of sensors -->\n";

/// The table that `profiles list --json` gives: id, what it is, how it is reached, its types of events.
fn table_of_sensors(list: &str) -> String {
    let profiles: Vec<serde_json::Value> = serde_json::from_str(list).unwrap();
    let mut table = "| profile | what | reached by | events |\n| --- | --- | --- | --- |\n".to_owned();
    for profile in profiles {
        let claims =
            |key: &str| !matches!(profile["match"][key], serde_json::Value::Null | serde_json::Value::Bool(false));
        let reached_by = match () {
            () if claims("serial") => "serial",
            () if claims("mqtt") => "MQTT",
            () if claims("ble_service") => "Bluetooth",
            () => "Bluetooth, unconnected",
        };
        let (id, title) = (profile["id"].as_str().unwrap(), profile["title"].as_str().unwrap());
        let events: Vec<_> =
            profile["events"].as_array().unwrap().iter().map(|event| event.as_str().unwrap()).collect();
        let events = if events.is_empty() { "none".to_owned() } else { events.join(", ") };
        table += &format!("| `{id}` | {title} | {reached_by} | {events} |\n");
    }
    table
}

#[test]
fn the_table_of_sensors_is_that_of_the_profiles() {
    let (code, list, error) = Hub::new("").output(&["profiles", "list", "--json"]);
    assert_eq!(code, 0, "{error}");
    let made = table_of_sensors(&list);
    let (before, rest) = README.split_once(TABLE_BEGINS).expect("where the table begins");
    let (table, after) = rest.split_once(TABLE_ENDS).expect("where the table ends");
    if std::env::var_os("BIOGATE_WRITE_README").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        std::fs::write(path, [before, TABLE_BEGINS, &made, TABLE_ENDS, after].concat()).unwrap();
    } else {
        assert_eq!(table, made, "write it with BIOGATE_WRITE_README=1 cargo test --test it readme");
    }
}
