//! A view: its columns, and the statement that creates it.

/// The users whose rights the views use to read tables. Neither can log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definers<'a> {
    /// The definer of all views except `freshness`.
    pub views: &'a str,
    /// The definer of the view `freshness`, also in the database of each tenant. The definer of a tenant's other views
    /// could not read the table `progress`, which `freshness` reads: its row policy filters every table by the column
    /// `tenant`, and `progress` has no such column.
    pub freshness: &'a str,
}

impl Definers<'static> {
    /// The default names.
    pub const DEFAULT: Self = Self { views: "bi_owner", freshness: "bi_freshness" };
}

/// Whose rights the views use to read the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights<'a> {
    /// The rights of these users: readers of a view need no rights on the tables.
    Definers(Definers<'a>),
    /// The rights of the reader: a view shows a reader only what the reader may also read in the tables.
    Reader,
}

/// Which of the [`Definers`] is the definer of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Views,
    Freshness,
}

/// The types of columns: only types that all BI tools read in the same way. No column is nullable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    /// Also the type of counts: some tools have no unsigned integers, and Int64 and UInt64 have no common type.
    Int64,
    Float64,
    /// The type of days, weeks and months. If a day were a `DateTime`, a tool in another time zone could show it as the
    /// previous or the next day.
    Date,
    DateTime,
    /// With milliseconds.
    DateTime64,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::String => "String",
            Self::Int64 => "Int64",
            Self::Float64 => "Float64",
            Self::Date => "Date",
            Self::DateTime => "DateTime('UTC')",
            Self::DateTime64 => "DateTime64(3, 'UTC')",
        }
    }
}

/// A view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The name of the view, without its database.
    pub name: String,
    /// What the view shows, in a sentence.
    pub comment: String,
    pub(super) owner: Owner,
    pub(super) columns: Vec<ViewColumn>,
    /// The table that the view reads.
    pub(super) table: &'static str,
    /// The rest of the `SELECT`, after its columns.
    pub(super) from: String,
}

/// A column of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ViewColumn {
    name: String,
    kind: Kind,
    comment: String,
    pub(super) expression: String,
}

impl View {
    /// The statement that creates or replaces the view in the database that `bi` names.
    pub fn create(&self, bi: &str, rights: Rights<'_>) -> String {
        let declared: Vec<_> = self
            .columns
            .iter()
            .map(|c| format!("    `{}` {} COMMENT '{}'", c.name, c.kind.name(), escaped(&c.comment)))
            .collect();
        let selected: Vec<_> =
            self.columns.iter().map(|c| format!("{} AS `{}`", c.expression, c.name)).collect();
        let security = match (rights, self.owner) {
            (Rights::Definers(Definers { views: definer, .. }), Owner::Views)
            | (Rights::Definers(Definers { freshness: definer, .. }), Owner::Freshness) => {
                format!("DEFINER = {} SQL SECURITY DEFINER", identifier(definer))
            }
            (Rights::Reader, _) => "SQL SECURITY INVOKER".to_owned(),
        };
        format!(
            "CREATE OR REPLACE VIEW {bi}.`{name}`\n(\n{declared}\n)\n{security}\n\
             AS SELECT {selected}\n{from}\nCOMMENT '{comment}'",
            bi = identifier(bi),
            name = self.name,
            declared = declared.join(",\n"),
            selected = selected.join(", "),
            from = self.from,
            comment = escaped(&self.comment),
        )
    }

    /// The columns of the view, each as `view.column type`.
    pub fn interface(&self) -> impl Iterator<Item = String> {
        self.columns.iter().map(|column| format!("{}.{} {}", self.name, column.name, column.kind.name()))
    }

    /// The names of the columns that the view reads from its table. In the view's SQL, each is written as `T.…`.
    pub(super) fn reads(&self) -> impl Iterator<Item = &str> {
        let texts = self.columns.iter().map(|column| column.expression.as_str()).chain([self.from.as_str()]);
        let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        texts.flat_map(|text| text.split("T.").skip(1)).map(move |rest| {
            let name = rest.strip_prefix('`').unwrap_or(rest);
            &name[..name.find(|c| !is_in_name(c)).unwrap_or(name.len())]
        })
    }
}

/// A column of the table that the view reads. The alias `T` of the table is upper case, so that it differs from every
/// column: declared names are lower case, and a dimension may be called `t`.
pub(super) fn of(column: &str) -> String {
    format!("T.`{column}`")
}

/// A LowCardinality column of the table as a plain `String`. The expression of a view's column must have exactly the
/// declared type. Otherwise ClickHouse rewrites `x != ''` to read a subcolumn of `x` that the query of the view does
/// not have, and the reader gets an error (ClickHouse pull request 113057).
pub(super) fn text_of(column: &str) -> String {
    format!("CAST({}, 'String')", of(column))
}

pub(super) fn column(name: &str, kind: Kind, comment: &str, expression: &str) -> ViewColumn {
    ViewColumn { name: name.to_owned(), kind, comment: comment.to_owned(), expression: expression.to_owned() }
}

/// A name in SQL, quoted if necessary: the name of a tenant may have a hyphen.
pub fn identifier(name: &str) -> String {
    if name.contains('-') { format!("`{name}`") } else { name.to_owned() }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}
