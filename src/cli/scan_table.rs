//! How `scan` and `add` show what is near: a table, and the lines of configuration that would list it.

use std::fmt::Write;
use std::sync::Arc;

use super::surroundings::{Peripheral, SerialPort};

impl Peripheral {
    /// Whether it is shown unasked: a profile claims it, an entry has it, or somebody holds it to the hub.
    pub(super) fn is_known(&self) -> bool {
        !self.claims.is_empty() || self.entry.is_some() || self.near.this_one
    }

    /// A name for its entry: its own and the end of its address, in the characters that a name may have.
    pub(super) fn entry_name(&self) -> String {
        let told = self.near.name.as_deref().or(self.claims.first().map(|claim| &*claim.profile)).unwrap_or("sensor");
        let tail: String = self.near.address.chars().filter(char::is_ascii_hexdigit).collect();
        let tail = tail.get(tail.len().saturating_sub(4)..).unwrap_or_default().to_ascii_lowercase();
        let name = entry_name(told);
        if name.ends_with(&tail) { name } else { format!("{name}-{tail}") }
    }
}

impl SerialPort {
    /// A name for its entry.
    pub(super) fn entry_name(&self) -> String {
        let tty = self.port.now.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let title = self.port.usb.as_ref().map(|usb| usb.title.as_str()).filter(|title| !title.is_empty());
        entry_name(title.unwrap_or(&tty))
    }

    /// What it is, for people.
    pub(super) fn described(&self) -> String {
        let usb = self.port.usb.as_ref();
        usb.map_or_else(|| "of the board".into(), |usb| format!("usb:{}:{} {}", usb.vendor, usb.product, usb.title))
    }
}

/// One line each, the strongest first, and what is not shown.
pub(super) fn table(rows: &[Peripheral], all: bool, most: usize) -> String {
    let known: Vec<&Peripheral> = rows.iter().filter(|row| all || row.is_known()).collect();
    let mut lines = vec![["signal", "name", "address", "profile", "value", ""].map(str::to_owned)];
    lines.extend(known.iter().take(most).map(|row| line(row)));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let mut text = String::new();
    for line in &lines {
        let columns = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let joined = columns.chain([line[5].clone()]).collect::<Vec<_>>().join("  ");
        let _a_string_takes_all = writeln!(text, "{}", joined.trim_end());
    }
    let mut note = |count: usize, what: &str| {
        if count > 0 {
            let _a_string_takes_all = writeln!(text, "{count} {what}");
        }
    };
    note(known.len().saturating_sub(most), "more");
    note(rows.len() - known.len(), "more that no profile claims; --all shows them");
    text
}

fn line(row: &Peripheral) -> [String; 6] {
    let near = &row.near;
    let claim = row.claims.first();
    let value = row.claims.iter().find_map(|claim| claim.value.clone());
    let mark = match (near.this_one, &row.entry) {
        (true, None) => "<- this one".to_owned(),
        (true, Some(entry)) => format!("<- this one, listed as {entry}"),
        (false, Some(entry)) => format!("listed as {entry}"),
        (false, None) => String::new(),
    };
    [
        near.rssi.map_or_else(|| "     -".into(), |rssi| format!("{} {rssi:>4}", bars(rssi))),
        near.name.as_deref().unwrap_or("-").to_owned(),
        near.address.to_string(),
        claim.map_or_else(|| "-".into(), |claim| claim.profile.to_string()),
        value.unwrap_or_else(|| "-".into()),
        mark,
    ]
}

/// Four bars: beside the hub, in the room, in the next room, hardly.
fn bars(rssi: i16) -> &'static str {
    match rssi {
        -55.. => "||||",
        -70.. => "||| ",
        -85.. => "||  ",
        _ => "|   ",
    }
}

/// An entry for each sensor that has none, and each port that has none.
pub(super) fn lines_to_paste(rows: &[Peripheral], ports: &[SerialPort]) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| row.entry.is_none()) {
        let Some(claim) = row.claims.first() else { continue };
        text += &format!("\n{}", entry(&row.entry_name(), &claim.profile, "ble", &row.near.address));
        for other in &row.claims[1..] {
            let _a_string_takes_all = writeln!(text, "# or profile = \"{}\"", other.profile);
        }
    }
    for port in ports {
        let path = port.port.path.display();
        match &port.entry {
            Some(entry) => text += &format!("\n# {path} ({}) is listed as {entry}\n", port.described()),
            None => {
                text += &format!("\n# {} at {}\n", port.described(), port.port.now.display());
                text += &entry(&port.entry_name(), "ID", "serial", &path.to_string());
            }
        }
    }
    text
}

/// The lines of one device entry.
pub(super) fn entry(name: &str, profile: &str, key: &str, target: &str) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    format!("[[device]]\nname = {}\nprofile = {}\n{key} = {}\n", quoted(name), quoted(profile), quoted(target))
}

/// A text in the characters that an entry's name may have.
fn entry_name(text: &str) -> String {
    let plain = text.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_', "-");
    let parts: Vec<&str> = plain.split('-').filter(|part| !part.is_empty()).collect();
    let name: String = parts.join("-").chars().take(48).collect();
    if name.is_empty() { "sensor".to_owned() } else { name }
}

/// The id of the profile that a person would most likely mean.
pub(super) fn likely_profile(row: &Peripheral) -> Option<Arc<str>> {
    row.claims.first().map(|claim| claim.profile.clone())
}

#[cfg(test)]
mod tests {
    use super::super::near::Claim;
    use super::super::near::tests::near;
    use super::*;
    use crate::source::serial::ports::{Port, Usb};

    fn row(name: &str, rssi: i16, claim: Option<(&str, Option<&str>)>) -> Peripheral {
        let mut near = near(name, &[], &[]);
        near.rssi = Some(rssi);
        let claim = claim.map(|(profile, value)| Claim { profile: profile.into(), value: value.map(Into::into) });
        Peripheral { near, claims: claim.into_iter().collect(), entry: None }
    }

    #[test]
    fn the_table_shows_what_is_known_and_counts_the_rest() {
        let mut held = row("Polar H10 1122", -48, Some(("bluetooth-heart-rate", None)));
        held.near.this_one = true;
        let room = row("", -76, Some(("bthome-v2", Some("21.2 Cel"))));
        let rows = [held, room, row("Television", -90, None)];
        assert_eq!(
            table(&rows, false, 9),
            "\
signal     name            address            profile               value
||||  -48  Polar H10 1122  A0:9E:1A:00:11:22  bluetooth-heart-rate  -         <- this one
||    -76  -               A0:9E:1A:00:11:22  bthome-v2             21.2 Cel
1 more that no profile claims; --all shows them
"
        );
        assert!(table(&rows, true, 9).contains("|     -90  Television"));
        assert!(table(&rows, true, 1).ends_with("\n2 more\n"));
    }

    #[test]
    fn the_lines_to_paste_are_entries_and_what_is_listed_gets_none() {
        let mut listed = row("Strap", -50, Some(("bluetooth-heart-rate", None)));
        listed.entry = Some("strap-anna".into());
        let mut fresh = row("Polar H10 \"x\"", -50, Some(("bluetooth-heart-rate", None)));
        fresh.claims.push(Claim { profile: "bluetooth-battery".into(), value: None });
        let usb = Usb { vendor: "10c4".into(), product: "ea60".into(), serial: None, title: "CP2102 Bridge".into() };
        let port = Port { path: "/dev/serial/by-id/usb-x".into(), now: "/dev/ttyUSB0".into(), usb: Some(usb) };
        let ports = [SerialPort { port, entry: None }];
        assert_eq!(
            lines_to_paste(&[listed, fresh, row("Television", -40, None)], &ports),
            r#"
[[device]]
name = "polar-h10-x-1122"
profile = "bluetooth-heart-rate"
ble = "A0:9E:1A:00:11:22"
# or profile = "bluetooth-battery"

# usb:10c4:ea60 CP2102 Bridge at /dev/ttyUSB0
[[device]]
name = "cp2102-bridge"
profile = "ID"
serial = "/dev/serial/by-id/usb-x"
"#
        );
    }

    #[test]
    fn names_are_made_of_what_a_name_may_hold() {
        for (told, name) in
            [("Polar H10 AB1122", "polar-h10-ab1122"), ("Ärztin's", "rztin-s-1122"), ("??", "sensor-1122")]
        {
            assert_eq!(row(told, 0, None).entry_name(), name);
        }
    }
}
