//! The short forms of the profile language: keys that take a number or a list, a name or a table, and so on.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error};
use toml::Value as Toml;

/// Reads a value of several forms; the message says which forms there are.
macro_rules! forms {
    ($name:ident, $expected:literal, $read:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = Toml::deserialize(deserializer)?;
                let read: fn(&Toml) -> Option<$name> = $read;
                read(&value).ok_or_else(|| D::Error::custom(format!("found {}, expected {}", shown(&value), $expected)))
            }
        }
    };
}

fn shown(value: &Toml) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { format!("{}...", text.chars().take(60).collect::<String>()) } else { text }
}

fn strings(values: &[Toml]) -> Option<Vec<String>> {
    values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

/// A number, a text or a truth value.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(untagged))]
pub enum Scalar {
    /// A whole number.
    Int(i64),
    /// Another number.
    Num(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
}

impl Scalar {
    fn of(value: &Toml) -> Option<Scalar> {
        match value {
            Toml::Integer(n) => Some(Scalar::Int(*n)),
            Toml::Float(n) if n.is_finite() => Some(Scalar::Num(*n)),
            Toml::Boolean(b) => Some(Scalar::Bool(*b)),
            Toml::String(text) => Some(Scalar::Text(text.clone())),
            _ => None,
        }
    }

    /// As a number, where it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Scalar::Int(n) => Some(*n as f64),
            Scalar::Num(n) => Some(*n),
            Scalar::Bool(_) | Scalar::Text(_) => None,
        }
    }

    /// As an example shows it.
    pub fn shown(&self) -> String {
        match self {
            Scalar::Int(n) => n.to_string(),
            Scalar::Num(n) => n.to_string(),
            Scalar::Bool(b) => b.to_string(),
            Scalar::Text(text) => format!("{text:?}"),
        }
    }
}

forms!(Scalar, "a number, a text, true or false", Scalar::of);

/// One scalar or a list of them, as in `missing = 0` and `missing = [0, 255]`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(untagged))]
pub enum Scalars {
    /// One.
    One(Scalar),
    /// Any of these.
    Many(Vec<Scalar>),
}

impl Scalars {
    /// All of them.
    pub fn all(&self) -> &[Scalar] {
        match self {
            Scalars::One(one) => std::slice::from_ref(one),
            Scalars::Many(many) => many,
        }
    }
}

forms!(Scalars, "a number or a text, or a list of them", |value| match value {
    Toml::Array(items) => items.iter().map(Scalar::of).collect::<Option<Vec<_>>>().map(Scalars::Many),
    other => Scalar::of(other).map(Scalars::One),
});

/// One text or a list of them, as in `bits = "b0.4"` and `bits = ["b2.6", "b3.6-0"]`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(untagged))]
pub enum Texts {
    /// One.
    One(String),
    /// These, in order.
    Many(Vec<String>),
}

impl Texts {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            Texts::One(one) => std::slice::from_ref(one),
            Texts::Many(many) => many,
        }
    }
}

forms!(Texts, "a text or a list of texts", |value| match value {
    Toml::String(text) => Some(Texts::One(text.clone())),
    Toml::Array(items) => strings(items).map(Texts::Many),
    _ => None,
});

/// A byte offset, a key or a JSON pointer.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(untagged))]
pub enum At {
    /// A byte offset; negative counts from the end.
    Byte(i64),
    /// A key of a pair or object, a name in a template, or a JSON pointer (begins with `/`).
    Name(String),
}

forms!(At, "a byte offset (at = 3), a key (at = \"HR\") or a JSON pointer (at = \"/temp/c\")", |value| match value {
    Toml::Integer(n) => Some(At::Byte(*n)),
    Toml::String(text) => Some(At::Name(text.clone())),
    _ => None,
});

/// How many: a number, or words.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(untagged))]
pub enum Count {
    /// So many.
    Number(u32),
    /// For `repeat`: `to_end` or a field; for `length`: a prefix (`u8`, `u16le`, `u16be`) or a field.
    Name(String),
}

forms!(Count, "a number or a name (\"to_end\", a prefix type, or an earlier field)", |value| match value {
    Toml::Integer(n) => u32::try_from(*n).ok().map(Count::Number),
    Toml::String(text) => Some(Count::Name(text.clone())),
    _ => None,
});

/// A scale: a number, or a fraction as `"1/1024"`. Kept as a fraction, so that 2120 x 0.01 is 21.2 and not nearly so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Numerator.
    pub num: f64,
    /// Denominator.
    pub den: f64,
}

forms!(Scale, "a number that is not 0, or a fraction as \"1/1024\"", |value| match value {
    Toml::Integer(n) => Some(Scale { num: *n as f64, den: 1.0 }),
    Toml::Float(n) if n.is_finite() => Some(decimal_fraction(*n)),
    Toml::String(text) => text
        .split_once('/')
        .and_then(|(num, den)| { Some(Scale { num: num.trim().parse().ok()?, den: den.trim().parse().ok()? }) }),
    _ => None,
}
.filter(|scale| scale.num.is_finite() && scale.den.is_finite() && scale.num != 0.0 && scale.den != 0.0));

/// 0.01 as 1/100: exact numerator and denominator where the decimal has at most 15 digits.
fn decimal_fraction(number: f64) -> Scale {
    let text = format!("{number:e}");
    let fraction = || {
        let (mantissa, exponent) = text.split_once('e')?;
        let digits = mantissa.split_once('.').map_or(0, |(_, after)| i32::try_from(after.len()).unwrap_or(0));
        let whole: f64 = mantissa.replace('.', "").parse().ok()?;
        let power = exponent.parse::<i32>().ok()? - digits;
        if power.abs() > 22 || whole.abs() >= 1e15 {
            return None;
        }
        let ten = 10f64.powi(power.abs());
        Some(if power < 0 { Scale { num: whole, den: ten } } else { Scale { num: whole * ten, den: 1.0 } })
    };
    fraction().unwrap_or(Scale { num: number, den: 1.0 })
}

/// Names for numbers: a list counts from 0, a table names its numbers (or texts).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(untagged))]
pub enum Names {
    /// The name of 0, of 1, and so on.
    List(Vec<String>),
    /// Name by number or text.
    Table(BTreeMap<String, String>),
}

forms!(Names, "a list of names, or a table as { 1 = \"armpit\", 2 = \"body\" }", |value| match value {
    Toml::Array(items) => strings(items).map(Names::List),
    Toml::Table(table) => table
        .iter()
        .map(|(key, name)| name.as_str().map(|name| (key.clone(), name.to_owned())))
        .collect::<Option<BTreeMap<_, _>>>()
        .map(Names::Table),
    _ => None,
});

/// A condition: a flag's name, a list (any of them), or a table (all of them).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(untagged))]
pub enum Condition {
    /// The flag is set.
    Flag(String),
    /// Any of these flags is set.
    Any(Vec<String>),
    /// All of these fields have these values.
    All(BTreeMap<String, Scalar>),
}

forms!(
    Condition,
    "a flag's name, a list of flags (any of them), or { name = value } (all of them)",
    |value| match value {
        Toml::String(text) => Some(Condition::Flag(text.clone())),
        Toml::Array(items) => strings(items).map(Condition::Any),
        Toml::Table(table) => table
            .iter()
            .map(|(key, value)| Scalar::of(value).map(|value| (key.clone(), value)))
            .collect::<Option<BTreeMap<_, _>>>()
            .map(Condition::All),
        _ => None,
    }
);

/// What an example expects of a field: a scalar or a list of them.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(untagged))]
pub enum Expected {
    /// One value.
    One(Scalar),
    /// A repeated field.
    List(Vec<Scalar>),
}

forms!(Expected, "a number, a text, true, false, or a list of them", |value| match value {
    Toml::Array(items) => items.iter().map(Scalar::of).collect::<Option<Vec<_>>>().map(Expected::List),
    other => Scalar::of(other).map(Expected::One),
});

/// A time span as `"4 s"` or `"500 ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub std::time::Duration);

forms!(Span, "a time span as \"500 ms\", \"4 s\" or \"2 min\"", |value| value.as_str().and_then(|text| {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().ok()?;
    let ms = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let total = number.checked_mul(ms).filter(|ms| (1..=86_400_000).contains(ms))?;
    Some(Span(std::time::Duration::from_millis(total)))
}));

/// Bytes in hexadecimal, blanks allowed: `"7d 81 a1"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

forms!(Hex, "bytes in hexadecimal, as \"7d 81 a1\"", |value| value
    .as_str()
    .and_then(|text| parse_hex(text).ok())
    .map(Hex));

/// Reads hexadecimal digits in pairs; blanks anywhere between pairs.
pub fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    if let Some(wrong) = digits.iter().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("found {wrong:?}, expected hexadecimal digits"));
    }
    if !digits.len().is_multiple_of(2) {
        return Err(format!("found {} hexadecimal digits, expected two for each byte", digits.len()));
    }
    let digit = |c: char| c.to_digit(16).and_then(|d| u8::try_from(d).ok()).unwrap_or(0);
    Ok(digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect())
}

#[cfg(test)]
mod schemas {
    //! JSON Schemas of the forms that are a text with a grammar of its own.
    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
    use std::borrow::Cow;

    impl JsonSchema for super::Scale {
        fn schema_name() -> Cow<'static, str> {
            "Scale".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "description": "A number, or a fraction as \"1/1024\".",
                "anyOf": [{ "type": "number" }, { "type": "string", "pattern": "^-?[0-9.]+ */ *[0-9.]+$" }] })
        }
    }

    impl JsonSchema for super::Span {
        fn schema_name() -> Cow<'static, str> {
            "Span".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "description": "A time span as \"500 ms\", \"4 s\" or \"2 min\".",
                "type": "string", "pattern": "^[0-9]+ *(ms|s|min|h)$" })
        }
    }

    impl JsonSchema for super::Hex {
        fn schema_name() -> Cow<'static, str> {
            "Hex".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "description": "Bytes in hexadecimal, as \"7d 81 a1\".",
                "type": "string", "pattern": "^([0-9a-fA-F]{2}\\s*)*$" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_scale_becomes_an_exact_fraction() {
        assert_eq!(decimal_fraction(0.01), Scale { num: 1.0, den: 100.0 });
        assert_eq!(decimal_fraction(1e-6), Scale { num: 1.0, den: 1e6 });
        assert_eq!(decimal_fraction(0.35), Scale { num: 35.0, den: 100.0 });
        assert_eq!(decimal_fraction(2.5), Scale { num: 25.0, den: 10.0 });
    }

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(parse_hex("7d 81\na1"), Ok(vec![0x7d, 0x81, 0xa1]));
        assert!(parse_hex("7d 8").unwrap_err().contains("3 hexadecimal digits"));
        assert!(parse_hex("7g").unwrap_err().contains("'g'"));
    }
}
