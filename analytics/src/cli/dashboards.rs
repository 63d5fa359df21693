//! `dashboards apply`: makes Metabase show what the files say.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};

use super::{runtime, say};
use crate::config::Config;
use crate::dashboards::files::Files;
use crate::dashboards::{self, Deed};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make connection, cards and dashboards in Metabase; told again, change what the files changed
    Apply(Apply),
}

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The folder of the dashboards' files; their statements are beside it
    #[arg(long, value_name = "DIR", default_value = "deploy/dashboards")]
    files: PathBuf,
    /// How many seconds Metabase may take to start
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
}

impl Command {
    pub(super) fn run(self, file: &Path) -> anyhow::Result<ExitCode> {
        let Command::Apply(apply) = self;
        let files = Files::read(&apply.files)?;
        let config = Config::load(file)?;
        let settings = config.metabase.ok_or_else(|| {
            anyhow!("{}: has no section [metabase]: write it with url, user and password_file", file.display())
        })?;
        let wait = Duration::from_secs(apply.wait);
        let done = runtime()?
            .block_on(dashboards::apply(&settings, &config.warehouse, &files, wait))
            .with_context(|| format!("{}: metabase", file.display()))?;
        for one in done {
            let deed = match one.deed {
                Deed::Made => "made",
                Deed::Changed => "changed",
                Deed::Kept => "kept",
                Deed::Archived => "archived",
            };
            say(&format!("{deed:<9} {:<10} {:>5}  {}", one.kind, one.id, one.key));
        }
        Ok(ExitCode::SUCCESS)
    }
}
