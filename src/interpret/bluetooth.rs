//! Names of Bluetooth attributes: UUIDs in one form, and characteristics that a device has more than once.

use uuid::Uuid;

use super::error::Wrong;

/// The base of all short UUIDs, without its first four bytes.
const BASE: u128 = 0x0000_0000_0000_1000_8000_0080_5f9b_34fb;

/// A UUID in the form that readings use: four small hexadecimal digits where it is a short one, else with hyphens.
/// Takes `2A37`, `0x2A37`, and the whole form.
pub fn uuid(text: &str) -> Option<String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(digits.to_ascii_lowercase());
    }
    let whole = Some(text).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok())?;
    let short = whole.as_u128() >> 96;
    let is_short = short <= 0xffff && whole.as_u128() == (short << 96 | BASE);
    Some(if is_short { format!("{short:04x}") } else { whole.to_string() })
}

/// A channel's name in the form that readings use: `frame`, `advertisement`, `message`, a characteristic, or one of several
/// characteristics of the same UUID, as `2a6e#2`.
pub fn channel(text: &str) -> Option<String> {
    let small = text.to_ascii_lowercase();
    if ["frame", "advertisement", "message"].contains(&small.as_str()) {
        return Some(small);
    }
    let Some((characteristic, number)) = text.split_once('#') else { return uuid(text) };
    let plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    let number: u8 = number.parse().ok().filter(|_| plain)?;
    Some(format!("{}#{number}", uuid(characteristic)?))
}

/// A UUID that a profile names.
pub(super) fn named(key: &str, text: &str) -> Result<String, Wrong> {
    let wrong = || Wrong::new(format!("{key} = {text:?}"), "a UUID: four hexadecimal digits, or 128 bits with hyphens");
    uuid(text).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_one_form() {
        for text in
            ["2a37", "2A37", "0x2A37", "00002a37-0000-1000-8000-00805f9b34fb", "00002A37-0000-1000-8000-00805F9B34FB"]
        {
            assert_eq!(uuid(text).as_deref(), Some("2a37"), "{text}");
        }
        let own = "00030001-78fc-48fe-8e23-433b3a1942d0";
        assert_eq!(uuid(&own.to_ascii_uppercase()).as_deref(), Some(own));
        for text in ["", "2a3", "2a37x", "0x", "00030001-0000-1000-8000-00805f9b34f", "{2a37}"] {
            assert_eq!(uuid(text), None, "{text}");
        }
        assert_eq!(
            uuid("00012a37-0000-1000-8000-00805f9b34fb").as_deref(),
            Some("00012a37-0000-1000-8000-00805f9b34fb")
        );
    }

    #[test]
    fn one_of_several_characteristics_has_a_number() {
        assert_eq!(channel("0x2A6E#2").as_deref(), Some("2a6e#2"));
        assert_eq!(channel("Frame").as_deref(), Some("frame"));
        for text in ["2a6e#", "2a6e#0", "2a6e#02", "2a6e#+2", "2a6e#256", "frame#2", "#2", "heart"] {
            assert_eq!(channel(text), None, "{text}");
        }
    }
}
