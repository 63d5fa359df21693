//! A statement with ClickHouse's parameters as Metabase takes it: `{days:UInt16}` becomes a template tag.
//!
//! Metabase puts a tag's value into the text as a literal, so the tag stands inside the cast that the parameter had. A number
//! that does not fit is then refused by the server, and never wraps.

/// What a tag holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text in quotes.
    Text,
    /// A number as it is.
    Number,
}

/// A statement as Metabase takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// With `{{tags}}`.
    pub text: String,
    /// The comment that it begins with, without its dashes.
    pub about: String,
    /// Name and kind of each parameter, in the order in which they first appear.
    pub parameters: Vec<(String, Kind)>,
}

/// Reads a statement. The error says what to write instead.
pub fn read(sql: &str) -> Result<Statement, String> {
    for (sign, meaning) in [("{{", "a tag"), ("[[", "an optional part")] {
        if sql.contains(sign) {
            return Err(format!("{sign} means {meaning} to Metabase: put a space between, or write {{name:Type}}"));
        }
    }
    let mut statement = Statement { text: String::new(), about: about(sql), parameters: Vec::new() };
    let mut rest = sql.trim_end();
    while let Some(at) = rest.find('{') {
        statement.text.push_str(&rest[..at]);
        let inside = rest[at + 1..].split('}').next().unwrap_or_default();
        match inside.split_once(':').filter(|(name, kind)| is_word(name) && is_word(kind)) {
            Some((name, kind)) => {
                let (kind, tag) = tag(name, kind)?;
                match statement.parameters.iter().find(|(known, _)| known == name) {
                    Some((_, before)) if *before != kind => {
                        return Err(format!("{{{name}}} is a text in one place and a number in another"));
                    }
                    Some(_) => {}
                    None => statement.parameters.push((name.to_owned(), kind)),
                }
                statement.text.push_str(&tag);
                rest = &rest[at + inside.len() + 2..];
            }
            None => {
                statement.text.push('{');
                rest = &rest[at + 1..];
            }
        }
    }
    statement.text.push_str(rest);
    Ok(statement)
}

fn tag(name: &str, kind: &str) -> Result<(Kind, String), String> {
    match kind {
        "String" => Ok((Kind::Text, format!("{{{{{name}}}}}"))),
        "UUID" => Ok((Kind::Text, format!("toUUID({{{{{name}}}}})"))),
        _ if kind.starts_with("UInt") || kind.starts_with("Int") => {
            Ok((Kind::Number, format!("accurateCast({{{{{name}}}}}, '{kind}')")))
        }
        other => Err(format!("{{{name}:{other}}} has no counterpart in Metabase: write String, UUID, Int or UInt")),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn about(sql: &str) -> String {
    let lines = sql.lines().map_while(|line| line.strip_prefix("--"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_tags_inside_their_casts() {
        let sql = "-- Of {user_id}, the last\n-- {days} days.\nSELECT {a:UInt16}, {hub:String} -- {x}\nWHERE u = {user_id:UUID} AND {a:UInt16} > 0\n";
        let statement = read(sql).unwrap();
        assert_eq!(statement.about, "Of {user_id}, the last {days} days.");
        let text = "SELECT accurateCast({{a}}, 'UInt16'), {{hub}} -- {x}\nWHERE u = toUUID({{user_id}}) AND accurateCast({{a}}, 'UInt16') > 0";
        assert!(statement.text.ends_with(text), "{}", statement.text);
        let names = [("a", Kind::Number), ("hub", Kind::Text), ("user_id", Kind::Text)];
        assert_eq!(statement.parameters, names.map(|(name, kind)| (name.to_owned(), kind)));
    }

    #[test]
    fn what_metabase_would_take_for_its_own_is_refused() {
        for (sql, said) in [
            ("SELECT [[1]]", "an optional part"),
            ("SELECT {{x}}", "a tag"),
            ("SELECT {x:Array}", "no counterpart"),
            ("SELECT {x:String}, {x:Int8}", "a text in one place"),
        ] {
            assert!(read(sql).unwrap_err().contains(said), "{sql}");
        }
    }
}
