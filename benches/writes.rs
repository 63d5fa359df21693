//! What a durable commit costs at the block layer, against the chunk that it carries.
//!
//! `cargo bench --bench writes -- [--commits N] [--chunk BYTES] [--dir DIR]`; N is 500 and a chunk has 40,000 bytes once
//! compressed by default. The figure means something only where `DIR` is a file system that nobody else writes to.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use biogate::observation::{EventType, Observation, Value};
use biogate::reading::{BootId, Heard, RunId};
use biogate::store::{Commit, Settings, Store, WhenFull};

mod rig;

use rig::{Arguments, device_written, written};

/// Letters that compress to six bits each and no further.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn main() {
    let arguments = Arguments::read();
    let (commits, chunk) = (arguments.number("--commits", 500), arguments.number("--chunk", 40_000));
    let dir = arguments.folder();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(append(dir.path(), commits, chunk));
}

async fn append(dir: &Path, commits: u64, chunk: u64) {
    let settings = Settings {
        dir: dir.join("store"),
        max_bytes: 16 << 30,
        aside_max_bytes: 64 << 20,
        min_free: 0,
        max_age: Duration::from_secs(90 * 86_400),
        when_full: WhenFull::EvictOldest,
        key_file: None,
        generation_bytes: 4 << 20,
    };
    let store = Store::open(&settings, RunId::random(), BootId::WALL, &["out".to_owned()]).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let pid = std::process::id();
    let (device_from, written_from) = (device_written(dir), written(pid));
    for number in 0..commits {
        // Six bits of each letter stay, so four letters for three bytes.
        let text: String = (0..chunk * 4 / 3).map(|_| char::from(LETTERS[random.usize(0..64)])).collect();
        let observation = Observation {
            reading: number,
            index: 0,
            device: "device".into(),
            profile: "profile/1".into(),
            event_type: EventType::HeartRate,
            component: "".into(),
            value: 72.0,
            heard: Heard { boot: BootId::WALL, ms: number },
            device_time: None,
            since: None,
            identity: None,
            metadata: vec![("text".into(), Value::Text(text.into()))],
        };
        store.commit(Commit { observations: vec![observation], ..Commit::default() }).await.unwrap();
    }
    let each = |bytes: u64| bytes as f64 / commits as f64;
    let (device, dirtied) = (each(device_written(dir) - device_from), each(written(pid) - written_from));
    println!("{commits} commits with a chunk of {chunk} bytes, {} fdatasyncs", store.stat().syncs);
    println!(
        "  dirtied {dirtied:.0} bytes, block layer {device:.0} bytes a commit: {:.2} and {:.2} times the chunk",
        dirtied / chunk as f64,
        device / chunk as f64
    );
    store.close().await.unwrap();
}
