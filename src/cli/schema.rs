//! `biogate schema print|apply|diff`: the warehouse's tables.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::forward::clickhouse::Settings;
use crate::forward::clickhouse::document::Copied;
use crate::forward::clickhouse::schema::{self, Applied, Fitting};
use crate::forward::clickhouse::{DEFAULT_TABLE, dictionary, difference};

/// Print, make or compare the tables that events and reports are written to.
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
    Print(Printed),
    /// Make database, tables and views where they are missing, and check that an existing table of events fits.
    Apply(Target),
    /// Say what of tables, columns, keys, settings and views is missing or different; exit code 1 if anything is. Changes nothing.
    Diff(Target),
}

/// In which form the statements are printed.
#[derive(Debug, Args)]
pub struct Printed {
    /// For the cluster of this name: replicated tables, and Distributed ones over them.
    #[arg(long)]
    pub cluster: Option<String>,
    /// The data dictionary instead, as docs/data.md.
    #[arg(long, conflicts_with = "cluster")]
    pub dictionary: bool,
    /// Database of the cluster's tables, which their statements name.
    #[arg(long, default_value = "biometrics", requires = "cluster")]
    pub database: String,
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
    /// Make or compare the form for the cluster of this name.
    #[arg(long)]
    pub cluster: Option<String>,
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
            Action::Print(_) => false,
            Action::Apply(target) | Action::Diff(target) => target.url.is_none(),
        }
    }
}

/// Carries the command out and says whether all is well. `configured` is the configuration's ClickHouse destination.
pub async fn run(command: &SchemaCommand, configured: Option<Settings>, out: &mut impl Write) -> Result<bool, Error> {
    match &command.action {
        Action::Print(Printed { dictionary: true, .. }) => write!(out, "{}", dictionary::markdown())?,
        Action::Print(Printed { cluster: None, .. }) => write!(out, "{}", schema::script())?,
        Action::Print(Printed { cluster: Some(cluster), database, .. }) => {
            check_cluster(cluster)?;
            write!(out, "{}", schema::cluster_script(cluster, database))?;
        }
        Action::Apply(target) => {
            let settings = target.settings(configured)?;
            let applied = schema::apply_and_tell(&settings, target.cluster.as_deref()).await?;
            report(&settings, &applied, target, out)?;
        }
        Action::Diff(target) => {
            let settings = target.settings(configured)?;
            let differences = difference::find(&settings, target.cluster.as_deref()).await?;
            return diff(&settings, &differences, target.json, out);
        }
    }
    Ok(true)
}

/// A cluster's name is written into statements as it is.
fn check_cluster(name: &str) -> Result<(), Error> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.{}".contains(c);
    match !name.is_empty() && name.chars().all(is_plain) {
        true => Ok(()),
        false => Err(Error::Usage(format!("--cluster {name:?}: write a name of letters, digits, '_', '-' and '.'"))),
    }
}

fn diff(
    settings: &Settings,
    differences: &[difference::Difference],
    json: bool,
    out: &mut impl Write,
) -> Result<bool, Error> {
    let is_same = differences.is_empty();
    if json {
        let (url, database) = (&settings.url, &settings.database);
        let report =
            serde_json::json!({ "url": url, "database": database, "same": is_same, "differences": differences });
        writeln!(out, "{report}")?;
        return Ok(is_same);
    }
    differences.iter().try_for_each(|difference| writeln!(out, "{difference}"))?;
    if is_same {
        writeln!(out, "database {} on {} is as the schema says", settings.database, settings.url)?;
    }
    Ok(is_same)
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
        if let Some(cluster) = &self.cluster {
            check_cluster(cluster)?;
            if settings.table != DEFAULT_TABLE {
                let table = &settings.table;
                return Err(Error::Usage(format!(
                    "--cluster makes the table {DEFAULT_TABLE}, the destination names {table}; write --url and --database"
                )));
            }
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
    new: &'a [String],
    changed: &'a [String],
    unknown: &'a [String],
}

fn report(settings: &Settings, applied: &Applied, target: &Target, out: &mut impl Write) -> Result<(), Error> {
    let table = format!("{}.{}", settings.database, settings.table);
    let Applied { fitting, copied, ledger } = applied;
    let Fitting { server_version, engine, deduplication_window, .. } = fitting;
    if target.json {
        let (url, deduplication_window) = (settings.url.as_str(), *deduplication_window);
        let copied_rows = copied.iter().map(|copied| copied.rows).sum();
        let (new, changed, unknown) = (&ledger.new[..], &ledger.changed[..], &ledger.unknown[..]);
        let report =
            Report { url, table, server_version, engine, deduplication_window, copied_rows, new, changed, unknown };
        serde_json::to_writer(&mut *out, &report).map_err(io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    for Copied { from, rows } in copied {
        writeln!(out, "copied {rows} rows of {from}, which stays; drop it once you have looked at them")?;
    }
    for name in &ledger.new {
        writeln!(out, "applied {name}")?;
    }
    for name in &ledger.changed {
        writeln!(
            out,
            "{name} says something else than when it was applied here; what exists was not altered: `biogate schema diff` \
             says what differs"
        )?;
    }
    for name in &ledger.unknown {
        writeln!(out, "{name} was applied here by a newer biogate, which knows more tables than this one")?;
    }
    writeln!(out, "table {table} on {} (ClickHouse {server_version}, {engine}) fits contract v1", settings.url)?;
    if deduplication_window.is_none() && target.cluster.is_none() {
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
        Target { url, database: None, user, password_file: None, ca_file: None, cluster: None, json: false }
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
        run(
            &SchemaCommand {
                action: Action::Print(Printed { cluster: None, dictionary: false, database: String::new() }),
            },
            None,
            &mut out,
        )
        .await
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("-- 0001") && text.ends_with(";\n\n") && text.contains("'rebuild';\n\nCREATE"),
            "{text}"
        );
    }
}
