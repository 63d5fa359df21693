//! A device entry in a file of its own below `devices.d`: written whole or not at all, and kept only if the whole
//! configuration is right with it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::profile_folders::ProfileFolders;
use super::run::plan;
use crate::gateway;

/// Where the entry of this name stands.
pub(super) fn path(config: &Path, name: &str) -> PathBuf {
    config.parent().unwrap_or(Path::new(".")).join("devices.d").join(format!("{name}.toml"))
}

/// Writes the entry and proves the configuration with it; a wrong one leaves everything as it was.
pub(super) fn write(config: &Path, folders: &ProfileFolders, path: &Path, text: &str) -> anyhow::Result<()> {
    let before = match std::fs::read(path) {
        Ok(before) => Some(before),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => None,
        Err(why) => return Err(why).with_context(|| format!("reading {}", path.display())),
    };
    replace(config, path, text.as_bytes())?;
    let proven = plan(config, folders).and_then(|plan| gateway::validate(&plan));
    let Err(why) = proven else { return Ok(()) };
    match before {
        Some(before) => replace(config, path, &before)?,
        None => std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?,
    }
    Err(why.context("the configuration would be refused, so nothing was written"))
}

/// A new file in the place of the old one, readable by whoever may read the main file.
fn replace(config: &Path, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let what = || format!("writing {}", path.display());
    let folder = path.parent().context("the file has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    // Only *.toml is read, so a half-written one is nothing.
    let unfinished = path.with_extension("toml.new");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o640).open(&unfinished).with_context(what)?;
    // Written by root, read by the service's user through the group of the main file.
    let group = std::fs::metadata(config)
        .map(|it| it.gid())
        .ok()
        .filter(|gid| file.metadata().is_ok_and(|it| it.gid() != *gid));
    if let Some(group) = group {
        fchown(&file, None, Some(group))
            .with_context(|| format!("giving {} to the group of the configuration", path.display()))?;
    }
    let written =
        file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&unfinished, path));
    written.and_then(|()| File::open(folder)?.sync_all()).with_context(what)
}
