//! `deploy/compose.yaml` and what it mounts: docker-compose accepts it, nothing in it is a secret or floats, what it mounts is
//! there, and the ClickHouse engine knows the users' rights and settings. No container is run.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::rig::clickhouse::Engine;
use crate::rig::missing;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// Debian's own Python: it is docker-compose's, and has its YAML reader.
fn python(program: &str, input: &[u8]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("input");
    std::fs::write(&file, input).unwrap();
    let output = Command::new("/usr/bin/python3").args(["-c", program]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// compose.yaml as docker-compose understands it.
fn compose() -> Option<Value> {
    let mut command = Command::new("docker-compose");
    let Ok(output) = command.arg("-f").arg(deploy("compose.yaml")).arg("config").output() else {
        missing("docker-compose");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    Some(python("import sys, yaml, json; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)", &output.stdout))
}

/// An XML file as `{tag: child or list of children or text}`.
fn xml(path: &str) -> Value {
    let program = "import sys, json, xml.etree.ElementTree as x\n\
                   def value(e):\n\
                   \x20   if not len(e): return (e.text or '').strip()\n\
                   \x20   return [[c.tag, value(c)] for c in e]\n\
                   json.dump(value(x.parse(sys.argv[1]).getroot()), sys.stdout)";
    python(program, &std::fs::read(deploy(path)).unwrap())
}

/// The children of a list as `xml` makes it.
fn children(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_array().into_iter().flatten().map(|pair| (pair[0].as_str().unwrap(), &pair[1]))
}

fn child<'a>(value: &'a Value, name: &str) -> &'a Value {
    children(value).find(|(tag, _)| *tag == name).unwrap_or_else(|| panic!("no {name}")).1
}

fn prepare(into: &Path, arguments: &[&str]) -> Output {
    let mut script = Command::new("bash");
    script.arg(deploy("compose/prepare.sh")).args(arguments).env("BIOGATE_GENERATED", into).output().unwrap()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap())
}

#[test]
fn docker_compose_accepts_the_file_and_no_image_floats() {
    let Some(compose) = compose() else { return };
    for (name, service) in compose["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        let pinned = tag.chars().any(|c| c.is_ascii_digit()) && tag.contains('.');
        assert!(pinned || tag == "local", "{image} floats");
        let once = service["restart"] == "on-failure";
        // The exporter's image holds its program and nothing that could ask it.
        assert!(once || name == "kafka-exporter" || service["healthcheck"]["test"].is_array(), "{name} is not watched");
        for variable in service["environment"].as_object().into_iter().flatten().map(|(variable, _)| variable) {
            let secret = ["PASS", "SECRET", "TOKEN"].iter().any(|word| variable.contains(word));
            assert!(
                !secret || variable.ends_with("_FILE"),
                "{name}: {variable} is a secret in an environment variable"
            );
        }
    }
}

#[test]
fn only_what_wants_tls_and_hubs_is_open_to_others() {
    let Some(compose) = compose() else { return };
    let mut open = BTreeSet::new();
    for service in compose["services"].as_object().unwrap().values() {
        // `127.0.0.1:8123:8123/tcp` stays a text; a port without an address becomes an object.
        let local = |port: &Value| port.as_str().is_some_and(|port| port.starts_with("127.0.0.1:"));
        let ports = service["ports"].as_array().into_iter().flatten();
        open.extend(ports.filter(|port| !local(port)).map(|port| port["published"].to_string()));
    }
    assert_eq!(open.into_iter().collect::<Vec<_>>(), ["8443", "9094"]);
}

#[test]
fn whatever_is_mounted_is_in_the_repository_or_made_by_the_script() {
    let Some(compose) = compose() else { return };
    let made = tempfile::tempdir().unwrap();
    let output = prepare(made.path(), &["hubs.example.org"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let generated = deploy("compose/generated");
    let there = |path: &Path| match path.strip_prefix(&generated) {
        Ok(name) => made.path().join(name).exists(),
        Err(_) => path.exists(),
    };
    let mut secrets = BTreeSet::new();
    for (name, service) in compose["services"].as_object().unwrap() {
        for volume in texts(&service["volumes"]).filter(|volume| volume.starts_with('/')) {
            let source = volume.split(':').next().unwrap();
            assert!(there(Path::new(source)), "{name} mounts {source}, which is not there");
            assert!(volume.ends_with(":ro"), "{name} may write to {source}");
        }
        for secret in service["secrets"].as_array().into_iter().flatten() {
            secrets.insert(secret.as_str().or_else(|| secret["source"].as_str()).unwrap());
        }
        if let Some(context) = service["build"]["context"].as_str() {
            let file = service["build"]["dockerfile"].as_str().unwrap_or("Dockerfile");
            assert!(Path::new(context).join(file).exists(), "{name} is built by {context}/{file}");
        }
    }
    for (name, secret) in compose["secrets"].as_object().unwrap() {
        assert!(there(Path::new(secret["file"].as_str().unwrap())), "nobody makes {name}");
        assert!(secrets.remove(name.as_str()), "nobody uses {name}");
    }
}

/// An image is built from the whole repository, and must not take the secrets with it.
#[test]
fn no_image_is_built_with_the_secrets() {
    let ignored = std::fs::read_to_string(deploy("../.dockerignore")).unwrap();
    let unmade = std::fs::read_to_string(deploy("compose/.gitignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "/deploy/compose/generated"), "{ignored}");
    assert!(unmade.lines().any(|line| line == "/generated/"), "{unmade}");
}

/// What the README tells a hub to write passes the hub's own check.
#[cfg(feature = "kafka")]
#[test]
fn the_readmes_destinations_pass_the_check() {
    let made = tempfile::tempdir().unwrap();
    for arguments in [["hubs.example.org"].as_slice(), &["--hub", "hub-0042"]] {
        assert!(prepare(made.path(), arguments).status.success());
    }
    for end in ["pem", "key"] {
        let certificate = format!("hub-0042.{end}");
        std::fs::copy(made.path().join("hubs-certificates").join(&certificate), made.path().join(certificate)).unwrap();
    }
    std::fs::copy(made.path().join("clickhouse-writer"), made.path().join("clickhouse")).unwrap();
    let here = made.path().to_str().unwrap();
    let readme = std::fs::read_to_string(deploy("README.md")).unwrap();
    let blocks = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let text: String = blocks.collect();
    let text = text.replace("/etc/biogate", here).replace("/run/credentials/biogate.service", here);
    let (code, said, error) =
        crate::rig::gateway::Hub::new(&text.replace("HOST", "hubs.example.org")).output(&["check", "--offline"]);
    assert!(code == 0 && said.contains("2 destinations"), "{said}{error}");
}

#[test]
fn secrets_are_made_once_and_only_their_hashes_reach_the_server() {
    let made = tempfile::tempdir().unwrap();
    let first = prepare(made.path(), &["hubs.example.org"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let read = |name: &str| std::fs::read_to_string(made.path().join(name)).unwrap();
    let (password, keystore) = (read("clickhouse-reader"), read("kafka-keystore.pem"));
    let hashes = read("clickhouse-passwords.xml");
    assert!(password.len() >= 32 && !hashes.contains(&password));
    assert_eq!(hashes.matches("<password_sha256_hex>").count(), 4);
    assert_eq!(std::fs::metadata(made.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(read("kafka/server.properties").contains("HUBS://hubs.example.org:9094"));

    let again = prepare(made.path(), &["hubs.example.org"]);
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(!said.contains("made"), "{said}");
    assert_eq!((read("clickhouse-reader"), read("kafka-keystore.pem")), (password, keystore));

    let hub = prepare(made.path(), &["--hub", "hub-0042"]);
    assert!(hub.status.success(), "{}", String::from_utf8_lossy(&hub.stderr));
    for (certificate, purpose) in
        [("hubs-certificates/hub-0042.pem", "sslclient"), ("kafka.pem", "sslserver"), ("clickhouse.pem", "sslserver")]
    {
        let mut verify = Command::new("openssl");
        verify.args(["verify", "-purpose", purpose, "-CAfile"]).arg(made.path().join("ca.pem"));
        let output = verify.arg(made.path().join(certificate)).output().unwrap();
        assert!(output.status.success(), "{certificate}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let wrong = prepare(made.path(), &["--hub", "../up"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn the_engine_knows_every_right_and_setting_of_the_users() {
    let Some(engine) = Engine::shared() else { return };
    engine.make_database();
    let file = xml("compose/clickhouse/users.xml");
    let known = |setting: &str| engine.sql(&format!("SELECT count() FROM system.settings WHERE name = '{setting}'"));
    let mut profiles = BTreeSet::new();
    for (profile, settings) in children(child(&file, "profiles")) {
        profiles.insert(profile);
        let constrained = children(settings).filter(|(name, _)| *name == "constraints");
        let constrained = constrained.flat_map(|(_, constraints)| children(constraints));
        for (setting, _) in children(settings).filter(|(name, _)| *name != "constraints").chain(constrained) {
            assert_eq!(known(setting).trim(), "1", "{profile}: {setting} is no setting");
        }
    }
    let passwords = std::fs::read_to_string(deploy("compose/prepare.sh")).unwrap();
    for (user, has) in children(child(&file, "users")).filter(|(user, _)| *user != "default") {
        assert!(profiles.contains(child(has, "profile").as_str().unwrap()), "{user}");
        for (_, grant) in children(child(has, "grants")) {
            // Parses, and names privileges that there are; a right that could be handed on would say WITH GRANT OPTION.
            let grant = grant.as_str().unwrap();
            let read = engine.sql(&format!("SELECT formatQuery('{grant} TO {user}')"));
            assert!(read.starts_with("GRANT") && !read.contains("GRANT OPTION"), "{user}: {read}");
        }
        let without = children(has).any(|(tag, _)| tag == "no_password");
        let local = !child(has, "networks").to_string().contains("::/0");
        assert!(if without { local } else { passwords.contains("for user in admin reader sink writer") });
    }
}

/// Whoever may only read has no right that writes, and cannot raise what a statement may cost.
#[test]
fn the_reader_can_neither_write_nor_raise_its_limits() {
    let file = xml("compose/clickhouse/users.xml");
    let users = child(&file, "users");
    for user in ["reader", "monitoring"] {
        for (_, grant) in children(child(child(users, user), "grants")) {
            let (rights, _) = grant.as_str().unwrap().strip_prefix("GRANT ").unwrap().split_once(" ON ").unwrap();
            let reads = rights.split(", ").all(|right| right == "SELECT" || right.starts_with("SHOW "));
            assert!(reads, "{user}: {rights}");
        }
    }
    for (_, grant) in children(child(child(users, "writer"), "grants")) {
        let grant = grant.as_str().unwrap();
        assert!(!grant.contains("SELECT") || grant.contains(" ON system."), "a hub reads no row: {grant}");
    }
    let readers = child(child(&file, "profiles"), "readers");
    let constraints = child(readers, "constraints");
    for (limit, value) in children(readers).filter(|(name, _)| name.starts_with("max_") || *name == "allow_ddl") {
        let constraint = child(constraints, limit);
        let fixed = children(constraint).any(|(tag, _)| tag == "const");
        let most = children(constraint).find(|(tag, _)| *tag == "max").map(|(_, most)| most);
        // 0 would be no limit at all.
        let least = children(constraint).any(|(tag, least)| tag == "min" && least == "1");
        assert!(fixed || (most == Some(value) && least), "{limit} can be raised");
    }
}

/// Whom Prometheus asks, by the names that the compose file gives; and the one address that it asks from.
#[test]
fn prometheus_asks_services_that_there_are_from_the_address_that_may() {
    let Some(compose) = compose() else { return };
    let text = std::fs::read(deploy("prometheus/prometheus.yml")).unwrap();
    let program = "import sys, yaml, json; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let jobs = python(program, &text)["scrape_configs"].take();
    let mut asked = 0;
    for config in jobs.as_array().unwrap().iter().flat_map(|job| job["static_configs"].as_array().into_iter().flatten())
    {
        for target in texts(&config["targets"]) {
            let (service, _) = target.split_once(':').unwrap();
            assert!(compose["services"][service].is_object(), "there is no service {service}");
            asked += 1;
        }
    }
    assert!(asked >= 4, "{asked}");
    let address = compose["services"]["prometheus"]["networks"]["inside"]["ipv4_address"].as_str().unwrap();
    let file = xml("compose/clickhouse/users.xml");
    let monitoring = child(child(&file, "users"), "monitoring");
    let may: Vec<_> = children(child(monitoring, "networks")).map(|(_, ip)| ip.as_str().unwrap()).collect();
    assert_eq!(may, [address]);
}

#[test]
fn the_server_knows_its_settings() {
    let Some(engine) = Engine::shared() else { return };
    engine.make_database();
    let file = xml("compose/clickhouse/server.xml");
    for limit in ["max_server_memory_usage_to_ram_ratio", "max_concurrent_queries", "max_concurrent_insert_queries"] {
        assert!(child(&file, limit).as_str().is_some_and(|value| !value.is_empty()));
        let known = engine.sql(&format!("SELECT count() FROM system.server_settings WHERE name = '{limit}'"));
        assert_eq!(known.trim(), "1", "{limit}");
    }
    let version = engine.sql("SELECT version()");
    let Some(compose) = compose() else { return };
    let image = compose["services"]["clickhouse"]["image"].as_str().unwrap();
    let release = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    let tag = image.rsplit(':').next().unwrap();
    assert_eq!(release(tag), release(version.trim()), "the tests' engine and the image are one release");
}
