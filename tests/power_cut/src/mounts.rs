//! Mounts, which end with their guards. All of them lie in a mount namespace of our own on a tmpfs of our own, and loop
//! devices free themselves with their mount: should this process be killed, the kernel takes everything away.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// A mount that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    at: PathBuf,
    mounted: bool,
}

impl Mount {
    /// A tmpfs.
    pub(crate) fn tmpfs(at: &Path) -> anyhow::Result<Mount> {
        Mount::new(at, &["-t", "tmpfs", "power-cut"])
    }

    /// The ext4 file system in a file, by a loop device. This is where the journal is replayed.
    pub(crate) fn ext4(image: &Path, at: &Path) -> anyhow::Result<Mount> {
        let image = image.to_str().context("a path that is no text")?;
        Mount::new(at, &["-t", "ext4", "-o", "loop,errors=remount-ro", image])
    }

    fn new(at: &Path, what: &[&str]) -> anyhow::Result<Mount> {
        std::fs::create_dir_all(at)?;
        run(Command::new("mount").args(what).arg(at))?;
        Ok(Mount { at: at.to_owned(), mounted: true })
    }

    pub(crate) fn unmount(mut self) -> anyhow::Result<()> {
        self.mounted = false;
        run(Command::new("umount").arg(&self.at)).or_else(|_| run(Command::new("umount").arg("-l").arg(&self.at)))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = run(Command::new("umount").arg("-l").arg(&self.at))
        {
            crate::say(&format!("unmounting: {error:#}"));
        }
    }
}

/// Makes an ext4 file system with a journal in a new file. Blocks of 4 KiB, the unit of the cuts; nothing is put off to
/// be initialised in the background.
pub(crate) fn make_ext4(image: &Path, bytes: u64) -> anyhow::Result<()> {
    std::fs::File::create(image)?.set_len(bytes)?;
    // /usr/sbin is not on every user's PATH.
    let program = ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(program.unwrap_or("mkfs.ext4"));
    command.args(["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]);
    run(command.arg(image))
}

/// Runs a command to its end; what it says is in the error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
