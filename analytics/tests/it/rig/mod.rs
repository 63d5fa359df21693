//! The rig: the engine as the gateway's own tests start it, with the schema applied by the gateway's library.

#[path = "../../../../tests/it/rig/clickhouse.rs"]
#[allow(dead_code, reason = "the gateway's tests use the rest")]
pub(crate) mod clickhouse;
#[path = "../../../../tests/it/rig/gateway.rs"]
#[allow(dead_code, reason = "the gateway's tests use the rest")]
pub(crate) mod gateway;
#[path = "../../../../tests/it/rig/kafka.rs"]
#[allow(dead_code, reason = "the gateway's tests use the rest")]
pub(crate) mod kafka;
#[path = "../../../../tests/it/rig/mosquitto.rs"]
#[allow(dead_code, reason = "the gateway's tests use the rest")]
pub(crate) mod mosquitto;
#[path = "../../../../tests/it/rig/pty.rs"]
#[allow(dead_code, reason = "the gateway's tests use the rest")]
pub(crate) mod pty;
pub(crate) mod server;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use biogate::forward::clickhouse::schema;
use biogate_analytics::warehouse::{Limits, Settings, Warehouse};
use clickhouse::Engine;
use tokio::sync::Mutex;

/// Every wait in a test ends after this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// An engine whose database holds the landing zone.
pub(crate) async fn landing_zone() -> Option<Engine> {
    let engine = Engine::shared()?;
    engine.make_database();
    schema::apply(&engine.settings()).await.unwrap();
    Some(engine)
}

/// The same for tests that write nothing: those that run at the same time share one, because it takes a while to make.
pub(crate) async fn empty_zone() -> Option<Arc<Engine>> {
    static SHARED: Mutex<Weak<Engine>> = Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    if let Some(engine) = shared.upgrade() {
        return Some(engine);
    }
    let engine = Arc::new(landing_zone().await?);
    *shared = Arc::downgrade(&engine);
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

/// Waits until `holds`; panics with `what` at the deadline.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
