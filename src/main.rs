//! The gateway's program: arguments, logging, exit code.

use std::process::ExitCode;

use biogate::cli;
use clap::Parser;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    biogate::crash::arm();
    let arguments = cli::Arguments::parse();
    let (format, usual) = arguments.logging();
    cli::logging::start(format, usual);
    match arguments.run() {
        Ok(code) => code,
        Err(error) => cli::report(&error),
    }
}
