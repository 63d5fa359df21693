//! The clock that a fault test gives: a file with one line, `WALL_MS UPTIME_MS SYNCHRONISED [BOOT]`, read whenever a
//! clock is asked. The first two are added to the machine's own wall clock and uptime, SYNCHRONISED (0 or 1) stands for
//! the kernel's word, BOOT for the boot id. The program's timers stay the machine's.

use std::io;
use std::time::Duration;

use uuid::Uuid;

use crate::reading::BootId;

/// How soon a change of the file is seen, as the kernel's timer tells of a step at once.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the file says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Injected {
    pub(super) wall_ms: i64,
    pub(super) uptime_ms: i64,
    pub(super) synchronised: bool,
    pub(super) boot: Option<BootId>,
}

/// `None` without such a file: then the machine's clocks are taken as they are.
pub(super) fn now() -> Option<Injected> {
    let text = std::fs::read_to_string(crate::crash::given("clock")?).ok()?;
    let mut words = text.split_whitespace();
    Some(Injected {
        wall_ms: words.next()?.parse().ok()?,
        uptime_ms: words.next()?.parse().ok()?,
        synchronised: words.next()? == "1",
        boot: words.next().and_then(|boot| Uuid::parse_str(boot).ok()).map(BootId),
    })
}

/// Returns when the wall clock was stepped or the kernel's word is another.
pub(super) async fn changed() -> io::Result<()> {
    let before = now();
    while now() == before {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
