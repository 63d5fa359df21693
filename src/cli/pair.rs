//! `biogate pair`: makes the bond that a sensor asks for, with the person at the terminal.
// Printing is what this command is for.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use tokio::sync::mpsc;

use super::surroundings;
use crate::config::{Config, Link};
use crate::source::ble::pairing::{self, Paired, Question};

/// Arguments of `pair`.
#[derive(Debug, Args)]
pub(super) struct PairArgs {
    /// A device entry's name, or an address as A0:9E:1A:00:11:22
    device: String,
}

/// Pairs, asking the person what BlueZ asks.
pub(super) async fn run(arguments: PairArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let config = surroundings::config_if_any(file)?;
    let address = address_of(&arguments.device, config.as_ref())?;
    let adapters = config.map(|config| config.ble.adapters).unwrap_or_default();
    println!("pairing with {address}; hold the sensor's pairing button if it has one");
    let (questions, mut asked) = mpsc::channel(8);
    let mut pairing = std::pin::pin!(pairing::pair(&address, &adapters, questions));
    let mut answers = lines_of_stdin();
    let mut open = None;
    let paired = loop {
        tokio::select! {
            paired = &mut pairing => break paired,
            Some(question) = asked.recv() => open = put(question),
            // No more lines: whatever is open is dropped, which is a no.
            line = answers.recv(), if open.is_some() => open = match (open.take(), line) {
                (Some(question), Some(line)) => answer(question, line.trim()),
                _ => None,
            },
        }
    };
    match paired.with_context(|| format!("pairing with {}", arguments.device))? {
        Paired::Now => println!("paired with {address}; bluetoothd keeps the bond"),
        Paired::Before => println!("{address} was paired already; `bluetoothctl remove {address}` forgets the bond"),
    }
    Ok(ExitCode::SUCCESS)
}

/// An address, or that of the entry of this name.
fn address_of(device: &str, config: Option<&Config>) -> anyhow::Result<String> {
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if device.split(':').count() == 6 && device.split(':').all(is_byte) {
        return Ok(device.to_ascii_uppercase());
    }
    let entry = config.and_then(|config| config.devices.iter().find(|entry| *entry.name == *device));
    match entry.map(|entry| &entry.link) {
        Some(Link::Ble { target, .. }) if target.starts_with("name:") => {
            bail!("{device} is named by {target}, which may be any such sensor; write its address (see `biogate scan`)")
        }
        Some(Link::Ble { target, .. }) => Ok(target.to_ascii_uppercase()),
        Some(Link::Serial { .. } | Link::Mqtt { .. }) => {
            bail!("{device} is no Bluetooth device; nothing is to be paired")
        }
        None => bail!("there is no device entry \"{device}\"; write its name, or an address as A0:9E:1A:00:11:22"),
    }
}

/// Says the question; one that wants an answer stays open.
fn put(question: Question) -> Option<Question> {
    match &question {
        Question::Show(text) => println!("type {text} on the sensor, or see that it shows the same"),
        Question::Passkey(_) => println!("which number does the sensor show?"),
        Question::Pin(_) => println!("which PIN is printed on the sensor? (often 0000)"),
        Question::Same(passkey, _) => println!("does the sensor show {passkey:06}? [y/N]"),
        Question::Cancelled => println!("the sensor asks no more"),
    }
    match question {
        Question::Show(_) | Question::Cancelled => None,
        open => Some(open),
    }
}

/// Answers it; one that cannot be answered so stays open.
fn answer(question: Question, line: &str) -> Option<Question> {
    // Who asked may have given up meanwhile.
    let _nobody_waits = match question {
        Question::Passkey(to) => match line.parse() {
            Ok(passkey) if passkey <= 999_999 => to.send(passkey).is_err(),
            _ => return put(Question::Passkey(to)),
        },
        Question::Pin(to) if line.is_empty() || line.len() > 16 => return put(Question::Pin(to)),
        Question::Pin(to) => to.send(line.to_owned()).is_err(),
        Question::Same(_, to) => to.send(matches!(line.to_ascii_lowercase().as_str(), "y" | "yes")).is_err(),
        Question::Show(_) | Question::Cancelled => false,
    };
    None
}

/// Read by a thread of its own, which ends with the process: a read from a terminal cannot be called off.
fn lines_of_stdin() -> mpsc::Receiver<String> {
    let (lines, read) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    read
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn answers_go_where_they_were_asked_and_wrong_ones_are_asked_again() {
        let (to, mut answered) = oneshot::channel();
        let open = answer(Question::Passkey(to), "12x").unwrap();
        assert!(answer(answer(open, "1000000").unwrap(), "012345").is_none());
        assert_eq!(answered.try_recv().unwrap(), 12_345);
        let (to, mut answered) = oneshot::channel();
        assert!(answer(answer(Question::Pin(to), "").unwrap(), "0000").is_none());
        assert_eq!(answered.try_recv().unwrap(), "0000");
        for (line, agreed) in [("y", true), ("Yes", true), ("", false), ("n", false)] {
            let (to, mut answered) = oneshot::channel();
            assert!(answer(Question::Same(7, to), line).is_none());
            assert_eq!(answered.try_recv().unwrap(), agreed);
        }
        assert!(put(Question::Show("123456".into())).is_none());
    }

    #[test]
    fn a_device_is_named_by_its_address_or_its_entry() {
        assert_eq!(address_of("a0:9e:1a:00:11:22", None).unwrap(), "A0:9E:1A:00:11:22");
        assert!(address_of("strap", None).unwrap_err().to_string().contains("no device entry"));
    }
}
