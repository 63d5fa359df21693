//! PURE What a free statement may look like before it is sent.
//!
//! What keeps a statement from writing is `readonly = 1` and the rights of the reading user. This check is for what
//! these leave open: two functions that read files or ask other machines from a plain SELECT, the server's own tables
//! (other people's statements and their values are in them), and a second statement. It knows no grammar, so it cannot be led astray by one: semicolons, comments and backslashes are refused wherever
//! they stand, and so are the words below. Values that hold them are sent as parameters.

use serde_json::Value;

use crate::warehouse::escaped;

/// What a reading statement may begin with.
const FIRST: [&str; 7] = ["SELECT", "WITH", "EXPLAIN", "SHOW", "DESCRIBE", "DESC", "EXISTS"];

/// Functions and clauses that reach out of the tables. What of them `readonly = 1` refuses is here as well: one server
/// may be configured otherwise than the next.
const OUTSIDE: &[&str] = &[
    // files of the server's machine
    "file",
    "fileCluster",
    "filesystem",
    "outfile",
    "infile",
    "executable",
    "python",
    "sqlite",
    "catboostEvaluate",
    // other machines
    "url",
    "urlCluster",
    "remote",
    "remoteSecure",
    "cluster",
    "clusterAllReplicas",
    "mysql",
    "postgresql",
    "mongodb",
    "redis",
    "odbc",
    "jdbc",
    "bigquery",
    "ytsaurus",
    "arrowstream",
    "arrowFlight",
    "prometheusQuery",
    "prometheusQueryRange",
    "s3",
    "s3Cluster",
    "gcs",
    "oss",
    "cosn",
    "hdfs",
    "hdfsCluster",
    "azureBlobStorage",
    "azureBlobStorageCluster",
    // a statement inside a string, or a table whose name is put together
    "eval",
    "fuzzQuery",
    "viewExplain",
    "merge",
    "loop",
    // names as parameters would pass by this list
    "Identifier",
    // the server's own tables: what others ask is in them
    "system",
    "information_schema",
    "processlist",
    // what lies in the server beside the tables
    "dictionary",
    "dictionaries",
    "dictHas",
    "dictIsIn",
    "joinGet",
    "joinGetOrNull",
    "getServerSetting",
    "getMacro",
    "showCertificate",
    // the limits are this program's
    "settings",
    // the request's own headers, and time for nothing
    "getClientHTTPHeader",
    "currentRequestURL",
    "sleep",
    "sleepEachRow",
];

/// The beginnings of families of such functions: tables in lakes, the parts below tables, dictionaries, and questions to
/// language models.
const FAMILIES: &[&str] = &[
    "dictGet",
    "mergeTree",
    "iceberg",
    "deltaLake",
    "hudi",
    "paimon",
    "aiGenerate",
    "aiExtract",
    "aiClassify",
    "aiEmbed",
    "aiFilter",
    "aiRedact",
    "aiSimilarity",
    "aiTranslate",
];

/// Longest name of a parameter.
const LONGEST_NAME: usize = 64;

/// The statement as it is sent: without the lines of comment before it and without the semicolon after it.
pub fn checked(query: &str) -> Result<&str, String> {
    let mut rest = query.trim_start();
    while let Some(comment) = rest.strip_prefix("--") {
        rest = comment.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
    }
    let statement = rest.trim_end();
    let statement = statement.strip_suffix(';').map_or(statement, str::trim_end);
    let first: String = statement.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    if !FIRST.iter().any(|word| word.eq_ignore_ascii_case(&first)) {
        return Err(format!("a statement begins with {}; found {first:?}", FIRST.join(", ")));
    }
    for (found, what) in [
        (";", "a semicolon: one statement each time"),
        ("--", "a comment"),
        ("/*", "a comment"),
        ("#", "a comment"),
        ("\\", "a backslash"),
        ("\0", "a NUL"),
    ] {
        if statement.contains(found) {
            return Err(format!(
                "the statement holds {what}; leave it out, and send a value that holds it as a parameter"
            ));
        }
    }
    match words(statement).find(|word| is_outside(word)) {
        Some(word) => Err(format!(
            "the statement holds the word {word:?}, a way out of the tables; send a value that holds it as a parameter"
        )),
        None => Ok(statement),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// Whether a statement may not hold this word.
pub fn is_outside(word: &str) -> bool {
    let begins = |family: &&str| word.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family));
    OUTSIDE.iter().any(|name| name.eq_ignore_ascii_case(word)) || FAMILIES.iter().any(begins)
}

/// A parameter's name and value as they are sent. Types are the statement's: `{name:Type}`.
pub fn parameter(name: &str, value: &Value) -> Result<(String, String), String> {
    let is_name = name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(format!(
            "a parameter's name is made of letters, digits and _, at most {LONGEST_NAME}; found {name:?}"
        ));
    }
    let value = match value {
        Value::String(text) => escaped(text),
        // An array's strings are quoted, and the server reads nothing around them.
        other => text(name, other)?,
    };
    Ok((name.to_owned(), value))
}

fn text(name: &str, value: &Value) -> Result<String, String> {
    Ok(match value {
        Value::Null => {
            return Err(format!("parameter {name}: null is no value; leave it out of the statement (IS NULL)"));
        }
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            let items = items.iter().map(|item| text(name, item)).collect::<Result<Vec<_>, _>>()?;
            format!("[{}]", items.join(","))
        }
        Value::Object(_) => {
            return Err(format!("parameter {name}: an object is no value; write a string, number, boolean or array"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reading_statement_passes_without_what_surrounds_it() {
        for query in ["SELECT 1", " -- why\n-- and; how\nSELECT 1 ;\n", "select 1", "\n\tSELECT 1"] {
            assert!(checked(query).unwrap().eq_ignore_ascii_case("SELECT 1"), "{query:?}");
        }
        for query in [
            "WITH 1 AS a SELECT a",
            "SHOW TABLES",
            "describe events",
            "EXPLAIN SELECT 1",
            "SELECT urlish, profile FROM x",
        ] {
            assert_eq!(checked(query).unwrap(), query);
        }
    }

    #[test]
    fn what_is_not_one_reading_statement_is_refused() {
        for query in [
            "",
            ";",
            "-- only a comment",
            "INSERT INTO x SELECT 1",
            "DROP TABLE x",
            "SET readonly = 0",
            "SELECT_1",
            "SELECT 1; DROP TABLE x",
            "SELECT 1;;",
            "SELECT 1 -- x",
            "SELECT /* x */ 1",
            "SELECT 1 # x",
            "SELECT 'a\\'b'",
            "(SELECT 1)",
            "SELECT 1\0",
        ] {
            assert!(checked(query).is_err(), "{query:?}");
        }
    }

    #[test]
    fn no_spelling_of_a_way_out_passes() {
        for query in [
            "SELECT file('/etc/passwd')",
            "SELECT FILE ('x')",
            "SELECT `file`('x')",
            "SELECT \"file\"('x')",
            "SELECT file\u{a0}('x')",
            "SELECT * FROM url('http://x')",
            "SELECT 1 INTO OUTFILE 'x'",
            "SELECT * FROM eval('x')",
            "SELECT * FROM icebergS3('x')",
            "SELECT AIGenerate('x')",
            "SELECT `fi\\x6ce`('x')",
            "SELECT file/**/('x')",
            "SELECT * FROM System . query_log",
            "SELECT * FROM `system`.processes",
            "SELECT * FROM merge(concat('sys', 'tem'), 'query_log')",
            "SELECT * FROM {a:Identifier}.{b: identifier }",
            "SHOW PROCESSLIST",
            "SELECT dictGetString('d', 'a', 1)",
            "SELECT 1 SETTINGS max_result_rows = 0",
        ] {
            assert!(checked(query).is_err(), "{query:?}");
        }
    }

    #[test]
    fn parameters_become_text() {
        let sent = |value: Value| parameter("p", &value).map(|(_, text)| text);
        assert_eq!(sent("it's".into()).unwrap(), "it's");
        assert_eq!(sent(serde_json::json!(1.5)).unwrap(), "1.5");
        assert_eq!(sent(true.into()).unwrap(), "true");
        assert_eq!(sent(serde_json::json!(["it's", "a\\b", [1]])).unwrap(), "['it\\'s','a\\\\b',[1]]");
        assert!(sent(Value::Null).is_err() && sent(serde_json::json!({})).is_err());
        assert!(
            parameter("a-b", &1.into()).is_err()
                && parameter("", &1.into()).is_err()
                && parameter("1a", &1.into()).is_err()
        );
    }
}
