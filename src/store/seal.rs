//! The key of a sealed store, and sealing: XChaCha20-Poly1305 with a random 24-byte nonce before the text.

use std::fmt;
use std::path::Path;

use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{Key as Secret, XChaCha20Poly1305, XNonce};

use super::Error;
use super::damage::{Damaged, WRONG_KEY};

/// The store's key. It never appears in `Debug`, logs or errors.
#[derive(Clone)]
pub(super) struct Key(XChaCha20Poly1305);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Reads a key file: 32 raw bytes, or 64 hex digits with white space around them.
    pub(super) fn read(path: &Path) -> Result<Key, Error> {
        let refused = |what: String| Error::Key { path: path.to_owned(), what };
        let content = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
        let bytes = raw_or_hex(&content).ok_or_else(|| {
            refused(format!("it holds {} bytes; a key is 32 raw bytes or 64 hex digits", content.len()))
        })?;
        let secret = Secret::from(bytes);
        Ok(Key(XChaCha20Poly1305::new(&secret)))
    }

    /// A key of these bytes.
    #[cfg(test)]
    pub(super) fn of_bytes(bytes: [u8; 32]) -> Key {
        Key(XChaCha20Poly1305::new(&Secret::from(bytes)))
    }

    /// Seals `text`; `beside` is not hidden but cannot be changed either.
    pub(super) fn seal(&self, text: &[u8], beside: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce = XNonce::try_generate().map_err(|_| Error::fatal("drawing a nonce", "no random bytes"))?;
        let sealed = self.0.encrypt(&nonce, Payload { msg: text, aad: beside });
        let sealed = sealed.map_err(|_| Error::fatal("sealing a record", "the cipher refused it"))?;
        let mut out = Vec::with_capacity(nonce.len() + sealed.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what [`Key::seal`] made.
    pub(super) fn open(&self, sealed: &[u8], beside: &[u8]) -> Result<Vec<u8>, Damaged> {
        let (nonce, text) = sealed.split_at_checked(24).ok_or(Damaged("a sealed body is too short"))?;
        let nonce = XNonce::try_from(nonce).map_err(|_| Damaged("a sealed body is too short"))?;
        self.0.decrypt(&nonce, Payload { msg: text, aad: beside }).map_err(|_| WRONG_KEY)
    }

    /// Sixteen bytes that only this key gives: kept beside the store so that a wrong key is told from damage.
    pub(super) fn fingerprint(&self) -> String {
        // A fixed nonce is used for this one fixed text only, so nothing is ever sealed twice under it.
        let text = Payload { msg: &[], aad: b"biogate store key" };
        let tag = self.0.encrypt(&XNonce::from([0u8; 24]), text).unwrap_or_default();
        tag.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn raw_or_hex(content: &[u8]) -> Option<[u8; 32]> {
    if let Ok(raw) = <[u8; 32]>::try_from(content) {
        return Some(raw);
    }
    let text = content.trim_ascii();
    if text.len() != 64 {
        return None;
    }
    let mut key = [0u8; 32];
    for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(key)
}
