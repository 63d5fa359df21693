//! BTHome version 2: AES-128-CCM, no additional data. Behind the objects a counter of four bytes and the tag.

use ccm::aead::consts::U13;

use super::key::{Bytes, Key};
use super::{Failed, Opened, Sealed, TAG, ccm};

/// The service's UUID as it goes over the air; a part of the nonce.
const SERVICE: [u8; 2] = [0xd2, 0xfc];

pub(super) fn open(sealed: Sealed<'_>, key: &Key) -> Result<Opened, Failed> {
    let Bytes::Sixteen(key) = key.bytes() else { return Err(Failed::KeyLength { digits: 32 }) };
    let [info, ..] = sealed.head else { return Err(Failed::Short) };
    let (rest, tag) = sealed.body.split_last_chunk::<TAG>().ok_or(Failed::Short)?;
    let (text, counter) = rest.split_last_chunk::<4>().ok_or(Failed::Short)?;
    let mut nonce = [0; 13];
    nonce[..6].copy_from_slice(&sealed.mac);
    nonce[6..8].copy_from_slice(&SERVICE);
    nonce[8] = *info;
    nonce[9..].copy_from_slice(counter);
    let plain = ccm::<U13, 13>(key, nonce, text, tag, &[])?;
    Ok(Opened { plain, counter: u32::from_le_bytes(*counter) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of bthome.io, also in the test suite of bthome-ble.
    #[test]
    fn the_published_example_opens() {
        let key = Key::parse("231d39c1d7cc1ab1aee224cd096db932").unwrap();
        let mac = [0x54, 0x48, 0xe6, 0x8f, 0x80, 0xa5];
        let mut body = vec![0xe4, 0x45, 0xf3, 0xc9, 0x96, 0x2b, 0x33, 0x22, 0x11, 0x00, 0x6c, 0x7c, 0x45, 0x19];
        let opened = open(Sealed { head: &[0x41], body: &body, mac }, &key);
        assert_eq!(opened, Ok(Opened { plain: vec![0x02, 0xca, 0x09, 0x03, 0xbf, 0x13], counter: 0x0011_2233 }));
        assert_eq!(open(Sealed { head: &[0x45], body: &body, mac }, &key), Err(Failed::Tag));
        body[0] ^= 1;
        assert_eq!(open(Sealed { head: &[0x41], body: &body, mac }, &key), Err(Failed::Tag));
        assert_eq!(open(Sealed { head: &[0x41], body: &body[..7], mac }, &key), Err(Failed::Short));
        assert_eq!(open(Sealed { head: &[], body: &body, mac }, &key), Err(Failed::Short));
        let short = Key::parse("b853075158487ca39a5b5ea9").unwrap();
        assert_eq!(open(Sealed { head: &[0x41], body: &body, mac }, &short), Err(Failed::KeyLength { digits: 32 }));
    }
}
