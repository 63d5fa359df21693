//! The line format of recorded frames, written by `record` and read by `replay` (DESIGN 11).
//!
//! One JSON object a line: `{"t":1763900000000,"device":"strap-anna","channel":"2a37","hex":"1648..."}`; an
//! advertisement also carries `address` and either `service_data` (a UUID) or `manufacturer` (a company identifier).

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::reading::{Channel, Element, Reading};

/// The longest line that is read: a message of 1 MiB in hex, and its names.
pub const MAX_LINE: usize = 2 * 1024 * 1024 + 4_096;

/// One line. Borrowed from it where nothing is escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedFrame<'a> {
    /// Unix milliseconds at which it was heard.
    pub t: u64,
    /// The device's name.
    #[serde(borrow)]
    pub device: Cow<'a, str>,
    /// A GATT characteristic, `frame`, `advertisement`, or the topic of a message.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// The sender's address, for an advertisement.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Cow<'a, str>>,
    /// The UUID of an advertisement's service data.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub service_data: Option<Cow<'a, str>>,
    /// The company of an advertisement's manufacturer data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<u16>,
    /// The payload.
    #[serde(borrow)]
    pub hex: Cow<'a, str>,
}

/// Why a line is no recorded frame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// It is not the object that it should be.
    #[error("{0}")]
    Json(String),
    /// The payload is not hex.
    #[error("\"hex\" is not hex: {found}")]
    Hex {
        /// What stands there instead.
        found: String,
    },
    /// An advertisement that does not say which element.
    #[error("an advertisement needs \"address\" and one of \"service_data\" and \"manufacturer\"")]
    Advertisement,
}

impl<'a> RecordedFrame<'a> {
    /// Reads one line.
    pub fn parse(line: &'a [u8]) -> Result<Self, BadLine> {
        serde_json::from_slice(line).map_err(|error| BadLine::Json(error.to_string()))
    }

    /// The line of a reading that was heard at `unix_ms`.
    pub fn from_reading(reading: &'a Reading, unix_ms: u64) -> Self {
        let (address, service_data, manufacturer) = match &reading.channel {
            Channel::Advertisement { address, element: Element::ServiceData(uuid) } => {
                (Some(Cow::Borrowed(&**address)), Some(Cow::Borrowed(&**uuid)), None)
            }
            Channel::Advertisement { address, element: Element::Manufacturer(company) } => {
                (Some(Cow::Borrowed(&**address)), None, Some(*company))
            }
            Channel::Gatt(_) | Channel::Frame | Channel::Message { .. } => (None, None, None),
        };
        let channel = match &reading.channel {
            Channel::Message { topic } => topic,
            other => other.name(),
        };
        RecordedFrame {
            t: unix_ms,
            device: Cow::Borrowed(&reading.device),
            channel: Cow::Borrowed(channel),
            address,
            service_data,
            manufacturer,
            hex: Cow::Owned(to_hex(&reading.bytes)),
        }
    }

    /// The channel it came on. A GATT characteristic is four hex digits or a UUID with hyphens; anything else that is
    /// not one of the two fixed words is a topic.
    pub fn channel(&self) -> Result<Channel, BadLine> {
        match &*self.channel {
            "frame" => Ok(Channel::Frame),
            "advertisement" => {
                let address = self.address.as_deref().ok_or(BadLine::Advertisement)?;
                let element = match (self.service_data.as_deref(), self.manufacturer) {
                    (Some(uuid), None) => Element::ServiceData(uuid.into()),
                    (None, Some(company)) => Element::Manufacturer(company),
                    (Some(_), Some(_)) | (None, None) => return Err(BadLine::Advertisement),
                };
                Ok(Channel::Advertisement { address: address.into(), element })
            }
            name if is_characteristic(name) => Ok(Channel::Gatt(name.to_ascii_lowercase().into())),
            topic => Ok(Channel::Message { topic: Arc::from(topic) }),
        }
    }

    /// The payload.
    pub fn bytes(&self) -> Result<Vec<u8>, BadLine> {
        from_hex(&self.hex).ok_or_else(|| BadLine::Hex { found: self.hex.chars().take(40).collect() })
    }
}

fn is_characteristic(name: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match name.len() {
        4 => is_hex(name),
        36 => uuid::Uuid::try_parse(name).is_ok(),
        _ => false,
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        let _a_string_takes_all = write!(hex, "{byte:02x}").is_ok();
        hex
    })
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{BootId, Heard};

    fn reading(channel: Channel) -> Reading {
        let heard = Heard { boot: BootId::WALL, ms: 7 };
        Reading { device: "d".into(), entry: "d".into(), channel, bytes: vec![0x0a, 0xff].into(), heard }
    }

    #[test]
    fn every_channel_comes_back_as_it_was_written() {
        let address: Arc<str> = "A0:9E:1A:00:11:22".into();
        for channel in [
            Channel::Frame,
            Channel::Gatt("2a37".into()),
            Channel::Message { topic: "clinic/bed-9/vitals".into() },
            Channel::Advertisement { address: address.clone(), element: Element::Manufacturer(0x0499) },
            Channel::Advertisement { address, element: Element::ServiceData("fcd2".into()) },
        ] {
            let reading = reading(channel.clone());
            let line = serde_json::to_vec(&RecordedFrame::from_reading(&reading, 7)).unwrap();
            let frame = RecordedFrame::parse(&line).unwrap();
            assert_eq!(frame.channel().unwrap(), channel);
            assert_eq!(frame.bytes().unwrap(), reading.bytes);
            assert_eq!(frame.t, 7);
        }
    }

    #[test]
    fn a_bad_line_says_what_is_wrong() {
        let bad_hex = br#"{"t":1,"device":"d","channel":"frame","hex":"0g"}"#;
        let frame = RecordedFrame::parse(bad_hex).unwrap();
        assert_eq!(frame.bytes(), Err(BadLine::Hex { found: "0g".to_owned() }));
        assert!(matches!(RecordedFrame::parse(br#"{"t":1,"what":2}"#), Err(BadLine::Json(_))));
        let element = br#"{"t":1,"device":"d","channel":"advertisement","hex":""}"#;
        assert_eq!(RecordedFrame::parse(element).unwrap().channel(), Err(BadLine::Advertisement));
    }
}
