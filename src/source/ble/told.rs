//! What the session and a device tell each other.

use crate::source::ble::talk::Radio;
use crate::source::ble::turns::Kind;

/// How many words from the session may wait; it says a few in a second at most.
pub(super) const TOLD: usize = 64;

/// What the session tells a device.
pub(super) enum Told {
    /// Its advertisement was heard.
    Heard,
    /// The radio is its own.
    Turn(Radio),
    /// Its link is up.
    Linked,
    /// Its link is down.
    Dropped,
    /// Others want the radio.
    Yield,
    /// Its adapter, or bluetoothd, is gone.
    RadioGone,
}

/// What a device tells the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// It wants the radio.
    Radio(Kind),
    /// It no longer does, or gives it back.
    Free,
    /// The link is made, the next device may connect.
    Linked,
    /// And its services are known.
    Connected,
    /// A try failed; whether BlueZ did not answer.
    Failed { hung: bool },
    /// Values come.
    Flowing,
    /// BlueZ shall forget it.
    Forget,
}
