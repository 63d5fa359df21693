//! The types of the profile language by name.

use super::error::{Wrong, near};
use super::file::ZoneName;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An unsigned whole number.
    UInt(Width),
    /// A signed whole number, two's complement.
    SInt(Width),
    /// IEEE 754, four bytes (or eight).
    Float(Width),
    /// IEEE 11073 SFLOAT.
    Med16,
    /// IEEE 11073 FLOAT.
    Med32,
    Bool,
    Bcd,
    Utf8,
    Bytes,
    /// A number in decimal digits.
    Decimal,
    /// A JSON number.
    Number,
    /// Seven bytes of the Bluetooth date and time.
    DateTime(ZoneName),
    /// Milliseconds since 1970.
    UnixMs(Width),
    /// Seconds since 1970.
    UnixS(Width),
    /// Six bytes, last one first.
    MacReversed,
}

/// Bytes of a number and their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Width {
    /// 1 to 8.
    pub(super) bytes: u8,
    /// High byte first.
    pub(super) big: bool,
}

const NAMES: [&str; 39] = [
    "u8",
    "i8",
    "u16le",
    "u16be",
    "i16le",
    "i16be",
    "u24le",
    "u24be",
    "i24le",
    "i24be",
    "u32le",
    "u32be",
    "i32le",
    "i32be",
    "u48le",
    "u48be",
    "i48le",
    "i48be",
    "u64le",
    "u64be",
    "i64le",
    "i64be",
    "f32le",
    "f32be",
    "f64le",
    "f64be",
    "medfloat16",
    "medfloat32",
    "bool",
    "bcd",
    "utf8",
    "bytes",
    "decimal",
    "date_time",
    "unix_ms_u64le",
    "unix_s_u32le",
    "unix_s_u32be",
    "mac_reversed",
    "objects",
];

const TEXT_NAMES: [&str; 10] = ["number", "decimal", "bool", "utf8", "unix_ms", "unix_s", "u8", "u16", "u32", "i32"];

impl Kind {
    /// The type of this name in a binary channel.
    pub(super) fn binary(name: &str, zone: Option<ZoneName>) -> Result<Kind, Wrong> {
        let fixed = match name {
            "medfloat16" => Kind::Med16,
            "medfloat32" => Kind::Med32,
            "bool" => Kind::Bool,
            "bcd" => Kind::Bcd,
            "utf8" => Kind::Utf8,
            "bytes" => Kind::Bytes,
            "decimal" => Kind::Decimal,
            "mac_reversed" => Kind::MacReversed,
            "date_time" => {
                let missing = || Wrong::new("date_time without zone", "write zone = \"hub\" or zone = \"UTC\"");
                Kind::DateTime(zone.ok_or_else(missing)?)
            }
            _ => return Kind::number(name).ok_or_else(|| unknown(name, &NAMES)),
        };
        Ok(fixed)
    }

    fn number(name: &str) -> Option<Kind> {
        if let Some(rest) = name.strip_prefix("unix_ms_") {
            return unsigned(rest).map(Kind::UnixMs);
        }
        if let Some(rest) = name.strip_prefix("unix_s_") {
            return unsigned(rest).map(Kind::UnixS);
        }
        let rest = name.get(1..)?;
        match name.as_bytes().first()? {
            b'u' => width(rest).map(Kind::UInt),
            b'i' => width(rest).map(Kind::SInt),
            b'f' => width(rest).filter(|w| w.bytes == 4 || w.bytes == 8).map(Kind::Float),
            _ => None,
        }
    }

    /// The type of this name in text pairs, templates and JSON: there numbers have a range and no byte order.
    pub(super) fn text(name: &str) -> Result<Kind, Wrong> {
        let whole = |rest: &str| {
            let bits: u8 = rest.parse().ok()?;
            [8, 16, 24, 32, 48, 64].contains(&bits).then_some(Width { bytes: bits / 8, big: false })
        };
        let named = match name {
            "number" => Some(Kind::Number),
            "decimal" => Some(Kind::Decimal),
            "bool" => Some(Kind::Bool),
            "utf8" => Some(Kind::Utf8),
            "unix_ms" => Some(Kind::UnixMs(Width { bytes: 8, big: false })),
            "unix_s" => Some(Kind::UnixS(Width { bytes: 8, big: false })),
            _ => name
                .strip_prefix('u')
                .and_then(whole)
                .map(Kind::UInt)
                .or_else(|| name.strip_prefix('i').and_then(whole).map(Kind::SInt)),
        };
        named.ok_or_else(|| unknown(name, &TEXT_NAMES))
    }

    /// How many bytes it takes, where that is always the same.
    pub(super) fn size(self) -> Option<usize> {
        match self {
            Kind::UInt(w) | Kind::SInt(w) | Kind::Float(w) | Kind::UnixMs(w) | Kind::UnixS(w) => Some(w.bytes.into()),
            Kind::Med16 => Some(2),
            Kind::Med32 => Some(4),
            Kind::Bool => Some(1),
            Kind::DateTime(_) => Some(7),
            Kind::MacReversed => Some(6),
            Kind::Bcd | Kind::Utf8 | Kind::Bytes | Kind::Decimal | Kind::Number => None,
        }
    }

    /// How many bits `bits = "name.7"` may reach into.
    pub(super) fn bits(self) -> Option<u32> {
        match self {
            Kind::UInt(w) | Kind::SInt(w) => Some(u32::from(w.bytes) * 8),
            _ => None,
        }
    }

    /// Whether scale, offset and unit make sense.
    pub(super) fn is_number(self) -> bool {
        !matches!(
            self,
            Kind::Bool
                | Kind::Utf8
                | Kind::Bytes
                | Kind::DateTime(_)
                | Kind::UnixMs(_)
                | Kind::UnixS(_)
                | Kind::MacReversed
        )
    }
}

/// The number type of a prefix, a tag or a length.
pub(super) fn unsigned(name: &str) -> Option<Width> {
    name.strip_prefix('u').and_then(width)
}

fn width(rest: &str) -> Option<Width> {
    if rest == "8" {
        return Some(Width { bytes: 1, big: false });
    }
    let (bits, order) = rest.split_at_checked(2)?;
    let bits: u8 = bits.parse().ok()?;
    let big = match order {
        "le" => false,
        "be" => true,
        _ => return None,
    };
    [16, 24, 32, 48, 64].contains(&bits).then_some(Width { bytes: bits / 8, big })
}

fn unknown(name: &str, names: &[&str]) -> Wrong {
    let found = format!("unknown type \"{name}\"");
    let ordered = [format!("{name}le"), format!("{name}be")];
    if names.contains(&ordered[0].as_str()) {
        return Wrong::new(found, format!("write the byte order: \"{}\" or \"{}\"", ordered[0], ordered[1]));
    }
    match near(name, names.iter().copied()).first() {
        Some(nearest) => Wrong::new(found, format!("write \"{nearest}\"? Types are {}", names.join(", "))),
        None => Wrong::new(found, format!("write one of {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_is_always_written() {
        assert_eq!(Kind::binary("u16le", None), Ok(Kind::UInt(Width { bytes: 2, big: false })));
        assert!(Kind::binary("u16", None).unwrap_err().expected.contains("\"u16le\" or \"u16be\""));
        assert!(Kind::binary("f32", None).unwrap_err().expected.contains("\"f32le\""));
        assert!(Kind::binary("u40le", None).is_err());
        assert_eq!(Kind::text("u32"), Ok(Kind::UInt(Width { bytes: 4, big: false })));
        assert!(Kind::text("u32le").is_err());
    }

    #[test]
    fn a_date_needs_its_zone() {
        assert!(Kind::binary("date_time", None).unwrap_err().expected.contains("zone"));
        assert_eq!(Kind::binary("date_time", Some(ZoneName::Utc)), Ok(Kind::DateTime(ZoneName::Utc)));
    }

    #[test]
    fn every_name_that_is_offered_exists() {
        for name in NAMES.iter().filter(|name| **name != "objects") {
            assert!(Kind::binary(name, Some(ZoneName::Hub)).is_ok(), "{name}");
        }
        for name in TEXT_NAMES {
            assert!(Kind::text(name).is_ok(), "{name}");
        }
    }
}
