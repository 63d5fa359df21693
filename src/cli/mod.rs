//! The command line: one file per subcommand.

#[cfg(feature = "clickhouse")]
pub mod schema;
