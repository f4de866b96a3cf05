//! A declared field: a field of `props` that is a typed column of the raw table too.
//!
//! Reading a path of every `props` takes 38 times as long as reading a column (a million rows, ClickHouse 26.7),
//! so what people ask for is one. `props` keeps the field as it was sent; rollups, backfill and audit read it there.
//! Invariant: names can stand in SQL as they are.

use std::fmt;

use crate::rollup::PropPath;

/// One declared field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name: the column is `prop_<name>`.
    pub name: String,
    /// Where it is in `props`.
    pub path: PropPath,
    /// What its values are.
    pub kind: Kind,
}

/// What the values of a field are. A value of another kind is stored as the default of the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// JSON strings.
    String,
    /// Whole numbers of 64 bits, however they are written: 1, 1.0 and 1e3.
    Int,
    /// Numbers.
    Float,
    /// `true` and `false`.
    Bool,
    /// Times in the forms of `client_time`.
    Time,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::String, Self::Int, Self::Float, Self::Bool, Self::Time];

    /// Its name in a declaration.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Time => "time",
        }
    }

    /// ClickHouse type of the column.
    pub fn column_type(self) -> &'static str {
        match self {
            Self::String => "String",
            Self::Int => "Int64",
            Self::Float => "Float64",
            Self::Bool => "Bool",
            Self::Time => "DateTime64(3, 'UTC')",
        }
    }

    /// What older rows have, and rows without the field.
    fn default(self) -> &'static str {
        match self {
            Self::String => "''",
            Self::Int | Self::Float => "0",
            Self::Bool => "false",
            Self::Time => "toDateTime64(0, 3, 'UTC')",
        }
    }
}

impl Field {
    /// Name of its column.
    pub fn column(&self) -> String {
        format!("prop_{}", self.name)
    }

    /// The statement that gives the raw table its column.
    pub fn add_column(&self) -> String {
        format!(
            "ALTER TABLE events ADD COLUMN IF NOT EXISTS {} {} DEFAULT {} COMMENT '{}'",
            self.column(),
            self.kind.column_type(),
            self.kind.default(),
            self.comment().replace('\'', "\\'"),
        )
    }

    /// What the column holds, in a phrase.
    pub fn comment(&self) -> String {
        format!(
            "field props.{} if it is a {}, else the default",
            self.path.steps().join("."),
            self.kind.name()
        )
    }
}

/// Its lines below `[[field]]`.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, path, kind } = self;
        writeln!(f, "name = \"{name}\"")?;
        writeln!(f, "path = \"{}\"", path.steps().join("."))?;
        writeln!(f, "type = \"{}\"", kind.name())
    }
}
