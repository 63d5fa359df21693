//! What an answer means: delivered, refused for good because of the data, to be split, or to be tried again. Pure.

use hyper::StatusCode;

use crate::forward::refusal::{Refusal, Trouble};

use super::http::Answer;

/// What becomes of the rows that were sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    /// At least one row is refused for what it is. Unchanged bytes are refused again.
    Data(String),
    /// The same rows in smaller requests may pass (413).
    TooLarge(String),
    /// Too many months in one insert.
    Partitions,
    /// Time or a person may mend it. A refusal in doubt: the rows may nevertheless have been stored.
    Again(Refusal),
    /// The server's memory does not suffice for so many rows, or for what else it does.
    Heavy(Refusal),
}

/// Exceptions that blame the values themselves. Whatever is not listed is tried again: a row that waits can still be
/// saved, and a whole queue refused because of a new code could not. Broken bodies (27, 33, 40) are not listed: our
/// bytes are well-formed, so the way cut them.
const DATA: &[i32] = &[
    6,   // CANNOT_PARSE_TEXT
    26,  // CANNOT_PARSE_QUOTED_STRING
    38,  // CANNOT_PARSE_DATE
    41,  // CANNOT_PARSE_DATETIME
    69,  // ARGUMENT_OUT_OF_BOUND
    70,  // CANNOT_CONVERT_TYPE
    72,  // CANNOT_PARSE_NUMBER
    117, // INCORRECT_DATA: a JSON column that cannot take the metadata
    128, // TOO_LARGE_ARRAY_SIZE
    131, // TOO_LARGE_STRING_SIZE
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    395, // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO: a check in a view
    407, // DECIMAL_OVERFLOW
    469, // VIOLATED_CONSTRAINT
    691, // UNKNOWN_ELEMENT_OF_ENUM
];

const TOO_MANY_PARTS: i32 = 252;
const MEMORY_LIMIT: i32 = 241;
/// How the second meaning of 252 begins.
const TOO_MANY_PARTITIONS: &str = "Too many partitions for single INSERT block";
/// So much of a server's text is kept.
const MOST_TEXT: usize = 500;

/// Judges the answer to an insert. `who` names user, database and table for the texts.
pub(super) fn judge(answer: &Answer, who: &Who<'_>) -> Verdict {
    let code = answer.exception.or_else(|| code_in(&answer.body));
    let text = shorten(&answer.body);
    match (answer.status, code) {
        (StatusCode::OK, None) if answer.from_clickhouse => Verdict::Delivered,
        (StatusCode::OK, None) => again(Trouble::Peer, format!("{} answers, but is no ClickHouse", who.server)),
        (_, Some(code)) if DATA.contains(&code) => Verdict::Data(text),
        (_, Some(TOO_MANY_PARTS)) if answer.body.contains(TOO_MANY_PARTITIONS) => Verdict::Partitions,
        (_, Some(code)) => exception(code, &text, answer, who),
        (StatusCode::PAYLOAD_TOO_LARGE, None) => {
            Verdict::TooLarge(format!("{} refuses the size of the request", who.server))
        }
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, None) => {
            let reason = format!("{} has too much to do ({})", who.server, answer.status);
            overload(answer, reason)
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => {
            again(Trouble::Access, format!("{} refuses {} ({})", who.server, who.user, answer.status))
        }
        // A gateway in between that gave up, or a failure without a word: the insert may have been carried out.
        (status, None) => {
            let refusal = Refusal::new(Trouble::Peer, format!("{} answers {status}", who.server));
            Verdict::Again(if status.is_server_error() { refusal } else { refusal.not_arrived() })
        }
    }
}

/// Names for the texts.
#[derive(Debug)]
pub(super) struct Who<'a> {
    pub(super) server: &'a str,
    pub(super) user: &'a str,
    pub(super) database: &'a str,
    pub(super) table: &'a str,
}

fn exception(code: i32, text: &str, answer: &Answer, who: &Who<'_>) -> Verdict {
    let Who { server, user, database, table } = who;
    match code {
        192..=195 | 516 => again(
            Trouble::Access,
            format!(
                "{server} refuses {user}: wrong password or no such user; check user and password_file (code {code})"
            ),
        ),
        164 | 291 | 497 => again(
            Trouble::Access,
            format!("{user} has no right to insert into {database}.{table}; GRANT INSERT (code {code})"),
        ),
        81 => again(
            Trouble::Schema,
            format!("database {database} does not exist on {server}; `biogate schema apply` makes it"),
        ),
        60 => again(
            Trouble::Schema,
            format!("table {database}.{table} does not exist on {server}; `biogate schema apply` makes it"),
        ),
        10 | 16 | 47 => again(
            Trouble::Schema,
            format!("table {database}.{table} lacks a column that events have; `biogate check` names it (code {code})"),
        ),
        115 => again(
            Trouble::Schema,
            format!("{server} is too old, it does not know a setting that exactness needs: {text}"),
        ),
        MEMORY_LIMIT => {
            let reason = format!("{server} has too little memory: {text}");
            Verdict::Heavy(Refusal::new(Trouble::Heavy, reason).not_arrived())
        }
        // Parts, simultaneous queries, timeouts of its own: the server says that it is busy.
        TOO_MANY_PARTS | 202 | 203 | 473 => overload(answer, format!("{server} has too much to do: {text}")),
        243 => again(Trouble::Peer, format!("the disk of {server} is full: {text}")),
        242 => again(Trouble::Peer, format!("table {database}.{table} is read-only for now: {text}")),
        _ => Verdict::Again(Refusal::new(Trouble::Peer, format!("{server} failed: {}", named(code, text)))),
    }
}

fn again(trouble: Trouble, reason: String) -> Verdict {
    Verdict::Again(Refusal::new(trouble, reason).not_arrived())
}

fn overload(answer: &Answer, reason: String) -> Verdict {
    Verdict::Again(Refusal::new(Trouble::Overload, reason).not_arrived().asked(answer.retry_after))
}

/// `Code: 60. DB::Exception: ...`, where a proxy ate the header.
pub(super) fn code_in(body: &str) -> Option<i32> {
    if !body.contains("DB::") {
        return None;
    }
    let digits = &body[body.find("Code: ")? + 6..];
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A code with its name, without the text between: that may quote the rows, and reasons go into the log.
fn named(code: i32, text: &str) -> String {
    let is_name =
        |part: &&str| part.len() > 3 && part.bytes().all(|c| c.is_ascii_uppercase() || c == b'_' || c.is_ascii_digit());
    match text.rsplit(['(', ')']).find(is_name) {
        Some(name) => format!("code {code} {name}"),
        None => format!("code {code}"),
    }
}

/// The first line, bounded.
pub(super) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(MOST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const WHO: Who<'_> =
        Who { server: "http://db:8123", user: "user gw", database: "biometrics", table: "biometric_events" };

    fn answer(status: u16, exception: Option<i32>, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        let retry_after = Some(Duration::from_secs(7));
        Answer {
            status,
            exception,
            retry_after,
            from_clickhouse: exception.is_some() || status == 200,
            body: body.into(),
        }
    }

    fn trouble(verdict: Verdict) -> (Trouble, Option<Duration>, bool) {
        let (Verdict::Again(refusal) | Verdict::Heavy(refusal)) = verdict else { panic!("{verdict:?}") };
        (refusal.trouble, refusal.asked, refusal.in_doubt)
    }

    #[test]
    fn both_meanings_of_252_are_told_apart() {
        let parts = "Code: 252. DB::Exception: Too many parts (3000). Merges are processing significantly slower";
        let asked = Some(Duration::from_secs(7));
        assert_eq!(trouble(judge(&answer(500, Some(252), parts), &WHO)), (Trouble::Overload, asked, false));
        let partitions = "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100).";
        assert_eq!(judge(&answer(500, Some(252), partitions), &WHO), Verdict::Partitions);
        assert_eq!(judge(&answer(500, None, partitions), &WHO), Verdict::Partitions, "a proxy ate the header");
    }

    #[test]
    fn a_reason_for_the_log_quotes_no_row() {
        let text = "Code: 999. DB::Exception: row (value=180): broke. (SOME_ERROR) (version 26.9.2.1)";
        let Verdict::Again(refusal) = judge(&answer(500, Some(999), text), &WHO) else { panic!() };
        assert_eq!(refusal.reason, "http://db:8123 failed: code 999 SOME_ERROR");
    }

    #[test]
    fn what_may_pass_is_no_refusal_of_the_data() {
        for (status, code, expected) in [
            (403, Some(516), Trouble::Access),
            (404, Some(60), Trouble::Schema),
            (404, Some(81), Trouble::Schema),
            (503, None, Trouble::Overload),
            (429, None, Trouble::Overload),
            (500, Some(241), Trouble::Heavy),
            (502, None, Trouble::Peer),
            (500, Some(999), Trouble::Peer),
            (400, Some(33), Trouble::Peer),
        ] {
            assert_eq!(trouble(judge(&answer(status, code, "Code: x"), &WHO)).0, expected, "{status} {code:?}");
        }
        assert_eq!(judge(&answer(500, Some(469), "Constraint"), &WHO), Verdict::Data("Constraint".into()));
        let mut portal = answer(200, None, "<html>Welcome to the hotel");
        assert_eq!(judge(&portal, &WHO), Verdict::Delivered);
        portal.from_clickhouse = false;
        assert_eq!(trouble(judge(&portal, &WHO)).0, Trouble::Peer);
    }
}
