//! PURE What the statements of the schema declare: tables with their columns, engine and settings, and views.
//!
//! This is no SQL parser: it reads the form in which `deploy/clickhouse/migrations/` is written, and tests hold it
//! against every statement there.

/// What kind of thing a statement makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    View,
    /// A refreshable materialized view.
    Refreshed,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// As it is written.
    pub(super) kind: String,
    /// `MATERIALIZED ...`, `DEFAULT ...`, `CODEC(...)`; empty where there is nothing more.
    pub(super) rest: String,
}

/// A table or view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// None of a view, and of a table that takes another one's.
    pub(super) columns: Vec<Column>,
    /// What follows `ENGINE = `; empty for a view.
    pub(super) engine: String,
    /// The select of a view.
    pub(super) select: String,
}

const HEADS: [(&str, Kind); 3] = [
    ("CREATE TABLE IF NOT EXISTS ", Kind::Table),
    ("CREATE VIEW IF NOT EXISTS ", Kind::View),
    ("CREATE MATERIALIZED VIEW IF NOT EXISTS ", Kind::Refreshed),
];

/// The clauses behind an engine, in the order in which they are written.
const CLAUSES: [&str; 4] = [" PARTITION BY ", " ORDER BY ", " TTL ", " SETTINGS "];

impl Declared {
    /// What the statement declares; `None` where it makes no table and no view.
    pub(super) fn read(statement: &str) -> Option<Declared> {
        let text = on_one_line(statement);
        let (rest, kind) = HEADS.iter().find_map(|(head, kind)| Some((text.strip_prefix(head)?, *kind)))?;
        let (name, rest) = rest.split_once(' ')?;
        let name = name.trim_matches('`').to_owned();
        let (columns, engine, select) = match kind {
            Kind::Table => {
                let (before, engine) = rest.split_once("ENGINE = ")?;
                let columns = before.split_once('(').map_or("", |(_, list)| list.trim_end().trim_end_matches(')'));
                (items(columns).filter_map(column).collect(), engine.to_owned(), String::new())
            }
            Kind::View | Kind::Refreshed => {
                let select = rest.strip_prefix("AS ").or_else(|| Some(rest.split_once(" AS ")?.1))?;
                (Vec::new(), String::new(), select.to_owned())
            }
        };
        Some(Declared { kind, name, columns, engine, select })
    }

    /// The engine as the server names it, without keys and parameters.
    pub(super) fn engine_name(&self) -> &str {
        match self.kind {
            Kind::Table => self.engine.split([' ', '(']).next().unwrap_or_default(),
            Kind::View => "View",
            Kind::Refreshed => "MaterializedView",
        }
    }

    /// The engine with its parameters.
    pub(super) fn engine_call(&self) -> &str {
        let end = CLAUSES.iter().filter_map(|clause| self.engine.find(clause)).min().unwrap_or(self.engine.len());
        &self.engine[..end]
    }

    /// What stands behind ` ORDER BY ` and the like.
    pub(super) fn clause(&self, name: &str) -> Option<&str> {
        Self::clause_in(&self.engine, name)
    }

    /// The same of an engine as the server writes it.
    pub(super) fn clause_in<'a>(engine: &'a str, name: &str) -> Option<&'a str> {
        let after = &engine[engine.find(name)? + name.len()..];
        let end = CLAUSES.iter().filter_map(|clause| after.find(clause)).min().unwrap_or(after.len());
        Some(&after[..end])
    }

    /// The settings of the table, each `name=value` without spaces.
    pub(super) fn settings(&self) -> Vec<String> {
        Self::settings_in(&self.engine)
    }

    /// The same of an engine as the server writes it.
    pub(super) fn settings_in(engine: &str) -> Vec<String> {
        let list = Self::clause_in(engine, " SETTINGS ").unwrap_or_default();
        items(list).map(squeezed).filter(|item| !item.is_empty()).collect()
    }

    /// The first column of the sort key.
    pub(super) fn first_key(&self) -> Option<&str> {
        let key = self.clause(" ORDER BY ")?.trim_start_matches('(');
        key.split([',', ')', ' ']).next()
    }
}

fn column(item: &str) -> Option<Column> {
    let (name, rest) = item.trim().split_once(' ')?;
    if ["INDEX", "PROJECTION", "CONSTRAINT"].contains(&name) {
        return None;
    }
    let rest = rest.trim_start();
    let end = ends(rest, ' ').next().unwrap_or(rest.len());
    let (kind, rest) = (rest[..end].to_owned(), rest[end..].trim().to_owned());
    Some(Column { name: name.trim_matches('`').to_owned(), kind, rest })
}

/// Without comments, line ends and more than one space.
pub(super) fn on_one_line(statement: &str) -> String {
    let code = statement.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code));
    code.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// Without spaces and quotes of names.
pub(super) fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '`').collect()
}

/// What stands between the commas that are in no parentheses and no literal.
pub(super) fn items(list: &str) -> impl Iterator<Item = &str> {
    let mut from = 0;
    let ends = ends(list, ',').chain([list.len()]).collect::<Vec<_>>();
    ends.into_iter().map(move |end| {
        let item = &list[from..end];
        from = (end + 1).min(list.len());
        item.trim()
    })
}

/// Where this character stands in no parentheses and no literal.
fn ends(text: &str, wanted: char) -> impl Iterator<Item = usize> {
    let (mut depth, mut in_literal) = (0_i32, false);
    text.char_indices().filter_map(move |(at, c)| {
        match c {
            '\'' => in_literal = !in_literal,
            '(' | '[' if !in_literal => depth += 1,
            ')' | ']' if !in_literal => depth -= 1,
            _ => {}
        }
        (c == wanted && depth == 0 && !in_literal).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_with_its_columns_engine_and_settings() {
        let statement = "CREATE TABLE IF NOT EXISTS t (\n  a UUID, -- one, and\n  b Enum8('x, y'=1,'z'=2) DEFAULT 'z',\n  \
                         INDEX i b TYPE minmax,\n  c DateTime64(3,'UTC') CODEC(Delta(8), ZSTD(1))\n) ENGINE = \
                         ReplacingMergeTree(v)   -- why\nORDER BY (a, b)\nTTL c + INTERVAL 1 YEAR\nSETTINGS x = 1, y='q'";
        let table = Declared::read(statement).unwrap();
        let columns: Vec<_> =
            table.columns.iter().map(|c| (c.name.as_str(), c.kind.as_str(), c.rest.as_str())).collect();
        assert_eq!(
            columns,
            [
                ("a", "UUID", ""),
                ("b", "Enum8('x, y'=1,'z'=2)", "DEFAULT 'z'"),
                ("c", "DateTime64(3,'UTC')", "CODEC(Delta(8), ZSTD(1))")
            ]
        );
        assert_eq!((table.engine_name(), table.engine_call()), ("ReplacingMergeTree", "ReplacingMergeTree(v)"));
        assert_eq!((table.clause(" TTL "), table.first_key()), (Some("c + INTERVAL 1 YEAR"), Some("a")));
        assert_eq!(table.settings(), ["x=1", "y='q'"]);
    }

    #[test]
    fn a_view_is_its_select() {
        let view = Declared::read(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS v REFRESH EVERY 5 MINUTE APPEND TO t AS\nSELECT 1 AS a",
        );
        let view = view.unwrap();
        assert_eq!(
            (view.name.as_str(), view.select.as_str(), view.engine_name()),
            ("v", "SELECT 1 AS a", "MaterializedView")
        );
        assert_eq!(Declared::read("ALTER TABLE t COMMENT COLUMN a 'x'"), None);
    }

    #[test]
    fn every_statement_of_the_schema_is_understood() {
        for statement in super::super::migrations::statements("other") {
            let Some(declared) = Declared::read(&statement) else {
                assert!(statement.starts_with("ALTER TABLE "), "{statement}");
                continue;
            };
            let is_whole = match declared.kind {
                Kind::Table => !declared.columns.is_empty() && declared.first_key().is_some(),
                Kind::View | Kind::Refreshed => ["SELECT", "WITH"].iter().any(|word| declared.select.starts_with(word)),
            };
            assert!(is_whole, "{declared:?}");
        }
    }
}
