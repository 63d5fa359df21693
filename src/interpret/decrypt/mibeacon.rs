//! Xiaomi MiBeacon: versions 4 and 5 by AES-128-CCM; versions 2 and 3 with a short key and without a tag.
//!
//! Behind the objects stand three bytes of counter, then the tag (from version 4 on) or one byte (before). The counter's
//! low byte is the frame counter in the head.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use ccm::aead::consts::U12;

use super::key::{Bytes, Key};
use super::{Failed, Opened, Sealed, TAG, ccm};

/// The additional data of every version that has a tag.
const BESIDE: [u8; 1] = [0x11];

/// The middle of a key of 12 bytes.
const FILLING: [u8; 4] = [0x8d, 0x3d, 0x3c, 0x97];

pub(super) fn open(sealed: Sealed<'_>, key: &Key) -> Result<Opened, Failed> {
    let Some(head) = sealed.head.first_chunk::<5>() else { return Err(Failed::Short) };
    let version = head[1] >> 4;
    match (version >= 4, key.bytes()) {
        (true, Bytes::Sixteen(key)) => tagged(head, sealed, key),
        (false, Bytes::Twelve(key)) => untagged(head, sealed, key),
        (tagged, Bytes::Sixteen(_) | Bytes::Twelve(_)) => {
            Err(Failed::KeyLength { digits: if tagged { 32 } else { 24 } })
        }
    }
}

fn tagged(head: &[u8; 5], sealed: Sealed<'_>, key: &[u8; 16]) -> Result<Opened, Failed> {
    let (rest, tag) = sealed.body.split_last_chunk::<TAG>().ok_or(Failed::Short)?;
    let (text, counter) = rest.split_last_chunk::<3>().ok_or(Failed::Short)?;
    let mut nonce = [0; 12];
    nonce[..6].copy_from_slice(&reversed(sealed.mac));
    nonce[6..9].copy_from_slice(&head[2..]);
    nonce[9..].copy_from_slice(counter);
    let plain = ccm::<U12, 12>(key, nonce, text, tag, &BESIDE)?;
    Ok(Opened { plain, counter: whole(head, *counter) })
}

/// CCM's encryption without its tag, which these versions do not send: a wrong key gives nonsense, not an error.
fn untagged(head: &[u8; 5], sealed: Sealed<'_>, short: &[u8; 12]) -> Result<Opened, Failed> {
    let (_unknown, rest) = sealed.body.split_last().ok_or(Failed::Short)?;
    let (text, counter) = rest.split_last_chunk::<3>().ok_or(Failed::Short)?;
    let mut key = [0; 16];
    key[..6].copy_from_slice(&short[..6]);
    key[6..10].copy_from_slice(&FILLING);
    key[10..].copy_from_slice(&short[6..]);
    let cipher = Aes128::new(&key.into());
    // Flags of a nonce of 13 bytes, the nonce, and the number of the block: the first one is the tag's.
    let mut block = [0; 16];
    block[0] = 1;
    block[1..6].copy_from_slice(head);
    block[6..9].copy_from_slice(counter);
    block[9..14].copy_from_slice(&reversed(sealed.mac)[..5]);
    let mut plain = text.to_vec();
    for (number, part) in (1u16..).zip(plain.chunks_mut(16)) {
        block[14..].copy_from_slice(&number.to_be_bytes());
        let mut stream = block.into();
        cipher.encrypt_block(&mut stream);
        part.iter_mut().zip(stream).for_each(|(byte, key)| *byte ^= key);
    }
    Ok(Opened { plain, counter: whole(head, *counter) })
}

fn reversed(mut mac: [u8; 6]) -> [u8; 6] {
    mac.reverse();
    mac
}

fn whole(head: &[u8; 5], [low, middle, high]: [u8; 3]) -> u32 {
    u32::from_le_bytes([head[4], low, middle, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hygrometer of version 5 and a dimmer of version 3, from the test suite of xiaomi-ble.
    #[test]
    fn published_frames_open() {
        let key = Key::parse("e9ea895fac7cca6d30532432a516f3a8").unwrap();
        let mac = [0xa4, 0xc1, 0x38, 0x02, 0x83, 0xf4];
        let head = [0x58, 0x58, 0x5b, 0x05, 0x50, 0xf4, 0x83, 0x02, 0x38, 0xc1, 0xa4];
        let mut body = [0x95, 0xef, 0x58, 0x76, 0x3c, 0x26, 0x00, 0x00, 0x97, 0xe2, 0xab, 0xb5];
        let opened = open(Sealed { head: &head, body: &body, mac }, &key).unwrap();
        assert_eq!(opened, Opened { plain: vec![0x06, 0x10, 0x02, 0xd3, 0x01], counter: 0x2650 });
        body[9] ^= 1;
        assert_eq!(open(Sealed { head: &head, body: &body, mac }, &key), Err(Failed::Tag));
        assert_eq!(open(Sealed { head: &head, body: &body[..6], mac }, &key), Err(Failed::Short));
        assert_eq!(open(Sealed { head: &head[..4], body: &body, mac }, &key), Err(Failed::Short));

        let short = Key::parse("b853075158487ca39a5b5ea9").unwrap();
        assert_eq!(open(Sealed { head: &head, body: &body, mac }, &short), Err(Failed::KeyLength { digits: 32 }));
        let mac = [0xf8, 0x24, 0x41, 0xc5, 0x98, 0x8b];
        let head = [0x58, 0x30, 0xb6, 0x03, 0xd2, 0x8b, 0x98, 0xc5, 0x41, 0x24, 0xf8];
        let body = [0xc3, 0x49, 0x14, 0x76, 0x75, 0x7e, 0x00, 0x00, 0x00, 0x99];
        let opened = open(Sealed { head: &head, body: &body, mac }, &short).unwrap();
        assert_eq!(opened.plain[..3], [0x01, 0x10, 0x03]);
        assert_eq!(open(Sealed { head: &head, body: &body, mac }, &key), Err(Failed::KeyLength { digits: 24 }));
    }
}
