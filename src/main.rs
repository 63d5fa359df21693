//! The gateway's program: arguments, logging, exit code.

use std::process::ExitCode;

use biogate::cli;
use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    cli::logging::start(arguments.log_format());
    match arguments.run() {
        Ok(code) => code,
        Err(error) => cli::report(&error),
    }
}
