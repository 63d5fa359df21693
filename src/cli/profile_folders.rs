//! Where profiles come from: built in < `/usr/share/biogate/device-profiles` < `/etc/biogate/device-profiles` < folders
//! named on the command line. A later file of the same id overrides.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use crate::interpret::{ProfileSet, builtin};

/// The folders of every hub, the later one wins.
pub const FOLDERS: [&str; 2] = ["/usr/share/biogate/device-profiles", "/etc/biogate/device-profiles"];

/// A profile is some KiB; a larger file is none.
const MAX_FILE: u64 = 1 << 20;

/// The option that commands share.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ProfileFolders {
    /// A further folder of profiles, laid over the built-in and installed ones
    #[arg(long = "profiles", value_name = "DIR")]
    pub folders: Vec<PathBuf>,
}

/// All profiles, and where each came from.
#[derive(Debug)]
pub struct Loaded {
    /// By id.
    pub set: ProfileSet,
    /// By id: file name and text.
    pub origins: BTreeMap<Arc<str>, Origin>,
}

/// Where a profile came from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// `None`: built in.
    pub path: Option<PathBuf>,
    /// The file's text.
    pub text: String,
}

impl ProfileFolders {
    /// Reads all profiles. A folder that every hub may have is skipped where it is not there; a named one must be.
    pub fn load(&self) -> anyhow::Result<Loaded> {
        let standard: Vec<&Path> = FOLDERS.iter().map(Path::new).filter(|folder| folder.is_dir()).collect();
        load(standard.into_iter().chain(self.folders.iter().map(PathBuf::as_path)))
    }
}

/// Reads the built-in profiles and those of these folders, in this order.
pub fn load<'a>(folders: impl Iterator<Item = &'a Path>) -> anyhow::Result<Loaded> {
    let mut loaded = Loaded { set: ProfileSet::empty(), origins: BTreeMap::new() };
    for (name, text) in builtin::FILES {
        let id = loaded.set.add(name, text)?;
        loaded.origins.insert(id, Origin { path: None, text: text.to_owned() });
    }
    for folder in folders {
        for path in files(folder)? {
            let text = read(&path)?;
            let id = loaded.set.add(&path.display().to_string(), &text)?;
            loaded.origins.insert(id, Origin { path: Some(path), text });
        }
    }
    Ok(loaded)
}

/// The text of one profile file.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path).with_context(|| format!("cannot read the profile {}", path.display()))?.len();
    anyhow::ensure!(size <= MAX_FILE, "{} has {size} bytes; a profile has at most {MAX_FILE}", path.display());
    fs::read_to_string(path).with_context(|| format!("cannot read the profile {}", path.display()))
}

/// The `.toml` files of a folder by name, so that every start reads them in the same order.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let what = || format!("cannot list the profiles in {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(what)? {
        let path = entry.with_context(what)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_same_id_overrides_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let text = builtin::FILES.iter().find(|(name, _)| *name == "bluetooth-battery.toml").unwrap().1;
        let path = folder.path().join("ours.toml");
        fs::write(&path, text.replace("version = 1", "version = 7")).unwrap();
        fs::write(folder.path().join("README.md"), "no profile").unwrap();
        let loaded = load([folder.path()].into_iter()).unwrap();
        assert_eq!(loaded.set.get("bluetooth-battery").unwrap().version(), 7);
        assert_eq!(loaded.origins["bluetooth-battery"].path.as_deref(), Some(path.as_path()));
        assert_eq!(loaded.origins.len(), builtin::FILES.len());

        fs::write(&path, text.replace("type = \"u8\"", "type = \"u9\"")).unwrap();
        let error = load([folder.path()].into_iter()).unwrap_err().to_string();
        assert!(error.contains("ours.toml:12") && error.contains("unknown type \"u9\""), "{error}");
    }
}
