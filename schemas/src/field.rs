//! A declared field: a field of `props` that is also a typed column of the raw table.
//!
//! Reading a path in every `props` takes 38 times as long as reading a column (a million rows, ClickHouse 26.7), so
//! fields that people query get a column. `props` still has the field as it was sent; rollups, backfill and audit read
//! the field from `props`. Invariant: the name of a declared field needs no quotes in SQL.

use std::fmt;

use crate::named_enum::named_enum;
use crate::prop_path::PropPath;

/// One declared field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The name; the column is called `prop_<name>`.
    pub name: String,
    /// The path in `props`.
    pub path: PropPath,
    /// The type of the field's values.
    pub kind: FieldType,
}

named_enum! {
    /// The type of a field. A value of another type is stored as the default of the column.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum FieldType {
        /// JSON strings.
        String = "string",
        /// Whole numbers that fit into an `i64`. If written with a fraction or an exponent (`1.0`, `1e3`), they must be
        /// between -2^53 and 2^53.
        Int = "int",
        /// Numbers.
        Float = "float",
        /// `true` and `false`.
        Bool = "bool",
        /// Times: text in any form that `client_time` accepts, or a whole number of milliseconds since 1970.
        Time = "time",
    }

    /// All types.
    pub const ALL;

    /// The name of the type in a declaration.
    pub fn name;
}

impl FieldType {
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

    /// The SQL of the column's default: the value in rows whose event lacks the field, and in rows that are older than
    /// the column.
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
    /// The name of the field's column.
    pub fn column(&self) -> String {
        format!("prop_{}", self.name)
    }

    /// The statement that adds the field's column to the raw table.
    pub fn add_column(&self) -> String {
        format!(
            "ALTER TABLE events ADD COLUMN IF NOT EXISTS {} {} DEFAULT {} COMMENT '{}'",
            self.column(),
            self.kind.column_type(),
            self.kind.default(),
            self.comment().replace('\'', "\\'"),
        )
    }

    /// The comment of the column.
    pub fn comment(&self) -> String {
        format!("field props.{} if it is a {}, else the default", self.path, self.kind.name())
    }
}

/// Writes the lines below `[[field]]` that declare the field in `ROLLUPS_FILE`.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, path, kind } = self;
        writeln!(f, "name = \"{name}\"")?;
        writeln!(f, "path = \"{path}\"")?;
        writeln!(f, "type = \"{}\"", kind.name())
    }
}
