//! `--name value` and words, read as forgivingly as `cargo bench -- ARGS` needs it: one line goes to every bench.

use std::path::PathBuf;

/// The arguments after `--`.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn read() -> Arguments {
        Arguments(std::env::args().skip(1).filter(|argument| argument != "--bench").collect())
    }

    /// Whether the word stands there.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.0.iter().any(|argument| argument == word)
    }

    /// The number after `name`.
    pub(crate) fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.text(name).map_or(otherwise, |text| text.replace('_', "").parse().unwrap())
    }

    /// A fresh folder in `--dir`, or in the system's temporary folder.
    pub(crate) fn folder(&self) -> tempfile::TempDir {
        self.folder_in("--dir").unwrap_or_else(|| fresh(std::env::temp_dir()))
    }

    /// A fresh folder in the folder after `name`.
    pub(crate) fn folder_in(&self, name: &str) -> Option<tempfile::TempDir> {
        self.text(name).map(|parent| fresh(PathBuf::from(parent)))
    }

    /// What stands after `name`.
    pub(crate) fn text(&self, name: &str) -> Option<&String> {
        self.0.get(self.0.iter().position(|argument| argument == name)? + 1)
    }
}

fn fresh(parent: PathBuf) -> tempfile::TempDir {
    tempfile::Builder::new().prefix("biogate-bench").tempdir_in(parent).unwrap()
}
