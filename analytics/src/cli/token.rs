//! `token new`: prints a token once, and the entry that knows it by its hash.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use jiff::{Span, Timestamp, ToSpan};
use serde::Serialize;
use uuid::Uuid;

use super::say;
use crate::token::{self, All, Entry, Role, Scope, Users};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token. Standard output is the entry for the tokens file, standard error the token, this once
    New(New),
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// Who it is for; the audit names it
    #[arg(long)]
    name: String,
    /// What it may be used for
    #[arg(long, value_enum)]
    role: Role,
    /// A scope beside those of the role
    #[arg(long, value_enum)]
    scope: Vec<Scope>,
    /// A person whose rows it may see; repeat it for more
    #[arg(long, value_name = "UUID")]
    user: Vec<Uuid>,
    /// It may see everybody's rows
    #[arg(long, conflicts_with = "user")]
    everybody: bool,
    /// For how many days it is good
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3660))]
    days: u16,
}

#[derive(Serialize)]
struct File {
    token: [Entry; 1],
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Command::New(new) = self;
        let (entry, token) = new.entry()?;
        say(toml::to_string(&File { token: [entry] })?.trim_end());
        tell(&token);
        Ok(ExitCode::SUCCESS)
    }
}

impl New {
    fn entry(self) -> anyhow::Result<(Entry, String)> {
        let mut scopes = self.role.scopes().to_vec();
        scopes.extend(self.scope.into_iter().filter(|scope| !self.role.scopes().contains(scope)));
        let everybody = self.everybody || (self.role == Role::Analyst && self.user.is_empty());
        if self.role == Role::Person && self.everybody {
            bail!("--role person is for the persons named by --user; for everybody write --role clinician");
        }
        if scopes.contains(&Scope::Query) && !everybody {
            bail!(
                "the scope query can ask for everybody's rows: write --everybody, or another role without --scope query"
            );
        }
        if scopes.contains(&Scope::Persons) && !everybody && self.user.is_empty() {
            bail!("whose rows may it see? Write --user UUID, or --everybody");
        }
        let token = token::new().map_err(|why| anyhow!(why))?;
        let life: Span = (i64::from(self.days) * 24).hours();
        let expires = Timestamp::from_second(Timestamp::now().checked_add(life)?.as_second())?;
        let users = if everybody { Users::Everybody(All::All) } else { Users::These(self.user) };
        Ok((Entry { name: self.name, sha256: token::hash(&token), scopes, users, expires }, token))
    }
}

#[expect(clippy::print_stderr, reason = "the token goes where a redirected entry does not")]
fn tell(token: &str) {
    eprintln!("{token}");
    eprintln!("This token is kept nowhere: give it to its owner now. Append the entry above to the tokens file.");
}
