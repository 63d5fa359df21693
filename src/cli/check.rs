//! `biogate check`: is the configuration right, and would the gateway find what it names?

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::profile_folders::ProfileFolders;
use super::run::plan;
use crate::clock::keeper::Trust;
use crate::clock::system;
use crate::config::{Broker, Config, Link};
use crate::forward::Kind;
use crate::gateway::{self, Plan};
#[cfg(feature = "ble")]
use crate::source::ble::survey;
use crate::source::mqtt::options::Address;
use crate::source::serial::port_name::PortName;

#[cfg(feature = "kafka")]
mod kafka;
mod warehouse;

/// How long a peer may take.
const PEER_DEADLINE: Duration = Duration::from_secs(10);

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Only the files and the clock: touches no disk, asks no port, broker or warehouse
    #[arg(long)]
    offline: bool,
    /// How many hubs write into the same table, for the time that an outage may last
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    hubs: u64,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folders: ProfileFolders,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    verdict: Verdict,
    /// What was found, and where it is not right what to do.
    said: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Finding {
    fn of(what: impl Into<String>, verdict: Verdict, said: impl Into<String>) -> Self {
        Finding { what: what.into(), verdict, said: said.into() }
    }

    fn from(what: impl Into<String>, result: Result<String, String>) -> Self {
        match result {
            Ok(said) => Finding::of(what, Verdict::Ok, said),
            Err(said) => Finding::of(what, Verdict::Fail, said),
        }
    }
}

/// Looks at everything and prints a line each. Fails when one thing would not work.
#[allow(clippy::print_stdout, reason = "this command reports to a person")]
pub(super) async fn run(arguments: CheckArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let plan = plan(file, &arguments.folders)?;
    gateway::validate(&plan)?;
    let findings = findings(&plan, arguments.offline, arguments.hubs).await;
    let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
    if arguments.json {
        println!("{}", serde_json::to_string(&findings)?);
    } else {
        for Finding { what, verdict, said } in &findings {
            println!("{:<4}  {what}: {said}", format!("{verdict:?}").to_lowercase());
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn findings(plan: &Plan, offline: bool, hubs: u64) -> Vec<Finding> {
    let config = &plan.config;
    let said = format!(
        "{} devices, {} brokers, {} destinations",
        config.devices.len(),
        config.brokers.len(),
        config.destinations.len()
    );
    let mut findings =
        vec![Finding::of(format!("configuration {}", config.file.display()), Verdict::Ok, said), clock(config)];
    if offline {
        return findings;
    }
    findings.push(disk(config));
    for device in &config.devices {
        if let Link::Serial { port, .. } = &device.link {
            findings.push(Finding::from(format!("device {}", device.name), port_there(port)));
        }
    }
    #[cfg(feature = "ble")]
    if config.devices.iter().any(|device| matches!(device.link, Link::Ble { .. })) || !config.ble.services.is_empty() {
        findings.push(radio(config).await);
    }
    for broker in &config.brokers {
        findings.push(Finding::from(format!("broker {}", broker.name), broker_answers(broker).await));
    }
    for destination in &config.destinations {
        let what = format!("destination {}", destination.name);
        findings.extend(match &destination.kind {
            Kind::File(settings) => vec![Finding::from(what, folder_writable(&settings.dir))],
            Kind::ClickHouse(settings) => {
                let load = warehouse::Load { hubs, interval: config.commit_interval };
                warehouse::findings(&what, settings, load).await
            }
            #[cfg(feature = "kafka")]
            Kind::Kafka(settings) => kafka::findings(what, settings).await,
        });
    }
    findings
}

fn clock(config: &Config) -> Finding {
    match (system::sample().synchronised, config.clock.trust) {
        (true, _) => Finding::of("clock", Verdict::Ok, "synchronised"),
        (false, Trust::Kernel) => Finding::of(
            "clock",
            Verdict::Warn,
            "not synchronised: events wait for it up to clock.max_hold, then their times are estimates; start a time service (systemd-timesyncd, chrony)",
        ),
        (false, Trust::Rtc) => {
            Finding::of("clock", Verdict::Ok, "not synchronised; the battery clock counts as an estimate")
        }
        (false, Trust::Always) => {
            Finding::of("clock", Verdict::Warn, "not synchronised, and taken as it is: clock.trust = \"always\"")
        }
    }
}

fn disk(config: &Config) -> Finding {
    let dir = &config.gateway.data_dir;
    let found = folder_writable(dir).and_then(|_| {
        let room = rustix::fs::statvfs(dir).map_err(|why| format!("{}: {why}", dir.display()))?;
        let free = room.f_bavail * room.f_frsize;
        let needed = config.store.min_free;
        let shown = |bytes: u64| bytesize::ByteSize(bytes).to_string();
        match free > needed {
            true => Ok(format!("{} has {} free", dir.display(), shown(free))),
            false => Err(format!(
                "{} has {} free, and store.min_free leaves {}; make room",
                dir.display(),
                shown(free),
                shown(needed)
            )),
        }
    });
    Finding::from("disk", found)
}

fn folder_writable(dir: &Path) -> Result<String, String> {
    std::fs::create_dir_all(dir).map_err(|why| format!("{} cannot be made: {why}", dir.display()))?;
    let probe = dir.join(".biogate-check");
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|why| format!("{} cannot be written: {why}", dir.display()))?;
    Ok(format!("{} can be written", dir.display()))
}

/// Whether bluetoothd answers and has the adapters; one that is off is switched on at the start.
#[cfg(feature = "ble")]
async fn radio(config: &Config) -> Finding {
    match survey::adapters(&config.ble.adapters).await {
        Err(why) => Finding::of("bluetooth", Verdict::Fail, why),
        Ok(found) => {
            let shown =
                |(name, on): &(std::sync::Arc<str>, bool)| format!("{name} is {}", if *on { "on" } else { "off" });
            Finding::of("bluetooth", Verdict::Ok, found.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
    }
}

fn port_there(port: &str) -> Result<String, String> {
    let name: PortName = port.parse().map_err(|why| format!("{why}"))?;
    let path = name.resolve(Path::new("/sys"), Path::new("/dev")).map_err(|why| why.to_string())?;
    match std::fs::File::options().read(true).write(true).open(&path) {
        Ok(_) => Ok(format!("{port} is there")),
        Err(why) => Err(format!(
            "{} cannot be opened: {why}; plug it in, or let this user's group use it (dialout)",
            path.display()
        )),
    }
}

async fn broker_answers(broker: &Broker) -> Result<String, String> {
    let address = Address::parse(&broker.url).map_err(|why| why.to_string())?;
    let connected = timeout(PEER_DEADLINE, TcpStream::connect((address.host.as_str(), address.port))).await;
    match connected {
        Ok(Ok(_)) => Ok(format!("{} takes connections", broker.url)),
        Ok(Err(why)) => Err(format!("{} cannot be reached: {why}", broker.url)),
        Err(_elapsed) => Err(format!("{} does not answer", broker.url)),
    }
}
