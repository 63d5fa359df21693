//! The program itself: its configuration, its tokens, and the end by a signal.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::rig::clickhouse::Engine;
use crate::rig::landing_zone;
use crate::rig::server::ANNA;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_biogate-analytics"))
}

fn run(config: &Path, arguments: &[&str]) -> Output {
    program().arg("--config").arg(config).args(arguments).output().unwrap()
}

/// Configuration and tokens file for an engine; the tokens of an analyst.
fn files(folder: &Path, engine: &Engine) -> (PathBuf, String) {
    let at = engine.settings();
    let made = program().args(["token", "new", "--name", "ward", "--role", "analyst"]).output().unwrap();
    assert!(made.status.success());
    std::fs::write(folder.join("tokens.toml"), &made.stdout).unwrap();
    let config = format!(
        "[warehouse]\nurl = \"http://{}\"\ndatabase = {:?}\nuser = {:?}\npassword_file = {:?}\n\n[api]\nlisten = \"127.0.0.1:0\"\ntokens_file = {:?}\n",
        engine.address,
        engine.database,
        at.user.unwrap(),
        at.password_file.unwrap(),
        folder.join("tokens.toml")
    );
    let path = folder.join("analytics.toml");
    std::fs::write(&path, config).unwrap();
    (path, String::from_utf8(made.stderr).unwrap().lines().next().unwrap().to_owned())
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_serves_until_sigterm_and_its_audit_names_no_value() {
    let Some(engine) = landing_zone().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (config, token) = files(folder.path(), &engine);
    let checked = run(&config, &["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let child =
        program().arg("--config").arg(&config).arg("serve").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut running = Running(child.unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening ").unwrap().to_owned();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = serde_json::json!({"query": "SELECT {secret:String} AS a, 'other-secret' AS b", "parameters": {"secret": "my-secret"}});
    let answer = client.post(format!("{url}/api/query")).bearer_auth(&token).json(&asked).send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(answer.json::<Value>().await.unwrap()["data"][0]["a"], "my-secret");
    client.get(format!("{url}/api/analytics/sessions/{ANNA}")).bearer_auth(&token).send().await.unwrap();
    let refused = serde_json::json!({"query": "SELECT toUInt8({secret:String}), other_secret", "parameters": {"secret": "my-secret"}});
    client.post(format!("{url}/api/query")).bearer_auth(&token).json(&refused).send().await.unwrap();
    // The test's own child, by its id.
    assert!(Command::new("kill").arg(running.0.id().to_string()).status().unwrap().success());
    assert!(running.0.wait().unwrap().success());
    let mut log = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let audit: Vec<&Value> = lines.iter().filter(|line| line["target"] == "audit").collect();
    assert_eq!(audit.len(), 3, "{log}");
    assert_eq!((audit[0]["request"].as_str(), audit[0]["token"].as_str()), (Some(id.as_str()), Some("ward")));
    assert_eq!((audit[0]["rows"].as_u64(), audit[0]["parameters"].as_str()), (Some(1), Some("secret")));
    assert_eq!(audit[1]["person"], ANNA.to_string());
    for secret in ["my-secret", "other-secret", "other_secret", token.as_str()] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
}

#[test]
fn a_new_token_is_shown_once_and_its_entry_knows_only_its_hash() {
    let new = |more: &[&str]| program().args(["token", "new", "--name", "n"]).args(more).output().unwrap();
    let anna = ANNA.to_string();
    let made = new(&["--role", "person", "--user", &anna, "--days", "30"]);
    let (entry, said) = (String::from_utf8(made.stdout).unwrap(), String::from_utf8(made.stderr).unwrap());
    let token = said.lines().next().unwrap();
    assert!(token.starts_with("biogate_") && !entry.contains(token), "{entry} {said}");
    let tokens = biogate_analytics::token::Tokens::parse(&entry).unwrap();
    assert!(tokens.find(token, jiff::Timestamp::now()).unwrap().sees(ANNA));
    for wrong in [
        &["--role", "person"][..],
        &["--role", "clinician"],
        &["--role", "person", "--everybody"],
        &["--role", "person", "--user", &anna, "--scope", "query"],
        &["--role", "analyst", "--user", &anna],
        &["--role", "operator", "--days", "0"],
    ] {
        assert!(!new(wrong).status.success(), "{wrong:?}");
    }
}

#[test]
fn what_is_wrong_in_the_configuration_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("analytics.toml");
    let right = "[warehouse]\nurl = \"http://127.0.0.1:1\"\n\n[api]\ntokens_file = \"/nothing/tokens.toml\"\n";
    for (text, said) in [
        ("[warehouse]\nurl = \"http://x\"\npasword_file = \"x\"\n", "analytics.toml:3: unknown field `pasword_file`"),
        ("[warehouse]\nurl = \"http://x\"\npassword = \"x\"\n", "unknown field `password`"),
        ("[api]\nlisten = \"here\"\n[warehouse]\nurl = \"http://x\"\n", "analytics.toml:2: "),
        ("[api]\n", "missing field `warehouse`"),
        ("[warehouse]\nurl = \"ftp://x\"\n", "http://"),
        ("[warehouse]\nurl = \"http://x\"\npassword_file = \"/nothing\"\n", "password_file /nothing"),
        (right, "tokens_file /nothing/tokens.toml"),
    ] {
        std::fs::write(&path, text).unwrap();
        let output = run(&path, &["check"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(said), "{text}: {error}");
    }
    // A drop-in adds to the main file, and is named when it is the one that is wrong.
    std::fs::write(&path, right).unwrap();
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    std::fs::write(folder.path().join("conf.d/10.toml"), "[api]\ntokens_file = \"/other/tokens.toml\"\n").unwrap();
    assert!(String::from_utf8(run(&path, &["check"]).stderr).unwrap().contains("/other/tokens.toml"));
    std::fs::write(folder.path().join("conf.d/20.toml"), "[warehouse]\nlimitz = 1\n").unwrap();
    let error = String::from_utf8(run(&path, &["check"]).stderr).unwrap();
    assert!(error.contains("20.toml:2: unknown field `limitz`"), "{error}");
}

#[test]
fn the_program_prints_its_description() {
    let output = program().arg("openapi").output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, serde_json::to_value(biogate_analytics::api::openapi::describe()).unwrap());
}
