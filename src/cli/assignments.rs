//! `biogate assignments`: who wears what, and who wore it before.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::assign::{Refused, place};
use super::buffer;
use super::moment::Place;
use crate::config::Config;
use crate::gateway;
use crate::local::client;
use crate::local::persons::{DeviceWorn, worn};

/// Arguments of `assignments`.
#[derive(Debug, Args)]
pub(super) struct AssignmentsArgs {
    /// Only this sensor
    device: Option<String>,
    /// Prints JSON, with every statement as it was made
    #[arg(long)]
    json: bool,
}

/// Asks the running gateway, or looks into the store where none runs.
#[allow(clippy::print_stdout, reason = "this command reports to a person")]
pub(super) async fn run(arguments: AssignmentsArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(file)?;
    let asked = json!({ "device": arguments.device });
    let devices: Vec<DeviceWorn> = match client::post(&config.control_socket(), "/assignments", &asked).await? {
        Some(devices) => devices,
        None => {
            let store = buffer::open(&config)?;
            let timeline = gateway::stored_timeline(&store);
            store.close().await?;
            worn(&timeline, arguments.device.as_deref())
        }
    };
    if let (Some(device), true) = (&arguments.device, devices.is_empty()) {
        let why = format!("nothing was ever said about \"{device}\"; `biogate assignments` shows all");
        return Err(Refused(why).into());
    }
    match arguments.json {
        true => println!("{}", json!(devices)),
        false => print!("{}", table(&place(&config), &devices)),
    }
    Ok(ExitCode::SUCCESS)
}

/// A device's name, then a line a stretch: from, until, whose, where.
pub(super) fn table(place: &Place, devices: &[DeviceWorn]) -> String {
    let mut text = String::new();
    for device in devices {
        text += &format!("{}\n", device.device);
        for stretch in &device.intervals {
            let from = stretch.from.map_or_else(|| "since always".to_owned(), |from| place.shown(from));
            let until = stretch.until.map_or_else(|| "until further notice".to_owned(), |until| place.shown(until));
            let person = stretch.user_id.map_or_else(|| "nobody".to_owned(), |person| person.to_string());
            let location = stretch.location.as_deref().map_or_else(String::new, |room| format!("  {room}"));
            text += &format!("  {from:19}  {until:20}  {person}{location}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use uuid::Uuid;

    use super::*;
    use crate::resolve::history::Interval;

    #[test]
    fn a_stretch_is_a_line() {
        let at = 1_763_900_000_000 - 1_763_900_000_000 % 60_000;
        let stretch = |from, until, person: Option<u128>| Interval {
            from,
            until,
            user_id: person.map(Uuid::from_u128),
            location: person.map(|_| "room 12".into()),
        };
        let intervals = vec![stretch(None, Some(at), None), stretch(Some(at), None, Some(7))];
        let devices = [DeviceWorn { device: "strap".into(), intervals, said: Vec::new() }];
        let place = Place { zone: TimeZone::UTC, today: None };
        assert_eq!(
            table(&place, &devices),
            "strap\n  since always         2025-11-23 12:13      nobody\n  \
             2025-11-23 12:13     until further notice  00000000-0000-0000-0000-000000000007  room 12\n"
        );
    }
}
