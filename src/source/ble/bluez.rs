//! BlueZ's own D-Bus interface, for what btleplug lacks on Linux: one stream of signals for everything (btleplug asks
//! BlueZ twice about each advertisement and needs a match rule per device), adapters that come and go, bluetoothd that
//! restarts, power, RemoveDevice, and a restart of the service. One connection, four match rules; every call has a
//! deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use dbus::Path;
use dbus::arg::{PropMap, Variant, prop_cast};
use dbus::message::MatchRule;
use dbus::nonblock::{MsgMatch, Proxy, SyncConnection};
use tokio::task::JoinHandle;

use crate::source::ble::flow::Flows;
use crate::source::ble::nearby::Sighting;
use crate::source::ble::place::{
    ADAPTER, BLUEZ, DEVICE, OBJECTS, PROPERTIES, Place, ROOT, adapter_of, path_of, place_of,
};
use crate::source::ble::signals::{Signals, Taker, sighting_of};

/// Any call but a connect is answered within this, or hangs.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// No system bus, or it closed the connection.
    #[error("there is no D-Bus system bus ({0}); install dbus and start it: systemctl start dbus")]
    NoBus(String),
    /// Nobody owns org.bluez.
    #[error("bluetoothd does not run; install bluez and start it: systemctl enable --now bluetooth")]
    NoBluetoothd,
    /// The bus's policy refuses.
    #[error(
        "this user may not talk to bluetoothd; install biogate's D-Bus policy (biogate-bluetooth.conf in /etc/dbus-1/system.d) or add the user to the group bluetooth"
    )]
    Denied,
    /// No answer within the deadline.
    #[error("bluetoothd does not answer {0}")]
    Hung(&'static str),
    /// BlueZ refused, in its own words.
    #[error("{0}")]
    Refused(String),
}

impl CallError {
    pub(super) fn of(what: &'static str, error: &dbus::Error) -> Self {
        match error.name().unwrap_or_default() {
            "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => {
                CallError::NoBluetoothd
            }
            "org.freedesktop.DBus.Error.AccessDenied" => CallError::Denied,
            "org.freedesktop.DBus.Error.NoReply"
            | "org.freedesktop.DBus.Error.Timeout"
            | "org.freedesktop.DBus.Error.TimedOut" => CallError::Hung(what),
            "org.freedesktop.DBus.Error.Disconnected" => CallError::NoBus("it closed the connection".to_owned()),
            name => {
                let short = name.rsplit('.').next().unwrap_or(name);
                match error.message().unwrap_or_default() {
                    "" => CallError::Refused(short.to_owned()),
                    message => CallError::Refused(format!("{short}: {message}")),
                }
            }
        }
    }
}

/// An adapter as BlueZ shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AdapterInfo {
    /// Its name, as `hci0`.
    pub(super) name: Arc<str>,
    /// Its own address.
    pub(super) address: String,
    /// Whether it is on.
    pub(super) powered: bool,
}

/// What BlueZ knew before the first signal.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) adapters: Vec<AdapterInfo>,
    pub(super) peripherals: Vec<(Place, Sighting, bool)>,
}

/// One connection to the system bus.
pub(super) struct Bus {
    connection: Arc<SyncConnection>,
    watching: JoinHandle<()>,
    lost: Arc<AtomicBool>,
    _rules: Vec<MsgMatch>,
    /// Advertisements that found no place.
    pub(super) dropped: Arc<AtomicU64>,
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Bus {
    /// Connects and listens. Signals are heard from here on; what BlueZ knew before is asked with [`Bus::known`].
    pub(super) async fn open(flows: Arc<Flows>) -> Result<(Bus, Signals), CallError> {
        let opened = tokio::task::spawn_blocking(dbus_tokio::connection::new_system_sync);
        let opened = tokio::time::timeout(DEADLINE, opened).await.map_err(|_| CallError::Hung("the connection"))?;
        let (resource, connection) = opened
            .map_err(|why| CallError::NoBus(why.to_string()))?
            .map_err(|why| CallError::NoBus(why.message().unwrap_or("no answer").to_owned()))?;
        let lost = Arc::new(AtomicBool::new(false));
        let watching = tokio::spawn({
            let lost = lost.clone();
            async move {
                let why = resource.await;
                lost.store(true, Relaxed);
                tracing::debug!("the system bus closed the connection: {why}");
            }
        });
        let dropped = Arc::new(AtomicU64::new(0));
        let (taker, signals) = Taker::new(flows, dropped.clone());
        let mut rules = Vec::new();
        for rule in [
            MatchRule::new_signal(PROPERTIES, "PropertiesChanged").with_sender(BLUEZ).with_namespaced_path(ROOT),
            MatchRule::new_signal(OBJECTS, "InterfacesAdded").with_sender(BLUEZ),
            MatchRule::new_signal(OBJECTS, "InterfacesRemoved").with_sender(BLUEZ),
            MatchRule::new_signal("org.freedesktop.DBus", "NameOwnerChanged").with_sender("org.freedesktop.DBus"),
        ] {
            let taker = taker.clone();
            let rule = connection.add_match(rule).await.map_err(|why| CallError::of("AddMatch", &why))?;
            rules.push(rule.msg_cb(move |message| taker.take(&message)));
        }
        Ok((Bus { connection, watching, lost, _rules: rules, dropped }, signals))
    }

    /// Whether the bus closed the connection.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    /// A proxy of one of BlueZ's objects, with the usual deadline.
    pub(super) fn at<'a>(&self, path: impl Into<Path<'a>>) -> Proxy<'a, Arc<SyncConnection>> {
        Proxy::new(BLUEZ, path, DEADLINE, self.connection.clone())
    }

    /// Every object of BlueZ: path, interfaces, properties.
    pub(super) async fn objects(&self) -> Result<HashMap<Path<'static>, HashMap<String, PropMap>>, CallError> {
        let (objects,) = self
            .at("/")
            .method_call(OBJECTS, "GetManagedObjects", ())
            .await
            .map_err(|why| CallError::of("GetManagedObjects", &why))?;
        Ok(objects)
    }

    /// Adapters and peripherals that BlueZ knows now.
    pub(super) async fn known(&self) -> Result<Known, CallError> {
        let mut known = Known::default();
        for (path, interfaces) in self.objects().await? {
            if let (Some(name), Some(properties)) = (adapter_of(&path), interfaces.get(ADAPTER)) {
                known.adapters.push(AdapterInfo {
                    name,
                    address: prop_cast::<String>(properties, "Address").cloned().unwrap_or_default(),
                    powered: prop_cast(properties, "Powered").copied().unwrap_or(false),
                });
            }
            if let (Some(place), Some(properties)) = (place_of(&path), interfaces.get(DEVICE)) {
                let linked = prop_cast(properties, "Connected").copied().unwrap_or(false);
                known.peripherals.push((place, sighting_of(properties), linked));
            }
        }
        known.adapters.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(known)
    }

    /// Switches an adapter on or off.
    pub(super) async fn set_powered(&self, adapter: &str, on: bool) -> Result<(), CallError> {
        let arguments = (ADAPTER, "Powered", Variant(on));
        let () = self
            .at(format!("{ROOT}/{adapter}"))
            .method_call(PROPERTIES, "Set", arguments)
            .await
            .map_err(|why| CallError::of("Set Powered", &why))?;
        Ok(())
    }

    /// Whether the peripheral is bonded: RemoveDevice would lose the bond.
    pub(super) async fn is_paired(&self, place: &Place) -> Result<bool, CallError> {
        let (paired,): (Variant<bool>,) = self
            .at(path_of(place))
            .method_call(PROPERTIES, "Get", (DEVICE, "Paired"))
            .await
            .map_err(|why| CallError::of("Get Paired", &why))?;
        Ok(paired.0)
    }

    /// Whether the services of a linked peripheral are known.
    pub(super) async fn is_resolved(&self, place: &Place) -> Result<bool, CallError> {
        let (resolved,): (Variant<bool>,) = self
            .at(path_of(place))
            .method_call(PROPERTIES, "Get", (DEVICE, "ServicesResolved"))
            .await
            .map_err(|why| CallError::of("Get ServicesResolved", &why))?;
        Ok(resolved.0)
    }

    /// Makes BlueZ forget a peripheral, its cached services and a link that only BlueZ believes in.
    pub(super) async fn remove(&self, place: &Place) -> Result<(), CallError> {
        let () = self
            .at(format!("{ROOT}/{}", place.adapter))
            .method_call(ADAPTER, "RemoveDevice", (path_of(place),))
            .await
            .map_err(|why| CallError::of("RemoveDevice", &why))?;
        Ok(())
    }

    /// Ends a link, or the attempt at one.
    pub(super) async fn disconnect(&self, place: &Place) -> Result<(), CallError> {
        let () = self
            .at(path_of(place))
            .method_call(DEVICE, "Disconnect", ())
            .await
            .map_err(|why| CallError::of("Disconnect", &why))?;
        Ok(())
    }

    /// Asks the service manager to restart bluetoothd; needs a polkit rule.
    pub(super) async fn restart_bluetoothd(&self) -> Result<(), CallError> {
        let systemd =
            Proxy::new("org.freedesktop.systemd1", "/org/freedesktop/systemd1", DEADLINE, self.connection.clone());
        let (_job,): (Path<'static>,) = systemd
            .method_call("org.freedesktop.systemd1.Manager", "RestartUnit", ("bluetooth.service", "replace"))
            .await
            .map_err(|why| CallError::of("RestartUnit", &why))?;
        Ok(())
    }
}
