//! What is installed beside the binary: systemd accepts the unit and finds it closed enough, and the example
//! configuration passes the program's own check.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::rig::missing;

/// docs/decisions/2026-11-24-unit-exposure.md says why it is not less.
const EXPOSURE: f64 = 1.7;

#[test]
fn systemd_accepts_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("biogate.service");
    // verify looks for the program; it is not installed here.
    let text = fs::read_to_string(shipped("biogate.service")).unwrap();
    let installed = "ExecStart=/usr/bin/biogate run\n";
    assert!(text.contains(installed), "the unit no longer says {installed}");
    fs::write(&unit, text.replace(installed, "ExecStart=/bin/true run\n")).unwrap();
    let Some(said) = analyze(&["verify", unit.to_str().unwrap()]) else { return };
    let warnings = String::from_utf8_lossy(&said.stderr);
    // verify warns of unknown keys and still exits with 0.
    let ours: Vec<&str> = warnings.lines().filter(|line| line.contains("biogate")).collect();
    assert!(said.status.success() && ours.is_empty(), "{warnings}");
}

#[test]
fn the_unit_is_not_more_exposed_than_decided() {
    let unit = shipped("biogate.service");
    let Some(said) = analyze(&["security", "--offline=true", "--no-pager", unit.to_str().unwrap()]) else { return };
    let said = String::from_utf8_lossy(&said.stdout);
    let last = said.lines().rfind(|line| line.contains("Overall exposure level")).expect("a sum");
    let exposure: f64 =
        last.split(':').nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().parse().unwrap();
    assert!(exposure <= EXPOSURE, "{exposure} is more than {EXPOSURE}:\n{said}");
    let text = fs::read_to_string(unit).unwrap();
    assert!(text.contains(&format!("an exposure of {EXPOSURE}")), "the unit's own comment says another figure");
}

#[test]
fn the_example_configuration_passes_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    for secret in ["mqtt", "clickhouse"] {
        fs::write(folder.path().join(secret), "secret\n").unwrap();
    }
    let text = fs::read_to_string(shipped("biogate.toml")).unwrap();
    // What stands there for Bluetooth is commented out and must be right for all that.
    fs::write(folder.path().join("room-12"), "00112233445566778899aabbccddeeff\n").unwrap();
    let begins = |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned();
    let text: String = text.lines().map(|line| begins(line) + "\n").collect();
    let here = text.replace("/run/credentials/biogate.service", dir).replace("/var/lib/biogate", dir);
    let config = folder.path().join("biogate.toml");
    fs::write(&config, here).unwrap();
    let check =
        Command::new(env!("CARGO_BIN_EXE_biogate")).arg("check").arg("--offline").arg("--config").arg(&config).output();
    let check = check.unwrap();
    let (said, error) = (String::from_utf8_lossy(&check.stdout), String::from_utf8_lossy(&check.stderr));
    assert!(check.status.success(), "{said}\n{error}");
}

#[test]
fn the_drivers_of_each_allowed_device_class_are_loaded_first() {
    let unit = fs::read_to_string(shipped("biogate.service")).unwrap();
    let modules = fs::read_to_string(shipped("biogate.modules-load.conf")).unwrap();
    for (class, module) in [("char-ttyUSB", "usbserial"), ("char-ttyACM", "cdc_acm")] {
        assert!(unit.contains(&format!("DeviceAllow={class} rw")), "{class} is not allowed");
        assert!(
            modules.lines().any(|line| line == module),
            "{module} is not loaded: {class} would be unknown at the start"
        );
    }
    assert!(
        unit.contains("After=local-fs.target systemd-modules-load.service"),
        "the unit may start before the drivers"
    );
}

#[test]
fn the_bus_lets_the_units_user_talk_to_bluetoothd_and_to_nobody_else() {
    let policy = fs::read_to_string(shipped("biogate-bluetooth.conf")).unwrap();
    let unit = fs::read_to_string(shipped("biogate.service")).unwrap();
    assert!(unit.contains("\nUser=biogate\n") && policy.contains("<policy user=\"biogate\">"), "{policy}");
    let rules: Vec<&str> = policy.lines().map(str::trim).filter(|line| line.starts_with("<allow")).collect();
    assert_eq!(rules, ["<allow send_destination=\"org.bluez\"/>"]);
    // A bus reads the policy as it starts and refuses a file that is no policy. Its user must be there, so root stands in.
    let folder = tempfile::tempdir().unwrap();
    let here = policy.replace("\"biogate\"", "\"root\"");
    fs::write(folder.path().join("policy.conf"), here).unwrap();
    let bus = format!(
        "<busconfig><listen>unix:tmpdir={0}</listen><include>{0}/policy.conf</include></busconfig>",
        folder.path().display()
    );
    fs::write(folder.path().join("bus.conf"), bus).unwrap();
    let mut daemon = Command::new("dbus-daemon");
    daemon.arg("--config-file").arg(folder.path().join("bus.conf")).args([
        "--nofork",
        "--nopidfile",
        "--print-address=1",
    ]);
    let Ok(mut daemon) = daemon.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
        missing("dbus-daemon");
        return;
    };
    let mut address = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
    daemon.kill().ok();
    let said = daemon.wait_with_output().unwrap();
    assert!(address.starts_with("unix:"), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn polkit_lets_the_user_restart_one_unit() {
    let rule = fs::read_to_string(shipped("biogate-bluetooth.rules")).unwrap();
    let code: Vec<&str> = rule.lines().filter(|line| !line.starts_with("//")).collect();
    let code = code.join("\n");
    assert_eq!(code.matches(".service\"").count(), 1, "exactly one unit:\n{code}");
    for condition in [
        "action.id == \"org.freedesktop.systemd1.manage-units\" &&",
        "action.lookup(\"unit\") == \"bluetooth.service\" &&",
        "action.lookup(\"verb\") == \"restart\" &&",
        "subject.user == \"biogate\")",
    ] {
        assert!(code.contains(condition), "no {condition} in:\n{code}");
    }
    assert!(!code.contains("||") && code.matches("polkit.Result.YES").count() == 1, "{code}");
}

#[test]
fn the_gateway_starts_after_bluetoothd_and_does_not_need_it() {
    let unit = fs::read_to_string(shipped("biogate.service")).unwrap();
    assert!(unit.contains("\nAfter=dbus.socket bluetooth.service\n"), "{unit}");
    for need in ["Requires=", "BindsTo=", "PartOf="] {
        assert!(!unit.contains(need), "{need} would stop the gateway with bluetoothd");
    }
}

fn shipped(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

/// `None` where systemd-analyze is not installed.
fn analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => Some(output),
        Err(_) => {
            missing("systemd-analyze");
            None
        }
    }
}
