//! What a wrong configuration gets: exit code 2, the file, the line, what was found and what to write.

use crate::rig::gateway::Hub;
use crate::rig::missing;

/// `[[destination]]` into a folder: the least that a configuration needs.
const ARCHIVE: &str = "[[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = \"/nonexistent/archive\"\n";

/// Three lines of `[gateway]` stand before each of these texts.
#[test]
fn each_mistake_is_named_with_its_place_and_what_to_write() {
    let device = |rest: &str| format!("{ARCHIVE}[[device]]\nname = \"strap\"\n{rest}");
    let cases: Vec<(String, &str, &[&str])> = vec![
        (format!("{ARCHIVE}[store]\nmax_bites = \"2 GiB\"\n"), "biogate.toml:9", &["max_bites", "max_bytes"]),
        (format!("{ARCHIVE}[store]\nmax_bytes = \"2 Gobi\"\n"), "biogate.toml:9", &["2 Gobi", "64 MiB"]),
        (format!("{ARCHIVE}[store]\nmax_bytes = 7\n"), "biogate.toml:9", &["integer", "string"]),
        (format!("{ARCHIVE}[store]\nwhen_full = \"panic\"\n"), "biogate.toml:9", &["panic", "evict-oldest", "pause-sources"]),
        (format!("{ARCHIVE}[clock]\nmax_hold = \"soon\"\n"), "biogate.toml:9", &["soon", "forever"]),
        (format!("{ARCHIVE}[limits]\nheart_beat = [1, 2]\n"), "biogate.toml", &["heart_beat", "heart_rate"]),
        (format!("{ARCHIVE}[limits]\nheart_rate = [300, 20]\n"), "biogate.toml", &["300", "lower end first"]),
        (device("serial = \"/dev/ttyS1\"\n"), "biogate.toml:9", &["strap", "no profile"]),
        (device("serial = \"/dev/ttyS1\"\nprofile = \"contec-cms5\"\n"), "biogate.toml", &["strap", "contec-cms5", "contec-cms50"]),
        (device("profile = \"serial-vitals-line\"\nserial = \"ttyS1\"\n"), "biogate.toml:9", &["ttyS1", "usb:10C4:EA60"]),
        (device("profile = \"bluetooth-battery\"\nserial = \"/dev/ttyS1\"\n"), "biogate.toml:9", &["not for serial lines"]),
        (
            device("profile = \"mqtt-vitals-json\"\nmqtt = \"a/{device\"\n[[mqtt]]\nname = \"w\"\nurl = \"mqtt://x\"\n"),
            "biogate.toml:9",
            &["a/{device"],
        ),
        (device("profile = \"serial-vitals-line\"\n"), "biogate.toml:9", &["names no sensor", "serial"]),
        (device("profile = \"p\"\nserial = \"/dev/ttyS1\"\nmqtt = \"a/b\"\n"), "biogate.toml:9", &["exactly one"]),
        (device("profile = \"mqtt-vitals-json\"\nmqtt = \"a/b\"\n"), "biogate.toml:9", &["[[mqtt]]"]),
        (
            device("profile = \"serial-vitals-line\"\nserial = \"/dev/ttyS1\"\n[[device]]\nname = \"strap\"\nprofile = \"serial-vitals-line\"\nserial = \"/dev/ttyS2\"\n"),
            "biogate.toml:13",
            &["second device", "strap", "biogate.toml:9"],
        ),
        (
            "[[destination]]\nname = \"w\"\nkind = \"clickhouse\"\nurl = \"https://x:8443\"\npassword_file = \"/nonexistent/secret\"\n".to_owned(),
            "biogate.toml:5",
            &["password_file", "/nonexistent/secret"],
        ),
        ("[[destination]]\nname = \"w\"\nkind = \"clickhouse\"\n".to_owned(), "biogate.toml:5", &["no url"]),
        ("[[destination]]\nname = \"w\"\nkind = \"influx\"\n".to_owned(), "biogate.toml:5", &["influx", "clickhouse"]),
        (
            device("profile = \"serial-vitals-line\"\nserial = \"/dev/ttyS1\"\nkey_file = \"/nonexistent/key\"\n"),
            "biogate.toml:9",
            &["key_file", "/nonexistent/key", "cannot be read"],
        ),
        (
            device("profile = \"serial-vitals-line\"\nserial = \"/dev/ttyS1\"\nkey_file = \"/etc/hostname\"\n"),
            "biogate.toml:9",
            &["key_file", "/etc/hostname", "32 hexadecimal digits"],
        ),
        (String::new(), "biogate.toml", &["no destination", "[[destination]]"]),
        (format!("{ARCHIVE}[[mqtt]]\nname = \"ward\"\nurl = \"tcp://x\"\n"), "biogate.toml:9", &["tcp://x", "mqtt://"]),
    ];
    for (text, place, words) in cases {
        let hub = Hub::new(&text);
        for command in ["check", "run"] {
            let (code, _, error) = hub.output(&[command]);
            assert_eq!(code, 2, "{text}\n{error}");
            assert!(error.contains(place), "no {place} in: {error}\n{text}");
            for word in words {
                assert!(error.contains(word), "no {word} in: {error}\n{text}");
            }
        }
    }
}

#[test]
fn drop_in_folders_are_merged_by_name() {
    let hub = Hub::new(&format!(
        "{ARCHIVE}[[device]]\nname = \"strap\"\nprofile = \"serial-vitals-line\"\nserial = \"/dev/ttyS1\"\n"
    ));
    let folder = hub.dir.path();
    std::fs::create_dir_all(folder.join("conf.d")).unwrap();
    std::fs::create_dir_all(folder.join("devices.d")).unwrap();
    let archive = folder.join("archive");
    std::fs::write(
        folder.join("conf.d/10-fleet.toml"),
        format!("[[destination]]\nname = \"archive\"\ndir = {archive:?}\n"),
    )
    .unwrap();
    std::fs::write(folder.join("devices.d/strap.toml"), "[[device]]\nname = \"strap\"\nlocation = \"room 12\"\n")
        .unwrap();
    let (code, out, error) = hub.output(&["check", "--offline"]);
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.contains("1 devices, 0 brokers, 1 destinations"), "{out}");
    std::fs::write(
        folder.join("devices.d/strap.toml"),
        "\n[[device]]\nname = \"strap\"\nserial = \"/dev/ttyS2\"\nprofile = \"serial-vitals-line\"\n",
    )
    .unwrap();
    let (code, _, error) = hub.output(&["check", "--offline"]);
    assert_eq!(code, 2);
    assert!(error.contains("devices.d/strap.toml:3") && error.contains("biogate.toml:9"), "{error}");
}

#[test]
fn a_secret_that_this_user_may_not_read_is_found_at_once() {
    let hub = Hub::new("");
    let secret = hub.dir.path().join("secret");
    std::fs::write(&secret, "hunter2").unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(hub.dir.path(), open_to_all).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = format!(
        "[[destination]]\nname = \"w\"\nkind = \"clickhouse\"\nurl = \"https://x:8443\"\npassword_file = {secret:?}\n"
    );
    std::fs::write(hub.config(), text).unwrap();
    // As root file modes refuse nothing, so the command runs as nobody.
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", env!("CARGO_BIN_EXE_biogate"), "--config"]);
    let Ok(output) = command.arg(hub.config()).arg("check").output() else {
        missing("setpriv");
        return;
    };
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("setpriv:") {
        missing("a setpriv that may change the user");
        return;
    }
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("biogate.toml:2") && error.contains("cannot be read"), "{error}");
    assert!(!error.contains("hunter2"));
}
