//! `biogate schema print|apply`: the warehouse's tables.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::forward::clickhouse::Settings;
use crate::forward::clickhouse::document::Copied;
use crate::forward::clickhouse::schema::{self, Fitting};

/// Print or make the table that events are written to.
#[derive(Debug, Args)]
pub struct SchemaCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What `schema` does.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Print the statements that make the tables and views.
    Print,
    /// Make database, tables and views where they are missing, and check that an existing table of events fits.
    Apply(Target),
}

/// Where the table is, where not in the configuration.
#[derive(Debug, Args)]
pub struct Target {
    /// https://host:8443; without it the configuration's ClickHouse destination.
    #[arg(long)]
    pub url: Option<String>,
    /// Database of the table.
    #[arg(long)]
    pub database: Option<String>,
    /// User with the right to create databases and tables.
    #[arg(long)]
    pub user: Option<String>,
    /// File that holds the user's password.
    #[arg(long)]
    pub password_file: Option<PathBuf>,
    /// Certificates to trust instead of the system's.
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong usage or configuration: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The server or the table: exit code 1.
    #[error(transparent)]
    Schema(#[from] schema::Error),
    /// The report could not be written.
    #[error("cannot write the report: {0}")]
    Output(#[from] io::Error),
}

impl SchemaCommand {
    /// Whether the configuration's destination is wanted.
    pub fn needs_config(&self) -> bool {
        match &self.action {
            Action::Print => false,
            Action::Apply(target) => target.url.is_none(),
        }
    }
}

/// Carries the command out. `configured` is the configuration's ClickHouse destination.
pub async fn run(command: &SchemaCommand, configured: Option<Settings>, out: &mut impl Write) -> Result<(), Error> {
    match &command.action {
        Action::Print => Ok(write!(out, "{}", schema::script())?),
        Action::Apply(target) => {
            let settings = target.settings(configured)?;
            let (fitting, copied) = schema::apply_and_copy(&settings).await?;
            report(&settings, &fitting, &copied, target.json, out)
        }
    }
}

impl Target {
    /// The arguments over the configuration's destination; a URL of its own starts from nothing.
    fn settings(&self, configured: Option<Settings>) -> Result<Settings, Error> {
        let mut settings = match (&self.url, configured) {
            (Some(url), _) => Settings::new(url, "biometrics"),
            (None, Some(configured)) => configured,
            (None, None) => {
                let wanted = "the configuration has no destination of kind \"clickhouse\"; add one or write --url";
                return Err(Error::Usage(wanted.to_owned()));
            }
        };
        settings.check_url().map_err(Error::Usage)?;
        if let Some(database) = &self.database {
            settings.database.clone_from(database);
        }
        // A user's password is not another user's.
        if let Some(user) = &self.user {
            settings.user = Some(user.clone());
            settings.password_file = None;
        }
        if self.password_file.is_some() {
            settings.password_file.clone_from(&self.password_file);
        }
        if self.ca_file.is_some() {
            settings.ca_file.clone_from(&self.ca_file);
        }
        Ok(settings)
    }
}

/// What `apply` found.
#[derive(Serialize)]
struct Report<'a> {
    url: &'a str,
    table: String,
    server_version: &'a str,
    engine: &'a str,
    deduplication_window: Option<u64>,
    copied_rows: u64,
}

fn report(
    settings: &Settings,
    fitting: &Fitting,
    copied: &[Copied],
    json: bool,
    out: &mut impl Write,
) -> Result<(), Error> {
    let table = format!("{}.{}", settings.database, settings.table);
    let Fitting { server_version, engine, deduplication_window, .. } = fitting;
    if json {
        let (url, deduplication_window) = (settings.url.as_str(), *deduplication_window);
        let copied_rows = copied.iter().map(|copied| copied.rows).sum();
        let report = Report { url, table, server_version, engine, deduplication_window, copied_rows };
        serde_json::to_writer(&mut *out, &report).map_err(io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    for Copied { from, rows } in copied {
        writeln!(out, "copied {rows} rows of {from}, which stays; drop it once you have looked at them")?;
    }
    writeln!(out, "table {table} on {} (ClickHouse {server_version}, {engine}) fits contract v1", settings.url)?;
    if deduplication_window.is_none() {
        writeln!(
            out,
            "it remembers no inserts, so raw counts may hold repeats; FINAL counts each event once. \
             To mend: ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 10000"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: Option<&str>, user: Option<&str>) -> Target {
        let (url, user) = (url.map(str::to_owned), user.map(str::to_owned));
        Target { url, database: None, user, password_file: None, ca_file: None, json: false }
    }

    #[test]
    fn arguments_stand_over_the_configuration() {
        let mut configured = Settings::new("https://db:8443", "biometrics");
        configured.user = Some("gateway".to_owned());
        configured.password_file = Some("/etc/gateway".into());
        let settings = target(None, None).settings(Some(configured.clone())).unwrap();
        assert_eq!((settings.user.as_deref(), settings.password_file.is_some()), (Some("gateway"), true));
        let settings = target(None, Some("admin")).settings(Some(configured.clone())).unwrap();
        assert_eq!((settings.user.as_deref(), settings.password_file), (Some("admin"), None));
        let settings = target(Some("http://other:8123"), None).settings(Some(configured)).unwrap();
        assert_eq!((settings.user, settings.url.as_str()), (None, "http://other:8123"));
        assert!(target(None, None).settings(None).unwrap_err().to_string().contains("write --url"));
        assert!(matches!(target(Some("other"), None).settings(None), Err(Error::Usage(_))));
    }

    #[tokio::test]
    async fn print_gives_runnable_statements() {
        let mut out = Vec::new();
        run(&SchemaCommand { action: Action::Print }, None, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("-- 0001") && text.ends_with(";\n\n") && text.contains("'rebuild';\n\nCREATE"),
            "{text}"
        );
    }
}
