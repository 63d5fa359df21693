//! `erase` and `repseudonymise`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use uuid::Uuid;

use super::{runtime, say};
use crate::config::Config;
use crate::erase::{self, Kind, Options, Order, Report};
use crate::warehouse::Warehouse;

/// How long one statement of these commands may run at least: it may go through all of a large table.
const STATEMENT: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
pub(super) struct Erase {
    /// The person, as the rows have it
    #[arg(long, value_name = "UUID", required_unless_present = "late", conflicts_with = "late")]
    user: Option<Uuid>,
    /// All those who were erased before and of whom rows came since, from a hub's buffer or from Kafka
    #[arg(long)]
    late: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(super) struct Repseudonymise {
    /// The pseudonym that goes
    #[arg(long, value_name = "UUID")]
    user: Uuid,
    /// The one that comes in its place
    #[arg(long, value_name = "UUID")]
    to: Uuid,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// Only say what there is, here and elsewhere
    #[arg(long)]
    dry_run: bool,
    /// Print JSON, one line for each person
    #[arg(long)]
    json: bool,
    /// How long an insert may take until its rows are seen; rows that are younger wait for a round of their own
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = humantime)]
    settle: Duration,
    /// For how long all of it may last; the next run goes on where this one ended
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime)]
    patience: Duration,
    /// The cluster over which the tables lie
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

fn humantime(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|why| format!("{why}; write \"10min\", \"1h\""))?;
    Duration::try_from(span).map_err(|why| why.to_string())
}

impl Erase {
    pub(super) fn run(self, file: &Path) -> anyhow::Result<ExitCode> {
        let warehouse = admin(file)?;
        let (how, options) = (&self.how, self.how.options());
        runtime()?.block_on(async {
            let (orders, given_up) = match self.user {
                Some(user) => (vec![Order::Erase { user }], 0),
                None => late(&warehouse, &options).await?,
            };
            // Rows under a pseudonym that was given up are left, whatever becomes of the others.
            let mut code = if given_up == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            for order in orders {
                if how.carry_out(&warehouse, &order, &options).await? != ExitCode::SUCCESS {
                    code = ExitCode::FAILURE;
                }
            }
            Ok(code)
        })
    }
}

/// Who is to be erased once more. Pseudonyms that were given up are named, and counted: only who gave one up knows the new.
async fn late(warehouse: &Warehouse, options: &Options) -> anyhow::Result<(Vec<Order>, usize)> {
    let found = erase::late(warehouse, options).await?;
    let mut given_up = 0;
    let mut orders = Vec::new();
    for late in found {
        match late.kind {
            Kind::Erase => orders.push(Order::Erase { user: late.user }),
            Kind::Repseudonymise => {
                given_up += 1;
                tracing::warn!(
                    user = %late.user, done_at = %late.done_at,
                    "rows came under a pseudonym that was given up: run `repseudonymise --user UUID --to UUID` again"
                );
            }
        }
    }
    if orders.is_empty() && given_up == 0 {
        say("no rows came since of anybody who was erased");
    }
    if orders.is_empty() && given_up > 0 {
        bail!("{given_up} pseudonyms that were given up have rows again; the log lines above name them");
    }
    Ok((orders, given_up))
}

impl Repseudonymise {
    pub(super) fn run(self, file: &Path) -> anyhow::Result<ExitCode> {
        let warehouse = admin(file)?;
        let order = Order::Repseudonymise { user: self.user, to: self.to };
        runtime()?.block_on(self.how.carry_out(&warehouse, &order, &self.how.options()))
    }
}

impl How {
    fn options(&self) -> Options {
        Options { settle: self.settle, patience: self.patience, cluster: self.cluster.clone() }
    }

    async fn carry_out(&self, warehouse: &Warehouse, order: &Order, options: &Options) -> anyhow::Result<ExitCode> {
        let report = match self.dry_run {
            true => erase::plan(warehouse, order, options).await?,
            false => erase::run(warehouse, order, options).await?,
        };
        self.tell(&report)?;
        let is_fine = self.dry_run || report.is_done;
        Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn tell(&self, report: &Report) -> anyhow::Result<()> {
        match self.json {
            true => say(&serde_json::to_string(report)?),
            false => say(report.to_string().trim_end()),
        }
        Ok(())
    }
}

/// The warehouse, by the user who may change rows.
fn admin(file: &Path) -> anyhow::Result<Warehouse> {
    let config = Config::load(file)?;
    let Some(mut settings) = config.admin else {
        bail!(
            "{}: there is no [admin]: write url, database, user and password_file of a user who may change rows",
            file.display()
        );
    };
    settings.limits.time = settings.limits.time.max(STATEMENT);
    settings.limits.read_bytes = bytesize::ByteSize(u64::MAX / 2);
    settings.limits.rows = settings.limits.rows.max(1_000_000);
    settings.limits.memory = settings.limits.memory.max(bytesize::ByteSize::gib(8));
    Warehouse::new(&settings).with_context(|| format!("{}: admin", file.display()))
}
