//! One trial: a writer on a file system on the logging disk, then the disk at many cuts, each mounted and checked.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};

use super::cut::{Unflushed, disk_at};
use super::disk::{Disk, Entry, Logged};

/// A store's ballast file alone is 8 MiB.
const DISK_MIB: u64 = 64;

/// Said by a checker that found something acknowledged missing; any other failure of it ends the trial.
pub(crate) const LOST: &str = "acknowledged, and lost";

/// Set in the process that runs a trial, which has mounts of its own.
const INSIDE: &str = "BIOGATE_POWER_CUT_INSIDE";

/// What runs on the disk and what looks at it after each cut.
pub(crate) struct Trial<'a> {
    pub(crate) name: &'a str,
    pub(crate) cuts: u32,
    /// Given the folder on the disk and the file (elsewhere) to which it appends what it acknowledges, line by line.
    pub(crate) writer: &'a dyn Fn(&Path, &Path) -> Command,
    /// Given the folder as the cut left it and the acknowledgements until then; fails with [`LOST`] in its output.
    pub(crate) checker: &'a dyn Fn(&Path, &Path) -> Command,
}

/// What the cuts showed.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Cuts after which something acknowledged was missing.
    pub(crate) lost: u32,
}

/// Why this machine cannot cut the power of a disk, if it cannot.
fn impossible() -> Option<&'static str> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Some("a power cut needs root, to mount a disk");
    }
    if OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        return Some("a power cut needs /dev/fuse");
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("a power cut needs loop devices");
    }
    if Command::new("mkfs.ext4").arg("-V").output().is_err() {
        return Some("a power cut needs mkfs.ext4");
    }
    None
}

/// Runs `trial` in a process with mounts of its own: they go with it, whatever ends it. `test` is the calling test.
pub(crate) fn with_own_mounts(test: &str, trial: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return trial();
    }
    if let Some(reason) = impossible() {
        assert!(std::env::var_os("BIOGATE_TEST_REQUIRE_ALL").is_none_or(|all| all != "1"), "{reason}");
        #[expect(clippy::print_stdout, reason = "who runs the tests must see what was skipped")]
        {
            println!("skipped: {reason}");
        }
        return;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--"]).arg(std::env::current_exe().unwrap());
    unshare.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = unshare.output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    #[expect(clippy::print_stdout, reason = "how many cuts were made is the test's result")]
    for line in said.lines().filter(|line| line.starts_with("power cut: ")) {
        println!("{line}");
    }
}

impl Trial<'_> {
    /// Panics when a disk cannot be mounted after a cut, or a checker fails for another reason than a loss.
    pub(crate) fn run(&self) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let acknowledgements = place("acknowledged");
        fs::write(&acknowledgements, "").unwrap();
        let image = fresh_image(&place("image"));
        let (log, from) = self.write(&image, &acknowledgements, &place("fuse"), &place("mounted"));

        // The same cuts in every run: a failure can be repeated.
        let mut random = fastrand::Rng::with_seed(1);
        let flushes: Vec<usize> = (from..log.len()).filter(|at| matches!(log[*at].entry, Entry::Flush)).collect();
        let said = fs::read(&acknowledgements).unwrap();
        let mut lost = 0;
        for number in 0..self.cuts {
            // A quarter just before a flush, when most is in the cache, one at the very end, the rest anywhere.
            let at = match number {
                0 => log.len(),
                _ if number % 4 == 1 && !flushes.is_empty() => flushes[random.usize(..flushes.len())],
                _ => random.usize(from..=log.len()),
            };
            let unflushed =
                if number % 2 == 0 { Unflushed::Dropped } else { Unflushed::Tossed { seed: random.u64(..) } };
            let owed = log.get(at).map_or(said.len(), |logged| logged.acknowledged as usize);
            fs::write(place("owed"), whole_lines(&said[..owed])).unwrap();
            let cut = format!("{}: cut {number} before entry {at} of {}, {unflushed:?}", self.name, log.len());
            let disk = disk_at(&image, &log, at, unflushed);
            if let Err(loss) = self.check(&cut, &disk, &place("cut"), &place("after"), &place("owed")) {
                lost += 1;
                #[expect(clippy::print_stdout, reason = "shown with the trial's result")]
                {
                    println!("{cut}: {loss}");
                }
            }
        }
        #[expect(clippy::print_stdout, reason = "the trial's result")]
        {
            println!(
                "power cut: {}: {} cuts among {} writes and {} flushes, {} lines acknowledged; after {lost} something was lost",
                self.name,
                self.cuts,
                log.len() - from - flushes.len(),
                flushes.len(),
                said.iter().filter(|byte| **byte == b'\n').count(),
            );
        }
        Outcome { lost }
    }

    /// Runs the writer to its end; gives all that reached the disk, and how much of it is older than the writer.
    fn write(&self, image: &[u8], acknowledgements: &Path, fuse: &Path, mounted: &Path) -> (Vec<Logged>, usize) {
        fs::create_dir(fuse).unwrap();
        fs::create_dir(mounted).unwrap();
        let disk = Disk::mount(fuse, image.to_vec(), acknowledgements);
        mount(&disk.path, mounted, "a fresh disk");
        let from = disk.reached();
        run(&mut (self.writer)(mounted, acknowledgements), "the writer");
        let log = disk.log();
        run(Command::new("umount").arg(mounted), "unmounting the writer's disk");
        (log, from)
    }

    fn check(&self, cut: &str, disk: &[u8], image: &Path, mounted: &Path, owed: &Path) -> Result<(), String> {
        write_image(image, disk);
        fs::create_dir_all(mounted).unwrap();
        mount(image, mounted, cut);
        let output = (self.checker)(mounted, owed).output().unwrap();
        run(Command::new("umount").arg(mounted), "unmounting the cut disk");
        if output.status.success() {
            return Ok(());
        }
        let said = said(&output);
        match said.lines().find(|line| line.contains(LOST)) {
            Some(line) => Err(line.to_owned()),
            None => panic!("{cut}: {said}"),
        }
    }
}

/// The image of a disk with an empty file system, made at `path`.
fn fresh_image(path: &Path) -> Vec<u8> {
    fs::File::create(path).unwrap().set_len(DISK_MIB << 20).unwrap();
    // No background work, and a small journal: else the log is mostly the file system's own birth.
    run(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"])
            .arg(path),
        "making a file system",
    );
    fs::read(path).unwrap()
}

/// Writes the blocks that hold something; the rest stays a hole.
fn write_image(path: &Path, image: &[u8]) {
    let file = fs::File::create(path).unwrap();
    file.set_len(image.len() as u64).unwrap();
    for (number, block) in image.chunks(1 << 16).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, (number << 16) as u64).unwrap();
        }
    }
}

fn mount(image: &Path, folder: &Path, what: &str) {
    // The journal is committed each second, so that what is never synced reaches the disk within a trial.
    run(Command::new("mount").args(["-t", "ext4", "-o", "loop,commit=1"]).arg(image).arg(folder), what);
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)]
}

fn run(command: &mut Command, what: &str) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{what}: {command:?}: {}", said(&output));
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
