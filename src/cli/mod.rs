//! The command line: one file per subcommand. Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config;

mod buffer;
mod check;
mod decode;
mod demo;
mod ledger_line;
pub mod logging;
mod profile_folders;
mod profiles;
mod record;
mod replay;
mod run;
mod schema;

/// Wrong usage or configuration.
const WRONG_USAGE: u8 = 2;

/// Reads health sensors over serial and MQTT and forwards each event once. It is not a patient monitor.
#[derive(Debug, Parser)]
#[command(name = "biogate", version, propagate_version = true)]
pub struct Arguments {
    /// The configuration; conf.d/*.toml and devices.d/*.toml beside it are read too
    #[arg(long, short, global = true, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    /// A further folder of device profiles
    #[arg(long, global = true, value_name = "DIR")]
    profiles: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway until SIGTERM
    Run,
    /// Runs it with virtual patients, into files in a temporary folder
    Demo(demo::DemoArgs),
    /// Validates configuration and profiles, then looks at clock, ports, disk, brokers and warehouse
    Check(check::CheckArgs),
    /// Shows what a frame means
    Decode(decode::DecodeArgs),
    /// Lists, shows and tests device profiles
    #[command(subcommand)]
    Profiles(profiles::ProfilesCommand),
    /// Writes the running gateway's raw frames to a file
    Record(record::RecordArgs),
    /// Takes recorded frames through the whole path
    Replay(replay::ReplayArgs),
    /// Looks into the offline buffer
    #[command(subcommand)]
    Buffer(buffer::BufferCommand),
    /// Prints or applies the warehouse's table
    #[command(subcommand)]
    Schema(schema::SchemaCommand),
}

impl Arguments {
    /// How this command's log lines are written.
    pub fn log_format(&self) -> logging::Format {
        match self.command {
            Command::Run => logging::Format::for_service(),
            _ => logging::Format::Human,
        }
    }

    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Arguments { config, profiles, command } = self;
        let folders = profiles.as_deref();
        match command {
            Command::Run => block_on(run::run(&config, folders)),
            Command::Demo(arguments) => block_on(demo::run(arguments)),
            Command::Check(arguments) => block_on(check::run(arguments, &config, folders)),
            Command::Decode(arguments) => arguments.run(folders),
            Command::Profiles(command) => command.run(folders),
            Command::Record(arguments) => block_on(record::run(arguments, &config)),
            Command::Replay(arguments) => block_on(replay::run(arguments, &config, folders)),
            Command::Buffer(command) => block_on(buffer::run(command, &config)),
            Command::Schema(command) => block_on(schema::run(command, &config)),
        }
    }
}

/// Prints an error with its causes and says how to exit.
#[allow(clippy::print_stderr, reason = "the program's last words to the person at the terminal")]
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("biogate: {error:#}");
    match is_wrong_usage(error) {
        true => ExitCode::from(WRONG_USAGE),
        false => ExitCode::FAILURE,
    }
}

fn is_wrong_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<config::Error>() || cause.is::<crate::interpret::ProfileError>() || cause.is::<crate::interpret::CatalogError>()
    })
}

fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(command)
}
