//! The rooms' rules, read off the sources as text: which way imports run, where each foreign crate lives, what a file
//! may be called and hold. Each rule is also shown a text that breaks it.

use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may import. Values first, then what turns one into the next, then the gateway around them.
const IMPORTS: &[(&str, &str)] = &[
    // What fault tests build in: anybody may pass a point, by the macro.
    ("crash", ""),
    ("reading", ""),
    ("observation", "reading"),
    ("event", "reading observation"),
    ("report", ""),
    ("coverage", ""),
    ("clock", "crash reading event"),
    ("resolve", "reading observation event clock"),
    ("interpret", "reading observation event"),
    ("store", "crash reading observation event report clock"),
    // source and forward never see each other, nor does either see the intake.
    ("source", "reading observation event clock interpret"),
    ("forward", "crash reading observation event report clock resolve store"),
    // Virtual hubs: their patients are a source's, their batches a destination's.
    ("fleet", "reading observation event clock resolve store source forward"),
    ("intake", "reading observation event report coverage clock interpret store source"),
    ("quarantine", "reading observation event clock resolve interpret store intake"),
    // Rooms own their settings and config gathers them: no room above this line imports config.
    ("config", "reading observation event report coverage clock resolve interpret store source forward intake"),
    (
        "local",
        "reading observation event report coverage clock resolve interpret store source forward intake quarantine config",
    ),
    (
        "gateway",
        "crash reading observation event report coverage clock resolve interpret store source forward intake quarantine config local",
    ),
    (
        "cli",
        "reading observation event report coverage clock resolve interpret store source forward fleet intake quarantine config local gateway",
    ),
    ("main", "crash cli"),
    ("lib", ""),
];

/// Where a foreign crate may be named: a path below src/ begins with one of these.
const HOMES: &[(&str, &[&str])] = &[
    ("tokio_serial", &["source/serial"]),
    ("rumqttc", &["source/mqtt"]),
    ("rdkafka", &["forward/kafka"]),
    ("fail", &["crash.rs"]),
    ("btleplug", &["source/ble"]),
    ("dbus", &["source/ble"]),
    ("dbus_tokio", &["source/ble"]),
    ("dbus_crossroads", &["source/ble"]),
    ("sled", &["store/"]),
    ("chacha20poly1305", &["store/"]),
    ("aes", &["interpret/decrypt/"]),
    ("ccm", &["interpret/decrypt/"]),
    ("zstd", &["store/", "forward/clickhouse"]),
    // record reads the control socket's endless answer frame by frame.
    ("hyper", &["local/", "forward/clickhouse", "cli/record.rs"]),
    ("hyper_util", &["local/", "forward/clickhouse"]),
    ("http_body_util", &["local/", "forward/clickhouse", "cli/record.rs"]),
    // source/mqtt takes the same library through rumqttc, so that there cannot be two versions of it.
    ("native_tls", &["forward/clickhouse"]),
    ("tokio_native_tls", &["forward/clickhouse"]),
    ("openssl", &["gateway/reports/certificates.rs"]),
    ("rtime_clock", &["clock/"]),
    ("sd_notify", &["cli/run.rs"]),
    ("tracing_subscriber", &["cli/logging.rs"]),
    ("clap", &["cli/", "main.rs"]),
];

/// Rooms without IO, clock and async, and what they therefore never name outside their own tests.
const PURE: &[&str] = &["reading", "observation", "event", "report", "coverage", "resolve", "interpret"];
const IMPURE: &[&str] =
    &["tokio", "std::fs", "std::io", "std::net", "std::env", "std::process", "SystemTime", "Instant", "async"];

/// Names under which anything could be put.
const ATTIC: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "misc"];

/// In two halves, so that this file does not break its own rule.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

const LONGEST_FILE: usize = 500;

/// One Rust file: its path as people read it, and its text.
struct Source {
    /// `src/store/mod.rs`
    path: String,
    text: String,
    /// The text with comments and literals blanked, line for line.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Source { path: path.to_owned(), text: text.to_owned(), code: blanked(text) }
    }

    /// The path below src/, or nothing for a test.
    fn in_src(&self) -> Option<&str> {
        self.path.strip_prefix("src/")
    }

    /// `store` of `src/store/mod.rs`, `intake` of `src/intake.rs`.
    fn room(&self) -> Option<&str> {
        self.in_src().map(|path| path.split('/').next().unwrap_or(path).trim_end_matches(".rs"))
    }

    fn broken(&self, at: usize, rule: &str) -> String {
        let line = self.code[..at].matches('\n').count() + 1;
        format!("{}:{line}: {rule}", self.path)
    }
}

#[test]
fn imports_run_one_way() {
    hold(one_way);
}

#[test]
fn each_foreign_crate_has_one_home() {
    hold(at_home);
}

#[test]
fn pure_rooms_have_no_io_no_clock_no_async() {
    let sources = all();
    let tests = test_modules(&sources);
    hold(|source| if tests.contains(&source.path) { Vec::new() } else { pure(source) });
}

#[test]
fn every_module_says_what_it_is() {
    hold(introduced);
}

#[test]
fn nothing_is_left_unfinished() {
    hold(finished);
}

#[test]
fn no_file_is_too_long() {
    hold(short);
}

#[test]
fn no_attic() {
    hold(named);
}

#[test]
fn every_rule_can_fail() {
    let breaks = |rule: fn(&Source) -> Vec<String>, path: &str, text: &str, said: &str| {
        let found = rule(&Source::new(path, text));
        assert!(found.len() == 1 && found[0].contains(said), "{path}: {text:?} gives {found:?}");
    };
    breaks(
        one_way,
        "src/source/serial.rs",
        "//! S.\nuse crate::forward::Row;\n",
        "src/source/serial.rs:2: source imports forward",
    );
    breaks(
        one_way,
        "src/store/mod.rs",
        "use crate::{\n    reading::RunId,\n    config::Config,\n};",
        "store imports config",
    );
    breaks(one_way, "src/intake.rs", "use super::gateway::Plan;", "write crate::");
    breaks(one_way, "src/main.rs", "use biogate::store;", "main imports store");
    breaks(one_way, "src/attic.rs", "//! A.", "no row");
    breaks(at_home, "src/intake.rs", "fn f() { sled::open(\"x\"); }", "src/intake.rs:1: names sled");
    breaks(at_home, "src/source/mqtt.rs", "use native_tls::Identity;", "names native_tls");
    breaks(at_home, "src/cli/pair.rs", "use dbus::Path;", "names dbus");
    breaks(pure, "src/interpret/decode.rs", "\nuse std::{fs, time::Duration};", "decode.rs:2: names std::fs");
    breaks(pure, "src/resolve.rs", "use std::time::SystemTime;", "names SystemTime");
    breaks(introduced, "src/resolve.rs", "use std::fmt;", "src/resolve.rs:1: begins without //!");
    breaks(finished, "src/resolve.rs", concat!("//! R.\n// TO", "DO: more"), "src/resolve.rs:2: ");
    breaks(short, "src/resolve.rs", &"\n".repeat(501), "501 lines");
    breaks(named, "src/store/utils.rs", "", "an attic");
    let fine = "//! R: `sled::open`, crate::forward.\nuse rumqttc::tokio_native_tls::native_tls::Identity; const S: &str = \"crate::store\";";
    for rule in [one_way, at_home, introduced, finished, short, named] {
        assert_eq!(rule(&Source::new("src/source/mqtt.rs", fine)), Vec::<String>::new());
    }
}

fn one_way(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else { return Vec::new() };
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == room) else {
        return vec![source.broken(0, &format!("{room} has no row in the table of imports in tests/it/tidy.rs"))];
    };
    let mut found = Vec::new();
    for root in ["crate", "biogate"] {
        for at in words(&source.code, root) {
            for other in first_segments(&source.code[at + root.len()..], "") {
                let is_room = IMPORTS.iter().any(|(name, _)| *name == other);
                if is_room && other != room && !allowed.split(' ').any(|name| name == other) {
                    found.push(source.broken(at, &format!("{room} imports {other}; it may import only: {allowed}")));
                }
            }
        }
    }
    // A `super` that reaches the root would pass by the table.
    let depth = source.in_src().map_or(0, |path| path.trim_end_matches("/mod.rs").split('/').count());
    for (start, line) in line_starts(&source.code) {
        let path = line.trim_start_matches("pub ").strip_prefix("use ").unwrap_or_default();
        if depth > 0 && path.starts_with(&"super::".repeat(depth)) {
            found.push(source.broken(start, "reaches the root by super; write crate::"));
        }
    }
    found
}

fn at_home(source: &Source) -> Vec<String> {
    let Some(path) = source.in_src() else { return Vec::new() };
    let mut found = Vec::new();
    for (name, homes) in HOMES {
        if homes.iter().any(|home| path.starts_with(home)) {
            continue;
        }
        for at in words(&source.code, name) {
            let before = source.code[..at].trim_end();
            let is_path = source.code[at + name.len()..].starts_with("::");
            let is_use = before.ends_with("use") || before.ends_with("extern crate");
            if (is_path || is_use) && !before.ends_with("::") {
                found.push(source.broken(at, &format!("names {name}, whose home is src/{}", homes.join(" or src/"))));
            }
        }
    }
    found
}

fn pure(source: &Source) -> Vec<String> {
    let Some(room) = source.room().filter(|room| PURE.contains(room)) else { return Vec::new() };
    let code = source.code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut found = Vec::new();
    for name in IMPURE {
        let last = name.rsplit("::").next().unwrap_or(name);
        for at in words(code, last) {
            if !name.contains("::") || code[..at].ends_with("std::") {
                found.push(source.broken(at, &format!("names {name}; {room} has no IO, no clock and no async")));
            }
        }
    }
    for at in words(code, "std") {
        let segments = first_segments(&code[at + 3..], "std::");
        for name in segments.iter().filter(|name| code[at + 3..].starts_with("::{") && IMPURE.contains(&name.as_str()))
        {
            found.push(source.broken(at, &format!("names {name}; {room} has no IO, no clock and no async")));
        }
    }
    found
}

fn introduced(source: &Source) -> Vec<String> {
    if source.text.trim_start().starts_with("//!") {
        return Vec::new();
    }
    vec![source.broken(0, "begins without //! and a sentence that says what the module is")]
}

fn finished(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for word in UNFINISHED {
        for at in words(&source.text, word) {
            let line = source.text[..at].matches('\n').count() + 1;
            found.push(format!("{}:{line}: {word}: do it, or file it and say what holds today", source.path));
        }
    }
    found
}

fn short(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= LONGEST_FILE {
        return Vec::new();
    }
    vec![format!(
        "{}:{lines}: {lines} lines, at most {LONGEST_FILE}: split it by what its parts are about",
        source.path
    )]
}

fn named(source: &Source) -> Vec<String> {
    let parts = source.path.split('/').map(|part| part.trim_end_matches(".rs"));
    parts
        .filter(|part| ATTIC.contains(part))
        .map(|part| format!("{}:1: {part} is an attic: name what is inside", source.path))
        .collect()
}

/// Runs a rule over every file and says all that breaks it.
fn hold(rule: impl Fn(&Source) -> Vec<String>) {
    let broken: Vec<String> = all().iter().flat_map(rule).collect();
    assert!(broken.is_empty(), "{} place(s):\n{}", broken.len(), broken.join("\n"));
}

fn all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests"] {
        rust_files(&root.join(folder), &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 50, "only {} files found below {}", paths.len(), root.display());
    let read = |path: &PathBuf| {
        let shown = path.strip_prefix(root).unwrap().to_str().unwrap();
        Source::new(shown, &fs::read_to_string(path).unwrap())
    };
    paths.iter().map(read).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The files that a mod.rs declares for tests only.
fn test_modules(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let folder = source.path.strip_suffix("/mod.rs").unwrap_or(source.path.trim_end_matches(".rs"));
        for after in source.code.split("#[cfg(test)]\nmod ").skip(1) {
            if let Some((name, _)) = after.split_once(';').filter(|(name, _)| !name.contains(['{', '\n'])) {
                found.push(format!("{folder}/{name}.rs"));
            }
        }
    }
    found
}

/// Where `word` stands as a whole word.
fn words(text: &str, word: &str) -> Vec<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |at: &usize| !text[..*at].ends_with(part) && !text[at + word.len()..].starts_with(part);
    text.match_indices(word).map(|(at, _)| at).filter(whole).collect()
}

/// The first names of a path or of each path in its braces: `::{a::b, c}` gives a and c, each after `prefix`.
fn first_segments(after_root: &str, prefix: &str) -> Vec<String> {
    let Some(rest) = after_root.strip_prefix("::") else { return Vec::new() };
    let name = |text: &str| -> String {
        let text = text.trim_start();
        format!("{prefix}{}", text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
    };
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

fn line_starts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    })
}

/// The text with line comments, block comments and string literals made blank; lines keep their numbers.
fn blanked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#") => raw_string(rest),
            '"' => string(rest),
            // A quote as a character would open a string that is none.
            '\'' if rest.starts_with("'\"'") => 3,
            '\'' if rest.starts_with("'\\\"'") => 4,
            _ => 0,
        };
        let (blank, next) = rest.split_at(if taken == 0 { c.len_utf8() } else { taken });
        match taken {
            0 => out.push(c),
            _ => out.extend(blank.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        rest = next;
    }
    out
}

/// The length of a literal `"..."`.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a literal `r#"..."#`; 0 for a raw identifier.
fn raw_string(text: &str) -> usize {
    let marks = text[1..].chars().take_while(|c| *c == '#').count();
    if !text[1 + marks..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(marks));
    let start = marks + 2;
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}
