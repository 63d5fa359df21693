//! The subcommands.

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::api::openapi;
use crate::config;

mod dashboards;
mod erase;
mod serve;
mod token;

/// The Query API of the BIOMETRICS platform and the commands beside it.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    /// The configuration file; `conf.d/*.toml` beside it is read too
    #[arg(long, global = true, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration, the files it names, and whether the warehouse answers
    Check,
    /// Serve the Query API until SIGTERM or SIGINT
    Serve,
    /// Tokens of the Query API
    #[command(subcommand)]
    Token(token::Command),
    /// Take a person out of every table, and say what is left elsewhere
    Erase(erase::Erase),
    /// Give a person another pseudonym in every table
    Repseudonymise(erase::Repseudonymise),
    /// Dashboards as code: the files of deploy/dashboards in Metabase
    #[command(subcommand)]
    Dashboards(dashboards::Command),
    /// Print the Query API's description (OpenAPI, JSON)
    Openapi,
}

impl Arguments {
    /// Runs the subcommand.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Check => serve::check(&self.config),
            Command::Serve => serve::run(&self.config),
            Command::Token(command) => command.run(),
            Command::Erase(command) => command.run(&self.config),
            Command::Repseudonymise(command) => command.run(&self.config),
            Command::Dashboards(command) => command.run(&self.config),
            Command::Openapi => {
                say(&serde_json::to_string_pretty(&openapi::describe())?);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// A line for who called the command.
#[expect(clippy::print_stdout, reason = "a command's own answer")]
pub fn say(line: &str) {
    println!("{line}");
}

/// Prints why a command failed, cause by cause.
#[expect(clippy::print_stderr, reason = "the last words of a command")]
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Log lines to standard error: for people on a terminal, JSON where a service manager collects them.
pub fn start_logging() {
    let level = EnvFilter::try_from_env("BIOGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(level).with_writer(stderr);
    match stderr().is_terminal() {
        true => builder.with_target(false).init(),
        false => builder.json().flatten_event(true).init(),
    }
}

/// A runtime for one command.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime does not start")
}
