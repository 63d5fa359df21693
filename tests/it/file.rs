//! The file destination, on real folders and a real full disk.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use biogate::forward::file::{File, Settings};
use biogate::forward::health::Health;
use biogate::forward::rows::Batch;
use biogate::forward::{BatchLimit, Delivery};

use crate::rig::events::{batch, heart_rates, run};

fn destination(dir: &Path, rotate_bytes: u64) -> File {
    let batch = BatchLimit { usual_rows: 1_000, most_rows: 1_000, bytes: 1 << 20 };
    let settings = Settings { dir: dir.to_owned(), rotate_bytes, rotate_age: Duration::from_secs(3600), batch };
    File::new(settings, Health::new("archive", "file"))
}

async fn delivered(file: &mut File, batch: Batch) -> Batch {
    match file.deliver(batch).await {
        Delivery::Done(batch) => batch,
        other => panic!("{other:?}"),
    }
}

async fn refused(file: &mut File, batch: Batch) -> String {
    match file.deliver(batch).await {
        Delivery::Again(refusal) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

/// The folder's files by ending, oldest name first.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    found.sort();
    found
}

/// The event ids of all files, in order; each line must be whole.
fn ids(dir: &Path) -> Vec<String> {
    let mut paths = [files(dir, ".ndjson"), files(dir, ".part")].concat();
    paths.sort();
    let text: String = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let id = |line: &str| -> String {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["event_id"].as_str().unwrap().to_owned()
    };
    text.lines().map(id).collect()
}

fn assert_each_once(dir: &Path, count: usize) {
    let found = ids(dir);
    assert_eq!(found.len(), count);
    assert_eq!(found.iter().collect::<std::collections::HashSet<_>>().len(), count);
}

#[tokio::test]
async fn files_turn_over_by_size_and_are_renamed_when_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = destination(&dir.path().join("made/at/start"), 20_000);
    for _ in 0..5 {
        let done = delivered(&mut file, batch(run(), &heart_rates(50), false)).await;
        assert_eq!(done.tally.delivered, 50);
    }
    let dir = dir.path().join("made/at/start");
    // 50 lines are about 20 KB: each batch fills a file, which the next one closes.
    assert_eq!(files(&dir, ".ndjson").len(), 4);
    assert_eq!(files(&dir, ".part").len(), 1);
    assert_each_once(&dir, 250);
}

#[tokio::test]
async fn a_file_that_is_old_enough_is_closed_though_nothing_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(dir.path().to_owned());
    settings.rotate_age = Duration::ZERO;
    let mut file = File::new(settings, Health::new("archive", "file"));
    assert_eq!(file.due(), None);
    delivered(&mut file, batch(run(), &heart_rates(3), false)).await;
    assert_eq!(file.due(), Some(Duration::ZERO));
    file.rotate().await.unwrap();
    assert_eq!((files(dir.path(), ".ndjson").len(), files(dir.path(), ".part").len()), (1, 0));
    assert_eq!(file.due(), None);
}

#[tokio::test]
async fn a_batch_that_was_written_in_part_goes_on_after_its_last_whole_line() {
    let dir = tempfile::tempdir().unwrap();
    let (before, ours) = ((run(), heart_rates(20)), (run(), heart_rates(300)));
    delivered(&mut destination(dir.path(), 1 << 20), batch(before.0, &before.1, false)).await;
    let part = &files(dir.path(), ".part")[0];
    let settled = fs::metadata(part).unwrap().len();
    delivered(&mut destination(dir.path(), 1 << 20), batch(ours.0, &ours.1, true)).await;
    let whole = fs::read(part).unwrap();
    // A crash anywhere in the batch, also with blocks that never came.
    for cut in [settled as usize, settled as usize + 1, whole.len() / 2, whole.len() - 1, whole.len()] {
        for torn in [&b""[..], &[0; 700]] {
            fs::write(part, [&whole[..cut], torn].concat()).unwrap();
            let done = delivered(&mut destination(dir.path(), 1 << 20), batch(ours.0, &ours.1, true)).await;
            assert_eq!(done.tally.delivered, 300);
            assert_eq!(fs::read(part).unwrap(), whole, "cut at {cut}");
        }
    }
    assert_each_once(dir.path(), 320);
}

#[tokio::test]
async fn a_batch_whose_file_was_closed_before_the_crash_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let (run, ours) = (run(), heart_rates(30));
    delivered(&mut destination(dir.path(), 1), batch(run, &ours, false)).await;
    let part = &files(dir.path(), ".part")[0];
    fs::rename(part, part.with_extension("")).unwrap();
    let done = delivered(&mut destination(dir.path(), 1), batch(run, &ours, true)).await;
    assert_eq!(done.tally.delivered, 30);
    assert_each_once(dir.path(), 30);
}

#[tokio::test]
async fn a_torn_line_of_an_earlier_process_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    delivered(&mut destination(dir.path(), 1 << 20), batch(run(), &heart_rates(10), false)).await;
    let part = &files(dir.path(), ".part")[0];
    OpenOptions::new().append(true).open(part).unwrap().write_all(b"{\"event_id\":\"torn").unwrap();
    delivered(&mut destination(dir.path(), 1 << 20), batch(run(), &heart_rates(10), false)).await;
    assert_each_once(dir.path(), 20);
}

#[tokio::test]
async fn a_folder_that_is_gone_is_waited_for_and_gone_on_with() {
    let root = tempfile::tempdir().unwrap();
    let (dir, away) = (root.path().join("archive"), root.path().join("away"));
    let mut file = destination(&dir, 1 << 20);
    delivered(&mut file, batch(run(), &heart_rates(10), false)).await;
    fs::rename(&dir, &away).unwrap();
    let (run, ours) = (run(), heart_rates(10));
    let reason = refused(&mut file, batch(run, &ours, false)).await;
    assert!(reason.contains("archive is missing"), "{reason}");
    assert!(!dir.exists(), "it is made at the start only");
    fs::rename(&away, &dir).unwrap();
    delivered(&mut file, batch(run, &ours, true)).await;
    assert_eq!(files(&dir, ".part").len(), 1);
    assert_each_once(&dir, 20);
}

#[tokio::test]
async fn a_full_disk_is_waited_for_and_leaves_nothing_half() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut file = destination(&disk.dir, 1 << 20);
    delivered(&mut file, batch(run(), &heart_rates(10), false)).await;
    let ballast = disk.dir.join("ballast");
    fs::write(&ballast, vec![1; 960 * 1024]).unwrap_or_default();
    let (run, ours) = (run(), heart_rates(1_000));
    let reason = refused(&mut file, batch(run, &ours, false)).await;
    assert!(reason.contains("is full; free some space"), "{reason}");
    assert_eq!(ids(&disk.dir).len(), 10, "what a failed batch wrote is taken back");
    fs::remove_file(&ballast).unwrap();
    delivered(&mut file, batch(run, &ours, true)).await;
    assert_each_once(&disk.dir, 1_010);
}

/// A file system of one mebibyte.
struct SmallDisk {
    dir: PathBuf,
    _root: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("disk");
        fs::create_dir(&dir).unwrap();
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&dir).status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(SmallDisk { dir, _root: root });
        }
        crate::rig::missing("a small disk (mounting one needs root)");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.dir).status().ok();
    }
}
