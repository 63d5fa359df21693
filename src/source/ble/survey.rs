//! Listens without reading anybody: what `scan`, `add` and `pair` do where no gateway runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::reading::{BootId, Heard};
use crate::source::ble::bluez::Bus;
use crate::source::ble::flow::Flows;
use crate::source::ble::house::is_named;
use crate::source::ble::nearby::{Nearby, Sighting};
use crate::source::ble::place::Place;
use crate::source::ble::signals::Advert;
use crate::source::ble::worker::{Done, Order, Sessions, Worker};
use crate::source::context::Stop;

/// What to do where there is no radio.
pub(super) const NO_ADAPTER: &str = "no Bluetooth adapter is there; plug in a dongle, or switch the board's own on";

/// The wanted adapters that are there and whether each is on, as `hci0` and true; the sentence for people where none is.
pub async fn adapters(wanted: &[String]) -> Result<Vec<(Arc<str>, bool)>, String> {
    let nobody = Arc::new(Flows::new(Arc::new(|| Heard { boot: BootId::WALL, ms: 0 })));
    let (bus, _signals) = Bus::open(nobody).await.map_err(|why| why.to_string())?;
    let known = bus.known().await.map_err(|why| why.to_string())?;
    let found = known.adapters.into_iter().filter(|adapter| is_named(wanted, &adapter.name, &adapter.address));
    let found: Vec<(Arc<str>, bool)> = found.map(|adapter| (adapter.name, adapter.powered)).collect();
    match (found.is_empty(), wanted.is_empty()) {
        (false, _) => Ok(found),
        (true, true) => Err(NO_ADAPTER.to_owned()),
        (true, false) => Err(format!("none of the adapters {} is there", wanted.join(", "))),
    }
}

/// Listens on these adapters (names or addresses; all where none is named) and fills `nearby`, until told to stop. Fails
/// with a sentence for people when nothing can be heard.
pub async fn run(adapters: &[String], nearby: Arc<Mutex<Nearby>>, mut stop: Stop) -> Result<(), String> {
    let nobody = Arc::new(Flows::new(Arc::new(|| Heard { boot: BootId::WALL, ms: 0 })));
    let (bus, mut signals) = Bus::open(nobody).await.map_err(|why| why.to_string())?;
    let bus = Arc::new(bus);
    let known = bus.known().await.map_err(|why| why.to_string())?;
    let (dones, mut done) = mpsc::channel::<Done>(16);
    let sessions = Arc::new(Sessions::default());
    let start = |name: Arc<str>| Worker::start(name, bus.clone(), sessions.clone(), dones.clone());
    let found = known.adapters.iter().filter(|adapter| is_named(adapters, &adapter.name, &adapter.address));
    let workers: Vec<Worker> = found.map(|adapter| start(adapter.name.clone())).collect();
    if workers.is_empty() {
        return Err(NO_ADAPTER.to_owned());
    }
    for worker in &workers {
        worker.order(Order::Scan);
    }
    let hear = |place: &Place, sighting: Sighting| {
        let mut nearby = nearby.lock().unwrap_or_else(PoisonError::into_inner);
        nearby.hear(Instant::now(), &place.adapter, &place.address, sighting);
    };
    // BlueZ tells only what changes: of a peripheral that it knows, neither name nor services come again. One that nobody
    // hears now may be far away; what is known of it counts from its first advertisement on.
    let mut unheard = HashMap::new();
    for (place, sighting, _) in known.peripherals {
        match sighting.rssi {
            Some(_) => hear(&place, sighting),
            None => drop(unheard.insert(place, sighting)),
        }
    }
    let mut deaf = 0;
    loop {
        tokio::select! {
            () = stop.wait() => break,
            Some(Advert { place, sighting }) = signals.adverts.recv() => {
                if let Some(known) = unheard.remove(&place) {
                    hear(&place, known);
                }
                hear(&place, sighting);
            }
            // Nobody reads these here; a full channel would end the session.
            Some(_change) = signals.changes.recv() => {}
            Some(Done { adapter, result: Err(why), .. }) = done.recv() => {
                deaf += 1;
                if deaf == workers.len() {
                    return Err(format!("{adapter} does not scan: {why}"));
                }
            }
            else => break,
        }
    }
    for worker in &workers {
        worker.order(Order::Quiet);
    }
    // BlueZ ends the scan of a client that leaves the bus, too.
    let _stopped = tokio::time::timeout(std::time::Duration::from_secs(1), done.recv()).await;
    Ok(())
}
