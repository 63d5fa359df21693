//! The part of CBOR (RFC 8949) that the store's forms are made of: a writer that cannot fail and a bounded reader.
//!
//! By hand because the general serializer goes through one visitor for each field, and an append has about a
//! microsecond for an observation. Every item is the shortest form of its value, so equal values are equal bytes.

use super::damage::Damaged;

/// Tag 4: a decimal fraction, `[exponent, mantissa]`.
const TAG_DECIMAL: u8 = 0xc4;

/// Writes items to the end of a buffer.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        match value {
            0..=23 => self.0.push(major | value as u8),
            24..=0xff => self.0.extend_from_slice(&[major | 24, value as u8]),
            0x100..=0xffff => {
                self.0.push(major | 25);
                self.0.extend_from_slice(&(value as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(major | 26);
                self.0.extend_from_slice(&(value as u32).to_be_bytes());
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    pub(super) fn unsigned(&mut self, value: u64) {
        self.head(0, value);
    }

    pub(super) fn signed(&mut self, value: i64) {
        if value >= 0 { self.head(0, value as u64) } else { self.head(1, !value as u64) }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.head(2, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.head(3, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(super) fn array(&mut self, items: usize) {
        self.head(4, items as u64);
    }

    pub(super) fn tag(&mut self, tag: u64) {
        self.head(6, tag);
    }

    pub(super) fn null(&mut self) {
        self.0.push(0xf6);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.0.push(if value { 0xf5 } else { 0xf4 });
    }

    /// A number that keeps its bits: a decimal fraction of up to three places where that is exact (36.6 is six bytes
    /// that compress, not nine that do not), else single or double precision.
    pub(super) fn number(&mut self, value: f64) {
        for (exponent, scale) in [(1i64, 10f64), (2, 100.0), (3, 1000.0)] {
            let mantissa = (value * scale).round();
            let is_minus_zero = mantissa == 0.0 && value.is_sign_negative();
            if mantissa.abs() < 1e9 && !is_minus_zero && (mantissa / scale).to_bits() == value.to_bits() {
                self.0.push(TAG_DECIMAL);
                self.array(2);
                self.signed(-exponent);
                self.signed(mantissa as i64);
                return;
            }
        }
        let single = value as f32;
        if f64::from(single).to_bits() == value.to_bits() {
            self.0.push(0xfa);
            self.0.extend_from_slice(&single.to_bits().to_be_bytes());
        } else {
            self.0.push(0xfb);
            self.0.extend_from_slice(&value.to_bits().to_be_bytes());
        }
    }
}

/// One item's head, or a whole simple item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item<'a> {
    Unsigned(u64),
    /// The value is `-1 - n`.
    Negative(u64),
    Bytes(&'a [u8]),
    Text(&'a str),
    Array(usize),
    Tag(u64),
    Number(f64),
    Bool(bool),
    Null,
}

/// Reads items from the front of a buffer. Lengths are checked against what is left before anything is allocated.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged("an item is longer than what is left"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn argument(&mut self, low: u8) -> Result<u64, Damaged> {
        let width = match low {
            0..=23 => return Ok(u64::from(low)),
            24..=27 => 1usize << (low - 24),
            _ => return Err(Damaged("an item of indefinite or reserved length")),
        };
        Ok(self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    pub(super) fn item(&mut self) -> Result<Item<'a>, Damaged> {
        let first = self.take(1)?[0];
        let (major, low) = (first >> 5, first & 0x1f);
        if first == TAG_DECIMAL {
            return self.decimal();
        }
        let argument = self.argument(low)?;
        let length = usize::try_from(argument).unwrap_or(usize::MAX);
        Ok(match major {
            0 => Item::Unsigned(argument),
            1 => Item::Negative(argument),
            2 => Item::Bytes(self.take(length)?),
            3 => {
                let text = std::str::from_utf8(self.take(length)?);
                Item::Text(text.map_err(|_| Damaged("a text is not UTF-8"))?)
            }
            // Every element has at least one byte.
            4 if length <= self.0.len() => Item::Array(length),
            6 => Item::Tag(argument),
            7 => match low {
                20 => Item::Bool(false),
                21 => Item::Bool(true),
                22 => Item::Null,
                26 => Item::Number(f64::from(f32::from_bits(argument as u32))),
                27 => Item::Number(f64::from_bits(argument)),
                _ => return Err(Damaged("an unknown simple item")),
            },
            _ => return Err(Damaged("an unknown item")),
        })
    }

    fn decimal(&mut self) -> Result<Item<'a>, Damaged> {
        let (Item::Array(2), Item::Negative(places @ 0..=2)) = (self.item()?, self.item()?) else {
            return Err(Damaged("a strange decimal fraction"));
        };
        let mantissa = self.signed()? as f64;
        Ok(Item::Number(mantissa / [10f64, 100.0, 1000.0][places as usize]))
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, Damaged> {
        // Most are numbers of a table: one byte.
        if let [small @ 0..=23, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok(u64::from(*small));
        }
        match self.item()? {
            Item::Unsigned(value) => Ok(value),
            _ => Err(Damaged("an unsigned integer was expected")),
        }
    }

    pub(super) fn signed(&mut self) -> Result<i64, Damaged> {
        signed(self.item()?)
    }

    pub(super) fn array(&mut self) -> Result<usize, Damaged> {
        match self.item()? {
            Item::Array(items) => Ok(items),
            _ => Err(Damaged("an array was expected")),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        match self.item()? {
            Item::Bytes(bytes) => Ok(bytes),
            _ => Err(Damaged("bytes were expected")),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Damaged> {
        match self.item()? {
            Item::Text(text) => Ok(text),
            _ => Err(Damaged("a text was expected")),
        }
    }
}

/// The value of an integer item.
pub(super) fn signed(item: Item<'_>) -> Result<i64, Damaged> {
    match item {
        Item::Unsigned(value) => i64::try_from(value).map_err(|_| Damaged("an integer is out of range")),
        Item::Negative(value) => {
            i64::try_from(value).map(|value| !value).map_err(|_| Damaged("an integer is out of range"))
        }
        _ => Err(Damaged("an integer was expected")),
    }
}
