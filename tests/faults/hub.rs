//! The gateway of a campaign: what it is configured with, and what it is started with.

use std::time::Duration;

use crate::bus::Broker;
use crate::oracle::CABLES;
use crate::plan::{Plan, Theme};
use crate::rig::clickhouse::Engine;
use crate::rig::gateway::{Hub, wait_for};
use crate::rig::mosquitto::{Mosquitto, note};

/// What the store may keep of it.
const OUTAGE_BYTES: u64 = 3 << 20;

/// `FAILPOINTS` of a run.
pub(crate) fn armed(plan: &Plan, hub: &Hub, point: Option<(&str, u32)>) -> String {
    let clock = hub.dir.path().join("clock");
    let mut text = format!(
        "clock=return({});store.generation_bytes=return({});kafka.batch_rows=return({})",
        clock.display(),
        plan.generation_bytes,
        plan.bus_rows
    );
    if plan.theme == Theme::Outage {
        text.push_str(&format!(";store.max_bytes=return({OUTAGE_BYTES})"));
    }
    match point {
        Some((point, 0)) => text.push_str(&format!(";{point}=return")),
        Some((point, passes)) => text.push_str(&format!(";{point}={passes}*off->return")),
        None => {}
    }
    text
}

/// The session must exist before the first message: MQTT keeps nothing for a client that it has never seen.
pub(crate) fn subscribed(hub: &Hub, mosquitto: &Mosquitto) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let heard = wait_for(Duration::from_secs(20), || {
        runtime.block_on(mosquitto.publish(vec![note("clinic/probe/vitals", "{}")]));
        (hub.stat()?["ledger"]["intake"]["accepted"] != 0).then_some(())
    });
    assert!(heard.is_some(), "no subscription: {}", hub.log());
}

/// A gateway with the sources and destinations of this campaign, not started.
pub(crate) fn hub(plan: &Plan, engine: &Engine, mqtt: u16, bus: Option<&Broker<'_>>) -> Hub {
    let mut hub = Hub::new("");
    // Each batch in hand is told, for who counts repeats.
    hub.env("BIOGATE_LOG", "info,biogate::forward=debug,sled=error,rumqttc=error");
    let settings = engine.settings();
    let dir = hub.dir.path().to_owned();
    let store = match plan.theme {
        Theme::FullDisk => "max_bytes = \"24 MiB\"\nmin_free = \"2 MiB\"\nwhen_full = \"pause-sources\"",
        Theme::Outage if plan.evicts => "max_bytes = \"16 MiB\"\nmin_free = \"1 MiB\"\nwhen_full = \"evict-oldest\"",
        Theme::Outage => "max_bytes = \"16 MiB\"\nmin_free = \"1 MiB\"\nwhen_full = \"pause-sources\"",
        Theme::Kills | Theme::Damage | Theme::Clock => "min_free = \"1 MiB\"",
    };
    let mut text = std::fs::read_to_string(hub.config()).expect("the configuration");
    text.push_str(&format!(
        "[store]\ncommit_interval = \"{} ms\"\n{store}\n\
         [[mqtt]]\nname = \"ward\"\nurl = \"mqtt://127.0.0.1:{mqtt}\"\n\
         [[device]]\nname = \"bed\"\nprofile = \"mqtt-vitals-json\"\nmqtt = \"clinic/{{device}}/vitals\"\n",
        plan.commit_interval.as_millis(),
    ));
    for nth in 0..CABLES {
        let port = dir.join(format!("tty-{nth}"));
        text.push_str(&format!(
            "[[device]]\nname = \"cable-{nth}\"\nprofile = \"serial-vitals-line\"\nserial = {port:?}\n"
        ));
    }
    text.push_str(&format!(
        "[[destination]]\nname = \"warehouse\"\nkind = \"clickhouse\"\nurl = {:?}\ndatabase = {:?}\nuser = {:?}\n\
         password_file = {:?}\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {:?}\nrotate = {{ bytes = \"{} KiB\" }}\n",
        settings.url,
        settings.database,
        settings.user.unwrap_or_default(),
        settings.password_file.unwrap_or_default(),
        dir.join("archive"),
        plan.rotate_kib,
    ));
    if let Some(bus) = bus {
        text.push_str(&bus.configuration());
    }
    std::fs::write(hub.config(), text).expect("writing the configuration");
    hub
}
