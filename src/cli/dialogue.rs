//! Questions to the person at the terminal: one line each, with what is taken when the line is empty.

use std::io::{BufRead, Write};

use anyhow::{Context, bail};

/// Where questions go and answers come from.
pub(super) struct Dialogue<R, W> {
    answers: R,
    questions: W,
    /// Nothing is asked: what is not given takes its default.
    silent: bool,
}

impl<R: BufRead, W: Write> Dialogue<R, W> {
    pub(super) fn new(answers: R, questions: W, silent: bool) -> Self {
        Dialogue { answers, questions, silent }
    }

    /// What `given` says, else what the person says, until `read` takes it. A wrong one that was given is an error.
    pub(super) fn ask<T>(
        &mut self,
        what: &str,
        option: &str,
        given: Option<&str>,
        default: Option<&str>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        if let Some(given) = given {
            return read(given).map_err(|why| anyhow::anyhow!("{option} {given}: {why}"));
        }
        if self.silent {
            let default = default.with_context(|| format!("{what} is not known; say it with {option}"))?;
            return read(default).map_err(|why| anyhow::anyhow!("{default}: {why}; say another with {option}"));
        }
        loop {
            let shown = default.filter(|default| !default.is_empty()).map_or_else(String::new, |it| format!(" [{it}]"));
            write!(self.questions, "{what}{shown}: ")?;
            self.questions.flush()?;
            let Some(line) = self.line()? else { bail!("{what} was not answered; say it with {option}") };
            let answer = match (line.as_str(), default) {
                ("", Some(default)) => default,
                (line, _) => line,
            };
            match read(answer) {
                Ok(value) => return Ok(value),
                Err(why) => self.say(&why)?,
            }
        }
    }

    /// Yes or no; no where nothing is asked or answered.
    pub(super) fn confirm(&mut self, question: &str) -> anyhow::Result<bool> {
        if self.silent {
            return Ok(false);
        }
        write!(self.questions, "{question} [y/N]: ")?;
        self.questions.flush()?;
        Ok(self.line()?.is_some_and(|line| matches!(line.to_ascii_lowercase().as_str(), "y" | "yes")))
    }

    /// A line for the person.
    pub(super) fn say(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.questions, "{text}")?)
    }

    fn line(&mut self) -> anyhow::Result<Option<String>> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).context("reading the answer")?;
        Ok((read > 0).then(|| line.trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u32, String> {
        text.parse().map_err(|_| format!("\"{text}\" is no number"))
    }

    #[test]
    fn a_wrong_answer_is_asked_again_and_an_empty_one_takes_the_default() {
        let mut said = Vec::new();
        let mut dialogue = Dialogue::new(&b"x\n7\n\n"[..], &mut said, false);
        assert_eq!(dialogue.ask("how many", "--many", None, Some("3"), number).unwrap(), 7);
        assert_eq!(dialogue.ask("how many", "--many", None, Some("3"), number).unwrap(), 3);
        let ended = dialogue.ask("how many", "--many", None, Some("3"), number).unwrap_err().to_string();
        assert!(ended.contains("--many"), "{ended}");
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("how many [3]: \"x\" is no number\nhow many [3]: "), "{said}");
    }

    #[test]
    fn what_was_given_is_not_asked_and_silence_takes_the_default() {
        let mut said = Vec::new();
        let mut dialogue = Dialogue::new(&b""[..], &mut said, true);
        assert_eq!(dialogue.ask("how many", "--many", Some("5"), None, number).unwrap(), 5);
        assert_eq!(dialogue.ask("how many", "--many", None, Some("3"), number).unwrap(), 3);
        assert!(dialogue.ask("how many", "--many", None, None, number).is_err());
        assert!(dialogue.ask("how many", "--many", Some("x"), None, number).is_err());
        assert!(!dialogue.confirm("sure?").unwrap());
        assert_eq!(said, b"");
    }
}
