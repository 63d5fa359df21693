//! The command line: one file per subcommand. Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::forward;
use crate::interpret::error::ProfileError;
use profile_folders::ProfileFolders;

#[cfg(feature = "ble")]
mod add;
mod assign;
mod assignments;
mod buffer;
mod capture;
mod check;
pub mod decode;
mod demo;
#[cfg(feature = "ble")]
mod device_file;
#[cfg(feature = "ble")]
mod dialogue;
pub mod explain;
mod ledger_line;
pub mod logging;
mod moment;
#[cfg(feature = "ble")]
mod near;
#[cfg(feature = "ble")]
mod pair;
pub mod profile_folders;
pub mod profiles;
pub mod profiles_new;
mod quarantine;
mod record;
mod replay;
mod run;
#[cfg(feature = "ble")]
mod scan;
#[cfg(feature = "ble")]
mod scan_table;
pub mod schema;
mod shipped_channel;
mod simulate_fleet;
mod status;
mod status_table;
#[cfg(feature = "ble")]
mod surroundings;
mod tap;

/// Wrong usage or configuration.
const WRONG_USAGE: u8 = 2;

/// Reads health sensors over Bluetooth, serial and MQTT and forwards each event once. It is not a patient monitor.
#[derive(Debug, Parser)]
#[command(name = "biogate", version, propagate_version = true)]
pub struct Arguments {
    /// The configuration; conf.d/*.toml and devices.d/*.toml beside it are read too
    #[arg(long, short, global = true, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway until SIGTERM
    Run(ProfileFolders),
    /// Runs it with virtual patients, into files in a temporary folder
    Demo(demo::DemoArgs),
    /// Validates configuration and profiles, then looks at clock, ports, disk, brokers and warehouse
    Check(check::CheckArgs),
    /// Tells how the running gateway is, with each device in words
    Status(status::StatusArgs),
    /// Shows the running gateway's events as they pass, values and persons masked
    Tap(tap::TapArgs),
    /// Lists the Bluetooth sensors and serial ports that are near, and what they say
    #[cfg(feature = "ble")]
    Scan(scan::ScanArgs),
    /// Asks which sensor, whose and where, and writes its entry
    #[cfg(feature = "ble")]
    Add(add::AddArgs),
    /// Pairs with a sensor that asks for it
    #[cfg(feature = "ble")]
    Pair(pair::PairArgs),
    /// Says who wears a sensor, from now on or for a time that is over
    Assign(assign::AssignArgs),
    /// Says that nobody wears a sensor any more
    Unassign(assign::UnassignArgs),
    /// Shows who wears what, and who wore it before
    Assignments(assignments::AssignmentsArgs),
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
    /// Prints, applies or compares the warehouse's tables
    Schema(schema::SchemaCommand),
    /// Loads a warehouse or brokers as many hubs would, and says whether they keep up
    SimulateFleet(simulate_fleet::SimulateFleetArgs),
}

impl Arguments {
    /// How this command's log lines are written, and how many.
    pub fn logging(&self) -> (logging::Format, &'static str) {
        match self.command {
            Command::Run(_) => (logging::Format::for_service(), "info"),
            // Its live lines are redrawn in place; a log line between them would stay.
            Command::Demo(_) => (logging::Format::Human, "error"),
            _ => (logging::Format::Human, "warn"),
        }
    }

    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Arguments { config, command } = self;
        // Health data: nothing that this program makes is for everybody's eyes.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
        match command {
            Command::Run(folders) => block_on(run::run(&config, &folders)),
            Command::Demo(arguments) => block_on(demo::run(arguments)),
            Command::Check(arguments) => block_on(check::run(arguments, &config)),
            Command::Status(arguments) => block_on(status::run(arguments, &config)),
            Command::Tap(arguments) => block_on(tap::run(arguments, &config)),
            #[cfg(feature = "ble")]
            Command::Scan(arguments) => block_on(scan::run(arguments, &config)),
            #[cfg(feature = "ble")]
            Command::Add(arguments) => block_on(add::run(arguments, &config)),
            #[cfg(feature = "ble")]
            Command::Pair(arguments) => block_on(pair::run(arguments, &config)),
            Command::Assign(arguments) => block_on(assign::assign(arguments, &config)),
            Command::Unassign(arguments) => block_on(assign::unassign(arguments, &config)),
            Command::Assignments(arguments) => block_on(assignments::run(arguments, &config)),
            Command::Decode(arguments) => arguments.run(),
            Command::Profiles(command) => command.run(),
            Command::Record(arguments) => block_on(record::run(arguments, &config)),
            Command::Replay(arguments) => block_on(replay::run(arguments, &config)),
            Command::Buffer(command) => block_on(buffer::run(command, &config)),
            Command::Schema(command) => block_on(schema(command, &config)),
            Command::SimulateFleet(arguments) => block_on(simulate_fleet::run(arguments, &config)),
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
        cause.is::<config::Error>()
            || cause.is::<ProfileError>()
            || cause.is::<assign::Refused>()
            || cause.is::<simulate_fleet::Usage>()
            || matches!(cause.downcast_ref(), Some(schema::Error::Usage(_)))
    })
}

/// `schema` against the arguments' server, or else the configuration's first ClickHouse destination.
async fn schema(command: schema::SchemaCommand, file: &Path) -> anyhow::Result<ExitCode> {
    let configured = match command.needs_config() {
        true => Config::load(file)?.destinations.into_iter().find_map(|destination| match destination.kind {
            forward::Kind::ClickHouse(settings) => Some(settings),
            forward::Kind::File(_) => None,
            #[cfg(feature = "kafka")]
            forward::Kind::Kafka(_) => None,
        }),
        false => None,
    };
    let is_well = schema::run(&command, configured, &mut std::io::stdout().lock()).await?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(command)
}
