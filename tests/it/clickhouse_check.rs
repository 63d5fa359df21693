//! `biogate check` of a ClickHouse destination, against the real engine: for how long is each event counted once?

use biogate::forward::clickhouse::schema;
use biogate::forward::clickhouse::survey::{Advice, survey};

use crate::rig::clickhouse::Engine;
use crate::rig::gateway::Hub;

/// A hub that writes into the engine's table, with one commit in two seconds.
fn hub(engine: &Engine) -> Hub {
    let settings = engine.settings();
    Hub::new(&format!(
        "[store]\ncommit_interval = \"2 s\"\n[[destination]]\nname = \"warehouse\"\nkind = \"clickhouse\"\nurl = {:?}\n\
         database = {:?}\nuser = {:?}\npassword_file = {:?}\n",
        settings.url,
        settings.database,
        settings.user.unwrap(),
        settings.password_file.unwrap(),
    ))
}

/// What `check` says of the destination: verdict and words.
fn said(hub: &Hub, arguments: &[&str]) -> Vec<(String, String)> {
    let all = [&["check", "--json"], arguments].concat();
    let (_, out, error) = hub.output(&all);
    let findings: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out} {error}"));
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let of_it = findings.iter().filter(|finding| finding["what"] == "destination warehouse");
    of_it.map(|finding| (text(&finding["verdict"]), text(&finding["said"]))).collect()
}

#[tokio::test]
async fn check_says_how_long_an_outage_may_last() {
    let Some(engine) = Engine::shared() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    let hub = hub(&engine);
    let alone = said(&hub, &[]);
    assert_eq!(alone.iter().map(|(verdict, _)| verdict.as_str()).collect::<Vec<_>>(), ["ok", "ok"], "{alone:?}");
    // 10,000 inserts of one hub, one in 2 s.
    assert!(alone[1].1.contains("through an outage of 5h 33m 20s"), "{alone:?}");
    let fleet = said(&hub, &["--hubs", "200"]);
    assert!(fleet[1].0 == "warn" && fleet[1].1.contains("200 hubs") && fleet[1].1.contains("1m 40s"), "{fleet:?}");
    assert!(fleet[2].0 == "warn" && fleet[2].1.contains("Kafka"), "{fleet:?}");
}

#[tokio::test]
async fn a_table_that_keeps_repeats_or_remembers_nothing_is_warned_of() {
    let Some(engine) = Engine::shared() else { return };
    schema::apply(&engine.settings()).await.unwrap();
    assert_eq!(survey(&engine.settings()).await.unwrap().faults(), []);
    engine.sql("ALTER TABLE biometric_events MODIFY SETTING non_replicated_deduplication_window = 0");
    let forgets = said(&hub(&engine), &[]);
    assert!(forgets[1].0 == "warn" && forgets[1].1.contains("remembers no inserts"), "{forgets:?}");
    engine.sql("CREATE TABLE plain AS biometric_events ENGINE = MergeTree ORDER BY timestamp");
    let mut plain = engine.settings();
    plain.table = "plain".to_owned();
    let found = survey(&plain).await.unwrap();
    let faults = found.faults();
    assert!(matches!(&faults[..], [Advice::Weak(said)] if said.contains("not ReplacingMergeTree")), "{faults:?}");
    assert_eq!(found.memory().unwrap().inserts, 0, "the server's default counts where the table says nothing");
}
