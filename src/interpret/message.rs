//! Text and JSON: the parts of a message by name.

use serde_json::Value as Json;

use super::kind::{Kind, Width};
use super::read::{self, Raw};
use super::step::{Layout, TemplatePart};

/// A message, taken apart.
#[derive(Debug)]
pub(super) enum Parts {
    Json(Json),
    Text(Vec<(String, String)>),
}

/// One part of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    Json(&'a Json),
    Text(&'a str),
}

/// Takes a message apart; the error is the word that an example's `refuse` names, and why.
pub(super) fn parse(layout: &Layout, bytes: &[u8]) -> Result<Option<Parts>, (&'static str, String)> {
    let text = || std::str::from_utf8(bytes).map_err(|_| ("utf8", "the message is no UTF-8 text".to_owned()));
    match layout {
        Layout::Binary => Ok(None),
        // serde_json refuses nesting deeper than 128.
        Layout::Json => match serde_json::from_str(text()?) {
            Ok(json) => Ok(Some(Parts::Json(json))),
            Err(error) => Err(("json", format!("no JSON: {error}"))),
        },
        Layout::Pairs { between, equals } => {
            let mut pairs: Vec<(String, String)> = Vec::new();
            for (key, value) in text()?.split(between.as_str()).filter_map(|part| part.split_once(equals.as_str())) {
                if pairs.len() >= MOST_PAIRS {
                    return Err(("pairs", format!("more than {MOST_PAIRS} pairs")));
                }
                pairs.push((key.trim().to_owned(), value.trim().to_owned()));
            }
            Ok(Some(Parts::Text(pairs)))
        }
        Layout::Template(parts) => match fit(parts, text()?) {
            Some(captures) => Ok(Some(Parts::Text(captures))),
            None => Err(("template", "the text does not fit the template".to_owned())),
        },
    }
}

/// More pairs than any device sends; a bound for hostile text, because each row looks through them.
const MOST_PAIRS: usize = 256;

impl Parts {
    /// The part of this key or pointer.
    pub(super) fn get(&self, key: &str) -> Option<Part<'_>> {
        match self {
            Parts::Json(json) if key.is_empty() || key.starts_with('/') => json.pointer(key).map(Part::Json),
            Parts::Json(json) => json.get(key).map(Part::Json),
            Parts::Text(pairs) => pairs.iter().find(|(name, _)| name == key).map(|(_, text)| Part::Text(text)),
        }
    }
}

/// One blank for each run of them, none at the ends.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The captures of a template. A text may end where a literal would begin: what follows is absent.
fn fit(parts: &[TemplatePart], text: &str) -> Option<Vec<(String, String)>> {
    let text = squeeze(text);
    let mut rest = text.as_str();
    let mut captures = Vec::new();
    let mut parts = parts.iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            TemplatePart::Literal(_) if rest.is_empty() && !captures.is_empty() => return Some(captures),
            TemplatePart::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
            TemplatePart::Capture(name) => {
                let end = match parts.peek() {
                    Some(TemplatePart::Literal(literal)) => rest.find(literal.as_str()).unwrap_or(rest.len()),
                    _ => rest.len(),
                };
                captures.push((name.clone(), rest[..end].trim().to_owned()));
                rest = &rest[end..];
            }
        }
    }
    rest.trim().is_empty().then_some(captures)
}

/// Reads a part as this type. `missing_texts` are compared with the text itself, before it is read as a number.
pub(super) fn read(kind: Kind, part: Part<'_>, is_missing: impl Fn(&str) -> bool) -> Result<Raw, String> {
    match part {
        Part::Json(Json::Null) => Ok(Raw::Missing),
        Part::Json(json) => from_json(kind, json, is_missing),
        Part::Text(text) if is_missing(text) => Ok(Raw::Missing),
        Part::Text(text) => from_text(kind, text),
    }
}

fn from_text(kind: Kind, text: &str) -> Result<Raw, String> {
    match kind {
        Kind::Utf8 => Ok(Raw::Text(text.into())),
        Kind::Bool => match text {
            "1" | "true" => Ok(Raw::Bool(true)),
            "0" | "false" => Ok(Raw::Bool(false)),
            _ => Err("neither true nor false".to_owned()),
        },
        Kind::Decimal | Kind::Number => read::decimal(text),
        _ => in_range(kind, read::decimal(text)?),
    }
}

fn from_json(kind: Kind, json: &Json, is_missing: impl Fn(&str) -> bool) -> Result<Raw, String> {
    let found = || format!("found {}", clip(&json.to_string()));
    match (kind, json) {
        (Kind::Utf8, Json::String(text)) if is_missing(text) => Ok(Raw::Missing),
        (Kind::Utf8, Json::String(text)) => Ok(Raw::Text(text.as_str().into())),
        (Kind::Decimal, Json::String(text)) if is_missing(text) => Ok(Raw::Missing),
        (Kind::Decimal, Json::String(text)) => read::decimal(text),
        (Kind::Bool, Json::Bool(bit)) => Ok(Raw::Bool(*bit)),
        (Kind::Utf8 | Kind::Bool | Kind::Decimal, _) => Err(found()),
        (_, Json::Number(number)) => {
            let raw = match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Raw::Int(whole),
                (None, Some(number)) => Raw::Num(number),
                (None, None) => return Err(found()),
            };
            if kind == Kind::Number { Ok(raw) } else { in_range(kind, raw) }
        }
        _ => Err(found()),
    }
}

/// A whole number of this width.
fn in_range(kind: Kind, raw: Raw) -> Result<Raw, String> {
    let Raw::Int(number) = raw else { return Err("no whole number".to_owned()) };
    let bits = |width: Width| u32::from(width.bytes) * 8;
    let fits = match kind {
        Kind::UInt(width) => number >= 0 && (bits(width) >= 64 || number >> bits(width) == 0),
        Kind::SInt(width) => {
            bits(width) >= 64 || (number >> (bits(width) - 1) == 0 || number >> (bits(width) - 1) == -1)
        }
        _ => true,
    };
    if fits { Ok(Raw::Int(number)) } else { Err(format!("{number} is out of range")) }
}

fn clip(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Vec<TemplatePart> {
        vec![
            TemplatePart::Literal("SPO2=".into()),
            TemplatePart::Capture("spo2".into()),
            TemplatePart::Literal(" HR=".into()),
            TemplatePart::Capture("rate".into()),
            TemplatePart::Literal(" ".into()),
            TemplatePart::Capture("marks".into()),
        ]
    }

    #[test]
    fn a_template_may_end_early_and_blanks_are_one() {
        let all = fit(&template(), "SPO2=097   HR=061 F*").unwrap();
        assert_eq!(all, [("spo2", "097"), ("rate", "061"), ("marks", "F*")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(fit(&template(), "SPO2=097 HR=061").unwrap().len(), 2);
        assert_eq!(fit(&template(), "HR=061 SPO2=097"), None);
        assert_eq!(fit(&template(), ""), None);
    }

    #[test]
    fn whole_numbers_have_a_range() {
        let u8 = Kind::UInt(Width { bytes: 1, big: false });
        let i8 = Kind::SInt(Width { bytes: 1, big: false });
        assert!(in_range(u8, Raw::Int(255)).is_ok() && in_range(u8, Raw::Int(256)).is_err());
        assert!(in_range(u8, Raw::Int(-1)).is_err() && in_range(u8, Raw::Num(1.0)).is_err());
        assert!(in_range(i8, Raw::Int(-128)).is_ok() && in_range(i8, Raw::Int(128)).is_err());
        let u64 = Kind::UInt(Width { bytes: 8, big: false });
        assert!(in_range(u64, Raw::Int(i64::MAX)).is_ok());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = "[".repeat(100_000);
        assert_eq!(parse(&Layout::Json, deep.as_bytes()).unwrap_err().0, "json");
        assert_eq!(parse(&Layout::Json, &[0xff]).unwrap_err().0, "utf8");
    }
}
