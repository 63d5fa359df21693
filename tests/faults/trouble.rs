//! Faults of the machine: its clock, its disk, bytes of its files.

use std::path::{Path, PathBuf};
use std::process::Command;

use fastrand::Rng;
use uuid::Uuid;

use crate::rig::missing;

/// The clock that the gateway is given (`src/clock/injected.rs`).
pub(crate) struct Clock {
    file: PathBuf,
    /// How wrong the wall clock is.
    pub(crate) wrong_ms: i64,
    /// How far uptime and wall clock are ahead of the machine's.
    pub(crate) ahead_ms: i64,
    boot: Option<Uuid>,
    /// What the uptime of this boot lacks against the machine's.
    younger_ms: i64,
    pub(crate) synchronised: bool,
}

impl Clock {
    /// A clock that is right and synchronised.
    pub(crate) fn at(file: PathBuf) -> Clock {
        let clock = Clock { file, wrong_ms: 0, ahead_ms: 0, boot: None, younger_ms: 0, synchronised: true };
        clock.tell();
        clock
    }

    /// Lets the gateway see it.
    pub(crate) fn tell(&self) {
        let (wall, uptime) = (self.ahead_ms + self.wrong_ms, self.ahead_ms - self.younger_ms);
        let boot = self.boot.map(|boot| boot.to_string()).unwrap_or_default();
        let line = format!("{wall} {uptime} {} {boot}\n", u8::from(self.synchronised));
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, line).expect("writing the clock");
        std::fs::rename(&fresh, &self.file).expect("writing the clock");
    }

    /// The machine is switched on anew: another boot, little uptime, and a clock that nobody has set.
    pub(crate) fn boot(&mut self, random: &mut Rng) {
        self.boot = Some(Uuid::from_u128(random.u128(..)));
        let uptime = std::fs::read_to_string("/proc/uptime").expect("the machine's uptime");
        let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("a number of seconds");
        self.younger_ms = (seconds * 1_000.0) as i64 + self.ahead_ms - 15_000;
        self.step(random);
    }

    /// Somebody sets the wall clock wrong: by seconds, days or ten years, either way. The kernel vouches for it no more.
    pub(crate) fn step(&mut self, random: &mut Rng) {
        const SECOND: i64 = 1_000;
        const DAY: i64 = 86_400 * SECOND;
        let far = random.choice([5 * SECOND, 90 * SECOND, 3 * DAY, 3_652 * DAY]).unwrap_or(DAY);
        self.wrong_ms = if random.bool() { far } else { -far };
        self.synchronised = false;
        self.tell();
    }

    /// It is set right, and the kernel says so.
    pub(crate) fn sync(&mut self) {
        (self.wrong_ms, self.synchronised) = (0, true);
        self.tell();
    }
}

/// A file system of its own, a few megabytes small.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount.
    pub(crate) fn mount(at: &Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a mount point");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(at.to_owned()));
        }
        missing("the right to mount a small disk");
        None
    }

    pub(crate) fn fill(&self) {
        let file = std::fs::File::create(self.0.join("filler")).expect("filling the disk");
        let room = rustix::fs::statvfs(&self.0).expect("asking for its room");
        let most = (room.f_bavail * room.f_frsize).saturating_sub(256 << 10);
        if most > 0 {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, most).ok();
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.join("filler").exists()
    }

    pub(crate) fn clear(&self) {
        std::fs::remove_file(self.0.join("filler")).ok();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// Where in a file lies what was not delivered yet, counted from its end.
const WAITING_BYTES: usize = 24 << 10;
/// What a record of the store begins with.
const RECORD: &[u8] = b"\xb1bgrecd\x1a";

/// Flips bytes of one generation of the store, in what was written a while ago: the last record of a log cannot be told
/// from one that was never finished. Says where.
pub(crate) fn flip(store: &Path, random: &mut Rng) -> Option<String> {
    let entries = std::fs::read_dir(store).ok()?;
    let mut generations: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    generations.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gen-")));
    generations.sort();
    // Mostly the newest: there lies what waits.
    let newest = generations.pop()?;
    let file = if random.u8(..) < 50 { random.choice(generations.iter()).unwrap_or(&newest).clone() } else { newest }
        .join("db");
    let mut bytes = std::fs::read(&file).ok()?;
    let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    let last = bytes.windows(RECORD.len()).rposition(|bytes| bytes == RECORD)?;
    let at = random.usize(used.saturating_sub(WAITING_BYTES).min(last.saturating_sub(1))..last.max(1));
    bytes[at] ^= 0x5a;
    std::fs::write(&file, bytes).ok()?;
    Some(format!("byte {at} of {} in {}", used, file.display()))
}
