//! A time as people write it: RFC 3339, the hub's own time of day, or how long ago.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::local::persons::When;

/// What may be written.
const EXAMPLES: &str =
    "write \"2026-11-25 14:00\", \"14:00\" (today), \"2 h ago\", \"2026-11-25T14:00:00+01:00\" or \"now\"";

/// The hub's place, and what day it is there.
pub(super) struct Place {
    /// The zone of `gateway.timezone`.
    pub(super) zone: TimeZone,
    /// The day; `None` where the machine does not know it.
    pub(super) today: Option<Date>,
}

impl Place {
    /// What the text says, or what to write instead.
    pub(super) fn when(&self, text: &str) -> Result<When, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("now") {
            return Ok(When::Now);
        }
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Ok(When::At(instant.as_millisecond()));
        }
        if let Ok(local) = text.parse::<DateTime>() {
            return self.at(text, local);
        }
        // A bare number is no time of day: 14 might be hours, minutes or a day.
        if let (true, Ok(time)) = (text.contains(':'), text.parse::<Time>()) {
            let today = self.today.ok_or_else(|| {
                format!("found \"{text}\", and this machine does not know what day it is; write the date too")
            })?;
            return self.at(text, today.to_datetime(time));
        }
        ago(text).ok_or_else(|| format!("found the time \"{text}\"; {EXAMPLES}"))
    }

    /// An hour that a change of the clocks leaves out or repeats is nobody's guess.
    fn at(&self, text: &str, local: DateTime) -> Result<When, String> {
        let instant = self.zone.to_ambiguous_timestamp(local).unambiguous().map_err(|_| {
            format!(
                "found the time \"{text}\", which the change of the clocks leaves out or repeats; write it with its offset, \
                 as \"2026-10-25T02:30:00+02:00\""
            )
        })?;
        Ok(When::At(instant.as_millisecond()))
    }

    /// An instant as people at the place read it, to the second where it has seconds.
    pub(super) fn shown(&self, unix_ms: i64) -> String {
        let Ok(instant) = Timestamp::from_millisecond(unix_ms) else { return unix_ms.to_string() };
        let local = self.zone.to_datetime(instant);
        let format = if unix_ms % 60_000 == 0 { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M:%S" };
        local.strftime(format).to_string()
    }
}

/// `2 h ago`; a day is 24 hours.
fn ago(text: &str) -> Option<When> {
    let span: Span = text.ends_with("ago").then(|| text.parse().ok())??;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Some(When::Ago(u64::try_from(length.as_millis().checked_neg()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Place {
        Place { zone: TimeZone::get("Europe/Berlin").unwrap(), today: Some(jiff::civil::date(2026, 11, 25)) }
    }

    fn at(text: &str) -> When {
        When::At(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn times_are_read_at_the_hub_s_place() {
        for (text, expected) in [
            ("now", When::Now),
            ("14:00", at("2026-11-25T13:00:00Z")),
            ("14:00:30", at("2026-11-25T13:00:30Z")),
            ("2026-11-25 14:00", at("2026-11-25T13:00:00Z")),
            ("2026-07-01T14:00", at("2026-07-01T12:00:00Z")),
            ("2026-11-25", at("2026-11-24T23:00:00Z")),
            ("2026-11-25T14:00:00Z", at("2026-11-25T14:00:00Z")),
            ("2026-11-25T14:00:00-05:00", at("2026-11-25T19:00:00Z")),
            ("2 h ago", When::Ago(7_200_000)),
            ("2 hours 30 minutes ago", When::Ago(9_000_000)),
            ("1 day ago", When::Ago(86_400_000)),
            ("90m ago", When::Ago(5_400_000)),
            ("2026-10-25T02:30:00+02:00", at("2026-10-25T00:30:00Z")),
        ] {
            assert_eq!(berlin().when(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_said_with_what_to_write() {
        for text in ["", "yesterday", "2 h", "14", "25:00", "1 month ago", "-2 h ago", "2026-13-01"] {
            let why = berlin().when(text).unwrap_err();
            assert!(why.contains("2 h ago"), "{text}: {why}");
        }
        for twice_or_never in ["2026-10-25 02:30", "2026-03-29 02:30"] {
            assert!(berlin().when(twice_or_never).unwrap_err().contains("offset"), "{twice_or_never}");
        }
        let lost = Place { today: None, ..berlin() };
        assert!(lost.when("14:00").unwrap_err().contains("write the date"));
        assert_eq!(lost.when("2026-11-25 14:00"), berlin().when("14:00"));
    }

    #[test]
    fn an_instant_is_shown_in_local_time() {
        let When::At(ms) = at("2026-11-25T13:00:00Z") else { return };
        assert_eq!(
            (berlin().shown(ms), berlin().shown(ms + 5_000)),
            ("2026-11-25 14:00".into(), "2026-11-25 14:00:05".into())
        );
    }
}
