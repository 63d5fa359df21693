//! Metrics as text: Prometheus' exposition format 0.0.4.

use std::fmt::Write;

/// A metric: its name, its type, and what its samples say.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// As Prometheus' conventions want it: base units, `_total` for counters.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// One sentence.
    pub help: &'static str,
}

impl Family {
    /// A count that only grows, from the start of the store or of the process.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Family { name, kind: "counter", help }
    }

    /// A value of this moment.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Family { name, kind: "gauge", help }
    }
}

/// The text as it grows.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family; its samples follow at once.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family { name, kind, help } = family;
        // Writing to a String cannot fail, here and below.
        let _infallible = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Samples { text: &mut self.text, name }
    }

    /// A family with one sample and no labels.
    pub fn single(&mut self, family: &'static Family, value: impl Into<Sample>) {
        self.family(family).sample(&[], value);
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// The samples of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Sample>) {
        self.text.push_str(self.name);
        for (place, (name, value)) in labels.iter().enumerate() {
            self.text.push_str(if place == 0 { "{" } else { "," });
            let _infallible = write!(self.text, "{name}=\"");
            escape(self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _infallible = match value.into() {
            Sample::Whole(value) => writeln!(self.text, " {value}"),
            Sample::Float(value) => writeln!(self.text, " {value}"),
        };
    }
}

/// A sample's value.
#[derive(Debug, Clone, Copy)]
pub enum Sample {
    /// Written digit by digit: a count beyond 2^53 stays exact.
    Whole(u64),
    /// In base units.
    Float(f64),
}

impl From<u64> for Sample {
    fn from(value: u64) -> Self {
        Sample::Whole(value)
    }
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Sample::Float(value)
    }
}

impl From<bool> for Sample {
    fn from(value: bool) -> Self {
        Sample::Whole(value.into())
    }
}

/// A label's value is any text.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_counts_stay_exact() {
        static FRAMES: Family = Family::counter("frames_total", "Frames.");
        let mut text = Exposition::default();
        let mut samples = text.family(&FRAMES);
        samples.sample(&[("device", "a\"b\\c\nd"), ("kind", "x")], u64::MAX);
        samples.sample(&[], 0.5);
        samples.sample(&[], true);
        let expected = "# HELP frames_total Frames.\n# TYPE frames_total counter\n\
            frames_total{device=\"a\\\"b\\\\c\\nd\",kind=\"x\"} 18446744073709551615\nframes_total 0.5\nframes_total 1\n";
        assert_eq!(text.into_text(), expected);
    }
}
