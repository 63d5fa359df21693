//! `biogate assign` and `unassign`: who wears a sensor, from now on or for a time that is over. The running gateway is
//! told; where none runs the command writes into the store itself.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;
use uuid::Uuid;

use super::moment::Place;
use super::{assignments, buffer};
use crate::clock::keeper::Trust;
use crate::clock::system;
use crate::config::Config;
use crate::gateway::persons;
use crate::local::client;
use crate::local::persons::{Answer, Change, Done, When};

/// Arguments of `assign`.
#[derive(Debug, Args)]
pub(super) struct AssignArgs {
    /// The sensor's name: the device_id of its events
    device: String,
    /// The person's UUID
    user: Uuid,
    /// Since when: "14:00", "2026-11-25 14:00", "2 h ago", RFC 3339; now unless said
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when; until further notice unless said
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Also for a sensor that is not configured and was never heard
    #[arg(long)]
    anyway: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `unassign`.
#[derive(Debug, Args)]
pub(super) struct UnassignArgs {
    /// The sensor's name: the device_id of its events
    device: String,
    /// Since when nobody wears it: "14:00", "2026-11-25 14:00", "2 h ago", RFC 3339; now unless said
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// A change that cannot be made as it was asked for: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

/// Gives the sensor to a person.
pub(super) async fn assign(arguments: AssignArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let AssignArgs { device, user, from, until, anyway, json } = arguments;
    if user.is_nil() {
        return Err(Refused("the UUID of zeros stands for nobody; write `biogate unassign DEVICE`".to_owned()).into());
    }
    let config = Config::load(file)?;
    let place = place(&config);
    let until = until.map(|text| time("--until", &text, &place)).transpose()?;
    let change = Change { device: device.into(), user_id: Some(user), from: start(from, &place)?, until, anyway };
    carry_out(&config, &place, &change, json).await
}

/// Takes it from whoever wears it.
pub(super) async fn unassign(arguments: UnassignArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let UnassignArgs { device, from, json } = arguments;
    let config = Config::load(file)?;
    let place = place(&config);
    let from = start(from, &place)?;
    let change = Change { device: device.into(), user_id: None, from, until: None, anyway: false };
    carry_out(&config, &place, &change, json).await
}

/// Where the hub is, and what day it is there.
pub(super) fn place(config: &Config) -> Place {
    let zone = TimeZone::get(&config.gateway.timezone).unwrap_or(TimeZone::UTC);
    let sample = system::sample();
    let is_known = sample.synchronised || config.clock.trust != Trust::Kernel;
    let now = Timestamp::from_millisecond(sample.wall_ms).ok().filter(|_| is_known);
    let today = now.map(|now| zone.to_datetime(now).date());
    Place { zone, today }
}

fn start(from: Option<String>, place: &Place) -> Result<When, Refused> {
    let Some(text) = from else { return Ok(When::Now) };
    let when = time("--from", &text, place)?;
    // Said at half past midnight, 23:00 is yesterday's: a day that was not written is not guessed into the future.
    let is_bare = !text.contains('-');
    match when {
        When::At(unix_ms) if is_bare && unix_ms > system::wall_ms() => Err(Refused(format!(
            "--from: found \"{text}\", which is still to come today ({}); write the date too, as \"{}\"",
            place.shown(unix_ms),
            place.shown(unix_ms - 86_400_000),
        ))),
        when => Ok(when),
    }
}

fn time(option: &str, text: &str, place: &Place) -> Result<When, Refused> {
    place.when(text).map_err(|why| Refused(format!("{option}: {why}")))
}

#[allow(clippy::print_stdout, reason = "this command reports to a person")]
async fn carry_out(config: &Config, place: &Place, change: &Change, as_json: bool) -> anyhow::Result<ExitCode> {
    let answer = match client::post(&config.control_socket(), "/assign", change).await? {
        Some(answer) => answer,
        None => {
            let store = buffer::open(config)?;
            let answer = persons::assign_closed(config, &store, change).await;
            store.close().await?;
            answer?
        }
    };
    let done = match answer {
        Answer::Done(done) => done,
        Answer::Refused(why) => return Err(Refused(why).into()),
    };
    match as_json {
        true => println!("{}", json!(done)),
        false => print!("{}", report(place, &done)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What holds now, in words.
fn report(place: &Place, done: &Done) -> String {
    let mut text = assignments::table(place, std::slice::from_ref(&done.worn));
    if done.estimated {
        text += "The hub does not know the time yet; the times above are put right when it does.\n";
    }
    if done.past {
        text += &format!(
            "Events since {} that were sent already are corrected in the warehouse by reassign.sql (docs/persons.md).\n",
            place.shown(done.from)
        );
    }
    text
}
