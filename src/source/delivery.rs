//! The way from a source to the intake: a reading, and the receipt that its source waits for.
//!
//! One bounded channel carries every source. Each device has [`PLACES`] places in it and holds one for each reading that
//! the intake has not taken yet, so a device that floods waits (or is dropped and counted) alone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::reading::Reading;

/// How many readings of one device may wait for the intake.
pub const PLACES: usize = 32;

/// How many readings of all devices may wait for the intake.
const CAPACITY: usize = 4_096;

/// One reading on its way in.
#[derive(Debug)]
pub struct Delivery {
    /// What the device said.
    pub reading: Reading,
    /// Given once the reading is durable (or known to be a repeat); dropped when it never became so.
    pub receipt: Option<Receipt>,
    /// For MQTT: what recognises a redelivery.
    pub publish: Option<Publish>,
    /// The hub has set or checked the device's clock in this connection.
    pub clock_checked: bool,
    /// Frees the device's place when the intake drops the delivery.
    place: Option<OwnedSemaphorePermit>,
}

impl Delivery {
    /// A reading for which nobody waits. The setters below say more; [`DeviceInlet::put`] brings it in.
    pub fn of(reading: Reading) -> Self {
        Delivery { reading, receipt: None, publish: None, clock_checked: false, place: None }
    }

    /// Its source waits until it is durable.
    pub fn with_receipt(self, receipt: Receipt) -> Self {
        Delivery { receipt: Some(receipt), ..self }
    }

    /// It came as this PUBLISH.
    pub fn with_publish(self, publish: Publish) -> Self {
        Delivery { publish: Some(publish), ..self }
    }

    /// Whether the hub has set or checked the device's clock in this connection.
    pub fn with_clock_checked(self, clock_checked: bool) -> Self {
        Delivery { clock_checked, ..self }
    }
}

/// What recognises a PUBLISH that the broker sends again (DESIGN 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The broker entry's name.
    pub broker: Arc<str>,
    /// MQTT packet identifier, 1 to 65,535; unique among the messages in flight.
    pub packet_id: u16,
    /// The DUP flag: only such a message can be a repeat.
    pub redelivered: bool,
    /// Hash of topic and payload, stable across program versions.
    pub payload_hash: u64,
    /// How many messages the broker may have in flight: as many repeats must be remembered.
    pub window: usize,
}

/// The intake's side of the promise "it is durable now".
#[derive(Debug)]
pub struct Receipt {
    durable: oneshot::Sender<()>,
    /// How many receipts its source may wait for; at half of them the intake commits early.
    pub window: usize,
    /// The source that waits, for counting against its window.
    pub source: Arc<str>,
}

impl Receipt {
    /// A receipt and the source's side of it: `Ok` once durable, `Err` when the gateway stops before that.
    pub fn new(source: Arc<str>, window: usize) -> (Receipt, oneshot::Receiver<()>) {
        let (durable, waiting) = oneshot::channel();
        (Receipt { durable, window, source }, waiting)
    }

    /// Says that the reading is durable. The source may have gone; then nobody needs to know.
    pub fn give(self) {
        let _source_gone = self.durable.send(());
    }
}

/// Where sources put deliveries.
#[derive(Debug, Clone)]
pub struct Inlet {
    deliveries: mpsc::Sender<Delivery>,
}

/// One device's way in.
#[derive(Debug, Clone)]
pub struct DeviceInlet {
    deliveries: mpsc::Sender<Delivery>,
    places: Arc<Semaphore>,
}

/// Why a delivery was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The device's places, or all places, are taken.
    #[error("the way in is full")]
    Full,
    /// The gateway stops.
    #[error("the gateway is stopping")]
    Closed,
}

/// The channel: what sources clone, and what the intake receives from.
pub fn channel() -> (Inlet, mpsc::Receiver<Delivery>) {
    let (deliveries, intake) = mpsc::channel(CAPACITY);
    (Inlet { deliveries }, intake)
}

impl Inlet {
    /// The way in of one more device. Clones of the result share its places.
    pub fn device(&self) -> DeviceInlet {
        DeviceInlet { deliveries: self.deliveries.clone(), places: Arc::new(Semaphore::new(PLACES)) }
    }
}

impl DeviceInlet {
    /// Waits for a place, then delivers. Fails only when the gateway stops.
    pub async fn deliver(
        &self,
        reading: Reading,
        receipt: Option<Receipt>,
        publish: Option<Publish>,
    ) -> Result<(), NotTaken> {
        self.put(Delivery { receipt, publish, ..Delivery::of(reading) }).await
    }

    /// Waits for a place, then brings a delivery in. Fails only when the gateway stops.
    pub async fn put(&self, mut delivery: Delivery) -> Result<(), NotTaken> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| NotTaken::Closed)?;
        delivery.place = Some(place);
        self.deliveries.send(delivery).await.map_err(|_| NotTaken::Closed)
    }

    /// Brings a delivery in if there is a place now; never waits. What is refused is gone: the caller counts it.
    pub fn try_put(&self, mut delivery: Delivery) -> Result<(), NotTaken> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| NotTaken::Full)?;
        delivery.place = Some(place);
        self.deliveries.try_send(delivery).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotTaken::Full,
            mpsc::error::TrySendError::Closed(_) => NotTaken::Closed,
        })
    }

    /// Delivers if there is a place now; never waits. What is refused is gone: the caller counts it.
    pub fn try_deliver(
        &self,
        reading: Reading,
        receipt: Option<Receipt>,
        publish: Option<Publish>,
    ) -> Result<(), NotTaken> {
        self.try_put(Delivery { receipt, publish, ..Delivery::of(reading) })
    }

    /// Whether a place is free now.
    pub fn has_place(&self) -> bool {
        self.places.available_permits() > 0 && self.deliveries.capacity() > 0
    }
}
