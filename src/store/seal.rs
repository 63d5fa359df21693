//! The store's seal: XChaCha20-Poly1305 with a key from a file and a random nonce for every seal.

use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use uuid::Uuid;

/// Bytes of nonce before the ciphertext.
const NONCE: usize = 24;

/// What sealing adds: the nonce and the tag.
pub(super) const OVERHEAD: usize = NONCE + 16;

/// A key in use. It never shows itself.
pub(super) struct Seal {
    cipher: XChaCha20Poly1305,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// Reads a key of 32 raw bytes, or of 64 hex digits.
    pub(super) fn from_file(file: &Path) -> Result<Seal, String> {
        let bytes =
            std::fs::read(file).map_err(|why| format!("store.key_file {}: cannot be read: {why}", file.display()))?;
        let key = match bytes.len() {
            32 => bytes,
            _ => hex(&bytes).ok_or_else(|| {
                let found = bytes.len();
                format!(
                    "store.key_file {}: found {found} bytes; write 32 random bytes or 64 hex digits",
                    file.display()
                )
            })?,
        };
        let cipher = XChaCha20Poly1305::new_from_slice(&key)
            .map_err(|why| format!("store.key_file {}: {why}", file.display()))?;
        Ok(Seal { cipher })
    }

    /// Nonce and ciphertext. `None` only for messages beyond the cipher's 256 GiB.
    pub(super) fn close(&self, associated: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        // Two random UUIDs carry 244 random bits; the nonce takes 24 of their 32 bytes.
        let mut nonce = [0u8; NONCE];
        nonce[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        nonce[16..].copy_from_slice(&Uuid::new_v4().as_bytes()[8..]);
        let ciphertext = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: associated }).ok()?;
        let mut sealed = nonce.to_vec();
        sealed.extend_from_slice(&ciphertext);
        Some(sealed)
    }

    /// The plain bytes; `None` for another key or changed bytes.
    pub(super) fn open(&self, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE>()?;
        self.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: associated }).ok()
    }
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
