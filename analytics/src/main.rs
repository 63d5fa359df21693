//! The program: arguments, logging, exit code.

use std::process::ExitCode;

use biogate_analytics::cli;
use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    cli::start_logging();
    match arguments.run() {
        Ok(code) => code,
        Err(error) => cli::report(&error),
    }
}
