//! A view: its columns, and the statement that creates it.

/// With whose grants a view reads the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights<'a> {
    /// Those of this user: readers of the view need none on the tables.
    Definer(&'a str),
    /// Those of the reader: nobody sees more than they may already read.
    Reader,
}

/// A view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its name in the `bi` database.
    pub name: String,
    /// What it shows, in a sentence.
    pub comment: String,
    pub(super) columns: Vec<ViewColumn>,
    /// The table that it reads.
    pub(super) table: &'static str,
    /// What follows the columns of the `SELECT`.
    pub(super) from: String,
}

/// A column of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ViewColumn {
    name: String,
    kind: &'static str,
    comment: String,
    pub(super) expression: String,
}

impl View {
    /// The statement that creates or replaces it in the database `bi`.
    pub fn create(&self, bi: &str, rights: Rights<'_>) -> String {
        let declared: Vec<_> = self
            .columns
            .iter()
            .map(|c| format!("    `{}` {} COMMENT '{}'", c.name, c.kind, escaped(&c.comment)))
            .collect();
        let selected: Vec<_> =
            self.columns.iter().map(|c| format!("{} AS `{}`", c.expression, c.name)).collect();
        let security = match rights {
            Rights::Definer(definer) => format!("DEFINER = {definer} SQL SECURITY DEFINER"),
            Rights::Reader => "SQL SECURITY INVOKER".to_owned(),
        };
        format!(
            "CREATE OR REPLACE VIEW {bi}.`{name}`\n(\n{declared}\n)\n{security}\n\
             AS SELECT {selected}\n{from}\nCOMMENT '{comment}'",
            name = self.name,
            declared = declared.join(",\n"),
            selected = selected.join(", "),
            from = self.from,
            comment = escaped(&self.comment),
        )
    }

    /// The columns of the table that it reads; each is written as `T.…`.
    pub(super) fn reads(&self) -> impl Iterator<Item = &str> {
        let texts = self.columns.iter().map(|column| column.expression.as_str()).chain([self.from.as_str()]);
        let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        texts.flat_map(|text| text.split("T.").skip(1)).map(move |rest| {
            let name = rest.strip_prefix('`').unwrap_or(rest);
            &name[..name.find(|c| !is_in_name(c)).unwrap_or(name.len())]
        })
    }
}

/// A column of the table that the view reads. The alias of the table is in upper case, which no declared name
/// is: a dimension may be called `t`.
pub(super) fn of(column: &str) -> String {
    format!("T.`{column}`")
}

pub(super) fn column(name: &str, kind: &'static str, comment: &str, expression: &str) -> ViewColumn {
    ViewColumn { name: name.to_owned(), kind, comment: comment.to_owned(), expression: expression.to_owned() }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}
