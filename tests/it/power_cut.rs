//! Power cuts at block level: what was acknowledged is there after a cut, whatever the disk's cache had not yet kept.
//!
//! A FUSE file under a loop device under ext4 logs every write and flush that reaches the "disk" ([`disk`]), and with
//! each how much the writer had acknowledged by then. Afterwards the disk is made again as a cut at any point leaves it,
//! with what was not flushed dropped or tossed per 4 KiB block ([`cut`]), mounted, opened and compared ([`trial`]). Names
//! and folders are tested with it: they are blocks like all else. Each promise has its control, the same program with
//! the fdatasync taken away, which must lose something: a trial that cannot lose shows nothing.
//!
//! Writers and checkers are processes: this binary again, running [`role`].

mod cut;
mod disk;
mod queue;
mod trial;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use trial::{LOST, Trial, with_own_mounts};

const ROLE: &str = "BIOGATE_POWER_CUT_ROLE";
const FOLDER: &str = "BIOGATE_POWER_CUT_FOLDER";
const ACKNOWLEDGED: &str = "BIOGATE_POWER_CUT_ACKNOWLEDGED";

/// Lines that the smallest writer writes.
const LINES: u32 = 150;

#[test]
fn synced_lines_survive_every_cut_and_unsynced_ones_do_not() {
    with_own_mounts("power_cut::synced_lines_survive_every_cut_and_unsynced_ones_do_not", || {
        let trial = |name, writer: &str, cuts| {
            let writer = |folder: &Path, acknowledged: &Path| process(writer, folder, acknowledged);
            Trial { name, cuts, writer: &writer, checker: &|folder, owed| process("check lines", folder, owed) }.run()
        };
        assert_eq!(trial("synced lines", "write lines", 20).lost, 0);
        let control = trial("control, lines without fdatasync", "write lines, unsynced", 10);
        assert!(control.lost > 0, "nothing was lost without fdatasync: the disk's cache is not simulated");
    });
}

#[test]
fn what_the_store_took_survives_every_cut() {
    with_own_mounts("power_cut::what_the_store_took_survives_every_cut", || {
        let writer = |folder: &Path, acknowledged: &Path| process("write store", folder, acknowledged);
        let checker = |folder: &Path, owed: &Path| process("check store", folder, owed);
        let store = Trial { name: "store", cuts: 40, writer: &writer, checker: &checker }.run();
        assert_eq!(store.lost, 0);
    });
}

#[test]
fn the_store_without_its_fdatasync_loses_what_it_took() {
    with_own_mounts("power_cut::the_store_without_its_fdatasync_loses_what_it_took", || {
        let folder = tempfile::tempdir().unwrap();
        let no_fdatasync = without_fdatasync(folder.path());
        let writer = |folder: &Path, acknowledged: &Path| {
            let mut writer = process("write store", folder, acknowledged);
            writer.env("LD_PRELOAD", &no_fdatasync);
            writer
        };
        let checker = |folder: &Path, owed: &Path| process("check store", folder, owed);
        let control =
            Trial { name: "control, store without fdatasync", cuts: 10, writer: &writer, checker: &checker }.run();
        assert!(control.lost > 0, "nothing was lost without fdatasync: the trial of the store shows nothing");
    });
}

/// A library whose fdatasync does nothing, for LD_PRELOAD. All else stays: sled's own flush still writes the file, and
/// a generation's birth still syncs its folder.
fn without_fdatasync(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("no_fdatasync.c"), folder.join("no_fdatasync.so"));
    let code = "int fdatasync(int descriptor) { (void)descriptor; return 0; }\n";
    fs::write(&source, code).unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(made.success(), "cc does not compile {code}");
    library
}

/// This binary in another role.
fn process(role: &str, folder: &Path, acknowledged: &Path) -> Command {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", "power_cut::role", "--ignored", "--nocapture"]);
    process.env(ROLE, role).env(FOLDER, folder).env(ACKNOWLEDGED, acknowledged);
    process
}

#[test]
#[ignore = "a process of the trials"]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let path = |name: &str| PathBuf::from(std::env::var_os(name).unwrap());
    let (folder, acknowledged) = (path(FOLDER), path(ACKNOWLEDGED));
    match role.as_str() {
        "write lines" => write_lines(&folder, Acknowledgements::open(&acknowledged), true),
        "write lines, unsynced" => write_lines(&folder, Acknowledgements::open(&acknowledged), false),
        "check lines" => check_lines(&folder, &fs::read_to_string(&acknowledged).unwrap()),
        "write store" => queue::write(&folder, Acknowledgements::open(&acknowledged)),
        "check store" => queue::check(&folder, &fs::read_to_string(&acknowledged).unwrap()),
        other => panic!("no role is called {other}"),
    }
}

/// Where a writer says what it promises; never on the disk that is cut.
struct Acknowledgements(File);

impl Acknowledgements {
    fn open(path: &Path) -> Acknowledgements {
        Acknowledgements(OpenOptions::new().append(true).open(path).unwrap())
    }

    /// One write of one line, so that a cut sees it whole or not at all.
    fn give(&mut self, line: impl std::fmt::Display) {
        self.0.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

fn line(number: u32) -> String {
    format!("{number:0199}\n")
}

fn write_lines(folder: &Path, mut acknowledgements: Acknowledgements, sync: bool) {
    let mut file = File::create(folder.join("lines")).unwrap();
    if sync {
        File::open(folder).unwrap().sync_all().unwrap();
    }
    for number in 1..=LINES {
        file.write_all(line(number).as_bytes()).unwrap();
        if sync {
            file.sync_data().unwrap();
        } else {
            // Long enough in all for the file system to write some of it by itself.
            std::thread::sleep(Duration::from_millis(15));
        }
        acknowledgements.give(number);
    }
}

fn check_lines(folder: &Path, owed: &str) {
    let owed: u32 = owed.lines().last().map_or(0, |last| last.parse().unwrap());
    let found = fs::read(folder.join("lines")).unwrap_or_default();
    for number in 1..=owed {
        let line = line(number);
        let place = found.get((number as usize - 1) * line.len()..number as usize * line.len());
        assert!(place == Some(line.as_bytes()), "{LOST}: line {number} of {owed}");
    }
}
