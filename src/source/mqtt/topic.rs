//! PURE Topic templates such as `clinic/{device}/vitals`: the subscription they make, and the name a topic captures.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest captured name.
const MAX_NAME: usize = 64;

/// A topic with at most one `{device}`, and MQTT's own wildcards `+` and a last `#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    levels: Vec<Level>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Text(Box<str>),
    Device,
    Any,
    Rest,
}

/// Why a text is no topic template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no topic template: {why}")]
pub struct BadTemplate {
    found: String,
    why: &'static str,
}

/// What a topic is to a template.
#[derive(Debug, PartialEq, Eq)]
pub enum Fit<'t> {
    /// Another's.
    No,
    /// Its own, of the entry's device.
    Entry,
    /// Its own, and this device's.
    Device(&'t str),
    /// Its own, but the captured text is no device name.
    BadName(&'t str),
}

impl FromStr for TopicTemplate {
    type Err = BadTemplate;

    fn from_str(text: &str) -> Result<Self, BadTemplate> {
        let bad = |why| BadTemplate { found: text.to_owned(), why };
        if text.is_empty() || text.len() > 1_024 || text.contains('\0') {
            return Err(bad("a topic has 1 to 1024 bytes"));
        }
        let mut levels = Vec::new();
        for level in text.split('/') {
            levels.push(match level {
                "{device}" => Level::Device,
                "+" => Level::Any,
                "#" => Level::Rest,
                text if text.contains(['{', '}']) => {
                    return Err(bad("the only capture is {device}, and it takes a whole level"));
                }
                text if text.contains(['+', '#']) => return Err(bad("a wildcard takes a whole level")),
                text => Level::Text(text.into()),
            });
        }
        if levels.iter().filter(|level| **level == Level::Device).count() > 1 {
            return Err(bad("{device} may stand in it once"));
        }
        if levels.iter().rev().skip(1).any(|level| *level == Level::Rest) {
            return Err(bad("# may only be the last level"));
        }
        Ok(TopicTemplate { levels })
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "{device}")
    }
}

impl TopicTemplate {
    /// The subscription that brings its messages.
    pub fn filter(&self) -> String {
        struct Filter<'t>(&'t TopicTemplate);
        impl fmt::Display for Filter<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(f, "+")
            }
        }
        Filter(self).to_string()
    }

    /// Whether the device's name is captured from the topic.
    pub fn captures(&self) -> bool {
        self.levels.contains(&Level::Device)
    }

    /// The topic itself, where it has no wildcard.
    fn exact(&self) -> Option<String> {
        self.levels.iter().all(|level| matches!(level, Level::Text(_))).then(|| self.to_string())
    }

    /// What this topic is to it.
    pub fn fit<'t>(&self, topic: &'t str) -> Fit<'t> {
        let mut found = topic.split('/');
        let mut device = None;
        for level in &self.levels {
            let Some(part) = found.next() else {
                // `a/#` takes `a` too.
                return if *level == Level::Rest { fit_of(device) } else { Fit::No };
            };
            match level {
                Level::Text(text) if **text != *part => return Fit::No,
                Level::Text(_) | Level::Any => {}
                Level::Device => device = Some(part),
                Level::Rest => return fit_of(device),
            }
        }
        if found.next().is_some() { Fit::No } else { fit_of(device) }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, device: &str) -> fmt::Result {
        for (n, level) in self.levels.iter().enumerate() {
            if n > 0 {
                f.write_str("/")?;
            }
            f.write_str(match level {
                Level::Text(text) => text,
                Level::Device => device,
                Level::Any => "+",
                Level::Rest => "#",
            })?;
        }
        Ok(())
    }
}

fn fit_of(device: Option<&str>) -> Fit<'_> {
    let is_name = |name: &str| {
        (1..=MAX_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match device {
        None => Fit::Entry,
        Some(name) if is_name(name) => Fit::Device(name),
        Some(name) => Fit::BadName(name),
    }
}

/// The templates of a broker's entries, and which of them a topic belongs to.
#[derive(Debug, Default)]
pub struct Topics {
    exact: HashMap<String, Arc<str>>,
    wild: Vec<(TopicTemplate, Arc<str>)>,
}

impl Topics {
    /// Adds an entry's template. Where two fit a topic, the one without wildcards wins, then the first.
    pub fn add(&mut self, template: TopicTemplate, entry: Arc<str>) {
        match template.exact() {
            Some(topic) => {
                self.exact.entry(topic).or_insert(entry);
            }
            None => self.wild.push((template, entry)),
        }
    }

    /// Every subscription once.
    pub fn filters(&self) -> Vec<String> {
        let wild = self.wild.iter().map(|(template, _)| template.filter());
        let mut filters: Vec<String> = self.exact.keys().cloned().chain(wild).collect();
        filters.sort();
        filters.dedup();
        filters
    }

    /// The entry that a topic belongs to, and what it captures.
    pub fn find<'t>(&self, topic: &'t str) -> Option<(&Arc<str>, Fit<'t>)> {
        if let Some(entry) = self.exact.get(topic) {
            return Some((entry, Fit::Entry));
        }
        self.wild.iter().find_map(|(template, entry)| match template.fit(topic) {
            Fit::No => None,
            fit => Some((entry, fit)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> TopicTemplate {
        text.parse().unwrap()
    }

    #[test]
    fn a_capture_subscribes_to_one_level_and_takes_its_name() {
        let vitals = template("clinic/{device}/vitals");
        assert_eq!(vitals.filter(), "clinic/+/vitals");
        assert_eq!(vitals.fit("clinic/bed-9/vitals"), Fit::Device("bed-9"));
        assert_eq!(vitals.fit("clinic/bed 9/vitals"), Fit::BadName("bed 9"));
        assert_eq!(vitals.fit("clinic//vitals"), Fit::BadName(""));
        let long = format!("clinic/{}/vitals", "x".repeat(65));
        assert!(matches!(vitals.fit(&long), Fit::BadName(_)));
        for other in ["clinic/bed-9", "clinic/bed-9/vitals/x", "home/bed-9/vitals"] {
            assert_eq!(vitals.fit(other), Fit::No, "{other}");
        }
    }

    #[test]
    fn wildcards_are_mqtt_s_own() {
        assert_eq!(template("a/+/c").fit("a/b/c"), Fit::Entry);
        assert_eq!(template("a/#").fit("a/b/c"), Fit::Entry);
        assert_eq!(template("a/#").fit("a"), Fit::Entry);
        assert_eq!(template("{device}/#").fit("bed-9"), Fit::Device("bed-9"));
    }

    #[test]
    fn what_is_no_template_says_why() {
        for bad in ["", "a/{bed}/c", "a/x{device}", "a/#/b", "a+/b", "{device}/{device}"] {
            assert!(bad.parse::<TopicTemplate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_exact_topic_wins_and_filters_are_not_repeated() {
        let mut topics = Topics::default();
        topics.add(template("clinic/{device}/vitals"), "all".into());
        topics.add(template("clinic/+/vitals"), "again".into());
        topics.add(template("clinic/door/vitals"), "door".into());
        assert_eq!(topics.filters(), ["clinic/+/vitals", "clinic/door/vitals"]);
        assert_eq!(topics.find("clinic/door/vitals"), Some((&"door".into(), Fit::Entry)));
        assert_eq!(topics.find("clinic/bed/vitals"), Some((&"all".into(), Fit::Device("bed"))));
        assert_eq!(topics.find("x"), None);
    }
}
