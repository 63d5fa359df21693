//! The hub's own decryption recipes: encrypted advertisements to plain bytes. Any bytes give bytes or a reason.
//!
//! A recipe sees the frame up to the row of type `decrypt` (its head), what follows (its body), the sender's address and
//! the device entry's key. Both recipes are AES in CCM mode with a tag of four bytes and a counter that never repeats.

mod bthome;
mod key;
mod mibeacon;

use ccm::Ccm;
use ccm::aead::consts::U4;
use ccm::aead::{Aead, KeyInit, Payload, array::ArraySize};

pub use key::Key;

use super::file::RecipeName;

/// A tag has four bytes: advertisements have no room for more.
const TAG: usize = 4;

/// What a recipe works on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed<'a> {
    /// The frame before the encrypted part.
    pub(super) head: &'a [u8],
    /// The encrypted part, with counter and tag.
    pub(super) body: &'a [u8],
    /// The sender's address, as people write it: first byte first.
    pub(super) mac: [u8; 6],
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    /// Instead of the body.
    pub(super) plain: Vec<u8>,
    /// Rises with each frame of the device.
    pub(super) counter: u32,
}

/// Why nothing came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// Fewer bytes than counter and tag take.
    Short,
    /// The recipe takes a key of another length.
    KeyLength { digits: usize },
    /// The tag does not fit: another key, another sender, or changed bytes.
    Tag,
}

/// Opens a frame by its recipe.
pub(super) fn open(recipe: RecipeName, sealed: Sealed<'_>, key: &Key) -> Result<Opened, Failed> {
    match recipe {
        RecipeName::BthomeV2 => bthome::open(sealed, key),
        RecipeName::MiBeacon => mibeacon::open(sealed, key),
    }
}

/// Whether a text is an address as `A0:9E:1A:00:11:22`.
pub fn is_address(text: &str) -> bool {
    mac(text).is_some()
}

/// `A0:9E:1A:00:11:22` as six bytes.
pub(super) fn mac(address: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut pairs = address.split(':');
    for byte in &mut bytes {
        let pair = pairs.next().filter(|pair| pair.len() == 2 && pair.bytes().all(|c| c.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(bytes)
}

/// AES-128-CCM; `text` without its tag, which stands apart in these formats.
fn ccm<N: ArraySize + ccm::NonceSize, const LENGTH: usize>(
    key: &[u8; 16],
    nonce: [u8; LENGTH],
    text: &[u8],
    tag: &[u8],
    beside: &[u8],
) -> Result<Vec<u8>, Failed>
where
    ccm::aead::Nonce<Ccm<aes::Aes128, U4, N>>: From<[u8; LENGTH]>,
{
    let sealed = [text, tag].concat();
    let cipher = Ccm::<aes::Aes128, U4, N>::new(&(*key).into());
    cipher.decrypt(&nonce.into(), Payload { msg: &sealed, aad: beside }).map_err(|_| Failed::Tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_six_pairs() {
        assert_eq!(mac("54:48:E6:8f:80:A5"), Some([0x54, 0x48, 0xe6, 0x8f, 0x80, 0xa5]));
        for wrong in ["", "54:48:E6:8F:80", "54:48:E6:8F:80:A5:00", "5448E68F80A5", "54:48:E6:8F:80:+5"] {
            assert_eq!(mac(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_bytes_or_a_reason(
            head in proptest::collection::vec(any::<u8>(), 0..16),
            body in proptest::collection::vec(any::<u8>(), 0..300),
            mac in any::<[u8; 6]>(),
            long in any::<bool>(),
        ) {
            let key = Key::parse(&"5a".repeat(if long { 16 } else { 12 })).unwrap();
            for recipe in [RecipeName::BthomeV2, RecipeName::MiBeacon] {
                if let Ok(opened) = open(recipe, Sealed { head: &head, body: &body, mac }, &key) {
                    prop_assert!(opened.plain.len() < body.len());
                }
            }
        }
    }
}
