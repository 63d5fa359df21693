//! The rig: the engine as the gateway's own tests start it, with the schema applied by the gateway's library.

#[path = "../../../../tests/it/rig/clickhouse.rs"]
#[allow(dead_code, reason = "the gateway's tests use the rest")]
pub(crate) mod clickhouse;

use std::path::PathBuf;

use biogate::forward::clickhouse::schema;
use biogate_analytics::warehouse::{Limits, Settings, Warehouse};
use clickhouse::Engine;

/// An engine whose database holds the landing zone.
pub(crate) async fn landing_zone() -> Option<Engine> {
    let engine = Engine::shared()?;
    engine.make_database();
    schema::apply(&engine.settings()).await.unwrap();
    Some(engine)
}

/// How a program of this crate reaches it.
pub(crate) fn settings(engine: &Engine) -> Settings {
    let at = engine.settings();
    Settings {
        url: format!("http://{}", engine.address),
        database: engine.database.clone(),
        user: at.user,
        password_file: at.password_file,
        ca_file: None,
        limits: Limits::default(),
    }
}

/// A client of it, with these limits.
pub(crate) fn warehouse(engine: &Engine, limits: Limits) -> Warehouse {
    Warehouse::new(&Settings { limits, ..settings(engine) }).unwrap()
}

/// A part that is not installed: the test is skipped, or fails where everything is required.
pub(crate) fn missing(part: &str) {
    assert!(std::env::var_os("BIOGATE_TEST_REQUIRE_ALL").is_none_or(|all| all != "1"), "{part} is not installed");
    #[expect(clippy::print_stdout, reason = "who runs the tests must see what was skipped")]
    {
        println!("skipped: {part} not installed");
    }
}

/// A folder of this test's own, and a file in it.
pub(crate) fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}
