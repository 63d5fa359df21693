//! `biogate profiles list|show|test`, and `new` by [`super::profiles_new`].
// Printing is what this command is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value as Json, json};

use crate::interpret::Profile;
use crate::interpret::catalog::UnknownProfile;
use crate::interpret::error::ProfileError;
use crate::reading::Element;

use super::profile_folders::{self, Loaded, Origin, ProfileFolders};

/// Look at device profiles
#[derive(Debug, clap::Subcommand)]
pub enum ProfilesCommand {
    /// List all profiles and where they come from
    List {
        /// Where profiles are looked for
        #[command(flatten)]
        folders: ProfileFolders,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Print a profile's file
    Show {
        /// The profile's id
        id: String,
        /// Where profiles are looked for
        #[command(flatten)]
        folders: ProfileFolders,
        /// Print what it says as one JSON object instead
        #[arg(long)]
        json: bool,
    },
    /// Load profile files and run their examples; without files, all profiles
    Test {
        /// Profile files
        files: Vec<PathBuf>,
        /// Where profiles are looked for
        #[command(flatten)]
        folders: ProfileFolders,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Make the stub of a profile from a recording
    New(super::profiles_new::NewArgs),
}

impl ProfilesCommand {
    /// 0: fine; 1: a profile is refused; 2: wrong usage or an unreadable folder.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let done = match self {
            ProfilesCommand::New(arguments) => return arguments.run(),
            ProfilesCommand::List { folders, json } => folders.load().map(|loaded| list(&loaded, json)),
            ProfilesCommand::Show { id, folders, json } => folders.load().and_then(|loaded| show(&loaded, &id, json)),
            ProfilesCommand::Test { files, folders, json } if files.is_empty() => {
                folders.load().map(|loaded| report(&all(&loaded), json))
            }
            ProfilesCommand::Test { files, json, .. } => test(&files).map(|tested| report(&tested, json)),
        };
        Ok(done.unwrap_or_else(|error| {
            eprintln!("biogate profiles: {error:#}");
            ExitCode::from(2)
        }))
    }
}

fn list(loaded: &Loaded, as_json: bool) -> ExitCode {
    let profiles = || loaded.set.iter().map(|profile| (profile, loaded.origins.get(profile.id())));
    if as_json {
        println!("{}", Json::Array(profiles().map(|(profile, origin)| object(profile, origin)).collect()));
        return ExitCode::SUCCESS;
    }
    let width = profiles().map(|(profile, _)| profile.key().len()).max().unwrap_or(0);
    for (profile, origin) in profiles() {
        println!("{:width$}  {:9}  {}", profile.key(), transport(profile), profile.title());
        if let Some(path) = origin.and_then(|origin| origin.path.as_ref()) {
            println!("{:width$}  from {}", "", path.display());
        }
    }
    ExitCode::SUCCESS
}

fn show(loaded: &Loaded, id: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let (Some(profile), Some(origin)) = (loaded.set.get(id), loaded.origins.get(id)) else {
        anyhow::bail!("there is no profile \"{id}\"; {}", UnknownProfile::hint(id, &loaded.set));
    };
    if as_json {
        println!("{}", object(profile, Some(origin)));
    } else {
        print!("{}", origin.text);
    }
    Ok(ExitCode::SUCCESS)
}

/// A file and what its test gave.
struct Tested {
    file: String,
    outcome: Result<(String, usize), ProfileError>,
}

fn test(files: &[PathBuf]) -> anyhow::Result<Vec<Tested>> {
    let mut tested = Vec::new();
    for path in files {
        let file = path.display().to_string();
        let text = profile_folders::read(path)?;
        let outcome = Profile::parse(&file, &text).map(|profile| passed(&profile));
        tested.push(Tested { file, outcome });
    }
    Ok(tested)
}

/// Loading has run the examples already.
fn all(loaded: &Loaded) -> Vec<Tested> {
    let tested = loaded.set.iter().map(|profile| {
        let path = loaded.origins.get(profile.id()).and_then(|origin| origin.path.as_ref());
        let file = path.map_or_else(|| "built in".to_owned(), |path| path.display().to_string());
        Tested { file, outcome: Ok(passed(profile)) }
    });
    tested.collect()
}

fn passed(profile: &Profile) -> (String, usize) {
    (profile.key().to_string(), profile.examples().map(|(_, good, refused)| good + refused).sum())
}

fn report(tested: &[Tested], as_json: bool) -> ExitCode {
    if as_json {
        let rows = tested.iter().map(|tested| match &tested.outcome {
            Ok((key, examples)) => json!({ "file": tested.file, "ok": true, "profile": key, "examples": examples }),
            Err(error) => json!({ "file": tested.file, "ok": false, "line": error.line, "found": error.found,
                "expected": error.expected }),
        });
        println!("{}", Json::Array(rows.collect()));
    } else {
        for tested in tested {
            match &tested.outcome {
                Ok((key, examples)) => println!("ok       {key}: {examples} examples hold ({})", tested.file),
                Err(error) => println!("refused  {error}"),
            }
        }
    }
    if tested.iter().all(|tested| tested.outcome.is_ok()) { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn transport(profile: &Profile) -> &'static str {
    let matches = profile.matches();
    if matches.serial {
        "serial"
    } else if matches.mqtt {
        "mqtt"
    } else {
        "bluetooth"
    }
}

fn object(profile: &Profile, origin: Option<&Origin>) -> Json {
    let matches = profile.matches();
    let (service_data, manufacturer) = match &matches.element {
        Some(Element::ServiceData(uuid)) => (Some(uuid), None),
        Some(Element::Manufacturer(id)) => (None, Some(format!("{id:04x}"))),
        None => (None, None),
    };
    let channels = profile
        .examples()
        .map(|(name, good, refused)| json!({ "name": name, "good_examples": good, "refused_examples": refused }));
    json!({
        "id": profile.id(),
        "version": profile.version(),
        "title": profile.title(),
        "source": profile.source(),
        "origin": origin.and_then(|origin| origin.path.as_ref()).map_or_else(|| "built in".to_owned(), |path| path.display().to_string()),
        "match": { "ble_service": matches.ble_service, "ble_service_data": service_data, "ble_manufacturer": manufacturer,
            "name": matches.name, "serial": matches.serial, "mqtt": matches.mqtt },
        "channels": channels.collect::<Vec<_>>(),
        "events": profile.events(),
    })
}
