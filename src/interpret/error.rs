//! What is wrong with a profile: file, line, what was found, what to write instead.

use std::ops::Range;

/// A profile that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {found}; {expected}")]
pub struct ProfileError {
    /// The file's name as the caller gave it.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// What was found.
    pub found: String,
    /// What was expected, or what to write.
    pub expected: String,
}

/// A fault in one place of a file, before its line is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) span: Option<Range<usize>>,
    pub(super) found: String,
    pub(super) expected: String,
}

impl Wrong {
    /// Found this, write that; the caller adds the place.
    pub(super) fn new(found: impl Into<String>, expected: impl Into<String>) -> Wrong {
        Wrong { span: None, found: found.into(), expected: expected.into() }
    }

    /// At this place, unless a narrower one is known.
    pub(super) fn at(mut self, span: Range<usize>) -> Wrong {
        self.span.get_or_insert(span);
        self
    }

    /// With the line that the place is on.
    pub(super) fn in_file(self, file: &str, text: &str) -> ProfileError {
        let start = self.span.map_or(0, |span| span.start).min(text.len());
        let line = 1 + text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
        ProfileError { file: file.to_owned(), line, found: self.found, expected: self.expected }
    }
}

impl From<toml::de::Error> for Wrong {
    fn from(error: toml::de::Error) -> Wrong {
        let message = error.message().replace('\n', " ");
        let (found, expected) = split(&message);
        Wrong { span: error.span(), found, expected }
    }
}

/// serde and toml say "found this, expected that" in one sentence each; an unknown key gets the nearest known one.
fn split(message: &str) -> (String, String) {
    let (found, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let found = found.replace("unknown field", "unknown key").replace("unknown variant", "unknown word");
    if expected.is_empty() {
        return (found, "see docs/profiles.md for the keys and their types".to_owned());
    }
    let wrong = quoted(&found).next();
    let nearest = wrong.and_then(|wrong| near(wrong, quoted(expected)).first().copied());
    match nearest {
        Some(nearest) => (found, format!("write `{nearest}`? Expected {expected}")),
        None => (found, format!("expected {expected}")),
    }
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names that differ from this one by little, nearest first.
pub fn near<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let allowed = 2 + wrong.len() / 5;
    let mut found: Vec<(usize, &str)> = names
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.len())
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().map(|(_, name)| name).take(3).collect()
}

/// How many letters must be changed, added or taken away.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(
            near("bluetooth-hart-rate", ["bluetooth-heart-rate", "bthome-v2"].into_iter()),
            ["bluetooth-heart-rate"]
        );
        assert!(near("u16", ["decimal"].into_iter()).is_empty());
    }

    #[test]
    fn a_place_becomes_a_line() {
        let wrong = Wrong::new("a", "b").at(4..5);
        assert_eq!(wrong.in_file("f.toml", "x\ny\nz").to_string(), "f.toml:3: a; b");
    }
}
