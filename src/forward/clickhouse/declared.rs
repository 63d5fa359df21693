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
    /// What it means, with an example; given by a statement of its own.
    pub(super) comment: String,
}

/// A table or view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Of a view those that have a comment, without their types. None of a table that takes another one's, but for these.
    pub(super) columns: Vec<Column>,
    /// What follows `ENGINE = `; empty for a view.
    pub(super) engine: String,
    /// The select of a view.
    pub(super) select: String,
}

const HEADS: [(&str, Kind); 5] = [
    ("CREATE TABLE IF NOT EXISTS ", Kind::Table),
    ("CREATE OR REPLACE TABLE ", Kind::Table),
    ("CREATE VIEW IF NOT EXISTS ", Kind::View),
    ("CREATE OR REPLACE VIEW ", Kind::View),
    ("CREATE MATERIALIZED VIEW IF NOT EXISTS ", Kind::Refreshed),
];

/// The clauses behind an engine, in the order in which they are written.
const CLAUSES: [&str; 4] = [" PARTITION BY ", " ORDER BY ", " TTL ", " SETTINGS "];

/// What is there once all these statements have run, in the order in which it was made.
pub(super) fn all(statements: &[String]) -> Vec<Declared> {
    fold(statements).0
}

/// The same, and the statements that were not understood.
fn fold(statements: &[String]) -> (Vec<Declared>, Vec<&str>) {
    let (mut made, mut unread) = (Vec::<Declared>::new(), Vec::new());
    for statement in statements {
        let text = on_one_line(statement);
        if let Some(declared) = Declared::read(statement) {
            match made.iter_mut().find(|earlier| earlier.name == declared.name) {
                None => made.push(declared),
                Some(earlier) if text.starts_with("CREATE OR REPLACE ") => *earlier = declared,
                // IF NOT EXISTS: the first one holds.
                Some(_) => {}
            }
        } else if let Some(rest) = DROPS.iter().find_map(|drop| text.strip_prefix(drop)) {
            made.retain(|earlier| Some(earlier.name.as_str()) != rest.split(' ').next());
        } else if altered(&mut made, &text).is_none() {
            unread.push(statement.as_str());
        }
    }
    (made, unread)
}

const DROPS: [&str; 2] = ["DROP TABLE IF EXISTS ", "DROP VIEW IF EXISTS "];

/// Carries out an `ALTER TABLE`: comments, and columns that a table gets later.
fn altered(made: &mut [Declared], text: &str) -> Option<()> {
    let (name, parts) = text.strip_prefix("ALTER TABLE ")?.split_once(' ')?;
    let parts = match parts.strip_prefix("ON CLUSTER ") {
        Some(on_cluster) => on_cluster.split_once(' ')?.1,
        None => parts,
    };
    let table = made.iter_mut().find(|earlier| earlier.name == name.trim_matches('`'))?;
    for part in items(parts) {
        if let Some(added) = part.strip_prefix("ADD COLUMN IF NOT EXISTS ") {
            let added = column(added)?;
            if !table.columns.iter().any(|column| column.name == added.name) {
                table.columns.push(added);
            }
            continue;
        }
        let (name, literal) = part.strip_prefix("COMMENT COLUMN IF EXISTS ")?.split_once(' ')?;
        let comment = unquoted(literal)?;
        match table.columns.iter_mut().find(|column| column.name == name) {
            Some(column) => column.comment = comment,
            None => {
                table.columns.push(Column { name: name.to_owned(), kind: String::new(), rest: String::new(), comment })
            }
        }
    }
    Some(())
}

/// What a literal says.
fn unquoted(literal: &str) -> Option<String> {
    let inner = literal.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut is_escaped = false;
    let said = inner.chars().filter(|c| {
        is_escaped = *c == '\\' && !is_escaped;
        !is_escaped
    });
    Some(said.collect())
}

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
    Some(Column { name: name.trim_matches('`').to_owned(), kind, rest, comment: String::new() })
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
    let (mut depth, mut in_literal, mut is_escaped) = (0_i32, false, false);
    text.char_indices().filter_map(move |(at, c)| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match c {
            _ if was_escaped => {}
            '\\' => is_escaped = true,
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
        let statements = super::super::migrations::statements("other");
        let (made, unread) = fold(&statements);
        assert_eq!(unread, [""; 0], "teach `altered` what they do, so that diff, cluster and dictionary know it too");
        for declared in made {
            let is_whole = match declared.kind {
                Kind::Table => !declared.columns.is_empty() && declared.first_key().is_some(),
                Kind::View | Kind::Refreshed => ["SELECT", "WITH"].iter().any(|word| declared.select.starts_with(word)),
            };
            assert!(is_whole, "{declared:?}");
        }
    }

    #[test]
    fn later_statements_add_columns_and_comments_and_replace_views() {
        let statements = [
            "CREATE TABLE IF NOT EXISTS t (a UUID) ENGINE = MergeTree ORDER BY a",
            "CREATE VIEW IF NOT EXISTS v AS SELECT a FROM t",
            "CREATE MATERIALIZED VIEW IF NOT EXISTS m REFRESH EVERY 5 MINUTE APPEND TO t AS SELECT 1 AS a",
            "ALTER TABLE t ADD COLUMN IF NOT EXISTS b Array(Tuple(x String, y UInt8)) DEFAULT [],\n  \
             COMMENT COLUMN IF EXISTS b 'Of b, and (\\'x\\',1)'",
            "CREATE OR REPLACE VIEW v AS SELECT b FROM t",
            "ALTER TABLE v COMMENT COLUMN IF EXISTS b 'The same'",
            "DROP VIEW IF EXISTS m",
        ]
        .map(str::to_owned);
        let (made, unread) = fold(&statements);
        assert_eq!(unread, [""; 0]);
        assert_eq!(made.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["t", "v"]);
        let b = &made[0].columns[1];
        assert_eq!(
            (b.kind.as_str(), b.rest.as_str(), b.comment.as_str()),
            ("Array(Tuple(x String, y UInt8))", "DEFAULT []", "Of b, and ('x',1)")
        );
        assert_eq!((made[1].select.as_str(), made[1].columns[0].comment.as_str()), ("SELECT b FROM t", "The same"));
        for unknown in
            ["ALTER TABLE t DROP COLUMN a", "ALTER TABLE other COMMENT COLUMN IF EXISTS a 'x'", "OPTIMIZE TABLE t"]
        {
            let statements = [statements[0].clone(), unknown.to_owned()];
            assert_eq!(fold(&statements).1, [unknown]);
        }
    }
}
