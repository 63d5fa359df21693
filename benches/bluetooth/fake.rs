//! The tests' fake BlueZ, for a bench.

use std::time::Duration;

#[path = "../../tests/it/rig/bluez.rs"]
pub(crate) mod bluez;
#[path = "../../tests/it/rig/bluez_words.rs"]
pub(crate) mod bluez_words;

/// What the fake waits with.
pub(crate) mod gateway {
    use std::time::{Duration, Instant};

    /// Asks until there is an answer, or until the deadline.
    pub(crate) fn wait_for<T>(deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
        let end = Instant::now() + deadline;
        loop {
            let answer = ask();
            if answer.is_some() || Instant::now() > end {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

const DEADLINE: Duration = Duration::from_secs(20);

fn missing(part: &str) {
    println!("bluetooth: {part} is not installed; nothing measured");
}
