//! The real binary on a store folder that is full, read-only, damaged, or of a newer program; and what is recorded.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::rig::gateway::{Hub, assert_balanced, destinations, lines_of, wait_for};
use crate::rig::missing;
use crate::rig::mosquitto::{Mosquitto, note};

const SOON: Duration = Duration::from_secs(20);

/// A hub that hears `clinic/+/vitals` and writes files; `store` goes into `[store]`.
fn hub(mosquitto: &Mosquitto, store: &str) -> Hub {
    let hub = Hub::new("");
    let text = std::fs::read_to_string(hub.config()).unwrap();
    let archive = hub.dir.path().join("archive");
    let rest = format!(
        "[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"50 ms\"\n{store}\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n\
         [[mqtt]]\nname = \"ward\"\nurl = \"{}\"\n\
         [[device]]\nname = \"bed\"\nprofile = \"mqtt-vitals-json\"\nmqtt = \"clinic/{{device}}/vitals\"\n",
        mosquitto.url()
    );
    std::fs::write(hub.config(), text + &rest).unwrap();
    hub
}

/// Numbered messages, each a heart rate of its own.
fn publish(mosquitto: &Mosquitto, range: std::ops::Range<u32>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let message =
        |n: u32| note("clinic/bed-1/vitals", format!("{{\"seq\":{n},\"hr\":{}}}", 60.0 + f64::from(n) / 100.0));
    runtime.block_on(mosquitto.publish(range.map(message).collect()));
}

/// The numbers that have arrived in files, in order.
fn arrived(hub: &Hub) -> Vec<u32> {
    let lines = lines_of(&hub.dir.path().join("archive"));
    let rates =
        lines.iter().filter(|event| event["event_type"] == "heart_rate").map(|event| event["value"].as_f64().unwrap());
    let mut numbers: Vec<u32> =
        rates.map(|rate| ((rate - 60.0) * 100.0).round() as u32).filter(|number| *number > 0).collect();
    numbers.sort_unstable();
    numbers
}

fn wait_for_subscription(mosquitto: &Mosquitto, hub: &Hub) {
    let heard = wait_for(SOON, || {
        publish(mosquitto, 0..1);
        (hub.stat()?["ledger"]["intake"]["accepted"] != 0).then_some(())
    });
    heard.unwrap_or_else(|| panic!("nothing is heard: {}", hub.log()));
}

/// A file system of its own, a few megabytes small. `None` where this user may not mount.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=0755", "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(at));
        }
        missing("the right to mount a small disk");
        None
    }

    fn fill(&self) {
        let file = std::fs::File::create(self.0.join("filler")).unwrap();
        let room = rustix::fs::statvfs(self.0).unwrap();
        let free = room.f_bavail * room.f_frsize;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free.saturating_sub(256 << 10)).unwrap();
    }

    fn clear(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_full_disk_makes_sources_wait_says_so_and_loses_nothing_twice_over() {
    let Some(mosquitto) = Mosquitto::start() else { return };
    let mut hub = hub(&mosquitto, "min_free = \"2 MiB\"\nmax_bytes = \"16 MiB\"\nwhen_full = \"pause-sources\"");
    let data = hub.data_dir();
    let Some(disk) = SmallDisk::mount(&data) else { return };
    hub.start();
    wait_for_subscription(&mosquitto, &hub);
    for round in 0..2 {
        disk.fill();
        publish(&mosquitto, round * 100 + 1..round * 100 + 101);
        let said = wait_for(SOON, || {
            let unhealthy = hub.stat()?["store"]["unhealthy"].as_str()?.to_owned();
            unhealthy.contains("free").then_some(unhealthy)
        });
        assert!(said.is_some(), "it says that the disk is full: {:?}\n{}", hub.stat(), hub.log());
        assert!(hub.is_running());
        assert_eq!(arrived(&hub).len() as u32, round * 100, "nothing is taken that cannot be kept");
        disk.clear();
        let all = wait_for(SOON, || Some(arrived(&hub)).filter(|numbers| numbers.len() as u32 >= (round + 1) * 100));
        assert_eq!(all.unwrap_or_else(|| panic!("{}", hub.log())), (1..=(round + 1) * 100).collect::<Vec<u32>>());
    }
    assert_balanced(&hub.wait_until_drained(200, SOON));
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    drop(hub);
    drop(disk);
}

#[test]
fn a_damaged_store_starts_counts_what_is_lost_and_goes_on() {
    let Some(mosquitto) = Mosquitto::start() else { return };
    for (seed, damage) in ["flip", "truncate", "empty", "delete"].into_iter().enumerate() {
        let mut hub = hub(&mosquitto, "min_free = \"1 MiB\"");
        hub.start();
        wait_for_subscription(&mosquitto, &hub);
        let archive = hub.dir.path().join("archive");
        wait_for(SOON, || archive.exists().then_some(())).expect("the destination has made its folder");
        // With its destination away everything stays in the store, to be damaged there.
        std::fs::rename(&archive, archive.with_extension("away")).unwrap();
        // A file in its place, so that the destination cannot make it anew.
        let is_blocked = || {
            std::fs::remove_dir_all(&archive).ok();
            std::fs::write(&archive, "").ok()
        };
        wait_for(SOON, is_blocked).expect("the destination is away");
        for part in 0..20 {
            publish(&mosquitto, part * 50 + 1..part * 50 + 51);
        }
        wait_for(SOON, || (hub.stat()?["ledger"]["intake"]["stored"].as_u64()? >= 1_000).then_some(()))
            .expect("stored");
        hub.kill();
        damage_newest(&hub.data_dir().join("store"), damage, seed as u64);
        std::fs::remove_file(&archive).unwrap();
        std::fs::rename(archive.with_extension("away"), &archive).unwrap();
        hub.start();
        // What was not acknowledged before the kill comes first, then this.
        publish(&mosquitto, 2_001..2_011);
        wait_for(SOON, || arrived(&hub).contains(&2_010).then_some(()))
            .unwrap_or_else(|| panic!("{damage}: {}", hub.log()));
        let stat = hub.wait_until_drained(0, SOON);
        assert_balanced(&stat);
        let numbers: Vec<u32> = arrived(&hub).into_iter().filter(|number| *number <= 1_000).collect();
        let unique: std::collections::BTreeSet<u32> = numbers.iter().copied().collect();
        assert_eq!(unique.len(), numbers.len(), "{damage}: nothing twice");
        let (_, tally) = destinations(&stat).remove(0);
        if damage == "flip" {
            assert!(numbers.len() > 300, "most of it is saved: {} of 1000, {tally}", numbers.len());
        }
        // A log that ends early looks like a shorter one: what told of its tail stood in the tail.
        let told = hub.log().contains("damaged") || hub.log().contains("lost");
        assert!(told || damage == "truncate" || numbers.len() == 1_000, "{damage}: {}", hub.log());
        assert_eq!(hub.stop(), 0, "{}", hub.log());
    }
}

fn damage_newest(store: &Path, how: &str, seed: u64) {
    let mut newest: Vec<_> = std::fs::read_dir(store).unwrap().flatten().map(|entry| entry.path()).collect();
    newest.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gen-")));
    newest.sort();
    let file = newest.last().expect("a generation").join("db");
    let mut bytes = std::fs::read(&file).unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    match how {
        "flip" => (0..3).for_each(|_| bytes[random.usize(used / 2..used)] ^= 0x5a),
        "truncate" => bytes.truncate(used / 2),
        "empty" => bytes.clear(),
        _ => return std::fs::remove_file(file).unwrap(),
    }
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_newer_store_and_a_folder_that_may_not_be_written_are_said_plainly() {
    let Some(mosquitto) = Mosquitto::start() else { return };
    let mut hub = hub(&mosquitto, "");
    hub.start();
    wait_for(SOON, || hub.stat()).expect("a running gateway");
    assert_eq!(hub.stop(), 0);
    let format = hub.data_dir().join("store/format");
    let written = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, written.replace('1', "7")).unwrap();
    let (code, _, error) = hub.output(&["run"]);
    assert_eq!(code, 1);
    assert!(error.contains("format 7"), "{error}");
    std::fs::write(&format, written).unwrap();
    // As root file modes refuse nothing, so the command runs as nobody.
    std::fs::set_permissions(hub.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", env!("CARGO_BIN_EXE_biogate"), "--config"]);
    let Ok(output) = command.arg(hub.config()).arg("run").output() else { return missing("setpriv") };
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("setpriv:") {
        return missing("a setpriv that may change the user");
    }
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("Permission denied") && error.contains("store"), "{error}");
}

#[test]
fn what_passes_is_recorded_within_bounds_and_can_be_replayed() {
    let Some(mosquitto) = Mosquitto::start() else { return };
    let mut hub = hub(&mosquitto, "min_free = \"1 MiB\"");
    hub.start();
    wait_for_subscription(&mosquitto, &hub);
    let file = hub.dir.path().join("recording.ndjson");
    let recording =
        hub.command(&["record", file.to_str().unwrap(), "--duration", "20s", "--max-bytes", "2 KiB"]).spawn();
    let mut recording = recording.unwrap();
    let mut number = 0;
    let ended = wait_for(SOON, || {
        number += 1;
        publish(&mosquitto, number..number + 1);
        recording.try_wait().unwrap()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.len() <= 2_048 && text.lines().count() > 3, "{text}");
    assert!(text.contains("\"channel\":\"clinic/bed-1/vitals\"") && text.contains("\"device\":\"bed-1\""), "{text}");
    assert_eq!(hub.stop(), 0, "{}", hub.log());
    let before = arrived(&hub).len();
    let entry = "[[device]]\nname = \"bed-1\"\nprofile = \"mqtt-vitals-json\"\nmqtt = \"other/vitals\"\n";
    let config = std::fs::read_to_string(hub.config()).unwrap();
    std::fs::write(hub.config(), config + entry).unwrap();
    let (code, out, error) = hub.output(&["replay", file.to_str().unwrap(), "--full-speed"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains(&format!("replayed frames={}", text.lines().count())), "{out}");
    assert_eq!(arrived(&hub).len(), before + text.lines().count());
}
