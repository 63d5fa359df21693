//! Bytes of one value to the raw value: whole numbers, medical floats, dates. Total: any bytes give a value or a reason.

use std::fmt::Write;
use std::sync::Arc;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::kind::{Kind, Width};

/// A value before `must`, `missing`, names and scale.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    Int(i64),
    Num(f64),
    Bool(bool),
    Text(Arc<str>),
    /// A special value of its type: NaN, not at this resolution, a date of zeros.
    Missing,
    /// Milliseconds as of UTC, and how people write it.
    Time(i64, Arc<str>),
}

/// Reads one value; `bytes` are exactly its bytes.
pub(super) fn binary(kind: Kind, bytes: &[u8]) -> Result<Raw, String> {
    Ok(match kind {
        Kind::UInt(width) | Kind::UnixMs(width) | Kind::UnixS(width) => {
            let number = unsigned(width, bytes);
            match i64::try_from(number) {
                Ok(number) => Raw::Int(number),
                Err(_) if matches!(kind, Kind::UInt(_)) => Raw::Num(number as f64),
                Err(_) => return Err(format!("{number} is no time")),
            }
        }
        Kind::SInt(width) => {
            let unused = 64 - u32::from(width.bytes) * 8;
            Raw::Int((unsigned(width, bytes) << unused) as i64 >> unused)
        }
        Kind::Float(width) => {
            let bits = unsigned(width, bytes);
            let number = if width.bytes == 4 { f64::from(f32::from_bits(bits as u32)) } else { f64::from_bits(bits) };
            if number.is_finite() { Raw::Num(number) } else { Raw::Missing }
        }
        Kind::Med16 => med16(unsigned(Width { bytes: 2, big: false }, bytes) as u16),
        Kind::Med32 => med32(unsigned(Width { bytes: 4, big: false }, bytes) as u32),
        Kind::Bool => Raw::Bool(bytes.iter().any(|byte| *byte != 0)),
        Kind::Bcd => bcd(bytes)?,
        Kind::Utf8 => Raw::Text(utf8(bytes)?.trim_end_matches('\0').into()),
        Kind::Decimal => decimal(utf8(bytes)?)?,
        Kind::Number => return Err("only JSON has numbers of its own".to_owned()),
        Kind::Bytes => Raw::Text(hex(bytes.iter(), "").into()),
        Kind::MacReversed => Raw::Text(hex(bytes.iter().rev(), ":").to_ascii_uppercase().into()),
        Kind::DateTime(_) => date_time(bytes)?,
    })
}

pub(super) fn unsigned(width: Width, bytes: &[u8]) -> u64 {
    let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    if width.big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
}

/// SFLOAT: the special values are whole words (+INF, NaN, NRes, reserved, -INF).
fn med16(word: u16) -> Raw {
    if (0x07fe..=0x0802).contains(&word) {
        return Raw::Missing;
    }
    let mantissa = i32::from((word << 4) as i16 >> 4);
    scaled(mantissa, i32::from(word as i16 >> 12))
}

/// FLOAT: as SFLOAT, with a mantissa of 24 bits and an exponent of 8.
fn med32(word: u32) -> Raw {
    if (0x007f_fffe..=0x0080_0002).contains(&word) {
        return Raw::Missing;
    }
    scaled((word << 8) as i32 >> 8, word as i32 >> 24)
}

/// Division by a power of ten rounds once, so 369e-1 is 36.9 and not nearly so.
fn scaled(mantissa: i32, exponent: i32) -> Raw {
    let ten = 10f64.powi(exponent.abs());
    Raw::Num(if exponent < 0 { f64::from(mantissa) / ten } else { f64::from(mantissa) * ten })
}

fn bcd(bytes: &[u8]) -> Result<Raw, String> {
    let mut number: i64 = 0;
    for byte in bytes {
        let (tens, ones) = (byte >> 4, byte & 0x0f);
        if tens > 9 || ones > 9 {
            return Err(format!("{byte:02x} is no pair of decimal digits"));
        }
        let more = number.checked_mul(100).and_then(|n| n.checked_add(i64::from(tens * 10 + ones)));
        number = more.ok_or("too many digits")?;
    }
    Ok(Raw::Int(number))
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| format!("no UTF-8 text after {} bytes", error.valid_up_to()))
}

/// A sign, digits, at most one point; nothing else.
pub(super) fn decimal(text: &str) -> Result<Raw, String> {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let shown = || format!("{:?} is no decimal number", text.chars().take(40).collect::<String>());
    if !plain(whole) || !plain(part) || text.len() > 40 {
        return Err(shown());
    }
    if !digits.contains('.')
        && let Ok(number) = text.parse()
    {
        return Ok(Raw::Int(number));
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Raw::Num).ok_or_else(shown)
}

fn hex<'a>(bytes: impl Iterator<Item = &'a u8>, between: &str) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.enumerate() {
        if at > 0 {
            text.push_str(between);
        }
        // Writing into a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// Year, month or day 0 is "unknown".
fn date_time(bytes: &[u8]) -> Result<Raw, String> {
    let &[low, high, month, day, hour, minute, second] = bytes else { return Err("seven bytes".to_owned()) };
    let year = u16::from_le_bytes([low, high]);
    if year == 0 || month == 0 || day == 0 {
        return Ok(Raw::Missing);
    }
    let date = || {
        let signed = |part: u8| i8::try_from(part).ok();
        let year = i16::try_from(year).ok()?;
        DateTime::new(year, signed(month)?, signed(day)?, signed(hour)?, signed(minute)?, signed(second)?, 0).ok()
    };
    let date = date().ok_or_else(|| format!("{year}-{month}-{day} {hour}:{minute}:{second} is no date"))?;
    let moment = TimeZone::UTC.to_timestamp(date).map_err(|_| format!("{date} is no date"))?;
    Ok(Raw::Time(moment.as_millisecond(), date.to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpret::file::ZoneName;

    #[test]
    fn medical_floats_have_special_words() {
        for word in 0x07fe..=0x0802u16 {
            assert_eq!(med16(word), Raw::Missing, "{word:04x}");
        }
        for word in 0x007f_fffe..=0x0080_0002u32 {
            assert_eq!(med32(word), Raw::Missing, "{word:08x}");
        }
        assert_eq!(med32(0xff00_0171), Raw::Num(36.9));
        assert_eq!(med32(0xfe00_0eb0), Raw::Num(37.6));
        assert_eq!(med16(0xf0f0), Raw::Num(24.0));
        assert_eq!(med16(0x0fff), Raw::Num(-1.0));
        assert_eq!(med16(0x0803), Raw::Num(-2045.0));
    }

    #[test]
    fn signs_reach_over_every_width() {
        let three = Width { bytes: 3, big: true };
        assert_eq!(binary(Kind::SInt(three), &[0xff, 0xff, 0xfe]), Ok(Raw::Int(-2)));
        assert_eq!(binary(Kind::UInt(three), &[0x01, 0x00, 0x00]), Ok(Raw::Int(65_536)));
        let eight = Width { bytes: 8, big: false };
        assert_eq!(binary(Kind::UInt(eight), &[0xff; 8]), Ok(Raw::Num(u64::MAX as f64)));
        assert_eq!(binary(Kind::SInt(eight), &[0xff; 8]), Ok(Raw::Int(-1)));
    }

    #[test]
    fn dates_of_zeros_are_unknown_and_impossible_ones_refused() {
        let kind = Kind::DateTime(ZoneName::Hub);
        assert_eq!(binary(kind, &[0; 7]), Ok(Raw::Missing));
        assert!(binary(kind, &[0xea, 0x07, 2, 30, 8, 0, 0]).is_err());
        let good = binary(kind, &[0xea, 0x07, 11, 23, 8, 30, 0]).unwrap();
        assert_eq!(good, Raw::Time(1_795_422_600_000, "2026-11-23T08:30:00".into()));
    }

    #[test]
    fn decimals_are_plain() {
        assert_eq!(decimal("-36.6"), Ok(Raw::Num(-36.6)));
        assert_eq!(decimal(" 72 "), Ok(Raw::Int(72)));
        for wrong in ["7x2", "", ".", "1e9", "inf", "NaN", "1.", "--1", "1.2.3"] {
            assert!(decimal(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn decimal_digits_in_bytes() {
        assert_eq!(binary(Kind::Bcd, &[0x12, 0x34]), Ok(Raw::Int(1234)));
        assert!(binary(Kind::Bcd, &[0x1a]).is_err());
    }
}
