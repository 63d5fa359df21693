//! The step `decrypt`: the encrypted rest of a frame is replaced by its plain bytes, which later rows read.

use std::borrow::Cow;

use crate::interpret::decrypt::{self, Failed, Key, Sealed};
use crate::interpret::file::RecipeName;
use crate::interpret::step::Decrypt;
use crate::interpret::{Fault, FaultKind};

use super::{Run, State, refused};

/// What a recipe needs beside the frame.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::interpret) struct Secrets<'a> {
    /// The device entry's key.
    pub(in crate::interpret) key: Option<&'a Key>,
    /// The sender's address, where the frame does not carry it.
    pub(in crate::interpret) address: Option<&'a str>,
}

impl Run<'_> {
    pub(super) fn decrypt(&mut self, step: &Decrypt) -> Result<(), Box<Fault>> {
        let Some(key) = self.secrets.key else { return Err(no_key(step.recipe)) };
        let (head, rest) = self.bytes.split_at(self.cursor.min(self.bytes.len()));
        let body = &rest[..self.end.saturating_sub(self.cursor).min(rest.len())];
        let sealed = Sealed { head, body, mac: self.mac(step)? };
        let opened = decrypt::open(step.recipe, sealed, key).map_err(|failed| fault(failed, key))?;
        let bytes = [head, &opened.plain, &rest[body.len()..]].concat();
        self.end = self.cursor + opened.plain.len();
        self.bytes = Cow::Owned(bytes);
        self.counter = Some(opened.counter);
        Ok(())
    }

    /// A plain frame of a device that encrypts may be anybody's: whoever leaves the encryption out must not be believed.
    pub(super) fn left_plain(&self) -> Result<(), Box<Fault>> {
        if self.secrets.key.is_none() || self.cursor >= self.end {
            return Ok(());
        }
        let message = "the frame is not encrypted, and the device entry has a key: anybody could have sent it";
        Err(refused("plain", message.to_owned()))
    }

    /// The sender's address: from the frame's own field `mac`, else from the advertisement.
    fn mac(&self, step: &Decrypt) -> Result<[u8; 6], Box<Fault>> {
        let own = step.mac.map(|slot| &self.slots[usize::from(slot)]).filter(|slot| slot.state == State::Known);
        let mac = match own {
            Some(slot) => {
                let bytes = self.bytes.get(slot.at.0 as usize..slot.at.1 as usize);
                bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()).map(|mut bytes| {
                    bytes.reverse();
                    bytes
                })
            }
            None => self.secrets.address.and_then(decrypt::mac),
        };
        mac.ok_or_else(|| refused("mac", "the sender's address is not known, and decryption needs it".to_owned()))
    }
}

fn no_key(recipe: RecipeName) -> Box<Fault> {
    let recipe = match recipe {
        RecipeName::BthomeV2 => "bthome-v2",
        RecipeName::MiBeacon => "mibeacon",
    };
    let message = format!("no key: the frame is encrypted ({recipe}) and the device entry has no key");
    Box::new(Fault { kind: FaultKind::NoKey, field: "no key".to_owned(), message })
}

fn fault(failed: Failed, key: &Key) -> Box<Fault> {
    match failed {
        Failed::Short => refused("decrypt", "cut short: too few bytes for counter and tag".to_owned()),
        Failed::KeyLength { digits } => {
            let message =
                format!("the device entry's key has {} digits, this frame takes one of {digits}", key.digits());
            refused("key", message)
        }
        Failed::Tag => {
            let message = "the key does not fit: the device has another one, or the bytes were changed on the way";
            refused("key", message.to_owned())
        }
    }
}
