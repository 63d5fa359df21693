//! Cuts the power under the store: what was acknowledged must be there on every disk that a cut can leave.
//!
//! # How a cut is simulated
//!
//! ```text
//! writer (this binary again: Store::open, commit, next_range, read, settle)
//!   ext4 with a journal, barriers on
//!     loop device, which passes a flush on as fsync
//!       one file of a FUSE file system in this process: logs each write (offset, bytes) and each flush, in order
//! ```
//!
//! The writer says over a pipe, before it goes on, what was acknowledged; the driver notes how many entries the log has
//! at that moment. Afterwards the power is cut at positions of the log that a seed chooses: half of them in the rounds
//! in which a generation was born or removed, a quarter at the very entry of an acknowledgement, an eighth while a writer
//! opens, the rest anywhere. The writer of the store is killed every second or so and opens what that left.
//! The disk of a cut is the disk after mkfs, all writes before the last flush, and of the writes after that flush each
//! block of 4 KiB by chance (none, all, half, or any share of them): the rest was in the disk's cache and is gone. It is
//! mounted, which replays ext4's journal, and another process opens the store on it: it must open undamaged, hold every
//! observation and every entry set aside that was acknowledged up to the cut with equal values (or have it counted as
//! delivered, which it may be only if it was settled) and the range in hand, its ledger must balance, its state must be
//! that of its newest observation, and it must take commits and drain to the end.
//!
//! The controls prove that the harness drops what was not synced. They append lines to a file and rename files: with
//! fdatasync of the file, or fsync of the folder, they must lose nothing; without it they must lose.
//!
//! # What it does not show
//!
//! - Disks that lie about a flush, or tear a block of 4 KiB.
//! - A write that was on its way as a flush came in, and was logged before it, counts as flushed.
//! - File systems other than ext4 in its default mode, where one fsync commits the journal with all names before it.
//! - Other moments and commits than those that the seed and the machine's timing gave. The seed decides the data and the
//!   choice of cuts, not the timing: the same seed repeats a failure nearly, not exactly.
#![allow(clippy::print_stdout, reason = "the report of a command line program")]

mod control;
mod cut;
mod disk;
mod mounts;
mod record;
mod store;
mod told;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use crate::mounts::Mount;
use crate::record::{Running, record};
use crate::told::{Outcome, Told};

const SKIPPED: &str = "skipped: power cuts need root, /dev/fuse and a loop device";
/// A store that has not opened, been read and drained by then hangs.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// Cuts the power under the store, and under controls that show what a cut drops.
#[derive(Debug, Parser)]
struct Arguments {
    /// Cuts of the store; each control gets a third as many.
    #[arg(long, default_value_t = 24)]
    cuts: usize,
    /// How long the store is written to; each control a fifth of it.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Chooses data and cuts; drawn at random where it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder to which the disk of a failed cut is copied.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// This process has a mount namespace of its own.
    #[arg(long, hide = true)]
    inside: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Writes until it is killed, and says what is acknowledged.
    #[command(hide = true)]
    Writer {
        #[arg(long)]
        kind: Kind,
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        seed: u64,
    },
    /// Checks what a cut left, and prints how much is lost.
    #[command(hide = true)]
    Checker {
        #[arg(long)]
        kind: Kind,
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        last: u64,
        #[arg(long)]
        aside: u64,
        #[arg(long)]
        settling: u64,
        #[arg(long, num_args = 2, required = true)]
        in_hand: Vec<u64>,
    },
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Store,
    AppendSynced,
    AppendUnsynced,
    RenameSynced,
    RenameUnsynced,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Store => "store",
            Kind::AppendSynced => "append-synced",
            Kind::AppendUnsynced => "append-unsynced",
            Kind::RenameSynced => "rename-synced",
            Kind::RenameUnsynced => "rename-unsynced",
        }
    }

    fn must_lose(self) -> bool {
        matches!(self, Kind::AppendUnsynced | Kind::RenameUnsynced)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.role {
        Some(Role::Writer { kind, dir, seed }) => write(*kind, dir, *seed),
        Some(Role::Checker { kind, dir, seed, last, aside, settling, in_hand }) => {
            let in_hand = (in_hand[0], in_hand[1]);
            check(*kind, dir, *seed, Told { last: *last, aside: *aside, settling: *settling, in_hand })
        }
        None if arguments.inside => drive(&arguments),
        None => return enter(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("power-cut: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes the driver in a mount namespace of its own, or says that this machine cannot.
fn enter() -> ExitCode {
    let able = rustix::process::geteuid().is_root()
        && ["/dev/fuse", "/dev/loop-control"].iter().all(|device| Path::new(device).exists())
        && mounts::run(Command::new("unshare").args(["--mount", "--propagation", "private", "true"])).is_ok();
    if !able {
        println!("{SKIPPED}");
        let all = std::env::var_os("BIOGATE_TEST_REQUIRE_ALL").is_some_and(|value| value == "1");
        return if all { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let become_driver = || -> anyhow::Result<ExitCode> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe()?).arg("--inside");
        Err(command.args(std::env::args_os().skip(1)).exec()).context("starting unshare")
    };
    become_driver().unwrap_or_else(|error| {
        println!("power-cut: {error:#}");
        ExitCode::FAILURE
    })
}

fn drive(arguments: &Arguments) -> anyhow::Result<()> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    say(&format!("seed {seed}"));
    let holder = tempfile::Builder::new().prefix("power-cut-").tempdir()?;
    let scratch = Mount::tmpfs(holder.path())?;
    let control_time = Duration::from_secs(arguments.seconds) / 5;
    let mut failures = Vec::new();
    for kind in Kind::value_variants() {
        let (count, time) = match kind {
            Kind::Store => (arguments.cuts, Duration::from_secs(arguments.seconds)),
            _ => (arguments.cuts.div_ceil(3), control_time),
        };
        let done = cut_all(*kind, holder.path(), seed, count, time, arguments.keep.as_deref());
        match done.with_context(|| kind.name().to_owned()) {
            Ok(lost) if kind.must_lose() && lost == 0 => {
                failures.push(format!("{}: lost nothing, so the cuts drop nothing", kind.name()));
            }
            Ok(lost) if !kind.must_lose() && lost > 0 => {
                failures.push(format!("{}: lost {lost} that were acknowledged", kind.name()));
            }
            Ok(_) => {}
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    scratch.unmount()?;
    ensure!(failures.is_empty(), "{}\nagain with: --seed {seed}", failures.join("\n"));
    Ok(())
}

/// Records, cuts and checks. Returns how many acknowledged ones were lost over all cuts.
fn cut_all(
    kind: Kind,
    scratch: &Path,
    seed: u64,
    count: usize,
    time: Duration,
    keep: Option<&Path>,
) -> anyhow::Result<u64> {
    let start = Instant::now();
    let recording = record(kind, scratch, seed, time)?;
    let flushes = recording.log.iter().filter(|entry| matches!(entry, disk::Entry::Flush)).count();
    let end = recording.told(recording.log.len());
    let births = recording.said.iter().filter(|(_, said)| matches!(said, told::Said::Committed { birth: true, .. }));
    let deaths = recording.said.iter().filter(|(_, said)| matches!(said, told::Said::Went { death: true }));
    let (births, deaths) = (births.count(), deaths.count());
    let recorded = start.elapsed();

    let mut random = fastrand::Rng::with_seed(seed);
    let cuts = cut::draw(&recording, count, &mut random);
    let mut rebuild = cut::Rebuild::new(&recording);
    let (mut acknowledged, mut there, mut lost, mut kept, mut dropped) = (0, 0, 0, 0, 0);
    let mut faults = Vec::new();
    for (number, cut) in cuts.iter().enumerate() {
        let image = scratch.join("cut");
        let (these_kept, these_dropped) = rebuild.write(cut, &image)?;
        (kept, dropped) = (kept + these_kept, dropped + these_dropped);
        let told = recording.told(cut.position);
        acknowledged += told.last;
        let case = || {
            format!(
                "cut {number} ({:?}, entry {} of {}, {these_kept} blocks kept, {these_dropped} dropped, {told:?})",
                cut.place,
                cut.position,
                recording.log.len()
            )
        };
        // Checking writes to the disk.
        if let Some(keep) = keep {
            std::fs::copy(&image, keep.join("cut.ext4"))?;
        }
        let is_well = match check_cut(kind, scratch, &image, seed, told) {
            Ok(outcome) => {
                let is_well = outcome.lost == 0 || kind.must_lose();
                if !is_well {
                    faults.push(format!("{}: {} lost", case(), outcome.lost));
                }
                lost += outcome.lost;
                there += outcome.there;
                is_well
            }
            Err(error) => {
                faults.push(format!("{}: {error:#}", case()));
                false
            }
        };
        if let Some(keep) = keep.filter(|_| !is_well) {
            std::fs::rename(keep.join("cut.ext4"), keep.join(format!("{}-{number}.ext4", kind.name())))?;
        }
        std::fs::remove_file(&image)?;
    }
    say(&format!(
        "{}: {} writes and {flushes} flushes logged, {} acknowledged, {births} births, {deaths} deaths in {:.1} s; \
         {} cuts ({dropped} blocks dropped, {kept} kept), of {acknowledged} acknowledged {there} there, {} delivered, {lost} lost in {:.1} s",
        kind.name(),
        recording.log.len() - flushes,
        end.last,
        recorded.as_secs_f64(),
        cuts.len(),
        if faults.is_empty() { (acknowledged - there - lost).to_string() } else { "?".to_owned() },
        (start.elapsed() - recorded).as_secs_f64(),
    ));
    ensure!(end.last > 0, "nothing was acknowledged");
    if kind == Kind::Store && time >= Duration::from_secs(4) {
        ensure!(births > 0 && deaths > 0, "{births} births and {deaths} deaths: the writer was too slow to be a test");
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(lost)
}

/// Mounts the disk of a cut and lets a checker look at it.
fn check_cut(kind: Kind, scratch: &Path, image: &Path, seed: u64, told: Told) -> anyhow::Result<Outcome> {
    let dir = scratch.join("after");
    let mount = Mount::ext4(image, &dir).context("the file system does not mount")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["checker", "--kind", kind.name(), "--seed", &seed.to_string(), "--dir"]).arg(&dir);
    command.args(["--last", &told.last.to_string(), "--aside", &told.aside.to_string()]);
    command.args(["--in-hand", &told.in_hand.0.to_string(), &told.in_hand.1.to_string()]);
    command.args(["--settling", &told.settling.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut checker = Running(command.spawn().context("starting the checker")?);
    let Some(status) = checker.end_within(CHECK_LIMIT)? else {
        bail!("the checker does not end within {} s", CHECK_LIMIT.as_secs());
    };
    // It says one short line, which a pipe holds.
    let mut said = String::new();
    checker.0.stdout.take().context("no way from the checker")?.read_to_string(&mut said)?;
    mount.unmount()?;
    ensure!(status.success(), "{status}: {}", said.trim());
    Outcome::read(&said)
}

fn write(kind: Kind, dir: &Path, seed: u64) -> anyhow::Result<()> {
    match kind {
        Kind::Store => runtime()?.block_on(store::write(dir, seed)),
        Kind::AppendSynced => control::append(dir, true),
        Kind::AppendUnsynced => control::append(dir, false),
        Kind::RenameSynced => control::rename(dir, true),
        Kind::RenameUnsynced => control::rename(dir, false),
    }
}

fn check(kind: Kind, dir: &Path, seed: u64, told: Told) -> anyhow::Result<()> {
    let outcome = match kind {
        Kind::Store => runtime()?.block_on(store::check(dir, seed, told))?,
        Kind::AppendSynced | Kind::AppendUnsynced => control::check_appended(dir, told)?,
        Kind::RenameSynced | Kind::RenameUnsynced => control::check_renamed(dir, told)?,
    };
    println!("{outcome}");
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn say(line: &str) {
    println!("power-cut: {line}");
}

#[expect(clippy::disallowed_methods, reason = "the driver has no runtime; nothing else runs on its thread")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
