//! The sources that run, one per serial device and broker, and how they follow a configuration that is read again.

use std::collections::HashMap;
use std::sync::Arc;
#[cfg(feature = "ble")]
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use crate::config::{self, Broker, Config, Device, Link};
use crate::interpret::Catalog;
#[cfg(feature = "ble")]
use crate::interpret::profile::{ChannelSpec, Get, Profile};
#[cfg(feature = "ble")]
use crate::source::ble::{self, BleDevice, BleSettings, Plan, Wanted, allow::Target, nearby::Nearby};
use crate::source::context::{Context, Stop};
use crate::source::mqtt::{self, MqttBroker, MqttDevice};
use crate::source::serial::{self, SerialSettings};
use crate::source::supervise::supervise;

/// How long a source that is replaced may take to end. What it does not acknowledge by then comes again.
const HAND_OVER: Duration = Duration::from_secs(2);

/// What one source was started with; a difference restarts it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Made {
    #[cfg(feature = "ble")]
    Ble(Box<BleSettings>),
    Serial(Box<SerialSettings>),
    Mqtt(Box<MqttBroker>),
}

/// A running source.
struct Source {
    made: Made,
    /// Of the radio: the entries, which change without a new start.
    #[cfg(feature = "ble")]
    entries: Option<watch::Sender<BleSettings>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// All running sources, by `serial NAME` and `mqtt NAME`.
#[derive(Default)]
pub(super) struct Running {
    sources: HashMap<String, Source>,
    /// What the radio hears, for who asks.
    #[cfg(feature = "ble")]
    pub(super) nearby: Arc<Mutex<Nearby>>,
}

impl Running {
    /// Starts what is new, restarts what is different, stops what is gone; the rest is not touched. Nothing changes when
    /// an entry is wrong.
    pub(super) async fn follow(
        &mut self,
        config: &Config,
        catalog: &Catalog,
        context: &Context,
        gateway_id: &str,
    ) -> anyhow::Result<()> {
        let wanted = wanted(config, catalog, gateway_id)?;
        #[cfg(feature = "ble")]
        self.follow_entries(&wanted);
        let outdated: Vec<String> = self
            .sources
            .iter()
            .filter(|(name, source)| wanted.get(*name) != Some(&source.made))
            .map(|(name, _)| name.clone())
            .collect();
        let old: Vec<Source> = outdated.iter().filter_map(|name| self.sources.remove(name)).collect();
        old.iter().for_each(|source| {
            source.stop.send_replace(true);
        });
        // A port must be free and a session's connection gone before the successor takes them.
        for source in old {
            ended(source.task, HAND_OVER).await;
        }
        for (name, made) in wanted {
            let start = || {
                start(
                    made,
                    context,
                    #[cfg(feature = "ble")]
                    &self.nearby,
                )
            };
            self.sources.entry(name).or_insert_with(start);
        }
        Ok(())
    }

    /// The radio keeps its links where only entries have changed.
    #[cfg(feature = "ble")]
    fn follow_entries(&mut self, wanted: &HashMap<String, Made>) {
        for (name, source) in &mut self.sources {
            if let (Made::Ble(now), Some(Made::Ble(wanted)), Some(entries)) =
                (&source.made, wanted.get(name), &source.entries)
                && now.differs_in_devices_only(wanted)
            {
                entries.send_if_modified(|known| std::mem::replace(known, (**wanted).clone()) != **wanted);
                source.made = Made::Ble(wanted.clone());
            }
        }
    }

    /// Tells every source to stop.
    pub(super) fn stop(&self) {
        for source in self.sources.values() {
            source.stop.send_replace(true);
        }
    }

    /// Waits until all have stopped, at most so long.
    pub(super) async fn stopped(self, deadline: Duration) {
        let end = tokio::time::Instant::now() + deadline;
        for source in self.sources.into_values() {
            ended(source.task, end.saturating_duration_since(tokio::time::Instant::now())).await;
        }
    }
}

async fn ended(mut task: JoinHandle<()>, deadline: Duration) {
    match timeout(deadline, &mut task).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => warn!("a source ended badly: {why}"),
        Err(_elapsed) => {
            warn!("a source did not stop in time; what it did not acknowledge comes again");
            task.abort();
        }
    }
}

fn start(made: Made, context: &Context, #[cfg(feature = "ble")] nearby: &Arc<Mutex<Nearby>>) -> Source {
    let (stop, stopping) = watch::channel(false);
    let context = Context { stop: Stop::new(stopping), ..context.clone() };
    #[cfg(feature = "ble")]
    let mut entries = None;
    let task = match made.clone() {
        #[cfg(feature = "ble")]
        Made::Ble(settings) => {
            let nearby = nearby.clone();
            let (sender, settings) = watch::channel(*settings);
            entries = Some(sender);
            tokio::spawn(async move {
                supervise("bluetooth", context, move |context| ble::run(settings.clone(), nearby.clone(), context))
                    .await;
            })
        }
        Made::Serial(settings) => tokio::spawn(async move {
            let name = settings.device.clone();
            supervise(&name, context, move |context| serial::run((*settings).clone(), context)).await;
        }),
        Made::Mqtt(broker) => tokio::spawn(async move {
            let name = format!("broker {}", broker.name);
            supervise(&name, context, move |context| mqtt::run((*broker).clone(), context)).await;
        }),
    };
    Source {
        made,
        #[cfg(feature = "ble")]
        entries,
        stop,
        task,
    }
}

/// What must run, from entries that name known profiles. Wrong ports, topics and profiles are found here.
pub(super) fn wanted(
    config: &Config,
    catalog: &Catalog,
    gateway_id: &str,
) -> Result<HashMap<String, Made>, config::Error> {
    let mut wanted = HashMap::new();
    for device in &config.devices {
        if let Link::Serial { port, silence } = &device.link {
            let settings = serial_settings(device, port, *silence, catalog);
            let settings = settings.map_err(|why| config.device_error(&device.name, why))?;
            wanted.insert(format!("serial {}", device.name), Made::Serial(Box::new(settings)));
        }
    }
    #[cfg(feature = "ble")]
    if let Some(settings) = ble_settings(config, catalog)? {
        wanted.insert("bluetooth".to_owned(), Made::Ble(Box::new(settings)));
    }
    for broker in &config.brokers {
        let settings = broker_settings(broker, config, gateway_id)?;
        if !settings.devices.is_empty() {
            wanted.insert(format!("mqtt {}", broker.name), Made::Mqtt(Box::new(settings)));
        }
    }
    Ok(wanted)
}

/// The radio with every entry that it hears; nothing where no entry and no service wants it.
#[cfg(feature = "ble")]
fn ble_settings(config: &Config, catalog: &Catalog) -> Result<Option<BleSettings>, config::Error> {
    let mut devices = Vec::new();
    for device in &config.devices {
        let Link::Ble { target, silence } = &device.link else { continue };
        let error = |why: String| config.device_error(&device.name, why);
        let profile = catalog.profile(&device.name).ok_or_else(|| error("has no profile".into()))?;
        let plan = plan(profile).ok_or_else(|| {
            error(format!(
                "found profile = \"{}\", which is not for Bluetooth; see `biogate profiles list`",
                device.profile
            ))
        })?;
        let target: Target = target.parse().map_err(|why| error(format!("ble: {why}")))?;
        if let Some(other) = devices.iter().find(|other: &&BleDevice| other.target == target) {
            return Err(error(format!("found the ble of device \"{}\"; one sensor has one entry", other.entry)));
        }
        devices.push(BleDevice {
            device: device.name.clone(),
            entry: device.name.clone(),
            target,
            plan: Arc::new(plan),
            silence: *silence,
        });
    }
    let any = config.ble.services.iter().filter_map(|service| {
        let entry = any_entry(service);
        let plan = Arc::new(plan(catalog.profile(&entry)?)?);
        Some(BleDevice { device: entry.clone(), entry, target: Target::Service(service.clone()), plan, silence: None })
    });
    let any: Vec<BleDevice> = any.collect();
    if devices.is_empty() && any.is_empty() {
        return Ok(None);
    }
    let config::Ble { adapters, max_links, restart_bluetoothd, .. } = config.ble.clone();
    Ok(Some(BleSettings { adapters, max_links, restart_bluetoothd, devices, any }))
}

/// The entry under which any sensor of a service is read.
pub(super) fn any_entry(service: &str) -> Arc<str> {
    format!("any of service {service}").into()
}

/// What a profile asks of a Bluetooth device; nothing of one that is for another transport.
#[cfg(feature = "ble")]
fn plan(profile: &Profile) -> Option<Plan> {
    if profile.matches().serial || profile.matches().mqtt {
        return None;
    }
    let channels = profile.channels().filter(|channel| channel.get != Get::Comes);
    Some(Plan {
        element: profile.matches().element.clone(),
        channels: channels
            .map(|ChannelSpec { name, get, every, emits }| Wanted { name: name.clone(), get, every, emits })
            .collect(),
        link: profile.link().clone(),
    })
}

fn serial_settings(
    device: &Device,
    port: &str,
    silence: Option<Duration>,
    catalog: &Catalog,
) -> Result<SerialSettings, String> {
    let profile = catalog.profile(&device.name).ok_or("has no profile")?;
    let frame = profile.frame().ok_or_else(|| {
        format!("found profile = \"{}\", which is not for serial lines; write one that has a frame", device.profile)
    })?;
    Ok(SerialSettings {
        device: device.name.clone(),
        entry: device.name.clone(),
        port: port.parse().map_err(|why| format!("serial: {why}"))?,
        link: profile.link().clone(),
        frame: frame.clone(),
        silence: silence.unwrap_or(serial::SILENCE),
    })
}

fn broker_settings(broker: &Broker, config: &Config, gateway_id: &str) -> Result<MqttBroker, config::Error> {
    let mut heard = Vec::new();
    for device in &config.devices {
        if let Link::Mqtt { template, broker: at } = &device.link
            && *at == broker.name
        {
            let topic = template.parse().map_err(|why| config.device_error(&device.name, format!("mqtt: {why}")))?;
            heard.push(MqttDevice { entry: device.name.clone(), topic });
        }
    }
    Ok(MqttBroker {
        user: broker.user.clone(),
        password_file: broker.password_file.clone(),
        ca_file: broker.ca_file.clone(),
        cert_file: broker.cert_file.clone(),
        key_file: broker.key_file.clone(),
        max_devices: broker.max_devices,
        ..MqttBroker::new(&broker.name, &broker.url, gateway_id, heard)
    })
}
