//! `biogate add`: asks which sensor, its name, profile, person and room, and writes its entry.
// Printing is what this command is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;
use uuid::Uuid;

use super::device_file;
use super::dialogue::Dialogue;
use super::near::Claims;
use super::profile_folders::ProfileFolders;
use super::scan_table::{entry, likely_profile, table};
use super::surroundings::{self, Ears, Peripheral, SerialPort};
use crate::config::{self, Config, DEFAULT_FILE};
use crate::interpret::ProfileSet;
use crate::interpret::catalog::UnknownProfile;
use crate::source::serial::port_name::PortName;

/// How often a scan looks whether the sensor that was named is there.
const TURN: Duration = Duration::from_millis(500);

/// Arguments of `add`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The sensor: a Bluetooth address, or a serial port
    #[arg(long, value_name = "ADDRESS|PORT")]
    device: Option<String>,
    /// The device_id of its events
    #[arg(long)]
    name: Option<String>,
    /// The id of its profile
    #[arg(long, value_name = "ID")]
    profile: Option<String>,
    /// The person who wears it; empty for none
    #[arg(long, value_name = "UUID")]
    user: Option<String>,
    /// The room; empty for the gateway's own
    #[arg(long)]
    location: Option<String>,
    /// Asks nothing: what is not given takes its default, and a file that is there stays
    #[arg(long)]
    yes: bool,
    /// How long to listen
    #[arg(long = "for", value_name = "TIME", default_value = "10 s", value_parser = humantime::parse_duration)]
    time: Duration,
    #[command(flatten)]
    folders: ProfileFolders,
}

/// How an entry reaches a sensor.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    key: &'static str,
    text: String,
}

/// Asks, writes, and says what to do next.
pub(super) async fn run(arguments: AddArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(file)?;
    let claims = Claims::new(arguments.folders.load()?.set)?;
    let near = listen(&arguments, &config, &claims).await?;
    let ports = surroundings::serial_ports(&config.devices)?;
    let mut dialogue = Dialogue::new(std::io::stdin().lock(), std::io::stdout().lock(), arguments.yes);
    let (path, text) = ask(&arguments, &config, &near, &ports, claims.profiles(), &mut dialogue)?;
    device_file::write(file, &arguments.folders, &path, &text)?;
    let reload = match file == Path::new(DEFAULT_FILE) {
        true => "`systemctl reload biogate`",
        false => "SIGHUP to the running gateway",
    };
    println!("wrote {}; {reload} makes it read, `biogate check` says whether the sensor is there", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Peripherals that are near. Nothing to listen for where port or profile are given already.
async fn listen(arguments: &AddArgs, config: &Config, claims: &Claims) -> anyhow::Result<Vec<Peripheral>> {
    let target = arguments.device.as_deref().and_then(|device| target(device).ok());
    if target.as_ref().is_some_and(|target| target.key == "serial" || arguments.profile.is_some()) {
        return Ok(Vec::new());
    }
    let ears = Ears::open(&config.control_socket(), config.ble.adapters.clone()).await?;
    if !arguments.yes {
        println!("listening for {}; hold the sensor to the hub", humantime::format_duration(arguments.time));
    }
    let end = Instant::now() + arguments.time;
    let near = loop {
        let near = surroundings::peripherals(ears.near().await?, claims, &config.devices);
        let found = target.as_ref().is_some_and(|wanted| {
            near.iter().any(|row| row.near.address.eq_ignore_ascii_case(&wanted.text) && !row.claims.is_empty())
        });
        if found || Instant::now() >= end || ears.are_deaf() {
            break near;
        }
        tokio::time::sleep(TURN).await;
    };
    if let Some(why) = ears.close().await {
        eprintln!("biogate add: no Bluetooth: {why}");
    }
    Ok(near)
}

/// The file and its text.
fn ask<R: BufRead, W: Write>(
    arguments: &AddArgs,
    config: &Config,
    near: &[Peripheral],
    ports: &[SerialPort],
    profiles: &ProfileSet,
    dialogue: &mut Dialogue<R, W>,
) -> anyhow::Result<(PathBuf, String)> {
    let shown: Vec<&Peripheral> = near.iter().filter(|row| row.is_known() && row.entry.is_none()).collect();
    if arguments.device.is_none() && !arguments.yes {
        list(&shown, ports, dialogue)?;
    }
    let default = shown.iter().find(|row| row.near.this_one).map(|row| row.near.address.to_string());
    let choice = |text: &str| chosen(text, &shown, ports);
    let what = "Which sensor (number, address or port)";
    let target = dialogue.ask(what, "--device", arguments.device.as_deref(), default.as_deref(), choice)?;
    let row = near.iter().find(|row| row.near.address.eq_ignore_ascii_case(&target.text));
    let port = ports.iter().find(|port| port.port.path == Path::new(&target.text));

    let fresh = |name: &str| fresh_name(name, config);
    let proposed = row.map(Peripheral::entry_name).or_else(|| port.map(SerialPort::entry_name));
    let name = dialogue.ask("Its name", "--name", arguments.name.as_deref(), proposed.as_deref(), fresh)?;
    let known = |id: &str| match profiles.get(id) {
        Some(profile) => Ok(profile.id().to_string()),
        None => Err(format!("there is no profile \"{id}\"; {}", UnknownProfile::hint(id, profiles))),
    };
    let likely = row.and_then(likely_profile);
    let profile = dialogue.ask("Its profile", "--profile", arguments.profile.as_deref(), likely.as_deref(), known)?;
    let person = |text: &str| match text {
        "" => Ok(None),
        text => {
            Uuid::try_parse(text).map(Some).map_err(|_| format!("\"{text}\" is no UUID; leave it empty for nobody"))
        }
    };
    let user = dialogue.ask("Whose (UUID, empty for nobody)", "--user", arguments.user.as_deref(), Some(""), person)?;
    let any = |text: &str| Ok(text.to_owned());
    let room = dialogue.ask("Which room", "--location", arguments.location.as_deref(), Some(""), any)?;

    let path = device_file::path(&config.file, &name);
    if path.exists() && !dialogue.confirm(&format!("{} is there already; replace it?", path.display()))? {
        anyhow::bail!("{} is there already and stays; nothing was written", path.display());
    }
    let mut text = entry(&name, &profile, target.key, &target.text);
    if let Some(user) = user {
        text += &format!("user_id = \"{user}\"\n");
    }
    if !room.is_empty() {
        text += &format!("location = {}\n", toml::Value::String(room));
    }
    Ok((path, text))
}

fn list<R: BufRead, W: Write>(
    shown: &[&Peripheral],
    ports: &[SerialPort],
    dialogue: &mut Dialogue<R, W>,
) -> anyhow::Result<()> {
    let rows: Vec<Peripheral> = shown.iter().map(|row| (*row).clone()).collect();
    let text = table(&rows, true, usize::MAX);
    for (number, line) in text.lines().enumerate().filter(|_| !rows.is_empty()) {
        let number = if number == 0 { String::new() } else { number.to_string() };
        dialogue.say(&format!("{number:>3}  {line}"))?;
    }
    for (at, port) in ports.iter().enumerate() {
        let listed = port.entry.as_ref().map_or_else(String::new, |entry| format!(", listed as {entry}"));
        let number = rows.len() + at + 1;
        dialogue.say(&format!("{number:>3}  {} ({}{listed})", port.port.path.display(), port.described()))?;
    }
    Ok(())
}

/// A number of the list, an address or a port.
fn chosen(text: &str, shown: &[&Peripheral], ports: &[SerialPort]) -> Result<Target, String> {
    let Ok(number) = text.parse::<usize>() else { return target(text) };
    let at = number.wrapping_sub(1);
    if let Some(row) = shown.get(at) {
        return Ok(Target { key: "ble", text: row.near.address.to_string() });
    }
    match at.checked_sub(shown.len()).and_then(|at| ports.get(at)) {
        Some(port) => Ok(Target { key: "serial", text: port.port.path.display().to_string() }),
        None => Err(format!("the list has no number {number}")),
    }
}

fn target(text: &str) -> Result<Target, String> {
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.split(':').count() == 6 && text.split(':').all(is_byte) {
        return Ok(Target { key: "ble", text: text.to_ascii_uppercase() });
    }
    match text.parse::<PortName>() {
        Ok(_) => Ok(Target { key: "serial", text: text.to_owned() }),
        Err(_) => Err(format!("\"{text}\" is neither an address as A0:9E:1A:00:11:22 nor a port as /dev/ttyUSB0")),
    }
}

fn fresh_name(name: &str, config: &Config) -> Result<String, String> {
    if !config::is_name(name) {
        return Err(format!("found \"{name}\"; write a name of 1 to 64 of the characters A-Z a-z 0-9 . _ -"));
    }
    // What stands in the file that would be replaced is no reason against its name.
    let own = device_file::path(&config.file, name).exists();
    match config.devices.iter().any(|device| *device.name == *name) && !own {
        true => Err(format!("there is a device \"{name}\" already; write another name")),
        false => Ok(name.to_owned()),
    }
}
