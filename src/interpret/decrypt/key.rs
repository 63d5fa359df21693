//! The key of a device whose advertisements are encrypted.

use std::fmt;

/// A device's key. It never appears in `Debug`, logs or errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Bytes);

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Bytes {
    /// BTHome, and MiBeacon 4 and 5.
    Sixteen([u8; 16]),
    /// MiBeacon 2 and 3.
    Twelve([u8; 12]),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Reads 32 hexadecimal digits, or 24 for MiBeacon 2 and 3, with white space around them. The error never holds them.
    pub fn parse(text: &str) -> Result<Key, String> {
        let text = text.trim();
        let wrong = || {
            let found = text.chars().count();
            let other = text.chars().filter(|c| !c.is_ascii_hexdigit()).count();
            format!(
                "{found} characters, {other} of them no hexadecimal digit; write 32 hexadecimal digits (24 for MiBeacon 2 and 3)"
            )
        };
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let pairs = text.as_bytes().chunks(2).map(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16).map_or(0, |digit| digit as u8);
            pair.iter().fold(0, |byte, c| byte << 4 | digit(*c))
        });
        let bytes: Vec<u8> = pairs.collect();
        match (text.len(), bytes.try_into()) {
            (32, Ok(key)) => Ok(Key(Bytes::Sixteen(key))),
            (24, Err(bytes)) => bytes.try_into().map(|key| Key(Bytes::Twelve(key))).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// How many hexadecimal digits it was written with.
    pub(in crate::interpret) fn digits(&self) -> usize {
        match self.0 {
            Bytes::Sixteen(_) => 32,
            Bytes::Twelve(_) => 24,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_two_lengths_and_never_shown() {
        let key = Key::parse(" 231d39c1d7cc1ab1aee224cd096db932\n").unwrap();
        assert!(matches!(key.bytes(), Bytes::Sixteen([0x23, .., 0x32])));
        assert!(matches!(Key::parse("B853075158487ca39a5b5ea9").unwrap().bytes(), Bytes::Twelve([0xb8, .., 0xa9])));
        assert_eq!(format!("{key:?}"), "Key(..)");
        let long = "a".repeat(33);
        for wrong in ["", "231d39c1d7cc1ab1", &long, "231d39c1d7cc1ab1aee224cd096db9xy", "ÄÖ1d39c1d7cc1ab1aee224cd096d"]
        {
            let why = Key::parse(wrong).unwrap_err();
            assert!(wrong.len() < 3 || !why.contains(wrong), "{why}");
            assert!(why.contains("32 hexadecimal digits"), "{why}");
        }
    }
}
